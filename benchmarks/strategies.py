"""Every strategy on several sets of images and backbones: test accuracy (mean and spread over seeds) and seconds.

Run: python benchmarks/strategies.py [SOURCE ...] [--backbones NAME,...] [--seeds N] [--ranks N,...]
A SOURCE is what `graftline run` takes; none means the demo's solar cells. Every plan that select_strategy ranks is
trained as it is. A set has the same test split for every plan, backbone and seed; nothing is chosen by the test images.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

from _common import RESULTS

from graftline import augment, evaluate, fine_tune, select_strategy, version_data
from graftline.files import write_atomic
from graftline.orchestration.demo import demo_data
from graftline.records import TransferPlan, TransferPlans, read_record
from graftline.storage import connect_store


def main() -> None:
    options = _options()
    rows = []
    for source in options.sources or [str(demo_data(options.work / "demo-data"))]:
        folder = options.work / Path(source).stem
        _prepare(source, folder)
        for backbone in options.backbones.split(","):
            plans = _plan(folder, backbone)
            for rank, plan in enumerate(read_record(plans, TransferPlans).plans, 1):
                if str(rank) in options.ranks.split(","):
                    rows.append(_measure(folder, plans, rank, plan, options.seeds))
                    print(_line(rows[-1]), flush=True)
    write_atomic(RESULTS / "strategies.json", json.dumps(rows, indent=2) + "\n")
    print(f"every figure: {RESULTS / 'strategies.json'}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="*", metavar="SOURCE")
    parser.add_argument("--backbones", default="tf_efficientnet_lite0")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--ranks", default="1,2,3,4", help="which of the plans")
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


def _plan(folder: Path, backbone: str) -> Path:
    """Ranks the plans of one backbone once."""
    plans = folder / f"plans-{backbone}"
    if not plans.exists():
        select_strategy(folder / "dataset", folder / "policy", plans, backbones=backbone)
    return plans


def _measure(folder: Path, plans: Path, rank: int, plan: TransferPlan, seeds: int) -> dict[str, object]:
    """Trains and measures once per seed; what is already there is not done again."""
    accuracies, seconds = [], []
    for seed in range(seeds):
        out = folder / f"{plan.backbone}-{rank}-{seed}"
        result = out / "result.json"
        if not result.exists():
            started = time.perf_counter()
            fine_tune(folder / "dataset", folder / "policy", plans, out / "model", rank=rank, seed=seed)
            spent = time.perf_counter() - started
            accuracy = evaluate(folder / "dataset", out / "model", out / "evaluation").accuracy
            write_atomic(result, json.dumps({"accuracy": accuracy.value, "n": accuracy.n, "seconds": spent}))
        measured = json.loads(result.read_text())
        accuracies.append(measured["accuracy"])
        seconds.append(measured["seconds"])
    spread = statistics.stdev(accuracies) if seeds > 1 else None
    row = {"data": folder.name, "plan": plan.name, "rank": rank, "seeds": seeds, "test_images": measured["n"]}
    return {**row, "accuracy": statistics.mean(accuracies), "spread": spread, "seconds": statistics.median(seconds)}


def _line(row: dict[str, object]) -> str:
    spread = f" ± {row['spread']:.4f}" if row["spread"] is not None else ""
    return (
        f"{row['data']:14} {row['rank']} {row['plan']:62} {row['accuracy']:.4f}{spread} "
        f"(seeds: {row['seeds']}, test images: {row['test_images']})  {row['seconds']:.0f} s"
    )


if __name__ == "__main__":
    main()
