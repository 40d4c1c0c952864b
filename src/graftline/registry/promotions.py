"""The promotion log: who made which version champion, when, why and from which run. Entries are added, never changed.

Each entry is an MLflow run of its own in the experiment `NAME promotions`, and what it says are parameters of that run.
MLflow gives every run a new id and refuses to change a parameter once written, so writers on several machines neither
wait for nor overwrite each other, in SQLite as on a server.
"""

import getpass
import os
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Literal

from mlflow.entities import Param, Run

from graftline.registry.client import Registry
from graftline.registry.versions import ensure_experiment

Event = Literal["promoted", "kept", "restored"]
REGISTERING = ".register_model.lock"  # of the workspace: one change of champion at a time
_PAGE = 1000


@dataclass(frozen=True)
class Promotion:
    """One entry of the log.

    Attributes:
        event: A version was promoted, or it was not (kept: the champion stays), or an earlier one was restored.
        version: The version it is about.
        before: The champion before; empty when there was none.
        why: In plain words.
        run: Name of the pipeline run it comes from; empty when it was done by a single command.
        who: User name, at the MLflow server when one is given there, else on the machine.
        when: In UTC.
    """

    event: Event
    version: str
    before: str
    why: str
    run: str
    who: str
    when: datetime

    @property
    def champion(self) -> str:
        """The champion after it."""
        return self.before if self.event == "kept" else self.version


def log_promotion(registry: Registry, name: str, event: Event, version: str, before: str, why: str) -> Promotion:
    """Adds an entry, with the present time, user and run.

    Args:
        registry: An open registry.
        name: Registered model's name.
        event: What happened.
        version: The version it is about.
        before: The champion before; empty when there was none.
        why: In plain words.
    """
    now = time.time_ns() // 1_000_000
    entry = Promotion(event, version, before, why, os.environ.get("GRAFTLINE_RUN", ""), _who(), _moment(now))
    said = {key: value for key, value in asdict(entry).items() if key != "when" and value}
    experiment = ensure_experiment(registry, _title(name))
    title = f"version {version} {event}"
    run = registry.client.create_run(experiment.experiment_id, start_time=now, run_name=title).info.run_id
    registry.client.log_batch(run, params=[Param(key, value) for key, value in said.items()])
    registry.client.set_terminated(run)
    return entry


def read_promotions(registry: Registry, name: str) -> list[Promotion]:
    """Returns the log of a model, oldest first; an entry whose writing was interrupted is left out."""
    experiment = registry.client.get_experiment_by_name(_title(name))
    if experiment is None:
        return []
    runs: list[Run] = []
    token = None
    while True:
        page = registry.client.search_runs(
            [experiment.experiment_id],
            max_results=_PAGE,
            order_by=["attributes.start_time ASC"],
            page_token=token,
        )
        runs += page
        token = page.token
        if not token:
            return [_entry(run) for run in runs if "event" in run.data.params]


def past_champions(registry: Registry, name: str) -> set[str]:
    """Returns the versions of a model that are or were champion, as far as the log shows; '' stands for none."""
    return {version for entry in read_promotions(registry, name) for version in (entry.before, entry.champion)}


def _entry(run: Run) -> Promotion:
    optional = {"before": "", "run": ""}  # MLflow keeps no empty parameters on every backend
    return Promotion(**{**optional, **run.data.params}, when=_moment(run.info.start_time))


def _title(name: str) -> str:
    return f"{name} promotions"  # no model's own experiment: a name holds no space


def _moment(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def _who() -> str:
    try:
        return os.environ.get("MLFLOW_TRACKING_USERNAME") or getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return f"user {os.getuid()}"
