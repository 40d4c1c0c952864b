"""After a mistake no further try of a task is made; after an accident, such as a machine that is taken away, one is."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from graftline.components.task import TRY, FailedForGoodError, as_task
from graftline.components.version_data import version_data
from graftline.errors import DataError, GraftlineError, StoreError, WeightsError
from graftline.scaleout.launch import MemberError
from graftline.scaleout.member import Failure

TASK = "graftline-train-x7k2p.root.version-data.executor"


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GRAFTLINE_STORE", str(tmp_path / "store"))
    return tmp_path / "store"


class Task:
    """A task that raises what it is told to and counts how often it ran."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str = TASK) -> None:
        self._monkeypatch, self._name, self.ran = monkeypatch, name, 0

    def make_try(self, number: int, error: BaseException | None = None) -> str:
        def step() -> str:
            self.ran += 1
            if error:
                raise error
            return "done"

        self._monkeypatch.setenv(TRY, f"{self._name}({number})")
        return as_task(step)()


MISTAKES = [
    DataError("the manifest has no column label: add one"),
    TypeError("bad operand"),
    KeyError("label"),
    ZeroDivisionError(),
    MemberError(Failure(rank=1, message="the plan is wrong: mend it", clear=True)),
]
ACCIDENTS = [
    StoreError("the store is unreachable"),
    RuntimeError("CUDA error: uncorrectable ECC error encountered"),
    ConnectionResetError(),
    MemoryError(),
    MemberError(Failure(rank=1, message="it was killed by SIGKILL (out of memory?)")),
    SystemExit(143),
    KeyboardInterrupt(),
]


@pytest.mark.parametrize("error", MISTAKES, ids=lambda error: type(error).__name__)
def test_a_mistake_is_not_tried_again(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    task = Task(monkeypatch)
    with pytest.raises(type(error)):
        task.make_try(0, error)
    for number in (1, 2):
        with pytest.raises(FailedForGoodError, match=r"not tried again after a mistake in try 1: .+"):
            task.make_try(number)
    assert task.ran == 1


@pytest.mark.parametrize("error", ACCIDENTS, ids=lambda error: type(error).__name__)
def test_an_accident_is_tried_again(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    task = Task(monkeypatch)
    with pytest.raises(type(error)):
        task.make_try(0, error)
    assert task.make_try(1) == "done"


def test_a_mistake_after_an_accident_ends_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    task = Task(monkeypatch)
    with pytest.raises(StoreError):
        task.make_try(0, StoreError("away"))
    with pytest.raises(WeightsError):
        task.make_try(1, WeightsError("no weights: give some"))
    with pytest.raises(FailedForGoodError, match="in try 2: no weights: give some"):
        task.make_try(2)


def test_a_run_made_anew_and_other_tasks_know_nothing_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    task = Task(monkeypatch)
    with pytest.raises(DataError):
        task.make_try(0, DataError("broken"))
    assert Task(monkeypatch, TASK.replace("version-data", "augment")).make_try(1) == "done"
    with pytest.raises(StoreError):
        task.make_try(0, StoreError("away"))
    assert task.make_try(1) == "done", "the note of the run before is gone"


@pytest.mark.parametrize("name", ["", TASK])
def test_without_numbered_tries_nothing_is_written(name: str, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TRY, name)

    def step() -> None:
        raise DataError("broken")

    assert as_task(step) is step
    with pytest.raises(DataError):
        as_task(step)()
    assert not store.exists()


def test_a_store_that_refuses_the_note_hides_no_error(
    store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store.mkdir()
    (store / "tries").write_text("in the way")
    with pytest.raises(DataError, match="broken"):
        Task(monkeypatch).make_try(1, DataError("broken"))
    assert "may be tried again in vain" in capsys.readouterr().err


class Folder:
    """Stands for the artifact that KFP hands to a component."""

    def __init__(self, path: Path) -> None:
        self.path, self.metadata = str(path), dict[str, Any]()


def test_a_component_ends_at_once_even_when_its_source_has_come(
    solar_manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, folder = tmp_path / "manifest.csv", Folder(tmp_path / "dataset")
    keys = {"code_version": "", "source_fingerprint": ""}
    monkeypatch.setenv(TRY, f"{TASK}(0)")
    with pytest.raises(GraftlineError, match=r"manifest\.csv"):
        version_data.python_func(str(source), folder, **keys)
    source.write_text(solar_manifest.read_text())
    monkeypatch.setenv(TRY, f"{TASK}(1)")
    with pytest.raises(FailedForGoodError, match=r"in try 1: .*manifest\.csv"):
        version_data.python_func(str(source), folder, **keys)
    monkeypatch.setenv(TRY, f"{TASK}(0)")
    assert version_data.python_func(str(source), folder, **keys) == folder.metadata["version"]


def test_a_try_that_was_killed_leaves_no_note(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = (
        "import time; from graftline.components.task import as_task; as_task(lambda: (print(1), time.sleep(60)))()"
    )
    environment = os.environ | {TRY: f"{TASK}(0)", "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen([sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE)
    assert process.stdout and process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    assert process.wait(30) == -signal.SIGKILL
    assert Task(monkeypatch).make_try(1) == "done"
