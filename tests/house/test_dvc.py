"""The DVC stages: one per step, under its name, with its parameters and defaults; they run, and then stand still."""

import csv
import inspect
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import grimp
import pytest
import yaml

from graftline.cli import main as cli
from graftline.steps import STEPS

ROOT = Path(__file__).parents[2]
PARAMS: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "params.yaml").read_text())
PIPELINE: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text())
# The demo's own name for its model.
DELIBERATE = {("register_model", "name")}
LAY_OUT = "mkdir -p ${work}/demo-data && cp manifest.csv ${work}/demo-data/"


def _dvc(folder: Path, *words: str) -> str:
    """Runs DVC as a user does who has activated the environment, and returns what it printed."""
    scripts = Path(sys.executable).parent
    foreign = ("GRAFTLINE_", "AWS_", "MLFLOW_")
    own = {key: value for key, value in os.environ.items() if not key.startswith(foreign) or key == "GRAFTLINE_CACHE"}
    environment = own | {"PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}", "DVC_NO_ANALYTICS": "1"}
    result = subprocess.run(
        [scripts / "dvc", *words], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def _resolved_commands() -> dict[str, str]:
    """Returns the commands of the stages as DVC would run them."""
    from dvc.repo import Repo

    with Repo(str(ROOT)) as repo:
        return {stage.name: str(stage.cmd) for stage in repo.stage.collect()}


def test_every_step_is_a_stage() -> None:
    assert list(PIPELINE["stages"]) == ["demo_data", *STEPS]
    signatures = {step: inspect.signature(cli.load(step)).parameters.values() for step in STEPS}
    with_options = [step for step in STEPS if any(p.kind is p.KEYWORD_ONLY for p in signatures[step])]
    assert list(PARAMS) == with_options


@pytest.mark.parametrize("step", list(PARAMS))
def test_parameters_are_the_steps_with_its_defaults(step: str) -> None:
    signature = inspect.signature(cli.load(step)).parameters
    for name, value in PARAMS[step].items():
        assert name in signature
        if (step, name) not in DELIBERATE:
            assert (type(value), value) == (type(signature[name].default), signature[name].default), name
    assert step in PIPELINE["stages"][step]["params"], "without it DVC does not notice a changed parameter"


def test_every_stage_runs_its_own_command_in_the_dvc_workspace() -> None:
    for stage, command in _resolved_commands().items():
        env, workspace, program, name, *arguments = shlex.split(command)
        assert (env, workspace, program, name) == ("env", "GRAFTLINE_WORKSPACE=dvc-work", "graftline", stage)
        cli.parse(name, cli.load(name), arguments)


def test_every_stage_depends_on_its_code_and_on_what_its_command_reads() -> None:
    made = {
        out if isinstance(out, str) else next(iter(out)) for one in PIPELINE["stages"].values() for out in one["outs"]
    }
    for step in STEPS:
        stage = PIPELINE["stages"][step]
        (out,) = (out if isinstance(out, str) else next(iter(out)) for out in stage["outs"])
        read = {word for word in stage["cmd"].split() if word in made and word != out}
        assert read <= set(stage["deps"])
        code = [dep for dep in stage["deps"] if dep.startswith("src/")]
        assert f"src/graftline/steps/{step}.py" in code
        assert all((ROOT / path).exists() for path in code)


def _code_of(step: str, imports: grimp.ImportGraph) -> set[str]:
    """Returns the files and folders of src/graftline that a step's module comes from."""
    imported = imports.find_upstream_modules(f"graftline.steps.{step}") - {"graftline"}
    parts = {Path("src", *module.split(".")[:2]) for module in imported}
    return {str(part if (ROOT / part).is_dir() else part.with_suffix(".py")) for part in parts}


def test_every_stage_depends_on_all_that_its_step_imports_and_on_the_locked_versions() -> None:
    imports = grimp.build_graph("graftline", cache_dir=None)
    for step in imports.find_modules_directly_imported_by("graftline"):  # which offers the steps to users
        imports.remove_import(importer="graftline", imported=step)
    for step in STEPS:
        code = {dep for dep in PIPELINE["stages"][step]["deps"] if dep.startswith("src/")}
        assert code == {f"src/graftline/steps/{step}.py", *_code_of(step, imports)}, step
    assert all("requirements.lock" in stage["deps"] for stage in PIPELINE["stages"].values())


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory, solar_manifest: Path) -> Path:
    """A Git repository with the project's stages, whose first one lays out 80 images instead of all."""
    folder = tmp_path_factory.mktemp("dvc")
    for name in (".dvc", "src"):
        ignored = shutil.ignore_patterns("cache", "tmp", "config.local", "__pycache__")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    for name in ("params.yaml", ".dvcignore", ".gitignore", "requirements.lock"):
        shutil.copy(ROOT / name, folder / name)
    with solar_manifest.open(newline="") as source, (folder / "manifest.csv").open("w", newline="") as target:
        rows = list(csv.DictReader(source))
        writer = csv.DictWriter(target, rows[0].keys())
        writer.writeheader()
        writer.writerows(row | {"path": str(solar_manifest.parent / row["path"])} for row in rows)
    stages = PIPELINE["stages"] | {"demo_data": PIPELINE["stages"]["demo_data"] | {"cmd": LAY_OUT}}
    (folder / "dvc.yaml").write_text(yaml.safe_dump(PIPELINE | {"stages": stages}, sort_keys=False))
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    return folder


@pytest.mark.slow
def test_repro_runs_the_steps_once_and_then_stands_still(repository: Path) -> None:
    first = _dvc(repository, "repro")
    assert all(f"Running stage '{step}'" in first for step in STEPS)
    assert "Data and pipelines are up to date." in _dvc(repository, "repro")

    metrics = json.loads(_dvc(repository, "metrics", "show", "--json"))[""]["data"]
    (values,) = (entry["data"] for entry in metrics.values())
    assert 0 <= values["accuracy"] <= 1

    page = Path(_dvc(repository, "plots", "show").strip().removeprefix("file://"))
    assert "Confusion on the test images" in page.read_text()
    assert "Reliability on the test images" in page.read_text()

    params = repository / "params.yaml"
    params.write_text(params.read_text().replace("calibration_images: 200", "calibration_images: 20"))
    changed = set(json.loads(_dvc(repository, "status", "--json")))
    assert changed == {"export_onnx"}
