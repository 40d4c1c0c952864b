"""Inputs that several test files share: real photographs of solar cells, and a model made from them."""

import inspect
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from kfp_stand_in import StandIn

IMAGES_PER_STRATUM = 20
FOREIGN = ("GRAFTLINE_", "AWS_", "MLFLOW_")
FOR_TESTS = {"GRAFTLINE_IMAGE", "GRAFTLINE_BROWSER", "GRAFTLINE_TEST_PRECISION"}
PRECISIONS = ("fp32", "bf16")


@pytest.fixture(scope="session", autouse=True)
def _own_workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests never touch the workspace or the settings of whoever runs them; caches are shared within the session."""
    patch = pytest.MonkeyPatch()
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:  # whose folder lies in the one of them all
        shared = shared.parent
    for name in [n for n in os.environ if n.startswith(FOREIGN) and n not in FOR_TESTS]:
        patch.delenv(name)
    patch.setenv("GRAFTLINE_WORKSPACE", str(tmp_path_factory.mktemp("workspace")))
    patch.setenv("GRAFTLINE_CACHE", str(shared / "cache"))
    if not os.environ.get("GRAFTLINE_BROWSER"):  # whose test needs the page, and so the real npm
        patch.setenv("PATH", str(_failing_npm(tmp_path_factory.mktemp("bin"))), prepend=os.pathsep)
    if wanted := os.environ.get("GRAFTLINE_TEST_PRECISION"):
        _measure_as_fastest(wanted)
    _know_frames_of_no_module()
    yield
    patch.undo()


def _know_frames_of_no_module() -> None:
    """Keeps `inspect.stack()` fast, which kfp calls for every task of a pipeline.

    A process of pytest-xdist runs below frames that belong to no module, and for each of them Python looks through all
    modules every time: a pipeline was built in 7 s instead of 0.5.
    """
    for frame in inspect.stack():
        if inspect.getmodule(frame.frame) is None:
            inspect.modulesbyfile[frame.filename] = "__main__"


def _measure_as_fastest(wanted: str) -> None:
    """Lets `precision auto` be a precision, whatever this machine is fastest in: the caches hold that it was measured.

    Processes that tests start see it too.
    """
    import torch

    from graftline.training import speed

    if wanted not in PRECISIONS:
        raise pytest.UsageError(f"GRAFTLINE_TEST_PRECISION is {wanted!r}: it must be one of {', '.join(PRECISIONS)}")
    measured = [speed.Speed(one, layout, 1.0 + (one != wanted)) for one in PRECISIONS for layout in speed.LAYOUTS]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(speed, "measure_speeds", lambda device: measured)
        for device in ("cpu", *(["cuda"] if torch.cuda.is_available() else [])):
            speed.choose_fastest(torch.device(device))


@pytest.fixture
def own_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is cached lies in the workspace that the test sets."""
    monkeypatch.delenv("GRAFTLINE_CACHE")


def _failing_npm(folder: Path) -> Path:
    """Returns a folder for PATH that keeps exports from the network: they go without the page."""
    script = folder / "npm"
    script.write_text("#!/bin/sh\necho 'npm error tests fetch nothing' >&2\nexit 1\n")
    script.chmod(0o755)
    return folder


@pytest.fixture(scope="session")
def solar_manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of 80 real images: 20 of each class and cell type."""
    import csv

    from graftline.runs.demo import lay_out

    folder = tmp_path_factory.mktemp("solar")
    with lay_out(folder / "all").open(newline="") as file:
        rows = list(csv.DictReader(file))
    strata: dict[tuple[str, str], list[dict[str, str]]] = {}
    for row in rows:
        strata.setdefault((row["label"], row["domain"]), []).append(row)
    chosen = [row for stratum in strata.values() for row in stratum[:IMAGES_PER_STRATUM]]
    path = folder / "manifest.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["path", "label", "domain"], extrasaction="ignore")
        writer.writeheader()
        for row in chosen:
            writer.writerow({**row, "path": str((folder / "all" / row["path"]).resolve())})
    return path


@pytest.fixture(scope="session")
def solar_dataset(solar_manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dataset folder that version_data writes from `solar_manifest`."""
    from graftline import version_data

    folder = tmp_path_factory.mktemp("dataset")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRAFTLINE_STORE", str(tmp_path_factory.mktemp("store")))
        version_data(str(solar_manifest), folder / "data", validation_fraction=0.2, test_fraction=0.25)
    return folder / "data"


@pytest.fixture(scope="session")
def policy(solar_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The augmentation policy for `solar_dataset`."""
    from graftline import augment

    folder = tmp_path_factory.mktemp("policy") / "policy"
    augment(solar_dataset, folder)
    return folder


@pytest.fixture(scope="session")
def plans(solar_dataset: Path, policy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ranked plans for `solar_dataset`, on real EfficientNet-Lite0 weights at 96 pixels."""
    from graftline import select_strategy

    folder = tmp_path_factory.mktemp("plans") / "plans"
    select_strategy(solar_dataset, policy, folder, backbones="tf_efficientnet_lite0", image_size=96)
    return folder


@pytest.fixture(scope="session")
def trained_model(solar_dataset: Path, policy: Path, plans: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model by feature extraction (the best plan for so few images)."""
    from graftline import fine_tune

    folder = tmp_path_factory.mktemp("model") / "model"
    fine_tune(solar_dataset, policy, plans, folder)
    return folder


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator["StandIn"]:
    """A stand-in for the API of a cluster, which the environment names; following it knows no pauses."""
    from kfp_stand_in import serve

    from graftline.cluster import follow, submit

    state, server = serve()
    for name in ("KUBECONFIG", "KF_PIPELINES_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GRAFTLINE_HOST", state.url)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setattr(follow, "EVERY_SECONDS", 0.01)
    monkeypatch.setattr(follow, "_DRAW_EVERY_SECONDS", 0.01)
    monkeypatch.setattr(submit, "_FIND_AGAIN_SECONDS", (0, 0, 0))
    yield state
    server.shutdown()
    server.server_close()


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs a command; returns exit code, standard output and standard error."""
    from graftline.cli import main as cli

    def run(*words: str | Path) -> tuple[int, str, str]:
        code = cli.main(list(map(str, words)))
        said = capsys.readouterr()
        return code, said.out, said.err

    return run
