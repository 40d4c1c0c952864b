"""The options of a pipeline: each reaches its steps, from everywhere, and has one default wherever it can be given."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from typing import Any

import pytest
from compiled import loop_of, tasks_of
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

from graftline.cli.main import load
from graftline.errors import GraftlineError
from graftline.options import spelt
from graftline.runs.local import run
from graftline.runs.retrain import retrain
from graftline.steps import RETRAIN_STEPS, STEPS
from graftline.wiring import PLACED, STEPS_OF, WIRED, WIRED_IN_TRAIN, PipelineName

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


def options_of(step: str) -> dict[str, inspect.Parameter]:
    """Returns what a step can be asked for."""
    parameters = inspect.signature(getattr(import_module(f"graftline.steps.{step}"), step)).parameters
    return {name: parameter for name, parameter in parameters.items() if parameter.kind is parameter.KEYWORD_ONLY}


def asked_for(step: str, pipeline: PipelineName) -> set[str]:
    """Returns what a step can be asked for, less what the one list says that the pipeline's wiring decides."""
    wired = {*WIRED.get(step, ()), *(WIRED_IN_TRAIN if pipeline == "train" else ())}
    return options_of(step).keys() - wired


@pytest.mark.parametrize(
    ("command", "pipeline"),
    [("run", "train"), ("retrain", "retrain"), ("submit", "retrain"), ("schedule create", "retrain")],
)
def test_every_option_of_every_step_can_be_given_to_every_command(command: str, pipeline: PipelineName) -> None:
    offered = inspect.signature(load(command)).parameters
    for step in STEPS_OF[pipeline]:
        for name in asked_for(step, pipeline) - {*PLACED}:
            assert name in offered, f"{spelt(name)} of {step}: give it to the component, or say in WIRED what decides"
            if name != "promote":  # whose default, on a cluster, depends on the pipeline
                assert offered[name].annotation == options_of(step)[name].annotation, (step, name)


@pytest.mark.parametrize("pipeline", ["train", "retrain"])
def test_every_option_of_every_step_is_an_input_of_the_pipeline_that_reaches_it(pipeline: PipelineName) -> None:
    spec = pipeline_spec(pipeline)
    inputs = spec.root.input_definitions.parameters
    arrived = {(task, name) for task, name, source in _arrivals(spec, spec.root.dag, {n: n for n in inputs}) if source}
    for step in STEPS_OF[pipeline]:
        for name in asked_for(step, pipeline):
            assert (step.replace("_", "-"), name) in arrived, f"{spelt(name)} of {step} reaches it from nowhere"
            assert inputs[name].description, "Kubeflow's form shows what it is"


def test_nothing_is_said_to_be_wired_that_is_not() -> None:
    train, retraining = (set(pipeline_spec(name).root.input_definitions.parameters) for name in ("train", "retrain"))
    for step, names in WIRED.items():
        assert {*names} <= options_of(step).keys(), step
    assert {*WIRED_IN_TRAIN} <= retraining - train
    assert {*PLACED} <= train & retraining
    assert not {*PLACED} & inspect.signature(run).parameters.keys()


def test_an_option_of_several_steps_is_the_same_in_all() -> None:
    known: dict[str, tuple[Any, Any]] = {}
    for step in RETRAIN_STEPS:
        for name in asked_for(step, "retrain"):
            option = options_of(step)[name]
            assert known.setdefault(name, (option.annotation, option.default)) == (option.annotation, option.default)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"precision": "fp8"}, "precision is 'fp8': input should be 'auto', 'fp32', 'bf16' or 'fp16'"),
        ({"epochs": 1.5}, "epochs is 1.5: input should be a valid integer"),
        ({"torch_compile": 1}, "torch_compile is 1: input should be a valid boolean"),
        ({"min_agreement": 97}, "min_agreement is 97.0: give a share between 0 and 1"),
        ({"calibration_images": 0}, "calibration_images is 0: int8 needs at least 1 image"),
        ({"processes": -1}, "processes is -1: give a positive number, or 0 to have it chosen"),
    ],
)
def test_from_python_options_are_of_their_type_and_range(options: dict[str, Any], says: str) -> None:
    for command in (run, retrain):
        with pytest.raises(GraftlineError) as caught:
            command("nowhere", **options)
        assert says in str(caught.value)
    with pytest.raises(TypeError, match="epoch"):
        run("nowhere", epoch=3)


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
