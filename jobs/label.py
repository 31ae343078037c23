"""Every matched star labelled, as a versioned HATS catalogue.

spark-submit jobs/label.py --config config.toml [--profile cluster] [--set key=value ...] [--overwrite]
"""

from stellarml.cli.submit import submitted

if __name__ == "__main__":
    submitted(__doc__, "label")
