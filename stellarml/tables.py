"""Training and labelling on any table, without the chain: one file in, a model or labels out."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from stellarml.config import Config
from stellarml.errors import InputError, UserError
from stellarml.feature_file import load_feature_file
from stellarml.fingerprint import file_fingerprint
from stellarml.hats_layout import is_catalogue
from stellarml.hats_reading import open_catalogue
from stellarml.model import load_bundle, pack_bundle
from stellarml.schema import arrow_schema, label_columns
from stellarml.single_file import Format, write_file
from stellarml.split import split_column
from stellarml.storage import literal, storage_errors
from stellarml.weights import is_plain

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

_FORMATS: dict[str, Format] = {".parquet": "parquet", ".csv": "csv", ".fits": "fits", ".vot": "votable"}
_TEXT = (".csv", ".tsv", ".csv.gz", ".tsv.gz")
_ASTRONOMY = {".fits": "fits", ".fit": "fits", ".vot": "votable", ".xml": "votable", ".ecsv": "ascii.ecsv"}


def read_table(spark: SparkSession, path: Path) -> DataFrame:
    """Read a table by its suffix: Parquet (file or folder), HATS catalogue, CSV, TSV, FITS, VOTable or ECSV.

    Raises
    ------
    InputError
        If it is missing, damaged, or of another format.
    """
    if not path.exists():
        raise InputError(f"{path}: no such file")
    suffix = "".join(path.suffixes[-2:]) if path.suffix == ".gz" else path.suffix
    if path.is_dir() and is_catalogue(path):
        leaves = [literal(file) for leaf in open_catalogue(path).leaves for file in leaf.paths]
        return _spark_read(path, lambda: spark.read.parquet(*leaves))
    if path.is_dir() or suffix == ".parquet":
        return _spark_read(path, lambda: spark.read.parquet(literal(path)))
    if suffix in _TEXT:
        delimiter = "\t" if ".tsv" in suffix else ","
        reader = spark.read.option("header", "true").option("inferSchema", "true").option("nanValue", "nan")
        return _empty_as_numbers(
            _spark_read(path, lambda: reader.option("sep", delimiter).csv(literal(path)))
        )
    if suffix in _ASTRONOMY:
        return spark.createDataFrame(_read_astropy(path, _ASTRONOMY[suffix]))
    known = ", ".join((".parquet", *_TEXT, *_ASTRONOMY))
    raise InputError(f"{path}: unknown format '{suffix}'; expected one of {known}")


def _empty_as_numbers(frame: DataFrame) -> DataFrame:
    """Take columns of text without any value, as Spark reads them, for missing numbers."""
    from pyspark.sql import functions as sf

    words = [name for name, kind in frame.dtypes if kind == "string"]
    row = frame.agg(*(sf.count(sf.col(f"`{name}`")) for name in words)).first() if words else None
    empty = [name for name, count in zip(words, row or (), strict=True) if count == 0]
    return frame.withColumns({name: sf.lit(None).cast("double") for name in empty}) if empty else frame


def _spark_read(path: Path, read: Callable[[], DataFrame]) -> DataFrame:
    from pyspark.errors import PySparkException

    try:
        return read()
    except PySparkException as error:
        raise InputError(f"{path}: cannot be read as a table ({str(error).splitlines()[0]})") from None


def _read_astropy(path: Path, kind: str) -> Any:
    from astropy.table import Table

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return Table.read(path, format=kind).to_pandas()
        except Exception as error:
            raise InputError(f"{path}: is not a readable {kind} file ({error})") from None


def train_on_table(
    spark: SparkSession,
    config: Config,
    table: Path,
    features: Path,
    out: Path,
    progress: Callable[[str], None],
) -> Path:
    """Train on the labelled rows of `table`; write the bundle to the folder `out` and return it.

    Rows without any label are taken for a sample of the stars that are to be labelled.

    Raises
    ------
    InputError, TrainingError
        If the table lacks a column, or cannot teach anything.
    """
    from pyspark.sql import functions as sf

    from stellarml.features import check_features, feature_columns
    from stellarml.features import label_columns as labels_of
    from stellarml.inference import REDDENING
    from stellarml.training import train

    spec = load_feature_file(features)
    if not is_plain(out.name):
        raise UserError(
            f"--out {out}: its name would be the model's; it must not begin with a dot or hold a colon."
        )
    with storage_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(out.parent, os.W_OK):
        raise UserError(f"{out.parent}: cannot be written to. Choose another --out.")
    if out.exists() and (out.is_file() or any(out.iterdir())):
        raise UserError(f"{out}: exists and is not empty. Choose a new folder for the model.")
    frame = read_table(spark, table)
    check_features(frame, spec)
    columns = [
        sf.col(f"`{spec.id}`"),
        *feature_columns(spec, frame.columns),
        *labels_of(spec, frame.columns),
        *([sf.col(REDDENING)] if REDDENING in frame.columns and REDDENING not in spec.feature_names else []),
    ]
    rows = frame.select(*columns, split_column(spec.id, config.split).alias("split")).toArrow()
    provenance = {"table": file_fingerprint(table)} if table.is_file() else {"table": str(table)}
    labels = [pc.is_finite(pc.fill_null(rows[name], float("nan"))) for name in spec.label_names]
    labelled = reduce(pc.or_, labels)
    return train(
        rows.filter(labelled),
        spec,
        config.train,
        config.split,
        out.parent,
        model_id=out.name,
        provenance=provenance,
        progress=progress,
        target=rows.filter(pc.invert(labelled)),
        logs=out.parent / f"{out.name}-logs" if config.train.tensorboard else None,
    )


def label_table(spark: SparkSession, config: Config, table: Path, model: Path, out: Path) -> int:
    """Label every row of `table`, in a file's order; write id, labels, intervals and flags to `out`; return the rows.

    Raises
    ------
    InputError, BundleError
        If the table lacks a column that a feature names, or the bundle is damaged.
    UserError
        If `out` is the table itself, a folder, or of an unknown format.
    """
    from pyspark.sql import functions as sf

    from stellarml.features import check_features, feature_columns
    from stellarml.inference import REDDENING, label_frame

    if out.suffix not in _FORMATS:
        raise UserError(f"{out}: unknown format '{out.suffix}'; expected one of {', '.join(_FORMATS)}")
    if out.is_dir() or out.resolve().is_relative_to(table.resolve()):
        what = "a folder" if out.is_dir() else "the table that is to be labelled, or inside it"
        raise UserError(f"{out}: is {what}; --out names a file to write.")
    manifest = load_bundle(model).manifest
    spec = manifest.features
    frame = read_table(spark, table)
    check_features(frame, spec)
    known = {name.lower() for name in frame.columns}
    if spec.id.lower() not in known:
        raise InputError(f"{table}: has no column '{spec.id}', the id that the model's feature file names")
    blob, sha256 = pack_bundle(model)
    names = [f.name for f in spec.features]
    passed = [sf.col(REDDENING).alias(REDDENING)] if REDDENING in known - set(names) else []
    inputs = frame.select(sf.col(f"`{spec.id}`"), *passed, *feature_columns(spec, frame.columns))
    labelled = label_frame(
        inputs,
        spark.sparkContext.broadcast(blob),
        sha256,
        id_column=spec.id,
        label_names=spec.label_names,
        level=config.label.level,
        truth=config.label.truth_intervals,
    ).toArrow()
    units = [(label.name, label.unit) for label in manifest.labels]
    described = arrow_schema(label_columns(units, config.label.truth_intervals))
    schema = pa.schema(
        [
            f if described.get_field_index(f.name) < 0 else described.field(f.name).with_type(f.type)
            for f in labelled.schema
        ]
    )
    labelled = pa.Table.from_arrays(labelled.columns, schema=schema)
    return write_file([labelled], schema, out, _FORMATS[out.suffix], config.tiles)
