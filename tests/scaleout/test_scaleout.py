"""Several processes of one machine: one error for all, and nothing left of them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from graftline.cli import main as cli
from graftline.errors import GraftlineError
from graftline.progress import say
from graftline.scaleout.launch import count_processes, launch

HERE = Path(__file__)


def fail(folder: Path, mode: str) -> None:
    """What the second of the processes does, while the first waits for it as in a training step."""
    rank = os.environ["RANK"]
    (folder / f"{rank}.pid").write_text(str(os.getpid()))
    if mode == "wait" or rank == "0":
        time.sleep(60)
    elif mode == "clear":
        raise GraftlineError("the plan is wrong: mend it")
    elif mode == "unclear":
        raise ZeroDivisionError("by\nzero")
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "says"),
    [
        ("clear", "the plan is wrong: mend it"),
        ("unclear", "process 1 failed: ZeroDivisionError: by zero"),
        ("killed", "process 1 failed: it was killed by SIGKILL (out of memory?)"),
    ],
)
def test_the_error_of_the_one_that_fails_is_that_of_all(
    mode: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(HERE.parent), prepend=os.pathsep)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(GraftlineError) as error:
        launch(f"{HERE.stem}:fail", {"folder": tmp_path, "mode": mode}, 2)
    assert str(error.value) == says
    assert signal.getsignal(signal.SIGTERM) is before
    assert not alive(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_nothing_is_left_of_them_when_the_launcher_ends(number: signal.Signals, code: int, tmp_path: Path) -> None:
    arguments = {"folder": str(tmp_path), "mode": "wait"}
    script = f"from graftline.scaleout.launch import launch; launch('{HERE.stem}:fail', {arguments}, 2)"
    path = os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    launcher = subprocess.Popen([sys.executable, "-c", script], env=os.environ | {"PYTHONPATH": path})
    await_that(lambda: len(list(tmp_path.glob("*.pid"))) == 2 and len(alive(tmp_path)) == 2)
    launcher.send_signal(number)
    assert launcher.wait(60) in (code, -number)
    await_that(lambda: not alive(tmp_path))


def test_only_the_first_of_several_speaks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = {}
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        say("hello")
        assert cli.main(["compile", str(tmp_path / "train.yaml")]) == 0
        said[rank] = "".join(capsys.readouterr())
    assert said == {"0": f"{tmp_path / 'train.yaml'}\nhello\n", "1": ""}


def test_how_many_processes() -> None:
    assert (count_processes(0, "cpu"), count_processes(3, "cpu")) == (1, 3)
    with pytest.raises(GraftlineError, match="processes is -1"):
        count_processes(-1, "cpu")


def alive(folder: Path) -> list[str]:
    """Returns the processes that are running, of those that left their number in a folder."""
    numbers = [path.read_text() for path in folder.glob("*.pid")]
    return [number for number in numbers if number and Path(f"/proc/{number}/cmdline").is_file()]


def await_that(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
