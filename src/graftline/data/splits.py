"""Splits that depend on content alone: stratified by class and domain, groups kept whole, the same after any renaming.

Within each stratum the groups are ranked by a hash; the first go to test, the next to validation, the rest is for
training. A group is what must not be torn apart; without one in the source, each picture is its own. What an earlier
version has placed stays there, so that old test images stay test images when the data grow.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

from graftline.data.checks import Picture
from graftline.errors import DataError
from graftline.files import sha256_bytes
from graftline.progress import say

SPLITS = ("train", "validation", "test")
_MOST = 0.9


@dataclass(frozen=True)
class _Unit:
    """A group: its hash rank, its number of images, and the class and domain of most of them."""

    rank: str
    group: str
    size: int
    label: str
    domain: str


def check_fractions(validation: float, test: float) -> None:
    """Refuses shares that leave too little for training.

    Raises:
        DataError: One of them is not between 0 and 1, or their sum is 0.9 or more.
    """
    for name, value in (("validation_fraction", validation), ("test_fraction", test)):
        if not 0 < value < 1:
            raise DataError(f"{name} is {value:g}: give a number between 0 and 1, like 0.2")
    if validation + test >= _MOST:
        total = f"validation_fraction + test_fraction is {validation + test:g}"
        raise DataError(f"{total}: keep it below {_MOST}, the rest is for training")


def assign_splits(
    pictures: Sequence[Picture],
    validation: float,
    test: float,
    previous: Mapping[str, str] | None = None,
    joined: Set[str] = frozenset(),
) -> list[str]:
    """Gives every picture its split.

    Splits that the source gives are kept. What it does not give is made: everything, or, when the source has a training
    split but no validation or no test split, that one out of the training images. Pictures and groups that an earlier
    version has placed stay there; new ones fill up what a split lacks of its share.

    Args:
        pictures: The usable pictures.
        validation: Share of the images to be divided that goes to validation.
        test: Share of the images to be divided that goes to test.
        previous: Split of each picture, by id, and of each group in the earlier version, when there is one.
        joined: Groups made of several that share a picture. Where the earlier version has parted those, its pictures
            stay where they are.

    Returns:
        "train", "validation" or "test" for each picture, in their order.

    Raises:
        DataError: The source gives splits but none for training, a class has no image in one of the splits, or a group
            is now one whose pictures the earlier version has in several splits.
    """
    given = {picture.source.split for picture in pictures}
    if given - {""} and "train" not in given:
        raise DataError(
            f"the source gives {' and '.join(sorted(given))} images but none for training: add a train split"
        )
    _tell(given)
    divided = [p for p in pictures if p.source.split in ("", "train")]
    shares = {"test": 0 if "test" in given else test, "validation": 0 if "validation" in given else validation}
    kept, torn = _kept(divided, shares, previous or {}, joined)
    made = _divide(divided, shares, kept)
    splits = [torn.get(p.id, made[p.group]) if p.source.split in ("", "train") else p.source.split for p in pictures]
    _refuse_missing_classes(pictures, splits)
    return splits


def _tell(given: set[str]) -> None:
    missing = [split for split in ("validation", "test") if split not in given]
    if "train" in given and missing:
        say(f"the source has no {' and no '.join(missing)} split: taken out of its training images")


def _kept(
    pictures: Sequence[Picture], shares: dict[str, float], previous: Mapping[str, str], joined: Set[str]
) -> tuple[dict[str, str], dict[str, str]]:
    """Returns the split of each group that the earlier version has placed, and of each picture of joined groups."""
    divided = {"train", *(split for split, share in shares.items() if share)}
    kept: dict[str, str] = {}
    torn: dict[str, str] = {}
    for picture in pictures:
        split = previous.get(picture.id) or previous.get(picture.group)
        if split not in divided:
            continue
        if picture.group in joined and picture.id in previous:
            torn[picture.id] = split
        if kept.setdefault(picture.group, split) != split and picture.group not in joined:
            raise DataError(
                f"the group {picture.group!r} holds pictures that the previous version has in {kept[picture.group]} "
                f"and in {split}: give the groups of that version, or no previous version for splits made anew"
            )
    return kept, torn


def _divide(pictures: Sequence[Picture], shares: dict[str, float], kept: dict[str, str]) -> dict[str, str]:
    """Returns the split of each group; `shares` in the order in which splits take their groups."""
    by_class: dict[str, dict[str, list[_Unit]]] = defaultdict(lambda: defaultdict(list))
    for unit in _units(pictures):
        by_class[unit.label][unit.domain].append(unit)
    splits: dict[str, str] = {}
    for strata in by_class.values():
        wanted = _targets({domain: sum(unit.size for unit in units) for domain, units in strata.items()}, shares)
        for domain, units in strata.items():
            new = [unit for unit in units if unit.group not in kept]
            old = {split: sum(unit.size for unit in units if kept.get(unit.group) == split) for split in shares}
            splits |= _divide_stratum(new, {split: max(0, wanted[split][domain] - old[split]) for split in shares})
    return splits | kept


def _units(pictures: Sequence[Picture]) -> list[_Unit]:
    """Returns the groups in the order of their hash rank."""
    strata: dict[str, Counter[tuple[str, str]]] = defaultdict(Counter)
    for picture in pictures:
        strata[picture.group][picture.source.label, picture.source.domain] += 1
    units = []
    for group, counts in strata.items():
        label, domain = min(counts, key=lambda stratum: (-counts[stratum], stratum))
        rank = sha256_bytes(f"graftline split {group}".encode())
        units.append(_Unit(rank, group, counts.total(), label, domain))
    return sorted(units, key=lambda unit: unit.rank)


def _targets(sizes: dict[str, int], shares: dict[str, float]) -> dict[str, dict[str, int]]:
    """Returns how many images of one class each split takes from each domain: at least one of all if it has a share"""
    left = dict(sizes)
    targets = {}
    for split, share in shares.items():
        total = min(max(1, round(sum(sizes.values()) * share)), sum(left.values())) if share else 0
        targets[split] = _apportion(total, {domain: sizes[domain] * share for domain in sizes}, left)
        left = {domain: left[domain] - targets[split][domain] for domain in left}
    return targets


def _apportion(total: int, exact: dict[str, float], most: dict[str, int]) -> dict[str, int]:
    """Rounds `exact` to integers that sum to `total`, by largest remainder, none above `most`."""
    parts = {name: min(int(value), most[name]) for name, value in exact.items()}
    while sum(parts.values()) < total:
        open_ones = [name for name in parts if parts[name] < most[name]]
        parts[min(open_ones, key=lambda name: (parts[name] - exact[name], name))] += 1
    return parts


def _divide_stratum(units: list[_Unit], targets: dict[str, int]) -> dict[str, str]:
    """Lets each split take groups in hash order; leaves at least one for each split that still wants some."""
    splits: dict[str, str] = {}
    rest = list(units)
    wanted = {**targets, "train": max(0, sum(unit.size for unit in units) - sum(targets.values()))}
    later = [split for split, target in wanted.items() if target]
    for split, target in targets.items():
        if not target:
            continue
        later.remove(split)
        taken = _take(rest, target, len(rest) - len(later))
        splits |= dict.fromkeys(taken, split)
        rest = [unit for unit in rest if unit.group not in splits]
    return splits | {unit.group: "train" for unit in rest}


def _take(units: list[_Unit], target: int, most: int) -> list[str]:
    """Takes the first groups that bring the number of images nearer to `target`; failing that, the smallest group."""
    taken: list[str] = []
    missing = target
    for unit in units:
        if len(taken) < most and unit.size <= 2 * missing:
            taken.append(unit.group)
            missing -= unit.size
    if not taken and most > 0:
        taken = [min(units, key=lambda unit: (unit.size, unit.rank)).group]
    return taken


def _refuse_missing_classes(pictures: Sequence[Picture], splits: Sequence[str]) -> None:
    counts = Counter((p.source.label, split) for p, split in zip(pictures, splits, strict=True))
    for label in sorted({p.source.label for p in pictures}):
        lacking = [split for split in SPLITS if not counts[label, split]]
        if lacking:
            raise DataError(
                f"the class {label!r} has {_extent([p for p in pictures if p.source.label == label])} but none for "
                f"{' and '.join(lacking)}: each class needs at least one in each of train, validation and test"
            )


def _extent(pictures: Sequence[Picture]) -> str:
    groups = len({p.group for p in pictures})
    return f"{len(pictures)} images" + (f" in {groups} groups" if groups < len(pictures) else "")
