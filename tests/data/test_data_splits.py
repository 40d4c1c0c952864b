"""Splits: exact shares, every class everywhere, groups whole, independent of names and order."""

import random
from collections import Counter
from pathlib import Path

import pytest

from graftline.data.checks import Picture
from graftline.data.layouts import SourceImage
from graftline.data.splits import SPLITS, assign_splits, check_fractions
from graftline.errors import DataError


def picture(number: int, label: str, split: str = "", domain: str = "", group: str = "") -> Picture:
    source = SourceImage(Path(f"{number}.png"), f"{number}.png", label, split, domain, group)
    return Picture(source, f"id{number}", "", 8, 8, False)


def many(*sizes: int, **about: str) -> list[Picture]:
    """Classes c0, c1, ... of these sizes."""
    labels = [f"c{label}" for label, size in enumerate(sizes) for _ in range(size)]
    return [picture(number, label, **about) for number, label in enumerate(labels)]


def count(pictures: list[Picture], splits: list[str]) -> dict[str, tuple[int, ...]]:
    """By class: images for train, validation, test."""
    counts = Counter((p.source.label, split) for p, split in zip(pictures, splits, strict=True))
    return {
        label: tuple(counts[label, split] for split in SPLITS) for label in sorted({p.source.label for p in pictures})
    }


def test_exact_shares_for_every_class() -> None:
    pictures = many(100, 20, 7, 3)
    assert count(pictures, assign_splits(pictures, 0.15, 0.2)) == {
        "c0": (65, 15, 20),
        "c1": (13, 3, 4),
        "c2": (5, 1, 1),
        "c3": (1, 1, 1),
    }


def test_shares_hold_in_every_domain_as_near_as_rounding_allows() -> None:
    pictures = [picture(n, f"c{n % 2}", domain=("big", "small")[n % 8 < 2]) for n in range(400)]
    splits = assign_splits(pictures, 0.15, 0.2)
    for domain, size in (("big", 150), ("small", 50)):
        inside = [n for n, p in enumerate(pictures) if p.source.domain == domain]
        for train, validation, test in count([pictures[n] for n in inside], [splits[n] for n in inside]).values():
            assert train + validation + test == size
            assert abs(validation - 0.15 * size) < 1
            assert abs(test - 0.2 * size) < 1
    assert count(pictures, splits) == {"c0": (130, 30, 40), "c1": (130, 30, 40)}


def test_tiny_domains_still_give_every_class_to_every_split() -> None:
    pictures = [picture(n, f"c{n % 2}", domain=f"d{n // 2}") for n in range(12)]  # one image per class and domain
    assert count(pictures, assign_splits(pictures, 0.15, 0.2)) == {"c0": (4, 1, 1), "c1": (4, 1, 1)}


def test_order_and_names_change_nothing() -> None:
    pictures = [picture(n, f"c{n % 3}", domain=f"d{n % 2}") for n in range(90)]
    by_id = dict(zip([p.id for p in pictures], assign_splits(pictures, 0.15, 0.2), strict=True))
    shuffled = [Picture(SourceImage(Path("x"), f"{n}", p.source.label, "", p.source.domain), *_rest(p)) for n, p in
                enumerate(random.Random(1).sample(pictures, 90))]  # fmt: skip
    assert [by_id[p.id] for p in shuffled] == assign_splits(shuffled, 0.15, 0.2)
    assert set(by_id.values()) == set(SPLITS)


def _rest(p: Picture) -> tuple[str, str, int, int, bool]:
    return p.id, p.sha256, p.width, p.height, p.grey


def test_the_split_is_fixed_for_good() -> None:
    # Changing the rule would silently mix test images of recorded versions into training.
    splits = assign_splits(many(10, 10), 0.15, 0.2)
    assert [n for n, split in enumerate(splits) if split == "test"] == [3, 7, 14, 17]


def places(pictures: list[Picture], splits: list[str]) -> dict[str, str]:
    """What an earlier version says of its pictures and groups."""
    return {key: split for p, split in zip(pictures, splits, strict=True) for key in (p.id, p.group)}


def test_growing_data_keep_the_splits_of_the_previous_version() -> None:
    old = [picture(n, f"c{n % 2}", domain=f"d{n % 3}") for n in range(600)]
    before = places(old, assign_splits(old, 0.15, 0.2))
    for size in (606, 660, 1200):  # 1 %, 10 %, twice as many
        grown = [picture(n, f"c{n % 2}", domain=f"d{n % 3}") for n in range(size)]
        anew, splits = assign_splits(grown, 0.15, 0.2), assign_splits(grown, 0.15, 0.2, before)
        assert [before[p.id] for p in old] == splits[:600]
        assert anew[:600] != splits[:600], "without the previous version some would move"
        for train, validation, test in count(grown, splits).values():
            assert abs(test - 0.2 * size / 2) <= 1
            assert abs(validation - 0.15 * size / 2) <= 1
            assert train > test


def test_what_is_gone_or_has_another_label_moves_nothing() -> None:
    old = many(60, 60)
    before = places(old, assign_splits(old, 0.15, 0.2))
    kept = [picture(n, "c1" if n < 5 else p.source.label) for n, p in enumerate(old) if n not in range(20, 40)]
    assert assign_splits(kept, 0.15, 0.2, before) == [before[p.id] for p in kept]


def test_a_new_class_and_a_new_picture_of_an_old_group_find_their_place() -> None:
    old = [picture(n, f"c{n % 2}", group=f"scene{n // 10}") for n in range(300)]
    before = places(old, assign_splits(old, 0.15, 0.2))
    new = [picture(300 + n, f"c{n % 2}", group=f"scene{n}") for n in range(30)]
    third = [picture(900 + n, "c2") for n in range(20)]
    splits = assign_splits([*old, *new, *third], 0.15, 0.2, before)
    assert splits[300:330] == [before[p.group] for p in new]
    assert count(third, splits[330:]) == {"c2": (13, 3, 4)}


def test_splits_that_the_source_gives_go_before_those_of_the_previous_version() -> None:
    pictures = given("train", "test")
    before = dict.fromkeys((p.id for p in pictures), "test")
    splits = assign_splits(pictures, 0.2, 0.2, before)
    assert splits == assign_splits(pictures, 0.2, 0.2)


def test_a_group_that_would_tear_the_previous_splits_is_refused() -> None:
    old = many(20, 20)
    before = places(old, assign_splits(old, 0.15, 0.2))
    now = [picture(n, p.source.label, group=f"g{n // 10}") for n, p in enumerate(old)]
    with pytest.raises(DataError, match="the group 'g0' holds pictures that the previous version has in"):
        assign_splits(now, 0.15, 0.2, before)


def test_groups_that_an_earlier_version_has_parted_may_be_joined_later() -> None:
    old = [picture(n, f"c{n % 2}", group="ab") for n in range(20)]
    earlier = {p.id: "train" if n < 10 else "test" for n, p in enumerate(old)}
    pictures = [*old, picture(20, "c0", group="ab"), *(picture(n, f"c{n % 2}") for n in range(21, 99))]
    with pytest.raises(DataError, match="the group 'ab' holds pictures"):
        assign_splits(pictures, 0.2, 0.2, earlier)
    splits = assign_splits(pictures, 0.2, 0.2, earlier, {"ab"})
    assert splits[:20] == ["train"] * 10 + ["test"] * 10
    assert splits[20] in ("train", "test")


def test_groups_stay_whole_and_shares_come_near() -> None:
    pictures = [picture(n, f"c{n % 2}", group=f"g{(n % 2) * 100 + n // 2 % 25}") for n in range(400)]  # 50 groups of 8
    splits = assign_splits(pictures, 0.15, 0.2)
    homes = {p.group: set() for p in pictures}
    for p, split in zip(pictures, splits, strict=True):
        homes[p.group].add(split)
    assert all(len(home) == 1 for home in homes.values())
    for _, validation, test in count(pictures, splits).values():
        assert abs(test - 40) <= 4
        assert abs(validation - 30) <= 4


def test_a_group_of_several_classes_is_one_unit() -> None:
    pictures = [picture(n, f"c{n % 2}", group=f"scene{n // 10}") for n in range(300)]
    splits = assign_splits(pictures, 0.15, 0.2)
    assert all(len(set(splits[n : n + 10])) == 1 for n in range(0, 300, 10))


def test_large_groups_leave_some_for_every_split() -> None:
    groups = ["small1", "small2", *["large"] * 100]
    pictures = [picture(n, f"c{k}", group=f"{k}{group}") for k in range(2) for n, group in enumerate(groups)]
    assert count(pictures, assign_splits(pictures, 0.15, 0.2)) == {"c0": (100, 1, 1), "c1": (100, 1, 1)}


def test_too_few_images_or_groups() -> None:
    pictures = many(5, 2)
    with pytest.raises(DataError, match="the class 'c1' has 2 images but none for train: each class needs"):
        assign_splits(pictures, 0.15, 0.2)
    pictures = [*many(5), *[picture(9 + n, "c1", group="the same") for n in range(5)]]
    with pytest.raises(DataError, match="'c1' has 5 images in 1 groups but none for"):
        assign_splits(pictures, 0.15, 0.2)


def given(*splits: str) -> list[Picture]:
    return [
        picture(n, f"c{n % 2}", split=split) for n, split in enumerate(split for split in splits for _ in range(20))
    ]


def test_given_splits_are_kept() -> None:
    pictures = given("train", "validation", "test")
    assert assign_splits(pictures, 0.15, 0.2) == [p.source.split for p in pictures]


@pytest.mark.parametrize(
    ("splits", "expected", "line"),
    [
        (("train", "test"), (8, 2, 10), "the source has no validation split: taken out of its training images"),
        (("train", "validation"), (8, 10, 2), "the source has no test split: taken out of its training images"),
        (("train",), (6, 2, 2), "the source has no validation and no test split: taken out of its training images"),
    ],
)
def test_missing_splits_come_out_of_training(
    splits: tuple[str, ...], expected: tuple[int, ...], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = given(*splits)
    made = assign_splits(pictures, 0.2, 0.2)
    assert count(pictures, made) == {"c0": expected, "c1": expected}
    assert all(split == p.source.split for p, split in zip(pictures, made, strict=True) if p.source.split != "train")
    assert capsys.readouterr().err.strip() == line


def test_given_splits_that_cannot_be_used() -> None:
    with pytest.raises(DataError, match="gives test and validation images but none for training"):
        assign_splits(given("test", "validation"), 0.15, 0.2)
    pictures = [*given("train", "test"), picture(99, "c9", split="train")]
    with pytest.raises(DataError, match="'c9' has 1 images but none for train and test"):
        assign_splits(pictures, 0.15, 0.2)


@pytest.mark.parametrize(
    ("validation", "test", "words"),
    [
        (0, 0.2, "validation_fraction is 0: give a number between 0 and 1"),
        (0.1, 1, "test_fraction is 1:"),
        (float("nan"), 0.2, "validation_fraction is nan"),
        (0.5, 0.4, "is 0.9: keep it below 0.9"),
    ],
)
def test_fractions_are_checked(validation: float, test: float, words: str) -> None:
    with pytest.raises(DataError, match=words):
        check_fractions(validation, test)
    check_fractions(0.15, 0.2)
