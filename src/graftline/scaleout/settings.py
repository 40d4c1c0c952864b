"""What a cluster's pipeline tells its training task about the machines to train on, in one environment variable."""

import os

from pydantic import BaseModel, ConfigDict

VARIABLE = "GRAFTLINE_TRAINJOB"


class JobSettings(BaseModel):
    """Several machines that train together, all alike.

    Attributes:
        nodes: How many.
        image: Container image.
        resources: What each gets, by Kubernetes' names: cpu, memory, accelerators.
        node_selector: Labels of the nodes to run on.
        tolerations: Taints to run in spite of, with the fields of Kubernetes.
        store_secret: The secret with the object store's address and credentials.
        store_keys: Its keys, which are environment variables.
        shared_memory: Size of `/dev/shm`.
        cache_claim: PersistentVolumeClaim of the cache; empty means none.
        cache_path: Where it is mounted.
        environment: Further environment variables.
        time_limit: After so many seconds the job is stopped; 0 never.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    nodes: int
    image: str
    resources: dict[str, str]
    node_selector: dict[str, str] = {}
    tolerations: list[dict[str, str]] = []
    store_secret: str
    store_keys: list[str]
    shared_memory: str
    cache_claim: str = ""
    cache_path: str = ""
    environment: dict[str, str] = {}
    time_limit: int = 0


def job_settings() -> JobSettings | None:
    """Returns the machines that this task is to train on; None when it is to train itself."""
    text = os.environ.get(VARIABLE, "")
    return JobSettings.model_validate_json(text) if text else None
