"""How a peer answers: a line of JSON on standard input is a request, a line on standard output its answer.

So the caller can take turns with other tools while this one stays up and warm. Imported by the scripts that run in the
peers' own environments: nothing but the standard library.
"""

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def answering(version: str) -> Iterator[Callable[[list[int], Callable[[dict], dict]], None]]:
    """Keep standard output for answers; give what serves requests, told the workers, until the input ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def serve(workers: list[int], answer: Callable[[dict], dict]) -> None:
        answers.write(json.dumps({"version": version, "workers": workers}) + "\n")
        for line in sys.stdin:
            answers.write(json.dumps(answer(json.loads(line))) + "\n")

    yield serve


def serve_with_dask(version: str, answer: Callable[..., dict]) -> None:
    """Start a client of two workers of one thread, its files in the folder of the command line; serve requests."""
    from dask.distributed import Client, LocalCluster

    with (
        answering(version) as serve,
        LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None, local_directory=sys.argv[1]
        ) as cluster,
        Client(cluster) as client,
    ):
        client.wait_for_workers(2)
        serve(list(client.run(os.getpid).values()), lambda request: answer(request, client))
