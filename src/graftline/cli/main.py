"""The command line: a table of functions. `graftline --help` lists them.

A command's arguments are its function's parameters, its help is the function's docstring. Mistakes end in one line on
standard error: exit code 2 for how a command was called, 1 for what it met, 130 when it was interrupted.
"""

import atexit
import difflib
import gc
import importlib
import inspect
import os
import re
import signal
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from graftline import __version__
from graftline.cli.help import command_help, is_several, overview, parameters, usage
from graftline.errors import GraftlineError
from graftline.options import choices, spelt
from graftline.progress import speaks
from graftline.records import Record
from graftline.runs.checks import check_tracking_uri
from graftline.steps import RETRAIN_STEPS, STEPS

COMMANDS = {
    "every day": {
        "run": "graftline.runs.local:run",
        "demo": "graftline.runs.demo:demo",
        "predict": "graftline.cli.commands:predict",
        "pull": "graftline.cli.commands:pull",
        "lineage": "graftline.cli.commands:lineage",
        "serve": "graftline.cli.commands:serve",
    },
    "a champion's life": {
        "retrain": "graftline.runs.retrain:retrain",
        **{step: f"graftline:{step}" for step in RETRAIN_STEPS if step not in STEPS},
        "history": "graftline.cli.commands:history",
        "rollback": "graftline.cli.commands:rollback",
    },
    "the steps of a run": {step: f"graftline:{step}" for step in STEPS},
    "on a cluster": {
        "compile": "graftline.cluster.compile:compile_pipeline",
        "submit": "graftline.cluster.submit:submit",
        "runs": "graftline.cluster.submit:runs",
        "follow": "graftline.cluster.submit:follow_run",
        "logs": "graftline.cluster.submit:logs",
        "cancel": "graftline.cluster.submit:cancel",
        "schedule create": "graftline.cluster.schedules:create",
        "schedule list": "graftline.cluster.schedules:listing",
        "schedule pause": "graftline.cluster.schedules:pause",
        "schedule resume": "graftline.cluster.schedules:resume",
        "schedule run_now": "graftline.cluster.schedules:run_now",
        "schedule delete": "graftline.cluster.schedules:delete",
    },
    "tools": {
        "backbones": "graftline.cli.backbones:backbones",
        "find_lr": "graftline.cli.find_lr:find_lr",
        "demo_data": "graftline.runs.demo:demo_data",
    },
}


class UsageError(GraftlineError):
    """A command was not called as it can be."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: The words after `graftline`; those of the process by default.

    Returns:
        The exit code.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if argv is None:  # Python would look through all that torch and timm have made once more before it ends
        atexit.register(gc.freeze)
    signal.signal(signal.SIGTERM, _terminate)
    code = _exit_code([word for word in words if word != "--debug"], debug="--debug" in words)
    try:
        print(end="", flush=True)
    except OSError:  # told already, or there is nobody to tell; Python would try again at its end, and complain
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return code or 1
    return code


def _exit_code(words: list[str], debug: bool) -> int:
    """Runs one command, says on one line what went wrong, and returns the exit code."""
    try:
        _main(words)
        print(end="", flush=True)  # what cannot be written is an error of the command, too
    except KeyboardInterrupt as stop:
        print(f"\n{stop}" if str(stop) else "\nstopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output has gone: nothing to say to it
        return 1
    except (GraftlineError, OSError) as error:
        if debug:
            raise
        print(f"graftline: {_one_line(error)}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    return 0


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    """Lets a terminated run stop its children and its store."""
    raise SystemExit(128 + number)


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return str(error)


def _main(words: list[str]) -> None:
    if not words or words[0] in ("--help", "-h", "help"):
        groups = {title: {name: load(name) for name in group} for title, group in COMMANDS.items()}
        print(overview(groups, __version__))
        return
    if words[0] == "--version":
        print(f"graftline {__version__}")
        return
    command, rest = split(words)
    if rest in ([], ["--help"], ["-h"]) and _family(command):
        print(overview({f"graftline {command} ...": _family(command)}, __version__))
        return
    function = load(command)
    if {"--help", "-h"} & set(rest):
        print(command_help(command, function))
        return
    arguments = parse(command, function, rest)
    check_tracking_uri(arguments.get("tracking_uri", ""))
    result = function(**arguments)
    if speaks():
        _show(result, arguments)


def split(words: Sequence[str]) -> tuple[str, list[str]]:
    """Returns the command that the words begin with, which may be two words, and the words after it."""
    first, *rest = [words[0].replace("-", "_"), *words[1:]]
    of_two = any(name.startswith(f"{first} ") for name in _targets())
    if of_two and rest and not rest[0].startswith("-"):
        return f"{first} {rest[0].replace('-', '_')}", rest[1:]
    return first, rest


def _family(command: str) -> dict[str, Callable[..., Any]]:
    """Returns the commands of two words that begin with this one."""
    return {name: load(name) for name in _targets() if name.startswith(f"{command} ")}


def _targets() -> dict[str, str]:
    return {name: target for group in COMMANDS.values() for name, target in group.items()}


def load(command: str) -> Callable[..., Any]:
    """Returns the function of a command.

    Raises:
        UsageError: There is no such command.
    """
    targets = _targets()
    if command not in targets:
        raise UsageError(f"there is no command {command!r}{_suggest(command, targets)}; see `graftline --help`")
    module, _, name = targets[command].partition(":")
    return getattr(importlib.import_module(module), name)


def parse(command: str, function: Callable[..., Any], words: Sequence[str]) -> dict[str, Any]:
    """Reads a command's arguments; options may be spelt with dashes or underscores.

    Args:
        command: The command, for messages.
        function: Its function.
        words: The words after the command.

    Returns:
        Arguments for the function, by name, of the types it wants.

    Raises:
        UsageError: An argument is missing, unknown or of the wrong type.
    """
    from argparse import ArgumentError

    from jsonargparse import ArgumentParser

    names = parameters(function)
    parser = ArgumentParser(prog=f"graftline {command}", exit_on_error=False, add_help=False)
    several = [name for name, parameter in names.items() if is_several(parameter)]
    for name in several:
        parser.add_argument(name, type=Path, nargs="+")
    parser.add_function_arguments(function, as_positional=True, skip={*several, *_not_offered(function)})
    try:
        return parser.parse_args([_option(command, word, names) for word in words]).as_dict()
    except ArgumentError as error:
        raise UsageError(f"{_reason(str(error), names)}; usage: {usage(command, function)}") from None


def _not_offered(function: Callable[..., Any]) -> set[str | int]:
    offered = parameters(function)
    return {name for name in inspect.signature(function).parameters if name not in offered}


def _option(command: str, word: str, names: Mapping[str, inspect.Parameter]) -> str:
    """Returns a word as jsonargparse wants it: option names with underscores."""
    if not word.startswith("--") or word == "--":
        return word
    name, equals, value = word[2:].partition("=")
    name = name.replace("-", "_")
    options = {key: p for key, p in names.items() if p.default is not p.empty}
    if name not in options:
        suggestion = _suggest(spelt(name), map(spelt, options))
        raise UsageError(f"there is no option {word!r}{suggestion}; see `graftline {command} --help`")
    if options[name].annotation is bool and not equals:
        return f"--{name}=true"
    return f"--{name}{equals}{value}"


def _reason(message: str, names: Mapping[str, inspect.Parameter]) -> str:
    """Says in our words what jsonargparse found wrong."""
    missing = re.search(r"arguments are required: (.*)", message)
    if missing:
        return f"{missing[1].upper()} is missing"
    extra = re.search(r"unrecognized arguments: (.*)", message)
    if extra:
        return f"{extra[1]!r} is one argument too many"
    bare = re.search(r"argument --(\w+): expected one argument", message)
    if bare:
        return f"{spelt(bare[1])} needs a value"
    wrong = re.search(r'key "(\w+)":.*Got value: (.*)', message, re.DOTALL)
    assert wrong, f"jsonargparse says something new: {message}"
    annotation = names[wrong[1]].annotation
    wanted = ", ".join(choices(annotation)) or {int: "a whole number", float: "a number"}.get(annotation, "a text")
    return f"{spelt(wrong[1])} takes {wanted}, not {wrong[2].strip()!r}"


def _suggest(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1)
    return f": did you mean {close[0]!r}?" if close else ""


def _show(result: Any, arguments: Mapping[str, Any]) -> None:
    """Prints what a command returned."""
    from graftline.cli.table import show_record, show_summary, show_tree
    from graftline.runs.retrain import Retraining
    from graftline.runs.summary import Summary

    if isinstance(result, Summary):
        show_summary(result)
    elif isinstance(result, Retraining):
        if result.summary:
            show_summary(result.summary)
        print(result.conclusion)
    elif isinstance(result, Record):
        show_record(result)
        print(f"out: {arguments['out']}")
    elif isinstance(result, dict):
        show_tree(next(iter(map(str, arguments.values()))), result)
    elif result is not None:
        print(result)
