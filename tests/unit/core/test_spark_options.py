"""Spark options that run code come from no file: no configuration that was downloaded, nor any other kind of file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from stellarml.core.config import conf_dir, load_config
from stellarml.core.errors import ConfigError
from stellarml.core.spark_options import runs_code
from stellarml.features.feature_file import load_feature_file
from stellarml.surveys.descriptor import load_descriptor

DANGEROUS = [
    "spark.driver.extraJavaOptions",
    "spark.driver.defaultJavaOptions",
    "spark.executor.extraJavaOptions",
    "spark.executor.defaultJavaOptions",
    "spark.yarn.am.extraJavaOptions",
    "spark.driver.extraClassPath",
    "spark.executor.extraClassPath",
    "spark.driver.extraLibraryPath",
    "spark.driver.userClassPathFirst",
    "spark.jars",
    "spark.jars.packages",
    "spark.jars.repositories",
    "spark.jars.ivySettings",
    "spark.plugins",
    "spark.extraListeners",
    "spark.sql.extensions",
    "spark.sql.queryExecutionListeners",
    "spark.sql.streaming.streamingQueryListeners",
    "spark.pyspark.python",
    "spark.pyspark.driver.python",
    "spark.submit.pyFiles",
    "spark.files",
    "spark.archives",
    "spark.yarn.dist.files",
    "spark.yarn.jars",
    "spark.yarn.archive",
    "spark.python.daemon.module",
    "spark.python.worker.module",
    "spark.kubernetes.driver.podTemplateFile",
    "spark.kubernetes.executor.podTemplateFile",
    "spark.kubernetes.container.image",
    "spark.sql.catalog.mine",
    "spark.sql.catalog.spark_catalog",
    "spark.sql.hive.metastore.jars",
    "spark.serializer",
    "spark.closure.serializer",
    "spark.kryo.registrator",
    "spark.kryo.classesToRegister",
    "spark.shuffle.manager",
    "spark.shuffle.sort.io.plugin.class",
    "spark.metrics.conf",
    "spark.metrics.conf.*.sink.x.class",
    "spark.ui.filters",
    "spark.executorEnv.PYTHONPATH",
    "spark.executorEnv.LD_PRELOAD",
    "spark.executorEnv.JAVA_TOOL_OPTIONS",
    "spark.executorEnv.PYTHONSTARTUP",
    "spark.yarn.appMasterEnv.PYSPARK_PYTHON",
    "spark.sql.sources.commitProtocolClass",
    "spark.hadoop.net.topology.script.file.name",
    "spark.hadoop.mapreduce.job.outputformat.class",
    "spark.r.command",
    "spark.executor.resource.gpu.discoveryScript",
    "spark.sql.cache.serializer",
    "spark.task.resource.x.discoveryScript",
]
HARMLESS = [
    "spark.executor.memory",
    "spark.executor.cores",
    "spark.executor.instances",
    "spark.executor.memoryOverhead",
    "spark.driver.memory",
    "spark.driver.maxResultSize",
    "spark.sql.shuffle.partitions",
    "spark.sql.adaptive.enabled",
    "spark.local.dir",
    "spark.eventLog.dir",
    "spark.eventLog.enabled",
    "spark.network.timeout",
    "spark.task.maxFailures",
    "spark.dynamicAllocation.enabled",
    "spark.cores.max",
    "spark.hadoop.fs.s3a.endpoint",
    "spark.hadoop.fs.s3a.access.key",
    "spark.hadoop.fs.s3a.path.style.access",
    "spark.hadoop.fs.s3a.aws.credentials.provider",
    "spark.sql.files.maxPartitionBytes",
    "spark.python.worker.reuse",
    "spark.executor.pyspark.memory",
    "spark.kubernetes.namespace",
    "spark.kubernetes.executor.request.cores",
    "spark.ui.port",
    "spark.sql.parquet.compression.codec",
    "spark.io.compression.codec",
    "spark.executorEnv.OMP_NUM_THREADS",
    "spark.locality.wait",
    "spark.ssl.keyPassword",
    "spark.speculation",
    "spark.memory.fraction",
    "spark.kubernetes.authenticate.driver.serviceAccountName",
]


@pytest.mark.parametrize("option", DANGEROUS)
def test_a_file_of_others_cannot_name_what_runs_code(tmp_path: Path, option: str) -> None:
    for key in (option, option.upper()):
        assert runs_code(key)
    text = f'[spark.options]\n"{option}" = "x"\n"spark.executor.memory" = "8g"\n'
    downloaded = tmp_path / "config.toml"
    downloaded.write_text(text)
    assert load_config(downloaded, environment={}).spark.options[option] == "x", "the user's own may"
    downloaded.chmod(0o666)
    with pytest.raises(
        ConfigError, match=r"config\.toml: spark\.options: '.*' loads or runs code.*--set"
    ) as told:
        load_config(downloaded, environment={})
    assert option in str(told.value) and "spark.executor.memory" not in str(told.value)
    downloaded.rename(tmp_path / "profile.toml")
    downloaded.write_text(f'profile = "{tmp_path / "profile.toml"}"\n')
    with pytest.raises(ConfigError, match=r"profile\.toml: spark\.options"):
        load_config(downloaded, environment={})


@pytest.mark.parametrize("option", HARMLESS)
def test_what_runs_nothing_stays(tmp_path: Path, option: str) -> None:
    (tmp_path / "config.toml").write_text(f'[spark.options]\n"{option}" = "8"\n')
    assert load_config(tmp_path / "config.toml", environment={}).spark.options == {option: "8"}


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file to somebody else")
def test_whose_file_it_is_is_said(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text('[spark.options]\n"spark.plugins" = "x"\n')
    os.chown(file, 12345, -1)
    with pytest.raises(ConfigError, match="this file belongs to the user 12345"):
        load_config(file, environment={})


def test_the_user_may_name_everything_outside_of_files() -> None:
    given = {"spark.jars.packages": "a:b:1"}
    by_option = load_config(overrides=['spark.options."spark.jars.packages"="a:b:1"'], environment={})
    by_environment = load_config(
        environment={"STELLARML_SPARK__OPTIONS": '{"spark.jars.packages" = "a:b:1"}'}
    )
    assert by_option.spark.options == by_environment.spark.options == given


def test_shipped_profiles_pass() -> None:
    for path in conf_dir().glob("*.toml"):
        if path.stem not in ("base",):
            load_config(profile=str(path), environment={})


SPARK_TABLES = (
    "[spark]\nmaster = 'local'\n",
    "[spark.options]\n'spark.plugins' = 'x'\n",
    "[options]\n'spark.plugins' = 'x'\n",
)


@pytest.mark.parametrize("table", SPARK_TABLES)
def test_descriptors_and_feature_files_have_no_place_for_options(tmp_path: Path, table: str) -> None:
    survey = (conf_dir() / "surveys" / "gaia_dr3.toml").read_text()
    (tmp_path / "survey.toml").write_text(f"{survey}\n{table}")
    with pytest.raises(ConfigError, match=r"unknown key '(spark|options)'"):
        load_descriptor(str(tmp_path / "survey.toml"))
    features = (conf_dir() / "features" / "paper.toml").read_text()
    (tmp_path / "features.toml").write_text(f"{features}\n{table}")
    with pytest.raises(ConfigError, match=r"unknown key '(spark|options)'"):
        load_feature_file(tmp_path / "features.toml")
