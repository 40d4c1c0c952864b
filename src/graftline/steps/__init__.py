"""One file per pipeline step, paths in, files out, one record back; and the table of all of them."""

from typing import NamedTuple


class Step(NamedTuple):
    """What is known of a step besides its function.

    Attributes:
        title: Its name for people.
        store: Whether it needs the object store.
        mlflow: Whether it needs the MLflow server.
        cache: Whether it reads images or weights, and gains from a cache that outlives it.
        fresh: Whether it looks at what may have changed outside, and is never answered from a cluster's cache.
        retraining: Whether it belongs only to retraining, not to every run.
    """

    title: str
    store: bool = False
    mlflow: bool = False
    cache: bool = False
    fresh: bool = False
    retraining: bool = False


# In the order in which they run.
TABLE = {
    "detect_change": Step(
        "Look for a reason to train again", store=True, mlflow=True, cache=True, fresh=True, retraining=True
    ),
    "fetch_champion": Step("Fetch the champion's weights", store=True, mlflow=True, retraining=True),
    "version_data": Step("Version the data", store=True, cache=True, fresh=True),
    "augment": Step("Choose the augmentation"),
    "select_strategy": Step("Choose the transfer strategy", store=True, cache=True),
    "fine_tune": Step("Fine-tune", store=True, cache=True),
    "choose_model": Step("Choose among the candidates"),
    "evaluate": Step("Evaluate on the test images", cache=True),
    "export_onnx": Step("Export for the edge", cache=True),
    "register_model": Step("Register the model", store=True, mlflow=True),
}
STEPS = tuple(name for name, step in TABLE.items() if not step.retraining)
RETRAIN_STEPS = tuple(TABLE)
