"""The house: imports run one way, and a step has one name everywhere."""

import ast
import inspect
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import graftline
from graftline import records
from graftline.cli import main as cli
from graftline.pipelines import profile
from graftline.records import Record
from graftline.steps import RETRAIN_STEPS, STEPS, TABLE

ROOT = Path(__file__).parents[2]
PARTS = {"graftline": "src/graftline", "graftline/components": "components", "graftline/pipelines": "pipelines"}


def lint_imports(folder: Path) -> "subprocess.CompletedProcess[str]":
    """Holds the package in `folder` against the contracts of pyproject.toml."""
    command = [Path(sys.executable).parent / "lint-imports", "--config", ROOT / "pyproject.toml", "--no-cache"]
    environment = os.environ | {"PYTHONPATH": str(folder)}
    return subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)


def assembled(folder: Path) -> Path:
    """Copies the package into one tree, as a wheel has it: import-linter does not follow `package-dir`."""
    for target, source in PARTS.items():
        shutil.copytree(ROOT / source, folder / target, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def test_imports_run_one_way_and_the_library_does_not_know_kfp(tmp_path: Path) -> None:
    result = lint_imports(assembled(tmp_path))
    assert result.returncode == 0, result.stdout + result.stderr
    assert "0 broken" in result.stdout


def test_an_import_the_wrong_way_is_found(tmp_path: Path) -> None:
    assembled(tmp_path)
    with (tmp_path / "graftline" / "data" / "__init__.py").open("a") as file:
        file.write("\nimport graftline.components\nimport kfp\nimport boto3\nimport mlflow\n")
    assert "4 broken" in lint_imports(tmp_path).stdout


def test_a_step_has_one_name_everywhere() -> None:
    def files(folder: str, *besides: str) -> set[str]:
        return {path.stem for path in (ROOT / folder).glob("*.py")} - {"__init__", *besides}

    assert files("src/graftline/steps") == set(RETRAIN_STEPS)
    assert files("components", "image", "index", "task") == set(RETRAIN_STEPS)
    assert set(graftline.__all__) == set(RETRAIN_STEPS)
    assert list(cli.COMMANDS["the steps of a run"]) == list(STEPS)


def test_every_step_is_a_function_of_the_package() -> None:
    for step in RETRAIN_STEPS:
        assert getattr(graftline, step).__name__ == step
        assert cli.load(step) is getattr(graftline, step)


@pytest.mark.parametrize("folder", ["src/graftline/steps", "components"])
def test_the_modules_of_a_step_open_with_its_name(folder: str) -> None:
    kind = "The step" if folder.endswith("steps") else "Component"
    for step in RETRAIN_STEPS:
        docstring = ast.get_docstring(ast.parse((ROOT / folder / f"{step}.py").read_text()))
        assert re.match(rf"{kind} `{step}`: \w", docstring or ""), step


def test_every_record_names_the_step_that_writes_it() -> None:
    kinds = Record.__subclasses__()
    assert {kind.__name__ for kind in kinds if getattr(kind, "step", "") not in TABLE} == set()
    assert {kind.__name__ for kind in kinds} <= set(records.__all__)
    written = {step: inspect.signature(getattr(graftline, step)).return_annotation.step for step in RETRAIN_STEPS}
    assert written == {step: step for step in RETRAIN_STEPS} | {"fetch_champion": "fine_tune"}, "whose model it fetches"


def test_the_table_of_steps_is_whole_and_light() -> None:
    titles = [step.title for step in TABLE.values()]
    assert len(set(titles)) == len(titles), "a cluster's tasks are known by their titles"
    assert set(profile._OWN) <= set(TABLE)
    heavy = "import graftline.steps, sys; sys.exit(bool({'torch', 'kfp', 'pydantic'} & {*sys.modules}))"
    assert subprocess.run([sys.executable, "-c", heavy], check=False).returncode == 0


@pytest.mark.slow
def test_type_checkers_know_every_step(tmp_path: Path) -> None:
    for path in ("__init__.py", *(f"steps/{step}.py" for step in ("__init__", *RETRAIN_STEPS))):
        (tmp_path / "graftline" / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "src" / "graftline" / path, tmp_path / "graftline" / path)
    lines = [f"from graftline import {step}\nreveal_type({step})" for step in RETRAIN_STEPS]
    (tmp_path / "user.py").write_text("\n".join(lines))
    options = ("--strict", "--ignore-missing-imports", "--follow-imports=silent", "--no-site-packages")
    command = [sys.executable, "-m", "mypy", *options, "--config-file=", "--cache-dir=cache", "user.py"]
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False).stdout
    revealed = re.findall(r'Revealed type is "def \(.*\bout: pathlib.Path', said)
    assert len(revealed) == len(RETRAIN_STEPS), said
    assert "error" not in said
