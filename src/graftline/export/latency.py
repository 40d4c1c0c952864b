"""Milliseconds from a decoded picture to its probabilities: one image, one thread, preprocessing included."""

import time
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import nn

from graftline.data.decode import resize_square
from graftline.models.predict import normalise
from graftline.models.threads import one_thread
from graftline.records import Interval, TrainedModel

Runner = Callable[[np.ndarray], np.ndarray]
_WARM_UP = 5
_FEWEST_RUNS, _MOST_RUNS, _ENOUGH_SECONDS = 30, 100, 2.0


def torch_runner(model: nn.Module, record: TrainedModel) -> Runner:
    """Returns a function like `EdgeModel`: Pillow's resize, normalisation and the PyTorch network, in fp32."""

    @torch.inference_mode()
    def run(images: np.ndarray) -> np.ndarray:
        resized = np.stack([resize_square(image, record.image_size, record.interpolation) for image in images])
        return model(normalise(torch.from_numpy(resized), record.mean, record.std)).softmax(1).numpy()

    return run


def measure_latency(runners: Mapping[str, Runner], image: np.ndarray) -> dict[str, Interval]:
    """Times the variants turn by turn, so that whatever else the machine does meets them all.

    Args:
        runners: By name of the variant; each runs on the thread that calls it.
        image: uint8 [H, W, 3], a real one at its original size.

    Returns:
        Milliseconds by name: median, quartiles, number of runs (30 to 100, as many as fit into two seconds).
    """
    times: dict[str, list[float]] = {name: [] for name in runners}
    with one_thread():
        for _ in range(_WARM_UP):
            for run in runners.values():
                run(image[None])
        started = time.perf_counter()
        for runs in range(_MOST_RUNS):
            if runs >= _FEWEST_RUNS and time.perf_counter() - started > _ENOUGH_SECONDS:
                break
            for name, run in runners.items():
                times[name].append(_milliseconds(run, image))
    return {name: _quartiles(values) for name, values in times.items()}


def _milliseconds(run: Runner, image: np.ndarray) -> float:
    started = time.perf_counter()
    run(image[None])
    return (time.perf_counter() - started) * 1000


def _quartiles(values: list[float]) -> Interval:
    low, median, high = np.percentile(values, (25, 50, 75))
    return Interval(value=float(median), low=float(low), high=float(high), n=len(values))
