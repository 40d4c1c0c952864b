"""Options that several commands share are declared and described once, in one function."""

import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any

from docstring_parser import DocstringStyle, compose, parse

Function = Callable[..., Any]


def with_options_of(*sources: Function, without: Collection[str] = ()) -> Callable[[Function], Function]:
    """Lets a function that ends in `**options` take other functions' options, and documents them in its help.

    Args:
        *sources: The functions that declare the options, as keyword parameters, and describe them.
        without: Names of options that are not taken over.
    """

    def decorate(function: Function) -> Function:
        *own, variable = inspect.signature(function).parameters.values()
        assert variable.kind is variable.VAR_KEYWORD, f"{function.__name__} must end in **options"
        taken = {name: p for source in sources for name, p in _options(source).items() if name not in without}
        function.__signature__ = inspect.Signature([*own, *taken.values()])  # type: ignore[attr-defined]
        function.__doc__ = _documented(function, sources, set(taken))
        return function

    return decorate


def spelt(name: str) -> str:
    """Returns a parameter's option: "--batch-size" for "batch_size"."""
    return f"--{name.replace('_', '-')}"


def picked(source: Function, options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns those of the options that are a function's."""
    names = _options(source)
    return {name: value for name, value in options.items() if name in names}


def _options(source: Function) -> dict[str, inspect.Parameter]:
    parameters = inspect.signature(source).parameters
    return {name: p for name, p in parameters.items() if p.kind is p.KEYWORD_ONLY}


def _documented(function: Function, sources: Collection[Function], taken: set[str]) -> str:
    """Returns a function's docstring with the descriptions of the options that it takes over."""
    doc, *others = (parse(inspect.getdoc(one) or "", style=DocstringStyle.GOOGLE) for one in (function, *sources))
    at = max((index + 1 for index, entry in enumerate(doc.meta) if entry in doc.params), default=0)
    doc.meta[at:at] = [param for other in others for param in other.params if param.arg_name in taken]
    return compose(doc, style=DocstringStyle.GOOGLE)
