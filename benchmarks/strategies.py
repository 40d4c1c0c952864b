"""The strategies on several sets of images and backbones: test accuracy (mean and spread over seeds) and seconds.

Run: python benchmarks/strategies.py [SOURCE ...] [--backbones NAME,...] [--strategies NAME,...] [--seeds N] [--jobs N]
A SOURCE is what `graftline run` takes; none means the demo's solar cells. Of each strategy, the plan that
select_strategy ranks first is trained as it is. A set has the same test split for every plan, backbone and seed;
nothing is chosen by the test images. A set's folder in --work bears its name and its fingerprint; what is trained there
is not trained again, and an interrupted training starts anew, so that its seconds are whole. With --jobs, several
trainings run side by side, each on its part of the processor's threads: more of them in the same time, but each takes
longer, so their seconds count only where no training had the machine for itself.
"""

import argparse
import json
import shutil
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

import torch
from _common import RESULTS

from graftline import augment, evaluate, fine_tune, select_strategy, version_data
from graftline.data.sources import source_fingerprint
from graftline.files import write_atomic
from graftline.records import TransferPlan, TransferPlans, read_record
from graftline.runs.demo import demo_data
from graftline.storage import connect_store

HEADER = """| images | plan | test accuracy (mean ± standard deviation) | seeds | test images | seconds | threads |
|---|---|---|---|---|---|---|"""


@dataclass(frozen=True)
class Case:
    """A plan, trained once per seed.

    Attributes:
        data: What the images are called in the table.
        folder: Of the set and all that is made from it.
        plans: Folder written by select_strategy.
        rank: Of the plan among them.
        plan: The plan.
    """

    data: str
    folder: Path
    plans: Path
    rank: int
    plan: TransferPlan


@dataclass(frozen=True)
class Result:
    """What one training gave.

    Attributes:
        accuracy: On the test images.
        n: Number of test images.
        seconds: Of `fine_tune`.
        threads: It computed on.
    """

    accuracy: float
    n: int
    seconds: float
    threads: int


def main() -> None:
    options = _options()
    cases = []
    for source in options.sources or [str(demo_data(options.work / "demo-data"))]:
        name = Path(source).stem
        folder = options.work / f"{name}-{source_fingerprint(source)[:8]}"
        _prepare(source, folder)
        for backbone in options.backbones.split(","):
            cases += _cases(name, folder, backbone, options.strategies.split(","), options.every_plan)
    threads = max(1, torch.get_num_threads() // options.jobs)
    rows = []
    print(HEADER)
    with ProcessPoolExecutor(options.jobs, get_context("spawn"), torch.set_num_threads, (threads,)) as workers:
        for case, results in _train_all(workers, cases, options.seeds):
            print(_line(case, results), flush=True)
            plan = {"data": case.data, "plan": case.plan.name, "rank": case.rank}
            rows.append({**plan, "seeds": list(map(asdict, results))})
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(options.out, json.dumps(rows, indent=2) + "\n")
    print(f"\nall figures: {options.out}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="*", metavar="SOURCE")
    parser.add_argument("--backbones", default="tf_efficientnet_lite0")
    parser.add_argument("--strategies", default="feature_extraction,fine_tuning,progressive_unfreezing")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=1, help="trainings side by side")
    parser.add_argument("--every-plan", action="store_true", help="not only the first one of each strategy")
    parser.add_argument("--work", type=Path, default=RESULTS / "strategies-work", help="kept, so that a run resumes")
    parser.add_argument("--out", type=Path, default=RESULTS / "strategies.json", help="file for all figures")
    return parser.parse_args()


def _prepare(source: str, folder: Path) -> None:
    """Versions the images once and chooses their augmentation."""
    if (folder / "policy").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    with connect_store(folder / "store"):
        version_data(source, folder / "dataset")
    augment(folder / "dataset", folder / "policy")


def _cases(data: str, folder: Path, backbone: str, strategies: list[str], every_plan: bool) -> list[Case]:
    """Ranks the plans of one backbone once and returns those of the strategies."""
    plans = folder / f"plans-{backbone}"
    if not plans.exists():
        select_strategy(folder / "dataset", folder / "policy", plans, backbones=backbone)
    ranked = enumerate(read_record(plans, TransferPlans).plans, 1)
    cases = [Case(data, folder, plans, rank, plan) for rank, plan in ranked if plan.strategy in strategies]
    first = {case.plan.strategy: case for case in reversed(cases)}
    return [case for case in cases if every_plan or case is first[case.plan.strategy]]


def _train_all(workers: Executor, cases: list[Case], seeds: int) -> Iterator[tuple[Case, list[Result]]]:
    """Yields each case once all its seeds are trained, in order."""
    pending = [(case, [workers.submit(_train, case, seed) for seed in range(seeds)]) for case in cases]
    try:
        for case, results in pending:
            yield case, [each.result() for each in results]
    except BaseException:
        workers.shutdown(wait=False, cancel_futures=True)
        raise


def _train(case: Case, seed: int) -> Result:
    """Trains and measures; what is already there is not done again."""
    out = case.folder / f"{case.plan.backbone}-{case.rank}-{seed}"
    if kept := _read_result(out / "result.json"):
        return kept
    dataset, checkpoints = case.folder / "dataset", out / "checkpoints"
    shutil.rmtree(checkpoints, ignore_errors=True)  # one that goes on takes only the seconds of the rest
    options = {"rank": case.rank, "seed": seed, "checkpoints": str(checkpoints)}
    started = time.perf_counter()
    fine_tune(dataset, case.folder / "policy", case.plans, out / "model", **options)
    spent = time.perf_counter() - started
    accuracy = evaluate(dataset, out / "model", out / "evaluation").accuracy
    result = Result(accuracy.value, accuracy.n, spent, torch.get_num_threads())
    write_atomic(out / "result.json", json.dumps(asdict(result)))
    return result


def _read_result(path: Path) -> Result | None:
    """Returns a training's result; None when there is none, or one of an older layout."""
    try:
        return Result(**json.loads(path.read_text()))
    except (FileNotFoundError, TypeError):
        return None


def _line(case: Case, results: list[Result]) -> str:
    accuracies = [result.accuracy for result in results]
    spread = f" ± {statistics.stdev(accuracies):.4f}" if len(results) > 1 else ""
    threads = max(result.threads for result in results)
    seconds = statistics.median(result.seconds for result in results if result.threads == threads)
    shown = f"{statistics.mean(accuracies):.4f}{spread} | {len(results)} | {results[0].n} | {seconds:.0f} | {threads}"
    return f"| {case.data} | {case.plan.name} | {shown} |"


if __name__ == "__main__":
    main()
