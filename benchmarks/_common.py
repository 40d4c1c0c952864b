"""What the benchmarks share: contenders in processes of their own, their peak memory, medians with their range."""

import json
import os
import statistics
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

HERE = Path(__file__).parent
RESULTS = HERE / "results"
_FOREIGN = ("GRAFTLINE_", "MLFLOW_")
_SAMPLE_SECONDS = 0.5
_KILOBYTE = 1024


@dataclass(frozen=True)
class Task:
    """What every contender is given.

    Attributes:
        work: A folder of the run's own.
        dataset: Folder written by version_data.
        files: The same images as SPLIT/CLASS/ID.png.
        short: Folder like `dataset` with the training images of one round.
        weights: Pretrained weights in timm's names, safetensors.
        backbone: timm name.
        side: Of the square input in pixels.
        batch: Images per step.
        steps: Timed steps of one round of the throughput measurement.
        passes: Over the training images, of each peer.
        epochs: Of ours; 0: as many as its plan says.
    """

    work: str
    dataset: str
    files: str
    short: str
    weights: str
    backbone: str
    side: int
    batch: int
    steps: int
    passes: int
    epochs: int


def own_environment() -> dict[str, str]:
    """Returns the environment without the user's settings: their caches and weights would be in the figures."""
    return {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}


def forget_settings() -> None:
    """Takes the user's settings out of this process's environment, which its children inherit."""
    for name in os.environ.keys() - own_environment():
        del os.environ[name]


class Worker:
    """A contender in a process of its own, which answers one call at a time and sleeps in between.

    Args:
        contender: Name in `_worker.CONTENDERS`.
        task: What it works on.
    """

    def __init__(self, contender: str, task: Task) -> None:
        self.contender = contender
        command = [sys.executable, HERE / "_worker.py", contender, json.dumps(asdict(task))]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._memory = PeakMemory(self._process.pid)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._process.poll() is None:
            assert self._process.stdin
            self._process.stdin.close()
            self._process.wait()
        self._memory.stop()

    def start(self, call: str, **arguments: Any) -> None:
        """Starts one of the contender's methods."""
        assert self._process.stdin
        self._process.stdin.write(json.dumps([call, arguments]) + "\n")
        self._process.stdin.flush()

    def answer(self) -> Any:
        """Waits for what the method returns.

        Raises:
            SystemExit: The process ended; its error is on the terminal.
        """
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.contender} ended before its answer: its error is above")
        return json.loads(line)

    def ask(self, call: str, **arguments: Any) -> Any:
        """Calls one of the contender's methods and returns what it returns."""
        self.start(call, **arguments)
        return self.answer()

    def memory(self) -> dict[str, int]:
        """Returns the peaks so far in bytes: `own` and `resident`, as in `PeakMemory`; empty but on Linux."""
        return self._memory.peaks()


class PeakMemory:
    """Watches the memory of a process and its children (Linux; elsewhere nothing is measured).

    Its own memory is what only ending it would give back: anonymous and shared pages, those shared between processes
    divided among them, sampled twice a second. Resident memory adds the pages of files that are mapped, such as the
    cache of decoded images, which the system takes back whenever it needs them.

    Args:
        pid: Of the process.
    """

    def __init__(self, pid: int) -> None:
        self._pid, self._own = pid, 0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        if Path("/proc/self/smaps_rollup").exists():
            self._thread.start()

    def peaks(self) -> dict[str, int]:
        """Returns `own` (all processes) and `resident` (the first process) in bytes."""
        if not self._thread.is_alive():
            return {}
        self._sample()
        return {"own": self._own, "resident": _sum_fields(Path(f"/proc/{self._pid}/status"), ["VmHWM"])}

    def stop(self) -> None:
        """Ends the watching."""
        self._stopped.set()

    def _watch(self) -> None:
        while not self._stopped.wait(_SAMPLE_SECONDS):
            self._sample()

    def _sample(self) -> None:
        fields = ["Pss_Anon", "Pss_Shmem"]
        own = sum(_sum_fields(Path(f"/proc/{pid}/smaps_rollup"), fields) for pid in _family(self._pid))
        self._own = max(self._own, own)


def _family(pid: int) -> list[int]:
    """Returns a process and all that descend from it."""
    try:
        children = [
            int(child) for path in Path(f"/proc/{pid}/task").glob("*/children") for child in path.read_text().split()
        ]
    except OSError:
        return []  # it has just ended
    return [pid, *(descendant for child in children for descendant in _family(child))]


def _sum_fields(path: Path, fields: Sequence[str]) -> int:
    """Returns the sum of some `Name: 123 kB` lines in bytes."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return 0  # it has just ended
    return sum(int(line.split()[1]) * _KILOBYTE for line in lines if line.split(":")[0] in fields)


@dataclass(frozen=True)
class Spread:
    """Several measurements of the same thing."""

    values: list[float]

    @property
    def median(self) -> float:
        """The middle one."""
        return statistics.median(self.values)

    def __str__(self) -> str:
        return f"{self.median:.2f} ({min(self.values):.2f} to {max(self.values):.2f})"

    def over(self, other: "Spread") -> "Spread":
        """Returns the ratios of measurements that were made in the same rounds."""
        return Spread([a / b for a, b in zip(self.values, other.values, strict=True)])
