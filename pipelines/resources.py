"""Gives each task what it gets on a cluster, by the profile in force; a local run asks for nothing.

KFP builds a pipeline when its function is called: `with cluster(profile):` holds for the pipelines built in the block.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from kfp import dsl, kubernetes

from graftline.components.image import IMAGE
from graftline.components.task import TRY, TRY_ON_POD
from graftline.pipelines.profile import Profile, Requests, Step, Toleration
from graftline.scaleout.settings import VARIABLE, JobSettings
from graftline.steps import TABLE

STORE_KEYS = ("GRAFTLINE_STORE",)
# Missing where pods get their rights from the cloud, or where the store is the cloud's own.
ACCESS_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL_S3", "AWS_DEFAULT_REGION")
MLFLOW_KEYS = ("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")

_TRAINS = "fine_tune"
# What a task gets that only waits for the machines that train.
_WAITS = Requests(cpu="500m", memory="2Gi")
_PROFILE: ContextVar[Profile | None] = ContextVar("profile", default=None)


@contextmanager
def cluster(profile: Profile) -> Iterator[None]:
    """Puts a profile in force for the pipelines that are built in the block."""
    token = _PROFILE.set(profile)
    try:
        yield
    finally:
        _PROFILE.reset(token)


def at_a_time() -> int | None:
    """Returns how many tasks of a loop run at a time: all (None) on a cluster, one on a machine that it needs whole."""
    return None if _PROFILE.get() else 1


def place(*tasks: dsl.PipelineTask) -> None:
    """Gives tasks their titles and, where a profile is in force, what they get on the cluster."""
    profile = _PROFILE.get()
    for task in tasks:
        step = _name(task)
        task.set_display_name(TABLE[step].title)
        if profile:
            _set_resources(task, profile)
            _set_pod(task, profile)
            _set_access(task, profile)
            if step == _TRAINS and profile.nodes > 1:
                _hand_over(task, profile)


def _name(task: dsl.PipelineTask) -> str:
    """Returns the name of a task's step; KFP writes it with dashes."""
    return str(task.name).replace("-", "_")


def _set_resources(task: dsl.PipelineTask, profile: Profile) -> None:
    name, retries = _name(task), profile.retries
    step = profile.steps[name]
    if name == _TRAINS and profile.nodes > 1:
        step = Step(requests=_WAITS, time_limit=step.time_limit)
    requests, limits = step.requests, step.limits
    task.set_container_image(profile.image or IMAGE)
    task.set_cpu_request(requests.cpu).set_cpu_limit(limits.cpu or requests.cpu)
    task.set_memory_request(requests.memory).set_memory_limit(limits.memory or requests.memory)
    if retries.count:
        task.set_retry(retries.count, f"{retries.wait}s", retries.factor, f"{retries.longest_wait}s")
    if TABLE[name].fresh:
        task.set_caching_options(False)
    if step.time_limit:
        kubernetes.set_timeout(task, step.time_limit)
    if step.gpu and profile.gpu.count:
        task.set_accelerator_type(profile.gpu.type).set_accelerator_limit(profile.gpu.count)
        _set_nodes(task, profile.gpu.node_selector, profile.gpu.tolerations)


def _hand_over(task: dsl.PipelineTask, profile: Profile) -> None:
    """Tells the training task which machines to train on; each gets what the task would have got."""
    step, gpu, cache = profile.steps[_TRAINS], profile.gpu, profile.cache
    accelerators = {gpu.type: str(gpu.count)} if step.gpu and gpu.count else {}
    limits = {"cpu": step.limits.cpu or step.requests.cpu, "memory": step.limits.memory or step.requests.memory}
    tolerations = [*profile.tolerations, *(gpu.tolerations if accelerators else [])]
    weights = {"GRAFTLINE_WEIGHTS": f"{cache.path}/{cache.weights}"} if cache.claim and cache.weights else {}
    settings = JobSettings(
        nodes=profile.nodes,
        image=profile.image or IMAGE,
        resources=limits | accelerators,
        node_selector=profile.node_selector | (gpu.node_selector if accelerators else {}),
        tolerations=[{name: value for name, value in one.model_dump().items() if value} for one in tolerations],
        store_secret=profile.store.secret,
        store_keys=[*STORE_KEYS, *ACCESS_KEYS],
        shared_memory=profile.shared_memory,
        cache_claim=cache.claim,
        cache_path=cache.path,
        environment=({"GRAFTLINE_CACHE": cache.path} if cache.claim else {}) | weights,
        time_limit=step.time_limit,
    )
    task.set_env_variable(VARIABLE, settings.model_dump_json())


def _set_pod(task: dsl.PipelineTask, profile: Profile) -> None:
    _set_nodes(task, profile.node_selector, profile.tolerations)
    # A container has 64 MB of it by default.
    size = profile.shared_memory
    kubernetes.empty_dir_mount(task, volume_name="shm", mount_path="/dev/shm", medium="Memory", size_limit=size)
    cache = profile.cache
    if not (cache.claim and TABLE[_name(task)].cache):
        return
    kubernetes.mount_pvc(task, pvc_name=cache.claim, mount_path=cache.path)
    task.set_env_variable("GRAFTLINE_CACHE", cache.path)
    if cache.weights:
        task.set_env_variable("GRAFTLINE_WEIGHTS", f"{cache.path}/{cache.weights}")


def _set_nodes(task: dsl.PipelineTask, selector: dict[str, str], tolerations: list[Toleration]) -> None:
    for label, value in selector.items():
        kubernetes.add_node_selector(task, label, value)
    for toleration in tolerations:
        given = {name: value for name, value in toleration.model_dump().items() if value}
        kubernetes.add_toleration(task, **given)


def _set_access(task: dsl.PipelineTask, profile: Profile) -> None:
    step = TABLE[_name(task)]
    if profile.retries.count:
        kubernetes.use_field_path_as_env(task, TRY, TRY_ON_POD)
    # Where tasks are tried again, each can leave a note for its next try.
    if step.store or profile.retries.count:
        _use_secret(task, profile.store.secret, STORE_KEYS)
        _use_secret(task, profile.store.secret, ACCESS_KEYS, optional=True)
    if step.mlflow:
        _use_secret(task, profile.mlflow.secret, MLFLOW_KEYS, optional=True)
        # The promotion log names the run that it comes from.
        kubernetes.use_field_path_as_env(task, "GRAFTLINE_RUN", "metadata.labels['pipeline/runid']")


def _use_secret(task: dsl.PipelineTask, name: str, keys: tuple[str, ...], optional: bool = False) -> None:
    kubernetes.use_secret_as_env(task, name, {key: key for key in keys}, optional=optional)
