"""Writes the pipeline for a Kubernetes cluster."""

import re
import tempfile
from pathlib import Path
from typing import Any

import yaml

from graftline.errors import GraftlineError
from graftline.files import write_atomic
from graftline.orchestration.code_version import code_version


def compile_pipeline(out: Path, *, image: str = "", gpus: int = 1, gpu_type: str = "nvidia.com/gpu") -> Path:
    """Writes the pipeline as YAML for a Kubeflow Pipelines cluster.

    Args:
        out: The file to write, for example `train.yaml`.
        image: Container image of every step, best with its digest (`registry/graftline@sha256:...`); empty means the
            tag of this version.
        gpus: Accelerators that `fine_tune` asks for; 0 trains on processors.
        gpu_type: Kubernetes resource name of the accelerator.

    Returns:
        The file written: a pipeline specification and, in a second document, what is special to Kubernetes.

    Raises:
        GraftlineError: A name cannot be what it is given for.
    """
    if out.suffix not in (".yaml", ".yml"):
        raise GraftlineError(f"{out} must end in .yaml: Kubeflow Pipelines takes no other name")
    if gpus < 0:
        raise GraftlineError(f"--gpus {gpus} is negative: give 0 for a cluster without accelerators")
    if re.search(r"\s", image):
        raise GraftlineError(f"--image {image!r} holds a space: give it like registry/graftline@sha256:...")
    header, documents = _compile()
    for executor in documents[0]["deploymentSpec"]["executors"].values():
        _adapt(executor["container"], image, gpus, gpu_type)
    write_atomic(out, header + yaml.safe_dump_all(documents, sort_keys=True))
    return out


def _compile() -> tuple[str, list[dict[str, Any]]]:
    """Returns the comment at the top of KFP's file and its documents."""
    from kfp.compiler import Compiler

    from graftline.pipelines.train import train

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "train.yaml"
        Compiler().compile(train, str(path), pipeline_parameters={"code_version": code_version()})
        text = path.read_text()
    header = "".join(line for line in text.splitlines(keepends=True) if line.startswith("#"))
    return header, list(yaml.safe_load_all(text))


def _adapt(container: dict[str, Any], image: str, gpus: int, gpu_type: str) -> None:
    """Puts image and accelerator into a container's specification."""
    if image:
        container["image"] = image
    resources = container["resources"]
    if "accelerator" not in resources:
        return
    if gpus == 0:
        del resources["accelerator"]
    else:
        count = str(gpus)
        resources["accelerator"] = {"count": count, "resourceCount": count, "type": gpu_type, "resourceType": gpu_type}
