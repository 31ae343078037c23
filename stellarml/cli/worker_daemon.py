"""The process that Spark forks Python workers from, with the imports of the stages done once, before any fork.

healpy, numba and pyarrow take 2 s of a core to import; on two cores, with four workers, that was a third of the first
job of a run, and each worker held its own copy of their pages. Spark ends workers that are idle for a minute, so that
this would be paid again and again. One small compiled function is called, too: numba's registries are another second.
Used in local mode only: on a cluster the daemon may start before the package has been shipped to it.

Arrow's memory comes from the system's allocator: with pyarrow's default (mimalloc) a tile of the cross-match takes a
tenth more of a core, most of it to fault in pages that were given back a moment ago.
"""

import numpy as np
import pyarrow as pa

import stellarml.stages.ingest
import stellarml.stages.label
import stellarml.stages.select
import stellarml.stages.spectroscopic_labels
import stellarml.standalone.match  # noqa: F401
from stellarml.crossmatch.kernel.astrometry import vectors

vectors(np.zeros(1), np.zeros(1))
pa.set_memory_pool(pa.system_memory_pool())

if __name__ == "__main__":
    from pyspark.daemon import manager

    manager()
