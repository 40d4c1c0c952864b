"""Precision, memory layout and compilation: measured once, and without effect on what is learned."""

import json
import math
from pathlib import Path

import pytest
import torch
from builders import write_plans

from graftline import fine_tune
from graftline.errors import GraftlineError
from graftline.training import speed
from graftline.training.device import make_accelerator
from graftline.training.speed import Speed, choose_fastest, measure_speeds

CPU = torch.device("cpu")


def _times(**seconds: float) -> list[Speed]:
    return [Speed(*name.split("__"), value) for name, value in seconds.items()]


def _measured(patch: pytest.MonkeyPatch, cache: Path, speeds: list[Speed]) -> list[torch.device]:
    """Puts times in the place of a measurement; returns the list of the measurements that were made."""
    asked: list[torch.device] = []
    patch.setenv("GRAFTLINE_CACHE", str(cache))
    patch.setattr(speed, "measure_speeds", lambda device: asked.append(device) or speeds)
    return asked


@pytest.mark.parametrize(
    ("bf16", "contiguous", "expected"),
    [
        (1.0, 1.5, ("bf16", "channels_last")),
        (1.9, 2.5, ("fp32", "channels_last")),
        (math.inf, 1.0, ("fp32", "contiguous")),
    ],
)
def test_the_fastest_way_is_taken_where_it_gains_enough(
    bf16: float, contiguous: float, expected: tuple[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    speeds = _times(fp32__channels_last=2.0, fp32__contiguous=contiguous, bf16__channels_last=bf16)
    _measured(monkeypatch, tmp_path, speeds)
    chosen = choose_fastest(CPU)
    assert (chosen.precision, chosen.layout) == expected


def test_a_machine_is_measured_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    speeds = _times(fp32__channels_last=1.0, fp32__contiguous=2.0, bf16__channels_last=math.inf)
    asked = _measured(monkeypatch, tmp_path, speeds)
    assert [choose_fastest(CPU) for _ in range(2)] == [speeds[0]] * 2
    assert choose_fastest(CPU, layout="contiguous") == speeds[1]
    assert len(asked) == 1
    assert (choose_fastest(CPU, "bf16", "contiguous").precision, len(asked)) == ("bf16", 1)


@pytest.mark.slow
def test_a_measurement_covers_every_way_and_leaves_the_threads_alone() -> None:
    threads, state = torch.get_num_threads(), torch.random.get_rng_state()
    speeds = measure_speeds(CPU)
    ways = {(s.precision, s.layout) for s in speeds}
    assert ways == {(p, layout) for p in ("fp32", "bf16") for layout in ("channels_last", "contiguous")}
    assert all(s.seconds > 0 for s in speeds)
    assert min(s.seconds for s in speeds) < math.inf
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.random.get_rng_state(), state)


def test_one_process_may_choose_differently_from_step_to_step() -> None:
    assert make_accelerator("cpu", "bf16", "contiguous").arithmetic == "bf16 contiguous"
    assert make_accelerator("cpu", "fp32", "channels_last").arithmetic == "no channels_last"


def test_compiling_without_a_compiler_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(GraftlineError, match=r"torch_compile needs a C\+\+ compiler"):
        make_accelerator("cpu", torch_compile=True)


@pytest.mark.slow
def test_layout_and_compilation_learn_the_same(solar_dataset: Path, policy: Path, plans: Path, tmp_path: Path) -> None:
    small = {"backbone": "test_resnet", "from_scratch": True, "image_size": 64, "epochs": 2, "batch_size": 8}
    write_plans(plans, tmp_path / "plans", small | {"strategy": "fine_tuning", "warmup_steps": 2})
    losses = []
    for layout, compiled in (("channels_last", False), ("contiguous", False), ("contiguous", True)):
        out = tmp_path / f"{layout}-{compiled}"
        how = {"precision": "fp32", "memory_format": layout, "torch_compile": compiled}
        fine_tune(solar_dataset, policy, tmp_path / "plans", out, checkpoints=f"{out}-saved", **how)  # type: ignore[arg-type]
        losses.append([row["validation_loss"] for row in json.loads((out / "history.json").read_text())])
    assert losses[1] == pytest.approx(losses[0], abs=1e-3)
    assert losses[2] == pytest.approx(losses[0], abs=1e-3)
