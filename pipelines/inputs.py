"""The inputs of a pipeline are made from its components, and reach them by their names."""

import inspect
from collections.abc import Callable
from functools import wraps
from importlib import import_module
from typing import Any, TypeVar

from kfp.dsl.base_component import BaseComponent
from kfp.dsl.pipeline_channel import PipelineChannel

from graftline.options import Option, choices, described, sentences
from graftline.steps.version_data import version_data
from graftline.wiring import STEPS_OF, PipelineName, inputs_of

T = TypeVar("T")

# What `graftline` gives by itself: a cluster's cache knows parameters only, not what else decides a step's results.
CACHE_KEYS = {
    "code_version": "Version of the code, for the cache.",
    "source_fingerprint": "What the source holds, for the cache.",
    "weights_fingerprint": "Which pretrained weights are at hand, for the cache: backbones are chosen among them.",
}


class Inputs:
    """A pipeline's inputs while it is built.

    Args:
        channels: What kfp hands from each of them to tasks, by name.
    """

    def __init__(self, channels: dict[str, PipelineChannel]) -> None:
        self._channels = channels

    def __getitem__(self, name: str) -> PipelineChannel:
        return self._channels[name]

    def of(self, component: BaseComponent) -> dict[str, PipelineChannel]:
        """Returns those that a component has a parameter of the same name for."""
        return {name: one for name, one in self._channels.items() if name in component.component_spec.inputs}


def with_inputs(pipeline: PipelineName) -> Callable[[Callable[[Inputs], T]], Callable[..., T]]:
    """Makes of a function that builds a pipeline from its inputs what `dsl.pipeline` takes, with all inputs described.

    Args:
        pipeline: Whose steps' options the inputs are, beside the source and the keys for the cache.
    """
    parameters = _parameters(pipeline)

    def decorate(build: Callable[[Inputs], T]) -> Callable[..., T]:
        @wraps(build)
        def built(*channels: PipelineChannel) -> T:
            names = (parameter.name for parameter in parameters)
            return build(Inputs(dict(zip(names, channels, strict=True))))

        built.__signature__ = inspect.signature(build).replace(parameters=parameters)  # type: ignore[attr-defined]
        built.__doc__ = described(build, _sentences(pipeline))
        return built

    return decorate


def _parameters(pipeline: PipelineName) -> list[inspect.Parameter]:
    """Returns the inputs, each of the type that components have for it: they know a choice as a text."""
    kinds: dict[str, Any] = dict.fromkeys(CACHE_KEYS, str)
    for step in STEPS_OF[pipeline]:
        component = getattr(import_module(f"graftline.components.{step}"), step)
        kinds |= {name: p.annotation for name, p in inspect.signature(component.python_func).parameters.items()}
    defaults = {name: option.default for name, option in inputs_of(pipeline).items()}
    every = {"source": inspect.Parameter.empty, **defaults, **dict.fromkeys(CACHE_KEYS, "")}
    missing = every.keys() - kinds.keys()
    assert not missing, f"components lack {', '.join(missing)}: repeat a step's options in its component"
    return [
        inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default, annotation=kinds[name])
        for name, default in every.items()
    ]


def _sentences(pipeline: PipelineName) -> dict[str, str]:
    options = {name: _told(option) for name, option in inputs_of(pipeline).items()}
    return {"source": sentences(version_data)["source"], **options, **CACHE_KEYS}


def _told(option: Option) -> str:
    known = ", ".join(choices(option.kind))
    return f"{option.sentence} One of {known}." if known else option.sentence
