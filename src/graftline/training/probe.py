"""Linear probes: the head solved to convergence on fixed features, its strength of regularisation cross-validated."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from graftline.data.parallel import map_threads
from graftline.progress import track

_STRENGTHS = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
_FOLDS = 5
_ITERATIONS = 1000
_SEARCH_TOLERANCE = 1e-3
_TINY = 1e-6


# These matrices are small: with several BLAS threads the solver waits more than it computes.
_one_thread = threadpool_limits.wrap(limits=1, user_api="blas")


@dataclass(frozen=True)
class ProbeResult:
    """What cross-validation found.

    Attributes:
        regularisation: Inverse L2 strength C on standardised features with the best accuracy; the smallest of equals.
        predictions: int64 [n], out-of-fold class of each image at that strength.
        folds: Number of folds.
    """

    regularisation: float
    predictions: np.ndarray
    folds: int


def choose_strength(
    features: np.ndarray, labels: np.ndarray, groups: Sequence[object], seed: int = 0, balanced: bool = False
) -> float:
    """Returns the regularisation that `cross_validate` chooses; the middle one where a class has a single image.

    Args:
        features: float [n, d].
        labels: int [n].
        groups: Of the images, see `cross_validate`.
        seed: Of the folds.
        balanced: Whether all classes weigh alike.
    """
    if np.unique(labels, return_counts=True)[1].min() < 2:
        return _STRENGTHS[len(_STRENGTHS) // 2]
    return cross_validate(features, labels, groups, seed, balanced).regularisation


@_one_thread
def cross_validate(
    features: np.ndarray, labels: np.ndarray, groups: Sequence[object], seed: int = 0, balanced: bool = False
) -> ProbeResult:
    """Chooses the regularisation of a linear probe by stratified, shuffled cross-validation.

    Args:
        features: float [n, d].
        labels: int [n]; every class at least twice.
        groups: Of each image; those of one group are in the same fold, unless a class has no second group.
        seed: Of the folds.
        balanced: Whether all classes weigh alike in the probe.

    Returns:
        The best strength and its out-of-fold predictions.
    """
    splits = _split_up(labels, np.asarray(groups), seed)
    predictions = np.empty((len(_STRENGTHS), len(labels)), dtype=np.int64)
    answers = map_threads(lambda split: _hold_out(features, labels, *split, balanced), splits)
    for (_, held_out), answer in zip(splits, track(answers, "cross-validating the probe", len(splits)), strict=True):
        predictions[:, held_out] = answer
    best = int(np.argmax((predictions == labels).mean(1)))
    return ProbeResult(_STRENGTHS[best], predictions[best], len(splits))


def _split_up(labels: np.ndarray, groups: np.ndarray, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns indices to train on and to hold out: stratified folds, groups whole where each class has several."""
    classes = np.unique(labels)
    by_class = [labels == label for label in classes]
    folds = min(_FOLDS, *(len(np.unique(groups[images])) for images in by_class))
    if folds > 1 and len(np.unique(groups)) < len(groups):
        splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
        splits = list(splitter.split(labels, labels, groups))
        if all(len(held_out) and np.array_equal(np.unique(labels[train]), classes) for train, held_out in splits):
            return splits
    folds = int(min(_FOLDS, *(images.sum() for images in by_class)))
    return list(StratifiedKFold(folds, shuffle=True, random_state=seed).split(labels, labels))


def _hold_out(
    features: np.ndarray, labels: np.ndarray, train: np.ndarray, held_out: np.ndarray, balanced: bool
) -> np.ndarray:
    """Returns the classes of the held-out images, [strengths, held out], by probes on the others."""
    mean, scale = _standardisation(features[train])
    known, unknown = ((features[part] - mean) / scale for part in (train, held_out))
    weights = "balanced" if balanced else None
    solver = LogisticRegression(max_iter=_ITERATIONS, tol=_SEARCH_TOLERANCE, warm_start=True, class_weight=weights)
    # From strong to weak, each starts where the last one ended.
    return np.stack([solver.set_params(C=one).fit(known, labels[train]).predict(unknown) for one in _STRENGTHS])


@_one_thread
def solve_head(
    features: np.ndarray, labels: np.ndarray, strength: float, balanced: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Solves multinomial logistic regression and folds the standardisation of the features into the result.

    Args:
        features: float [n, d].
        labels: int [n], classes 0 to k-1, each at least once.
        strength: Inverse L2 strength C.
        balanced: Whether all classes weigh alike, however many images they have.

    Returns:
        weight float [k, d] and bias float [k]: logits are `features @ weight.T + bias`.
    """
    mean, scale = _standardisation(features)
    solver = LogisticRegression(C=strength, max_iter=_ITERATIONS, class_weight="balanced" if balanced else None)
    solver.fit((features - mean) / scale, labels)
    weight, bias = solver.coef_, solver.intercept_
    if len(weight) == 1:  # two classes: scikit-learn gives the log-odds of the second
        weight, bias = np.stack([-weight[0], weight[0]]) / 2, np.stack([-bias[0], bias[0]]) / 2
    weight = weight / scale
    return weight, bias - weight @ mean


def _standardisation(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns mean and scale of each feature, the scale at least the median of all.

    Without the floor a feature that is silent on the training images (a standard deviation of 1e-5) gets a weight in
    the thousands, and the first augmented view that wakes it ruins fine-tuning.
    """
    deviations = features.std(0)
    return features.mean(0), np.maximum(deviations, max(float(np.median(deviations)), _TINY))


@torch.no_grad()
def set_head(head: nn.Module, weight: np.ndarray, bias: np.ndarray) -> None:
    """Copies a solved head into a linear layer (or a 1x1 convolution) of a model."""
    target: Tensor = head.weight  # type: ignore[assignment]
    target.copy_(torch.from_numpy(weight).reshape(target.shape))
    head.bias.copy_(torch.from_numpy(bias))  # type: ignore[operator, union-attr, arg-type]
