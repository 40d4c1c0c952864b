"""The house: imports run one way, and a step has one name everywhere."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import graftline
from graftline.cli import main as cli
from graftline.steps import RETRAIN_STEPS, STEPS

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
    assert files("components", "image", "task") == set(RETRAIN_STEPS)
    assert set(graftline.__all__) == set(RETRAIN_STEPS)
    assert list(cli.COMMANDS["the steps of a run"]) == list(STEPS)


def test_every_step_is_a_function_of_the_package() -> None:
    for step in RETRAIN_STEPS:
        assert getattr(graftline, step).__name__ == step
        assert cli.load(step) is getattr(graftline, step)
