"""The process that Spark forks Python workers from, with the imports of the stages done once, before any fork.

healpy, numba and pyarrow take 2 s of a core to import; on two cores, with four workers, that was a third of the first
job of a run, and each worker held its own copy of their pages. Used in local mode only: on a cluster the daemon may
start before the package has been shipped to it.
"""

import stellarml.catalogue
import stellarml.ingest
import stellarml.spectra
import stellarml.stars  # noqa: F401

if __name__ == "__main__":
    from pyspark.daemon import manager

    manager()
