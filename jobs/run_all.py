"""The whole chain in one Spark application.

spark-submit jobs/run_all.py --config config.toml [--profile cluster] [--set key=value ...] [--overwrite]
"""

from stellarml.cli.submit import submitted

if __name__ == "__main__":
    submitted(__doc__)
