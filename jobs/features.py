"""The labelled stars that pass every cut, with features and split.

spark-submit jobs/features.py --config config.toml [--profile cluster] [--set key=value ...] [--overwrite]
"""

from stellarml.cli.submit import submitted

if __name__ == "__main__":
    submitted(__doc__, "features")
