"""The options of a pipeline: each reaches its steps, and has one default wherever it can be given."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from typing import Any

import pytest
from compiled import loop_of, tasks_of
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

from graftline.runs.local import run
from graftline.runs.retrain import retrain
from graftline.steps import RETRAIN_STEPS, STEPS

# What came by itself, on a schedule, has to be better; what a user registers by hand, not worse.
DELIBERATE = {("retrain", "promote")}


def strayed(spec: Any) -> list[str]:
    """Returns each parameter of a step that bears an input's name and does not come from it, and each unused input."""
    inputs = set(spec.root.input_definitions.parameters)
    arrived = set(_arrivals(spec, spec.root.dag, {name: name for name in inputs}))
    wrong = [f"{task}.{name} comes from {source}" for task, name, source in arrived if name in inputs - {source}]
    unused = inputs - {source for _, _, source in arrived}
    return sorted([*wrong, *(f"{name} reaches no step" for name in unused)])


def _arrivals(spec: Any, dag: Any, known: dict[str, str]) -> Iterator[tuple[str, str, str]]:
    """Yields task, parameter and the input of the pipeline that it comes from ('' for none), loops and conditions too.

    Args:
        spec: The pipeline.
        dag: One of its graphs.
        known: The pipeline's input behind each parameter of that graph.
    """
    for name, task in dag.tasks.items():
        component = spec.components[task.component_ref.name]
        given = {key: known.get(one.component_input_parameter, "") for key, one in task.inputs.parameters.items()}
        if component.HasField("dag"):
            yield from _arrivals(spec, component.dag, given)
            continue
        for key in {*component.input_definitions.parameters, *given}:
            yield name, key, given.get(key, "")


def defaults_of(spec: Any) -> dict[str, Any]:
    """Returns the default of each input that has one, as a text or a number."""
    parameters = spec.root.input_definitions.parameters
    return {
        name: json_format.MessageToDict(one.default_value)
        for name, one in parameters.items()
        if one.default_value.WhichOneof("kind")
    }


def pipeline_spec(name: str) -> Any:
    """Returns a pipeline as it runs here."""
    return getattr(import_module(f"graftline.pipelines.{name}"), name).pipeline_spec


@pytest.mark.parametrize("name", ["train", "retrain"])
def test_every_option_reaches_its_steps(name: str) -> None:
    assert strayed(pipeline_spec(name)) == []


@pytest.mark.parametrize("name", ["train", "retrain"])
def test_an_option_that_goes_astray_would_be_found(name: str) -> None:
    def broken() -> tuple[Any, dict[str, Any]]:
        copy = pipeline_spec_pb2.PipelineSpec.FromString(pipeline_spec(name).SerializeToString())
        return copy, {key: task.inputs.parameters for key, task in tasks_of(copy).items()}

    spec, inputs = broken()
    del inputs["fine-tune"]["settings"]
    assert strayed(spec) == ["fine-tune.settings comes from ", "settings reaches no step"]
    spec, inputs = broken()
    fractions = [inputs["version-data"][f"{split}_fraction"] for split in ("validation", "test")]
    first, second = (one.component_input_parameter for one in fractions)
    for one, other in zip(fractions, (second, first), strict=True):
        one.component_input_parameter = other
    assert strayed(spec) == [
        "version-data.test_fraction comes from validation_fraction",
        "version-data.validation_fraction comes from test_fraction",
    ]
    spec, inputs = broken()
    loop_of(spec).inputs.parameters["pipelinechannel--epochs"].component_input_parameter = "nothing"
    assert "fine-tune.epochs comes from " in strayed(spec)


@pytest.mark.parametrize(("name", "steps"), [("train", STEPS), ("retrain", RETRAIN_STEPS)])
def test_defaults_are_those_of_the_steps(name: str, steps: Sequence[str]) -> None:
    defaults = defaults_of(pipeline_spec(name))
    for step in steps:
        function = getattr(import_module(f"graftline.steps.{step}"), step)
        for key, parameter in inspect.signature(function).parameters.items():
            if key in defaults and parameter.default is not parameter.empty and (name, key) not in DELIBERATE:
                assert defaults[key] == parameter.default, (step, key)


@pytest.mark.parametrize(("name", "command"), [("train", run), ("retrain", retrain)])
def test_defaults_are_those_of_the_command(name: str, command: Callable[..., Any]) -> None:
    parameters = inspect.signature(command).parameters
    offered = {key: parameters[key].default for key in parameters.keys() - {"workspace", "published", "image"}}
    assert offered.pop("source") is inspect.Parameter.empty
    defaults = defaults_of(pipeline_spec(name))
    assert offered == {key: defaults.get(key) for key in offered}
