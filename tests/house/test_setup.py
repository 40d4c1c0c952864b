"""`.ci/venv` makes .venv with a Python that suits, keeps one that does, and takes the Python that PYTHON names."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / ".ci" / "venv"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with nothing in it but the script, and three versions of Python on PATH."""
    (tmp_path / ".ci").mkdir()
    shutil.copy(SCRIPT, tmp_path / ".ci")
    (tmp_path / "bin").mkdir()
    for name, minor in (("python3.10", 10), ("python3", 12), ("python3.13", 13)):
        write_python(tmp_path / "bin" / name, minor)
    return tmp_path


def write_python(path: Path, minor: int) -> None:
    """Writes a stand-in that takes itself for another version; its environments are copies of it, with a pip."""
    pretend = f"import sys; sys.version_info = (3, {minor}, 0); exec(sys.argv[1])"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f'#!/bin/sh\ncase "$1 $2" in\n"-c "*) exec {sys.executable} -c "{pretend}" "$2" ;;\n'
        '"-m venv") mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;\n"-m pip") echo pip ;;\n*) exit 1 ;;\nesac\n'
    )
    path.chmod(0o755)


def make(checkout: Path, python: str = "") -> "subprocess.CompletedProcess[str]":
    environment = {"PATH": f"{checkout / 'bin'}{os.pathsep}{os.environ['PATH']}", "PYTHON": python}
    command = ["bash", checkout / ".ci" / "venv"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def minor_of(checkout: Path) -> int:
    command = [checkout / ".venv" / "bin" / "python", "-c", "print(sys.version_info[1])"]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def test_a_python_that_does_not_suit_is_replaced(checkout: Path) -> None:
    write_python(checkout / ".venv" / "bin" / "python", 10)
    assert make(checkout).returncode == 0
    assert minor_of(checkout) == 12


def test_one_that_suits_is_kept_unless_another_version_is_named(checkout: Path) -> None:
    assert make(checkout).returncode == 0
    mark = checkout / ".venv" / "mark"
    mark.touch()
    for python in ("", "python3"):
        assert make(checkout, python).returncode == 0
        assert mark.exists()
    assert make(checkout, "python3.13").returncode == 0
    assert (mark.exists(), minor_of(checkout)) == (False, 13)


def test_a_named_python_that_does_not_suit_is_one_line_and_costs_nothing(checkout: Path) -> None:
    assert make(checkout).returncode == 0
    refused = make(checkout, "python3.10")
    assert refused.returncode == 1
    assert refused.stderr.startswith("graftline needs Python 3.11 or later, and python3.10 is ")
    assert minor_of(checkout) == 12
