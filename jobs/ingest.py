"""Raw files of every survey in, HATS tables out.

spark-submit jobs/ingest.py --config config.toml [--profile cluster] [--set key=value ...] [--overwrite]
"""

from stellarml.cli.submit import submitted

if __name__ == "__main__":
    submitted(__doc__, "ingest")
