"""How a stage runs: what an output was made from, what is done, who may touch it; the Spark session and the log."""
