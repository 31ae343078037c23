"""Which source is whose: positions, epochs and errors as arrays. Knows no table, no file and no Spark.

In reading order: `settings` (what goes in), `compiled` (how loops are compiled), `astrometry` (one row at another
epoch), `zones`, `occupancy` and `pairs` (good neighbours), `density`, `pair_offsets` and `frame_offset`, `limits` and
`fast_movers` (what must be known of whole catalogues), `halo` (what a tile must read), `match_tile` (the tile).
"""
