"""Every component is its step with KFP artifacts for folders: same name, same parameters, same defaults."""

import inspect
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, get_origin

import pytest
from builders import draw_light_and_dark
from kfp import dsl
from kfp.dsl import OutputPath
from kfp.dsl.types import type_annotations
from registry_inputs import make_bundle, make_dataset, make_evaluation, make_model, threshold

from graftline.cluster.results import _WANTED
from graftline.components.index import read_index
from graftline.records import DataVersion, Registration, read_record
from graftline.steps import RETRAIN_STEPS, STEPS

FOLDERS = (Path, list[Path], Path | None)
CACHE_KEYS = {"code_version", "data_version", "inputs_version", "source_fingerprint"}


def component_of(step: str) -> Any:
    return getattr(import_module(f"graftline.components.{step}"), step)


def parameters_of_component(step: str) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(component_of(step).python_func).parameters)


def parameters_of_step(step: str) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(getattr(import_module(f"graftline.steps.{step}"), step)).parameters)


def is_input(parameter: inspect.Parameter) -> bool:
    return bool(type_annotations.is_artifact_wrapped_in_Input(parameter.annotation))


def is_output(parameter: inspect.Parameter) -> bool:
    annotation = parameter.annotation
    return type_annotations.is_artifact_wrapped_in_Output(annotation) or isinstance(annotation, OutputPath)


def scalars(parameters: dict[str, inspect.Parameter]) -> dict[str, tuple[type, Any]]:
    """Returns type and default of each parameter that is no folder; KFP knows a Literal as a text."""
    return {
        name: (str if get_origin(p.annotation) is Literal else p.annotation, p.default)
        for name, p in parameters.items()
        if p.annotation not in FOLDERS and not is_input(p) and not is_output(p) and name not in CACHE_KEYS
    }


@pytest.mark.parametrize("step", RETRAIN_STEPS)
def test_scalars_and_defaults_are_those_of_the_step(step: str) -> None:
    assert scalars(parameters_of_component(step)) == scalars(parameters_of_step(step))


@pytest.mark.parametrize("step", RETRAIN_STEPS)
def test_input_artifacts_are_the_folders_that_the_step_reads(step: str) -> None:
    read = [name for name, p in parameters_of_step(step).items() if p.annotation in FOLDERS and name != "out"]
    assert [name for name, p in parameters_of_component(step).items() if is_input(p)] == read


@pytest.mark.parametrize("step", RETRAIN_STEPS)
def test_cache_knows_code_data_and_every_input(step: str) -> None:
    parameters = parameters_of_component(step)
    inputs = {name for name, p in parameters.items() if is_input(p)}
    expected = {"code_version", "data_version" if inputs else "source_fingerprint"} if step in STEPS else set()
    if step == "fetch_champion":
        expected = {"code_version", "inputs_version"}
    if inputs - {"dataset"}:
        expected.add("inputs_version")
    assert CACHE_KEYS & set(parameters) == expected
    assert all(parameters[name].default is inspect.Parameter.empty for name in expected), "none may be forgotten"


class Called(Exception):
    """A step was called."""


def some(parameter: inspect.Parameter, folder: Path) -> Any:
    """Returns a value for a parameter of a component, another than its default and other ones'."""
    kind = parameter.annotation
    if isinstance(kind, OutputPath):
        return str(folder / parameter.name)
    if is_input(parameter) or is_output(parameter):
        artifact = dsl.Artifact(uri=str(folder / parameter.name))
        return [artifact] if parameter.name == "models" else artifact
    numbers = {int: 7, float: 0.25, bool: not parameter.default}
    return numbers.get(kind, f"another {parameter.name}")


@pytest.mark.parametrize("step", RETRAIN_STEPS)
def test_component_hands_every_option_to_its_step(step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def take(*arguments: Any, **options: Any) -> None:
        raise Called(options)

    monkeypatch.setattr(f"graftline.steps.{step}.{step}", take)
    given = {name: some(parameter, tmp_path) for name, parameter in parameters_of_component(step).items()}
    with pytest.raises(Called) as called:
        component_of(step).python_func(**given)
    options = {name for name, p in parameters_of_component(step).items() if p.kind is p.KEYWORD_ONLY} - CACHE_KEYS
    (taken,) = called.value.args
    assert {name: taken.get(name) for name in options} == {name: given[name] for name in options}


@pytest.mark.parametrize("step", RETRAIN_STEPS)
def test_component_bears_the_name_and_installs_nothing(step: str) -> None:
    component = component_of(step)
    assert component.python_func.__name__ == step
    container = component.component_spec.implementation.container
    assert container.image.startswith("graftline:")
    assert not any("pip install" in word for word in container.command)


def test_version_data_returns_the_version_of_a_real_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAFTLINE_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("GRAFTLINE_WORKSPACE", str(tmp_path / "work"))
    draw_light_and_dark(tmp_path / "images")
    dataset = dsl.Dataset(uri=str(tmp_path / "dataset"))
    version = component_of("version_data").python_func(
        source=str(tmp_path / "images"), dataset=dataset, code_version="c0", source_fingerprint="f0"
    )
    assert version == read_record(tmp_path / "dataset", DataVersion).version == dataset.metadata["version"]


def test_register_model_tells_where_all_lies_that_a_run_is_judged_by(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRAFTLINE_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("GRAFTLINE_WORKSPACE", str(tmp_path / "work"))
    data = make_dataset(tmp_path / "dataset")
    folders = {
        "dataset": data,
        "bundle": make_bundle(tmp_path / "bundle", data, threshold()),
        "evaluation": make_evaluation(tmp_path / "evaluation", data),
        "model": make_model(tmp_path / "model", data),
    }
    artifacts = {name: dsl.Artifact(uri=str(folder)) for name, folder in folders.items()}
    registration = dsl.Artifact(uri=str(tmp_path / "registration"))
    keys = dict.fromkeys(("code_version", "data_version", "inputs_version"), "")
    component_of("register_model").python_func(**artifacts, registration=registration, **keys)
    assert read_index(tmp_path / "registration") == {name: str(folder) for name, folder in folders.items()}
    assert read_record(tmp_path / "registration", Registration).version == registration.metadata["version"] == "1"
    assert set(_WANTED) == set(folders)
