"""The pipeline for a cluster: both documents are valid, every reference leads somewhere, every need is stated."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from compiled import graphs, loop_of, tasks_of
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

from graftline.cluster.compile import compile_pipeline
from graftline.cluster.profiles import load_profile
from graftline.errors import GraftlineError
from graftline.pipelines.profile import Profile
from graftline.runs.code_version import code_version
from graftline.steps import STEPS
from graftline.workspace import cache_folder

ROOT = Path(__file__).parents[2]
IMAGE = "registry.example/graftline@sha256:" + "0" * 64
EXECUTORS = {f"exec-{step.replace('_', '-')}" for step in STEPS}


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    out = compile_pipeline(tmp_path_factory.mktemp("compiled") / "train.yaml", image=IMAGE, gpus=2)
    return read_all(out)


def read_all(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text()))


@pytest.fixture(scope="module")
def spec(documents: list[dict[str, Any]]) -> Any:
    return json_format.ParseDict(documents[0], pipeline_spec_pb2.PipelineSpec())


@pytest.fixture(scope="module")
def containers(documents: list[dict[str, Any]]) -> dict[str, Any]:
    return containers_of(documents)


def containers_of(documents: list[dict[str, Any]]) -> dict[str, Any]:
    return {name: one["container"] for name, one in documents[0]["deploymentSpec"]["executors"].items()}


@pytest.fixture(scope="module")
def on_kubernetes(documents: list[dict[str, Any]]) -> dict[str, Any]:
    return kubernetes_of(documents)["deploymentSpec"]["executors"]


def kubernetes_of(documents: list[dict[str, Any]]) -> dict[str, Any]:
    platform = json_format.ParseDict(documents[1], pipeline_spec_pb2.PlatformSpec())
    parsed = json_format.MessageToDict(platform)
    return parsed["platforms"]["kubernetes"]


def dangling(spec: Any) -> Iterator[str]:
    """Yields every reference of a pipeline that leads nowhere."""
    executors = json_format.MessageToDict(spec.deployment_spec)["executors"]
    for name, component in spec.components.items():
        if not component.HasField("dag") and component.executor_label not in executors:
            yield f"{name} has no executor {component.executor_label}"
    for dag, inputs in graphs(spec):
        for name, task in dag.tasks.items():
            component = spec.components.get(task.component_ref.name)
            if component is None:
                yield f"{name} has no component {task.component_ref.name}"
                continue
            yield from (f"{name} waits for {other}" for other in task.dependent_tasks if other not in dag.tasks)
            yield from _dangling_inputs(spec, dag, inputs, name, task, component)
        for key, output in dag.outputs.artifacts.items():
            for selector in output.artifact_selectors:
                if not _makes(spec, dag, selector.producer_subtask, selector.output_artifact_key):
                    yield f"output {key} comes from {selector.producer_subtask}.{selector.output_artifact_key}"


def _dangling_inputs(spec: Any, dag: Any, inputs: Any, name: str, task: Any, component: Any) -> Iterator[str]:
    wanted, given = component.input_definitions, task.inputs
    for key, source in given.artifacts.items():
        made = source.task_output_artifact
        if key not in wanted.artifacts:
            yield f"{name} takes no artifact {key}"
        if source.component_input_artifact:
            if source.component_input_artifact not in inputs.artifacts:
                yield f"{name}.{key} comes from no artifact {source.component_input_artifact}"
        elif not _makes(spec, dag, made.producer_task, made.output_artifact_key):
            yield f"{name}.{key} comes from {made.producer_task}.{made.output_artifact_key}"
    for key, source in given.parameters.items():
        made = source.task_output_parameter
        if source.component_input_parameter and source.component_input_parameter not in inputs.parameters:
            yield f"{name}.{key} comes from no parameter {source.component_input_parameter}"
        if made.producer_task and not _makes(spec, dag, made.producer_task, made.output_parameter_key):
            yield f"{name}.{key} comes from {made.producer_task}.{made.output_parameter_key}"
    needed = {key for key, p in wanted.parameters.items() if not p.is_optional}
    needed |= {key for key, a in wanted.artifacts.items() if not a.is_optional}
    given_keys = {*given.parameters, *given.artifacts, task.parameter_iterator.item_input}
    yield from (f"{name} lacks {key}" for key in needed - given_keys)


def _makes(spec: Any, dag: Any, task: str, key: str) -> bool:
    if task not in dag.tasks:
        return False
    component = spec.components[dag.tasks[task].component_ref.name]
    return key in component.output_definitions.artifacts or key in component.output_definitions.parameters


def test_every_reference_leads_somewhere(spec: Any) -> None:
    assert list(dangling(spec)) == []
    assert {name.replace("-", "_") for name in tasks_of(spec)} == set(STEPS)


def test_a_dangling_reference_would_be_found(documents: list[dict[str, Any]]) -> None:
    text = yaml.safe_dump(documents[0])
    for old, new in (
        ("name: comp-augment", "name: comp-nothing"),
        ("outputArtifactKey: policy", "outputArtifactKey: nothing"),
        ("producerTask: version-data", "producerTask: nothing"),
        ("executorLabel: exec-evaluate", "executorLabel: exec-nothing"),
        ("componentInputParameter: seed", "componentInputParameter: nothing"),
        ("componentInputArtifact: pipelinechannel--select-strategy-plans", "componentInputArtifact: nothing"),
        ("outputArtifactKey: pipelinechannel--fine-tune-model", "outputArtifactKey: nothing"),
    ):
        assert old in text
        broken = json_format.ParseDict(yaml.safe_load(text.replace(old, new)), pipeline_spec_pb2.PipelineSpec())
        assert list(dangling(broken)), old


def test_no_task_takes_its_output_for_anothers(spec: Any) -> None:
    """Each task's cache key holds the hash of every record it reads: KFP's own holds only the artifacts' names."""
    (loop,) = (name for name, task in spec.root.dag.tasks.items() if task == loop_of(spec))
    for name, task in spec.root.dag.tasks.items():
        producers = {source.task_output_artifact.producer_task for source in task.inputs.artifacts.values()}
        hashed = {source.task_output_parameter.producer_task for source in task.inputs.parameters.values()} - {""}
        # The plans' record, whose hash is in each of the loop's items, holds the hashes of data and policy.
        carried = {loop: {"augment", "version-data"}}
        assert producers - hashed == carried.get(name, set()), name


def test_other_weights_at_hand_make_select_strategy_run_again(spec: Any) -> None:
    inputs = tasks_of(spec)["select-strategy"].inputs.parameters
    handed = {key for key, source in inputs.items() if source.component_input_parameter == "weights_fingerprint"}
    (name,) = handed
    assert f"inputs.parameters['{name}']" in inputs["inputs_version"].runtime_value.constant.string_value


def test_each_candidate_gets_its_rank_and_its_cache_keys_from_its_item(spec: Any) -> None:
    inputs = tasks_of(spec)["fine-tune"].inputs.parameters
    item = loop_of(spec).parameter_iterator.item_input
    from_item = {key for key, source in inputs.items() if source.component_input_parameter == item}
    assert from_item == {"rank", "data_version", "inputs_version"}
    for key in from_item:
        assert inputs[key].parameter_expression_selector == f'parseJson(string_value)["{key}"]'
    # kfp.local 2.17 puts the item in the place of every parameter that another task has made.
    made = {source.task_output_parameter.producer_task for source in loop_of(spec).inputs.parameters.values()} - {""}
    assert made == {"select-strategy"}


def test_candidates_are_trained_side_by_side_on_a_cluster_and_one_by_one_here(spec: Any) -> None:
    from graftline.pipelines.train import train

    assert loop_of(spec).iterator_policy.parallelism_limit == 0
    assert loop_of(train.pipeline_spec).iterator_policy.parallelism_limit == 1


def test_the_test_images_are_read_after_the_choice(spec: Any) -> None:
    tasks = spec.root.dag.tasks
    for name in ("evaluate", "export-onnx"):
        assert tasks[name].inputs.artifacts["model"].task_output_artifact.producer_task == "choose-model"
    collected = tasks["choose-model"].inputs.artifacts["models"].task_output_artifact
    assert tasks[collected.producer_task] == loop_of(spec)


def test_every_task_runs_the_image_by_its_digest(containers: dict[str, Any]) -> None:
    assert set(containers) == EXECUTORS
    assert {container["image"] for container in containers.values()} == {IMAGE}


def test_every_task_has_requests_limits_retries_and_a_title(spec: Any, containers: dict[str, Any]) -> None:
    for container in containers.values():
        resources = container["resources"]
        assert resources["resourceCpuRequest"] == resources["resourceCpuLimit"]
        assert resources["resourceMemoryRequest"] == resources["resourceMemoryLimit"]
    for name, task in tasks_of(spec).items():
        assert task.retry_policy.max_retry_count == 2
        assert task.retry_policy.backoff_duration.seconds == 30
        # What looks at the source is never answered from the cache: only it can see that the source has changed.
        assert task.caching_options.enable_cache == (name != "version-data")
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
    with_mlflow = {name for name, one in on_kubernetes.items() if "MLFLOW_TRACKING_URI" in str(one)}
    assert with_mlflow == {"exec-register-model"}, "no task gets a secret that it does not need"
    names = {entry["secretName"] for one in on_kubernetes.values() for entry in one.get("secretAsEnv", [])}
    assert names == {"graftline-s3", "graftline-mlflow"}


def test_every_task_knows_the_name_of_its_try_and_where_to_leave_a_note(on_kubernetes: dict[str, Any]) -> None:
    for executor in on_kubernetes.values():
        names = {entry["name"]: entry["fieldPath"] for entry in executor["fieldPathAsEnv"]}
        assert names["GRAFTLINE_TRY"] == "metadata.annotations['workflows.argoproj.io/node-name']"
        assert "AWS_SECRET_ACCESS_KEY" in str(executor)


def test_without_retries_the_store_is_for_those_who_keep_something_there(tmp_path: Path) -> None:
    profile = tmp_path / "once.yaml"
    profile.write_text("retries: { count: 0 }\n")
    executors = kubernetes_of(read_all(compile_pipeline(tmp_path / "once.out.yaml", profile=str(profile))))
    with_store = {name for name, one in executors["deploymentSpec"]["executors"].items() if "AWS_SECRET" in str(one)}
    # Pretrained weights may lie there, and checkpoints.
    assert with_store == {"exec-version-data", "exec-select-strategy", "exec-fine-tune", "exec-register-model"}
    assert "GRAFTLINE_TRY" not in str(executors)


def test_code_version_is_baked_in(spec: Any) -> None:
    assert spec.root.input_definitions.parameters["code_version"].default_value.string_value == code_version()


def test_secrets_for_s3_may_lack_keys_that_a_cloud_does_not_need(on_kubernetes: dict[str, Any]) -> None:
    entries = on_kubernetes["exec-version-data"]["secretAsEnv"]
    optional = {pair["envVar"]: entry.get("optional", False) for entry in entries for pair in entry["keyToEnv"]}
    assert not optional.pop("GRAFTLINE_STORE")
    assert set(optional) == {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL_S3", "AWS_DEFAULT_REGION"}
    assert all(optional.values())


def test_a_profile_for_processors(tmp_path: Path) -> None:
    profile = str(ROOT / "deploy" / "profiles" / "cpu.yaml")
    documents = read_all(compile_pipeline(tmp_path / "cpu.yaml", profile=profile))
    containers = containers_of(documents)
    assert {container["image"] for container in containers.values()} == {"registry.example.com/graftline:0.1.0-cpu"}
    assert "accelerator" not in str(documents)
    assert containers["exec-fine-tune"]["resources"]["resourceCpuLimit"] == "8"
    platform = kubernetes_of(documents)
    assert platform["deploymentSpec"]["executors"]["exec-fine-tune"]["activeDeadlineSeconds"] == "86400"
    assert platform["pipelineConfig"] == {"activeDeadlineSeconds": 36 * 3600}


def test_a_profile_with_a_gpu_sets_everything_it_names(tmp_path: Path) -> None:
    profile = str(ROOT / "deploy" / "profiles" / "gke-a100.yaml")
    documents = read_all(compile_pipeline(tmp_path / "gpu.yaml", profile=profile, image=IMAGE))
    spec = json_format.ParseDict(documents[0], pipeline_spec_pb2.PipelineSpec())
    assert list(dangling(spec)) == []
    containers, platform = containers_of(documents), kubernetes_of(documents)
    assert {container["image"] for container in containers.values()} == {IMAGE}, "--image goes before the profile's"
    resources = containers["exec-fine-tune"]["resources"]
    assert (resources["resourceCpuRequest"], resources["resourceCpuLimit"]) == ("10", "12")
    assert resources["resourceMemoryRequest"] == resources["resourceMemoryLimit"] == "64Gi"
    assert resources["accelerator"]["resourceCount"] == "1"
    tasks = tasks_of(spec)
    assert {task.retry_policy.max_retry_count for task in tasks.values()} == {5}
    assert {task.retry_policy.backoff_max_duration.seconds for task in tasks.values()} == {600}
    assert spec.root.input_definitions.parameters["tracking_uri"].default_value.string_value.startswith("http://mlflow")
    assert platform["pipelineConfig"] == {"activeDeadlineSeconds": 172800, "resourceTtlOnCompletion": 604800}


def test_nodes_and_cache_go_to_the_steps_that_use_them(tmp_path: Path) -> None:
    profile = str(ROOT / "deploy" / "profiles" / "gke-a100.yaml")
    documents = read_all(compile_pipeline(tmp_path / "gpu.yaml", profile=profile))
    executors = kubernetes_of(documents)["deploymentSpec"]["executors"]
    assert {name for name, one in executors.items() if "nodeSelector" in one} == {"exec-fine-tune"}
    assert executors["exec-fine-tune"]["nodeSelector"]["labels"] == {
        "cloud.google.com/gke-accelerator": "nvidia-tesla-a100",
        "cloud.google.com/gke-spot": "true",
    }
    assert executors["exec-fine-tune"]["tolerations"][0] == {
        "key": "nvidia.com/gpu",
        "operator": "Equal",
        "value": "present",
        "effect": "NoSchedule",
    }
    assert {one["emptyDirMounts"][0]["sizeLimit"] for one in executors.values()} == {"8Gi"}
    cached = {"exec-version-data", "exec-select-strategy", "exec-fine-tune", "exec-evaluate", "exec-export-onnx"}
    assert {name for name, one in executors.items() if "pvcMount" in one} == cached
    (mount,) = executors["exec-evaluate"]["pvcMount"]
    assert (mount["constant"], mount["mountPath"]) == ("graftline-cache", "/graftline-cache")
    variables = {one["name"]: one["value"] for one in containers_of(documents)["exec-fine-tune"]["env"]}
    assert variables == {"GRAFTLINE_CACHE": "/graftline-cache", "GRAFTLINE_WEIGHTS": "/graftline-cache/weights"}


def test_what_a_profile_does_not_name_stays(tmp_path: Path) -> None:
    assert load_profile("") == Profile()
    path = tmp_path / "profile.yaml"
    path.write_text("steps: {fine_tune: {requests: {memory: 32Gi}}}\ntolerations: [{key: team, value: vision}]\n")
    step = load_profile(str(path)).steps.fine_tune
    assert (step.requests.cpu, step.requests.memory, step.gpu) == ("4", "32Gi", True)
    documents = read_all(compile_pipeline(tmp_path / "train.yaml", profile=str(path)))
    executors = kubernetes_of(documents)["deploymentSpec"]["executors"].values()
    assert all(one["tolerations"][0]["key"] == "team" for one in executors)


def test_decoded_images_lie_where_the_setting_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAFTLINE_CACHE", str(tmp_path / "shared"))
    assert cache_folder() == tmp_path / "shared"
    assert cache_folder().is_dir()


def test_a_local_run_asks_for_nothing() -> None:
    from graftline.pipelines.train import train

    assert not train.platform_spec.platforms
    tasks = tasks_of(train.pipeline_spec).values()
    assert all(task.caching_options.enable_cache and not task.retry_policy.max_retry_count for task in tasks)


def test_retraining_gets_the_same_settings_below_its_condition(tmp_path: Path) -> None:
    profile = str(ROOT / "deploy" / "profiles" / "gke-a100.yaml")
    documents = read_all(compile_pipeline(tmp_path / "retrain.yaml", pipeline="retrain", profile=profile, image=IMAGE))
    containers = containers_of(documents)
    assert set(containers) == {*EXECUTORS, "exec-detect-change", "exec-fetch-champion"}
    assert {container["image"] for container in containers.values()} == {IMAGE}
    assert containers["exec-fine-tune"]["resources"]["accelerator"]["resourceCount"] == "1"
    assert set(kubernetes_of(documents)["deploymentSpec"]["executors"]) == set(containers)
    spec = json_format.ParseDict(documents[0], pipeline_spec_pb2.PipelineSpec())
    assert list(dangling(spec)) == []
    cached = {name for name, task in tasks_of(spec).items() if task.caching_options.enable_cache}
    assert set(tasks_of(spec)) - cached == {"version-data", "register-model", "detect-change"}
    for task in ("select-strategy", "fine-tune"):
        assert "champion" in tasks_of(spec)[task].inputs.artifacts


def test_manifests_for_gitops(tmp_path: Path) -> None:
    out = compile_pipeline(tmp_path / "objects.yaml", image=IMAGE, format="manifest", namespace="team")
    pipeline, version = read_all(out)
    for one, kind in ((pipeline, "Pipeline"), (version, "PipelineVersion")):
        assert (one["apiVersion"], one["kind"]) == ("pipelines.kubeflow.org/v2beta1", kind)
        assert one["metadata"]["namespace"] == "team"
    assert version["spec"]["pipelineName"] == pipeline["metadata"]["name"] == "graftline-train"
    spec = json_format.ParseDict(version["spec"]["pipelineSpec"], pipeline_spec_pb2.PipelineSpec())
    assert list(dangling(spec)) == []
    json_format.ParseDict(version["spec"]["platformSpec"], pipeline_spec_pb2.PlatformSpec())
    again = read_all(compile_pipeline(tmp_path / "again.yaml", image=IMAGE, format="manifest"))
    other = read_all(compile_pipeline(tmp_path / "other.yaml", image="another", format="manifest"))
    name = version["metadata"]["name"]
    assert again[1]["metadata"] == {"name": name}, "the same content has the same name"
    assert other[1]["metadata"]["name"] != name, "a version is never changed: other content has another name"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"out": Path("train.json")}, "must end in .yaml"),
        ({"out": Path("t.yaml"), "gpus": -2}, "gpu.count is -2: give a number greater than or equal to 0"),
        ({"out": Path("t.yaml"), "image": "a b"}, "without spaces"),
        ({"out": Path("t.yaml"), "profile": "none.yaml"}, "the profile none.yaml does not exist"),
    ],
)
def test_mistakes_are_named(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(GraftlineError, match=says):
        compile_pipeline(**arguments)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("imag: x", "imag is unknown: did you mean 'image'"),
        ("steps: {fine_tun: {}}", "steps.fine_tun is unknown: did you mean 'fine_tune'"),
        ("steps: {fine_tune: {request: {}}}", "steps.fine_tune.request is unknown: did you mean 'requests'"),
        ("tolerations: [{key: a, efect: x}]", "tolerations.0.efect is unknown: did you mean 'effect'"),
        ("tolerations: [{key: a, effect: x}]", "tolerations.0.effect is 'x': give '', 'NoSchedule'"),
        ("gpu: {count: one}", "gpu.count is 'one': give a whole number"),
        ("gpu: 2", "gpu is 2: there are type, count"),
        ("steps: {fine_tune: {gpu: maybe}}", "steps.fine_tune.gpu is 'maybe': give true or false"),
        ("shared_memory: much", "shared_memory is 'much': write it like 16Gi or 512Mi"),
        ("steps: {augment: {limits: {memory: 500m}}}", "memory is '500m': write it like 16Gi or 512Mi"),
        ("steps: {augment: {requests: {memory: 64k}}}", "memory is '64k': write it like 16Gi or 512Mi"),
        ("steps: {augment: {requests: {cpu: 2Gi}}}", "cpu is '2Gi': write it like 4, 0.5 or 500m"),
        ("retries: {wait: soon}", "retries.wait is 'soon': write it like 90s"),
        ("node_selector: {spot: true}", "node_selector.spot is True: give a text"),
        ("mlflow: {uri: 'https://me:secret@host'}", "without a password"),
        ("a: [", "is not YAML"),
        ("- image", "holds no settings"),
    ],
)
def test_mistakes_in_a_profile_are_one_line(text: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "profile.yaml"
    path.write_text(text)
    with pytest.raises(GraftlineError, match=says) as caught:
        load_profile(str(path))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
