"""What each task asks of a cluster: processors, memory, accelerator, retries, shared memory, secrets.

A local run ignores all of it.
"""

from typing import NamedTuple

from kfp import dsl, kubernetes

# One Kubernetes secret holds the store's address and credentials under the names of the environment variables.
STORE_SECRET = "graftline-s3"
STORE_KEYS = (
    "GRAFTLINE_STORE",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_ENDPOINT_URL_S3",
    "AWS_DEFAULT_REGION",
)
# Another, which may be missing, leads to an MLflow server.
MLFLOW_SECRET = "graftline-mlflow"
MLFLOW_KEYS = ("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")


class Needs(NamedTuple):
    """What a task asks for.

    Attributes:
        title: Its name for people.
        cpu: Cores, request and limit.
        memory: Request and limit.
        gpu: Whether it gets an accelerator.
        store: Whether it gets the object store's secret.
        mlflow: Whether it gets the MLflow server's secret.
    """

    title: str
    cpu: str = "2"
    memory: str = "4Gi"
    gpu: bool = False
    store: bool = False
    mlflow: bool = False


NEEDS = {
    "version-data": Needs("Version the data", store=True),
    "augment": Needs("Choose the augmentation"),
    "select-strategy": Needs("Choose the transfer strategy", cpu="4", memory="8Gi"),
    "fine-tune": Needs("Fine-tune", cpu="4", memory="16Gi", gpu=True),
    "evaluate": Needs("Evaluate on the test images"),
    "export-onnx": Needs("Export for the edge"),
    "register-model": Needs("Register the model", store=True, mlflow=True),
}


def place(*tasks: dsl.PipelineTask) -> None:
    """Gives tasks their titles and what they need on a cluster."""
    for task in tasks:
        needs = NEEDS[task.name]
        task.set_display_name(needs.title)
        task.set_cpu_request(needs.cpu).set_cpu_limit(needs.cpu)
        task.set_memory_request(needs.memory).set_memory_limit(needs.memory)
        task.set_retry(num_retries=2, backoff_duration="30s", backoff_factor=2.0, backoff_max_duration="300s")
        if needs.gpu:
            task.set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(1)
        # Data loading workers pass batches through /dev/shm, of which a container has 64 MB by default.
        kubernetes.empty_dir_mount(task, volume_name="shm", mount_path="/dev/shm", medium="Memory", size_limit="1Gi")
        if needs.store:
            _use_secret(task, STORE_SECRET, STORE_KEYS)
        if needs.mlflow:
            _use_secret(task, MLFLOW_SECRET, MLFLOW_KEYS, optional=True)


def _use_secret(task: dsl.PipelineTask, name: str, keys: tuple[str, ...], optional: bool = False) -> None:
    kubernetes.use_secret_as_env(task, name, {key: key for key in keys}, optional=optional)
