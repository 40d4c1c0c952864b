"""The pipeline on this machine: what it shows, what it leaves, how it fails, stops and resumes."""

import dataclasses
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from graftline.cli.table import show_summary, show_tree
from graftline.errors import GraftlineError
from graftline.files import output_folder
from graftline.records import EdgeBundle, Variant, read_record
from graftline.runs.board import Board, plain_line
from graftline.runs.code_version import code_version
from graftline.runs.local import in_workspace, run
from graftline.runs.memory import tree_bytes
from graftline.runs.summary import Summary
from graftline.runs.worker import Log
from graftline.steps import STEPS
from graftline.words import clock, percent, size
from graftline.workspace import cache_folder, workspace

Call = Callable[..., tuple[int, str, str]]
PROGRAM = Path(sys.executable).parent / "graftline"
KEYS = [
    *("data_version", "backbone", "strategy", "test_accuracy", "test_accuracy_interval", "test_macro_f1"),
    "test_metrics",
    *("int8_agreement", "int8_accuracy", "fp32_bytes", "int8_bytes", "fp32_ms", "int8_ms", "torch_ms", "variants"),
    *("registry_version", "alias", "seconds", "peak_memory_bytes", "report", "bundle"),
]


def pictures(folder: Path, *classes: str) -> Path:
    for label in classes:
        (folder / label).mkdir(parents=True)
        for number in range(20):
            Image.new("RGB", (8, 8), (number, len(label) * 20, 0)).save(folder / label / f"{number}.png")
    return folder


def events(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "progress.jsonl").read_text().splitlines()]


def states(folder: Path) -> list[tuple[str, str]]:
    return [(event["step"], event["state"]) for event in events(folder) if "state" in event]


# What is shown while it runs


def told(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, list[dict[str, Any]]]:
    """Returns what the worker's log holds and the events that were told, when kfp writes `text` in small pieces."""
    out, progress = io.StringIO(), tmp_path / "progress.jsonl"
    progress.touch()
    monkeypatch.setattr(sys, "__stdout__", out)
    log = Log(progress)
    for start in range(0, len(text), 7):
        log.write(text[start : start + 7])
    return out.getvalue(), events(tmp_path)


def test_log_loses_its_colours_and_tells_what_becomes_of_a_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (
        "04:45:19.951 - INFO - Task version-data cache hit (key=0a29adc84cb6); skipping execution.\n"
        "04:45:19.967 - INFO - Executing task \x1b[96m'fine-tune'\x1b[0m\n"
        "    Traceback (most recent call last):\n"
        '        raise DataError("class")\n'
        "    graftline.errors.DataError: class 'cat' has no images\n"
        "04:45:21.242 - ERROR - Task \x1b[96m'fine-tune'\x1b[0m finished with status \x1b[91mFAILURE\x1b[0m\n"
    )
    written, told_events = told(text, tmp_path, monkeypatch)
    assert "\x1b" not in written
    assert "Executing task 'fine-tune'\n" in written
    assert [(e["step"], e["state"]) for e in told_events] == [
        ("version_data", "cached"),
        ("fine_tune", "running"),
        ("fine_tune", "failed"),
    ]
    assert told_events[-1]["error"] == "graftline.errors.DataError: class 'cat' has no images"


def test_board_follows_the_events() -> None:
    board, lines = Board(), []
    for event in (
        {"step": "version_data", "state": "cached", "time": 99.0},
        {"step": "augment", "state": "running", "time": 100.0},
        {"description": "decoding", "done": 1200, "total": 2624},
        {"message": "no colour jitter on grey images"},
        {"step": "augment", "state": "done", "time": 112.5},
        {"description": "late", "done": 1, "total": None},
    ):
        board.take(event)
        lines.append(plain_line(board, event))
    assert lines[:5] == [
        "version_data: cached",
        "augment: running",
        "augment: decoding, 1,200 of 2,624",
        "augment: no colour jitter on grey images",
        "augment: done in 12.5 s",
    ]
    assert [step.state for step in board.steps.values()] == ["cached", "done"] + ["waiting"] * (len(STEPS) - 2)
    assert (board.running, board.failed) == ("", "")
    board.take({"step": "evaluate", "state": "running", "time": 113.0})
    board.end("failed")
    assert board.failed == "evaluate"


def test_each_candidate_has_its_own_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    times = [f"04:45:{second}.000 - INFO - " for second in range(10, 20)]
    _, told_events = told(
        f"{times[0]}Task fine-tune cache hit (key=0a29adc84cb6); skipping execution.\n"
        f"{times[1]}Executing task 'fine-tune'\n"
        f"{times[2]}Task 'fine-tune' finished with status SUCCESS\n"
        f"{times[3]}Executing task 'fine-tune'\n"
        "    graftline.errors.GraftlineError: the loss is no number\n"
        "04:45:14.000 - ERROR - Task 'fine-tune' finished with status FAILURE\n"
        f"{times[5]}Executing task 'choose-model'\n",
        tmp_path,
        monkeypatch,
    )
    assert [(e["step"], e["state"]) for e in told_events] == [
        ("fine_tune", "cached"),
        ("fine_tune 2", "running"),
        ("fine_tune 2", "done"),
        ("fine_tune 3", "running"),
        ("fine_tune 3", "failed"),
        ("choose_model", "running"),
    ]
    board = Board()
    for event in told_events:
        board.take(event)
    lines = list(board.steps)
    assert lines[3:7] == ["fine_tune", "fine_tune 2", "fine_tune 3", "choose_model"]
    assert (board.failed, board.steps["fine_tune 3"].error) == ("fine_tune 3", told_events[4]["error"])
    assert plain_line(board, told_events[2]).startswith("fine_tune 2: done in ")


def test_numbers_for_people() -> None:
    assert [clock(9.44), clock(67), clock(3753)] == ["9.4 s", "1:07", "1:02:33"]
    assert [size(900), size(18_700_000), size(2_100_000_000)] == ["900 B", "18.7 MB", "2.10 GB"]


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs Linux's /proc")
def test_memory_counts_children_whatever_their_names() -> None:
    code = (
        "open('/proc/self/comm', 'wb').write(b'caf\\xc3'); block = bytearray(200_000_000); print(flush=True); input()"
    )
    before = tree_bytes(os.getpid())
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout
        child.stdout.readline()
        assert 200_000_000 < tree_bytes(os.getpid()) - before < 300_000_000
        child.communicate(b"\n")


def test_code_version_follows_the_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "graftline"
    (package / "training").mkdir(parents=True)
    (package / "runs").mkdir()
    (package / "cli").mkdir()
    for name in ("__init__.py", "cli/main.py", "training/loop.py", "runs/local.py"):
        (package / name).write_text("")
    monkeypatch.setattr("graftline.__file__", str(package / "__init__.py"))
    first = code_version()
    (package / "cli" / "main.py").write_text("shown = 1")
    (package / "runs" / "local.py").write_text("shown = 1")
    assert code_version() == first, "what only starts the steps does not change their results"
    for part in ("components", "pipelines"):  # as an image has them, where they are no links to elsewhere
        (package / part).mkdir()
        (package / part / "train.py").write_text("wired = 1")
    assert code_version() == first, "an image of the code in an editable installation holds the same library"
    (package / "training" / "loop.py").write_text("rate = 1")
    assert code_version() != first


# Mistakes that are told before anything begins


@pytest.mark.parametrize("command", ["run", "retrain", "submit"])
@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("name", "solar cells", "the model name 'solar cells' is not allowed"),
        ("device", "mps", "--device takes auto, cpu, cuda, not 'mps'"),
        ("epochs", "-1", "the setting epochs=-1 is not possible"),
        ("batch-size", "-8", "the setting batch_size=-8 is not possible"),
        ("image-size", "-64", "image_size is -64: give a positive number"),
        ("settings", "dropuot=0.2", "did you mean dropout"),
        ("settings", "dropout=2", "the setting dropout=2 is not possible"),
    ],
)
def test_an_option_that_cannot_be_is_told_at_once(
    command: str, option: str, value: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Call
) -> None:
    monkeypatch.setenv("GRAFTLINE_WORKSPACE", str(tmp_path / "work"))
    code, out, err = call(command, pictures(tmp_path / "images", "a", "b"), f"--{option}={value}")
    assert (code, out, err.count("\n")) == (2 if option == "device" else 1, "", 1)
    assert says in err
    assert not (tmp_path / "work").exists()


def test_from_python_too(tmp_path: Path) -> None:
    for options, says in (({"device": "mps"}, "device is 'mps'"), ({"tracking_uri": "https://me:it@host"}, "MLFLOW_")):
        with pytest.raises(GraftlineError, match=says):
            run(str(tmp_path), workspace=str(tmp_path / "work"), **options)  # type: ignore[arg-type]
    assert not (tmp_path / "work").exists()


def test_settings_that_some_plan_takes_are_let_through(tmp_path: Path) -> None:
    settings = "from_scratch=true,stage_epochs=[2;3],group_rates=[1e-5;1e-4],dropout=0.2"
    with pytest.raises(GraftlineError, match="does not exist"):
        run(str(tmp_path / "none"), name="solar-cells", settings=settings, epochs=3, device="cuda", image_size=96)


@pytest.mark.parametrize("out", [".", "..", "inner/..", "/proc"])
def test_a_folder_that_cannot_be_replaced_is_refused_before_the_work(
    out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "inner").mkdir()
    monkeypatch.chdir(tmp_path / "inner")
    with (
        pytest.raises(GraftlineError, match=f"{re.escape(out)} itself .*: give a folder below it"),
        output_folder(Path(out)),
    ):
        pytest.fail("the work has begun")
    assert not list(tmp_path.rglob("*.*"))


def test_the_workspace_may_be_written_with_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with in_workspace("~/given"):
        assert workspace() == tmp_path / "given"
    monkeypatch.setenv("GRAFTLINE_WORKSPACE", "~/set")
    monkeypatch.setenv("GRAFTLINE_CACHE", "~/cache")
    assert (workspace(), cache_folder()) == (tmp_path / "set", tmp_path / "cache")


def test_a_path_is_shown_with_its_brackets(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    show_tree("/home/[bold]/a.onnx", {"[red]": "[/x]", "data": {"path": "/home/[dim]/:cat:"}})
    out = capsys.readouterr().out
    assert all(text in out for text in ("/home/[bold]/a.onnx", "[red]", "[/x]", "/home/[dim]/:cat:"))


def test_make_test_images_takes_the_image_that_was_built(tmp_path: Path) -> None:
    (tmp_path / "docker").write_text('#!/bin/sh\n[ "$1" = info ] || case "$3" in *-cpu) exit 0;; *) exit 1;; esac\n')
    (tmp_path / "docker").chmod(0o755)
    root = Path(__file__).parents[2]
    for words, wanted in (([], "-cpu"), (["TARGETS=cpu cuda"], "-cpu"), (["IMAGE=mine"], "mine")):
        command = ["make", "--dry-run", "test-images", "TARGETS=cuda", *words]
        path = f"{tmp_path}:{os.environ['PATH']}"
        done = subprocess.run(command, cwd=root, env={"PATH": path}, capture_output=True, text=True, check=True)
        assert f'{wanted}" ' in done.stdout.splitlines()[-1]


# Failing and stopping


@pytest.mark.slow
def test_a_failing_step_says_why_where_and_how_to_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAFTLINE_STORE", str(tmp_path / "store"))
    (tmp_path / "docker").mkdir()
    monkeypatch.chdir(tmp_path)  # where a folder of that name must not be taken for the package
    with pytest.raises(GraftlineError) as caught:
        run(str(pictures(tmp_path / "images", "only")), workspace=str(tmp_path / "work"), precision="fp32")
    first, log, resume = str(caught.value).splitlines()
    (folder,) = (tmp_path / "work" / "runs").iterdir()
    assert first.startswith("version_data failed after ")
    assert "class" in first
    assert "Error:" not in first, "a mistake of the user's needs no name of an exception"
    assert log.split()[1] == str(folder / "pipeline.log")
    assert "DataError" in Path(log.split()[1]).read_text()
    assert "same command again" in resume
    assert states(folder) == [("version_data", "running"), ("version_data", "failed")], "a laptop does not retry"
    given = json.loads((folder / "arguments.json").read_text())
    assert given["source"] == str(tmp_path / "images"), "what another process reads"
    assert (given["precision"], given["torch_compile"], given["min_agreement"]) == ("fp32", False, 0.97)


def processes_of(folder: Path) -> list[str]:
    """Returns the command lines of living processes that mention a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(folder) in words:
            found.append(words[:200])
    return found


def hear_ctrl_c() -> None:
    """Lets a run be as at a terminal: a shell starts background jobs, which tests may be, with Ctrl-C ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def wait_for_the_end(folder: Path) -> None:
    """Waits, half a minute at most, until no living process mentions a folder."""
    until = time.monotonic() + 30
    while processes_of(folder) and time.monotonic() < until:
        time.sleep(0.2)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -signal.SIGKILL)]
)
def test_a_stopped_run_leaves_no_process(number: signal.Signals, code: int, tmp_path: Path) -> None:
    command = [PROGRAM, "run", pictures(tmp_path / "images", "a", "bb"), "--workspace", tmp_path / "work"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=tmp_path, preexec_fn=hear_ctrl_c) as process:
        assert process.stderr
        for line in process.stderr:
            if line == "version_data: running\n":
                break
        assert len(processes_of(tmp_path)) > 2
        process.send_signal(number)
        rest = process.stderr.read()
    assert process.returncode == code
    if number == signal.SIGINT:
        assert rest.startswith("\nstopped\n")
        assert "same command again" in rest
    wait_for_the_end(tmp_path)
    assert processes_of(tmp_path) == []


# The whole run, on real images: stopped in the first of two candidates, killed in the second, and run again

SETTINGS: dict[str, Any] = {"candidates": 2, "epochs": 1, "image_size": 96}


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("run") / "work"


@pytest.fixture(scope="module")
def command(work: Path, solar_manifest: Path) -> dict[str, Any]:
    """How the run is started, for subprocess."""
    options = [f"--{name}={value}" for name, value in SETTINGS.items()]
    words = [PROGRAM, "run", solar_manifest, "--workspace", work, "--name", "cells", *options]
    return {"args": words, "env": {key: value for key, value in os.environ.items() if key != "GRAFTLINE_STORE"}}


def run_until(command: dict[str, Any], last: str, number: signal.Signals) -> str:
    """Starts a run, sends it a signal when it says that a step is running, and returns all that it has said."""
    streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "preexec_fn": hear_ctrl_c}
    with subprocess.Popen(**command, **streams, text=True) as process:
        assert process.stderr
        said = ""
        for line in process.stderr:
            said += line
            if line == f"{last}: running\n":
                process.send_signal(number)
    return said


@pytest.fixture(scope="module")
def stopped_run(command: dict[str, Any]) -> str:
    """What a run has said that was stopped by Ctrl-C in the first candidate."""
    return run_until(command, "fine_tune", signal.SIGINT)


@pytest.fixture(scope="module")
def killed_run(command: dict[str, Any], work: Path, stopped_run: str) -> str:
    """What a run has said until it was killed in the second candidate."""
    said = run_until(command, "fine_tune 2", signal.SIGKILL)
    wait_for_the_end(work)
    return said


@pytest.fixture(scope="module")
def first_run(command: dict[str, Any], killed_run: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(**command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def second_run(work: Path, solar_manifest: Path, first_run: object) -> Summary:
    published = (("VGG-19", 0.8842),)
    return run(str(solar_manifest), workspace=str(work), name="cells", published=published, **SETTINGS)


@pytest.mark.slow
def test_ctrl_c_in_a_candidate_does_not_begin_the_next(stopped_run: str, work: Path) -> None:
    assert "\nstopped\n" in stopped_run
    assert "fine_tune 2" not in stopped_run
    (folder,) = (Path(line.split()[1]) for line in stopped_run.splitlines() if line.startswith("run "))
    assert "fine_tune 2" not in (folder / "progress.jsonl").read_text()


@pytest.mark.slow
def test_a_run_killed_in_the_second_candidate_goes_on_there(
    killed_run: str, first_run: "subprocess.CompletedProcess[str]"
) -> None:
    assert first_run.returncode == 0, first_run.stderr
    before = STEPS.index("fine_tune") + 1
    assert "fine_tune: done in " in killed_run
    assert "fine_tune 2: done in " not in killed_run
    for step in STEPS[:before]:
        assert f"{step}: cached\n" in first_run.stderr
    for line in ("fine_tune 2", *STEPS[before:]):
        assert f"{line}: running\n" in first_run.stderr
        assert f"{line}: done in " in first_run.stderr
    assert killed_run.index("fine_tune: done in ") < killed_run.index("fine_tune 2: running\n"), "one after another"


@pytest.mark.slow
def test_the_run_says_which_candidate_was_chosen_and_why(
    first_run: "subprocess.CompletedProcess[str]", second_run: Summary
) -> None:
    choice = second_run.records.choice
    assert choice
    assert [one.strategy for one in choice.candidates] == ["feature_extraction", "fine_tuning"]
    assert choice.chosen == second_run.records.model.sha256 == second_run.records.evaluation.model
    assert choice.reason in " ".join(first_run.stdout.split())
    assert "of 2 candidates" in first_run.stdout
    report = Path(second_run.report).read_text()
    assert "Chosen of 2 candidates" in report
    assert all(one.name in report for one in choice.candidates)
    lineage = json.loads((Path(second_run.bundle) / "lineage.json").read_text())
    assert lineage["choice"]["sha256"] == choice.sha256
    assert lineage["choice"]["record"]["chosen"] == lineage["model"]["sha256"]


@pytest.mark.slow
def test_a_run_ends_with_its_table_and_the_path_of_its_summary(first_run: "subprocess.CompletedProcess[str]") -> None:
    assert first_run.returncode == 0, first_run.stderr
    path = Path(first_run.stdout.splitlines()[-1])
    summary = json.loads(path.read_text())
    assert list(summary) == KEYS
    assert summary["data_version"] in first_run.stdout
    assert percent(summary["test_accuracy"]) in first_run.stdout
    low, high = summary["test_accuracy_interval"]
    assert 0 < low <= summary["test_accuracy"] <= high <= 1
    assert summary["strategy"] in ("feature_extraction", "fine_tuning")
    assert (summary["registry_version"], summary["alias"]) == ("1", "champion")
    assert summary["seconds"] > 0
    assert summary["peak_memory_bytes"] > 100_000_000
    assert Path(summary["report"]).read_text().lstrip().lower().startswith("<!doctype html>")
    bundle = read_record(Path(summary["bundle"]), EdgeBundle)
    assert (Path(summary["bundle"]) / bundle.shipped).is_file()
    fp32 = bundle.variant("fp32")
    assert fp32
    assert summary["fp32_bytes"] == fp32.bytes
    assert (bundle.variant("int8") is None) == (summary["int8_bytes"] is None)
    assert [Variant.model_validate(figures) for figures in summary["variants"]] == bundle.variants


@pytest.mark.slow
def test_a_second_run_takes_every_step_from_the_cache(
    first_run: "subprocess.CompletedProcess[str]", second_run: Summary, capsys: pytest.CaptureFixture[str]
) -> None:
    assert {state for _, state in states(second_run.folder)} == {"cached"}
    assert {step for step, _ in states(second_run.folder)} == {*STEPS, "fine_tune 2"}
    before = json.loads(Path(first_run.stdout.splitlines()[-1]).read_text())
    own = {"seconds", "peak_memory_bytes", "report", "bundle"}
    again = json.loads(second_run.path.read_text())
    assert {key: again[key] for key in KEYS if key not in own} == {key: before[key] for key in KEYS if key not in own}
    show_summary(second_run)
    out = capsys.readouterr().out
    assert "88.4 %" in out
    assert out.splitlines()[-1] == str(second_run.path)


@pytest.mark.slow
def test_after_a_touch_the_same_data_version_leaves_the_later_steps_cached(
    work: Path, solar_manifest: Path, second_run: Summary, tmp_path: Path
) -> None:
    copy = tmp_path / "manifest.csv"
    copy.write_text(solar_manifest.read_text().rstrip("\n"))  # the same rows in another file
    again = run(str(copy), workspace=str(work), name="cells", **SETTINGS)
    running = {step for step, state in states(again.folder) if state == "running"}
    assert running == {"version_data"}
    assert again.records == second_run.records


@pytest.mark.slow
def test_a_bundle_without_int8_has_none_in_the_summary(second_run: Summary) -> None:
    figures = dataclasses.replace(
        second_run, int8_agreement=None, int8_accuracy=None, int8_bytes=None, int8_ms=None
    ).figures()
    assert json.loads(json.dumps(figures))["int8_bytes"] is None
    assert list(figures) == KEYS
