"""The files of docker/: linted, checked against their schemas, and the same settings everywhere."""

from __future__ import annotations

import ast
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from helpers.places import CHECKOUT

from stellarml.core.config import Spark, load_config
from stellarml.run.spark_session import _options

DOCKER = CHECKOUT / "docker"


def tool(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name(name)), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_dockerfile_passes_hadolint(tmp_path: Path) -> None:
    done = tool("hadolint", str(DOCKER / "Dockerfile"))
    assert done.returncode == 0, done.stdout
    bad = tmp_path / "Dockerfile"
    bad.write_text((DOCKER / "Dockerfile").read_text().replace("--no-cache-dir ", ""))
    assert tool("hadolint", str(bad)).returncode != 0


def test_dockerfile_does_not_run_as_root() -> None:
    lines = (DOCKER / "Dockerfile").read_text().splitlines()
    users = [line.split()[1] for line in lines if line.startswith("USER")]
    assert users and users[-1] not in ("root", "0")
    copied = [word for line in lines if line.startswith("COPY") for word in line.split()[1:-1]]
    assert all((CHECKOUT / name).exists() for name in copied)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["stellarml", "--help"], "-- stellarml --help"),
        (
            ["driver", "--class", "a b", "x.py"],
            "-- spark-submit --conf spark.driver.bindAddress=10.0.0.1 --deploy-mode client --class a b x.py",
        ),
        (
            ["executor"],
            "-- java -Da=b c -Dd=e -Xms6g -Xmx6g -cp /spark/conf:/spark/jars/* "
            "org.apache.spark.scheduler.cluster.k8s.KubernetesExecutorBackend --driver-url spark://d --executor-id 3 "
            "--cores 4 --app-id app --hostname 10.0.0.2 --resourceProfileId 0 --podName pod",
        ),
    ],
)
def test_pods_of_kubernetes_become_drivers_and_executors(
    tmp_path: Path, given: list[str], expected: str
) -> None:
    tini = tmp_path / "tini"
    tini.write_text('#!/bin/sh\necho "$@"\n')
    tini.chmod(0o755)
    told = {
        "PATH": f"{tmp_path}:/usr/bin:/bin",
        "SPARK_HOME": "/spark",
        "SPARK_DRIVER_BIND_ADDRESS": "10.0.0.1",
        "SPARK_JAVA_OPT_0": "-Da=b c",
        "SPARK_JAVA_OPT_1": "-Dd=e",
        "SPARK_EXECUTOR_MEMORY": "6g",
        "SPARK_DRIVER_URL": "spark://d",
        "SPARK_EXECUTOR_ID": "3",
        "SPARK_EXECUTOR_CORES": "4",
        "SPARK_APPLICATION_ID": "app",
        "SPARK_EXECUTOR_POD_IP": "10.0.0.2",
        "SPARK_RESOURCE_PROFILE_ID": "0",
        "SPARK_EXECUTOR_POD_NAME": "pod",
    }
    command = ["sh", str(DOCKER / "entrypoint.sh"), *given]
    done = subprocess.run(command, capture_output=True, text=True, env=told, check=True)
    assert done.stdout.strip() == expected


def test_compose_file_fits_its_schema(tmp_path: Path) -> None:
    schema = ("--builtin-schema", "vendor.compose-spec")
    done = tool("check-jsonschema", *schema, str(DOCKER / "compose.yaml"))
    assert done.returncode == 0, done.stdout
    bad = tmp_path / "compose.yaml"
    bad.write_text((DOCKER / "compose.yaml").read_text().replace("command:", "comand:"))
    assert tool("check-jsonschema", *schema, str(bad)).returncode != 0


def test_services_name_jobs_and_files_that_exist() -> None:
    services = yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]
    assert set(services) == {"master", "worker", "history", "job"}
    inside = [word for word in services["job"]["command"] if word.startswith("/opt/stellarml/")]
    assert len(inside) == 2
    assert all((CHECKOUT / word.removeprefix("/opt/stellarml/")).is_file() for word in inside)


def settings_of(lines: list[str]) -> dict[str, str]:
    return dict(line.split(None, 1) for line in lines if line and not line.startswith("#"))


def test_clusters_get_the_settings_of_local_mode() -> None:
    """A leaf must be one task and one compiled method everywhere, or labels would depend on where they are made."""
    local = _options(load_config(environment={}).spark)
    shipped = settings_of((CHECKOUT / "conf" / "spark-defaults.conf").read_text().splitlines())
    scheduled = yaml.safe_load((DOCKER / "k8s" / "scheduled.yaml").read_text())["spec"]["template"][
        "sparkConf"
    ]
    for name in (
        "spark.sql.files.maxPartitionBytes",
        "spark.sql.files.openCostInBytes",
        "spark.sql.codegen.hugeMethodLimit",
    ):
        assert local[name] == shipped[name] == scheduled[name]


def test_scheduled_application_forbids_a_second_run() -> None:
    scheduled = yaml.safe_load((DOCKER / "k8s" / "scheduled.yaml").read_text())
    assert scheduled["kind"] == "ScheduledSparkApplication"
    assert scheduled["spec"]["concurrencyPolicy"] == "Forbid"
    job = scheduled["spec"]["template"]["mainApplicationFile"].removeprefix("local:///opt/stellarml/")
    assert (CHECKOUT / job).is_file()


def test_dag_submits_a_job_that_exists_one_run_at_a_time() -> None:
    source = (DOCKER / "airflow" / "stellarml_label.py").read_text()
    calls = {
        n.func.id: n
        for n in ast.walk(ast.parse(source))
        if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)
    }
    given = {k.arg: ast.unparse(k.value) for k in calls["DAG"].keywords}
    assert given["max_active_runs"] == "1" and given["catchup"] == "False"
    application = next(k.value for k in calls["SparkSubmitOperator"].keywords if k.arg == "application")
    assert (CHECKOUT / ast.unparse(application).split("}")[1].strip("'/")).is_file()


def test_cron_line_is_locked() -> None:
    lines = [
        line for line in (DOCKER / "crontab").read_text().splitlines() if line and not line.startswith("#")
    ]
    assert len(lines) == 1
    words = shlex.split(lines[0])[5:]
    assert words[:2] == ["flock", "--nonblock"] and words[3:5] == ["stellarml", "label"]


@pytest.mark.parametrize("value", ["events", "file:///data/events", ""])
def test_event_log_lies_beside_the_configuration(tmp_path: Path, value: str) -> None:
    file = tmp_path / "my.toml"
    file.write_text(f'[spark]\nevent_log = "{value}"\n')
    found: Spark = load_config(file, environment={}).spark
    assert found.event_log == (str(tmp_path / value) if value == "events" else value)
