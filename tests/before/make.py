"""Makes `champion.tar.xz` and `hashes.json`: what an earlier version wrote, and the hashes that it gave its records.

Run with the version that is to be remembered: `python tests/before/make.py`. It was commit 6af7b11, the last one before
records hashed their JSON as it stood, and before plans had defaults and evaluations a table of metrics.

All of it is made here: pictures of bars, frames and squares, a backbone of 100,000 random weights, a champion chosen of
two candidates, its registry, and a training that SIGTERM has interrupted.
"""

import contextlib
import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
from importlib.metadata import version
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

HERE = Path(__file__).parent
BACKBONE, SIZE, PER_STRATUM = "test_efficientnet", 32, 14
PLACE = Path("/tmp/before")  # the registries remember where the store is
KINDS = {
    "dataset": "DataVersion",
    "policy": "AugmentationPolicy",
    "plans": "TransferPlans",
    "trained-1": "TrainedModel",
    "trained-2": "TrainedModel",
    "model": "TrainedModel",
    "evaluation": "Evaluation",
    "bundle": "EdgeBundle",
    "registration": "Registration",
    "change": "Change",
}
ALIKE = {"precision": "fp32", "memory_format": "contiguous", "device": "cpu"}  # on every processor
INTERRUPTED = {
    "rank": 2,
    "epochs": 3,
    "batch_size": 16,
    "seed": 1,
    "settings": "dropout=0.1,frozen_groups=6,patience=2",
}
TRAININGS = [
    {"rank": 1},
    {"rank": 2},
    {"rank": 2, "epochs": 5, "batch_size": 8, "learning_rate": 1e-3},
    {"rank": 2, "settings": "group_rates=[0;0;0;0;0;1e-5;1e-3],drop_path=0.1,mixup=0.2,cutmix=1,l2_sp=0.01"},
    {"rank": 2, "settings": "from_scratch=true,balance=class_weights,accumulation=2,schedule=one_cycle"},
    {"rank": 4, "settings": "stage_epochs=[1;1;2],warmup_steps=3,label_smoothing=0,views=2"},
    INTERRUPTED,
]


def main() -> None:
    PLACE.mkdir()
    os.chdir(PLACE)
    set_environment()
    draw_pictures(PLACE / "pictures")
    make_weights(PLACE / "weights")
    work = PLACE / "work"
    make_champion(work)
    interrupt_training(work)
    told = {"versions": {name: version(name) for name in ("graftline", "timm", "torch")}, "records": hashes(work)}
    told |= {"trainings": [{"options": one, "name": name_of(work, one)} for one in TRAININGS]}
    told |= {"interrupted": INTERRUPTED, "alike": ALIKE, "place": str(PLACE)}
    (HERE / "hashes.json").write_text(json.dumps(told, indent=2) + "\n")
    pack()
    shutil.rmtree(PLACE)


def set_environment() -> None:
    """Keeps everything in PLACE, names nobody, and keeps the export from fetching a web page's runtime, which is large.

    The present settings of whoever makes it stay out of it.
    """
    for name in [name for name in os.environ if name.startswith(("GRAFTLINE_", "AWS_", "MLFLOW_", "GIT_"))]:
        del os.environ[name]
    places = {name: str(PLACE / name.lower()) for name in ("WEIGHTS", "WORKSPACE", "STORE", "CACHE")}
    os.environ |= {f"GRAFTLINE_{name}": place for name, place in places.items()}
    os.environ |= {"LOGNAME": "before", "USER": "before", "HOME": str(PLACE / "bin")}
    npm = PLACE / "bin" / "npm"
    npm.parent.mkdir()
    npm.write_text("#!/bin/sh\nexit 1\n")
    npm.chmod(0o755)
    os.environ["PATH"] = f"{npm.parent}:{os.environ['PATH']}"


def draw_pictures(folder: Path) -> None:
    """Draws squares, bars and frames on light and dark grounds."""
    folder.mkdir()
    random, rows = np.random.default_rng(0), []
    for label in ("bar", "frame", "square"):
        for domain, ground in (("dark", 40), ("light", 200)):
            for number in range(PER_STRATUM):
                file = f"{label}-{domain}-{number}.png"
                Image.fromarray(_picture(random, label, ground)).save(folder / file)
                rows.append((file, label, domain))
    with (folder / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label", "domain"), *rows])


def _picture(random: np.random.Generator, label: str, ground: int) -> np.ndarray:
    picture = np.full((SIZE, SIZE, 3), ground + random.integers(-30, 30, 3), dtype=np.uint8)
    top, left, side = (int(random.integers(*ends)) for ends in ((2, 12), (2, 12), (8, 18)))
    height = side // 3 if label == "bar" else side
    inside = picture[top + 2 : top + side - 2, left + 2 : left + side - 2].copy()
    picture[top : top + height, left : left + side] = random.integers(0, 255, 3)
    if label == "frame":
        picture[top + 2 : top + side - 2, left + 2 : left + side - 2] = inside
    return picture


def make_weights(folder: Path) -> None:
    """Writes random weights in steps of half their spread, so that they take little space."""
    folder.mkdir()
    torch.manual_seed(0)
    model = timm.create_model(BACKBONE, num_classes=10)
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    for name, tensor in state.items():
        if tensor.ndim > 1:
            step = tensor.std() / 2
            state[name] = (tensor / step).round().clamp(-4, 4) * step
    save_file(state, folder / f"{BACKBONE}.safetensors")


def make_champion(work: Path) -> None:
    from graftline import (
        augment,
        choose_model,
        detect_change,
        evaluate,
        export_onnx,
        fine_tune,
        register_model,
        select_strategy,
        version_data,
    )

    inputs = (work / "dataset", work / "policy", work / "plans")
    version_data("pictures/manifest.csv", work / "dataset", validation_fraction=0.25, test_fraction=0.25)
    augment(work / "dataset", work / "policy")
    select_strategy(*inputs, backbones=BACKBONE, image_size=SIZE, candidates=2)
    fine_tune(*inputs, work / "trained-1", **ALIKE)
    fine_tune(*inputs, work / "trained-2", rank=2, epochs=2, settings="frozen_groups=6,mixup=0.2", **ALIKE)
    choose_model([work / "trained-1", work / "trained-2"], work / "model")
    evaluate(work / "dataset", work / "model", work / "evaluation")
    export_onnx(work / "dataset", work / "model", work / "bundle", min_agreement=0.5)
    outputs = (work / "dataset", work / "bundle", work / "evaluation", work / "registration")
    register_model(*outputs, model=work / "model", name="before")
    detect_change("pictures/manifest.csv", work / "change", name="before")


def interrupt_training(work: Path) -> None:
    """Sends SIGTERM to a training after its first epoch; of its checkpoints the newest stays."""
    done = subprocess.run([sys.executable, __file__, "train", work], check=False)
    assert done.returncode == 128 + signal.SIGTERM, done
    for old in sorted((work / "checkpoints").rglob("*.pt"))[:-1]:
        old.unlink()


def train_and_terminate(work: Path) -> None:
    from graftline import fine_tune
    from graftline.training.checkpoints import Checkpoints

    save = Checkpoints.save

    def save_and_terminate(self: Checkpoints, state: dict[str, object], epoch: int, step: int = 0) -> None:
        save(self, state, epoch, step)
        if (epoch, step) == (1, 0):
            os.kill(os.getpid(), signal.SIGTERM)

    Checkpoints.save = save_and_terminate
    inputs = (work / "dataset", work / "policy", work / "plans", work / "stopped")
    fine_tune(*inputs, **INTERRUPTED, **ALIKE, checkpoints=str(work / "checkpoints"))


def hashes(work: Path) -> dict[str, dict[str, str]]:
    """Returns kind and hash of each record."""
    from graftline import records

    kinds = {f"{folder}/record.json": kind for folder, kind in KINDS.items()} | {"model/choice.json": "Choice"}
    found = {}
    for path, kind in kinds.items():
        record = records.read_record((work / path).parent, getattr(records, kind), Path(path).name)
        found[path] = {"kind": kind, "sha256": record.sha256}
    return found


class _NamedError(Exception):
    """A training has named itself."""


def name_of(work: Path, options: dict[str, object]) -> str:
    """Returns the name that the checkpoints of a training with these options get."""
    from graftline import fine_tune
    from graftline.transfer import strategies

    def stop(*inputs: object) -> None:
        raise _NamedError

    strategies.carry_out = stop
    inputs = (work / "dataset", work / "policy", work / "plans", work / "stopped")
    with tempfile.TemporaryDirectory() as saved:
        with contextlib.suppress(_NamedError):
            fine_tune(*inputs, **options, **ALIKE, checkpoints=saved)
        (name,) = (path.name for path in Path(saved).iterdir())
    return name


def pack() -> None:
    """Packs all but what is made again when it is missing."""

    def plain(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
        if entry.name.endswith(("lock", "/hooks", "preview.png")):
            return None
        entry.uid = entry.gid = entry.mtime = 0
        entry.uname = entry.gname = ""
        return entry

    with tarfile.open(HERE / "champion.tar.xz", "w:xz", preset=9) as archive:
        for name in ("pictures", "store", "weights", "work", "workspace"):
            archive.add(PLACE / name, name, filter=plain)


if __name__ == "__main__":
    if sys.argv[1:2] == ["train"]:
        train_and_terminate(Path(sys.argv[2]))
    else:
        main()
