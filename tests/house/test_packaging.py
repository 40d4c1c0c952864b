"""The package: pyproject.toml lists every folder and every file that is not Python, and what it installs suffices."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SETUPTOOLS = PYPROJECT["tool"]["setuptools"]
# Names of packages that setuptools takes from elsewhere than src.
MAPPED = {name: ROOT / folder for name, folder in SETUPTOOLS["package-dir"].items() if name}


def packages() -> dict[str, Path]:
    """Returns every folder with Python in it by the name that it is imported as."""
    found = {}
    for prefix, top in {"": ROOT / SETUPTOOLS["package-dir"][""], **MAPPED}.items():
        for path in top.rglob("__init__.py"):
            parts = path.parent.relative_to(top).parts
            found[".".join([prefix, *parts] if prefix else parts)] = path.parent
    return found


def test_the_list_of_packages_is_that_of_the_folders() -> None:
    assert sorted(SETUPTOOLS["packages"]) == sorted(packages())
    for folder in packages().values():
        loose = {path.parent for path in folder.rglob("*.py")} - set(packages().values())
        assert not loose, "Python that no package would ship"


def test_every_file_that_is_not_python_is_shipped_and_every_pattern_finds_one() -> None:
    folders, shipped = packages(), set()
    for name, patterns in SETUPTOOLS["package-data"].items():
        for pattern in patterns:
            found = set(folders[name].glob(pattern))
            assert found, (name, pattern)
            shipped |= found
    files = {path for top in (ROOT / "src", *MAPPED.values()) for path in top.rglob("*") if path.is_file()}
    made = {path for path in files if any(part == "__pycache__" or part.endswith(".egg-info") for part in path.parts)}
    assert {path for path in files - made if path.suffix != ".py"} == shipped


def test_the_lock_holds_every_dependency_in_a_version_that_the_project_takes() -> None:
    from packaging.requirements import Requirement

    locked = dict(line.split(" ;")[0].split("==") for line in (ROOT / "requirements.lock").read_text().splitlines())
    extras = PYPROJECT["project"]["optional-dependencies"]
    wanted = [*PYPROJECT["project"]["dependencies"], *extras["demo"], *extras["trainer"], *extras["dev"]]
    for each in map(Requirement, wanted):
        if each.name != "graftline":
            name = re.sub(r"[-_.]+", "-", each.name).lower()
            assert each.specifier.contains(locked[name].strip()), each


def test_a_plain_installation_has_weights_to_begin_with() -> None:
    from graftline.models.weights_at_hand import PACKAGES

    dependencies = {re.split(r"[^\w-]", each)[0] for each in PYPROJECT["project"]["dependencies"]}
    assert dependencies & {package.distribution for package in PACKAGES.values()}
