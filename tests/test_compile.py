"""The pipeline for a cluster: both documents are valid, every reference leads somewhere, every need is stated."""

import inspect
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

from graftline.errors import GraftlineError
from graftline.orchestration import STEPS
from graftline.orchestration.code_version import code_version
from graftline.orchestration.compile import compile_pipeline

IMAGE = "registry.example/graftline@sha256:" + "0" * 64
EXECUTORS = {f"exec-{step.replace('_', '-')}" for step in STEPS}


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    out = compile_pipeline(tmp_path_factory.mktemp("compiled") / "train.yaml", image=IMAGE, gpus=2)
    return list(yaml.safe_load_all(out.read_text()))


@pytest.fixture(scope="module")
def spec(documents: list[dict[str, Any]]) -> Any:
    return json_format.ParseDict(documents[0], pipeline_spec_pb2.PipelineSpec())


@pytest.fixture(scope="module")
def containers(documents: list[dict[str, Any]]) -> dict[str, Any]:
    return {name: one["container"] for name, one in documents[0]["deploymentSpec"]["executors"].items()}


@pytest.fixture(scope="module")
def on_kubernetes(documents: list[dict[str, Any]]) -> dict[str, Any]:
    platform = json_format.ParseDict(documents[1], pipeline_spec_pb2.PlatformSpec())
    parsed = json_format.MessageToDict(platform)
    return parsed["platforms"]["kubernetes"]["deploymentSpec"]["executors"]


def dangling(spec: Any) -> Iterator[str]:
    """Yields every reference of a pipeline that leads nowhere."""
    executors = json_format.MessageToDict(spec.deployment_spec)["executors"]
    for name, component in spec.components.items():
        if component.executor_label not in executors:
            yield f"{name} has no executor {component.executor_label}"
    tasks = spec.root.dag.tasks
    for name, task in tasks.items():
        component = spec.components.get(task.component_ref.name)
        if component is None:
            yield f"{name} has no component {task.component_ref.name}"
            continue
        yield from (f"{name} waits for {other}" for other in task.dependent_tasks if other not in tasks)
        yield from _dangling_inputs(spec, name, task, component)
    for key, output in spec.root.dag.outputs.artifacts.items():
        for selector in output.artifact_selectors:
            if not _makes(spec, selector.producer_subtask, selector.output_artifact_key):
                yield f"output {key} comes from {selector.producer_subtask}.{selector.output_artifact_key}"


def _dangling_inputs(spec: Any, name: str, task: Any, component: Any) -> Iterator[str]:
    wanted, given = component.input_definitions, task.inputs
    for key, source in given.artifacts.items():
        made = source.task_output_artifact
        if key not in wanted.artifacts:
            yield f"{name} takes no artifact {key}"
        if not _makes(spec, made.producer_task, made.output_artifact_key):
            yield f"{name}.{key} comes from {made.producer_task}.{made.output_artifact_key}"
    for key, source in given.parameters.items():
        made = source.task_output_parameter
        if source.component_input_parameter and source.component_input_parameter not in (
            spec.root.input_definitions.parameters
        ):
            yield f"{name}.{key} comes from no parameter {source.component_input_parameter}"
        if made.producer_task and not _makes(spec, made.producer_task, made.output_parameter_key):
            yield f"{name}.{key} comes from {made.producer_task}.{made.output_parameter_key}"
    needed = {key for key, p in wanted.parameters.items() if not p.is_optional} | set(wanted.artifacts)
    yield from (f"{name} lacks {key}" for key in needed - set(given.parameters) - set(given.artifacts))


def _makes(spec: Any, task: str, key: str) -> bool:
    if task not in spec.root.dag.tasks:
        return False
    component = spec.components[spec.root.dag.tasks[task].component_ref.name]
    return key in component.output_definitions.artifacts or key in component.output_definitions.parameters


def test_every_reference_leads_somewhere(spec: Any) -> None:
    assert list(dangling(spec)) == []
    assert {name.replace("-", "_") for name in spec.root.dag.tasks} == set(STEPS)


def test_a_dangling_reference_would_be_found(documents: list[dict[str, Any]]) -> None:
    text = yaml.safe_dump(documents[0])
    for old, new in (
        ("name: comp-augment", "name: comp-nothing"),
        ("outputArtifactKey: policy", "outputArtifactKey: nothing"),
        ("producerTask: version-data", "producerTask: nothing"),
        ("executorLabel: exec-evaluate", "executorLabel: exec-nothing"),
        ("componentInputParameter: seed", "componentInputParameter: nothing"),
    ):
        assert old in text
        broken = json_format.ParseDict(yaml.safe_load(text.replace(old, new)), pipeline_spec_pb2.PipelineSpec())
        assert list(dangling(broken)), old


def test_no_task_takes_its_output_for_anothers(spec: Any) -> None:
    """Each task's cache key holds the hash of every record it reads: KFP's own holds only the artifacts' names."""
    for name, task in spec.root.dag.tasks.items():
        producers = {source.task_output_artifact.producer_task for source in task.inputs.artifacts.values()}
        hashed = {source.task_output_parameter.producer_task for source in task.inputs.parameters.values()} - {""}
        carried = {"fine-tune": {"augment"}}  # the plans' record holds the policy's hash
        assert producers - hashed == carried.get(name, set()), name


def test_every_task_runs_the_image_by_its_digest(containers: dict[str, Any]) -> None:
    assert set(containers) == EXECUTORS
    assert {container["image"] for container in containers.values()} == {IMAGE}


def test_every_task_has_requests_limits_retries_and_a_title(spec: Any, containers: dict[str, Any]) -> None:
    for container in containers.values():
        resources = container["resources"]
        assert resources["resourceCpuRequest"] == resources["resourceCpuLimit"]
        assert resources["resourceMemoryRequest"] == resources["resourceMemoryLimit"]
    for name, task in spec.root.dag.tasks.items():
        assert task.retry_policy.max_retry_count == 2
        assert task.retry_policy.backoff_duration.seconds == 30
        assert task.caching_options.enable_cache
        assert task.task_info.name != name


def test_only_fine_tune_asks_for_accelerators(containers: dict[str, Any]) -> None:
    asked = {name: one["resources"].get("accelerator") for name, one in containers.items()}
    accelerator = asked.pop("exec-fine-tune")
    assert (accelerator["resourceType"], accelerator["resourceCount"]) == ("nvidia.com/gpu", "2")
    assert set(asked.values()) == {None}


def test_shared_memory_and_secrets(on_kubernetes: dict[str, Any]) -> None:
    assert set(on_kubernetes) == EXECUTORS
    for executor in on_kubernetes.values():
        (mount,) = executor["emptyDirMounts"]
        assert (mount["mountPath"], mount["medium"]) == ("/dev/shm", "Memory")
    with_store = {name for name, one in on_kubernetes.items() if "AWS_SECRET_ACCESS_KEY" in str(one)}
    assert with_store == {"exec-version-data", "exec-register-model"}, "no task gets a secret it does not need"
    names = {entry["secretName"] for one in on_kubernetes.values() for entry in one.get("secretAsEnv", [])}
    assert names == {"graftline-s3", "graftline-mlflow"}


def test_code_version_is_baked_in_and_defaults_are_the_steps(spec: Any) -> None:
    inputs = spec.root.input_definitions.parameters
    assert inputs["code_version"].default_value.string_value == code_version()
    for step in STEPS:
        function = getattr(import_module(f"graftline.steps.{step}"), step)
        for name, parameter in inspect.signature(function).parameters.items():
            if name in inputs and parameter.default is not parameter.empty:
                default = inputs[name].default_value
                assert parameter.default in (default.string_value, default.number_value), (step, name)


def test_cluster_without_accelerators_and_other_kinds(tmp_path: Path) -> None:
    plain = compile_pipeline(tmp_path / "cpu.yaml", gpus=0).read_text()
    assert "accelerator" not in plain
    assert "resourceType: amd.com/gpu" in compile_pipeline(tmp_path / "amd.yml", gpu_type="amd.com/gpu").read_text()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"out": Path("train.json")}, "must end in .yaml"),
        ({"out": Path("t.yaml"), "gpus": -1}, "--gpus -1 is negative"),
        ({"out": Path("t.yaml"), "image": "a b"}, "holds a space"),
    ],
)
def test_mistakes_are_named(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(GraftlineError, match=says):
        compile_pipeline(**arguments)
