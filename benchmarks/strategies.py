"""Every strategy on several sets of images and backbones: test accuracy (mean and spread over seeds) and seconds.

Run: python benchmarks/strategies.py [SOURCE ...] [--backbones NAME,...] [--strategies NAME,...] [--seeds N]
A SOURCE is what `graftline run` takes; none means the demo's solar cells. Another set has the same test split for every
strategy, backbone and seed. Nothing is chosen by the test images: the plan's own settings are used throughout.
"""

import argparse
import json
import statistics
import time
from itertools import product
from pathlib import Path
from typing import get_args

from _common import RESULTS

from graftline import augment, evaluate, fine_tune, select_strategy, version_data
from graftline.files import write_atomic
from graftline.orchestration.demo import demo_data
from graftline.records import Strategy
from graftline.storage import connect_store


def main() -> None:
    options = _options()
    rows = []
    for source in options.sources or [str(demo_data(options.work / "demo-data"))]:
        folder = options.work / Path(source).stem
        _prepare(source, folder)
        for backbone, strategy in product(options.backbones.split(","), options.strategies.split(",")):
            rows.append(_measure(folder, Path(source).stem, backbone, strategy, options.seeds))
            print(_line(rows[-1]), flush=True)
    write_atomic(RESULTS / "strategies.json", json.dumps(rows, indent=2) + "\n")
    print(f"every figure: {RESULTS / 'strategies.json'}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="*", metavar="SOURCE")
    parser.add_argument("--backbones", default="tf_efficientnet_lite0")
    parser.add_argument("--strategies", default=",".join(get_args(Strategy)))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--work", type=Path, default=RESULTS / "strategies-work", help="kept, so that a run resumes")
    return parser.parse_args()


def _prepare(source: str, folder: Path) -> None:
    """Versions the images once and chooses their augmentation."""
    if (folder / "policy").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    with connect_store(folder / "store"):
        version_data(source, folder / "dataset")
    augment(folder / "dataset", folder / "policy")


def _measure(folder: Path, name: str, backbone: str, strategy: Strategy, seeds: int) -> dict[str, object]:
    """Trains and measures once per seed; what is already there is not done again."""
    accuracies, seconds = [], []
    plans = folder / f"plans-{backbone}-{strategy}"
    if not plans.exists():
        select_strategy(folder / "dataset", folder / "policy", plans, backbones=backbone, strategy=strategy)
    for seed in range(seeds):
        out = folder / f"{backbone}-{strategy}-{seed}"
        result = out / "result.json"
        if not result.exists():
            started = time.perf_counter()
            fine_tune(folder / "dataset", folder / "policy", plans, out / "model", seed=seed)
            spent = time.perf_counter() - started
            accuracy = evaluate(folder / "dataset", out / "model", out / "evaluation").accuracy
            write_atomic(result, json.dumps({"accuracy": accuracy.value, "n": accuracy.n, "seconds": spent}))
        measured = json.loads(result.read_text())
        accuracies.append(measured["accuracy"])
        seconds.append(measured["seconds"])
    spread = statistics.stdev(accuracies) if seeds > 1 else 0.0
    row = {"data": name, "backbone": backbone, "strategy": strategy, "seeds": seeds, "test_images": measured["n"]}
    return {**row, "accuracy": statistics.mean(accuracies), "spread": spread, "seconds": statistics.median(seconds)}


def _line(row: dict[str, object]) -> str:
    return (
        f"{row['data']:16} {row['backbone']:24} {row['strategy']:24} {row['accuracy']:.4f} ± {row['spread']:.4f} "
        f"(n = {row['seeds']} seeds, {row['test_images']} test images)  {row['seconds']:.0f} s"
    )


if __name__ == "__main__":
    main()
