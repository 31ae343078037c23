"""HATS catalogues and Parquet, in and out."""
