"""One page, its pictures and metrics.json.

spark-submit jobs/report.py --config config.toml [--profile cluster] [--set key=value ...] [--overwrite]
"""

from stellarml.cli.submit import submitted

if __name__ == "__main__":
    submitted(__doc__, "report")
