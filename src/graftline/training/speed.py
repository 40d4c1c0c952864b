"""Which precision and memory layout this machine trains fastest in: measured once, then remembered.

The measurement takes a few seconds: training steps of EfficientNet-Lite0, whose pointwise and depthwise convolutions
are what most small networks are made of, with random weights. On a CPU it counts processor time on one thread, which
other work on the machine hardly changes. What is remembered depends on the processor and the versions of torch and
timm, so that a resumed run does as the first one did.
"""

import json
import math
import platform
import time
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path

import timm
import torch
from torch import nn

from graftline.files import sha256_bytes, write_json
from graftline.models.threads import one_thread
from graftline.progress import say
from graftline.training.depthwise import speed_up_depthwise
from graftline.workspace import cache_folder

LAYOUTS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_BACKBONE, _SIDE = "tf_efficientnet_lite0", 160
_HOPELESS = 3.0  # times slower on one image: not worth measuring further
_SLOW = 1.25  # times slower in the first round than the other layout: out of the final
_FIRST, _FINAL, _FINAL_ROUNDS = 8, 16, 2  # on fewer images the weights' conversion to bf16 weighs too much
_GAIN = 0.9  # what is less usual must take at most this share of the time


@dataclass(frozen=True)
class Speed:
    """How long a training step took.

    Attributes:
        precision: "fp32", "bf16" or "fp16".
        layout: "channels_last" or "contiguous".
        seconds: Per image, on one thread of a CPU: the fastest of two steps on sixteen images, or one step on eight
            that took too long for more; infinite where one image showed that it is hopeless.
    """

    precision: str
    layout: str
    seconds: float


def choose_fastest(device: torch.device, precision: str = "auto", layout: str = "auto") -> Speed:
    """Returns the fastest way to train on a device; fp32 and channels_last where others gain less than a tenth.

    Args:
        device: The CPU or a GPU.
        precision: "auto", or the one to use.
        layout: "auto", or the one to use.
    """
    if "auto" not in (precision, layout):
        return Speed(precision, layout, math.nan)
    fitting = [s for s in _speeds(device) if precision in ("auto", s.precision) and layout in ("auto", s.layout)]
    best = fitting[0]
    for speed in fitting[1:]:
        best = speed if speed.seconds < _GAIN * best.seconds else best
    return best


def _speeds(device: torch.device) -> list[Speed]:
    """Returns what was measured on this machine before, or measures it now."""
    path = _memory(device)
    if path.is_file():
        return [Speed(**row) for row in json.loads(path.read_text(encoding="utf-8"))]
    speeds = measure_speeds(device)
    write_json(path, [asdict(speed) for speed in speeds])
    shown = ", ".join(f"{s.precision} {s.layout} {1e3 * s.seconds:.1f}" for s in speeds if math.isfinite(s.seconds))
    say(f"milliseconds to train a small network on one image, measured once on this machine: {shown}")
    return speeds


def measure_speeds(device: torch.device) -> list[Speed]:
    """Measures a training step in every precision and layout that the device knows, in turns.

    Args:
        device: The CPU or a GPU.

    Returns:
        The most usual first; all of fp32, bf16 and (on a GPU) fp16, each in both layouts.
    """
    with one_thread():
        return _measure(device)


def _measure(device: torch.device) -> list[Speed]:
    trials = [_Trial(device, precision, layout) for precision, layout in product(_precisions(device), LAYOUTS)]
    warm = [min(trial.seconds(1) for _ in range(2)) for trial in trials]
    limit = _HOPELESS * min(warm)
    seconds = [trial.seconds(_FIRST) if one <= limit else math.inf for trial, one in zip(trials, warm, strict=True)]
    speeds = [Speed(trial.precision, trial.layout, one) for trial, one in zip(trials, seconds, strict=True)]
    final = [index for index, speed in enumerate(speeds) if _reaches_final(speed, speeds)]
    rounds = [[trials[index].seconds(_FINAL) for index in final] for _ in range(_FINAL_ROUNDS)]
    for index, times in zip(final, zip(*rounds, strict=True), strict=True):
        speeds[index] = replace(speeds[index], seconds=min(times))
    return speeds


def _reaches_final(speed: Speed, speeds: list[Speed]) -> bool:
    """Returns whether a way is about as fast as the best one in the same precision."""
    best = min(other.seconds for other in speeds if other.precision == speed.precision)
    return math.isfinite(best) and speed.seconds <= _SLOW * best


def _precisions(device: torch.device) -> list[str]:
    return ["fp32", "bf16"] if device.type == "cpu" else ["fp32", "bf16", "fp16"]


class _Trial:
    """A network that can be stepped in one precision and layout."""

    def __init__(self, device: torch.device, precision: str, layout: str) -> None:
        self.precision, self.layout, self._device = precision, layout, device
        with torch.random.fork_rng(devices=[]):
            model: nn.Module = timm.create_model(_BACKBONE, num_classes=2).eval()
            if device.type == "cpu" and precision == "bf16":
                speed_up_depthwise(model)
        self._model = model.to(device, memory_format=LAYOUTS[layout])  # type: ignore[call-overload]

    def seconds(self, images: int) -> float:
        """Returns how long one forward and backward pass takes per image."""
        inputs = torch.zeros(images, 3, _SIDE, _SIDE, device=self._device).contiguous(
            memory_format=LAYOUTS[self.layout]
        )
        started = self._now()
        with torch.autocast(self._device.type, _DTYPES[self.precision], enabled=self.precision != "fp32"):
            answers = self._model(inputs)
        answers.float().square().sum().backward()
        return (self._now() - started) / images

    def _now(self) -> float:
        if self._device.type == "cpu":
            return time.process_time()
        torch.cuda.synchronize(self._device)
        return time.perf_counter()


def _memory(device: torch.device) -> Path:
    """Returns the file of what was measured before on such a machine."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    what = [name, torch.__version__, timm.__version__, str(_FINAL)]  # what was measured otherwise is measured anew
    return cache_folder() / f"speed-{sha256_bytes(chr(10).join(what).encode())[:16]}.json"


def _processor() -> str:
    """Returns the processor's model name where Linux tells it, else what Python knows."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
