"""Retraining only with reason: what counts as a change, what is trained, and who is champion afterwards."""

import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from builders import noise
from PIL import Image
from registry_inputs import as_before, make_bundle, make_dataset, make_evaluation, make_model, threshold

from graftline import augment, detect_change, evaluate, export_onnx, fine_tune, register_model, select_strategy
from graftline import version_data as version
from graftline.cli.commands import history, rollback
from graftline.data.dataset import iter_images, open_split
from graftline.data.versions import record_version
from graftline.errors import DataError, GraftlineError
from graftline.records import Change, Registration, TrainedModel, TransferPlans, read_record
from graftline.registry.comparison import Verdict
from graftline.registry.drift import compare_answers
from graftline.runs.retrain import Retraining, retrain
from graftline.storage import connect_store
from graftline.workspace import workspace

PROGRAM = Path(sys.executable).parent / "graftline"
SETTINGS = {"strategy": "feature_extraction", "backbones": "tf_efficientnet_lite0", "image_size": 96}
SHARES = {"validation_fraction": 0.2, "test_fraction": 0.4}


# What counts as a change: a tiny champion on 24 real photographs


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `place` is a copy of."""
    folder = tmp_path_factory.mktemp("tiny") / "place"
    with pytest.MonkeyPatch.context() as patch:
        inhabit(folder, folder / "work", patch)
        dataset = make_dataset(folder / "dataset")
        labels = open_split(dataset, "test").labels
        for number, (rgb, label) in enumerate(zip(iter_images(dataset, "test"), labels, strict=True)):
            path = folder / "images" / ("dark", "bright")[label] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rgb).save(path)
        with connect_store() as store:
            record_version(dataset, store, "")
        register(folder, "first", 6)
    return folder.rename(folder.with_name("made"))


@pytest.fixture
def place(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A workspace with a champion, and `images` with class folders of exactly the images it was trained on.

    All lies where it was made, as the registry knows the places of its files, but for the workspace: MLflow keeps the
    databases open that it has seen.
    """
    folder = shutil.copytree(made, made.with_name("place"))
    inhabit(folder, (folder / "work").rename(tmp_path / "work"), monkeypatch)
    yield folder
    shutil.rmtree(folder)


def inhabit(folder: Path, work: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setenv("GRAFTLINE_WORKSPACE", str(work))
    patch.setenv("GRAFTLINE_STORE", str(folder / "store"))
    patch.delenv("GRAFTLINE_CACHE")


def register(
    place: Path, title: str, wrong: int = 0, dataset: str = "dataset", model: Path | None = None
) -> Registration:
    folders = [place / f"{title}-{kind}" for kind in ("bundle", "evaluation", "registration")]
    make_bundle(folders[0], place / dataset, threshold(wrong), seed=len(title))
    make_evaluation(folders[1], place / dataset, seed=len(title))
    return register_model(place / dataset, *folders, model=model)


def change(place: Path, **options: str) -> Change:
    return detect_change(str(place / "images"), place / "change", **options)


def picture(path: Path, value: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise(value, 9, 9)).save(path)


def test_the_same_images_are_no_reason_whatever_their_names(place: Path) -> None:
    found = change(place)
    assert (found.retrain, found.champion, found.data_version) == (False, "1", "d0000000000000001")
    assert "holds the same 24 images and labels as data version d0000000000000001" in found.reason
    for number, path in enumerate(sorted((place / "images").rglob("*.png"))):
        path.rename(path.with_name(f"renamed-{number}.png"))
    first = next((place / "images" / "dark").iterdir())
    shutil.copy(first, first.with_name("copy.png"))
    with Image.open(first) as image:
        image.save(first.with_suffix(".bmp"))  # another file, the same pixels
    assert change(place) == found
    assert read_record(place / "change", Change) == found


def test_new_missing_and_relabelled_images_are_counted(place: Path) -> None:
    dark, bright = (sorted((place / "images" / label).iterdir()) for label in ("dark", "bright"))
    picture(place / "images" / "dark" / "new.png", 1)
    dark[0].unlink()
    dark[1].unlink()
    for path in bright[:3]:
        path.rename(place / "images" / "dark" / f"was-bright-{path.name}")
    found = change(place)
    assert found.retrain
    assert (found.added, found.removed, found.relabelled, found.moved, found.images) == (1, 2, 3, 0, 23)
    assert found.reason.endswith("1 new, 2 gone, 3 with another label")


def test_a_split_that_the_source_gives_otherwise_is_a_change(place: Path) -> None:
    for label in ("dark", "bright"):
        for split, some in (("train", 0), ("val", 1), ("test", 2)):
            for path in sorted((place / "images" / label).iterdir())[some::3]:
                target = place / "given" / split / label / path.name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, target)
    found = detect_change(str(place / "given"), place / "change")
    assert (found.added, found.removed, found.relabelled, found.moved) == (0, 0, 0, 16)
    assert found.retrain


def test_weights_to_start_from_are_named_if_the_registry_has_them(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture(place / "images" / "dark" / "new.png", 1)
    assert change(place).champion_model == ""
    assert "champion version 1 was registered without its weights: training cannot start" in capsys.readouterr().err
    model = make_model(place / "model", place / "dataset", seed=len("second"))
    assert register(place, "second", model=model).alias == "champion"
    found = change(place)
    assert found.champion_model == read_record(model, TrainedModel).sha256
    assert found.learned_before == []
    assert "without its weights" not in capsys.readouterr().err


def test_without_a_champion_the_first_is_trained(place: Path) -> None:
    found = change(place, name="another")
    assert (found.retrain, found.champion, found.data_version, found.added) == (True, "", "", 24)
    assert found.reason == "another has no champion yet"


def test_what_was_trained_and_not_promoted_or_rolled_back_is_not_trained_again(place: Path) -> None:
    picture(place / "images" / "dark" / "new.png", 1)
    assert change(place).retrain
    version(str(place / "images"), place / "grown", validation_fraction=0.2, test_fraction=0.2)
    assert register(place, "upside-down", dataset="grown").alias == "challenger"
    for _ in range(2):
        found = change(place)
        assert not found.retrain
        assert "version 2 was trained on exactly these images already and is not the champion" in found.reason
        rollback(to="2")
        assert "holds the same 25 images" in change(place).reason
        rollback()
    picture(place / "images" / "dark" / "newer.png", 2)
    newer = change(place)
    assert newer.retrain
    assert (newer.champion, newer.data_version) == ("1", "d0000000000000001"), "the champion's, not the newest"


def test_a_registration_that_was_interrupted_is_no_reason_to_stop(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture(place / "images" / "dark" / "new.png", 1)
    version(str(place / "images"), place / "grown", validation_fraction=0.2, test_fraction=0.2)

    def fail(*arguments: object, **options: object) -> None:
        raise GraftlineError("the store went away")

    with monkeypatch.context() as patch, pytest.raises(GraftlineError, match="went away"):
        patch.setattr("graftline.registry.register.judge", fail)
        register(place, "upside-down", dataset="grown")
    assert change(place).retrain
    folders = [place / f"upside-down-{kind}" for kind in ("bundle", "evaluation", "registration")]
    assert register_model(place / "grown", *folders).version == "2"
    assert not change(place).retrain


def test_what_was_rolled_back_is_not_trained_again_though_its_registration_was_interrupted(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture(place / "images" / "dark" / "new.png", 1)
    version(str(place / "images"), place / "grown", validation_fraction=0.2, test_fraction=0.2)

    def fail(*arguments: object, **options: object) -> None:
        raise GraftlineError("the registry went away")

    with monkeypatch.context() as patch, pytest.raises(GraftlineError, match="went away"):
        patch.setattr("graftline.registry.register.judge", lambda *_: Verdict("champion", "it is better", "1"))
        patch.setattr("graftline.registry.register.log_promotion", fail)
        register(place, "second", dataset="grown")
    rollback()
    found = change(place)
    assert (found.retrain, found.champion) == (False, "1")
    assert "version 2 was trained on exactly these images already and is not the champion" in found.reason


def test_drift_of_production_images_is_told_but_the_same_images_are_not_trained_again(place: Path) -> None:
    same = change(place, production=str(place / "images"))
    assert same.drift
    assert (same.drift.distance, same.drift.p_value, same.drift.detected) == (0, 1, False)
    assert (same.drift.images, same.drift.reference) == (24, 24)
    for number, path in enumerate(sorted((place / "images").rglob("*.png"))):
        with Image.open(path) as image:
            target = place / "production" / "camera" / f"{number}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            image.point(lambda value: value // 4).save(target)
    (place / "production" / "broken.png").write_bytes(b"no image")
    darker = change(place, production=str(place / "production"))
    assert darker.drift
    assert darker.drift.detected
    assert darker.drift.images == 24
    assert not darker.retrain
    assert "label some of them" in darker.reason
    picture(place / "images" / "dark" / "new.png", 1)
    both = change(place, production=str(place / "production"))
    assert both.retrain
    assert "the champion answers differently to production images" in both.reason
    assert "label some" not in both.reason


def test_drift_is_found_at_the_rate_that_the_test_promises() -> None:
    rng = np.random.default_rng(0)
    answers = rng.dirichlet((2.0, 2.0, 2.0), (400, 2, 60))
    false_alarms = sum(compare_answers(new, old).detected for new, old in answers)
    assert false_alarms / 400 < 0.05 + 3 * 0.011, "no more than 5 %, within three standard errors of 400 trials"
    shifted = rng.dirichlet((4.0, 2.0, 1.0), (50, 60))
    assert sum(compare_answers(new, old[0]).detected for new, old in zip(shifted, answers[:50], strict=True)) > 45


def test_mistakes_are_told_in_one_line(place: Path) -> None:
    (place / "empty").mkdir()
    with pytest.raises(DataError, match="empty holds no images: give a folder of images"):
        change(place, production=str(place / "empty"))
    with pytest.raises(DataError, match="nowhere does not exist: give a folder of images"):
        change(place, production=str(place / "nowhere"))
    (place / "empty" / "broken.png").write_bytes(b"no image")
    with pytest.raises(DataError, match="none of the 1 production images can be read"):
        change(place, production=str(place / "empty"))
    with pytest.raises(GraftlineError, match="model name"):
        change(place, name="a/b")
    with pytest.raises(DataError, match="does not exist"):
        detect_change(str(place / "nowhere"), place / "change")
    shutil.rmtree(workspace() / "data-registry")
    with pytest.raises(GraftlineError, match="data-registry is not a Git repository"):
        change(place)


# The whole way, on real images and weights


def write_manifest(path: Path, rows: list[dict[str, str]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["path", "label", "domain"])
        writer.writeheader()
        writer.writerows(rows)
    return path


def swapped(row: dict[str, str]) -> dict[str, str]:
    return {**row, "label": {"functional": "defective", "defective": "functional"}[row["label"]]}


class Plant:
    """A workspace whose champion learned from images with swapped labels, and its sources."""

    def __init__(self, home: Path, rows: list[dict[str, str]]) -> None:
        self.home, self.rows, self.new = home, rows[4:], rows[:4]
        self.right = write_manifest(home / "right.csv", self.rows)
        record = version(str(self.right), home / "right", **SHARES)
        self.test_ids = set(open_split(home / "right", "test").ids)
        with (home / "right" / "files.csv").open(newline="") as file:
            self.tested = {row["path"] for row in csv.DictReader(file) if row["split"] == "test"}
        self.wrong = write_manifest(home / "wrong.csv", self.mistaken(self.rows))
        version(str(self.wrong), home / "wrong", previous=record.version, **SHARES)
        self.first = self.train("wrong", of_before=True)

    def mistaken(self, rows: list[dict[str, str]]) -> list[dict[str, str]]:
        """Rows with swapped labels, but for the test images."""
        return [row if row["path"] in self.tested else swapped(row) for row in rows]

    def train(self, title: str, *, of_before: bool = False, **options: str) -> Registration:
        """Trains and registers in this process; `of_before`: with the evaluation's record of an earlier version."""
        data, policy, plans, model, bundle, evaluation = (
            self.home / title if kind == "data" else self.home / f"{title}-{kind}"
            for kind in ("data", "policy", "plans", "model", "bundle", "evaluation")
        )
        augment(data, policy)
        select_strategy(data, policy, plans, **SETTINGS)
        fine_tune(data, policy, plans, model)
        evaluate(data, model, evaluation)
        if of_before:
            as_before(evaluation)
        export_onnx(data, model, bundle)
        out = self.home / f"{title}-registration"
        return register_model(data, bundle, evaluation, out, model=model, name="cells", **options)

    def retrain(self, source: Path) -> Retraining:
        return retrain(str(source), name="cells", **SETTINGS, **SHARES)


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory, solar_manifest: Path) -> Iterator[Plant]:
    home = tmp_path_factory.mktemp("plant")
    with solar_manifest.open(newline="") as file:
        rows = list(csv.DictReader(file))
    rows = [{**row, "path": str(solar_manifest.parent / row["path"])} for row in rows]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRAFTLINE_WORKSPACE", str(home / "work"))
        patch.setenv("GRAFTLINE_STORE", str(home / "store"))
        yield Plant(home, rows)


def steps_of(folder: Path) -> list[str]:
    events = map(json.loads, (folder / "progress.jsonl").read_text().splitlines())
    return [event["step"] for event in events if event.get("state") == "running"]


def newest_run(plant: Plant) -> Path:
    return max((plant.home / "work" / "runs").iterdir())


@pytest.mark.slow
def test_unchanged_data_are_not_trained_on_again(plant: Plant) -> None:
    assert (plant.first.version, plant.first.alias) == ("1", "champion")
    command = [PROGRAM, "retrain", plant.wrong, "--name", "cells", "--workspace", plant.home / "work"]
    done = subprocess.run(command, env=os.environ, cwd=plant.home, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("nothing to train: the source holds the same 76 images and labels as data version d")
    assert len(done.stdout.splitlines()) == 1
    assert steps_of(newest_run(plant)) == ["detect_change"]


@pytest.mark.slow
def test_new_images_and_right_labels_train_a_better_model_that_is_promoted(plant: Plant) -> None:
    done = plant.retrain(write_manifest(plant.home / "grown.csv", [*plant.rows, *plant.new]))
    assert (done.change.added, done.change.removed) == (4, 0)
    assert done.change.relabelled == 76 - len(plant.tested)
    assert done.summary
    assert done.summary.records.data.images == 80
    dataset = next((plant.home / "work" / "pipeline").glob("*/version-data/dataset"))
    assert plant.test_ids <= set(open_split(dataset, "test").ids), "old test images stay test images"
    for split in ("train", "validation"):
        assert not plant.test_ids & set(open_split(dataset, split).ids)
    plans = read_record(next((plant.home / "work" / "pipeline").glob("*/select-strategy/plans")), TransferPlans)
    assert [bool(plans.plans[rank - 1].champion) for rank in plans.candidates] == [False, True]
    fetched = next((plant.home / "work" / "pipeline").glob("*/fetch-champion/champion"))
    assert plans.plans[-1].champion == read_record(fetched, TrainedModel).sha256
    assert read_record(fetched, TrainedModel).data_version == done.change.data_version
    difference = done.summary.records.registration.difference
    assert difference
    assert difference.low > 0
    assert done.promoted
    assert done.conclusion.startswith("promoted: cells version 2 is champion: it is right on")
    assert "beyond chance" in done.conclusion
    assert "among its training images" not in done.conclusion, "the champion has never seen the test images"
    assert f"run {done.summary.folder.name}" in history(name="cells")


@pytest.mark.slow
def test_a_worse_model_is_not_promoted_and_not_trained_twice(plant: Plant) -> None:
    champion = "2" if "version 2 became champion" in history(name="cells") else "1"
    source = write_manifest(plant.home / "worse.csv", plant.mistaken([*plant.rows, *plant.new[:2]]))
    before = detect_change(str(source), plant.home / "worse-change", name="cells")
    assert (before.retrain, before.champion) == (True, champion)
    version(str(source), plant.home / "worse", previous=before.data_version, **SHARES)
    worse = plant.train("worse", promote="better")
    assert worse.alias == "challenger"
    after = plant.retrain(source)
    assert after.summary is None
    assert "was trained on exactly these images already" in after.conclusion


@pytest.mark.slow
def test_the_champion_before_comes_back_in_one_step(plant: Plant) -> None:
    command = [PROGRAM, "rollback", "--name", "cells"]
    done = subprocess.run(command, env=os.environ, cwd=plant.home, capture_output=True, text=True, check=False)
    assert done.stdout == "cells version 1 is champion now, in the place of version 2\n", done.stderr
    told = history(name="cells")
    assert "version 1 was made champion by hand after version 2" in told
    assert "now: version 1 is champion, since " in told
