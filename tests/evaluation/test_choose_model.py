"""The choice among trained candidates: on validation only, by the paired interval, a tie goes to the smaller model."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from registry_inputs import trained

from graftline import choose_model
from graftline.cli import main as cli
from graftline.data.dataset import Split
from graftline.errors import GraftlineError
from graftline.evaluation.outputs import VALIDATION_FILE, read_predictions, write_predictions
from graftline.records import Choice, DataVersion, TrainedModel, read_choice, read_record

IMAGES = 100
LABELS = np.arange(IMAGES) % 2
DATA = "d0000000000000001"
Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Writes a candidate's folder: a record, weights, and answers to 100 images that are wrong on the first ones."""

    def write(name: str, wrong: int = 0, sure: float = 0.9, *, ids: str = "image", **changes: object) -> Path:
        about = {"domains": [], "counts": {}, "images": IMAGES, "median_width": 9, "median_height": 9, "grey": True}
        data = DataVersion(version=DATA, classes=["dark", "bright"], **about, shards=[])
        record = trained(data, seed=len(name)).model_copy(update=changes)
        folder = tmp_path / name
        record.write(folder)
        (folder / "model.safetensors").write_text(name)
        right = np.arange(IMAGES) >= wrong
        of_truth = np.where(right, sure, 1 - sure)
        probabilities = np.where(LABELS[:, None] == [0, 1], of_truth[:, None], 1 - of_truth[:, None])
        split = Split("validation", [f"{ids} {i}" for i in range(IMAGES)], LABELS, [""] * IMAGES, [""] * IMAGES)
        write_predictions(folder / VALIDATION_FILE, split, probabilities.astype(np.float32))
        return folder

    return write


def chosen(choice: Choice) -> int:
    return [candidate.model for candidate in choice.candidates].index(choice.chosen)


def test_a_better_candidate_is_chosen_though_it_is_larger(make: Make, tmp_path: Path) -> None:
    choice = choose_model([make("small", 30, parameters=10), make("large", 5, parameters=99)], tmp_path / "out")
    assert chosen(choice) == 1
    assert choice.candidates[1].difference is None
    difference = choice.candidates[0].difference
    assert difference and (difference.value, difference.n) == (-0.25, IMAGES)
    assert difference.high < 0
    assert (
        choice.reason
        == "it is right on 95 of 100 validation images: no other candidate comes within a standard error of it"
    )


def test_a_tie_goes_to_the_smaller_model(make: Make, tmp_path: Path) -> None:
    choice = choose_model([make("large", 5, parameters=9_900), make("small", 7, parameters=1_000)], tmp_path / "out")
    assert chosen(choice) == 1
    difference = choice.candidates[1].difference
    assert difference and difference.low < difference.value < 0 <= difference.high
    assert choice.reason == (
        "it is right on 2 fewer of the same 100 validation images than the candidate tf_efficientnet_lite0, feature "
        f"extraction (-2.0 points, 95 % interval {100 * difference.low:+.1f} to {100 * difference.high:+.1f}), which "
        "may be chance; of the 2 within a standard error of the best, it has the fewest parameters: 1,000 against 9,900"
    )


@pytest.mark.parametrize(("mistakes", "smaller"), [(7, True), (8, False), (12, False)])
def test_few_images_do_not_let_a_worse_candidate_pass(mistakes: int, smaller: bool, make: Make, tmp_path: Path) -> None:
    candidates = [make("large", 5, parameters=9_900), make("small", mistakes, parameters=1_000)]
    choice = choose_model(candidates, tmp_path / "out")
    assert choice.candidates[1].difference is not None
    assert (chosen(choice) == 1) == smaller


def test_equally_large_candidates_are_told_apart_by_image_size_then_log_loss(make: Make, tmp_path: Path) -> None:
    same = {"parameters": 10}
    sharp, small = make("sharp", 5, 0.95, **same), make("small", 6, image_size=96, **same)
    by_size = choose_model([sharp, small], tmp_path / "by-size")
    assert chosen(by_size) == 1
    assert by_size.reason.endswith("takes the smallest images of these: 96 px against 224")
    vague = make("vague one", 5, 0.6, **same)
    by_loss = choose_model([vague, sharp], tmp_path / "by-loss")
    assert chosen(by_loss) == 1
    assert "no candidate is right on more of the 100 validation images than it (95)" in by_loss.reason
    losses = [candidate.validation_loss for candidate in by_loss.candidates]
    assert losses[0] == pytest.approx(-0.95 * np.log(0.6) - 0.05 * np.log(0.4), rel=1e-5)
    assert by_loss.reason.endswith(f"the lowest log loss of these: {losses[1]:.4f}, then {losses[0]:.4f}")


def test_among_equals_the_first_is_chosen(make: Make, tmp_path: Path) -> None:
    choice = choose_model([make("one", 5), make("two more", 5, 0.9 + 1e-6)], tmp_path / "out")
    assert chosen(choice) == 0
    assert choice.reason.endswith("it has as few parameters and as low a log loss as any (0.2152), and comes first")


def test_a_candidate_that_is_worse_beyond_chance_is_out_however_small(make: Make, tmp_path: Path) -> None:
    candidates = [make("a", 4, parameters=30), make("bb", 5, parameters=20), make("ccc", 40, parameters=1)]
    choice = choose_model(candidates, tmp_path / "out")
    assert chosen(choice) == 1
    assert "of the 2 within a standard error of the best, it has the fewest parameters: 20 against 30" in choice.reason


def test_the_folder_is_the_chosen_model_and_says_why(make: Make, tmp_path: Path) -> None:
    small, large = make("small", 5, parameters=1), make("large one", 5, parameters=2)
    choice = choose_model([large, small], tmp_path / "out")
    out = tmp_path / "out"
    assert read_record(out, TrainedModel) == read_record(small, TrainedModel)
    assert read_record(out, TrainedModel).sha256 == choice.chosen
    assert (out / "model.safetensors").stat().st_ino == (small / "model.safetensors").stat().st_ino
    assert read_choice(out) == choice
    assert read_choice(small) is None
    again = choose_model([large, small], tmp_path / "out")
    assert again == choice, "an earlier output is replaced by the same one"


def test_the_only_candidate_needs_no_answers(make: Make, tmp_path: Path) -> None:
    only = make("only")
    (only / VALIDATION_FILE).unlink()
    choice = choose_model([only], tmp_path / "out")
    assert (choice.reason, chosen(choice)) == ("it is the only candidate", 0)
    assert choice.candidates[0].validation_accuracy == read_record(only, TrainedModel).validation_accuracy
    assert read_choice(tmp_path / "out") is None, "there was nothing to choose"


def test_candidates_that_cannot_be_compared_are_refused_in_one_line(make: Make, tmp_path: Path) -> None:
    first = make("first")
    for name, changes, says in (
        ("other data", {"data_version": "d2"}, f"they were trained on data versions d2 and {DATA}"),
        ("other classes", {"classes": ["cat", "dog"]}, "they have the classes cat, dog and dark, bright"),
        ("other images", {"ids": "picture"}, "their answers are to different images"),
    ):
        with pytest.raises(GraftlineError, match=says) as caught:
            choose_model([first, make(name, **changes)], tmp_path / "out")
        assert f"{tmp_path / name} and {first} cannot be compared: " in str(caught.value)
        assert "\n" not in str(caught.value)
    (make("silent") / VALIDATION_FILE).unlink()
    with pytest.raises(GraftlineError, match="it was planned as the only candidate; run `graftline select_strategy`"):
        choose_model([first, tmp_path / "silent"], tmp_path / "out")
    with pytest.raises(GraftlineError, match="is not an output of `graftline fine_tune`"):
        choose_model([first, tmp_path], tmp_path / "out")
    with pytest.raises(GraftlineError, match="there is no model to choose"):
        choose_model([], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command_takes_several_folders_and_the_output_last(
    make: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [make("large", 5, parameters=2), make("small", 5, parameters=1)]
    assert cli.main(["choose_model", *map(str, folders), str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    assert out.endswith(f"out: {tmp_path / 'out'}\n")
    assert json.loads((tmp_path / "out" / "choice.json").read_text())["reason"] in " ".join(out.split())
    assert cli.main(["choose_model", str(tmp_path / "out")]) == 2
    assert "OUT is missing; usage: graftline choose_model MODELS... OUT" in capsys.readouterr().err


def test_answers_come_back_as_they_were_written(make: Make) -> None:
    answers = read_predictions(make("model", 20) / VALIDATION_FILE)
    assert answers.right.tolist() == [False] * 20 + [True] * 80
    assert (answers.labels == LABELS).all()
    assert answers.ids[1] == "image 1"
    impossible = make("certain", 1, 1.0)
    assert np.isfinite(read_predictions(impossible / VALIDATION_FILE).log_loss)
