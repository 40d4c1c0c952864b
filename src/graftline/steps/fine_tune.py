"""The step `fine_tune`: carries out a transfer plan."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from graftline.errors import check_seed
from graftline.files import output_folder, write_json
from graftline.progress import say
from graftline.records import (
    AugmentationPolicy,
    DataVersion,
    Settings,
    TrainedModel,
    TransferPlan,
    TransferPlans,
    read_record,
)
from graftline.workspace import workspace

if TYPE_CHECKING:
    import numpy as np

    from graftline.transfer.start import Champion
    from graftline.transfer.strategies import TransferResult


def fine_tune(
    dataset: Path,
    policy: Path,
    plans: Path,
    out: Path,
    *,
    champion: Path | None = None,
    rank: int = 1,
    epochs: int = 0,
    batch_size: int = 0,
    learning_rate: float = 0.0,
    settings: str = "",
    seed: int = 0,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto",
    memory_format: Literal["auto", "channels_last", "contiguous"] = "auto",
    torch_compile: bool = False,
    processes: int = 0,
    checkpoints: str = "",
    show_times: bool = False,
) -> TrainedModel:
    """Trains a classifier by one of the ranked plans, with a checkpoint after every epoch and five minutes.

    The same call after an interruption resumes after the last checkpoint and ends with the same weights. SIGTERM writes
    a checkpoint and ends with exit code 143. Everything frozen is compared bit by bit with the weights it
    started from at the end.

    Args:
        dataset: Folder written by version_data.
        policy: Folder written by augment.
        plans: Folder written by select_strategy.
        out: Folder to write: record.json, model.safetensors, history.json, curves.png; of one of several candidates
            also validation.parquet, its answers to the validation images.
        champion: Folder of the model that select_strategy was given, for a plan that starts from its weights.
        rank: Which plan, 1 is the best.
        epochs: Passes over the training images instead of the plan's; 0 keeps the plan's.
        batch_size: Images per optimizer step instead of the plan's; 0 keeps the plan's.
        learning_rate: Peak rate instead of the plan's; 0 keeps the plan's.
        settings: Other settings instead of the plan's, as a YAML mapping with or without its braces, such as
            dropout: 0.2, group_rates: [0, 0, 1e-5], or as name=value separated by commas; there are
            SETTINGS.
        seed: Of data order and augmentation.
        device: Where to train; auto takes a GPU where there is one.
        precision: Of the arithmetic; auto takes the fastest by a short measurement, made once on each machine.
        memory_format: How images and weights lie in memory; auto takes the fastest by the same measurement.
        torch_compile: Train through torch.compile, which pays in long trainings on a GPU.
        processes: How many train together on this machine, each its part of every batch; 0 means one per GPU, or one
            without GPUs.
        checkpoints: Folder for checkpoints; empty takes checkpoints/ in the workspace, and a copy in the store when
            GRAFTLINE_STORE is set.
        show_times: Print where the time of training went, beside the machine's measured matrix-multiply peak.

    Returns:
        The trained model's record.

    Raises:
        GraftlineError: An input or a setting is not what it should be, or the loss rises however low the rate.
        WeightsError: The backbone's weights are not at hand.
        FrozenMovedError: A frozen layer changed.
        SystemExit: SIGTERM came; a checkpoint is written.
    """
    arguments = dict(locals())
    from graftline.models.backbones import input_spec
    from graftline.models.trained import read_trained
    from graftline.scaleout.hand_over import handed_over
    from graftline.storage.connect import lasting_store
    from graftline.training.agreement import from_main
    from graftline.training.checkpoints import Checkpoints, run_name
    from graftline.training.device import make_accelerator
    from graftline.training.timer import StepTimer
    from graftline.transfer.settings import change_plan, read_plan
    from graftline.transfer.start import load_champion
    from graftline.transfer.strategies import carry_out, load_transfer_data

    check_seed(seed)
    if handed_over(f"{__name__}:fine_tune", arguments):
        return read_trained(out)[0]
    data = read_record(dataset, DataVersion)
    chosen = read_record(policy, AugmentationPolicy)
    plan = change_plan(read_plan(plans, data, chosen, rank), settings, epochs, batch_size, learning_rate)
    several = len(read_record(plans, TransferPlans).candidates) > 1
    if several:
        say(f"rank {rank}: {plan.name}")
    start = load_champion(champion, data.classes) if champion and plan.champion else None
    accelerator = make_accelerator(device, precision, memory_format, torch_compile)
    parts = [data.version, chosen.sha256, plan.json_text, str(seed), accelerator.arithmetic, str(torch_compile)]
    parts.append(repr(input_spec(plan.backbone)))  # as the weights at hand say
    run = Path(checkpoints or workspace() / "checkpoints") / run_name(parts)
    saved = Checkpoints(run, None if checkpoints else lasting_store(), accelerator.is_main_process)
    timer = StepTimer(show_times, accelerator.device)
    with timer.whole(), timer.section("decode"), accelerator.local_main_process_first():  # it fills the cache
        images = load_transfer_data(dataset, plan)
    result = carry_out(plan, chosen, images, accelerator, saved, seed, timer, start)
    for line in timer.report(accelerator.mixed_precision) if show_times else []:
        say(line)
    if accelerator.is_main_process:
        with output_folder(out) as folder:
            if several:
                result.model.to(accelerator.device)
                _write_answers(folder, dataset, result, images.validation.pixels)
            _write(folder, result, data, chosen, plan, seed, start)
        saved.clear()
    return from_main(accelerator, lambda: read_record(out, TrainedModel))


# Every setting stands once, in records/transfer.py.
fine_tune.__doc__ = str(fine_tune.__doc__).replace("SETTINGS", ", ".join(Settings.model_fields))


def _write_answers(folder: Path, dataset: Path, result: "TransferResult", pixels: "np.ndarray") -> None:
    from graftline.data.dataset import open_split
    from graftline.evaluation.outputs import VALIDATION_FILE, write_predictions
    from graftline.models.predict import predict

    probabilities = predict(result.model.eval(), pixels, result.spec.mean, result.spec.std)
    write_predictions(folder / VALIDATION_FILE, open_split(dataset, "validation"), probabilities)


def _write(
    folder: Path,
    result: "TransferResult",
    data: DataVersion,
    policy: AugmentationPolicy,
    plan: TransferPlan,
    seed: int,
    start: "Champion | None",
) -> None:
    from graftline.models.trained import save_weights
    from graftline.training.curves import draw_curves

    write_json(folder / "history.json", result.history)
    if len(result.history) > 1:
        draw_curves(folder / "curves.png", result.history, result.rates, result.kept_epoch)
    TrainedModel(
        data_version=data.version,
        policy=policy.sha256,
        plan=plan,
        pretrained=result.pretrained,
        learned_before=start.learned_from if start else [],
        classes=data.classes,
        image_size=plan.image_size,
        mean=result.spec.mean,
        std=result.spec.std,
        interpolation=result.spec.interpolation,
        parameters=sum(p.numel() for p in result.model.parameters()),
        seed=seed,
        kept_epoch=result.kept_epoch,
        validation_accuracy=result.validation_accuracy,
        events=result.events,
        weights=save_weights(folder, result.model),
    ).write(folder)
