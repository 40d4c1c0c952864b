"""Options stand once, at the function that needs them: how others take them, with choices, default and sentence."""

import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import wraps
from typing import Any, Literal, ParamSpec, TypeVar, get_args, get_origin

from docstring_parser import Docstring, DocstringParam, DocstringStyle, compose, parse
from pydantic import TypeAdapter, ValidationError

from graftline.errors import GraftlineError

Value = str | int | float | bool
Options = Mapping[str, Value]
V = TypeVar("V", str, int, float, bool)
P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class Option:
    """An option as a function declares it.

    Attributes:
        name: Its name.
        kind: Its type; a Literal for choices.
        default: Its value where none is given.
        sentence: What it is.
    """

    name: str
    kind: Any
    default: Value
    sentence: str

    def checked(self, value: Any) -> Value:
        """Returns a value that is given for it.

        Raises:
            GraftlineError: It is of another type, or none of the choices.
        """
        try:
            return TypeAdapter(self.kind).validate_python(value, strict=True)
        except ValidationError as error:
            says = error.errors()[0]["msg"]
            raise GraftlineError(f"{self.name} is {value!r}: {says[0].lower()}{says[1:]}") from None


Declared = Mapping[str, Option]


def declared(function: Callable[..., Any]) -> dict[str, Option]:
    """Returns the options that a function declares: its keyword parameters, with what its docstring says of them."""
    says = sentences(function)
    return {
        name: Option(name, p.annotation, p.default, says.get(name, ""))
        for name, p in inspect.signature(function).parameters.items()
        if p.kind is p.KEYWORD_ONLY
    }


def sentences(function: Callable[..., Any]) -> dict[str, str]:
    """Returns what a function's docstring says of each of its parameters."""
    return {param.arg_name: " ".join((param.description or "").split()) for param in _doc(function).params}


def with_options_of(*sources: Declared, without: Collection[str] = ()) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Lets a function that ends in `**options` take declared options, and describes them in its help.

    The function gets all of them, each of its type; what is not given is at its default.

    Args:
        *sources: Declared options.
        without: Names of those that are not taken over.
    """
    taken = {name: option for one in sources for name, option in one.items() if name not in without}

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        signature = _signature(function, taken)

        @wraps(function)
        def complete(*arguments: P.args, **options: P.kwargs) -> T:
            bound = signature.bind(*arguments, **options)
            bound.apply_defaults()
            given = {name: option.checked(bound.arguments[name]) for name, option in taken.items()}
            return function(*bound.args, **{**bound.kwargs, **given})

        complete.__signature__ = signature  # type: ignore[attr-defined]
        complete.__doc__ = described(function, {name: option.sentence for name, option in taken.items()})
        return complete

    return decorate


def described(function: Callable[..., Any], further: Mapping[str, str]) -> str:
    """Returns a function's docstring with sentences on further parameters, after those that it describes itself."""
    doc = _doc(function)
    at = max((index + 1 for index, entry in enumerate(doc.meta) if entry in doc.params), default=0)
    doc.meta[at:at] = [
        DocstringParam(["param", name], sentence, name, None, None, None) for name, sentence in further.items()
    ]
    return compose(doc, style=DocstringStyle.GOOGLE)


def read(options: Options, name: str, kind: type[V]) -> V:
    """Returns an option's value as what it is declared to be.

    Args:
        options: All options of a function, as `with_options_of` hands them over.
        name: The option.
        kind: Its type.
    """
    value = options[name]
    assert isinstance(value, kind), f"{name} is declared as something else than {kind.__name__}"
    return value


def choices(kind: Any) -> tuple[str, ...]:
    """Returns the values of a Literal type, or nothing for another type."""
    return get_args(kind) if get_origin(kind) is Literal else ()


def spelt(name: str) -> str:
    """Returns a parameter's option: "--batch-size" for "batch_size"."""
    return f"--{name.replace('_', '-')}"


def _doc(function: Callable[..., Any]) -> Docstring:
    return parse(inspect.getdoc(function) or "", style=DocstringStyle.GOOGLE)


def _signature(function: Callable[..., Any], taken: Declared) -> inspect.Signature:
    whole = inspect.signature(function)
    *own, variable = whole.parameters.values()
    assert variable.kind is variable.VAR_KEYWORD, f"{function.__name__} must end in **options"
    further = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=option.default, annotation=option.kind)
        for name, option in taken.items()
    ]
    return whole.replace(parameters=[*own, *further])
