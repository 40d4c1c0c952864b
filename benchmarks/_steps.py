"""The steps of a run called one after the other in this process: python _steps.py MANIFEST WORK.

Prints the seconds of each step as JSON. The arguments are those that `graftline run` gives them.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from graftline import augment, evaluate, export_onnx, fine_tune, register_model, select_strategy, version_data
from graftline.orchestration.local import in_workspace
from graftline.storage import connect_store


def main(manifest: str, work: Path) -> None:
    data, policy, plans, model, evaluation, bundle, registration = (
        work / name for name in ("dataset", "policy", "plans", "model", "evaluation", "bundle", "registration")
    )
    seconds: dict[str, float] = {}

    def timed(step: Callable[..., Any], *arguments: Any, **options: Any) -> None:
        began = time.perf_counter()
        step(*arguments, **options)
        seconds[step.__name__] = time.perf_counter() - began

    with in_workspace(str(work)), connect_store():
        timed(version_data, manifest, data)
        timed(augment, data, policy)
        timed(select_strategy, data, policy, plans)
        timed(fine_tune, data, policy, plans, model, checkpoints=str(work / "checkpoints"))
        timed(evaluate, data, model, evaluation)
        timed(export_onnx, data, model, bundle)
        timed(register_model, data, bundle, evaluation, registration, model=model)
    print(json.dumps(seconds))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
