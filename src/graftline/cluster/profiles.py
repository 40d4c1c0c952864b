"""Reads a profile from its YAML file, and says in one line what is wrong with it."""

import difflib
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from graftline.errors import GraftlineError
from graftline.pipelines.profile import Profile

_WORDS = {
    "Input should be a valid integer": "give a whole number",
    "Input should be a valid number": "give a number",
    "Input should be a valid string": "give a text, in quotes if it looks like something else",
    "Input should be a valid boolean": "give true or false",
    "Input should be a valid list": "give a list",
    "Input should be greater": "give a number greater",
    "Input should be ": "give ",
}


class ProfileError(GraftlineError):
    """A profile cannot be used as it is."""


def load_profile(path: str, **overrides: Any) -> Profile:
    """Reads a profile.

    Args:
        path: A YAML file; empty means the defaults.
        **overrides: Settings that hold in the place of the file's.

    Returns:
        The profile, complete: what the file does not name is as in `graftline.pipelines.profile`.

    Raises:
        ProfileError: There is no such file, it is no YAML, or a setting is unknown or cannot be what is given for it:
            one line that names file and setting.
    """
    content = _merged(_read(path) if path else {}, overrides)
    try:
        return Profile.model_validate(_merged(Profile().model_dump(), content))
    except ValidationError as error:
        raise ProfileError(f"{path or 'the settings'}: {_first(error)}") from None


def _read(path: str) -> dict[str, Any]:
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
    except FileNotFoundError:
        raise ProfileError(f"the profile {path} does not exist: deploy/profiles holds examples") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ProfileError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise ProfileError(f"{path} holds no settings: write them like `image: registry/graftline@sha256:...`")
    return content


def _merged(default: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Returns the given settings and, for what they do not name, the defaults."""
    both = {**default, **given}
    for name in default.keys() & given.keys():
        if isinstance(default[name], dict) and isinstance(given[name], dict):
            both[name] = _merged(default[name], given[name])
    return both


def _first(error: ValidationError) -> str:
    """Says the first thing that is wrong."""
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"]))
    if first["type"] == "extra_forbidden":
        return f"{where} is unknown{_suggest(str(first['loc'][-1]), _known(first['loc'][:-1]))}"
    if first["type"] == "model_type":
        return f"{where} is {first['input']!r}: there are {', '.join(_known(first['loc']))} to set below it"
    reason = first["msg"].removeprefix("Value error, ")
    for theirs, ours in _WORDS.items():
        reason = reason.replace(theirs, ours)
    return f"{where} is {first['input']!r}: {reason}"


def _known(place: tuple[int | str, ...]) -> list[str]:
    """Returns the settings that there are at a place."""
    kind: type[BaseModel] = Profile
    for name in place:
        if isinstance(name, str):
            annotation = kind.model_fields[name].annotation
            kind = (get_args(annotation) or (annotation,))[0]
    return list(kind.model_fields)


def _suggest(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f": did you mean {close[0]!r}?" if close else f": there are {', '.join(known)}"
