"""A trained model and its inference: bundle, networks in NumPy and ONNX. Knows no TensorFlow, no table and no Spark."""

import os

# ONNX Runtime's wheels send what they are used for to their maker, and leave files in $TMPDIR and ~/.cache, unless told
# otherwise before they are imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
