"""The deploy folder, held against the schemas of Kubernetes.

Objects of KServe and Kubeflow have no schema in kubernetes-validate: the fields that their custom resource definitions
require are checked here by hand, and Kubeflow Trainer's runtime against the models of its SDK.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from graftline.cluster.compile import compile_pipeline
from graftline.cluster.profiles import load_profile
from graftline.pipelines.profile import Profile
from graftline.pipelines.resources import ACCESS_KEYS, MLFLOW_KEYS, STORE_KEYS

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
VERSION = "1.33"
FOLDERS = ("base", "mlflow", "trainer", "kserve", "gitops")
CUSTOM = ("InferenceService", "TrainingRuntime")
RENDERED = DEPLOY / "gitops" / "pipeline.yaml"  # made by `graftline compile`, not kept in Git


def objects(folder: Path = DEPLOY) -> Iterator[tuple[Path, dict[str, Any]]]:
    for path in sorted(folder.rglob("*.yaml")):
        if path.parent.name != "profiles" and path.name not in (RENDERED.name, "kustomization.yaml"):
            yield from ((path, one) for one in yaml.safe_load_all(path.read_text()))


def named(kind: str, name: str) -> dict[str, Any]:
    (found,) = [one for _, one in objects() if (one["kind"], one["metadata"]["name"]) == (kind, name)]
    return found


def kubernetes_objects() -> list[Any]:
    every = [(path, one) for path, one in objects() if one["kind"] not in CUSTOM]
    return [pytest.param(one, id=f"{path.parent.name}-{one['kind']}-{one['metadata']['name']}") for path, one in every]


@pytest.mark.parametrize("one", kubernetes_objects())
def test_every_object_is_what_kubernetes_takes(one: dict[str, Any]) -> None:
    kubernetes_validate.validate(one, VERSION, strict=True)


def test_a_wrong_object_would_be_found() -> None:
    wrong = {**named("Deployment", "mlflow"), "specs": {}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSION, strict=True)


@pytest.mark.parametrize("folder", FOLDERS)
def test_kustomizations_list_files_that_are_there(folder: str) -> None:
    kustomization = yaml.safe_load((DEPLOY / folder / "kustomization.yaml").read_text())
    assert (kustomization["apiVersion"], kustomization["kind"]) == ("kustomize.config.k8s.io/v1beta1", "Kustomization")
    files = {path.name for path in (DEPLOY / folder).glob("*.yaml")} - {"kustomization.yaml"}
    besides = {"secrets.example.yaml"}
    assert set(kustomization["resources"]) - {RENDERED.name} == files - besides - {RENDERED.name}


def test_nothing_secret_is_kept() -> None:
    harmless = (
        r"replace-me|s3://my-bucket/.*|https://s3\..*\.amazonaws\.com|us-east-1|http://mlflow\..*|.*:replace-me@.*"
    )
    for path, one in objects():
        if one["kind"] == "Secret":
            assert all(re.fullmatch(harmless, value) for value in one["stringData"].values()), path


def test_secrets_have_the_names_and_keys_that_the_tasks_ask_for() -> None:
    profile = Profile()
    assert set(named("Secret", profile.store.secret)["stringData"]) == {*STORE_KEYS, *ACCESS_KEYS}
    assert set(named("Secret", profile.mlflow.secret)["stringData"]) == set(MLFLOW_KEYS)
    claims = {load_profile(str(path)).cache.claim for path in (DEPLOY / "profiles").glob("*.yaml")}
    assert claims - {""} == {named("PersistentVolumeClaim", "graftline-cache")["metadata"]["name"]}


def test_the_launcher_reads_credentials_that_are_there() -> None:
    """Field names: `S3ProviderConfig` of the launcher in kubeflow/pipelines."""
    default = yaml.safe_load(named("ConfigMap", "kfp-launcher")["data"]["providers"])["s3"]["default"]
    assert set(default) <= {"endpoint", "region", "disableSSL", "forcePathStyle", "maxRetries", "credentials"}
    reference = default["credentials"]["secretRef"]
    secret = named("Secret", reference["secretName"])["stringData"]
    assert {reference["accessKeyKey"], reference["secretKeyKey"]} <= set(secret)


def test_rights_are_few_and_bound_to_their_accounts() -> None:
    accounts = {"graftline-submitter": "graftline-submitter", "graftline-runner": "graftline-runner"}
    for name, account in {**accounts, "graftline-trainer": "graftline-runner"}.items():
        role, binding = named("Role", name), named("RoleBinding", name)
        assert named("ServiceAccount", account)
        assert (binding["roleRef"]["name"], binding["subjects"][0]["name"]) == (name, account)
        for rule in role["rules"]:
            assert "*" not in [*rule["verbs"], *rule["resources"], *rule["apiGroups"]]
            if "secrets" in rule["resources"]:
                assert rule["resourceNames"], "only the secrets it needs"
                assert rule["verbs"] == ["get"]
    assert not [one for _, one in objects() if one["kind"] in ("ClusterRole", "ClusterRoleBinding")]


def pod_templates() -> list[Any]:
    return [
        pytest.param(one["spec"]["template"]["spec"], id=one["metadata"]["name"])
        for _, one in objects()
        if "template" in one.get("spec", {}) and one["kind"] not in CUSTOM
    ]


@pytest.mark.parametrize("pod", pod_templates())
def test_pods_keep_to_the_restricted_standard(pod: dict[str, Any]) -> None:
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/"""
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault"
    mounted = {volume["name"] for volume in pod["volumes"]} | {"data"}
    for container in pod["containers"]:
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert container["resources"]["limits"]["memory"]
        assert {mount["name"] for mount in container["volumeMounts"]} <= mounted
        assert re.search(r":[\d.]+", container["image"]), "a version, not `latest`"


def test_the_training_runtime_is_what_kubeflow_trainer_takes() -> None:
    from kubeflow_trainer_api.models import TrainerV1alpha1TrainingRuntime

    runtime = named("TrainingRuntime", "graftline")
    read = TrainerV1alpha1TrainingRuntime.from_dict(runtime)
    assert read and read.to_dict() == runtime, "a field that runtimes have not"
    (job,) = runtime["spec"]["template"]["spec"]["replicatedJobs"]
    pod = job["template"]["spec"]["template"]["spec"]
    assert named("ServiceAccount", pod["serviceAccountName"])
    assert pod["securityContext"]["runAsNonRoot"]
    (container,) = pod["containers"]
    assert (job["name"], container["name"]) == ("node", "node"), "the names that Kubeflow Trainer looks for"
    assert container["securityContext"]["allowPrivilegeEscalation"] is False


def test_services_find_their_pods() -> None:
    labels = [
        one["spec"]["template"]["metadata"]["labels"]
        for _, one in objects()
        if "template" in one.get("spec", {}) and one["kind"] not in CUSTOM
    ]
    selectors = [one["spec"]["selector"] for _, one in objects() if one["kind"] == "Service"]
    selectors += [one["spec"]["podSelector"]["matchLabels"] for _, one in objects() if one["kind"] == "NetworkPolicy"]
    assert selectors
    assert all(selector in labels for selector in selectors)


def test_the_inference_service_has_what_kserve_requires() -> None:
    """Required by hand: predictor with a model of a format; protocol v2, without which KServe finds no ONNX runtime."""
    service = named("InferenceService", "solar-cells")
    assert service["apiVersion"] == "serving.kserve.io/v1beta1"
    predictor = service["spec"]["predictor"]
    model = predictor["model"]
    assert (model["modelFormat"]["name"], model["protocolVersion"]) == ("onnx", "v2")
    assert model["storageUri"].startswith("s3://")
    account = named("ServiceAccount", predictor["serviceAccountName"])
    secret = named("Secret", account["secrets"][0]["name"])
    assert {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"} == set(secret["stringData"])
    assert "serving.kserve.io/s3-endpoint" in secret["metadata"]["annotations"]


def test_the_pipelines_objects_have_what_their_definitions_allow(tmp_path: Path) -> None:
    """By hand, after the definitions in kubeflow/pipelines: a version must have pipelineSpec, names are DNS names."""
    profile = str(DEPLOY / "profiles" / "gke-a100.yaml")
    out = compile_pipeline(tmp_path / "pipeline.yaml", profile=profile, format="manifest", namespace="graftline")
    pipeline, version = yaml.safe_load_all(out.read_text())
    assert set(pipeline["spec"]) <= {"description", "displayName"}
    allowed = {"description", "displayName", "pipelineName", "pipelineSpec", "pipelineSpecURI", "platformSpec"}
    assert set(version["spec"]) <= allowed
    assert {"pipelineSpec", "pipelineName"} <= set(version["spec"])
    for one in (pipeline, version):
        assert re.fullmatch(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?", one["metadata"]["name"])
    assert out.stat().st_size < 1_000_000, "etcd takes objects of up to 1.5 MB"
