"""A trained model and its inference: bundle, networks in NumPy and ONNX. Knows no TensorFlow, no table and no Spark."""
