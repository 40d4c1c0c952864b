"""The command `backbones`: the catalog as a table, or one backbone in detail."""

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

    from graftline.models.catalog import Backbone

_WIDTH_OF_A_FILE = 120


def backbones(*, name: str = "") -> dict[str, Any] | None:
    """Lists the backbones: size, cost, input, use, and whether their weights are at hand.

    Every other timm name can be named wherever a backbone is named, too.

    Args:
        name: Shows this backbone only, any timm name, with what its weights want of their images.

    Returns:
        Nothing, or what there is to say about the named one.

    Raises:
        GraftlineError: timm does not know the name, or the store of `GRAFTLINE_STORE` does not answer.
    """
    if name:
        return _details(name)
    _show_catalog()
    return None


def _details(name: str) -> dict[str, Any]:
    from graftline.models.backbones import input_spec
    from graftline.models.catalog import measure, suggested_use
    from graftline.models.weights import weights_at_hand

    backbone, spec = measure(name), input_spec(name)
    source = weights_at_hand([name]).get(name)
    facts = {
        "suggested use": suggested_use(name),
        "parameters": f"{backbone.parameters:,}",
        "GMACs": f"{backbone.macs / 1e9:.2f}",
        "layer groups": backbone.layer_groups,
        "input": f"{spec.image_size} x {spec.image_size}, {spec.interpolation}",
        "mean": list(spec.mean),
        "std": list(spec.std),
        "weights": f"{source.kind}: {source.place}" if source else "not at hand",
    }
    return {fact: value for fact, value in facts.items() if value != ""}


def _show_catalog() -> None:
    from rich.console import Console

    from graftline.models.catalog import catalog
    from graftline.models.weights import weights_at_hand

    rows = catalog()
    kinds = {name: source.kind for name, source in weights_at_hand(row.name for row in rows).items()}
    console = Console(width=None if sys.stdout.isatty() else _WIDTH_OF_A_FILE, highlight=False)
    console.print(_table(rows, kinds))
    others = "Any other timm name that ends in one linear layer works, too."
    console.print(f"Weights that are not at hand come from the hub. {others}", style="dim")


def _table(rows: list["Backbone"], kinds: dict[str, str]) -> "Table":
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from graftline.models.catalog import FAMILIES, suggested_use

    table = Table(box=SIMPLE_HEAD)
    table.add_column("backbone", no_wrap=True)
    for title in ("M parameters", "GMACs", "input"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("suggested use")
    table.add_column("weights at hand", no_wrap=True)
    last_of_family = {list(family)[-1] for family in FAMILIES.values()}
    for row in rows:
        numbers = (f"{row.parameters / 1e6:.1f}", f"{row.macs / 1e9:.2f}", f"{row.image_size} px")
        ends = row.name in last_of_family
        table.add_row(row.name, *numbers, suggested_use(row.name), kinds.get(row.name, ""), end_section=ends)
    return table
