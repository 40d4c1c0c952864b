"""Looks at every picture of a source once, sets aside what cannot be used, and refuses data that would mislead.

What is set aside is listed with its reason; it is never silently dropped.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from graftline.data.decode import decode_rgb, pixel_id
from graftline.data.layouts import Source, SourceImage
from graftline.data.parallel import map_threads
from graftline.data.seen import Facts, recall, remember
from graftline.errors import DataError
from graftline.files import sha256_bytes
from graftline.progress import say, track

_NAMED = 3  # files named in an error message; the rest is counted


@dataclass(frozen=True)
class Picture:
    """A readable image.

    Attributes:
        source: Where it comes from and what the source says of it.
        id: Identity of its pixels.
        sha256: Of the file's bytes.
        width: In pixels, upright.
        height: In pixels, upright.
        grey: Whether the three channels are equal.
    """

    source: SourceImage
    id: str
    sha256: str
    width: int
    height: int
    grey: bool

    @property
    def group(self) -> str:
        """What must stay in one split: the source's group, else the picture itself."""
        return self.source.group or self.id


@dataclass(frozen=True)
class Rejected:
    """An image set aside, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Checked:
    """What is left of a source after the checks.

    Attributes:
        pictures: One of each, sorted by id.
        rejected: Unreadable files and pictures with two labels.
        duplicates: Name of each file left out, and name of the file with the same picture that was kept.
        joined: Groups that were made of several which share a picture.
    """

    pictures: list[Picture]
    rejected: list[Rejected] = field(default_factory=list)
    duplicates: list[tuple[str, str]] = field(default_factory=list)
    joined: frozenset[str] = frozenset()


def check_source(source: Source) -> Checked:
    """Decodes every image and applies all checks.

    Args:
        source: The listing.

    Returns:
        The usable pictures, and what was set aside.

    Raises:
        DataError: More than half of the files are unreadable; the same picture or group is in two given splits; a class
            has no usable image, or there are fewer than two classes.
    """
    pictures, unreadable = _read_all(source.images)
    pictures, contradictory = _without_contradictions(pictures)
    _refuse_torn("picture", [(p.id, p.source) for p in pictures])
    pictures, joined = _with_joined_groups(pictures)
    _refuse_torn("group", [(p.group, p.source) for p in pictures if p.source.group])
    _refuse_empty_classes(source, pictures)
    kept, duplicates = _without_duplicates(pictures)
    return Checked(kept, sorted(unreadable + contradictory, key=lambda one: one.name), duplicates, joined)


def _read_all(images: list[SourceImage]) -> tuple[list[Picture], list[Rejected]]:
    known = recall(image.object for image in images if image.object)
    results = list(track(map_threads(partial(_read, known), images), "reading images", total=len(images)))
    pictures = [result for result in results if isinstance(result, Picture)]
    _remember(pictures, known)
    rejected = [result for result in results if isinstance(result, Rejected)]
    if rejected:
        text = (
            f"{len(rejected)} of {len(images)} files cannot be read, {rejected[0].name} for one: {rejected[0].reason}"
        )
        if len(rejected) > len(pictures):
            raise DataError(f"{text}; more than half is too much to go on: check the paths and the files")
        say(f"{text}; left out, see report.json")
    return pictures, rejected


def _read(known: Mapping[str, Facts], image: SourceImage) -> Picture | Rejected:
    if image.object and image.object.stamp in known:
        return Picture(image, *known[image.object.stamp])
    try:
        content = image.path.read_bytes()
        rgb = decode_rgb(content)
    except FileNotFoundError:
        return Rejected(image.name, "the file does not exist")
    except OSError as error:
        return Rejected(image.name, f"the file cannot be opened ({error.strerror})")
    except DataError as error:
        return Rejected(image.name, str(error))
    height, width = rgb.shape[:2]
    return Picture(image, pixel_id(rgb), sha256_bytes(content), width, height, _is_grey(rgb))


def _remember(pictures: list[Picture], known: Mapping[str, Facts]) -> None:
    objects = {p.source.object.stamp: p for p in pictures if p.source.object}
    new = {stamp: p for stamp, p in objects.items() if stamp not in known}
    remember({stamp: Facts(p.id, p.sha256, p.width, p.height, p.grey) for stamp, p in new.items()})


def _is_grey(rgb: np.ndarray) -> bool:
    red, green, blue = (rgb[:, :, channel] for channel in range(3))
    return np.array_equal(red, green) and np.array_equal(red, blue)


def _without_contradictions(pictures: list[Picture]) -> tuple[list[Picture], list[Rejected]]:
    """Sets aside all copies of a picture that stands under two labels: nobody knows which one is right."""
    copies = _by_id(pictures)
    two = {id for id, same in copies.items() if len({p.source.label for p in same}) > 1}
    rejected = [
        Rejected(p.source.name, f"the same picture has another label: {_others(p, copies[id])}")
        for id in sorted(two)
        for p in copies[id]
    ]
    if rejected:
        first = f"{rejected[0].name} for one ({rejected[0].reason})"
        say(f"pictures that stand under two labels: {len(two)}, {first}; all copies are left out, see report.json")
    return [p for p in pictures if p.id not in two], rejected


def _others(picture: Picture, same: list[Picture]) -> str:
    return ", ".join(f"{p.source.name} is {p.source.label!r}" for p in same if p.source.label != picture.source.label)


def _with_joined_groups(pictures: list[Picture]) -> tuple[list[Picture], frozenset[str]]:
    """Makes one group of all that share a picture: the copy that is kept must be parted from none of them."""
    joined: dict[str, str] = {}

    def name_of(group: str) -> str:
        while group in joined:
            group = joined[group]
        return group

    own, shared = {}, {}
    for id, same in _by_id(pictures).items():
        given = {p.source.group for p in same if p.source.group}
        names = sorted(map(name_of, given))
        joined |= dict.fromkeys(set(names[1:]) - {names[0]}, names[0]) if names else {}
        own[id] = names[0] if names else ""
        if len(given) > 1:
            shared[same[0].source.name] = len(given)
    _tell_shared(shared)
    grouped = [replace(p, source=replace(p.source, group=name_of(own[p.id]))) for p in pictures]
    return grouped, frozenset(map(name_of, joined))


def _tell_shared(groups: Mapping[str, int]) -> None:
    """Says which picture stands in the most groups: an empty frame may join them all."""
    if groups:
        name = max(groups, key=lambda name: groups[name])
        say(
            f"pictures that stand in several groups: {len(groups)}, {name} for one (in {groups[name]}); groups that "
            "share a picture stay together: where it shows nothing of them, leave it out"
        )


def _refuse_torn(what: str, places: list[tuple[str, SourceImage]]) -> None:
    """Refuses a picture or a group that the source puts in more than one split.

    Args:
        what: "picture" or "group".
        places: The picture or group, and where it stands.
    """
    files: dict[str, dict[str, str]] = defaultdict(dict)
    for unit, image in places:
        files[unit].setdefault(image.split, f"{image.name} ({image.split})")
    torn = [list(by_split.values()) for by_split in files.values() if len(by_split) > 1]
    if not torn:
        return
    named = "; ".join(" and ".join(names) for names in torn[:_NAMED])
    raise DataError(
        f"{len(torn)} {what}{'s' * (len(torn) > 1)} in more than one split ({named}{'; ...' * (len(torn) > _NAMED)}): "
        "the test would measure memory; keep each in one split only, or give no splits and let graftline make them"
    )


def _refuse_empty_classes(source: Source, pictures: list[Picture]) -> None:
    listed = Counter(image.label for image in source.images)
    usable = Counter(picture.source.label for picture in pictures)
    for label in source.labels:
        if not usable[label]:
            of = f"none of its {listed[label]} files is usable" if listed[label] else "its folder is empty"
            raise DataError(f"the class {label!r} has no image ({of}): add images or remove the class")
    if len(source.labels) < 2:
        raise DataError(f"there is only one class, {source.labels[0]!r}: a classifier needs at least two")


def _without_duplicates(pictures: list[Picture]) -> tuple[list[Picture], list[tuple[str, str]]]:
    """Keeps one of each picture; which one depends on content, so that renaming files changes nothing."""
    kept: list[Picture] = []
    duplicates: list[tuple[str, str]] = []
    for _, same in sorted(_by_id(pictures).items()):
        first, *others = sorted(same, key=lambda p: (p.sha256, p.source.group, p.source.domain, p.source.name))
        kept.append(first)
        duplicates += [(other.source.name, first.source.name) for other in others]
    if duplicates:
        say(f"exact duplicates left out: {len(duplicates)}, see report.json")
    return kept, duplicates


def _by_id(pictures: Iterable[Picture]) -> dict[str, list[Picture]]:
    copies: dict[str, list[Picture]] = defaultdict(list)
    for picture in pictures:
        copies[picture.id].append(picture)
    return copies
