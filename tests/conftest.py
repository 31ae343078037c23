"""A SparkSession for each process of tests, and one small simulated chain for all of them."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest
from helpers.places import CHECKOUT, REAL

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Every Java of the tests lives for a minute: the optimising compiler costs it more than it gives.
os.environ.setdefault("JDK_JAVA_OPTIONS", "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC")
# The same examples in every run, and no deadline: a shared machine is slow at times, and CI must not depend on luck.
hypothesis.settings.register_profile("stellarml", deadline=None, derandomize=True)
hypothesis.settings.load_profile("stellarml")

SMALL_STARS = 12_000
# A file of tests goes to the next process that is free, in this order: the longest first, and files that need the small
# chain after the first of them has had time to make it.
FIRST = (
    "test_chain",
    "test_resume",
    "test_match_command",
    "test_faults",
    "test_jobs",
    "test_cluster",
    "test_label_damage",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.relative_to(CHECKOUT / "tests").parts[0] in ("spark", "jobs", "cluster", "faults"):
            item.add_marker(pytest.mark.spark)
    order = {name: place for place, name in enumerate(FIRST)}
    items.sort(key=lambda item: order.get(item.path.stem, len(order)))


@pytest.fixture(scope="session")
def common(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all processes of a run see."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


def made_once(folder: Path, make: Callable[[], object]) -> None:
    """Call `make` in one process of the run; the others wait until it has ended."""
    with (folder.with_suffix(".lock")).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = folder.with_suffix(".done")
        if not done.exists():
            make()
            done.touch()


@pytest.fixture(scope="session")
def spark() -> Iterator[object]:
    """The session of the whole run: two cores, no UI, started when a test first asks for it."""
    from stellarml.core.config import load_config
    from stellarml.run.spark_session import start_session

    settings = load_config(
        overrides=["spark.master='local[2]'", "spark.driver_memory='2g'"], environment={}
    ).spark
    session = start_session(settings)
    # A test's job has few rows: Spark interprets its expressions sooner than it compiles them. What runs in processes
    # of its own (jobs, clusters, runs that are killed) is compiled, as with users; a cluster's bytes must be the same.
    session.conf.set("spark.sql.codegen.factoryMode", "NO_CODEGEN")
    session.conf.set("spark.sql.codegen.wholeStage", "false")
    yield session
    session.stop()


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Rows of real surveys; they are not part of the project."""
    if not REAL.is_dir():
        pytest.skip("the folder of real survey rows is not beside the checkout")
    return REAL


@pytest.fixture(scope="session")
def small_sky(common: Path) -> Path:
    """A simulated sky with its config.toml; tests copy or read it, none writes to it."""
    from stellarml.simulate import SimulateSettings
    from stellarml.simulate.demo_folder import make_sky

    out = common / "small_sky"
    settings = SimulateSettings(stars=SMALL_STARS, seed=3)
    made_once(out, lambda: make_sky(out, settings, lambda line: None))
    return out


@pytest.fixture(scope="session")
def small_chain(small_sky: Path, common: Path, spark: object) -> Path:
    """The same sky after the whole chain, with tiles of at most 3000 rows so that their borders matter."""
    from stellarml.core.config import load_config
    from stellarml.stages.chain import run_all

    config = load_config(small_sky / "config.toml", overrides=SMALL_TILES, environment={})
    made_once(common / "small_chain", lambda: run_all(spark, config))  # type: ignore[arg-type]
    return small_sky


SMALL_TILES = ("tiles.max_rows=3000", "tiles.row_group_rows=1000", "train.max_epochs=30")


@pytest.fixture(scope="session")
def small_config(small_chain: Path) -> Callable[..., object]:
    """Load the configuration of the finished small chain, with further overrides."""
    from stellarml.core.config import load_config

    return lambda *more: load_config(
        small_chain / "config.toml", overrides=(*SMALL_TILES, *more), environment={}
    )


@pytest.fixture(scope="session")
def labelled_in(small_chain: Path, small_config: Callable[..., object]) -> Callable[..., object]:
    """Copy matched, models and labels of the finished chain, or of a folder like it, to a folder.

    Returns a function from overrides to the configuration of the copies.
    """
    import shutil

    def copied(folder: Path, of: Path = small_chain) -> Callable[..., object]:
        for name in ("lake/matched", "lake/training", "models", "labels"):
            shutil.copytree(of / name, folder / name)
        own = [f"paths.{name}={folder / name}" for name in ("lake", "models", "labels")]
        return lambda *overrides: small_config(*own, *overrides)

    return copied


@pytest.fixture
def labelled(labelled_in: Callable[..., Callable[..., object]], tmp_path: Path) -> Callable[..., object]:
    """Own copies of matched, models and labels of the finished chain; returns their configuration with overrides."""
    return labelled_in(tmp_path)
