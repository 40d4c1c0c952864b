"""Commands for runs on a cluster: submit, runs, follow, logs, cancel."""

import secrets
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import yaml

from graftline.cluster.compile import Documents, compiled, settings_of
from graftline.cluster.follow import fetch_run, follow, reason, steps_of
from graftline.cluster.server import CONNECTION, Cluster, ClusterAwayError, ClusterError, connected
from graftline.options import Options, Value, read, spelt, with_options_of
from graftline.progress import say
from graftline.runs.board import step_of
from graftline.runs.checks import check_options
from graftline.runs.summary import Summary
from graftline.steps import RETRAIN_STEPS
from graftline.storage.objects import is_url, split_url
from graftline.wiring import PipelineName, options_of

Promotion = Literal["auto", "not_worse", "better"]
_FIND_AGAIN_SECONDS = (1, 2, 4, 8, 15)


@with_options_of(options_of("retrain"), CONNECTION, without=("promote",))  # which depends on the pipeline
def submit(
    source: str,
    *,
    pipeline: PipelineName = "train",
    promote: Promotion = "auto",
    wait: bool = False,
    profile: str = "",
    image: str = "",
    gpus: int = -1,
    nodes: int = 0,
    experiment: str = "graftline",
    pipeline_root: str = "",
    service_account: str = "",
    **options: Value,
) -> Summary | str:
    """Runs a whole pipeline on a Kubeflow cluster.

    Args:
        source: Images, as for `graftline run`, but where the cluster's tasks see them.
        pipeline: train runs every step; retrain looks first whether there is reason to.
        promote: What it takes a retrained model to become champion: to be better beyond chance (auto), or not worse.
        wait: Follow the run to its end, and show what it reached.
        profile: YAML file with what the steps get on the cluster; empty means the defaults.
        image: Container image of every step; empty means the profile's.
        gpus: Accelerators of the steps that use them, 0 to train on processors; -1 means the profile's.
        nodes: Machines that fine_tune trains on together, through Kubeflow Trainer; 0 means the profile's.
        experiment: The experiment that the run belongs to, created if missing.
        pipeline_root: Where the run's artifacts go, like s3://bucket/prefix; empty means the cluster's own place.
        service_account: Kubernetes service account of the run's pods; empty means the cluster's default.

    Returns:
        The run and its page; with --wait what it reached.

    Raises:
        GraftlineError: The profile is wrong, the cluster refuses or does not answer, or the run failed.
    """
    _, documents = compiled(settings_of(profile, image, gpus, nodes), pipeline)
    arguments = arguments_of(documents, source, promote, options)
    cluster = connected(options)
    place = {"pipeline_root": pipeline_root or None, "service_account": service_account or None}
    run_id = _create(cluster, documents, arguments, experiment, place)
    shown = f"run      {run_id}\nlink     {cluster.link('runs', run_id)}"
    if not wait:
        return shown
    print(shown, file=sys.stderr)
    return _result(cluster, run_id)


@with_options_of(CONNECTION)
def runs(*, limit: int = 20, **options: Value) -> None:
    """Lists the runs on a cluster, the newest first.

    Args:
        limit: How many.
    """
    cluster = connected(options)
    rows = []
    for run in cluster.pages(cluster.client.list_runs, "runs", sort_by="created_at desc", namespace=cluster.namespace):
        rows.append((run.run_id, str(run.state or "").lower(), _when(run.created_at), run.display_name or ""))
        if len(rows) == limit:
            break
    show_rows(("run", "state", "created (UTC)", "name"), rows)


@with_options_of(CONNECTION)
def follow_run(run: str, **options: Value) -> Summary | str:
    """Follows a run on a cluster to its end, as `graftline submit --wait` does.

    Args:
        run: The run's id, as `graftline runs` shows it.

    Returns:
        What it reached.

    Raises:
        ClusterError: There is no such run, the cluster does not answer, or the run failed.
    """
    return _result(connected(options), run)


@with_options_of(CONNECTION)
def logs(run: str, *, step: str = "", **options: Value) -> str:
    """Shows the logs of a run's tasks, as the cluster's user interface has them.

    Args:
        run: The run's id.
        step: Only the log of this step.

    Returns:
        The logs, with a heading for each task.

    Raises:
        ClusterError: There is no such run or step, or its logs are gone: they live as long as the pods, unless the
            cluster archives them.
    """
    cluster = connected(options)
    details = steps_of(fetch_run(cluster, run))
    if step and step not in RETRAIN_STEPS:
        raise ClusterError(f"there is no step {step!r}: there are {', '.join(RETRAIN_STEPS)}")
    wanted = {line: detail for line, detail in details.items() if step in ("", step_of(line))}
    pods = [(name, pod) for name, detail in wanted.items() for pod in _pods(detail)]
    if not pods:
        raise ClusterError(f"no pod of {step or 'any step'} has run yet in {run}; see {cluster.link('runs', run)}")
    gone = "the log of this pod is gone, or the address is not that of the user interface; see "
    parts = []
    for name, pod in pods:
        missing = f"{pod}: {gone}{cluster.link('runs', run)}"
        text = cluster.call(cluster.client.pod_log, pod, cluster.namespace or "", run, missing=missing)
        parts.append(f"==> {name} ({pod}) <==\n{text.rstrip()}")
    return "\n\n".join(parts)


@with_options_of(CONNECTION)
def cancel(run: str, **options: Value) -> str:
    """Stops a run on a cluster.

    Args:
        run: The run's id.

    Returns:
        That it is being stopped.

    Raises:
        ClusterError: There is no such run, or it has ended already.
    """
    cluster = connected(options)
    state = str(fetch_run(cluster, run).state or "")
    if state in ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED"):
        raise ClusterError(f"the run {run} has ended already ({state.lower()})")
    cluster.call(cluster.client.terminate_run, run)
    return f"stopping {run}: its pods get 30 seconds to tidy up"


def show_rows(headings: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """Prints a table to standard output, uncut where that is no terminal."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(*headings, box=SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    Console(width=None if sys.stdout.isatty() else 200, highlight=False, markup=False).print(table)


def start_run(cluster: Cluster, name: str, experiment: str, **options: Any) -> str:
    """Creates a run and returns its id, also when the answer to that call is lost on its way.

    Args:
        cluster: Where.
        name: A name that no other run has, by which it is found again.
        experiment: Name of the experiment.
        **options: For `kfp.Client.run_pipeline`: what to run and with which arguments.
    """
    client = cluster.client
    identity = cluster.call(client.create_experiment, experiment, namespace=cluster.namespace).experiment_id
    try:
        return str(cluster.call(client.run_pipeline, identity, name, **options).run_id)
    except ClusterAwayError as error:
        say(f"{error}; looking whether the run was created")
        return _find(cluster, name, error)


def _find(cluster: Cluster, name: str, fault: ClusterAwayError) -> str:
    for seconds in _FIND_AGAIN_SECONDS:
        time.sleep(seconds)
        try:
            newest = cluster.call(
                cluster.client.list_runs, page_size=50, sort_by="created_at desc", namespace=cluster.namespace
            )
        except ClusterAwayError:
            continue
        found = [run.run_id for run in newest.runs or () if run.display_name == name]
        if found:
            return str(found[0])
        break
    raise ClusterError(f"{fault}: the run {name} was not created, as far as can be seen") from fault


def _create(
    cluster: Cluster,
    documents: Documents,
    arguments: dict[str, Value],
    experiment: str,
    place: dict[str, str | None],
) -> str:
    name = f"{documents[0]['pipelineInfo']['name']}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}"
    with tempfile.TemporaryDirectory(prefix="graftline-") as folder:
        package = Path(folder) / "pipeline.yaml"
        package.write_text(yaml.safe_dump_all(documents), encoding="utf-8")
        return start_run(cluster, name, experiment, pipeline_package_path=str(package), params=arguments, **place)


def arguments_of(documents: Documents, source: str, promote: Promotion, options: Options) -> dict[str, Value]:
    """Returns a pipeline's arguments: the source, and the options that were set to something.

    Args:
        documents: The compiled pipeline.
        source: Images.
        promote: auto leaves it to the pipeline.
        options: All of the command's: those of the pipeline retrain, which has all that train has, and others.

    Raises:
        ClusterError: The pipeline does not take one of them.
        GraftlineError: An option cannot be what is given for it.
        StoreError: The source is a URL that cannot be read.
    """
    check_options(options)
    known = [option for name, option in options_of("retrain").items() if name != "promote"]
    given = {one.name: options[one.name] for one in known if options[one.name] != one.default}
    given |= {} if promote == "auto" else {"promote": promote}
    for address in filter(is_url, (source, read(options, "production", str))):
        split_url(address)
    strange = given.keys() - documents[0]["root"]["inputDefinitions"]["parameters"].keys()
    if strange:
        name = spelt(min(strange))
        raise ClusterError(f"{name} is an option of the pipeline retrain: give --pipeline retrain or leave {name} out")
    return {"source": source, **given}


def _result(cluster: Cluster, run_id: str) -> Summary | str:
    """Follows a run to its end and returns what it reached, or where that lies."""
    from graftline.cluster.results import read_results

    run = follow(cluster, run_id)
    if run.state != "SUCCEEDED":
        raise ClusterError(_failure(cluster, run))
    results = read_results(run)
    if isinstance(results, Summary):
        return results
    return f"{run_id} succeeded; its results: {results}\nlink     {cluster.link('runs', run_id)}"


def _failure(cluster: Cluster, run: Any) -> str:
    failed = [(step, detail) for step, detail in steps_of(run).items() if detail.state == "FAILED"]
    what, why = (failed[0][0], reason(failed[0][1])) if failed else ("the run", reason(run))
    outcome = "was cancelled" if run.state == "CANCELED" else "failed"
    return (
        f"{what} {outcome}{f': {why}' if why else ''}\n  logs     graftline logs {run.run_id}"
        f"\n  link     {cluster.link('runs', run.run_id)}"
    )


def _pods(detail: Any) -> list[str]:
    """Returns the pods of a task: its own, or those of the parts that Argo made of it."""
    children = [child.pod_name for child in detail.child_tasks or () if child.pod_name]
    return children or [pod for pod in [detail.pod_name] if pod]


def _when(moment: Any) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M}" if moment else ""
