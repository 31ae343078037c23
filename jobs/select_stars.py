"""Distances joined, cut-flow counted.

spark-submit jobs/select_stars.py --config config.toml [--profile cluster] [--set key=value ...] [--overwrite]
"""

from stellarml.cli.submit import submitted

if __name__ == "__main__":
    submitted(__doc__, "select")
