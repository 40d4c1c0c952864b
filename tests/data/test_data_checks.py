"""From a source to a dataset folder: what is set aside is listed, what would mislead is refused."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import noise
from PIL import Image

from graftline.data import shards
from graftline.data.build import build_dataset
from graftline.data.dataset import iter_images, load_images, open_split
from graftline.data.sources import open_source
from graftline.errors import DataError
from graftline.records import DataVersion, read_record


def picture(path: Path, number: int, **options: Any) -> None:
    """A small image whose pixels depend on the number alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise(number, 6, 5 + number % 3)).save(path, **options)


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """Ten cats and ten dogs."""
    for number in range(20):
        picture(tmp_path / "pets" / ("cat", "dog")[number % 2] / f"{number:02}.png", number)
    return tmp_path / "pets"


def build(source: Path, out: Path) -> DataVersion:
    out.mkdir()
    with open_source(str(source)) as listing:
        return build_dataset(listing, out, 0.15, 0.2)


def report(out: Path) -> dict[str, Any]:
    return json.loads((out / "report.json").read_text())


def content(out: Path) -> dict[str, bytes]:
    """The files that are the version."""
    return {path.name: path.read_bytes() for path in (out / "record.json", *sorted((out / "shards").iterdir()))}


def refused(source: Path, words: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        build(source, source.parent / "refused")
    assert "\n" not in str(caught.value)


def test_a_dataset_can_be_read_back(pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAFTLINE_WORKSPACE", str(tmp_path / "work"))
    out = tmp_path / "out"
    record = build(pets, out)
    assert record == read_record(out, DataVersion)
    assert record.classes == ["cat", "dog"]
    assert record.counts == {split: {"cat": n, "dog": n} for split, n in (("train", 6), ("validation", 2), ("test", 2))}
    assert (record.images, record.domains, record.grey, record.median_width, record.median_height) == (
        20,
        [],
        False,
        6,
        6,
    )
    for split, counts in record.counts.items():
        assert np.bincount(open_split(out, split).labels).tolist() == list(counts.values())
        assert len(load_images(out, split, 4)) == len(list(iter_images(out, split))) == sum(counts.values())
    assert report(out)["images_used"] == report(out)["files_found"] == 20
    with (out / "files.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == sorted(p.relative_to(pets).as_posix() for p in pets.rglob("*.png"))
    assert {row["split"] for row in rows if row["label"] == "dog"} == {"train", "validation", "test"}


def test_names_order_and_form_of_the_source_change_nothing(pets: Path, tmp_path: Path) -> None:
    build(pets, tmp_path / "one")
    lines = ["path,label"]
    for number, path in enumerate(sorted(pets.rglob("*.png"), reverse=True)):
        name = f"{number * 7919 % 100:02}.jpg"  # another name, a wrong suffix, another order
        shutil.copy(path, tmp_path / name)
        lines.append(f"{name},{path.parent.name}")
    (tmp_path / "m.csv").write_text("\n".join(lines))
    build(tmp_path / "m.csv", tmp_path / "two")
    assert content(tmp_path / "one") == content(tmp_path / "two")


def test_another_label_split_group_domain_or_pixel_is_another_version(tmp_path: Path) -> None:
    rows = []
    for number in range(20):
        picture(tmp_path / f"{number}.png", number)
        rows.append({"path": f"{number}.png", "label": "ab"[number % 2], "domain": "x", "group": f"{number}"})
    picture(tmp_path / "new.png", 99)
    changes: list[dict[str, str]] = [{}, {"label": "c"}, {"domain": "y"}, {"group": "1"}, {"path": "new.png"}]
    versions = set()
    for change in changes:
        with (tmp_path / "m.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, ["path", "label", "domain", "group"])
            writer.writeheader()
            writer.writerows([{**row, **(change if number < 3 * ("label" in change) or number == 0 else {})}
                              for number, row in enumerate(rows)])  # fmt: skip
        versions.add(build(tmp_path / "m.csv", tmp_path / f"out{len(versions)}").version)
    assert len(versions) == len(changes)


def test_several_shards(pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "SHARD_BYTES", 500)
    record = build(pets, tmp_path / "out")
    assert [entry.file for entry in record.shards[:2]] == ["shards/00000.parquet", "shards/00001.parquet"]
    assert sum(len(open_split(tmp_path / "out", split).ids) for split in record.counts) == 20


def test_unreadable_files_are_left_out_and_listed(
    pets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = (pets / "cat/00.png").read_bytes()
    (pets / "cat/00.png").write_bytes(whole[:60])
    (pets / "dog/text.png").write_text("no image")
    (pets / "dog/gone.png").symlink_to("nowhere.png")
    record = build(pets, tmp_path / "out")
    assert record.images == 19
    assert "3 of 22 files cannot be read, cat/00.png for one: damaged image" in capsys.readouterr().err
    listed = {row["name"]: row["reason"] for row in report(tmp_path / "out")["quarantined"]}
    assert listed["cat/00.png"].startswith("damaged image (OSError: ")
    assert listed["dog/text.png"] == "not a JPEG, PNG, BMP, WebP, TIFF or GIF image"
    assert listed["dog/gone.png"] == "the file does not exist"


def test_too_many_unreadable_files(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("path,label\n" + "\n".join(f"{n}.png,{'ab'[n % 2]}" for n in range(9)))
    refused(tmp_path / "m.csv", r"9 of 9 files cannot be read, 0.png for one: the file does not exist; more than half")


def test_a_picture_with_two_labels_is_left_out_with_all_its_copies(
    pets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture(pets / "dog/cat in disguise.bmp", 0)  # another format, the same pixels
    assert build(pets, tmp_path / "out").images == 19
    assert report(tmp_path / "out")["quarantined"] == [
        {"name": "cat/00.png", "reason": "the same picture has another label: dog/cat in disguise.bmp is 'dog'"},
        {"name": "dog/cat in disguise.bmp", "reason": "the same picture has another label: cat/00.png is 'cat'"},
    ]
    assert "stand under two labels: 1, cat/00.png for one" in capsys.readouterr().err


def test_of_exact_duplicates_one_is_kept_by_content(pets: Path, tmp_path: Path) -> None:
    build(pets, tmp_path / "one")
    shutil.copy(pets / "cat/00.png", pets / "cat/again.png")
    shutil.copy(pets / "cat/00.png", pets / "cat/0.png")
    build(pets, tmp_path / "two")
    assert content(tmp_path / "one") == content(tmp_path / "two")
    duplicates = [{"left_out": f"cat/{name}.png", "kept": "cat/0.png"} for name in ("00", "again")]
    assert report(tmp_path / "two")["duplicates"] == duplicates


def split_folders(root: Path) -> Path:
    for number in range(18):
        split, label = ("train", "val", "test")[number % 3], ("cat", "dog")[number % 2]
        picture(root / split / label / f"{number}.png", number)
    return root


def test_the_same_picture_in_two_splits_is_refused(tmp_path: Path) -> None:
    root = split_folders(tmp_path / "pets")
    assert build(root, tmp_path / "fine").counts["validation"] == {"cat": 3, "dog": 3}
    picture(root / "test/cat/copy.bmp", 0)
    refused(root, r"1 picture in more than one split \(test/cat/copy.bmp \(test\) and train/cat/0.png \(train\)\)")
    (tmp_path / "refused").rmdir()
    for number in (3, 6, 9, 12):
        picture(root / f"val/{('cat', 'dog')[number % 2]}/{number}.png", number)
    refused(root, r"5 pictures in more than one split \(.*; .*; .*; \.\.\.\): the test would measure memory")


def test_one_row_twice_in_two_splits_is_refused(pets: Path) -> None:
    rows = [f"{p.relative_to(pets)},{p.parent.name},train" for p in pets.rglob("*.png")]
    (pets / "m.csv").write_text("\n".join(["path,label,split", *rows, "cat/00.png,cat,test"]))
    refused(pets / "m.csv", r"cat/00.png \(train\) and cat/00.png \(test\)")


def test_a_group_in_two_given_splits_is_refused(pets: Path) -> None:
    rows = [
        f"{p.relative_to(pets)},{p.parent.name},{'test' if '0' in p.stem else 'train'},g" for p in pets.rglob("*.png")
    ]
    (pets / "m.csv").write_text("\n".join(["path,label,split,group", *rows]))
    refused(pets / "m.csv", "1 group in more than one split")


def test_groups_that_share_a_picture_stay_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Forty groups of three: each shares its first picture with another one, or has a copy of it without a group."""
    rows = []
    for number in range(120):
        path = tmp_path / f"{number:03}.png"
        picture(path, number)
        group = number // 3
        rows.append((path.name, group % 2, f"g{group:02}"))
        if number % 3 == 0:
            rows.append((path.name, group % 2, f"g{group + 2:02}" if group % 4 < 2 else ""))
    with (tmp_path / "m.csv").open("w") as file:
        csv.writer(file).writerows([("path", "label", "group"), *rows])
    build(tmp_path / "m.csv", tmp_path / "out")
    assert "pictures that stand in several groups: 20, 000.png for one (in 2)" in capsys.readouterr().err
    split_of = {}
    for split in ("train", "validation", "test"):
        split_of |= dict.fromkeys(open_split(tmp_path / "out", split).ids, split)
    names = {row["sha256"]: row["path"] for row in csv.DictReader((tmp_path / "out" / "files.csv").open())}
    by_name = {names[row["sha256"]]: row["split"] for row in csv.DictReader((tmp_path / "out" / "files.csv").open())}
    assert len(by_name) == len(split_of) == 120
    for pair in range(0, 40, 4):
        for one in (pair, pair + 1):  # joined with the group two further on
            of_both = [by_name[f"{3 * group + at:03}.png"] for group in (one, one + 2) for at in range(3)]
            assert len(set(of_both)) == 1
    assert set(by_name.values()) == {"train", "validation", "test"}


def test_empty_and_single_classes_are_refused(pets: Path, tmp_path: Path) -> None:
    (pets / "emu").mkdir()
    refused(pets, "the class 'emu' has no image .its folder is empty.: add images or remove the class")
    (tmp_path / "refused").rmdir()
    (pets / "emu/1.png").write_bytes(b"")
    refused(pets, "the class 'emu' has no image .none of its 1 files is usable.")
    (tmp_path / "refused").rmdir()
    shutil.rmtree(pets / "emu")
    shutil.rmtree(pets / "dog")
    refused(pets, "there is only one class, 'cat'")


def test_a_file_that_changes_meanwhile_is_noticed(pets: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with open_source(str(pets)) as listing, pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "graftline.data.build.assign_splits", lambda *_: (picture(pets / "cat/00.png", 77), ["train"] * 20)[1]
        )
        with pytest.raises(DataError, match=r"cat/00\.png changed while it was being read"):
            build_dataset(listing, tmp_path / "out", 0.15, 0.2)


def test_grey_images_are_recognised(tmp_path: Path) -> None:
    for number in range(8):
        path = tmp_path / "pets" / "ab"[number % 2] / f"{number}.png"
        picture(path, number)
        Image.open(path).convert("L").save(path)
    assert build(tmp_path / "pets", tmp_path / "out").grey
