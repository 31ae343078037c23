"""Labels at scale: rows through Spark, tiles kept and replaced, versions published and compared."""
