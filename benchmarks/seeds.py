"""The demo over three seeds: test accuracy of each, mean and spread, and the seconds it takes.

Every seed is a whole run of the pipeline (data version and features are taken from the cache after the first).
Run: python benchmarks/seeds.py [WORKSPACE]
"""

import statistics
import sys

from graftline.orchestration.demo import demo

SEEDS = (0, 1, 2)


def main(workspace: str = "demo-work") -> None:
    """Runs the demo once per seed and prints the figures."""
    summaries = [demo(workspace=workspace, seed=seed) for seed in SEEDS]
    accuracies = [summary.test_accuracy for summary in summaries]
    for seed, summary in zip(SEEDS, summaries, strict=True):
        print(f"seed {seed}: test accuracy {summary.test_accuracy:.4f}, {summary.seconds:.0f} s")
    spread = statistics.stdev(accuracies)
    print(f"mean {statistics.mean(accuracies):.4f}, standard deviation {spread:.4f}, n = {len(SEEDS)} seeds")


if __name__ == "__main__":
    main(*sys.argv[1:2])
