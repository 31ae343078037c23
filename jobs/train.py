"""The network fitted on the driver, and its bundle.

spark-submit jobs/train.py --config config.toml [--profile cluster] [--set key=value ...] [--overwrite]
"""

from stellarml.cli.submit import submitted

if __name__ == "__main__":
    submitted(__doc__, "train")
