"""Help texts, made from the functions themselves: signature, types, defaults, docstring."""

import inspect
import shutil
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from docstring_parser import DocstringStyle, parse

from graftline.options import choices, sentences, spelt

_HIDDEN = "published"  # of `run`: only for those who call it from Python
_NAMES = {int: "N", float: "X", str: "TEXT", bool: ""}


def parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Returns what the command line can set of a function; parameters without a default are positional."""
    found = inspect.signature(function).parameters
    return {name: parameter for name, parameter in found.items() if name != _HIDDEN}


def usage(command: str, function: Callable[..., Any]) -> str:
    """Returns how a command is called: "graftline evaluate DATASET MODEL OUT [options]"."""
    every = parameters(function).values()
    positional = [f"{p.name.upper()}{'...' if is_several(p) else ''}" for p in every if p.default is p.empty]
    options = ["[options]"] if len(positional) < len(every) else []
    return " ".join(["graftline", command, *positional, *options])


def is_several(parameter: inspect.Parameter) -> bool:
    """Whether a parameter takes several paths; such a one comes first, as the sources do in `cp A B TARGET`."""
    return parameter.annotation == list[Path]


def first_line(function: Callable[..., Any]) -> str:
    """Returns the first line of a function's docstring."""
    return (inspect.getdoc(function) or "").partition("\n")[0]


def command_help(command: str, function: Callable[..., Any]) -> str:
    """Returns the whole help of one command."""
    doc = parse(inspect.getdoc(function) or "", style=DocstringStyle.GOOGLE)
    described = sentences(function)
    positional, options = [], []
    for name, parameter in parameters(function).items():
        if parameter.default is parameter.empty:
            positional.append((name.upper(), described.get(name, "")))
        else:
            left = f"{spelt(name)} {_value_name(parameter.annotation)}".rstrip()
            options.append((left, described.get(name, "") + _default(parameter.default)))
    parts = [
        f"usage: {usage(command, function)}",
        *map(_wrap, (doc.short_description or "", doc.long_description or "")),
    ]
    parts += [_columns(rows) for rows in (positional, options) if rows]
    return "\n\n".join(part for part in parts if part)


def overview(groups: Mapping[str, Mapping[str, Callable[..., Any]]], version: str) -> str:
    """Returns the help of the whole program: its commands in groups, a line for each."""
    width = max(len(name) for group in groups.values() for name in group)
    lines = [f"graftline {version}: pretrained vision backbones on your images, proven, shipped to the edge", ""]
    lines += ["usage: graftline COMMAND ...        what a command takes: graftline COMMAND --help", ""]
    for title, group in groups.items():
        rows = [(name.ljust(width), first_line(function)) for name, function in group.items()]
        lines += [title, _columns(rows), ""]
    rows = [
        ("--version".ljust(width), "Shows the version."),
        ("--debug".ljust(width), "Shows the traceback of an error."),
    ]
    return "\n".join([*lines, "options", _columns(rows)])


def _value_name(annotation: Any) -> str:
    return "|".join(choices(annotation)) or _NAMES.get(annotation, "PATH")


def _default(value: Any) -> str:
    return "" if value in ("", None) else f" [{value}]"


def _width() -> int:
    return min(shutil.get_terminal_size((100, 24)).columns, 110)


def _wrap(text: str, indent: str = "") -> str:
    blocks = [" ".join(block.split()) for block in text.split("\n\n")]
    return "\n\n".join(textwrap.fill(b, _width(), initial_indent=indent, subsequent_indent=indent) for b in blocks)


def _columns(rows: list[tuple[str, str]]) -> str:
    """Sets names and descriptions side by side; a name that is too long stands on its own line."""
    left = min(max(len(name) for name, _ in rows), 26) + 2
    lines = []
    for name, text in rows:
        wrapped = textwrap.wrap(text, max(_width() - left - 2, 20)) or [""]
        if len(name) + 2 > left:
            lines.append(f"  {name}")
            name = ""
        lines.append(f"  {name:{left}}{wrapped[0]}".rstrip())
        lines += [" " * (left + 2) + line for line in wrapped[1:]]
    return "\n".join(lines)
