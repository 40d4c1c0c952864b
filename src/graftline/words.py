"""How quantities are written for people, in one way everywhere: shares, their intervals, sizes, durations."""

from graftline.records import Interval


def percent(share: float, digits: int = 1) -> str:
    """Returns a share as a percentage: "87.8 %"."""
    return f"{100 * share:.{digits}f} %"


def spread(interval: Interval) -> str:
    """Returns the ends of an interval of shares: "85.1 % to 90.1 %"."""
    return f"{percent(interval.low)} to {percent(interval.high)}"


def points(difference: Interval) -> str:
    """Returns a difference of shares with its interval, in a sentence: "+1.5 points, 95 % interval -0.4 to +3.4"."""
    value, low, high = _points(difference)
    return f"{value} points, 95 % interval {low} to {high}"


def points_in_brief(difference: Interval) -> str:
    """Returns the same for a column of a table: "+1.5 (-0.4 to +3.4)"."""
    value, low, high = _points(difference)
    return f"{value} ({low} to {high})"


def _points(difference: Interval) -> tuple[str, str, str]:
    value, low, high = (f"{100 * share:+.1f}" for share in (difference.value, difference.low, difference.high))
    return value, low, high


def size(count: float) -> str:
    """Returns a number of bytes: "18.7 MB"."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.2f} GB"


def clock(seconds: float) -> str:
    """Returns a duration: "9.4 s", "1:07", "1:02:33"."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
