"""graftline, the PyTorch tutorial's loop and fastai's `fine_tune` on the same images with the same weights, in one run.

Throughput is measured in short interleaved rounds, accuracy and seconds in a training of each, memory in processes of
their own. What is measured how, and how to install fastai: docs/benchmarks.md. Run: python benchmarks/training.py
"""

import argparse
import importlib.util
import json
import os
import platform
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from _common import RESULTS, Spread, Task, Worker, forget_settings
from _data import make_dataset, repeat, write_files
from _peers import WARMUP_STEPS

from graftline.files import write_atomic
from graftline.intervals import wilson
from graftline.progress import say
from graftline.records import DataVersion, Interval, read_record

BACKBONE = "tf_efficientnet_lite0"
MANY = 20
NO_FASTAI = "fastai is not installed: skipped (docs/benchmarks.md says how to install it)"
_SMOKE = {"side": 64, "batch": 8, "rounds": 1, "steps": 2, "passes": 1, "epochs": 1, "memory_images": 8}
_SMOKE_STRATUM = 10
TRAIN_IMAGES = 1673  # of the demo
_GIGABYTE = 1e9


def main() -> None:
    options = _options()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    names = ["graftline", "tutorial", *(["fastai"] if importlib.util.find_spec("fastai") else [])]
    forget_settings()
    with tempfile.TemporaryDirectory(dir=options.out.parent, prefix=".training-") as work:
        task = _prepare(options, Path(work))
        result = _facts(task, options) | _contest(names, task, options)
        result["memory_by_images"] = _memory_by_images(task, options.memory_images)
    result["skipped"] = [] if "fastai" in names else [NO_FASTAI]
    write_atomic(options.out, json.dumps(result, indent=2) + "\n")
    print("\n".join(_table(result)))
    print(f"\nall figures: {options.out}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Training: graftline beside its peers.")
    parser.add_argument("--side", type=int, default=224, help="of the square input in pixels")
    parser.add_argument("--batch", type=int, default=32, help="images per step")
    parser.add_argument("--rounds", type=int, default=3, help="of the throughput measurement")
    parser.add_argument("--steps", type=int, default=6, help="timed steps of each contender in a round")
    parser.add_argument("--passes", type=int, default=3, help="over the training images, of each peer")
    parser.add_argument("--epochs", type=int, default=0, help="of graftline; 0: as many as its plan says")
    parser.add_argument("--target", type=float, default=0.85, help="accuracy that the seconds are counted to")
    parser.add_argument("--memory-images", type=int, default=96, help=f"training images; then {MANY} times as many")
    parser.add_argument("--out", type=Path, default=RESULTS / "training.json", help="file for all figures")
    parser.add_argument("--smoke", action="store_true", help="few and tiny images: shows only that everything runs")
    options = parser.parse_args()
    if options.smoke:
        vars(options).update(_SMOKE)
    elif (WARMUP_STEPS + options.steps) * options.batch > TRAIN_IMAGES:
        parser.error(
            f"a round of {WARMUP_STEPS} + {options.steps} steps of {options.batch} images takes more than the "
            f"{TRAIN_IMAGES:,} training images: give fewer --steps or a smaller --batch"
        )
    return options


def _prepare(options: argparse.Namespace, work: Path) -> Task:
    """Makes the images; the weights are written by our contender, which knows where they come from."""
    dataset = make_dataset(work, _SMOKE_STRATUM if options.smoke else 0)
    return Task(
        work=str(work),
        dataset=str(dataset),
        files=str(write_files(dataset, work / "files")),
        short=str(repeat(dataset, work / "short", options.steps * options.batch)),
        weights=str(work / "weights.safetensors"),
        backbone=BACKBONE,
        side=options.side,
        batch=options.batch,
        steps=options.steps,
        passes=options.passes,
        epochs=options.epochs,
    )


def _facts(task: Task, options: argparse.Namespace) -> dict[str, Any]:
    record = read_record(Path(task.dataset), DataVersion)
    images = {split: sum(counts.values()) for split, counts in record.counts.items()}
    settings = {name: value for name, value in vars(options).items() if name != "out"}
    machine = {"processors": os.cpu_count(), "machine": platform.machine(), "system": platform.system()}
    return {"machine": machine, "settings": settings, "backbone": BACKBONE, "images": images}


def _contest(names: list[str], task: Task, options: argparse.Namespace) -> dict[str, Any]:
    with ExitStack() as stack:
        workers = {name: stack.enter_context(Worker(name, task)) for name in names}
        for worker in workers.values():
            worker.start("hello")
        hello = {name: worker.answer() for name, worker in workers.items()}
        workers["graftline"].ask("write_weights")
        rounds: dict[str, list[float]] = {name: [] for name in names}
        for number in range(options.rounds):
            for name, worker in workers.items():
                rounds[name].append(worker.ask("round"))
                say(f"round {number + 1} of {options.rounds}: {name} {rounds[name][-1]:.1f} images/s")
        trained = {}
        for name, worker in workers.items():
            trained[name] = worker.ask("train")
            say(f"{name} trained for {trained[name]['training']['seconds']:.0f} s")
        memory = {name: worker.memory() for name, worker in workers.items()}
    return {"contenders": hello, "images_per_second": rounds, "trained": trained, "memory": memory}


def _memory_by_images(task: Task, images: int) -> dict[str, dict[str, int]]:
    """Runs our steps on few and on many images side by side, each in a process of its own."""
    peaks = {}
    with ExitStack() as stack:
        workers = {}
        for copies in (1, MANY):
            dataset = repeat(Path(task.dataset), Path(task.work) / f"times-{copies}", images, copies)
            counts = read_record(dataset, DataVersion).counts["train"]
            workers[str(sum(counts.values()))] = worker = stack.enter_context(Worker("graftline", task))
            worker.start("whole_run", dataset=str(dataset))
        for number, worker in workers.items():
            worker.answer()
            peaks[number] = worker.memory()
    return peaks


def _table(result: Mapping[str, Any]) -> list[str]:
    names = list(result["images_per_second"])
    settings, images, machine = result["settings"], result["images"], result["machine"]
    title = f"{result['backbone']}, {settings['side']} px, batch {settings['batch']}; " + ", ".join(
        f"{count:,} {split}" for split, count in images.items()
    )
    rows = [("", names), *_throughput(result, names), *_training(result, names), *_memory(result, names)]
    lines = [f"{label:46}" + "".join(f"{cell:>27}" for cell in cells) for label, cells in rows]
    ours = result["memory_by_images"].items()
    flat = [f"graftline, {int(number):,} training images: {_size(peaks)}" for number, peaks in ours]
    return [
        f"{title} images; {machine['processors']} processors, {machine['machine']}",
        *lines,
        "peak memory by the number of images, own (resident):",
        *(f"  {line}" for line in flat),
        *result["skipped"],
    ]


def _throughput(result: Mapping[str, Any], names: list[str]) -> list[tuple[str, list[str]]]:
    spreads = {name: Spread(values) for name, values in result["images_per_second"].items()}
    settings = result["settings"]
    label = f"images/s, all layers, {settings['rounds']} rounds of {settings['steps']} steps"
    factors = ["", *(str(spreads["graftline"].over(spreads[name])) for name in names[1:])]
    return [(label, [str(spreads[name]) for name in names]), ("graftline is faster by", factors)]


def _training(result: Mapping[str, Any], names: list[str]) -> list[tuple[str, list[str]]]:
    trained = [result["trained"][name] for name in names]
    n, target = result["images"]["test"], result["settings"]["target"]
    runs, features = [each["training"] for each in trained], [each["features"] for each in trained]
    heads = [_interval(wilson(each["right"], n)) if "right" in each else "not measured" for each in features]
    return [
        ("trained by", [f"{run['what']}, {run['passes']} passes" for run in runs]),
        ("  seconds", [f"{run['seconds']:.0f}" for run in runs]),
        (f"  test accuracy (95 %, n = {n})", [_interval(wilson(run["right"], n)) for run in runs]),
        (f"  seconds to {target:g} on validation", [_reached(run["curve"], target) for run in runs]),
        ("feature extraction, ten epochs: seconds", [_extraction(each) for each in features]),
        ("  test accuracy", heads),
    ]


def _memory(result: Mapping[str, Any], names: list[str]) -> list[tuple[str, list[str]]]:
    return [("peak memory, own (resident)", [_size(result["memory"][name]) for name in names])]


def _interval(accuracy: Interval) -> str:
    return f"{accuracy.value:.3f} [{accuracy.low:.3f}, {accuracy.high:.3f}]"


def _extraction(features: Mapping[str, Any]) -> str:
    return f"{features['seconds']:.0f}" + (" (10 x one measured)" if features["extrapolated"] else " (solved)")


def _reached(curve: list[list[float]], target: float) -> str:
    reached = [seconds for seconds, accuracy in curve if accuracy >= target]
    best = max(accuracy for _, accuracy in curve)
    return f"{reached[0]:.0f}" if reached else f"not in {curve[-1][0]:.0f} (best {best:.3f})"


def _size(peaks: Mapping[str, int]) -> str:
    if not peaks:
        return "not measured"
    return f"{peaks['own'] / _GIGABYTE:.2f} ({peaks['resident'] / _GIGABYTE:.2f}) GB"


if __name__ == "__main__":
    main()
