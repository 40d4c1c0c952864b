"""What a pipeline asks of a cluster: the one place of these settings, and their defaults.

`graftline compile OUT --profile FILE` reads what differs from a YAML file.
"""

import re
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, create_model

from graftline.steps import RETRAIN_STEPS

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def _like(pattern: str, example: str) -> AfterValidator:
    """Holds a text against a pattern, and shows an example to whoever misses it."""

    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError(f"write it like {example}")
        return value

    return AfterValidator(check)


def _number_as_text(value: object) -> object:
    """Lets a quantity be written as a number: YAML reads `cpu: 4` as one."""
    return str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value


def _seconds(value: object) -> object:
    """Reads "90s", "30m", "12h" or "7d" as seconds; a number is seconds already."""
    found = re.fullmatch(r"(\d+)([smhd])", value) if isinstance(value, str) else None
    if isinstance(value, str) and not found:
        raise ValueError("write it like 90s, 30m, 12h or 7d")
    return int(found[1]) * _SECONDS[found[2]] if found else value


_NAME = r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?"
# What both Kubernetes and kfp take.
_CORES, _CORES_LIKE = r"\d+(\.\d+)?|\d+m", "4, 0.5 or 500m"
_BYTES, _BYTES_LIKE = r"\d+(M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?", "16Gi or 512Mi"

Cores = Annotated[str, BeforeValidator(_number_as_text), _like(_CORES, _CORES_LIKE)]
CoresOrNone = Annotated[str, BeforeValidator(_number_as_text), _like(f"({_CORES})?", _CORES_LIKE)]
Bytes = Annotated[str, BeforeValidator(_number_as_text), _like(_BYTES, _BYTES_LIKE)]
BytesOrNone = Annotated[str, BeforeValidator(_number_as_text), _like(f"({_BYTES})?", _BYTES_LIKE)]
Seconds = Annotated[int, BeforeValidator(_seconds), Field(ge=0, lt=2**31)]
Count = Annotated[int, Field(ge=0)]
Name = Annotated[str, _like(_NAME, "my-secret")]


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Requests(_Settings):
    """What is kept free for a step.

    Attributes:
        cpu: Cores: "2", "500m".
        memory: Bytes: "4Gi".
    """

    cpu: Cores = "2"
    memory: Bytes = "4Gi"


class Limits(_Settings):
    """What a step may use.

    Attributes:
        cpu: Cores; empty means as many as requested.
        memory: Bytes; empty means as much as requested.
    """

    cpu: CoresOrNone = ""
    memory: BytesOrNone = ""


class Toleration(_Settings):
    """A taint that pods are placed in spite of, with the fields of Kubernetes.

    Attributes:
        key: The taint's key; empty with operator Exists means every taint.
        operator: Equal compares the value, Exists does not.
        value: The taint's value.
        effect: The taint's effect; empty means every effect.
    """

    key: str = ""
    operator: Literal["Equal", "Exists"] = "Equal"
    value: str = ""
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = ""


class Gpu(_Settings):
    """The accelerators of the steps that use them, and the nodes that have them.

    Attributes:
        type: Kubernetes resource name.
        count: How many a step gets; 0 trains on processors.
        node_selector: Labels of those nodes.
        tolerations: Taints of those nodes.
    """

    type: Annotated[str, _like(r"[\w.-]+/[\w.-]+", "nvidia.com/gpu")] = "nvidia.com/gpu"
    count: Count = 1
    node_selector: dict[str, str] = {}
    tolerations: list[Toleration] = []


class Step(_Settings):
    """What one step gets.

    Attributes:
        requests: What is kept free for it.
        limits: What it may use.
        gpu: Whether it gets the accelerators.
        time_limit: After so many seconds its pod is stopped and counts as failed; 0 never.
    """

    requests: Requests = Requests()
    limits: Limits = Limits()
    gpu: bool = False
    time_limit: Seconds = 0


class _Steps(_Settings):
    """What each step gets."""

    def __getitem__(self, step: str) -> Step:
        """Returns what the step of that name gets."""
        gets: Step = getattr(self, step)
        return gets


# What some get instead of the defaults.
_OWN = {
    "select_strategy": Step(requests=Requests(cpu="4", memory="8Gi")),
    "fine_tune": Step(requests=Requests(cpu="4", memory="16Gi"), gpu=True),
}
if TYPE_CHECKING:  # who reads no table
    Steps = _Steps
else:
    Steps = create_model("Steps", __base__=_Steps, **{name: (Step, _OWN.get(name, Step())) for name in RETRAIN_STEPS})


class Retries(_Settings):
    """What happens after a task has failed; after a mistake, such as one in the data, its tries end at once.

    Attributes:
        count: How often it is tried again.
        wait: Seconds before the first time.
        factor: By how much each wait is longer than the one before.
        longest_wait: Seconds, at most.
    """

    count: Count = 2
    wait: Seconds = 30
    factor: Annotated[float, Field(ge=1)] = 2.0
    longest_wait: Seconds = 300


class Cache(_Settings):
    """A volume that outlives the tasks, for decoded images, features and pretrained weights.

    Attributes:
        claim: Name of the PersistentVolumeClaim, of mode ReadWriteMany where tasks may run on several nodes; empty
            means none.
        path: Where it is mounted.
        weights: Folder in it with pretrained weights, which must be there; empty means only those in the image.
    """

    claim: Annotated[str, _like(f"({_NAME})?", "graftline-cache")] = ""
    path: Annotated[str, _like(r"/\S+", "/graftline-cache")] = "/graftline-cache"
    weights: Annotated[str, _like(r"([\w.-][\w./-]*)?", "weights, below the cache's path")] = ""


class Store(_Settings):
    """The object store.

    Attributes:
        secret: The secret with its address and credentials, under the names of the environment variables.
    """

    secret: Name = "graftline-s3"


class Mlflow(_Settings):
    """The MLflow server.

    Attributes:
        secret: The secret with its address and credentials, which may be missing.
        uri: Its address, where that is not in the secret; never with a password in it.
    """

    secret: Name = "graftline-mlflow"
    uri: Annotated[str, _like(r"(https?://[^\s@]+)?", "http://mlflow:5000, without a password")] = ""


class Profile(_Settings):
    """Everything that a pipeline asks of a cluster.

    Attributes:
        image: Container image of every step, best with its digest; empty means the tag of this version.
        gpu: The accelerators.
        node_selector: Labels of the nodes for every step.
        tolerations: Taints that every step tolerates.
        nodes: How many machines fine_tune trains on together, each with what the step gets; more than one needs
            Kubeflow Trainer and `deploy/trainer`.
        shared_memory: Size of `/dev/shm`, through which data loading workers pass batches.
        steps: What each step gets.
        store: The object store.
        mlflow: The MLflow server.
        cache: The cache volume.
        retries: What happens after a failure.
        run_time_limit: After so many seconds a whole run is stopped; 0 never.
        keep_finished: For so many seconds the pods of a finished run are kept; 0 leaves it to the cluster.
    """

    image: Annotated[str, _like(r"\S*", "registry/graftline@sha256:..., without spaces")] = ""
    gpu: Gpu = Gpu()
    node_selector: dict[str, str] = {}
    tolerations: list[Toleration] = []
    nodes: Annotated[int, Field(ge=1)] = 1
    shared_memory: Bytes = "1Gi"
    steps: Steps = Steps()
    store: Store = Store()
    mlflow: Mlflow = Mlflow()
    cache: Cache = Cache()
    retries: Retries = Retries()
    run_time_limit: Seconds = 0
    keep_finished: Seconds = 0
