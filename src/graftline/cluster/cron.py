"""Cron expressions as Kubeflow Pipelines takes them: six fields, the first for seconds, in UTC."""

import re
from datetime import UTC, datetime, timedelta

from graftline.errors import GraftlineError

_FIELDS = (
    ("seconds", 0, 59),
    ("minutes", 0, 59),
    ("hours", 0, 23),
    ("days of the month", 1, 31),
    ("months", 1, 12),
    ("days of the week", 0, 6),
)
_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_DAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]


class CronError(GraftlineError):
    """A cron expression cannot be used."""


def six_fields(expression: str) -> str:
    """Returns a cron expression of six fields: one of five starts at second 0.

    Args:
        expression: Five fields (minutes, hours, days of the month, months, days of the week), or six with the seconds
            in front: numbers, names, `*`, `?`, ranges `1-5`, lists `1,3`, steps `*/15`.

    Raises:
        CronError: It has another number of fields, or a field holds what it cannot.
    """
    fields = expression.split()
    if len(fields) == 5:
        fields = ["0", *fields]
    if len(fields) != 6:
        raise CronError(
            f"--cron {expression!r} has {len(fields)} fields: give 5 (minutes, hours, days, months, weekdays) or 6 "
            "(seconds in front), like '0 3 * * 1' for Mondays at 3:00 UTC"
        )
    cron = " ".join(fields)
    _allowed(cron)
    return cron


def fires_between(cron: str, start: datetime, end: datetime) -> bool:
    """Returns whether six fields of cron have a time from `start` to `end`, which are not far apart."""
    seconds, minutes, hours, days, months, weekdays = _allowed(cron)
    any_day, any_weekday = (cron.split()[index] in ("*", "?") for index in (3, 5))
    moment = start.astimezone(UTC).replace(microsecond=0)
    while moment <= end:
        on_day, on_weekday = moment.day in days, (moment.isoweekday() % 7) in weekdays
        # As in every cron: of days and weekdays, both given, either is enough.
        matches = on_day and on_weekday if any_day or any_weekday else on_day or on_weekday
        clock = moment.second in seconds and moment.minute in minutes and moment.hour in hours
        if clock and matches and moment.month in months:
            return True
        moment += timedelta(seconds=1)
    return False


def _allowed(cron: str) -> list[set[int]]:
    fields = zip(cron.split(), _FIELDS, strict=True)
    return [_values(cron, text, name, low, high) for text, (name, low, high) in fields]


def _values(cron: str, text: str, name: str, low: int, high: int) -> set[int]:
    """Returns the numbers that a field allows."""
    values: set[int] = set()
    for part in text.lower().split(","):
        found = re.fullmatch(r"(?:(\*|\?)|(\w+)(?:-(\w+))?)(?:/(\d+))?", part)
        first = low if found and found[1] else _number(found[2] if found else "", name)
        last = high if found and (found[1] or (found[4] and not found[3])) else first
        if found and found[3]:
            last = _number(found[3], name)
        step = int(found[4] or 1) if found else 0
        if not (low <= first <= last <= high and step):
            raise CronError(f"--cron {cron!r}: {text!r} is no way to write {name}, which go from {low} to {high}")
        values.update(range(first, last + 1, step))
    return values


def _number(word: str, name: str) -> int:
    """Returns the number of a word, or -1."""
    names = {"months": _MONTHS, "days of the week": _DAYS}.get(name, [])
    if word in names:
        return names.index(word) + (name == "months")
    return int(word) if word.isdecimal() else -1
