"""The DAG of docker/airflow, loaded and run by Airflow itself, in an environment of its own, on a loopback cluster.

Long: it runs where ``STELLARML_AIRFLOW`` names a Python that has Airflow 3 and its Spark provider (`make cluster`).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.standalone_cluster import CHECKOUT, SMALL_SETTINGS, Cluster, label_leaves


def test_the_dag_labels(small_chain: Path, tmp_path: Path) -> None:
    if "STELLARML_AIRFLOW" not in os.environ:
        pytest.skip("STELLARML_AIRFLOW is not set: `make cluster` installs Airflow and runs this")
    python = Path(os.environ["STELLARML_AIRFLOW"]).absolute()
    for name in ("lake", "models"):
        shutil.copytree(small_chain / name, tmp_path / name)
    (tmp_path / "config.toml").write_text((small_chain / "config.toml").read_text() + SMALL_SETTINGS)
    with Cluster(tmp_path) as cluster:
        connection = {"conn_type": "spark", "host": "spark://127.0.0.1", "port": cluster.port}
        environment = cluster.environment() | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYSPARK_PYTHON": sys.executable,
            "PYSPARK_DRIVER_PYTHON": sys.executable,
            "STELLARML_HOME": str(CHECKOUT),
            "STELLARML_CONFIG": str(tmp_path / "config.toml"),
            "AIRFLOW_HOME": str(tmp_path / "airflow"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "false",
            "AIRFLOW__CORE__DAGS_FOLDER": str(CHECKOUT / "docker" / "airflow"),
            "AIRFLOW_CONN_SPARK_DEFAULT": json.dumps(connection),
        }
        migrate = [str(python.with_name("airflow")), "db", "migrate"]
        subprocess.run(migrate, env=environment, capture_output=True, check=True)
        done = subprocess.run(
            [str(python), str(Path(__file__).with_name("run_dag.py")), str(CHECKOUT / "docker" / "airflow")],
            env=environment,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    assert "stellarml_label: success" in done.stdout
    assert len(label_leaves(tmp_path)) > 3
    assert label_leaves(tmp_path) == label_leaves(small_chain)
