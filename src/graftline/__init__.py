"""graftline grafts pretrained vision backbones onto your images, proves the result, and ships it to the edge.

Every step is a function of this package: `from graftline import fine_tune`.
"""

import functools
import inspect
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftline.files import check_output
from graftline.steps import RETRAIN_STEPS

if TYPE_CHECKING:  # who reads no table; `as` says that it is offered
    from graftline.steps.augment import augment as augment
    from graftline.steps.choose_model import choose_model as choose_model
    from graftline.steps.detect_change import detect_change as detect_change
    from graftline.steps.evaluate import evaluate as evaluate
    from graftline.steps.export_onnx import export_onnx as export_onnx
    from graftline.steps.fetch_champion import fetch_champion as fetch_champion
    from graftline.steps.fine_tune import fine_tune as fine_tune
    from graftline.steps.register_model import register_model as register_model
    from graftline.steps.select_strategy import select_strategy as select_strategy
    from graftline.steps.version_data import version_data as version_data

__version__ = version("graftline")
__all__ = list(RETRAIN_STEPS)


def __getattr__(name: str) -> Any:
    # Imported on first use, so that `graftline --help` does not wait for torch.
    if name in __all__:
        return globals().setdefault(name, _for_people(getattr(import_module(f"graftline.steps.{name}"), name)))
    raise AttributeError(f"module 'graftline' has no attribute {name!r}")


def _for_people(step: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a step that takes texts for its paths, too, and refuses an impossible `out` before all its work."""
    signature = inspect.signature(step)

    @functools.wraps(step)
    def call(*args: Any, **options: Any) -> Any:
        given = signature.bind(*args, **options)
        for name, value in given.arguments.items():
            given.arguments[name] = _as_path(value, signature.parameters[name].annotation)
        check_output(given.arguments["out"])
        return step(*given.args, **given.kwargs)

    call.__module__ = __name__  # where pickle looks for it, to hand it to another process
    return call


def _as_path(value: Any, kind: Any) -> Any:
    if kind in (Path, Path | None) and isinstance(value, str):
        return Path(value)
    return [Path(each) for each in value] if kind == list[Path] else value
