"""The positional cross-match of two HATS catalogues, a tile at a time; `kernel.match_tile` does the mathematics.

What the stage `crossmatch` and `standalone.match` share: `modes` (what can be asked for), `sides` (one catalogue of a
match), `source_columns` (its rows as the kernel takes them), `plan` (light passes over whole catalogues, the only
module here that runs Spark jobs), `match_rows` (one tile, from leaves to pairs), `output_columns` and `statistics`.
"""
