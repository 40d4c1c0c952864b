"""graftline predict: the shipped file's answers as CSV, on real solar cells; a mistake is one line."""

import csv
import io
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from PIL import Image
from registry_inputs import classifier, make_bundle, make_dataset, threshold

from graftline.data.dataset import iter_images, open_split

PROGRAM = Path(sys.executable).parent / "graftline"
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A bundle, and images of both classes in folders of some depth."""
    dataset = make_dataset(tmp_path / "dataset")
    make_bundle(tmp_path / "bundle", dataset, threshold())
    labels = open_split(dataset, "test").labels
    for number, (rgb, label) in enumerate(zip(iter_images(dataset, "test"), labels, strict=True)):
        path = tmp_path / "images" / ("dark", "bright")[label] / "deeper" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rgb).save(path)
    return tmp_path


def test_every_image_gets_a_line_with_the_probability_of_each_class(place: Path, call: Call) -> None:
    code, out, err = call("predict", place / "bundle", place / "images")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert (code, err, len(rows)) == (0, "", 24)
    assert [row["image"] for row in rows] == sorted(map(str, (place / "images").rglob("*.png")))
    assert all(row["class"] == Path(row["image"]).parts[-3] for row in rows)
    for row in rows:
        dark, bright = float(row["dark"]), float(row["bright"])
        assert dark + bright == pytest.approx(1, abs=2e-6) and (bright > dark) == (row["class"] == "bright")


def test_a_single_image_and_a_file_that_left_its_bundle(place: Path, call: Call) -> None:
    alone = shutil.copy(place / "bundle" / "model.onnx", place / "shipped.onnx")
    (image, *_) = (place / "images" / "bright").rglob("*.png")
    code, out, err = call("predict", alone, image, "--out", place / "answers.csv")
    assert (code, out, err) == (0, "", f"out: {place / 'answers.csv'}\n")
    header, line = (place / "answers.csv").read_text().splitlines()
    assert header == "image,class,dark,bright" and line.startswith(f"{image},bright,0.")


def test_what_cannot_be_read_is_named_and_the_rest_answered(place: Path, call: Call) -> None:
    (place / "images" / "0.jpg").write_bytes(b"")
    code, out, err = call("predict", place / "bundle", place / "images")
    assert (code, len(out.splitlines())) == (1, 25)
    (place / "images" / "notes.heic").touch()
    missing = f"1 of 25 images cannot be read and have no line: {place / 'images' / '0.jpg'} (the file is empty)"
    assert err == f"graftline: {missing}\n"
    told = call("predict", place / "bundle", place / "images")[2]
    assert told.startswith(f"1 files in {place / 'images'} are not named like images: left aside\n")
    kept = place / "answers.csv"
    kept.write_text("earlier")
    code, out, err = call("predict", place / "bundle", place / "images" / "0.jpg", "--out", kept)
    assert (code, out, kept.read_text()) == (1, "", "earlier")
    assert "none of the 1 images can be read" in err


def test_the_workspace_in_the_current_folder_is_not_asked_about(
    place: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place / "images")
    monkeypatch.delenv("GRAFTLINE_WORKSPACE")
    shutil.copytree("dark", "graftline-work/runs/1/bundle")
    code, out, err = call("predict", place / "bundle", ".")
    assert (code, err, len(out.splitlines())) == (0, "", 25)
    assert "graftline-work" not in out


def test_a_reader_that_has_seen_enough_hears_no_more_than_what_went_wrong(place: Path) -> None:
    (place / "images" / "0.jpg").write_bytes(b"")
    read, write = os.pipe()
    os.close(read)
    command = [PROGRAM, "predict", place / "bundle", place / "images"]
    environment = os.environ | {"PYTHONUNBUFFERED": ""}
    done = subprocess.run(command, env=environment, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert done.returncode == 1
    assert done.stderr.startswith("graftline: 1 of 25 images cannot be read") and done.stderr.count("\n") == 1


def test_a_bundle_whose_file_was_changed_does_not_answer(place: Path, call: Call) -> None:
    onnx.save_model(classifier(3.0, ["dark", "bright"]), place / "bundle" / "model.onnx")
    code, out, err = call("predict", place / "bundle", place / "images")
    assert (code, out) == (1, "")
    assert "model.onnx is not the file that was measured" in err


def test_a_file_of_somebody_elses_is_refused(place: Path, call: Call) -> None:
    model = classifier(3.0, ["dark", "bright"])
    model.metadata_props[0].value = "dark, bright"
    onnx.save_model(model, place / "labels.onnx")
    assert "does not name its classes" in call("predict", place / "labels.onnx", place / "images")[2]
    model.graph.input[0].name = model.graph.node[0].input[0] = "data"
    onnx.save_model(model, place / "input.onnx")
    told = call("predict", place / "input.onnx", place / "images")[2]
    assert "input.onnx takes ['data'] and gives ['probabilities']: give a file that `graftline export_onnx`" in told


@pytest.mark.parametrize(
    ("model", "images", "message"),
    [
        ("nowhere", "images", "nowhere does not exist: give an .onnx file of graftline's, or the bundle folder"),
        ("images", "images", "is not an output of `graftline export_onnx`"),
        ("bundle/labels.txt", "images", "labels.txt is not an edge model that onnxruntime can run"),
        ("bundle", "nowhere", "nowhere does not exist: give a folder of images"),
        ("bundle", "empty", "empty holds no images: give a folder of images"),
    ],
)
def test_mistakes_are_told_in_one_line(place: Path, call: Call, model: str, images: str, message: str) -> None:
    (place / "empty").mkdir()
    code, out, err = call("predict", place / model, place / images)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert message in err
