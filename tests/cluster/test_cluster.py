"""Runs on a cluster, against a stand-in for its API (`kfp_stand_in`): not a real cluster."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from kfp_stand_in import API, KUBERNETES_PROXY, StandIn, details, task
from registry_inputs import make_bundle, make_dataset, make_evaluation, threshold, trained

from graftline.cli import main as cli
from graftline.cli.help import parameters
from graftline.cluster import follow
from graftline.cluster.follow import FollowStopped
from graftline.components.index import INDEX_FILE, write_index
from graftline.evaluation.choice import choose_only
from graftline.records import CHOICE_FILE, DataVersion, EdgeBundle, Registration, read_record
from graftline.runs.board import Board
from graftline.steps import STEPS

TASKS = [step.replace("_", "-") for step in STEPS]


def started(cluster: StandIn, name: str = "graftline-train-1") -> str:
    identity = cluster.new_id("run")
    cluster.runs[identity] = {"run_id": identity, "display_name": name, "created_at": "2026-11-20T12:00:00Z"}
    return identity


def test_submit_sends_the_pipeline_and_only_what_was_set(cluster: StandIn, call: Any) -> None:
    code, out, err = call("submit", "/data/images", "--epochs", "3", "--gpus=0", "--pipeline-root", "s3://b/p")
    assert (code, err) == (0, "")
    (run,) = cluster.runs.values()
    assert out == f"run      {run['run_id']}\nlink     {cluster.url}/#/runs/details/{run['run_id']}\n"
    assert run["runtime_config"] == {"parameters": {"source": "/data/images", "epochs": 3}, "pipeline_root": "s3://b/p"}
    spec = run["pipeline_spec"]["pipeline_spec"]
    assert {name.removeprefix("exec-").replace("-", "_") for name in spec["deploymentSpec"]["executors"]} == set(STEPS)
    assert "accelerator" not in str(spec)
    assert "graftline-s3" in str(run["pipeline_spec"]["platform_spec"])
    assert list(cluster.experiments) == ["graftline"]


def test_a_retraining_is_submitted_and_followed_by_the_same_commands(cluster: StandIn, call: Any) -> None:
    cluster.states = [{"state": "SUCCEEDED", **details(task("detect-change", "SUCCEEDED", 1, 3))}]
    words = ["submit", "/data/images", "--production", "/data/new", "--pipeline"]
    code, _, err = call(*words, "retrain", "--wait")
    assert code == 0
    assert "detect_change: done in 2.0 s" in err
    (run,) = cluster.runs.values()
    assert run["pipeline_spec"]["pipeline_spec"]["pipelineInfo"]["name"] == "graftline-retrain"
    assert run["runtime_config"]["parameters"] == {"source": "/data/images", "production": "/data/new"}
    assert "--production is an option of the pipeline retrain" in call(*words, "train")[2]


@pytest.mark.parametrize("rule", ["better", "not_worse"])
def test_what_it_takes_to_be_promoted_reaches_the_pipeline_or_is_refused(
    cluster: StandIn, call: Any, rule: str
) -> None:
    words = ["submit", "/data/images", "--promote", rule]
    code, _, err = call(*words)
    assert code == 1 and "--promote is an option of the pipeline retrain: give --pipeline retrain" in err
    assert not cluster.runs
    assert call(*words, "--pipeline", "retrain")[0] == 0
    (run,) = cluster.runs.values()
    assert run["runtime_config"]["parameters"] == {"source": "/data/images", "promote": rule}


def test_every_option_of_submit_is_the_pipelines(cluster: StandIn) -> None:
    from graftline.pipelines.retrain import retrain

    own = {"source", "pipeline", "wait", "profile", "image", "gpus", "nodes", "experiment"}
    own |= {"pipeline_root", "service_account"}
    connection = set(parameters(cli.load("cancel"))) - {"run"}
    offered = set(parameters(cli.load("submit"))) - own - connection
    assert offered | {"source"} <= set(retrain.pipeline_spec.root.input_definitions.parameters)


@pytest.mark.parametrize(
    "command", [["submit", "/data/images"], ["schedule", "create", "weekly", "/data/images", "--cron", "0 3 * * 1"]]
)
def test_what_no_pipeline_took_before_reaches_it(command: list[str], cluster: StandIn, call: Any) -> None:
    words = ["--precision=fp32", "--memory-format=contiguous", "--torch-compile", "--show-times"]
    code, _, err = call(*command, *words, "--min-agreement", "0.9", "--calibration-images", "50")
    assert (code, err) == (0, "")
    (sent,) = [*cluster.runs.values(), *cluster.schedules.values()]
    assert sent["runtime_config"]["parameters"] == {
        "source": "/data/images",
        "precision": "fp32",
        "memory_format": "contiguous",
        "torch_compile": True,
        "show_times": True,
        "min_agreement": 0.9,
        "calibration_images": 50,
    }


def test_credentials_and_namespace_come_from_the_environment_and_files(
    cluster: StandIn, call: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text("first\n")
    monkeypatch.setenv("GRAFTLINE_COOKIES", "authservice_session=abc")
    call("runs", "--token-file", str(token), "--namespace", "team")
    request, query, _, headers = cluster.requests[-1]
    assert (request, query["namespace"]) == (f"GET {API}/runs", ["team"])
    assert (headers["authorization"], headers["Cookie"]) == ("Bearer first", "authservice_session=abc")
    monkeypatch.setenv("GRAFTLINE_TOKEN", "second")
    call("runs")
    assert cluster.requests[-1][3]["authorization"] == "Bearer second"


def test_runs_are_listed_page_after_page(cluster: StandIn, call: Any) -> None:
    for number in range(150):
        started(cluster, f"run number {number}")
    code, out, _ = call("runs", "--limit", "120")
    assert code == 0
    assert out.count("run number") == 120
    assert cluster.calls.count(f"GET {API}/runs") == 2
    assert "2026-11-20 12:00" in out


def test_waiting_shows_each_task_and_says_where_results_are(cluster: StandIn, call: Any) -> None:
    cluster.states = [
        {"state": "PENDING"},
        {"state": "RUNNING", **details(task("root-driver", "SUCCEEDED"), task("version-data", "RUNNING", 5))},
        {
            "state": "RUNNING",
            **details(task("Version the data", "SUCCEEDED", 5, 65), task("augment", "SKIPPED", 66, 66)),
        },
        {"state": "SUCCEEDED", **details(task("fine-tune", "SUCCEEDED", 70, 130))},
    ]
    code, out, err = call("submit", "/data/images", "--wait")
    assert code == 0
    assert [line for line in err.splitlines() if re.match(r"\w+: ", line)] == [
        "version_data: running",
        "version_data: done in 1:00",
        "augment: cached",
        "fine_tune: running",
        "fine_tune: done in 1:00",
    ]
    assert "/#/runs/details/run-" in err
    assert "in the cluster's own pipeline root" in out


def test_candidates_that_run_side_by_side_have_a_line_and_a_log_each(cluster: StandIn, call: Any) -> None:
    run = started(cluster)
    first = {"create_time": "2026-11-20T12:00:10Z", "task_id": "1", "pod_name": "tune-1"}
    second = {"create_time": "2026-11-20T12:00:11Z", "task_id": "0", "pod_name": "tune-2"}
    cluster.states = [
        {"state": "RUNNING", **details(task("Fine-tune", "RUNNING", 10, **first))},
        {
            "state": "RUNNING",  # newest first, as no order is promised
            **details(task("Fine-tune", "RUNNING", 11, **second), task("Fine-tune", "RUNNING", 10, **first)),
        },
        {
            "state": "FAILED",
            **details(
                task("Fine-tune", "FAILED", 11, 41, **second, error={"code": 1, "message": "out of memory"}),
                task("Fine-tune", "SUCCEEDED", 10, 70, **first),
            ),
        },
    ]
    code, _, err = call("follow", run)
    assert code == 1
    assert sorted(line for line in err.splitlines() if re.match(r"fine_tune( 2)?: ", line)) == [
        "fine_tune 2: failed in 30.0 s",
        "fine_tune 2: running",
        "fine_tune: done in 1:00",
        "fine_tune: running",
    ]
    assert "graftline: fine_tune 2 failed: out of memory\n" in err
    cluster.logs = {"tune-1": "epoch 1", "tune-2": "epoch 1, too"}
    out = call("logs", run, "--step", "fine_tune")[1]
    assert out == "==> fine_tune (tune-1) <==\nepoch 1\n\n==> fine_tune 2 (tune-2) <==\nepoch 1, too\n"


def test_a_network_fault_does_not_lose_the_run(cluster: StandIn, call: Any) -> None:
    run = started(cluster)
    cluster.states = [{"state": "RUNNING"}, {"state": "SUCCEEDED"}]
    # urllib3 itself tries four times: two rounds of ours are lost, and a gateway is away in the third.
    cluster.faults = [(f"GET {API}/runs/", "reset")] * 8 + [(f"GET {API}/runs/", 503)]
    code, out, err = call("follow", run)
    assert code == 0
    assert "trying again, the run goes on" in err
    assert err.count("trying again") == 1
    assert f"{run} succeeded" in out
    assert cluster.faults == []


def test_giving_up_says_how_to_go_on(cluster: StandIn, call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run = started(cluster)
    monkeypatch.setattr(follow, "GIVE_UP_AFTER_SECONDS", 0.0)
    cluster.faults = [(f"GET {API}/runs/", 502)] * 50
    code, _, err = call("follow", run)
    assert code == 1
    assert f"`graftline follow {run}` comes back to it" in err.splitlines()[-1]


def test_ctrl_c_leaves_the_run_alone(cluster: StandIn, call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run = started(cluster)
    cluster.states = [{"state": "RUNNING"}]

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(follow, "_pause", interrupt)
    code, _, err = call("follow", run)
    assert code == 130
    assert f"graftline follow {run}" in err
    assert issubclass(FollowStopped, KeyboardInterrupt)
    assert not any("terminate" in made for made in cluster.calls)


def test_a_lost_answer_does_not_start_a_second_run(cluster: StandIn, call: Any) -> None:
    cluster.after = [(f"POST {API}/runs", "reset")]
    code, out, err = call("submit", "/data/images")
    assert code == 0
    assert "looking whether the run was created" in err
    (run,) = cluster.runs
    assert f"run      {run}\n" in out


def test_a_run_that_was_not_created_is_said_so(cluster: StandIn, call: Any) -> None:
    cluster.faults = [(f"POST {API}/runs", "reset")]
    code, _, err = call("submit", "/data/images")
    assert (code, cluster.runs) == (1, {})
    assert "was not created, as far as can be seen" in err


def test_a_failed_run_names_step_reason_and_logs(cluster: StandIn, call: Any) -> None:
    run = started(cluster)
    error = {"code": 13, "message": "exit code 1:\n  no images"}
    cluster.states = [{"state": "FAILED", **details(task("version-data", "FAILED", 5, 9, error=error))}]
    code, _, err = call("follow", run)
    assert code == 1
    assert "graftline: version_data failed: exit code 1: no images\n" in err
    assert f"graftline logs {run}" in err
    cluster.states = [{"state": "CANCELED"}]
    assert "the run was cancelled" in call("follow", run)[2]


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A pipeline root with the artifacts of run-1, laid out as KFP does; its data come from the cache."""
    root = tmp_path / "root"
    run, before = (root / "graftline-train" / name for name in ("run-1", "run-0"))
    data = make_dataset(before / "version-data" / "u1" / "dataset")
    bundle = make_bundle(run / "export-onnx" / "u2" / "bundle", data, threshold())
    evaluation = make_evaluation(run / "evaluate" / "u3" / "evaluation", data)
    chosen, other = (trained(read_record(data, DataVersion), seed) for seed in (0, 1))
    for number, model in enumerate((chosen, other)):
        model.write(run / "fine-tune" / f"u{number}" / "model")
    chosen.write(run / "choose-model" / "u4" / "model")
    choose_only(chosen).write(run / "choose-model" / "u4" / "model", CHOICE_FILE)
    sha = read_record(bundle, EdgeBundle).sha256
    about = {"name": "graftline", "version": "7", "alias": "champion", "reason": "it is first", "bundle": sha}
    registration = run / "register-model" / "u5" / "registration"
    Registration(**about, data_version="d0000000000000001").write(registration)
    places = {"dataset": data, "bundle": bundle, "evaluation": evaluation, "model": run / "choose-model/u4/model"}
    write_index(registration, {name: str(place) for name, place in places.items()})
    return root


def test_unknown_runs_and_refusals_are_one_line(cluster: StandIn, call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for words in (["follow", "nope"], ["logs", "nope"], ["cancel", "nope"]):
        code, out, err = call(*words)
        assert (code, out, err.count("\n")) == (1, "", 1)
        assert "there is no run nope; see `graftline runs`" in err
    for status, says in (
        (401, "does not know you (401): set GRAFTLINE_TOKEN"),
        (403, "does not let you do that (403): as the test wants it"),
        (400, "refuses (400): as the test wants it"),
    ):
        cluster.faults = [(f"GET {API}/runs", status)]
        code, _, err = call("runs")
        assert code == 1
        assert says in err
    cluster.faults = [(f"GET {API}/healthz", 404)]
    assert "there is no Kubeflow Pipelines; Kubeflow's gateway has it below /pipeline" in call("runs")[2]
    cluster.healthz = "<html>Log in</html>"
    assert "answers with a page instead of data" in call("runs")[2]


def test_no_server_and_no_address_are_one_line(cluster: StandIn, call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    code, _, err = call("runs", "--host", "http://127.0.0.1:1")
    assert (code, err.count("\n")) == (1, 1)
    assert "http://127.0.0.1:1 does not answer: " in err
    assert "Connection refused" in err
    assert "--ca: the file /none does not exist" in call("runs", "--ca", "/none")[2]
    monkeypatch.delenv("GRAFTLINE_HOST")
    assert "no cluster is named: give --host, set GRAFTLINE_HOST, or set up kubectl" in call("runs")[2]


def test_kubectls_configuration_leads_through_the_kubernetes_api(
    cluster: StandIn, call: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("GRAFTLINE_HOST")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    # The Kubernetes client reads that variable when it is imported.
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "config"))
    place = {"name": "here", "cluster": {"server": cluster.url}}
    context = {"name": "mine", "context": {"cluster": "here", "user": "me"}}
    about = {"clusters": [place], "contexts": [context], "users": [{"name": "me", "user": {"token": "abc"}}]}
    whole = {"apiVersion": "v1", "kind": "Config", "current-context": "mine", **about}
    (tmp_path / "config").write_text(yaml.safe_dump(whole))
    assert call("runs")[0] == 0
    assert cluster.calls == [f"GET {KUBERNETES_PROXY}{API}/{path}" for path in ("healthz", "runs")]
    assert cluster.requests[-1][3]["authorization"] == "Bearer abc"
    assert "kubectl's configuration has no such context" in call("runs", "--context", "other")[2]


def test_logs_of_each_pod(cluster: StandIn, call: Any) -> None:
    run = started(cluster)
    children = [{"pod_name": "tune-1"}, {"pod_name": "tune-2"}]
    cluster.states = [
        {"state": "FAILED", **details(task("augment", "SUCCEEDED"), task("fine-tune", "FAILED", child_tasks=children))}
    ]
    cluster.logs = {"pod-augment": "flips: none\n", "tune-1": "epoch 1", "tune-2": "out of memory"}
    code, out, _ = call("logs", run)
    assert code == 0
    assert out == (
        "==> augment (pod-augment) <==\nflips: none\n\n==> fine_tune (tune-1) <==\nepoch 1\n\n"
        "==> fine_tune (tune-2) <==\nout of memory\n"
    )
    assert call("logs", run, "--step", "augment")[1].count("==>") == 1
    assert "there is no step 'tune'" in call("logs", run, "--step", "tune")[2]
    del cluster.logs["tune-2"]
    assert "the log of this pod is gone" in call("logs", run)[2]


def test_cancel_ends_a_run_once(cluster: StandIn, call: Any) -> None:
    run = started(cluster)
    cluster.states = [{"state": "RUNNING"}]
    assert call("cancel", run)[0] == 0
    assert cluster.runs[run]["terminated"]
    cluster.states = [{"state": "SUCCEEDED"}]
    code, _, err = call("cancel", run)
    assert code == 1
    assert "has ended already (succeeded)" in err


def test_steps_that_run_side_by_side_have_their_own_times() -> None:
    board = Board()
    for step, state, time in (
        ("evaluate", "running", 10.0),
        ("export_onnx", "running", 12.0),
        ("evaluate", "done", 20.0),
        ("export_onnx", "done", 40.0),
    ):
        board.take({"step": step, "state": state, "time": time})
    assert (board.steps["evaluate"].seconds, board.steps["export_onnx"].seconds) == (10.0, 28.0)


def test_no_secret_is_an_option() -> None:
    assert not {"token", "cookies", "password"} & set(parameters(cli.load("submit")))


def test_results_are_shown_where_they_can_be_read(
    cluster: StandIn, call: Any, results: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GRAFTLINE_WORKSPACE", str(tmp_path / "work"))
    run = started(cluster)
    assert run == "run-1"
    cluster.runs[run]["runtime_config"] = {"pipeline_root": str(results)}
    code, out, _ = call("follow", run)
    assert code == 0
    assert "graftline 7, champion" in out
    assert out.endswith(f"{tmp_path}/work/runs/cluster-run-1/summary.json\n")
    assert (tmp_path / "work" / "runs" / "cluster-run-1" / "bundle" / "model.onnx").is_file()
    assert not list((tmp_path / "work").rglob("*.parquet")), "images are not fetched for a table"
    assert call("follow", run)[:2] == (code, out), "as often as it is asked"
    gone = results / "graftline-train" / "run-1" / "evaluate"
    shutil.rmtree(gone)
    assert f"its evaluation is not in {gone}/u3/evaluation any more\n" in call("follow", run)[1]
    shutil.rmtree(tmp_path / "work")
    index = results / "graftline-train" / "run-1" / "register-model" / "u5" / "registration" / INDEX_FILE
    index.unlink()
    assert "of an earlier version of graftline: run the same command again\n" in call("follow", run)[1]
    shutil.rmtree(index.parent)
    assert (
        "the run has no registration: there was nothing to train, or the cluster's cache had it"
        in call("follow", run)[1]
    )
