"""What a reader is shown: counts in Spark, plots, one page."""
