"""Writes the pipelines for a Kubernetes cluster."""

import hashlib
import json
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import yaml

from graftline.cluster.profiles import load_profile
from graftline.errors import GraftlineError
from graftline.files import write_atomic
from graftline.pipelines.profile import Profile
from graftline.runs.code_version import code_version
from graftline.wiring import PipelineName

Documents = list[dict[str, Any]]


def compile_pipeline(
    out: Path,
    *,
    pipeline: PipelineName = "train",
    profile: str = "",
    image: str = "",
    gpus: int = -1,
    nodes: int = 0,
    format: Literal["pipeline", "manifest"] = "pipeline",
    namespace: str = "",
) -> Path:
    """Writes a pipeline as YAML for a Kubeflow Pipelines cluster.

    Args:
        out: The file to write, for example `train.yaml`.
        pipeline: train runs every step; retrain looks first whether there is reason to.
        profile: YAML file with what the steps get on the cluster; empty means the defaults. deploy/profiles holds
            examples.
        image: Container image of every step, best with its digest (`registry/graftline@sha256:...`); empty means the
            profile's.
        gpus: Accelerators of the steps that use them, 0 to train on processors; -1 means the profile's.
        nodes: Machines that fine_tune trains on together, each with so many accelerators, through Kubeflow Trainer; 0
            means the profile's.
        format: pipeline for the UI and the API; manifest for GitOps, as objects Pipeline and PipelineVersion that
            `kubectl apply` takes where Kubeflow Pipelines keeps its pipelines in Kubernetes.
        namespace: Namespace of these objects; empty leaves it to whoever applies them.

    Returns:
        The file written: a pipeline specification and, in a second document, what is special to Kubernetes; or the two
        objects.

    Raises:
        GraftlineError: A setting cannot be what is given for it; one line names it.
    """
    if out.suffix not in (".yaml", ".yml"):
        raise GraftlineError(f"{out} must end in .yaml: Kubeflow Pipelines takes no other name")
    settings = settings_of(profile, image, gpus, nodes)
    header, documents = compiled(settings, pipeline)
    if format == "manifest":
        documents = _objects(documents, namespace)
    write_atomic(out, header + yaml.safe_dump_all(documents, sort_keys=True))
    return out


def settings_of(profile: str, image: str = "", gpus: int = -1, nodes: int = 0) -> Profile:
    """Returns a profile with the image and the numbers of accelerators and machines that the command line names.

    Raises:
        GraftlineError: A setting cannot be what is given for it.
    """
    overrides: dict[str, Any] = {"image": image} if image else {}
    if gpus != -1:
        overrides["gpu"] = {"count": gpus}
    if nodes:
        overrides["nodes"] = nodes
    return load_profile(profile, **overrides)


def compiled(profile: Profile, pipeline: PipelineName = "train") -> tuple[str, Documents]:
    """Returns the comment at the top of KFP's file and its documents: PipelineSpec and PlatformSpec."""
    from kfp import dsl
    from kfp.compiler import Compiler

    from graftline.pipelines.resources import cluster

    config = dsl.PipelineConfig(
        ttl_seconds_after_finished=profile.keep_finished, active_deadline_seconds=profile.run_time_limit
    )
    template = getattr(import_module(f"graftline.pipelines.{pipeline}"), pipeline)
    title = template.pipeline_spec.pipeline_info.display_name
    with cluster(profile):
        built = dsl.pipeline(name=template.name, display_name=title, pipeline_config=config)(template.pipeline_func)
    parameters = {"code_version": code_version(), "tracking_uri": profile.mlflow.uri}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pipeline.yaml"
        Compiler().compile(built, str(path), pipeline_parameters=parameters)
        text = path.read_text()
    header = "".join(line for line in text.splitlines(keepends=True) if line.startswith("#"))
    return header, list(yaml.safe_load_all(text))


def version_name(documents: Documents) -> str:
    """Returns a name for compiled documents that says what they are and is another when anything in them is."""
    content = hashlib.sha256(json.dumps(documents, sort_keys=True).encode()).hexdigest()
    return f"{documents[0]['pipelineInfo']['name']}-{content[:12]}"


def _objects(documents: Documents, namespace: str) -> Documents:
    """Returns the custom resources that bring a compiled pipeline into a cluster; a version is never changed."""
    info = documents[0]["pipelineInfo"]
    place = {"namespace": namespace} if namespace else {}

    def resource(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
        metadata = {"name": name, **place}
        return {"apiVersion": "pipelines.kubeflow.org/v2beta1", "kind": kind, "metadata": metadata, "spec": spec}

    described = {"description": info.get("description", "")}
    version = {"pipelineName": info["name"], "pipelineSpec": documents[0], "platformSpec": documents[1], **described}
    return [
        resource("Pipeline", info["name"], described),
        resource("PipelineVersion", version_name(documents), version),
    ]
