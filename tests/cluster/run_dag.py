"""Load the DAG of a folder as Airflow does and run it once; for the Python of an Airflow environment."""

from __future__ import annotations

import sys

from airflow.dag_processing.dagbag import DagBag


def main(folder: str) -> None:
    """Exit with 1 where the folder does not load, or the run does not succeed."""
    bag = DagBag(folder)
    if bag.import_errors or len(bag.dags) != 1:
        sys.exit(f"{bag.import_errors} {list(bag.dags)}")
    run = next(iter(bag.dags.values())).test()
    sys.stdout.write(f"{run.dag_id}: {run.state}\n")
    sys.exit(run.state != "success")


if __name__ == "__main__":
    main(sys.argv[1])
