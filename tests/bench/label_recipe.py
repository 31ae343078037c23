"""The recipe of Spark's documentation for labelling with Keras: `predict_batch_udf` around ``model.predict``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

DOCUMENTED_BATCH = 100
# Batch and rows; the first as the documentation has it, the second as somebody would tune it.
RECIPES = {"as documented": (DOCUMENTED_BATCH, 50_000), "in batches of 8192": (8192, 1_000_000)}


def recipe_of(data: Path, batch: int) -> Callable[[Any], Any]:
    """Return the recipe's UDF; ``model.predict`` keeps its own batches of 32 where the documentation leaves them."""
    from pyspark.ml.functions import predict_batch_udf
    from pyspark.sql.types import ArrayType, FloatType

    files = sorted(str(path) for path in (data / "models" / "paper").glob("*.keras"))
    width = json.loads((data / "models" / "paper" / "bundle.json").read_text())["scaler"]["center"]
    more = {} if batch == DOCUMENTED_BATCH else {"batch_size": batch}

    def make_predict() -> Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]:
        import tensorflow as tf

        models = [tf.keras.models.load_model(path) for path in files]
        inputs = models[0].input_shape[1]

        def predict(x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
            padded = np.zeros((len(x), inputs), np.float32)
            padded[:, : min(inputs, x.shape[1])] = np.nan_to_num(x)[:, :inputs]
            return np.hstack([model.predict(padded, verbose=0, **more) for model in models])

        return predict

    return predict_batch_udf(
        make_predict,
        return_type=ArrayType(FloatType()),
        batch_size=batch,
        input_tensor_shapes=[[len(width)]],
    )
