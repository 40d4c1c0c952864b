"""Mistakes in options, told before anything is started: the steps that would find them come after hours of others."""

from collections.abc import Mapping
from typing import Any, Literal, get_args

from graftline.errors import GraftlineError, check_choice, check_seed
from graftline.storage.addresses import refuse_credentials

Device = Literal["auto", "cpu", "cuda"]


def check_options(options: Mapping[str, Any]) -> None:
    """Checks those options of a run that need no images to be checked.

    Args:
        options: By name; what is not there is the pipeline's default.

    Raises:
        GraftlineError: One of them cannot be what is given for it.
    """
    from graftline.data.git_registry import check_address
    from graftline.registry.versions import check_name

    check_seed(options.get("seed", 0))
    check_address(options.get("registry", ""))
    check_tracking_uri(options.get("tracking_uri", ""))
    check_choice("device", options.get("device", "auto"), get_args(Device))
    for name in ("image_size", "candidates"):
        if options.get(name, 0) < 0:
            raise GraftlineError(f"{name} is {options[name]}: give a positive number, or 0 to have it chosen")
    _check_settings(options)
    if "name" in options:
        check_name(options["name"])


def check_tracking_uri(address: str) -> None:
    """Refuses an MLflow address with credentials in it: a run writes it down, and a process list shows it.

    Raises:
        GraftlineError: It has some.
    """
    instead = "give the whole address by MLFLOW_TRACKING_URI in the environment"
    refuse_credentials("the tracking URI", address, instead)


def _check_settings(options: Mapping[str, Any]) -> None:
    """Tries the changes of the plan on one of ours: the real plan comes late, and other plans take the same."""
    from graftline.records import TransferPlan
    from graftline.transfer.settings import change_plan

    plan = TransferPlan(
        backbone="any",
        strategy="fine_tuning",
        image_size=224,
        epochs=1,
        batch_size=16,
        learning_rate=1e-3,
        layer_decay=1.0,
        frozen_groups=0,
        schedule="cosine",
        warmup_steps=0,
        weight_decay=0.0,
        label_smoothing=0.0,
        reasons=[],
    )
    names = ("settings", "epochs", "batch_size", "learning_rate")
    change_plan(plan, **{name: options[name] for name in names if name in options})
