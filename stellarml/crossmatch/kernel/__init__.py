"""Which source is whose: positions, epochs and errors as arrays. Knows no table, no file and no Spark."""
