"""An Airflow 3 DAG: the labels of every night, one run at a time, by spark-submit.

Needs the Spark provider and a connection `spark_default` to the cluster. `STELLARML_HOME` is the checkout (jobs/ and
conf/), `STELLARML_CONFIG` the configuration; both must be the same on the machine that submits.
"""

from __future__ import annotations

import os
from datetime import datetime, timedelta

from airflow.providers.apache.spark.operators.spark_submit import SparkSubmitOperator
from airflow.sdk import DAG

HOME = os.environ.get("STELLARML_HOME", "/opt/stellarml")
CONFIG = os.environ.get("STELLARML_CONFIG", "/data/config.toml")

with DAG(
    "stellarml_label",
    schedule="0 2 * * *",
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 3, "retry_delay": timedelta(minutes=5)},
    doc_md=__doc__,
) as dag:
    SparkSubmitOperator(
        task_id="label",
        conn_id="spark_default",
        application=f"{HOME}/jobs/label.py",
        properties_file=f"{HOME}/conf/spark-defaults.conf",
        application_args=["--config", CONFIG, "--profile", "cluster"],
    )
