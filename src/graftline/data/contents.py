"""What a version of the data holds, without its images, and how a source differs from it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from graftline.data.checks import Picture


@dataclass(frozen=True)
class Row:
    """One image of a version.

    Attributes:
        id: Identity of its pixels.
        label: Class name.
        split: "train", "validation" or "test".
        group: What stays in one split; the id where the source gave none.
        domain: '' where there is none.
    """

    id: str
    label: str
    split: str
    group: str
    domain: str


@dataclass(frozen=True)
class Contents:
    """The images of a version.

    Attributes:
        version: Its name.
        rows: One for each image.
    """

    version: str
    rows: list[Row]

    @cached_property
    def places(self) -> dict[str, str]:
        """The split of each image, by id, and of each group."""
        return {key: row.split for row in self.rows for key in (row.group, row.id)}


@dataclass(frozen=True)
class Difference:
    """How a source differs from a version; names of files mean nothing.

    Attributes:
        added: Images that the version does not hold.
        removed: Images of the version that the source does not hold.
        relabelled: Images with another class.
        moved: Images with the same class that the source puts in another split, domain or group.
    """

    added: int
    removed: int
    relabelled: int
    moved: int

    def __bool__(self) -> bool:
        """Whether there is any difference."""
        return any((self.added, self.removed, self.relabelled, self.moved))

    def __str__(self) -> str:
        """The counts that are not zero, in words."""
        counts = {
            "new": self.added,
            "gone": self.removed,
            "with another label": self.relabelled,
            "in another split, domain or group": self.moved,
        }
        return ", ".join(f"{count:,} {what}" for what, count in counts.items() if count) or "the same images and labels"


def compare(pictures: Sequence[Picture], contents: Contents) -> Difference:
    """Compares a source with a version by the pixels of their images.

    Args:
        pictures: The usable pictures of the source, one of each.
        contents: The version.
    """
    old = {row.id: row for row in contents.rows}
    given = {picture.source.split for picture in pictures}
    shared = [(picture, old[picture.id]) for picture in pictures if picture.id in old]
    relabelled = sum(picture.source.label != row.label for picture, row in shared)
    moved = sum(picture.source.label == row.label and _is_elsewhere(picture, row, given) for picture, row in shared)
    return Difference(len(pictures) - len(shared), len(old) - len(shared), relabelled, moved)


def _is_elsewhere(picture: Picture, row: Row, given: set[str]) -> bool:
    """Whether the source says of a picture what cannot be so of its row; a split that it does not give is free.

    Args:
        picture: Of the source.
        row: The same picture in the version.
        given: All splits that the source gives; those it does not give were taken out of its training images.
    """
    split = picture.source.split
    other_split = split not in ("", row.split) and (split != "train" or row.split in given)
    return other_split or (picture.group, picture.source.domain) != (row.group, row.domain)
