"""Two catalogues to match, like Gaia's and SkyMapper's, on a sky whose density falls by a factor 20 across the field.

Every tool of the benchmarks reads the same rows: plain Parquet (for hats-import and the ingest), HATS with leaves of at
most 500,000 rows, and FITS (for STILTS). The field shrinks with the number of rows, so that the mean density stays
40,000 left rows a square degree. Rows are made strip by strip, seeded by (seed, strip): the same bytes everywhere, in
memory that does not grow with the table.

"60 % true counterparts" is read as: 60 % of the right rows are a left source seen again (each left source at most
once), the other 40 % lie anywhere, with the same density law. A counterpart is its left source at its true position of
2016.0, moved with its true proper motion to the epoch of the right row, plus a Gaussian error of 0.1 arcsec on each
axis (60 to 140 mas, the error that the row carries). 9 % of the left rows, the faintest, have no proper motion;
1 right row in 1000 has no epoch.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from stellarml.core.config import Tiles, load_config
from stellarml.core.names import HEALPIX_COLUMN
from stellarml.core.sky import healpix_29, mjd_to_jyear
from stellarml.core.tiles import INDEX_ORDER, choose_tiles
from stellarml.storage.hats_writer import CatalogueInfo, finish_catalogue
from stellarml.storage.parquet import sort_rows, write_parquet

LEAF_ROWS = 500_000
FILE_ROWS = 500_000
CONTRAST = 20.0
TRUE_FRACTION = 0.6
CENTRE_RA_DEG, CENTRE_DEC_DEG = 110.0, -30.0
_BUCKET_ROWS = 3_000_000
_MAS_PER_DEG = 3.6e6
_FORMAT = 1

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

LEFT_COLUMNS = (
    "source_id", "ra", "dec", "ra_error", "dec_error", "parallax", "pmra", "pmdec", "pmra_error", "pmdec_error",
    "ra_dec_corr", "phot_g_mean_mag",
)  # fmt: skip
BANDS = {"u": 1.9, "v": 1.5, "g": 0.4, "r": -0.1, "i": -0.4}
LEFT_SLIM, RIGHT_SLIM = ("source_id", "ra", "dec"), ("object_id", "raj2000", "dej2000")
RIGHT_COLUMNS = (
    "object_id", "raj2000", "dej2000", "e_raj2000", "e_dej2000", "mean_epoch",
    *(f"{prefix}{band}_psf" for band in BANDS for prefix in ("", "e_")),
)  # fmt: skip

SURVEYS = Path(__file__).parent / "peers" / "surveys"


@dataclass(frozen=True)
class Spec:
    """What a data set is made from; kept beside it, so that another one is never taken for it."""

    left_rows: int
    right_rows: int
    seed: int
    density_per_deg2: float = 40_000.0
    leaf_rows: int = LEAF_ROWS
    format: int = _FORMAT

    @property
    def name(self) -> str:
        """Folder of the data set."""
        density = f"-{self.density_per_deg2:g}" if self.density_per_deg2 != 40_000.0 else ""
        return f"{self.left_rows}x{self.right_rows}{density}-seed{self.seed}"

    @property
    def files(self) -> int:
        """Strips, and plain files a side."""
        return max(1, -(-self.left_rows // FILE_ROWS))


@dataclass(frozen=True)
class MatchData:
    """Where the files of a data set lie."""

    root: Path
    spec: Spec

    def plain(self, side: str) -> list[Path]:
        """Plain Parquet files of ``left`` or ``right``."""
        return sorted((self.root / side).glob("*.parquet"))

    def hats(self, side: str) -> Path:
        """HATS catalogue of one side."""
        return self.root / f"{side}_hats"

    @property
    def margin(self) -> Path:
        """Margin catalogue of the right side, made by hats-import for LSDB."""
        return self.root / "right_margin"

    def fits(self, side: str) -> Path:
        """FITS table of one side, written at the first call."""
        path = self.root / f"{side}.fits"
        if not path.exists():
            _write_fits(self.plain(side), path)
        return path

    def descriptor(self, side: str, kind: str) -> Path:
        """Survey descriptor of one side.

        `kind` is ``plain``, positions alone, as other tools match; or ``full``, with errors, epochs, proper motions.
        """
        return SURVEYS / f"{side}_{kind}.toml"


def default_folder() -> Path:
    """Return where data sets are kept: STELLARML_BENCH_DATA, or a folder in the system's temporary one."""
    told = os.environ.get("STELLARML_BENCH_DATA")
    return Path(told) if told else Path(tempfile.gettempdir()) / "bench_match"


def bench_tiles() -> Tiles:
    """Return the tiling of the benchmarks: the shipped one with leaves of at most 500,000 rows."""
    return load_config(overrides=[f"tiles.max_rows={LEAF_ROWS}"], environment={}).tiles


def make(
    folder: Path, left_rows: int, right_rows: int, seed: int, *, density_per_deg2: float = 40_000.0
) -> MatchData:
    """Make the two catalogues below `folder`, or find those made before from the same numbers."""
    spec = Spec(left_rows, right_rows, seed, density_per_deg2)
    data = MatchData(folder / spec.name, spec)
    stamp = data.root / "made.json"
    data.root.mkdir(parents=True, exist_ok=True)
    if stamp.exists() and json.loads(stamp.read_text()) == asdict(spec):
        return data
    for name in ("left", "right", "left_hats", "right_hats", "right_margin"):
        shutil.rmtree(data.root / name, ignore_errors=True)
    for name in ("left.fits", "right.fits"):
        (data.root / name).unlink(missing_ok=True)
    for index in range(spec.files):
        for side, table in zip(("left", "right"), _strip(spec, index), strict=True):
            (data.root / side).mkdir(parents=True, exist_ok=True)
            pq.write_table(table, data.root / side / f"{side}-{index:04d}.parquet", compression="zstd")
    tiles = bench_tiles()
    _write_hats(data.plain("left"), data.hats("left"), "bench_left", LEFT_SLIM, tiles)
    _write_hats(data.plain("right"), data.hats("right"), "bench_right", RIGHT_SLIM, tiles)
    stamp.write_text(json.dumps(asdict(spec)))
    return data


def _share(rows: int, files: int, index: int) -> tuple[int, int]:
    return rows * index // files, rows * (index + 1) // files


def _strip(spec: Spec, index: int) -> tuple[pa.Table, pa.Table]:
    """Make the rows of one strip of declination, of equal number in every strip."""
    rng = np.random.default_rng([spec.seed, index])
    first_left, end_left = _share(spec.left_rows, spec.files, index)
    first_right, end_right = _share(spec.right_rows, spec.files, index)
    left, right = end_left - first_left, end_right - first_right
    ra, dec = _positions(spec, rng, left, index)
    magnitude = np.clip(20.7 + np.log10(rng.random(left)) / 0.2, 6.0, None)
    parallax = rng.lognormal(np.log(0.6), 0.8, left)
    speed_km_s, angle = 50.0 * rng.rayleigh(size=left), rng.uniform(0.0, 2.0 * np.pi, left)
    motion = parallax * speed_km_s / 4.740470446
    pmra, pmdec = motion * np.cos(angle), motion * np.sin(angle)
    error = 0.02 * 10 ** (0.25 * np.clip(magnitude - 15.0, 0.0, None))
    errors = {
        name: error * rng.uniform(0.8, 1.2, left) for name in ("ra", "dec", "parallax", "pmra", "pmdec")
    }
    seen_ra, seen_dec = _shift(ra, dec, rng.normal(0.0, errors["ra"]), rng.normal(0.0, errors["dec"]))
    unsolved = magnitude > 20.5
    number = np.arange(first_left, end_left)
    left_table = pa.table(
        {
            "source_id": ((healpix_29(seen_ra, seen_dec) >> 2 * (INDEX_ORDER - 12)) << 35) | number,
            "ra": seen_ra,
            "dec": seen_dec,
            "ra_error": errors["ra"].astype(np.float32),
            "dec_error": errors["dec"].astype(np.float32),
            "parallax": pa.array(parallax + rng.normal(0.0, errors["parallax"]), mask=unsolved),
            "pmra": pa.array(pmra + rng.normal(0.0, errors["pmra"]), mask=unsolved),
            "pmdec": pa.array(pmdec + rng.normal(0.0, errors["pmdec"]), mask=unsolved),
            "pmra_error": pa.array(errors["pmra"].astype(np.float32), mask=unsolved),
            "pmdec_error": pa.array(errors["pmdec"].astype(np.float32), mask=unsolved),
            "ra_dec_corr": rng.uniform(-0.3, 0.3, left).astype(np.float32),
            "phot_g_mean_mag": magnitude.astype(np.float32),
        }
    )
    true = round(TRUE_FRACTION * right)
    source = rng.choice(left, true, replace=False)
    epoch = rng.uniform(56_700.0, 58_000.0, right)
    years = mjd_to_jyear(epoch[:true]) - 2016.0
    true_ra, true_dec = _shift(ra[source], dec[source], pmra[source] * years, pmdec[source] * years)
    other_ra, other_dec = _positions(spec, rng, right - true, index)
    position_error = rng.uniform(60.0, 140.0, (2, right)).astype(np.float32)
    right_ra, right_dec = _shift(
        np.concatenate([true_ra, other_ra]),
        np.concatenate([true_dec, other_dec]),
        rng.normal(0.0, position_error[0]),
        rng.normal(0.0, position_error[1]),
    )
    right_magnitude = np.concatenate(
        [magnitude[source], np.clip(20.7 + np.log10(rng.random(right - true)) / 0.2, 6.0, None)]
    )
    columns: dict[str, pa.Array | npt.NDArray[np.generic]] = {
        "object_id": 1 + first_right + rng.permutation(right),
        "raj2000": right_ra,
        "dej2000": right_dec,
        "e_raj2000": position_error[0],
        "e_dej2000": position_error[1],
        "mean_epoch": np.where(rng.random(right) < 0.001, 0.0, epoch),
    }
    for band, colour in BANDS.items():
        value = right_magnitude + colour + rng.normal(0.0, 0.2, right)
        value_error = (0.01 + 0.1 * 10 ** (0.4 * (value - 20.0))).astype(np.float32)
        faint = value > 21.0
        columns[f"{band}_psf"] = pa.array(value.astype(np.float32), mask=faint)
        columns[f"e_{band}_psf"] = pa.array(value_error, mask=faint)
    right_table = pa.table(columns).take(pa.array(rng.permutation(right)))
    return left_table, right_table


def _positions(spec: Spec, rng: np.random.Generator, rows: int, index: int) -> tuple[Floats, Floats]:
    """Draw positions of one strip; the density falls exponentially with sin dec, by CONTRAST over the field."""
    side_deg = np.sqrt(spec.left_rows / spec.density_per_deg2)
    width_deg = side_deg / np.cos(np.radians(CENTRE_DEC_DEG))
    height = np.radians(side_deg) * np.cos(np.radians(CENTRE_DEC_DEG))
    quantile = (index + rng.random(rows)) / spec.files
    fall = np.log(CONTRAST)
    place = -np.log1p(-quantile * (1.0 - np.exp(-fall))) / fall
    ra = CENTRE_RA_DEG + width_deg * (rng.random(rows) - 0.5)
    dec = np.degrees(np.arcsin(np.sin(np.radians(CENTRE_DEC_DEG)) + height * (place - 0.5)))
    return ra, dec


def _shift(ra_deg: Floats, dec_deg: Floats, east_mas: Floats, north_mas: Floats) -> tuple[Floats, Floats]:
    """Move by less than some arcsec: the plane is good to 1e-6 of that."""
    return (
        ra_deg + east_mas / _MAS_PER_DEG / np.cos(np.radians(dec_deg)),
        dec_deg + north_mas / _MAS_PER_DEG,
    )


def _write_hats(files: Sequence[Path], root: Path, name: str, columns: Sequence[str], tiles: Tiles) -> None:
    """Write plain files as a HATS catalogue, some million rows at a time; `columns` are id, ra, dec."""
    id_column, ra, dec = columns
    keys = []
    for file in files:
        position = pq.read_table(file, columns=[ra, dec])
        keys.append(healpix_29(position[ra].to_numpy(), position[dec].to_numpy()))
    shift = 2 * (INDEX_ORDER - tiles.max_order)
    cells, counts = np.unique(np.concatenate(keys) >> shift, return_counts=True)
    chosen = choose_tiles(cells, counts, tiles.max_order, tiles)
    bucket = np.cumsum([rows for _, rows in chosen]) // _BUCKET_ROWS
    for number in np.unique(bucket):
        members = [tile for (tile, _), its in zip(chosen, bucket, strict=True) if its == number]
        table = _rows_between(files, keys, members[0].range[0], members[-1].range[1])
        table = sort_rows(table, HEALPIX_COLUMN, id_column)
        sorted_keys = table[HEALPIX_COLUMN].to_numpy()
        for tile in members:
            first, last = np.searchsorted(sorted_keys, tile.range)
            write_parquet(root / tile.path, table.slice(int(first), int(last - first)), tiles)
    finish_catalogue(
        root,
        CatalogueInfo(name, ra, dec, tiles.max_rows),
        [tile for tile, _ in chosen],
        sum(rows for _, rows in chosen),
        pq.read_schema(root / chosen[0][0].path).remove_metadata(),
    )


def _rows_between(files: Sequence[Path], keys: Sequence[Integers], low: int, high: int) -> pa.Table:
    parts = []
    for file, of_file in zip(files, keys, strict=True):
        inside = (of_file >= low) & (of_file < high)
        if inside.any():
            table = pq.read_table(file).filter(pa.array(inside))
            parts.append(table.add_column(0, HEALPIX_COLUMN, pa.array(of_file[inside])))
    return pa.concat_tables(parts)


def _write_fits(files: Sequence[Path], path: Path) -> None:
    """Write plain files as one FITS binary table, file by file; a missing value is NaN."""
    from astropy.io import fits

    schema = pq.read_schema(files[0])
    row = np.dtype([(f.name, np.dtype(f.type.to_pandas_dtype()).newbyteorder(">")) for f in schema])
    header = fits.BinTableHDU(np.zeros(0, row)).header
    header["NAXIS2"] = sum(pq.read_metadata(file).num_rows for file in files)
    hidden = path.with_name(f".{path.name}.tmp")
    with hidden.open("wb") as stream:
        stream.write(fits.PrimaryHDU().header.tostring().encode())
        stream.write(header.tostring().encode())
        for file in files:
            table = pq.read_table(file)
            rows = np.empty(table.num_rows, row)
            for name in schema.names:
                column = table[name]
                rows[name] = (pc.fill_null(column, np.nan) if column.null_count else column).to_numpy()
            stream.write(rows.tobytes())
        stream.write(b"\0" * (-stream.tell() % 2880))
    hidden.replace(path)


def main() -> None:
    """Make one data set and say where it is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--rows", type=int, default=10_000_000, help="left rows; the right side has 0.4 of them"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--density", type=float, default=40_000.0, help="left rows a square degree, mean")
    parser.add_argument("--data", type=Path, default=default_folder())
    options = parser.parse_args()
    data = make(
        options.data, options.rows, options.rows * 2 // 5, options.seed, density_per_deg2=options.density
    )
    sys.stdout.write(f"{data.root}\n")


if __name__ == "__main__":
    main()
