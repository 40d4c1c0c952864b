"""Where training's time goes: sections add up, operations are counted right, and measuring changes no weight."""

import math
import time

import pytest
import torch
from torch import nn
from torch.nn import functional

from graftline.models.backbones import build_empty
from graftline.training.depthwise import speed_up_depthwise
from graftline.training.timer import StepTimer, measure_peak

CHANNELS, SIDE, BATCH, CLASSES = 8, 12, 4, 3


def network() -> nn.Module:
    torch.manual_seed(0)
    convolutions = nn.Conv2d(3, CHANNELS, 3, padding=1), nn.Conv2d(CHANNELS, CHANNELS, 5, padding=2, groups=CHANNELS)
    return nn.Sequential(*convolutions, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(CHANNELS, CLASSES))


def train(model: nn.Module, timer: StepTimer, steps: int, side: int = SIDE) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    torch.manual_seed(1)
    for _ in range(steps):
        x, y = torch.randn(BATCH, 3, side, side), torch.randint(CLASSES, (BATCH,))
        with timer.section("forward"):
            loss = functional.cross_entropy(model(x), y)
        with timer.section("backward"):
            optimizer.zero_grad()
            loss.backward()
        with timer.section("optimizer"):
            optimizer.step()


def operations(timer: StepTimer, name: str) -> float:
    """Operations of the timed calls of a section."""
    return timer.gigaflops(name) * timer.seconds[name] * 1e9


def test_sections_and_other_add_up_to_the_whole() -> None:
    timer = StepTimer(enabled=True)
    started = time.perf_counter()
    with timer.whole():
        with timer.section("decode"):
            time.sleep(0.02)
        with timer.section("validation"):
            time.sleep(0.01)
        time.sleep(0.03)
    seconds = timer.seconds
    assert seconds["decode"] >= 0.02
    assert seconds["validation"] >= 0.01
    assert seconds["other"] >= 0.03
    assert sum(seconds.values()) <= time.perf_counter() - started
    assert list(seconds) == ["decode", "augment", "forward", "backward", "optimizer", "validation", "other"]


def test_a_disabled_timer_measures_nothing() -> None:
    timer = StepTimer()
    with timer.section("forward"):
        pass
    assert timer.section("forward") is timer.section("backward")
    assert sum(timer.seconds.values()) == 0


def test_operations_are_those_of_convolutions_and_linear_layers() -> None:
    timer = StepTimer(enabled=True)
    train(network(), timer, steps=3)
    positions = BATCH * SIDE * SIDE
    first, depthwise, linear = positions * 3 * CHANNELS * 9, positions * CHANNELS * 25, BATCH * CHANNELS * CLASSES
    timed = 2  # the first step is counted instead
    assert operations(timer, "forward") == pytest.approx(timed * 2 * (first + depthwise + linear))
    # two gradients each, but none for the input of the first layer
    assert operations(timer, "backward") == pytest.approx(timed * 2 * (first + 2 * depthwise + 2 * linear))


def test_a_new_stage_with_frozen_layers_is_counted_anew() -> None:
    model, timer = network(), StepTimer(enabled=True)
    train(model, timer, steps=2)
    whole = operations(timer, "backward")
    for layer in list(model)[:2]:  # type: ignore[call-overload]
        layer.requires_grad_(False)
    timer.new_stage()
    train(model, timer, steps=2)
    head_only = operations(timer, "backward") - whole
    assert 0 < head_only < whole / 10


@pytest.mark.parametrize("swapped", [False, True], ids=["plain", "fast depthwise"])
def test_measuring_changes_no_bit_of_the_weights(swapped: bool) -> None:
    weights = []
    for enabled in (False, True):
        torch.manual_seed(0)
        model = build_empty("tf_efficientnet_lite0", CLASSES).eval()
        if swapped:
            speed_up_depthwise(model)
        with torch.autocast("cpu", torch.bfloat16):
            train(model, StepTimer(enabled), steps=2, side=32)
        weights.append(model.state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_fast_depthwise_layers_count_like_plain_ones() -> None:
    counts = []
    for swapped in (False, True):
        model, timer = build_empty("tf_efficientnet_lite0", CLASSES).eval(), StepTimer(enabled=True)
        if swapped:
            speed_up_depthwise(model)
        train(model, timer, steps=2, side=64)
        counts.append([operations(timer, name) for name in ("forward", "backward")])
    assert counts[0] == pytest.approx(counts[1])
    forward, backward = counts[0]
    assert backward == pytest.approx(2 * forward, rel=0.1)  # the stem's input needs no gradient


@pytest.mark.parametrize(("precision", "shown"), [("bf16", "bf16"), ("no", "fp32")])
def test_the_report_names_every_section_and_the_peak_in_the_precision_of_training(precision: str, shown: str) -> None:
    timer = StepTimer(enabled=True)
    with timer.whole():
        train(network(), timer, steps=3)
    first, *rows, last = timer.report(precision)
    assert "2 timed passes" in first
    assert [row.split()[0] for row in rows] == ["decode", "augment", "forward", "backward", "optimizer", "other"]
    assert f"of the {shown} peak" in rows[2]
    assert last.endswith(f" GFLOP/s {shown}")


def test_the_peak_is_the_speed_of_matrix_products() -> None:
    side, best = 2048, math.inf
    a, b = torch.randn(side, side), torch.randn(side, side)
    for _ in range(5):
        started = time.perf_counter()
        torch.mm(a, b)
        best = min(best, time.perf_counter() - started)
    by_hand = 2 * side**3 / best / 1e9
    assert by_hand / 3 < measure_peak() < 3 * by_hand  # a busy machine halves the one or the other


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_peak_is_known_within_about_a_second_also_where_a_precision_is_emulated(dtype: torch.dtype) -> None:
    started = time.perf_counter()
    assert measure_peak(dtype=dtype) > 0
    assert time.perf_counter() - started < 3  # on a busy machine; the emulated products of old took two minutes
