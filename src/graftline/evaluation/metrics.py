"""The metrics, each stated once: a new one is a function in `overall.py` or `by_class.py` and a line here.

The record, the report, `metrics.json`, MLflow, Kubeflow and the summary of a run go through these tables.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from graftline.evaluation import by_class, overall
from graftline.evaluation.answers import Answers
from graftline.evaluation.calibration import calibration_error
from graftline.records import Interval
from graftline.words import percent

T = TypeVar("T", Interval, list[Interval])
WILSON, BOOTSTRAP = "Wilson score interval", "2,000 bootstrap resamples"


def _always(_answers: Answers) -> bool:
    return True


@dataclass(frozen=True)
class Metric(Generic[T]):
    """One metric.

    Attributes:
        key: Its name in records, `metrics.json`, MLflow and Kubeflow.
        title: Its name for people, as inside a sentence.
        measure: Returns the value with its 95 % interval and n; of a metric by class one for each, in label order.
        interval: How that interval is made.
        meaning: What the value is, as inside a sentence.
        better: Whether a higher or a lower value is the better one.
        is_share: Whether it lies in [0, 1] and is written in per cent; otherwise it is a number from 0 on.
        in_table: Whether the table at the end of a run shows it; the title has at most 8 letters then.
        empty: What the report says of a class where n is 0.
        applies: Whether it says anything about such answers.
    """

    key: str
    title: str
    measure: Callable[[Answers], T]
    interval: str
    meaning: str
    better: Literal["higher", "lower"] = "higher"
    is_share: bool = True
    in_table: bool = False
    empty: str = "no images"
    applies: Callable[[Answers], bool] = _always

    def show(self, value: float) -> str:
        """Writes a value for people."""
        return percent(value) if self.is_share else f"{value:.3f}"

    def spread(self, interval: Interval) -> str:
        """Writes the ends of an interval for people."""
        return f"{self.show(interval.low)} to {self.show(interval.high)}"


METRICS: tuple[Metric[Interval], ...] = (
    Metric("accuracy", "accuracy", overall.accuracy, WILSON, "the share of images that are right", in_table=True),
    Metric(
        "macro_f1",
        "macro-F1",
        overall.macro_f1,
        f"{BOOTSTRAP} inside the true classes",
        "the mean of the classes' F1",
        in_table=True,
    ),
    Metric(
        "balanced_accuracy",
        "balanced accuracy",
        overall.balanced_accuracy,
        f"{WILSON} of the mean over classes",
        "the mean of the classes' recall",
    ),
    Metric(
        "top_5_accuracy",
        "top-5 accuracy",
        overall.top_accuracy,
        WILSON,
        "the true class is among the five most probable",
        applies=overall.has_more_than_the_top,
    ),
    Metric(
        "log_loss",
        "log loss",
        overall.log_loss,
        BOOTSTRAP,
        "how surprised the model is by the truth, on average",
        better="lower",
        is_share=False,
    ),
    Metric(
        "calibration_error",
        "calibration error",
        calibration_error,
        f"{BOOTSTRAP}, 15 bins of equal width",
        "how far probabilities are from the share that is right",
        better="lower",
    ),
)

CLASS_METRICS: tuple[Metric[list[Interval]], ...] = (
    Metric("recall", "recall", by_class.recall, WILSON, "of the images of a class, the share the model finds"),
    Metric(
        "precision",
        "precision",
        by_class.precision,
        WILSON,
        "of its answers for a class, the share that is right",
        empty="no predictions",
    ),
    Metric("f1", "F1", by_class.f1, WILSON, "recall and precision in one, their harmonic mean"),
    Metric(
        "average_precision",
        "average precision",
        by_class.average_precision,
        WILSON,
        "the mean precision where images are ranked by the probability of the class",
    ),
)
