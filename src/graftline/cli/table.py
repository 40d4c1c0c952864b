"""The table at the end of a run."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from graftline.records import Choice, EdgeBundle, Evaluation, FileEntry, Interval, Record
from graftline.runs.summary import Summary
from graftline.words import clock, percent, points_in_brief, size

if TYPE_CHECKING:
    from rich.table import Table
    from rich.tree import Tree

_WIDTH_OF_A_FILE = 120


def show_summary(summary: Summary) -> None:
    """Prints a run's table to standard output; its last line is the path of `summary.json`."""
    from rich.console import Console
    from rich.padding import Padding
    from rich.text import Text

    console = Console(width=None if sys.stdout.isatty() else _WIDTH_OF_A_FILE, highlight=False)
    console.print()
    console.print(_main_table(summary))
    choice = summary.records.choice
    for table in (*([_candidates_table(choice)] if choice else []), _variants_table(summary.records.bundle)):
        console.print(Padding(table, (0, 0, 0, 9)))
    for name, text in _places(summary):
        console.print(Text.assemble((f"{name:8}", "dim"), f"  {text}"), soft_wrap=True)  # cut, a path is of no use
    print(summary.path)


def show_record(record: Record) -> None:
    """Prints what a record says, as YAML, without its lists of files."""
    import yaml

    print(yaml.safe_dump(_readable(record), sort_keys=False, allow_unicode=True, width=_WIDTH_OF_A_FILE), end="")


def show_tree(title: str, content: dict[str, Any]) -> None:
    """Prints nested values: as a tree at a terminal, as JSON elsewhere."""
    if not sys.stdout.isatty():
        print(json.dumps(content, indent=2, ensure_ascii=False))
        return
    from rich.console import Console
    from rich.text import Text
    from rich.tree import Tree

    tree = Tree(Text(title), guide_style="dim")  # what is no Text is markup to rich: brackets vanish
    _grow(tree, content)
    Console(highlight=False).print(tree)


def _grow(tree: "Tree", content: dict[str, Any]) -> None:
    from rich.text import Text

    for name, value in content.items():
        if isinstance(value, dict):
            _grow(tree.add(Text(name)), value)
        elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
            tree.add(Text.assemble(name, (f"  {len(value)} entries", "dim")))
        elif name == "reasons":
            branch = tree.add(name)
            for reason in value:
                branch.add(Text(reason))
        else:
            text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            tree.add(Text.assemble((f"{name}  ", "dim"), text))


def _readable(value: Any) -> Any:
    """Returns a record's content as plain values, each interval in one line."""
    if isinstance(value, Interval):
        return str(value)
    if isinstance(value, BaseModel):
        named = {name: _readable(getattr(value, name)) for name in type(value).model_fields}
        return {
            name: content
            for name, content in named.items()
            if content not in ([], {}, None) and name != "schema_version"
        }
    if isinstance(value, dict):
        return {name: _readable(content) for name, content in value.items()}
    if isinstance(value, (list, tuple)):
        return [_readable(content) for content in value if not isinstance(content, FileEntry)]
    return value


def _main_table(summary: Summary) -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="dim", width=8)
    table.add_column()
    for name, fact, detail in _facts(summary):
        table.add_row(name, Text.assemble((fact, "bold"), ("  " if fact and detail else ""), (detail, "dim")))
    return table


def _facts(summary: Summary) -> Iterator[tuple[str, str, str]]:
    """Yields the rows of the main table: name, what is so, and what stands behind it."""
    data, plan = summary.records.data, summary.records.model.plan
    evaluation, registration = summary.records.evaluation, summary.records.registration
    yield "data", data.version, f"{data.images:,} images: {', '.join(data.classes)}"
    yield "plan", plan.name, f"at {plan.image_size} px"
    for reason in plan.reasons:
        yield "", "", reason
    choice = summary.records.choice
    if choice:
        yield "chosen", f"of {len(choice.candidates)} candidates", choice.reason
    for title, value, interval in _measured(evaluation):
        yield title, value, interval
        if title == "accuracy":
            yield from (("", percent(accuracy), f"published: {name}") for name, accuracy in summary.published)
    yield "registry", f"{registration.name} {registration.version}, {registration.alias}", registration.reason
    memory = f"at most {size(summary.peak_memory_bytes)} of memory" if summary.peak_memory_bytes else ""
    yield "run", clock(summary.seconds), memory
    yield "edge", summary.records.bundle.shipped, summary.records.bundle.why


def _measured(evaluation: Evaluation) -> Iterator[tuple[str, str, str]]:
    """Yields the main metrics, those that an evaluation of an earlier version lacks left out."""
    from graftline.evaluation.metrics import METRICS

    for metric in METRICS:
        if metric.in_table and metric.key in evaluation.metrics:
            one = evaluation.metrics[metric.key]
            ends = f"{metric.spread(one)} with 95 % confidence, on {one.n:,} test images"
            yield metric.title, metric.show(one.value), ends


def _columns(first: str, *numbers: str) -> "Table":
    """Returns a table without rows: a column of names and columns of numbers."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD)
    table.add_column(first)
    for name in numbers:
        table.add_column(name, justify="right")
    return table


def _candidates_table(choice: Choice) -> "Table":
    table = _columns("candidate", "parameters", "on validation", "points from the best", "log loss")
    for one in choice.candidates:
        table.add_row(
            one.name,
            f"{one.parameters:,}",
            percent(one.validation_accuracy.value),
            points_in_brief(one.difference) if one.difference else "",
            f"{one.validation_loss:.4f}",
            style="bold" if one.model == choice.chosen else "",
        )
    return table


def _variants_table(bundle: EdgeBundle) -> "Table":
    table = _columns("form", "size", "one image, one thread", "accuracy", "same answer as torch")
    for variant in bundle.variants:
        table.add_row(
            variant.name,
            size(variant.bytes),
            f"{variant.latency_ms.value:.1f} ms",
            percent(variant.accuracy.value),
            percent(variant.agreement.value),
            style="bold" if variant.file == bundle.shipped else "",
        )
    return table


def _places(summary: Summary) -> Iterator[tuple[str, str]]:
    page = Path(summary.bundle) / "web" / "index.html"
    yield "report", summary.report
    yield "bundle", summary.bundle
    yield "web page", f"graftline serve {summary.bundle}" if page.is_file() else summary.records.bundle.web_page
