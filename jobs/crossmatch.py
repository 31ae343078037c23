"""Stars and photometry matched one to one.

spark-submit jobs/crossmatch.py --config config.toml [--profile cluster] [--set key=value ...] [--overwrite]
"""

from stellarml.cli.submit import submitted

if __name__ == "__main__":
    submitted(__doc__, "crossmatch")
