"""The step `choose_model`: one of the trained candidates goes on, chosen before any test image is read."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from graftline.errors import GraftlineError
from graftline.files import link_or_copy, output_folder
from graftline.progress import say
from graftline.records import CHOICE_FILE, Choice, TrainedModel, read_record

if TYPE_CHECKING:
    from graftline.evaluation.outputs import Predictions


def choose_model(models: list[Path], out: Path) -> Choice:
    """Chooses among trained candidates on the validation images; a tie goes to the smaller model.

    Every candidate is compared with the one that is right most often, on the same images. Of those within a standard
    error of it, the one with the fewest parameters is chosen, then the one of smaller images, then the one of lower log
    loss.

    Args:
        models: Folders written by fine_tune, at least one.
        out: Folder to write: the chosen model's files, and choice.json, which says why.

    Returns:
        The candidates and the choice.

    Raises:
        GraftlineError: The candidates are of different data or classes, or lack their answers to the validation images.
    """
    if not models:
        raise GraftlineError("there is no model to choose: give the folders that `graftline fine_tune` wrote")
    records = [read_record(folder, TrainedModel) for folder in models]
    choice = _choose(models, records)
    place = [candidate.model for candidate in choice.candidates].index(choice.chosen)
    with output_folder(out) as folder:
        shutil.copytree(models[place], folder, copy_function=link_or_copy, dirs_exist_ok=True)
        choice.write(folder, CHOICE_FILE)
    if len(models) > 1:
        say(f"chosen of {len(models)}: {choice.candidates[place].name}: {choice.reason}")
    return choice


def _choose(folders: list[Path], records: list[TrainedModel]) -> Choice:
    from graftline.evaluation.choice import choose_among, choose_only

    if len(records) == 1:
        return choose_only(records[0])
    answers = [_read_answers(folder) for folder in folders]
    for folder, record, one in zip(folders, records, answers, strict=True):
        different = _differs(record, one, records[0], answers[0])
        if different:
            raise GraftlineError(
                f"{folder} and {folders[0]} cannot be compared: {different}; train both on the same data"
            )
    return choose_among(records, answers)


def _read_answers(folder: Path) -> "Predictions":
    from graftline.evaluation.outputs import VALIDATION_FILE, read_predictions

    if not (folder / VALIDATION_FILE).is_file():
        raise GraftlineError(
            f"{folder} has no {VALIDATION_FILE}: it was planned as the only candidate; run `graftline select_strategy` "
            "with --candidates 2 or more, then `graftline fine_tune` again"
        )
    return read_predictions(folder / VALIDATION_FILE)


def _differs(record: TrainedModel, answers: "Predictions", first: TrainedModel, answers_of_first: "Predictions") -> str:
    """Returns in which way two candidates are of different data; '' when they are of the same."""
    if record.data_version != first.data_version:
        return f"they were trained on data versions {record.data_version} and {first.data_version}"
    if record.classes != first.classes:
        return f"they have the classes {', '.join(record.classes)} and {', '.join(first.classes)}"
    if answers.ids != answers_of_first.ids:
        return "their answers are to different images"
    return ""
