"""The whole chain in one Spark application.

spark-submit jobs/run_all.py --config config.toml [--profile cluster] [--set key=value ...] [--overwrite]
"""

from stellarml.cli.submit import submitted
from stellarml.stages.chain import run_all

if __name__ == "__main__":
    submitted(__doc__, lambda spark, config, overwrite: run_all(spark, config, overwrite=overwrite))
