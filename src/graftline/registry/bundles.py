"""Edge bundles and models on their way into and out of the registry: every file is checked against its record."""

import tempfile
from pathlib import Path

from graftline.errors import GraftlineError
from graftline.files import output_folder, sha256_file
from graftline.records import EdgeBundle, TrainedModel, check_files, read_record
from graftline.registry.client import Registry
from graftline.registry.versions import BUNDLE_FOLDER, MODEL_FOLDER, RegisteredVersion, find_version


def check_bundle(folder: Path, remedy: str = "run `graftline export_onnx` again") -> EdgeBundle:
    """Reads a bundle and checks that every file is the one its record describes: what ships is what was measured.

    Args:
        folder: A bundle folder.
        remedy: What the user can do when it is not whole.

    Raises:
        GraftlineError: Not a bundle, or a file is missing or changed.
    """
    bundle = read_record(folder, EdgeBundle)
    check_files(folder, bundle.files, remedy)
    return bundle


def download_bundle(registry: Registry, name: str, alias_or_version: str, out: Path) -> EdgeBundle:
    """Downloads the edge bundle of a version and checks it file by file.

    Args:
        registry: An open registry.
        name: Registered model's name.
        alias_or_version: "champion", "challenger" or a version number.
        out: Folder to make.

    Raises:
        GraftlineError: There is no such version, graftline did not make it, or its files are not those of its record.
    """
    version = _find(registry, name, alias_or_version)
    if not version.bundle:
        raise GraftlineError(f"{name} {alias_or_version} was not registered by graftline: it has no edge bundle")
    with output_folder(out) as folder:
        _download(registry, version, BUNDLE_FOLDER, folder)
        bundle = check_bundle(folder, f"the registry's files were changed, register {name} {version.version} anew")
        if bundle.sha256 != version.bundle:
            raise GraftlineError(
                f"the record of {name} {version.version} is not the one that was registered: register it anew"
            )
        return bundle


def download_model(registry: Registry, name: str, alias_or_version: str, out: Path) -> TrainedModel:
    """Downloads the model behind the bundle of a version, to go on training from, and checks its files.

    Args:
        registry: An open registry.
        name: Registered model's name.
        alias_or_version: "champion", "challenger" or a version number.
        out: Folder to make.

    Raises:
        GraftlineError: There is no such version, it was registered without its model, or its files were changed.
    """
    version = _find(registry, name, alias_or_version)
    if not version.model_files:
        raise GraftlineError(
            f"{name} {alias_or_version} was registered without its model, as older versions were: "
            "training can start from a pretrained backbone only"
        )
    with output_folder(out) as folder:
        _download(registry, version, MODEL_FOLDER, folder)
        check_files(folder, version.model_files, f"the registry's files of {name} {version.version} were changed")
        return read_record(folder, TrainedModel)


def download_shipped(registry: Registry, version: RegisteredVersion, folder: Path) -> Path:
    """Downloads the file that a version ships and checks it.

    Args:
        registry: An open registry.
        version: A version that graftline registered.
        folder: Existing folder for the file.

    Raises:
        GraftlineError: It is not the file that was registered.
    """
    name = version.tags["shipped"]
    path = registry.download(version.run_id, f"{BUNDLE_FOLDER}/{name}", folder)
    if sha256_file(path) != version.tags["shipped_sha256"]:
        raise GraftlineError(
            f"{name} of {version.name} version {version.version} is not the file that was registered, "
            "its SHA-256 differs: set its alias on a version that is whole, or delete the alias"
        )
    return path


def _find(registry: Registry, name: str, alias_or_version: str) -> RegisteredVersion:
    version = find_version(registry, name, alias_or_version)
    if version is None:
        raise GraftlineError(
            f"the registry at {registry.shown} has no {name} {alias_or_version}: see its versions in MLflow"
        )
    return version


def _download(registry: Registry, version: RegisteredVersion, kind: str, folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        downloaded = registry.download(version.run_id, kind, Path(temporary))
        for path in downloaded.iterdir():
            path.rename(folder / path.name)
