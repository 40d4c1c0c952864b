"""Schedules on a cluster, against a stand-in for its API (`kfp_stand_in`): not a real cluster."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from kfp_stand_in import API, StandIn

from graftline.cluster import schedules
from graftline.cluster.cron import CronError, fires_between, six_fields

MONDAY = datetime(2026, 11, 23, 3, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)
WEEKLY = ["schedule", "create", "weekly", "/data/images", "--cron", "0 3 * * 1", "--image", "graftline@sha256:1"]


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """No schedule of these tests is due just now, whenever they run."""
    monkeypatch.setattr(schedules, "_busy", lambda cron: False)


def test_a_new_schedule_runs_one_at_a_time_and_makes_up_for_nothing(cluster: StandIn, call: Any) -> None:
    code, out, err = call(*WEEKLY, "--epochs", "2")
    assert (code, out, err) == (0, "weekly created: 0 0 3 * * 1 (UTC)\n", "")
    (one,) = cluster.schedules.values()
    assert one["trigger"] == {"cron_schedule": {"cron": "0 0 3 * * 1"}}
    assert (int(one["max_concurrency"]), one["no_catchup"], one["mode"]) == (1, True, "ENABLE")
    assert one["runtime_config"]["parameters"] == {"source": "/data/images", "epochs": 2}
    version = cluster.versions[one["pipeline_version_reference"]["pipeline_version_id"]]
    assert version["display_name"].startswith("graftline-retrain-")
    images = {one["container"]["image"] for one in version["pipeline_spec"]["deploymentSpec"]["executors"].values()}
    assert images == {"graftline@sha256:1"}


def test_the_same_schedule_twice_is_one(cluster: StandIn, call: Any) -> None:
    call(*WEEKLY)
    before = dict(cluster.schedules)
    code, out, _ = call(*WEEKLY)
    assert (code, out) == (0, "weekly is as it should be: 0 0 3 * * 1 (UTC)\n")
    assert cluster.schedules == before
    assert len(cluster.versions) == 1


@pytest.mark.parametrize("change", [["--cron", "0 4 * * 1"], ["--epochs", "5"], ["--image", "graftline@sha256:2"]])
def test_a_changed_schedule_takes_the_place_of_the_old_one(change: list[str], cluster: StandIn, call: Any) -> None:
    call(*WEEKLY)
    (old,) = cluster.schedules
    cluster.calls.clear()
    code, out, _ = call(*WEEKLY, *change)
    assert code == 0
    assert "weekly replaced" in out
    (new,) = cluster.schedules
    assert new != old
    assert cluster.schedules[new]["mode"] == "ENABLE"
    made = cluster.calls.index(f"POST {API}/recurringruns")
    assert made < cluster.calls.index(f"DELETE {API}/recurringruns/{old}"), "without a gap: the new one comes first"
    assert len(cluster.pipelines) == 1


def test_a_replacement_that_was_interrupted_is_finished_the_next_time(cluster: StandIn, call: Any) -> None:
    call(*WEEKLY)
    cluster.faults = [(f"DELETE {API}/recurringruns", 400)]
    assert call(*WEEKLY, "--epochs", "5")[0] == 1
    assert len(cluster.schedules) == 2
    code, out, _ = call(*WEEKLY, "--epochs", "5")
    assert (code, out) == (0, "weekly replaced: 0 0 3 * * 1 (UTC)\n")
    (one,) = cluster.schedules.values()
    assert one["runtime_config"]["parameters"]["epochs"] == 5


def test_a_paused_schedule_stays_paused_when_it_is_changed(cluster: StandIn, call: Any) -> None:
    call(*WEEKLY)
    assert call("schedule", "pause", "weekly")[1] == "weekly is paused\n"
    assert call(*WEEKLY)[1] == "weekly is as it should be: 0 0 3 * * 1 (UTC), paused\n"
    assert call(*WEEKLY, "--epochs", "5")[1] == "weekly replaced: 0 0 3 * * 1 (UTC), still paused\n"
    (one,) = cluster.schedules.values()
    assert one["mode"] == "DISABLE"
    assert call("schedule", "resume", "weekly")[1] == "weekly is on: 0 0 3 * * 1 (UTC)\n"
    assert one["mode"] == "ENABLE"


def test_a_schedule_is_not_replaced_while_it_is_due(
    cluster: StandIn, call: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    call(*WEEKLY)
    due, order = [True, True, False], []
    monkeypatch.setattr(schedules, "_busy", lambda cron: due.pop(0) if due else False)
    monkeypatch.setattr(schedules.time, "sleep", lambda _: order.append(len(cluster.schedules)))
    _, out, err = call(*WEEKLY, "--epochs", "5")
    assert "waiting, so that no run is missed or starts twice" in err
    assert order == [1, 1], "nothing was created while it waited"
    assert "replaced" in out


def test_list_shows_times_in_utc(cluster: StandIn, call: Any) -> None:
    call(*WEEKLY)
    call("schedule", "pause", "weekly")
    out = call("schedule", "list")[1]
    assert "cron (UTC)" in out
    assert any(line.split()[:8] == ["weekly", *["0", "0", "3", "*", "*", "1", "paused"]] for line in out.splitlines())


def test_run_now_starts_the_schedules_version_with_its_arguments(cluster: StandIn, call: Any) -> None:
    call(*WEEKLY, "--epochs", "2", "--service-account", "trainer")
    code, out, _ = call("schedule", "run-now", "weekly")
    (run,) = cluster.runs.values()
    assert (code, f"run      {run['run_id']}" in out) == (0, True)
    (one,) = cluster.schedules.values()
    assert run["pipeline_version_reference"] == one["pipeline_version_reference"]
    assert run["runtime_config"]["parameters"] == {"source": "/data/images", "epochs": 2}
    assert run["service_account"] == "trainer"


def test_delete_and_unknown_names(cluster: StandIn, call: Any) -> None:
    call(*WEEKLY)
    for action in ("pause", "resume", "run-now", "delete"):
        code, _, err = call("schedule", action, "weekyl")
        assert (code, err.count("\n")) == (1, 1)
        assert "there is no schedule 'weekyl': did you mean 'weekly'?" in err
    assert call("schedule", "delete", "weekly")[:2] == (0, "weekly is deleted\n")
    assert cluster.schedules == {}
    assert "see `graftline schedule list`" in call("schedule", "delete", "weekly")[2]


def test_schedule_alone_lists_what_can_be_done(call: Any) -> None:
    for words in (["schedule"], ["schedule", "--help"]):
        code, out, _ = call(*words)
        assert code == 0
        assert all(f"schedule {action}" in out for action in ("create", "list", "pause", "resume", "run_now", "delete"))
    assert "did you mean 'schedule create'" in call("schedule", "creat")[2]


@pytest.mark.parametrize(
    ("cron", "says"),
    [
        ("", "has 0 fields: give 5"),
        ("0 3 * *", "has 4 fields: give 5"),
        ("0 25 * * *", "'25' is no way to write hours, which go from 0 to 23"),
        ("0 3 * * 7", "'7' is no way to write days of the week, which go from 0 to 6"),
        ("0 5-1 * * *", "'5-1' is no way to write hours"),
        ("*/0 * * * *", "'\\*/0' is no way to write minutes"),
        ("0 3 * foo *", "'foo' is no way to write months"),
    ],
)
def test_wrong_expressions_are_named(cron: str, says: str) -> None:
    with pytest.raises(CronError, match=says):
        six_fields(cron)


def test_expressions_of_five_fields_start_at_second_0() -> None:
    assert six_fields(" 0 3 * * MON-FRI") == "0 0 3 * * MON-FRI"
    assert six_fields("30 */5 0 1,15 jan ?") == "30 */5 0 1,15 jan ?"


@pytest.mark.parametrize(
    ("cron", "start", "end", "due"),
    [
        ("0 0 3 * * 1", MONDAY - SECOND, MONDAY + SECOND, True),
        ("0 0 3 * * 1", MONDAY + SECOND, MONDAY + 5 * SECOND, False),
        ("0 0 3 * * 2", MONDAY - SECOND, MONDAY + SECOND, False),
        ("0 0 3 * * mon", MONDAY, MONDAY, True),
        ("0 0 3 23 * 2", MONDAY, MONDAY, True),
        ("0 0 3 ? * 2", MONDAY, MONDAY, False),
        ("0 0 3 22 * ?", MONDAY, MONDAY, False),
        ("0 0/20 3 * 11 ?", MONDAY + 40 * 60 * SECOND, MONDAY + 40 * 60 * SECOND, True),
        ("0 0 3 * 12 *", MONDAY, MONDAY, False),
    ],
)
def test_when_an_expression_is_due(cron: str, start: datetime, end: datetime, due: bool) -> None:
    assert fires_between(cron, start, end) == due
