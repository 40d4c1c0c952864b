"""Follows a run on a cluster to its end: its tasks on the same board as a local run's.

A network fault does not end the following, and nothing that happens here ends the run.
"""

import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from graftline.cluster.server import Cluster, ClusterAwayError, ClusterError
from graftline.progress import say
from graftline.runs.board import Board, Step, line_name, show, step_of
from graftline.steps import TABLE

EVERY_SECONDS = 5.0
GIVE_UP_AFTER_SECONDS = 900.0
_LONGEST_WAIT_SECONDS = 60.0
_DRAW_EVERY_SECONDS = 0.25
_ENDED = frozenset({"SUCCEEDED", "FAILED", "SKIPPED", "CANCELED"})
# KFP's states in the board's words. A task answered from the cache is skipped.
_STATES = {
    "RUNNING": "running",
    "SUCCEEDED": "done",
    "SKIPPED": "cached",
    "FAILED": "failed",
    "CANCELING": "stopped",
    "CANCELED": "stopped",
}


class FollowStopped(KeyboardInterrupt):
    """The user stopped following; the run goes on."""


def follow(cluster: Cluster, run_id: str) -> Any:
    """Shows a run's tasks until it has ended.

    Args:
        cluster: Where it runs.
        run_id: The run.

    Returns:
        The run, ended: a `V2beta1Run`.

    Raises:
        ClusterError: The cluster has no such run, refuses, or did not answer for 15 minutes; the message says how to
            go on.
        FollowStopped: Ctrl-C.
    """
    seen: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="graftline-") as folder:
        events = Path(folder) / "events.jsonl"
        events.touch()
        board = Board()
        with show(board, events) as refresh:
            try:
                for run in _states(cluster, run_id, refresh):
                    # Only from its tasks can be seen that a run is a retraining: that step comes before the others.
                    new = {step_of(line): Step() for line in steps_of(run) if step_of(line) not in board.steps}
                    board.steps = new | board.steps
                    with events.open("a", encoding="utf-8") as file:
                        file.writelines(json.dumps(event) + "\n" for event in _events(run, seen))
                    refresh()
            except KeyboardInterrupt:
                raise FollowStopped(_how_to_go_on(run_id)) from None
    return run


def fetch_run(cluster: Cluster, run_id: str) -> Any:
    """Returns a run's present state.

    Raises:
        ClusterError: The cluster has no such run, refuses, or does not answer.
    """
    return cluster.call(cluster.client.get_run, run_id, missing=f"there is no run {run_id}; see `graftline runs`")


def _states(cluster: Cluster, run_id: str, refresh: Callable[[], None]) -> Iterator[Any]:
    """Yields a run again and again, the last time when it has ended."""
    away_since, wait = 0.0, EVERY_SECONDS
    while True:
        try:
            run = fetch_run(cluster, run_id)
        except ClusterAwayError as error:
            now = time.monotonic()
            if not away_since:
                say(f"{error}; trying again, the run goes on")
            away_since = away_since or now
            if now - away_since > GIVE_UP_AFTER_SECONDS:
                minutes = f"{GIVE_UP_AFTER_SECONDS / 60:.0f} minutes"
                raise ClusterError(f"{error}, for {minutes}; {_how_to_go_on(run_id)}") from error
            wait = min(wait * 2, _LONGEST_WAIT_SECONDS)
        else:
            away_since, wait = 0.0, EVERY_SECONDS
            yield run
            if run.state in _ENDED:
                return
        _pause(wait, refresh)


def _pause(seconds: float, refresh: Callable[[], None]) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        refresh()
        time.sleep(_DRAW_EVERY_SECONDS)


def _how_to_go_on(run_id: str) -> str:
    return f"the run goes on: `graftline follow {run_id}` comes back to it, `graftline cancel {run_id}` ends it"


def steps_of(run: Any) -> dict[str, Any]:
    """Returns a run's task details by line of the board; drivers and other helpers of KFP are left out.

    A step may have several tasks, one for each candidate: they are numbered in the order in which they were created, so
    that each keeps its number.
    """
    titles, named = {step.title: name for name, step in TABLE.items()}, {}
    count: Counter[str] = Counter()
    details = (run.run_details and run.run_details.task_details) or ()
    for detail in sorted(details, key=lambda one: (_seconds(one.create_time, 0.0), one.task_id or "")):
        step = titles.get(detail.display_name or "", (detail.display_name or "").replace("-", "_"))
        if step in TABLE:
            count[step] += 1
            named[line_name(step, count[step])] = detail
    return named


def _events(run: Any, seen: dict[str, str]) -> Iterator[dict[str, Any]]:
    """Yields what has changed since the last time, as the board's events."""
    for step, detail in steps_of(run).items():
        state = _STATES.get(detail.state or "")
        if state is None or seen.get(step) == state:
            continue
        if state in ("done", "failed", "stopped") and seen.get(step) != "running":
            yield {"step": step, "state": "running", "time": _seconds(detail.start_time)}
        seen[step] = state
        began = state in ("running", "cached")
        event = {"step": step, "state": state, "time": _seconds(detail.start_time if began else detail.end_time)}
        yield event | ({"error": reason(detail)} if state == "failed" else {})


def reason(detail: Any) -> str:
    """Returns why a task or a run failed, as far as the cluster says."""
    return " ".join(detail.error.message.split()) if detail.error and detail.error.message else ""


def _seconds(moment: Any, undated: float | None = None) -> float:
    """Returns seconds since the epoch; what the cluster does not date is now, unless told otherwise."""
    if moment and moment.year > 1970:
        return float(moment.timestamp())
    return time.time() if undated is None else undated
