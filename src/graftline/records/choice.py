"""Record of the choice among trained candidates."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from graftline.records.base import Interval, Part, Record, read_record
from graftline.records.transfer import Strategy

CHOICE_FILE = "choice.json"


class TrainedCandidate(Part):
    """One of the models that were chosen among.

    Attributes:
        model: SHA-256 of its record.
        name: What it is, for people.
        backbone: timm name.
        strategy: How it was transferred.
        champion: SHA-256 of the record of the model whose weights it started from; empty: pretrained ones.
        image_size: Side of the square input in pixels.
        parameters: Number of parameters.
        validation_accuracy: Wilson interval.
        validation_loss: Mean log loss; None for the only candidate, which is not compared.
        difference: Its accuracy minus that of the candidate that is right most often, on the same validation images
            (paired interval); None for that one.
    """

    model: str
    name: str
    backbone: str
    strategy: Strategy
    champion: str = ""
    image_size: int
    parameters: int
    validation_accuracy: Interval
    validation_loss: float | None = None
    difference: Interval | None = None


class Choice(Record):
    """Which candidate goes on, chosen on the validation images; it lies in the chosen model's folder, as `choice.json`.

    Attributes:
        data_version: The data that all were trained on.
        candidates: All of them, in the order in which they were given.
        chosen: SHA-256 of the chosen model's record.
        reason: Why that one, in plain words.
    """

    step = "choose_model"
    kind: Literal["choice"] = "choice"
    data_version: str
    candidates: list[TrainedCandidate] = Field(min_length=1)
    chosen: str
    reason: str


def read_choice(model: Path) -> Choice | None:
    """Returns the choice that brought a model's folder about; None where there was nothing to choose.

    Raises:
        GraftlineError: The file is not what `graftline choose_model` writes.
    """
    if not (model / CHOICE_FILE).is_file():
        return None
    choice = read_record(model, Choice, CHOICE_FILE)
    return choice if len(choice.candidates) > 1 else None
