"""Versions of a registered model: found by alias or by their bundle, made with their lineage, given their alias."""

import json
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from mlflow.entities import Experiment, Metric, Param
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from graftline.errors import GraftlineError
from graftline.records import FileEntry, Registration
from graftline.registry.client import Registry

CHAMPION = "champion"
BUNDLE_FOLDER, MODEL_FOLDER = "bundle", "model"
_DECISION, _OUTCOME = "decision", "registration"
_ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")  # the second is what MLflow says of an alias not set


@dataclass(frozen=True)
class RegisteredVersion:
    """One version of a registered model.

    Attributes:
        name: Registered model's name.
        version: Its version number.
        run_id: The MLflow run that holds its files.
        tags: What `graftline register_model` wrote about it, see `graftline.registry.candidate`.
    """

    name: str
    version: str
    run_id: str
    tags: dict[str, str]

    @property
    def bundle(self) -> str:
        """SHA-256 of the bundle's record; empty when graftline did not register this version."""
        return self.tags.get("bundle_sha256", "")

    @property
    def classes(self) -> list[str]:
        """Class names in the order of the outputs; empty when graftline did not register this version."""
        return json.loads(self.tags.get("classes", "[]"))

    @property
    def learned_from(self) -> list[str]:
        """Data versions that its weights were trained on, the newest first; of one that graftline registered."""
        return [self.tags["data_version"], *json.loads(self.tags.get("learned_before", "[]"))]

    @property
    def model_files(self) -> list[FileEntry]:
        """Record and weights of the model, beside the bundle; empty when they were not registered."""
        return [FileEntry.model_validate(entry) for entry in json.loads(self.tags.get("model_files", "[]"))]

    @property
    def decision(self) -> Registration | None:
        """What its registration is to come to; None before that is decided."""
        return self._registration(_DECISION)

    @property
    def outcome(self) -> Registration | None:
        """What its registration came to; None while that is not finished."""
        return self._registration(_OUTCOME)

    def _registration(self, tag: str) -> Registration | None:
        text = self.tags.get(tag)
        return Registration.model_validate_json(text) if text else None


def check_name(name: str) -> None:
    """Checks the name of a registered model.

    Raises:
        GraftlineError: It has characters that MLflow, its filters or URLs do not take.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        raise GraftlineError(
            f"the model name {name!r} is not allowed: "
            "use 1 to 100 letters, digits, '.', '_' or '-', the first a letter or digit"
        )


def champion(registry: Registry, name: str) -> RegisteredVersion | None:
    """Returns the version with the alias `champion`, None when there is no such model or alias."""
    return find_version(registry, name, CHAMPION)


def find_version(registry: Registry, name: str, alias_or_version: str) -> RegisteredVersion | None:
    """Returns one version of a registered model, None when there is none.

    Args:
        registry: An open registry.
        name: Registered model's name.
        alias_or_version: An alias or a version number.
    """
    client = registry.client
    try:
        if alias_or_version.isdigit():
            return _version(client.get_model_version(name, alias_or_version))
        return _version(client.get_model_version_by_alias(name, alias_or_version))
    except MlflowException as error:
        if error.error_code in _ABSENT:
            return None
        raise


def find_bundle(registry: Registry, name: str, bundle: str) -> RegisteredVersion | None:
    """Returns the first version made from a bundle.

    Args:
        registry: An open registry.
        name: Registered model's name.
        bundle: SHA-256 of the bundle's record.
    """
    found = registry.client.search_model_versions(f"name = '{name}' and tags.bundle_sha256 = '{bundle}'")
    return min(map(_version, found), key=lambda version: int(version.version), default=None)


def create_version(
    registry: Registry, name: str, files: Path, tags: dict[str, str], params: dict[str, str], metrics: dict[str, float]
) -> RegisteredVersion:
    """Uploads files as a finished run and makes a version of it. A failure leaves a failed run and no version.

    Args:
        registry: An open registry.
        name: Registered model's name; the model is made when there is none.
        files: Folder to upload; holds the folder `bundle`.
        tags: Of the version.
        params: Of the run.
        metrics: Of the run.
    """
    client = registry.client
    _ensure_model(registry, name)
    source = {"mlflow.source.name": "graftline register_model"}
    run = client.create_run(_experiment(registry, name), tags=source, run_name=f"{name} of {tags['data_version']}").info
    try:
        client.log_batch(
            run.run_id,
            metrics=[Metric(key, value, run.start_time, 0) for key, value in metrics.items()],
            params=[Param(key, value) for key, value in params.items()],
        )
        registry.upload(run.run_id, files)
    except BaseException:
        client.set_terminated(run.run_id, "FAILED")
        raise
    client.set_terminated(run.run_id)
    return _version(client.create_model_version(name, f"runs:/{run.run_id}/{BUNDLE_FOLDER}", run.run_id, tags))


def write_decision(registry: Registry, version: RegisteredVersion, decision: Registration) -> None:
    """Writes down what a registration is to come to, before anything is moved."""
    registry.client.set_model_version_tag(version.name, version.version, _DECISION, decision.model_dump_json())


def write_outcome(registry: Registry, version: RegisteredVersion, outcome: Registration) -> None:
    """Writes down what a registration came to: it is finished by that."""
    registry.client.set_model_version_tag(version.name, version.version, _OUTCOME, outcome.model_dump_json())


def newest_version(registry: Registry, name: str, champions: Collection[str]) -> RegisteredVersion | None:
    """Returns the newest version that graftline registered to the end, None when there is none.

    Args:
        registry: An open registry.
        name: Registered model's name.
        champions: Versions that were champion: their registration came to that, also if it could not write it down.
    """
    found = map(_version, registry.client.search_model_versions(f"name = '{name}'"))
    done = (one for one in found if one.outcome or (one.bundle and one.version in champions))
    return max(done, key=lambda version: int(version.version), default=None)


def _ensure_model(registry: Registry, name: str) -> None:
    try:
        registry.client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _experiment(registry: Registry, name: str) -> str:
    """Returns the id of the experiment that keeps its artifacts in this store; made when there is none.

    MLflow fixes an experiment's place when it is made, so a model that moves to another store gets a second experiment.
    """
    for title in (name, f"{name} in {registry.artifacts}"):
        found = ensure_experiment(registry, title)
        if found.artifact_location == registry.artifacts:
            return found.experiment_id
    raise AssertionError(f"the experiment {title} does not keep its artifacts where its name says")


def ensure_experiment(registry: Registry, title: str) -> Experiment:
    """Returns the MLflow experiment of that name; made when there is none."""
    client = registry.client
    found = client.get_experiment_by_name(title)
    if found:
        return found
    try:
        return client.get_experiment(client.create_experiment(title, registry.artifacts))
    except MlflowException as error:  # somebody else has made it meanwhile
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        return client.get_experiment_by_name(title)


def _version(found: ModelVersion) -> RegisteredVersion:
    return RegisteredVersion(found.name, str(found.version), found.run_id, dict(found.tags))
