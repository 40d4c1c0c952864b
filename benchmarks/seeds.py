"""The demo over three seeds: test accuracy of each, mean and spread, and the seconds it takes.

Every seed is a whole run of the pipeline in a workspace of its own, so that nothing comes from a cache.
Run: python benchmarks/seeds.py
"""

import statistics
import tempfile

from _common import RESULTS, forget_settings

from graftline.runs.demo import demo

SEEDS = (0, 1, 2)


def main() -> None:
    """Runs the demo once per seed and prints the figures."""
    forget_settings()
    RESULTS.mkdir(parents=True, exist_ok=True)
    accuracies = []
    for seed in SEEDS:
        with tempfile.TemporaryDirectory(dir=RESULTS, prefix=".seeds-") as workspace:
            summary = demo(workspace=workspace, seed=seed)
        accuracies.append(summary.test_accuracy)
        print(f"seed {seed}: test accuracy {summary.test_accuracy:.4f}, {summary.seconds:.0f} s", flush=True)
    spread = statistics.stdev(accuracies)
    print(f"mean {statistics.mean(accuracies):.4f}, standard deviation {spread:.4f}, n = {len(SEEDS)} seeds")


if __name__ == "__main__":
    main()
