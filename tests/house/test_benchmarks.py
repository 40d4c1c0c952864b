"""The benchmarks run and their figures hang together: tiny images, no claim about speed."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from graftline.records import DataVersion, Interval, read_record

ROOT = Path(__file__).parents[2]


def run(script: str, *arguments: str | Path) -> str:
    command = [sys.executable, ROOT / "benchmarks" / script, *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT).stdout


@pytest.mark.slow
def test_training_benchmark_measures_all_contenders(tmp_path: Path) -> None:
    out = tmp_path / "training.json"
    shown = run("training.py", "--smoke", "--out", out)
    result = json.loads(out.read_text())
    names = ["graftline", "tutorial"] if result["skipped"] else ["graftline", "tutorial", "fastai"]
    assert [list(result[part]) for part in ("images_per_second", "trained", "memory")] == [names] * 3
    assert all(len(rounds) == 1 and rounds[0] > 0 for rounds in result["images_per_second"].values())
    for trained in result["trained"].values():
        assert 0 <= trained["training"]["right"] <= result["images"]["test"]
        seconds = [point[0] for point in trained["training"]["curve"]]
        assert seconds[0] > 0 and seconds == sorted(seconds)
        assert trained["training"]["seconds"] >= seconds[-1] - 1e-6
    assert {name: each["features"]["extrapolated"] for name, each in result["trained"].items()} == {
        name: name != "graftline" for name in names
    }
    assert list(result["memory_by_images"]) == ["8", "160"]
    for line in ("images/s, all layers", "test accuracy (95 %", "seconds to 0.85", "peak memory", *result["skipped"]):
        assert line in shown
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="memory is measured on Linux only")
def test_peak_memory_is_that_of_the_process_and_its_children(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    from _common import PeakMemory

    child = "x = bytearray(200_000_000); print('ready', flush=True); input()"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", parent], text=True, **pipes) as process:
        watch = PeakMemory(process.pid)
        assert process.stdout and process.stdout.readline() == "ready\n"
        peaks = watch.peaks()
        watch.stop()
        process.communicate("\n")
    assert 200e6 < peaks["own"] < 300e6
    assert peaks["resident"] < 100e6


@pytest.mark.slow
def test_memory_benchmark_compares_both_modes() -> None:
    shown = run("memory.py", "--rounds", "1", "--steps", "1", "--side", "64", "--batch", "4")
    kept, given_back, ratio = shown.splitlines()
    assert kept.startswith("freed memory kept") and given_back.startswith("freed memory given back")
    assert "images/s" in kept and ratio.startswith("ratio, median of 1 rounds")


@pytest.mark.slow
def test_folding_benchmark_compares_both_and_shows_the_amplification() -> None:
    shown = run("folding.py", "--rounds", "1", "--steps", "1", "--side", "64", "--batch", "4")
    amplified, folded, apart, ratio = shown.splitlines()
    assert float(amplified.split("at most ")[1].split(",")[0]) > 10
    assert "images/s" in folded and "images/s" in apart and ratio.startswith("ratio, median of 1 rounds")


def test_more_than_an_epoch_holds_is_refused_before_anything_is_prepared(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import training as benchmark

    for words, taken in ((["--batch", "256"], "2 + 6 steps of 256"), (["--steps", "51"], "2 + 51 steps of 32")):
        monkeypatch.setattr(sys, "argv", ["training.py", *words])
        with pytest.raises(SystemExit):
            benchmark._options()
        assert f"a round of {taken} images takes more than the 1,673 training images" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["training.py", "--steps", "50"])
    assert benchmark._options().steps == 50


@pytest.mark.slow
def test_benchmarks_know_how_many_training_images_the_demo_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    from _data import make_dataset
    from training import TRAIN_IMAGES

    counts = read_record(make_dataset(tmp_path), DataVersion).counts
    assert sum(counts["train"].values()) == TRAIN_IMAGES


def test_settings_of_the_user_reach_no_contender(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    from _common import forget_settings

    theirs = {"GRAFTLINE_CACHE": "c", "GRAFTLINE_WEIGHTS": "w", "GRAFTLINE_STORE": "s", "MLFLOW_TRACKING_URI": "m"}
    environment = {"PATH": "bin", **theirs}
    monkeypatch.setattr(os, "environ", environment)
    forget_settings()
    assert environment == {"PATH": "bin"}


@pytest.mark.slow
def test_strategies_benchmark_trains_each_seed_once_and_tells_sets_of_one_name_apart(
    solar_manifest: Path, tmp_path: Path
) -> None:
    options = ["--strategies", "feature_extraction", "--seeds", "2", "--jobs", "2", "--work", tmp_path / "work"]
    shown = [run("strategies.py", solar_manifest, *options, "--out", tmp_path / "out.json") for _ in range(2)]
    assert shown[0] == shown[1]
    (plan,) = json.loads((tmp_path / "out.json").read_text())
    first, second = plan["seeds"]
    assert first["accuracy"] == second["accuracy"] > 0.5 and first["n"] == 16
    assert f"| manifest | {plan['plan']} | {first['accuracy']:.4f} ± 0.0000 | 2 | 16 |" in shown[0]
    (folder,) = (tmp_path / "work").iterdir()
    trained = [f"tf_efficientnet_lite0-{plan['rank']}-{seed}" for seed in (0, 1)]
    assert sorted(path.parent.name for path in folder.glob("*/result.json")) == trained

    other = tmp_path / solar_manifest.name
    other.write_text("\n".join(solar_manifest.read_text().splitlines()[:61]))  # three of the four kinds
    again = run("strategies.py", other, *options, "--out", tmp_path / "other.json")
    assert "| 2 | 12 |" in again and again.splitlines()[2].startswith("| manifest |")


def test_strategies_benchmark_times_whole_trainings_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import strategies as benchmark

    started: list[bool] = []

    def fine_tune(*folders: Path, checkpoints: str, **options: int) -> None:
        started.append(Path(checkpoints).exists())
        Path(checkpoints).mkdir(parents=True)
        if len(started) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(benchmark, "fine_tune", fine_tune)
    answer = SimpleNamespace(accuracy=Interval(value=0.5, low=0.1, high=0.9, n=10))
    monkeypatch.setattr(benchmark, "evaluate", lambda *folders: answer)
    case = benchmark.Case("set", tmp_path, tmp_path / "plans", 1, SimpleNamespace(backbone="net"))
    with pytest.raises(KeyboardInterrupt):
        benchmark._train(case, 0)
    old = tmp_path / "net-1-0" / "result.json"
    old.write_text(json.dumps({"accuracy": 0.9, "n": 10, "seconds": 1.0}))
    assert benchmark._train(case, 0).accuracy == 0.5, "a result without threads is of an older layout"
    assert started == [False, False], "no training goes on where another was stopped"
    assert benchmark._train(case, 0) == benchmark._train(case, 0)
    assert len(started) == 2


def test_orchestration_benchmark_counts_the_imports_of_one_candidate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import orchestration as benchmark

    calls: list[tuple[list[str], dict[str, str]]] = []

    def answer(command: list[Any], env: dict[str, str], **_: object) -> SimpleNamespace:
        calls.append((list(map(str, command[-2:])), env))
        (tmp_path / "runs" / "one").mkdir(parents=True)
        (tmp_path / "runs" / "one" / "pipeline.log").touch()
        (tmp_path / "runs" / "one" / "progress.jsonl").touch()
        return SimpleNamespace(returncode=0, stdout="{}", stderr="")

    monkeypatch.setattr(benchmark.subprocess, "run", answer)
    monkeypatch.setenv("GRAFTLINE_CACHE", "theirs")
    for in_pipeline in (True, False):
        benchmark._imports(tmp_path / "manifest.csv", tmp_path, in_pipeline)
        benchmark._run(tmp_path / "manifest.csv", tmp_path, in_pipeline)
    assert [words for words, _ in calls] == [["--candidates", "1"], ["--candidates", "0"]] * 2
    assert ["PYTHONPROFILEIMPORTTIME" in env for _, env in calls] == [True, False] * 2
    assert not [env for _, env in calls if "GRAFTLINE_CACHE" in env]


def test_orchestration_benchmark_reads_runs_and_counts_what_they_cost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import orchestration as benchmark

    events = [("augment", "running", 10.0), ("augment", "done", 12.5), ("evaluate", "running", 13.0)]
    lines = [json.dumps({"step": step, "state": state, "time": time}) for step, state, time in events]
    lines += [json.dumps({"message": "hello"}), json.dumps({"step": "evaluate", "state": "done", "time": 17.0})]
    folder = tmp_path / "runs" / "one"
    folder.mkdir(parents=True)
    (folder / "progress.jsonl").write_text("\n".join(lines))
    assert benchmark._tasks(tmp_path) == {"augment": 2.5, "evaluate": 4.0}
    log = [
        "import time:      1000 |       9999 | kfp",
        "12:00 - INFO - Executing task 'fine-tune'",
        "    import time:   2000000 |    2000000 |   torch",
        "    import time: self [us] | cumulative | imported package",
        "12:00 - INFO - Task 'fine-tune' finished with status SUCCESS",
        "import time:      1000 |       9999 | json",
    ]
    assert benchmark.import_seconds(log) == {"outside the steps": 0.002, "fine_tune": 2.0}
    pipeline = [benchmark.Measured(whole, {"augment": 3.0, "evaluate": 4.0}) for whole in (11.0, 12.0, 10.0)]
    alone = [benchmark.Measured(10.0, {"augment": 2.0, "evaluate": 4.0})] * 3
    *table, last, fastest = benchmark._table(pipeline, alone, {"pipeline": {"augment": 1.5}, "alone": {"augment": 0.5}})
    assert last.startswith("overhead: 10.00 (0.00 to 20.00) %, 1.00 (0.00 to 2.00) seconds; median of 3 rounds")
    disturbed = [benchmark.Measured(8.0, {"augment": 4.0, "evaluate": 3.0}), *alone[1:]]
    assert fastest == "by the fastest of each step: 0.0 %, 0.0 seconds"
    assert benchmark._undisturbed(pipeline, disturbed) == "by the fastest of each step: 66.7 %, 4.0 seconds"
    assert table[1].split() == [
        "augment",
        "3.00",
        "(3.00",
        "to",
        "3.00)",
        "2.00",
        "(2.00",
        "to",
        "2.00)",
        "1.00",
        "1.5",
    ]
    assert table[3].split()[:6] == ["outside", "the", "steps", "4.00", "(3.00", "to"]
