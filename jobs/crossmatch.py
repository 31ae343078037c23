"""Stars and photometry matched one to one.

spark-submit jobs/crossmatch.py --config config.toml [--profile cluster] [--set key=value ...] [--overwrite]
"""

from stellarml.cli.submit import submitted
from stellarml.stages.chain import run_stage

if __name__ == "__main__":
    submitted(
        __doc__, lambda spark, config, overwrite: run_stage("crossmatch", spark, config, overwrite=overwrite)
    )
