"""Runs in containers: how a step is started in one, what a failing one says, and the image held against a local run.

What needs a real engine and an image is left out unless `GRAFTLINE_IMAGE` names the image: `make test-images`.
"""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from graftline import __version__
from graftline.errors import GraftlineError
from graftline.runs.containers import Containers, containers
from graftline.runs.local import run
from graftline.runs.summary import Summary
from graftline.steps import STEPS

PROGRAM = Path(sys.executable).parent / "graftline"
IMAGES_PER_STRATUM = 60
CPU_BYTES = 3_000_000_000
OPTIONS = {"name": "cells", "image_size": 96, "epochs": 1}
# An engine that has one image, and runs what it is to run on this machine.
ENGINE = f"""#!{sys.executable}
import os, sys
with open({{log!r}}, "a") as log:
    print(*sys.argv[1:], sep="\\t", file=log)
if sys.argv[1:3] == ["image", "inspect"]:
    sys.exit(print("0123abcd") if sys.argv[-1] == "mine" else 1)
if sys.argv[1] == "run":
    at = sys.argv.index("0123abcd")
    (program,) = (word.partition("=")[2] for word in sys.argv[:at] if word.startswith("--entrypoint="))
    os.environ["PATH"] = {str(PROGRAM.parent)!r} + os.pathsep + os.environ["PATH"]
    os.execvp(program, [program, *sys.argv[at + 1 :]])
"""


def only_engine(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Makes the engine above the only one that is found, and returns the file in which it notes its arguments."""
    folder.mkdir()
    program, log = folder / "docker", folder / "log"
    program.write_text(ENGINE.format(log=str(log)))
    program.chmod(0o755)
    kept = [part for part in os.environ["PATH"].split(os.pathsep) if not (Path(part) / "podman").exists()]
    monkeypatch.setenv("PATH", os.pathsep.join([str(folder), *kept]))
    for name in ("sh", "mktemp", "git"):
        if shutil.which(name) is None:
            (folder / name).symlink_to(shutil.which(name, path=os.defpath) or name)
    return log


def one_class(folder: Path) -> Path:
    from PIL import Image

    (folder / "only").mkdir(parents=True)
    for number in range(4):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(folder / "only" / f"{number}.png")
    return folder


def test_without_an_engine_the_command_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(GraftlineError, match="neither docker nor podman answers"):
        run(str(one_class(tmp_path / "images")), workspace=str(tmp_path / "work"), image="mine")


def test_without_the_image_the_command_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    only_engine(tmp_path / "bin", monkeypatch)
    with pytest.raises(GraftlineError, match="docker has no image 'theirs': pull it, or build one with `make images`"):
        run(str(one_class(tmp_path / "images")), workspace=str(tmp_path / "work"), image="theirs")


def test_an_image_with_another_library_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    only_engine(tmp_path / "bin", monkeypatch)
    monkeypatch.setattr("graftline.runs.containers.code_version", lambda: "c-of-here")
    with pytest.raises(
        GraftlineError, match=r"mine holds another graftline \(c\w{16}\) than is installed here \(c-of-here"
    ):
        run(str(one_class(tmp_path / "images")), workspace=str(tmp_path / "work"), image="mine")


@pytest.mark.slow
def test_a_failing_container_is_a_failed_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = only_engine(tmp_path / "bin", monkeypatch)
    monkeypatch.setenv("GRAFTLINE_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-to-be-seen")
    source = one_class(tmp_path / "images")
    with pytest.raises(GraftlineError) as caught:
        run(str(source), workspace=str(tmp_path / "work"), image="mine")
    first, where, _ = str(caught.value).splitlines()
    assert first.startswith("version_data failed after ")
    assert "class" in first
    assert first.endswith("(exit code 1 of its container)")
    assert "Traceback" in Path(where.split()[1]).read_text()
    _, started = (line.split("\t") for line in log.read_text().splitlines() if line.startswith("run\t"))
    assert {"--read-only", "--cap-drop=all", "--security-opt=no-new-privileges", "--network=host"} <= set(started)
    assert {f"--volume={source}:{source}:ro", f"--volume={tmp_path / 'work'}:{tmp_path / 'work'}:rw"} <= set(started)
    assert "--env=AWS_SECRET_ACCESS_KEY" in started
    assert "not-to-be-seen" not in log.read_text()


# With a real engine


@pytest.fixture(scope="module")
def image() -> str:
    """The image's name; asked for first, so that nothing is trained for tests that are left out."""
    name = os.environ.get("GRAFTLINE_IMAGE", "")
    if not name:
        pytest.skip("containers are tested by `make test-images`, after `make images`")
    with containers(name, ["."]):
        return name


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders of 240 real images: 60 of each class and cell type."""
    from graftline.runs.demo import lay_out

    folder = tmp_path_factory.mktemp("cells")
    chosen: dict[tuple[str, str], list[Path]] = {}
    with lay_out(folder / "all").open(newline="") as file:
        for row in csv.DictReader(file):
            chosen.setdefault((row["label"], row["domain"]), []).append(Path(row["path"]))
    for (label, _), paths in chosen.items():
        (folder / "images" / label).mkdir(parents=True, exist_ok=True)
        for path in paths[:IMAGES_PER_STRATUM]:
            shutil.copyfile(path, folder / "images" / label / path.name)
    return folder / "images"


@pytest.fixture(scope="module")
def own_store() -> Iterator[None]:
    """The embedded store, whatever the environment says, and caches that no other run has filled."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("GRAFTLINE_STORE", raising=False)
        patch.delenv("GRAFTLINE_CACHE")
        yield


@pytest.fixture(scope="module")
def boxed(image: str, cells: Path, own_store: None, tmp_path_factory: pytest.TempPathFactory) -> Summary:
    return run(str(cells), workspace=str(tmp_path_factory.mktemp("boxed") / "work"), image=image, **OPTIONS)


@pytest.fixture(scope="module")
def local(image: str, cells: Path, own_store: None, tmp_path_factory: pytest.TempPathFactory) -> Summary:
    return run(str(cells), workspace=str(tmp_path_factory.mktemp("local") / "work"), **OPTIONS)


@pytest.fixture
def boxes(image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Containers]:
    """Containers with a workspace and a source of their own."""
    monkeypatch.setenv("GRAFTLINE_WORKSPACE", str(tmp_path / "work"))
    (tmp_path / "images").mkdir()
    with containers(image, [str(tmp_path / "images")]) as made:
        assert made
        yield made


def said(boxes: Containers, step: str, script: str) -> "subprocess.CompletedProcess[str]":
    command = boxes.command(step, ["sh", "-c", script])
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_containers_come_to_what_a_local_run_comes_to(boxed: Summary, local: Summary) -> None:
    assert boxed.data_version == local.data_version
    ours, theirs = boxed.records.model.plan, local.records.model.plan
    assert (ours.backbone, ours.strategy, ours.image_size) == (theirs.backbone, theirs.strategy, theirs.image_size)
    low, high = local.test_accuracy_interval
    assert low <= boxed.test_accuracy <= high
    half = (high - low) / 2
    assert boxed.test_macro_f1 == pytest.approx(local.test_macro_f1, abs=half)
    assert boxed.fp32_bytes == pytest.approx(local.fp32_bytes, rel=0.01)
    print(f"\n{'':16}{'containers':>24}{'local':>24}")
    for name in ("data_version", "backbone", "strategy", "test_accuracy", "test_macro_f1", "fp32_bytes", "seconds"):
        print(f"{name:16}{getattr(boxed, name)!s:>24.22}{getattr(local, name)!s:>24.22}")


@pytest.mark.slow
def test_every_step_was_a_container_and_none_is_left(boxed: Summary) -> None:
    made = json.loads((boxed.folder / "containers.json").read_text())
    events = [json.loads(line) for line in (boxed.folder / "progress.jsonl").read_text().splitlines()]
    assert {event["step"] for event in events if event.get("state") == "done"} == set(STEPS)
    assert boxed.records.bundle.web_page.startswith("web/index.html"), "the image carries the page's runtime"
    left = [made["engine"], "ps", "--all", "--quiet", f"--filter=label={made['label']}"]
    assert subprocess.run(left, capture_output=True, text=True, check=True).stdout == ""


@pytest.mark.slow
def test_a_container_can_write_to_the_workspace_and_to_memory_only(boxes: Containers, tmp_path: Path) -> None:
    script = f"""id -u
    for place in / /opt/graftline /usr /var/tmp /workspace {tmp_path}/images {tmp_path}/work /tmp /dev/shm; do
        touch $place/touched 2>/dev/null && echo $place
    done; true"""
    user, *written = said(boxes, "augment", script).stdout.split()
    assert user != "0"
    assert written == [f"{tmp_path}/work", "/tmp", "/dev/shm"]


@pytest.mark.slow
@pytest.mark.parametrize(("step", "alone"), [("augment", True), ("evaluate", True), ("version_data", False)])
def test_a_step_without_need_of_the_store_has_no_network(boxes: Containers, step: str, alone: bool) -> None:
    assert (said(boxes, step, "ls /sys/class/net").stdout.split() == ["lo"]) == alone


@pytest.mark.slow
def test_image_says_what_it_is_and_the_one_for_processors_has_no_cuda(boxes: Containers, image: str) -> None:
    inspect = [boxes.engine, "image", "inspect", boxes.image]
    (found,) = json.loads(subprocess.run(inspect, capture_output=True, text=True, check=True).stdout)
    labels = {key.rpartition(".")[2]: value for key, value in found["Config"]["Labels"].items()}
    assert labels["version"] == __version__
    assert len(labels["revision"].removesuffix("-changed")) == 40
    assert said(boxes, "augment", "graftline --version").stdout == f"graftline {__version__}\n"
    if image.endswith("-cpu"):
        libraries = "find / -xdev -name 'libtorch_cuda*' -o -xdev -name 'libcu*.so*' -o -xdev -name 'libnccl*'"
        assert "cu" not in said(boxes, "augment", libraries).stdout.replace("libcurl", "")
        assert found["Size"] < CPU_BYTES


@pytest.mark.slow
def test_a_container_that_breaks_is_reported_with_its_last_lines(
    image: str, boxes: Containers, cells: Path, own_store: None, tmp_path: Path
) -> None:
    """The process of a step is killed in this image, so that nothing of the library can say why."""
    broken = f"graftline-broken:{boxes.label.rpartition('=')[2]}"
    (tmp_path / "kfp.py").write_text("import os\nprint('about to break', flush=True)\nos.abort()\n")
    (tmp_path / "Dockerfile").write_text(f"FROM {boxes.image}\nCOPY kfp.py /broken/\nENV PYTHONPATH=/broken\n")
    build = [boxes.engine, "build", "--quiet", "--tag", broken, str(tmp_path)]
    subprocess.run(build, capture_output=True, text=True, check=True)
    try:
        with pytest.raises(GraftlineError) as caught:
            run(str(cells), workspace=str(tmp_path / "broken"), image=broken)
    finally:
        subprocess.run([boxes.engine, "rmi", broken], capture_output=True, check=True)
    first, log, _ = str(caught.value).splitlines()
    assert first.startswith("version_data failed after ")
    assert "its container ended with exit code 134, its last lines: about to break" in first
    assert Path(log.split()[1]).is_file()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_run_leaves_no_container(
    number: signal.Signals, image: str, cells: Path, own_store: None, tmp_path: Path
) -> None:
    command = [PROGRAM, "run", cells, "--workspace", tmp_path / "work", "--image", image]
    listening = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **listening) as process:
        assert process.stderr
        for line in process.stderr:
            if line == "version_data: running\n":
                break
        (path,) = (tmp_path / "work" / "runs").glob("*/containers.json")
        made = json.loads(path.read_text())
        listed = [made["engine"], "ps", "--all", "--quiet", f"--filter=label={made['label']}"]
        wait_for(listed, some=True)
        process.send_signal(number)
        process.stderr.read()
    wait_for(listed, some=False)


def wait_for(listed: list[str], some: bool) -> None:
    """Waits until an engine lists some containers, or none."""
    import time

    until = time.monotonic() + 60
    while bool(subprocess.run(listed, capture_output=True, text=True, check=True).stdout) != some:
        assert time.monotonic() < until, "the containers are not as they should be"
        time.sleep(0.2)
