"""The steps of a run called one after the other in this process: python _steps.py MANIFEST WORK --candidates N.

Prints the seconds of each step as JSON. The arguments are those that `graftline run` gives them.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from graftline import (
    augment,
    choose_model,
    evaluate,
    export_onnx,
    fine_tune,
    register_model,
    select_strategy,
    version_data,
)
from graftline.runs.board import line_name
from graftline.runs.local import in_workspace
from graftline.storage import connect_store


def main(manifest: str, work: Path, candidates: int) -> None:
    data, policy, plans, model, evaluation, bundle, registration = (
        work / name for name in ("dataset", "policy", "plans", "model", "evaluation", "bundle", "registration")
    )
    seconds: dict[str, float] = {}

    def timed(step: Callable[..., Any], *arguments: Any, number: int = 1, **options: Any) -> Any:
        began = time.perf_counter()
        result = step(*arguments, **options)
        seconds[line_name(step.__name__, number)] = time.perf_counter() - began
        return result

    with in_workspace(str(work)), connect_store():
        timed(version_data, manifest, data)
        timed(augment, data, policy)
        ranks = timed(select_strategy, data, policy, plans, candidates=candidates).candidates
        trained = [work / f"candidate-{rank}" for rank in ranks]
        for number, (rank, folder) in enumerate(zip(ranks, trained, strict=True), start=1):
            options = {"rank": rank, "checkpoints": str(work / "checkpoints")}
            timed(fine_tune, data, policy, plans, folder, number=number, **options)
        timed(choose_model, trained, model)
        timed(evaluate, data, model, evaluation)
        timed(export_onnx, data, model, bundle)
        timed(register_model, data, bundle, evaluation, registration, model=model)
    print(json.dumps(seconds))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("manifest")
    parser.add_argument("work", type=Path)
    parser.add_argument("--candidates", type=int, default=0)
    main(**vars(parser.parse_args()))
