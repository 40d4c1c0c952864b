"""Mistakes in options, told before anything is started: the steps that would find them come after hours of others."""

from graftline.errors import GraftlineError, check_seed
from graftline.options import Options, read
from graftline.storage.addresses import refuse_credentials


def check_options(options: Options) -> None:
    """Checks those options of a run that need no images to be checked; their types and choices are right already.

    Raises:
        GraftlineError: One of them cannot be what is given for it.
    """
    from graftline.data.git_registry import check_address
    from graftline.registry.versions import check_name
    from graftline.steps.export_onnx import check_values

    check_seed(read(options, "seed", int))
    check_address(read(options, "registry", str))
    check_tracking_uri(read(options, "tracking_uri", str))
    for name in ("image_size", "candidates", "processes"):
        if read(options, name, int) < 0:
            raise GraftlineError(f"{name} is {options[name]}: give a positive number, or 0 to have it chosen")
    check_values(read(options, "calibration_images", int), read(options, "min_agreement", float))
    _check_settings(options)
    check_name(read(options, "name", str))


def check_tracking_uri(address: str) -> None:
    """Refuses an MLflow address with credentials in it: a run writes it down, and a process list shows it.

    Raises:
        GraftlineError: It has some.
    """
    instead = "give the whole address by MLFLOW_TRACKING_URI in the environment"
    refuse_credentials("the tracking URI", address, instead)


def _check_settings(options: Options) -> None:
    """Tries the changes of the plan on one of ours: the real plan comes late, and other plans take the same."""
    from graftline.records import TransferPlan
    from graftline.transfer.settings import change_plan

    plan = TransferPlan(backbone="any", strategy="fine_tuning", reasons=[])
    change_plan(
        plan,
        read(options, "settings", str),
        read(options, "epochs", int),
        read(options, "batch_size", int),
        read(options, "learning_rate", float),
    )
