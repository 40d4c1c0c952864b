"""What the pipeline costs: `graftline run` beside the same steps called as functions in one process, in turns.

Each run gets a fresh workspace. The steps of a pipeline are processes of their own, so each imports anew what it needs;
how long that takes is measured in one more run of each kind on few images, with one candidate: each further one would
import all of `fine_tune` once more. Run: python benchmarks/orchestration.py
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from _common import HERE, RESULTS, Spread, own_environment
from _data import shorten

from graftline.files import write_atomic
from graftline.progress import say
from graftline.runs.demo import demo_data

STRATA = 8  # two labels, two splits, two domains
_IMPORT = re.compile(r"import time: +(\d+) \|")
_TASK = re.compile(r"Executing task '([\w-]+)'")
OUTSIDE = "outside the steps"


@dataclass(frozen=True)
class Measured:
    """One run.

    Attributes:
        whole: Seconds from the start of the process to its end.
        steps: Seconds of each step; of a task from before its process starts to after it has ended.
    """

    whole: float
    steps: dict[str, float]


def main() -> None:
    options = _options()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.out.parent, prefix=".orchestration-") as folder:
        manifest = demo_data(Path(folder) / "demo-data")
        few = shorten(manifest, options.import_images // STRATA)
        if options.images:
            manifest = shorten(manifest, options.images // STRATA)
        work = Path(folder) / "work"
        pipeline, alone = _rounds(manifest, work, options.rounds)
        imports = {"pipeline": _imports(few, work, in_pipeline=True), "alone": _imports(few, work, in_pipeline=False)}
    print("\n".join(_table(pipeline, alone, imports)))
    result = {"pipeline": list(map(asdict, pipeline)), "alone": list(map(asdict, alone)), "imports": imports}
    write_atomic(options.out, json.dumps({"images": options.images, **result}, indent=2) + "\n")
    print(f"\nall figures: {options.out}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="What the pipeline costs beside its steps.")
    parser.add_argument("--images", type=int, default=0, help="of the demo, equally many of each kind; 0: all 2,624")
    parser.add_argument("--rounds", type=int, default=3, help="of both")
    parser.add_argument("--import-images", type=int, default=80, help="of the two runs in which imports are measured")
    parser.add_argument("--out", type=Path, default=RESULTS / "orchestration.json", help="file for all figures")
    return parser.parse_args()


def _rounds(manifest: Path, work: Path, rounds: int) -> tuple[list[Measured], list[Measured]]:
    """Runs both in turns, each of them first in every second round."""
    measured: dict[bool, list[Measured]] = {True: [], False: []}
    for number in range(rounds):
        for in_pipeline in (True, False) if number % 2 == 0 else (False, True):
            one = _run(manifest, work, in_pipeline)
            measured[in_pipeline].append(one)
            title = "the pipeline" if in_pipeline else "one process"
            say(f"round {number + 1} of {rounds}: {title} {one.whole:.1f} s")
    return measured[True], measured[False]


def _run(manifest: Path, work: Path, in_pipeline: bool) -> Measured:
    """Runs the steps in a fresh workspace."""
    began = time.perf_counter()
    output = _start(manifest, work, in_pipeline)[0]
    whole = time.perf_counter() - began
    steps = _tasks(work) if in_pipeline else json.loads(output)
    shutil.rmtree(work)
    return Measured(whole, steps)


def _start(manifest: Path, work: Path, in_pipeline: bool, candidates: int = 0, **settings: str) -> tuple[str, str]:
    """Returns what it wrote to standard output and error."""
    command = [Path(sys.executable).with_name("graftline"), "run", manifest, "--workspace", work]
    if not in_pipeline:
        command = [sys.executable, HERE / "_steps.py", manifest, work]
    command += ["--candidates", str(candidates)]
    environment = own_environment() | settings
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{command[1]} failed:\n{done.stderr[-2000:]}")
    return done.stdout, done.stderr


def _tasks(work: Path) -> dict[str, float]:
    """Returns the seconds of each task by what the run told of it."""
    (told,) = (work / "runs").glob("*/progress.jsonl")
    seconds: dict[str, float] = defaultdict(float)
    for event in map(json.loads, told.read_text().splitlines()):
        if "state" in event:
            seconds[event["step"]] += event["time"] * {"running": -1, "done": 1}[event["state"]]
    return dict(seconds)


def _imports(manifest: Path, work: Path, in_pipeline: bool) -> dict[str, float]:
    """Runs the steps with Python's own measurement of imports."""
    errors = _start(manifest, work, in_pipeline, candidates=1, PYTHONPROFILEIMPORTTIME="1")[1]
    lines = errors.splitlines()
    if in_pipeline:
        (log,) = (work / "runs").glob("*/pipeline.log")
        lines += log.read_text().splitlines()
    shutil.rmtree(work)
    return import_seconds(lines)


def import_seconds(lines: Iterable[str]) -> dict[str, float]:
    """Returns the seconds of imports in a log, by task; those of no task under "outside the steps"."""
    seconds: dict[str, float] = defaultdict(float)
    task = OUTSIDE
    for line in lines:
        if begun := _TASK.search(line):
            task = begun[1].replace("-", "_")
        elif "finished with status" in line:
            task = OUTSIDE
        elif found := _IMPORT.search(line):
            seconds[task] += int(found[1]) / 1e6
    return dict(seconds)


def _table(pipeline: list[Measured], alone: list[Measured], imports: dict[str, dict[str, float]]) -> list[str]:
    both = [Spread([one.whole for one in each]) for each in (pipeline, alone)]
    ratio = both[0].over(both[1])
    overhead = Spread([100 * (value - 1) for value in ratio.values])
    seconds = Spread([a - b for a, b in zip(both[0].values, both[1].values, strict=True)])
    lines = [f"{'seconds':<20}{'in the pipeline':>28}{'in one process':>28}{'difference':>12}{'imports':>10}"]
    for step in pipeline[0].steps:
        own, called = (_spread(each, step) for each in (pipeline, alone))
        lines.append(_line(step, own, called, imports["pipeline"].get(step, 0.0)))
    rest = [Spread([one.whole - sum(one.steps.values()) for one in each]) for each in (pipeline, alone)]
    lines.append(_line(OUTSIDE, *rest, imports["pipeline"].get(OUTSIDE, 0.0)))
    lines.append(_line("whole", *both, sum(imports["pipeline"].values())))
    return [
        *lines,
        f"imports in the one process: {sum(imports['alone'].values()):.1f} s",
        f"overhead: {overhead} %, {seconds} seconds; median of {len(pipeline)} rounds (lowest to highest)",
        _undisturbed(pipeline, alone),
    ]


def _undisturbed(pipeline: list[Measured], alone: list[Measured]) -> str:
    """Compares each step's fastest run, as `timeit` does: what else the machine does only ever adds seconds."""
    fastest = []
    for runs in (pipeline, alone):
        steps = [min(one.steps.get(step, 0.0) for one in runs) for step in pipeline[0].steps]
        fastest.append(sum(steps) + min(one.whole - sum(one.steps.values()) for one in runs))
    added = fastest[0] - fastest[1]
    return f"by the fastest of each step: {100 * added / fastest[1]:.1f} %, {added:.1f} seconds"


def _spread(runs: list[Measured], step: str) -> Spread:
    return Spread([one.steps.get(step, 0.0) for one in runs])


def _line(name: str, pipeline: Spread, alone: Spread, imports: float) -> str:
    difference = pipeline.median - alone.median
    return f"{name:<20}{pipeline!s:>28}{alone!s:>28}{difference:>12.2f}{imports:>10.1f}"


if __name__ == "__main__":
    main()
