"""MLflow and Weights & Biases: runs, saved models, the registry."""
