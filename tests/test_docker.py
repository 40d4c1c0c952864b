"""The Dockerfile: clean by hadolint, locked, non-root, labelled, and with everything that the installation reads."""

import re
import shutil
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCKERFILE = ROOT / "docker" / "Dockerfile"


def _instructions() -> list[tuple[str, str]]:
    """Returns instruction and argument of every line, continuations joined and comments dropped."""
    lines = [line for line in DOCKERFILE.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in joined.splitlines() if line.strip()]


def _stages() -> dict[str, tuple[str, list[tuple[str, str]]]]:
    """Returns each stage's parent and instructions by its name."""
    stages: dict[str, tuple[str, list[tuple[str, str]]]] = {}
    current: list[tuple[str, str]] = []
    for name, argument in _instructions():
        if name == "FROM":
            parent, _, stage = argument.split()
            current = []
            stages[stage] = (parent, current)
        else:
            current.append((name, argument))
    return stages


def _inherited(stage: str) -> list[tuple[str, str]]:
    """Returns the instructions of a stage and of all it stands on, in order."""
    stages = _stages()
    parent, own = stages[stage]
    return (_inherited(parent) if parent in stages else []) + own


def test_hadolint_finds_nothing() -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    assert hadolint, "hadolint is missing: run `make setup`"
    result = subprocess.run([hadolint, str(DOCKERFILE)], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("target", ["cpu", "cuda"])
def test_target_runs_as_a_numeric_user_that_is_not_root(target: str) -> None:
    users = [argument for name, argument in _inherited(target) if name == "USER"]
    assert re.fullmatch(r"[1-9]\d*(:\d+)?", users[-1])


@pytest.mark.parametrize("target", ["cpu", "cuda"])
def test_target_says_which_version_and_commit_it_is(target: str) -> None:
    instructions = _inherited(target)
    arguments = {argument.split("=")[0] for name, argument in instructions if name == "ARG"}
    labels = " ".join(argument for name, argument in instructions if name == "LABEL")
    assert {"VERSION", "COMMIT"} <= arguments
    assert 'org.opencontainers.image.version="${VERSION}"' in labels
    assert 'org.opencontainers.image.revision="${COMMIT}"' in labels


@pytest.mark.parametrize("target", ["cpu", "cuda"])
def test_target_downloads_nothing_at_run_time_and_writes_to_its_own_folder(target: str) -> None:
    settings = " ".join(argument for name, argument in _inherited(target) if name == "ENV").split()
    assert {"HF_HUB_OFFLINE=1", "GRAFTLINE_WORKSPACE=/workspace"} <= set(settings)


def test_base_is_pinned_to_a_patch_version_that_the_package_supports() -> None:
    base = next(argument for name, argument in _instructions() if name == "ARG")
    version = re.fullmatch(r"BASE_IMAGE=python:(\d+)\.(\d+)\.\d+-slim-\w+", base)
    assert version
    oldest = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert oldest == f">={version[1]}.{version[2]}"
    assert {parent for parent, _ in _stages().values()} <= {"${BASE_IMAGE}", "${NODE_IMAGE}", *_stages()}


def test_every_installation_is_bound_to_the_lock() -> None:
    installs = [argument for name, argument in _instructions() if name == "RUN" and "pip install" in argument]
    assert installs
    assert all("--constraint requirements.lock" in argument for argument in installs)


def test_builder_gets_what_the_package_is_made_of_and_no_more() -> None:
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    kept = {rule[1:] for rule in rules if rule.startswith("!")}
    package = tomllib.loads((ROOT / "pyproject.toml").read_text())
    folders = {folder.split("/")[0] for folder in package["tool"]["setuptools"]["package-dir"].values()}
    assert rules[0] == "*"
    assert kept == folders | {"pyproject.toml", "requirements.lock", package["project"]["readme"], "LICENSE"}
    assert any(fnmatch("src/graftline/__pycache__", rule.replace("**", "*")) for rule in rules)


def test_page_runtime_in_the_image_is_the_one_that_the_library_looks_for() -> None:
    from graftline.export.web import RUNTIME, RUNTIME_FILES

    (packing,) = (argument for name, argument in _stages()["web"][1] if name == "RUN")
    assert RUNTIME in packing.split()
    assert set(re.findall(r"package/dist/(\S+)", packing)) == set(RUNTIME_FILES)
    folder = f"/workspace/cache/{RUNTIME.replace('@', '-')}"
    assert any(name == "COPY" and argument.endswith(f" {folder}") for name, argument in _stages()["base"][1])
