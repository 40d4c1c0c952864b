"""The model registry: the only code that touches MLflow."""

import os

# MLflow reads this when it is imported. A training machine must not call home unless its owner says so.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
