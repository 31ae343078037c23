"""The positional cross-match: `kernel.match_tile` is the door for mathematics, `stage` the one for tables.

No module here but `stage` knows Spark or files. They read in this order: `settings` (what goes in), `astrometry` (one
row at another epoch), `zones` and `pairs` (good neighbours), `density`, `limits` and `movers` (what must be known of
whole catalogues), `halo` (what a tile must read), `kernel` (the tile).
"""
