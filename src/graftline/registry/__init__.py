"""The model registry: the only code that touches MLflow."""
