"""What a model is fed: feature files, their columns in Spark, missing-value patterns, the split."""
