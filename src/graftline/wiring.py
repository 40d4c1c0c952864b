"""What the pipelines ask for: the options of their steps, less what their wiring decides.

Inputs of the pipelines and options of `run`, `retrain`, `submit` and `schedule create` are made from this, so that an
option of a step needs nothing but the step and its component.
"""

from dataclasses import replace
from functools import cache
from importlib import import_module
from typing import Literal

from graftline.options import Option, declared
from graftline.steps import RETRAIN_STEPS, STEPS

PipelineName = Literal["train", "retrain"]
STEPS_OF: dict[PipelineName, tuple[str, ...]] = {"train": STEPS, "retrain": RETRAIN_STEPS}

# What a step can be asked for and a pipeline cannot: it comes from another step, or is the same in every run.
WIRED: dict[str, tuple[str, ...]] = {
    "version_data": ("previous",),
    "select_strategy": ("champion",),
    "fine_tune": ("champion", "rank"),
    "evaluate": ("split",),
    "register_model": ("model",),
    "fetch_champion": ("version",),
}
# What came by itself, on a schedule, has to be better than the champion; what somebody trains by hand, not worse.
WIRED_IN_TRAIN = ("promote",)
DEFAULTS_OF_RETRAIN = {"promote": "better"}
# An input of the pipelines, but no option of commands: here checkpoints go to the workspace, on a cluster to the store.
PLACED = ("checkpoints",)
# What the steps say each of a part.
SENTENCES = {"seed": "Seed of everything random."}


@cache
def inputs_of(pipeline: PipelineName) -> dict[str, Option]:
    """Returns the options of a pipeline's steps: in their order, and at the end those that several steps have."""
    found: dict[str, list[Option]] = {}
    for step in STEPS_OF[pipeline]:
        for option in _asked(step, pipeline):
            found.setdefault(option.name, []).append(option)
    ordered = sorted(found.values(), key=lambda same: len(same) > 1)
    return {first.name: _in_pipeline(first, pipeline) for first, *_ in ordered}


@cache
def options_of(pipeline: PipelineName) -> dict[str, Option]:
    """Returns what commands that start a pipeline can be asked for, wherever it runs."""
    return {name: option for name, option in inputs_of(pipeline).items() if name not in PLACED}


def _asked(step: str, pipeline: PipelineName) -> list[Option]:
    wired = (*WIRED.get(step, ()), *(WIRED_IN_TRAIN if pipeline == "train" else ()))
    function = getattr(import_module(f"graftline.steps.{step}"), step)
    return [option for name, option in declared(function).items() if name not in wired]


def _in_pipeline(option: Option, pipeline: PipelineName) -> Option:
    default = DEFAULTS_OF_RETRAIN.get(option.name, option.default) if pipeline == "retrain" else option.default
    return replace(option, default=default, sentence=SENTENCES.get(option.name, option.sentence))
