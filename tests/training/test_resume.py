"""Exact resume: runs that are killed or terminated end with the weights of an uninterrupted one; several processes.

Each training runs in a process of its own, forked from a server that has the libraries loaded.
"""

import json
import multiprocessing
import os
import signal
import sys
import time
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest
from builders import write_plans

from graftline.models.trained import WEIGHTS_FILE

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="signals"),
]
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["graftline.transfer.strategies", "graftline.training.curves"])
_SMALL = {"image_size": 64, "epochs": 3, "batch_size": 4, "warmup_steps": 2, "learning_rate": 1e-4}
_PLANS = {
    "fine_tuning": {"strategy": "fine_tuning", "frozen_groups": 4, "ema_decay": 0.9, "mixup": 0.2, "dropout": 0.1},
    "progressive": {"strategy": "progressive_unfreezing", "stage_epochs": [1, 1, 1], "schedule": "plateau"},
    "extraction": {"strategy": "feature_extraction", "epochs": 0},
}


class _Training:
    """One set of inputs, trained as often as wanted."""

    def __init__(self, dataset: Path, policy: Path, plans: Path, folder: Path, changes: dict[str, object]) -> None:
        self.folder = folder
        self._inputs = dataset, policy, write_plans(plans, folder / "plans", _SMALL | changes)

    def start(self, name: str, **options: object) -> ForkServerProcess:
        self.progress(name).unlink(missing_ok=True)
        options = {"checkpoints": str(self.folder / f"{name}-saved"), **options}
        shown = {"GRAFTLINE_PROGRESS": str(self.progress(name))}
        process = _CONTEXT.Process(target=_train, args=(self._inputs, self.folder / name, options, shown))
        process.start()
        return process

    def finish(self, name: str) -> bytes:
        process = self.start(name)
        process.join(120)
        assert process.exitcode == 0
        return (self.folder / name / WEIGHTS_FILE).read_bytes()

    def progress(self, name: str) -> Path:
        return self.folder / f"{name}.progress"

    def stop_at(self, name: str, epoch: int, number: signal.Signals, delay: float, **options: object) -> int:
        """Starts a training and sends it a signal in an epoch; returns its exit code."""
        process = self.start(name, **options)
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and process.is_alive() and not self._is_in(name, epoch):
            time.sleep(0.01)
        time.sleep(delay)
        assert process.pid is not None and process.is_alive(), "it ended before it could be stopped"
        os.kill(process.pid, number)
        process.join(60)
        assert process.exitcode is not None
        return process.exitcode

    def _is_in(self, name: str, epoch: int) -> bool:
        text = self.progress(name).read_text() if self.progress(name).is_file() else ""
        return f'"epoch {epoch} of' in text or (epoch == 0 and bool(text))


def _train(inputs: tuple[Path, Path, Path], out: Path, options: dict[str, object], environment: dict[str, str]) -> None:
    os.environ.update(environment)
    from graftline import fine_tune

    fine_tune(*inputs, out, **options)  # type: ignore[arg-type]


def _make(request: pytest.FixtureRequest, folder: Path, name: str, **changes: object) -> _Training:
    inputs = (request.getfixturevalue(fixture) for fixture in ("solar_dataset", "policy", "plans"))
    return _Training(*inputs, folder, {**_PLANS[name], **changes})


@pytest.mark.parametrize(("name", "epochs"), [("fine_tuning", (2,)), ("progressive", (1, 2, 3)), ("extraction", (0,))])
def test_a_killed_run_ends_with_the_weights_of_a_whole_one(
    name: str, epochs: tuple[int, ...], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    training = _make(request, tmp_path, name)
    whole = training.finish("whole")
    for epoch in epochs:
        assert training.stop_at("killed", epoch, signal.SIGKILL, delay=0.02) == -signal.SIGKILL
    assert not (tmp_path / "killed").exists()
    assert training.finish("killed") == whole


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 128 + signal.SIGTERM), (signal.SIGINT, 1)])
def test_a_terminated_run_saves_between_steps_and_ends_alike(
    number: signal.Signals, code: int, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    training = _make(request, tmp_path, "fine_tuning", batch_size=2)
    whole = training.finish("whole")
    assert training.stop_at("stopped", 2, number, delay=0.1) == code
    saved = sorted(path.stem for path in (tmp_path / "stopped-saved").rglob("*.pt"))
    assert not saved[-1].endswith("-000000"), "saved in the middle of an epoch"
    assert training.finish("stopped") == whole


def test_a_terminated_run_of_short_epochs_ends_at_the_end_of_one(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    training = _make(request, tmp_path, "fine_tuning", batch_size=500, epochs=20)
    whole = training.finish("whole")
    assert training.stop_at("stopped", 2, signal.SIGTERM, delay=0) == 128 + signal.SIGTERM
    assert training.finish("stopped") == whole


def test_another_machine_goes_on_from_the_store(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = _make(request, tmp_path, "fine_tuning")
    whole = training.finish("whole")
    store = {"GRAFTLINE_STORE": str(tmp_path / "store")}
    inputs, options = training._inputs, {"checkpoints": ""}
    for machine in ("first", "second"):
        place = {"GRAFTLINE_WORKSPACE": str(tmp_path / machine), **store}
        place["GRAFTLINE_PROGRESS"] = str(training.progress("moved"))
        training.progress("moved").unlink(missing_ok=True)
        process = _CONTEXT.Process(target=_train, args=(inputs, tmp_path / "moved", options, place))
        process.start()
        while machine == "first" and process.is_alive() and not training._is_in("moved", 2):
            time.sleep(0.01)
        if machine == "first" and process.pid:
            os.kill(process.pid, signal.SIGKILL)
        process.join(120)
    said = [json.loads(line).get("message", "") for line in training.progress("moved").read_text().splitlines()]
    assert any("what the store holds" in message for message in said)
    assert (tmp_path / "moved" / WEIGHTS_FILE).read_bytes() == whole
    assert not list((tmp_path / "store").rglob("*.pt"))


@pytest.mark.parametrize("changes", [{}, {"accumulation": 2, "batch_size": 10, "balance": "class_weights"}])
def test_two_processes_learn_what_one_does_also_when_they_are_terminated_between(
    changes: dict[str, object], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    training = _make(request, tmp_path, "fine_tuning", batch_size=8, epochs=2, dropout=0.0)
    if not changes:
        options = {"precision": "fp32", "processes": 2}
        assert training.stop_at("together", 1, signal.SIGTERM, delay=0.1, **options) == 128 + signal.SIGTERM
    for name, processes in (("alone", 1), ("together", 2)):
        process = training.start(name, precision="fp32", processes=processes)
        process.join(240)
        assert process.exitcode == 0
    said = training.progress("together").read_text()
    assert said.count("epoch 2 of 2: validation") == 1, "one of the processes speaks"
    assert ("resuming after epoch" in said) == (not changes)
    curves = [json.loads((tmp_path / name / "history.json").read_text()) for name in ("alone", "together")]
    for one, two in zip(*curves, strict=True):
        for key in ("train_loss", "validation_loss"):
            assert two.get(key) == pytest.approx(one.get(key), abs=1e-3)
