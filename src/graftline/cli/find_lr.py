"""The command `find_lr`."""

from pathlib import Path

from graftline.errors import GraftlineError, check_seed
from graftline.files import beside, write_atomic
from graftline.records import AugmentationPolicy, DataVersion, read_record


def find_lr(
    dataset: Path,
    policy: Path,
    plans: Path,
    out: Path,
    *,
    champion: Path | None = None,
    rank: int = 1,
    settings: str = "",
    seed: int = 0,
    device: str = "auto",
) -> str:
    """Looks for a learning rate: a range test of up to 100 steps, with its plot and a suggestion.

    The suggestion is a tenth of the rate at which the smoothed training loss is lowest. It is a start, not a proof:
    compare it with the plan's own rate on the validation images.

    Args:
        dataset: Folder written by version_data.
        policy: Folder written by augment.
        plans: Folder written by select_strategy.
        out: Folder to write range_test.csv and range_test.png into.
        champion: Folder of the champion's model, for a plan that starts from its weights.
        rank: Which plan, 1 is the best.
        settings: Other settings instead of the plan's, as for fine_tune.
        seed: Of data order and augmentation.
        device: auto, cpu or cuda.

    Returns:
        The suggestion, in words.

    Raises:
        GraftlineError: An input is not what it should be, or the plan trains no layers.
    """
    from graftline.training.device import make_accelerator
    from graftline.training.range_test import draw_range_test
    from graftline.transfer.settings import change_plan, read_plan
    from graftline.transfer.start import load_champion
    from graftline.transfer.strategies import find_rate, load_transfer_data

    check_seed(seed)
    if out.exists() and not out.is_dir():
        raise GraftlineError(f"{out} is a file: give a folder for the output")
    data, chosen = read_record(dataset, DataVersion), read_record(policy, AugmentationPolicy)
    plan = change_plan(read_plan(plans, data, chosen, rank), settings)
    start = load_champion(champion, data.classes) if champion and plan.champion else None
    result = find_rate(plan, chosen, load_transfer_data(dataset, plan), make_accelerator(device), seed, start)
    rows = "".join(f"{rate:.6g},{loss:.6f}\n" for rate, loss in zip(result.rates, result.losses, strict=True))
    write_atomic(out / "range_test.csv", "learning_rate,smoothed_loss\n" + rows)
    with beside(out / "range_test.png") as new:
        draw_range_test(new, result)
    tested = f"{len(result.rates)} steps up to {result.rates[-1]:.0e}; the plan's rate is {plan.learning_rate:g}"
    return f"suggested --learning_rate {result.suggestion:.1e} ({tested})\nout: {out}"
