"""Commands for schedules on a cluster. All times are UTC: Kubeflow Pipelines knows no other.

A schedule runs one version of a pipeline with fixed arguments, one run at a time, and never makes up for missed times.
Kubeflow Pipelines cannot change a schedule; what is wanted is therefore kept as a hash in its description, and a
changed schedule is put in the place of the old one at a moment when neither is due.
"""

import difflib
import hashlib
import json
import secrets
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from graftline.cluster.compile import Documents, compiled, settings_of, version_name
from graftline.cluster.cron import fires_between, six_fields
from graftline.cluster.server import CONNECTION, Cluster, ClusterError, connected
from graftline.cluster.submit import Promotion, arguments_of, show_rows, start_run
from graftline.options import Options, Value, with_options_of
from graftline.progress import say
from graftline.wiring import PipelineName, options_of

_EXPERIMENT = "graftline"
_QUIET = timedelta(seconds=60)
_LONGEST_WAIT_SECONDS = 180
_MARK = "graftline "


@with_options_of(options_of("retrain"), CONNECTION, without=("promote",))  # which depends on the pipeline
def create(
    schedule: str,
    source: str,
    *,
    cron: str = "",
    pipeline: PipelineName = "retrain",
    promote: Promotion = "auto",
    profile: str = "",
    image: str = "",
    gpus: int = -1,
    nodes: int = 0,
    service_account: str = "",
    **options: Value,
) -> str:
    """Creates a schedule, or replaces a changed one.

    Args:
        schedule: Its name.
        source: Images, as for `graftline submit`.
        cron: When, in UTC: "0 3 * * 1" is every Monday at 3:00; a sixth field in front is for seconds.
        pipeline: retrain ends early when nothing has changed; train runs every step each time.
        promote: What it takes a retrained model to become champion: to be better beyond chance (auto), or not worse.
        profile: YAML file with what the steps get on the cluster; empty means the defaults.
        image: Container image of every step; empty means the profile's.
        gpus: Accelerators of the steps that use them, 0 to train on processors; -1 means the profile's.
        nodes: Machines that fine_tune trains on together, through Kubeflow Trainer; 0 means the profile's.
        service_account: Kubernetes service account of the runs' pods; empty means the cluster's default.

    Returns:
        What was done. The same call again does nothing.

    Raises:
        GraftlineError: The expression or the profile is wrong, or the cluster refuses or does not answer.
    """
    times = six_fields(cron)
    _, documents = compiled(settings_of(profile, image, gpus, nodes), pipeline)
    parameters = arguments_of(documents, source, promote, options)
    wanted = {"cron_expression": times, "params": parameters, "service_account": service_account or None}
    text = json.dumps([wanted, version_name(documents)], sort_keys=True)
    mark = _MARK + hashlib.sha256(text.encode()).hexdigest()[:16]
    cluster = connected(options)
    known = _named(cluster, schedule)
    same = [one for one in known if one.description == mark]
    if same and len(known) == 1:
        return f"{schedule} is as it should be: {times} (UTC){'' if _enabled(same[0]) else ', paused'}"
    others = [one for one in known if one not in same[:1]]
    enabled = not known or any(map(_enabled, known))
    _wait_until_quiet([times, *map(_times, others)] if others else [])
    if not same:
        wanted |= _upload(cluster, documents)
        _create(cluster, wanted | {"job_name": schedule, "description": mark, "enabled": enabled})
    elif enabled:
        cluster.call(cluster.client.enable_recurring_run, same[0].recurring_run_id)
    for one in others:
        cluster.call(cluster.client.delete_recurring_run, one.recurring_run_id)
    return f"{schedule} {'replaced' if others else 'created'}: {times} (UTC){'' if enabled else ', still paused'}"


@with_options_of(CONNECTION)
def listing(**options: Value) -> None:
    """Lists the schedules on a cluster."""
    cluster = connected(options)
    rows = []
    for one in _all(cluster):
        reference = one.pipeline_version_reference
        version = reference.pipeline_version_id if reference else ""
        rows.append((one.display_name, _times(one), "on" if _enabled(one) else "paused", version or ""))
    show_rows(("schedule", "cron (UTC)", "state", "pipeline version"), rows)


@with_options_of(CONNECTION)
def pause(schedule: str, **options: Value) -> str:
    """Stops a schedule from starting runs; those that run go on.

    Args:
        schedule: Its name.

    Returns:
        That it is paused.
    """
    _call_on(schedule, "disable_recurring_run", options)
    return f"{schedule} is paused"


@with_options_of(CONNECTION)
def resume(schedule: str, **options: Value) -> str:
    """Lets a paused schedule start runs again, from its next time on.

    Args:
        schedule: Its name.

    Returns:
        That it is on.
    """
    found = _call_on(schedule, "enable_recurring_run", options)
    return f"{schedule} is on: {_times(found[-1])} (UTC)"


@with_options_of(CONNECTION)
def run_now(schedule: str, **options: Value) -> str:
    """Starts a run of a schedule at once, whatever its times.

    Args:
        schedule: Its name.

    Returns:
        The run and its page.
    """
    cluster = connected(options)
    one = _existing(cluster, schedule)[0]
    run_id = start_run(
        cluster,
        f"{schedule}-now-{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}",
        _EXPERIMENT,
        pipeline_id=one.pipeline_version_reference.pipeline_id,
        version_id=one.pipeline_version_reference.pipeline_version_id,
        params=one.runtime_config.parameters or {},
        service_account=one.service_account or None,
    )
    return f"run      {run_id}\nlink     {cluster.link('runs', run_id)}"


@with_options_of(CONNECTION)
def delete(schedule: str, **options: Value) -> str:
    """Deletes a schedule; its runs stay.

    Args:
        schedule: Its name.

    Returns:
        That it is gone.
    """
    _call_on(schedule, "delete_recurring_run", options)
    return f"{schedule} is deleted"


def _all(cluster: Cluster) -> list[Any]:
    listed = cluster.pages(cluster.client.list_recurring_runs, "recurring_runs", namespace=cluster.namespace)
    return sorted(listed, key=lambda one: str(one.display_name))


def _named(cluster: Cluster, schedule: str) -> list[Any]:
    return [one for one in _all(cluster) if one.display_name == schedule]


def _existing(cluster: Cluster, schedule: str) -> list[Any]:
    every = _all(cluster)
    found = [one for one in every if one.display_name == schedule]
    if not found:
        close = difflib.get_close_matches(schedule, [one.display_name for one in every], n=1)
        hint = f": did you mean {close[0]!r}?" if close else "; see `graftline schedule list`"
        raise ClusterError(f"there is no schedule {schedule!r}{hint}")
    return found


def _call_on(schedule: str, method: str, options: Options) -> list[Any]:
    """Calls a method of kfp's client on all schedules of that name, and returns them."""
    cluster = connected(options)
    found = _existing(cluster, schedule)
    for one in found:
        cluster.call(getattr(cluster.client, method), one.recurring_run_id)
    return found


def _times(one: Any) -> str:
    """Returns a schedule's cron expression; those of others may have none."""
    cron = one.trigger.cron_schedule if one.trigger else None
    return str(cron.cron) if cron else ""


def _enabled(one: Any) -> bool:
    return str(one.status or one.mode or "").startswith("ENABLE")


def _wait_until_quiet(crons: list[str]) -> None:
    """Waits for a moment when none of the expressions has been due lately or will be soon.

    The new schedule and the old one stand side by side for a moment; a time in that moment would start two runs.
    """
    until = time.monotonic() + _LONGEST_WAIT_SECONDS
    while any(_busy(cron) for cron in crons if cron):
        if time.monotonic() > until:
            say("the schedule is due every other minute: a run may start twice while it is replaced")
            return
        say("the schedule is due just now: waiting, so that no run is missed or starts twice")
        time.sleep(20)


def _busy(cron: str) -> bool:
    now = datetime.now(UTC)
    return fires_between(cron, now - _QUIET, now + _QUIET)


def _create(cluster: Cluster, wanted: dict[str, Any]) -> None:
    client = cluster.client
    experiment = cluster.call(client.create_experiment, _EXPERIMENT, namespace=cluster.namespace).experiment_id
    cluster.call(client.create_recurring_run, experiment, max_concurrency=1, no_catchup=True, **wanted)


def _upload(cluster: Cluster, documents: Documents) -> dict[str, str]:
    """Makes sure that the cluster has this version of the pipeline, and returns both ids."""
    client, name, version = cluster.client, documents[0]["pipelineInfo"]["name"], version_name(documents)
    pipelines = cluster.pages(client.list_pipelines, "pipelines", namespace=cluster.namespace)
    found = [one.pipeline_id for one in pipelines if one.display_name == name]
    with tempfile.TemporaryDirectory(prefix="graftline-") as folder:
        package = Path(folder) / "pipeline.yaml"
        package.write_text(yaml.safe_dump_all(documents), encoding="utf-8")
        options = {"pipeline_name": name, "namespace": cluster.namespace}
        pipeline = found[0] if found else cluster.call(client.upload_pipeline, str(package), **options).pipeline_id
        versions = cluster.pages(client.list_pipeline_versions, "pipeline_versions", pipeline_id=pipeline)
        known = [one.pipeline_version_id for one in versions if one.display_name == version]
        uploaded = known or [
            cluster.call(client.upload_pipeline_version, str(package), version, pipeline).pipeline_version_id
        ]
    return {"pipeline_id": pipeline, "version_id": uploaded[0]}
