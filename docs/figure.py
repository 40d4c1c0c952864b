"""Draws the README's picture from a run of the demo: `.venv/bin/python docs/figure.py graftline-work/runs/RUN`.

Everything in it is read from the run's records; nothing is typed in but what the paper published.
"""

import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from graftline.records import EdgeBundle, Evaluation, read_record
from graftline.runs.demo import PUBLISHED

OUT = Path(__file__).parent / "images" / "result.png"
OURS, THEIRS, TEXT = "#1f6feb", "#8c959f", "#24292f"


def main(run: Path) -> None:
    """Draws the picture of a run's folder and says where it is."""
    outputs = json.loads((run / "outputs.json").read_text())
    evaluation = read_record(Path(outputs["evaluation"]), Evaluation)
    bundle = read_record(run / "bundle", EdgeBundle)
    plt.rcParams.update({"font.size": 9, "text.color": TEXT, "axes.labelcolor": TEXT, "axes.titlesize": 10})
    figure, (accuracy, confusion, latency) = plt.subplots(
        1, 3, figsize=(11, 3.1), width_ratios=(1.3, 0.8, 1.1), layout="constrained"
    )
    draw_accuracy(accuracy, evaluation)
    draw_confusion(confusion, evaluation)
    draw_latency(latency, bundle)
    OUT.parent.mkdir(exist_ok=True)
    figure.savefig(OUT, dpi=150, metadata={"Software": None})
    print(OUT)


def draw_accuracy(axes: Axes, evaluation: Evaluation) -> None:
    """Draws the accuracy with its interval, in all and by domain, over what was published."""
    rows = {"all": evaluation.accuracy, **evaluation.accuracy_by_domain}
    for height, interval in enumerate(reversed(rows.values())):
        value, low, high = (100 * share for share in (interval.value, interval.low, interval.high))
        axes.errorbar(value, height, xerr=[[value - low], [high - value]], fmt="o", color=OURS, capsize=3)
        axes.text(value, height + 0.12, f"{value:.1f}", ha="center")
    for name, value in PUBLISHED:
        axes.axvline(100 * value, color=THEIRS, linestyle="--", linewidth=1)
        axes.text(100 * value, len(rows) - 0.5, f" {name.split(',')[0]}", color=THEIRS)
    axes.set_yticks(range(len(rows)), [f"{name}\nn = {interval.n:,}" for name, interval in reversed(rows.items())])
    axes.set_ylim(-0.6, len(rows) - 0.2)
    axes.set_title("accuracy on the test images, 95 % interval", loc="left")
    axes.set_xlabel("%; dashed: published, Deitsch et al. 2019")
    axes.spines[["top", "right", "left"]].set_visible(False)


def draw_confusion(axes: Axes, evaluation: Evaluation) -> None:
    """Draws the counts of true against predicted classes."""
    names, counts = [metrics.name for metrics in evaluation.classes], evaluation.confusion
    axes.imshow([[count / max(1, sum(row)) for count in row] for row in counts], cmap="Blues", vmin=0, vmax=1.4)
    for true, row in enumerate(counts):
        for predicted, count in enumerate(row):
            axes.text(predicted, true, f"{count:,}", ha="center", va="center")
    axes.set_xticks(range(len(names)), names)
    axes.set_yticks(range(len(names)), names, rotation=90, va="center")
    axes.set_title("true (rows), predicted", loc="left")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)


def draw_latency(axes: Axes, bundle: EdgeBundle) -> None:
    """Draws milliseconds for one image, with quartiles, and the size of each form of the model."""
    for height, variant in enumerate(reversed(bundle.variants)):
        latency, shipped = variant.latency_ms, variant.file == bundle.shipped
        axes.barh(height, latency.value, 0.55, color=OURS if shipped else THEIRS,
                  xerr=[[latency.value - latency.low], [latency.high - latency.value]], capsize=3)  # fmt: skip
        text = f"  {latency.value:.1f} ms, {variant.bytes / 1e6:.1f} MB{', ships' if shipped else ''}"
        axes.text(latency.high, height, text, va="center")
    axes.set_yticks(range(len(bundle.variants)), [variant.name for variant in reversed(bundle.variants)])
    axes.set_xlim(0, 1.7 * max(variant.latency_ms.high for variant in bundle.variants))
    axes.set_title("one image, one thread, from picture to answer", loc="left")
    axes.set_xlabel("milliseconds, with quartiles")
    axes.spines[["top", "right", "left"]].set_visible(False)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("give the folder of a run: graftline-work/runs/RUN")
    main(Path(sys.argv[1]))
