"""Drift: does the champion answer differently to production images than to its test images? No label is needed.

Its test images are the reference, as its answers to images that it was trained on are surer than they should be.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.stats import ks_2samp

from graftline.data.sources import spread
from graftline.errors import DataError
from graftline.models.edge import EdgeModel, answer_files
from graftline.progress import say
from graftline.records import Drift
from graftline.registry.bundles import download_shipped
from graftline.registry.client import Registry
from graftline.registry.versions import RegisteredVersion

MOST = 500  # images of each kind; more only make harmless differences significant
_LEVEL = 0.05


def measure_drift(
    registry: Registry, champion: RegisteredVersion, reference: Sequence[Path], production: Sequence[Path]
) -> Drift:
    """Compares the shipped file's answers to production images with those to its test images.

    Args:
        registry: An open registry.
        champion: A version that graftline registered.
        reference: Files of its test images; of more than 500, every so many-th is taken.
        production: Image files; the same.

    Raises:
        DataError: None of the production images can be read.
        GraftlineError: The champion's file is not the one that was registered, or does not run.
    """
    with tempfile.TemporaryDirectory() as temporary:
        model = EdgeModel(download_shipped(registry, champion, Path(temporary)))
        old, new = (_answers(model, spread(paths, MOST)) for paths in (reference, production))
    if not len(new):
        raise DataError(f"none of the {len(production)} production images can be read, {production[0]} for one")
    return compare_answers(new, old)


def compare_answers(new: np.ndarray, old: np.ndarray) -> Drift:
    """Tests whether two samples of a classifier's answers come from one distribution.

    Args:
        new: float [n, classes], probabilities for production images.
        old: float [m, classes], for test images.
    """
    tests = [ks_2samp(new[:, k], old[:, k]) for k in range(old.shape[1])]
    p_value = min(1.0, len(tests) * min(float(test.pvalue) for test in tests))
    distance = max(float(test.statistic) for test in tests)
    return Drift(images=len(new), reference=len(old), distance=distance, p_value=p_value, detected=p_value < _LEVEL)


def _answers(model: EdgeModel, paths: Sequence[Path]) -> np.ndarray:
    """Returns the probabilities, float [n, classes], for those of the files that can be read."""
    answers = list(answer_files(model, paths, "asking the champion"))
    read = [answer for answer in answers if not isinstance(answer, str)]
    if len(read) < len(answers):
        say(f"{len(answers) - len(read)} of {len(answers)} images cannot be read: left out of the drift")
    return np.array(read)
