"""Kubeflow Trainer: training jobs of several machines, through its SDK. The only code that knows the SDK."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from graftline.errors import GraftlineError
from graftline.scaleout.node import SECRETS
from graftline.scaleout.settings import JobSettings

RUNTIME = "graftline"  # deploy/trainer/runtime.yaml
_CONTAINER = "node"  # as Kubeflow Trainer calls the container that trains, and its job
_SECRETS_PATH = "/etc/graftline/store"
_REFUSED = frozenset({401, 403})
_NOT_FOUND, _EXISTS = 404, 409


class TrainJobError(GraftlineError):
    """Kubeflow Trainer is not there, refuses, or its job failed."""


class TrainerAwayError(TrainJobError):
    """Kubernetes does not answer just now."""

    may_pass = True


@dataclass(frozen=True)
class Job:
    """How a training job is doing.

    Attributes:
        state: "Created", "Running", "Complete" or "Failed".
        pods: The pod of each machine, by its number: name and phase.
    """

    state: str
    pods: dict[int, tuple[str, str]]


class Trainer:
    """Kubeflow Trainer in the namespace of this pod, or of kubectl's configuration.

    Raises:
        TrainJobError: The SDK is not installed, or there is no cluster.
    """

    def __init__(self) -> None:
        try:
            from kubeflow.trainer import TrainerClient
        except ImportError:
            raise TrainJobError("several nodes need Kubeflow Trainer's SDK: pip install 'graftline[trainer]'") from None
        from kubernetes.config import ConfigException

        # It warns that it cannot read the version of Kubeflow Trainer, for which our account has no right.
        logging.getLogger("kubeflow").setLevel(logging.ERROR)
        try:
            self._client = TrainerClient()
        except ConfigException as error:
            raise TrainJobError(f"there is no cluster for several nodes: {error}") from error
        self.namespace = str(self._client.backend.namespace)

    def create(self, name: str, settings: JobSettings, command: list[str]) -> None:
        """Creates a job; one of that name is taken for it, as when the answer to an earlier call was lost.

        Args:
            name: Its name.
            settings: Its machines.
            command: What runs on each.

        Raises:
            TrainJobError: Kubernetes refuses, or does not answer.
        """
        from kubeflow.trainer import CustomTrainerContainer
        from kubeflow.trainer.options import ActiveDeadlineSeconds, Name, TrainerCommand

        trainer = CustomTrainerContainer(
            image=settings.image,
            num_nodes=settings.nodes,
            resources_per_node=settings.resources,
            env={**settings.environment, SECRETS: _SECRETS_PATH},
        )
        options = [Name(name), TrainerCommand(command), _patch(settings)]
        if settings.time_limit:
            options.append(ActiveDeadlineSeconds(settings.time_limit))
        try:
            self._call(self._client.train, runtime=RUNTIME, trainer=trainer, options=options)
        except _AnswerError as answer:
            if answer.status != _EXISTS:
                raise self._explained(answer, "apply deploy/trainer, which has its runtime") from answer

    def job(self, name: str) -> Job | None:
        """Returns how a job is doing; None when there is none of that name."""
        try:
            found = self._call(self._client.get_job, name)
        except _AnswerError as answer:
            if answer.status == _NOT_FOUND:
                return None
            raise self._explained(answer, f"see `kubectl get trainjob {name}`") from answer
        pods = {int(step.name.rpartition("-")[2]): (step.pod_name, str(step.status)) for step in found.steps}
        return Job(found.status, pods)

    def log(self, name: str, number: int) -> list[str]:
        """Returns the lines that a machine's container has written; none as long as it has not started."""
        try:
            return list(self._call(lambda: list(self._client.get_job_logs(name, step=f"{_CONTAINER}-{number}"))))
        except (_AnswerError, TrainerAwayError):
            return []

    def delete(self, name: str) -> None:
        """Deletes a job and its pods; they get SIGTERM. None of that name is no error."""
        try:
            self._call(self._client.delete_job, name)
        except _AnswerError as answer:
            if answer.status != _NOT_FOUND:
                raise self._explained(answer, f"delete it: kubectl delete trainjob {name}") from answer

    def _explained(self, answer: "_AnswerError", remedy: str) -> TrainJobError:
        if answer.status in _REFUSED:
            remedy = "its account lacks the rights in deploy/trainer"
        return TrainJobError(f"Kubernetes answers {answer} in the namespace {self.namespace}: {remedy}")

    def _call(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """Calls a method of the SDK, which hides what Kubernetes answered behind a RuntimeError."""
        from kubernetes.client import ApiException

        try:
            return function(*arguments, **options)
        except (RuntimeError, TimeoutError) as error:
            cause = error.__cause__
            if isinstance(cause, ApiException) and cause.status and cause.status < 500 and cause.status != 429:
                raise _AnswerError(cause.status, f"{cause.status} {cause.reason}") from error
            raise TrainerAwayError(f"Kubernetes does not answer ({error})") from error


class _AnswerError(Exception):
    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def _patch(settings: JobSettings) -> Any:
    """Returns what differs from the runtime in the pods: volumes and where they run."""
    from kubeflow.trainer import options

    keys = [{"key": key, "path": key} for key in settings.store_keys]
    secret = {"secretName": settings.store_secret, "items": keys, "optional": True}
    volumes: list[dict[str, Any]] = [
        {"name": "store", "secret": secret},
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": settings.shared_memory}},
    ]
    mounts = [{"name": "store", "mountPath": _SECRETS_PATH, "readOnly": True}, {"name": "shm", "mountPath": "/dev/shm"}]
    if settings.cache_claim:
        volumes.append({"name": "cache", "persistentVolumeClaim": {"claimName": settings.cache_claim}})
        mounts.append({"name": "cache", "mountPath": settings.cache_path})
    pod = options.PodSpecPatch(
        volumes=volumes,
        containers=[options.ContainerPatch(name=_CONTAINER, volume_mounts=mounts)],
        node_selector=settings.node_selector or None,
        tolerations=settings.tolerations or None,
    )
    job = options.JobTemplatePatch(spec=options.JobSpecPatch(template=options.PodTemplatePatch(spec=pod)))
    jobs = options.JobSetSpecPatch(replicated_jobs=[options.ReplicatedJobPatch(name=_CONTAINER, template=job)])
    template = options.JobSetTemplatePatch(spec=jobs)
    return options.RuntimePatch(training_runtime_spec=options.TrainingRuntimeSpecPatch(template=template))
