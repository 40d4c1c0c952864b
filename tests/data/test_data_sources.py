"""All forms of a source give the same listing; what has no known form is refused in one clear line."""

import os
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from graftline.data.layouts import Source
from graftline.data.parallel import map_threads
from graftline.data.sources import absolute, find_images, open_source, source_fingerprint
from graftline.errors import DataError


def touch(root: Path, *names: str) -> Path:
    """Files that need not be images: listing opens none."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    return root


def listing(source: Path | str) -> Source:
    with open_source(str(source)) as found:
        return found


def told(source: Path | str) -> list[tuple[str, str, str]]:
    return [(image.name, image.label, image.split) for image in listing(source).images]


def refused(source: Path | str, words: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        listing(source)
    assert "\n" not in str(caught.value)


def test_class_folders(tmp_path: Path) -> None:
    touch(tmp_path, "cat/2.JPG", "cat/1.png", "dog/1.webp", "cat/notes.txt", "dog/.DS_Store", "dog/.1.png", "README.md")
    touch(tmp_path, ".git/x/1.png", "__MACOSX/dog/1.png", "preview.png")
    (tmp_path / "emu").mkdir()
    found = listing(tmp_path)
    assert told(tmp_path) == [("cat/1.png", "cat", ""), ("cat/2.JPG", "cat", ""), ("dog/1.webp", "dog", "")]
    assert found.labels == ["cat", "dog", "emu"]
    assert found.ignored == {"hidden": 2, "not an image": 2, "outside class folders": 1}
    assert found.images[0].path == tmp_path / "cat/1.png"


@pytest.mark.parametrize("validation", ["val", "valid", "validation", "Val"])
def test_split_folders(tmp_path: Path, validation: str) -> None:
    touch(tmp_path, "train/cat/1.png", "train/dog/2.png", f"{validation}/cat/3.png", "test/dog/4.png")
    assert sorted(told(tmp_path)) == sorted(
        [
            ("train/cat/1.png", "cat", "train"),
            ("train/dog/2.png", "dog", "train"),
            (f"{validation}/cat/3.png", "cat", "validation"),
            ("test/dog/4.png", "dog", "test"),
        ]
    )


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    touch(tmp_path, "train/1.png", "bus/1.png")
    assert [label for _, label, _ in told(tmp_path)] == ["bus", "train"]


def test_the_workspace_in_the_folder_of_the_images_is_none_of_theirs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "cat/1.png", "dog/2.png", "graftline-work/cache/3.png", "graftline-work/runs/a/bundle/4.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GRAFTLINE_WORKSPACE")
    before = source_fingerprint(".")
    for source in (".", tmp_path):
        assert [label for _, label, _ in told(source)] == ["cat", "dog"]
    assert list(find_images(".")) == ["./cat/1.png", "./dog/2.png"]
    touch(tmp_path, "graftline-work/runs/b/bundle/5.png")
    assert source_fingerprint(".") == before
    monkeypatch.setenv("GRAFTLINE_WORKSPACE", str(tmp_path / "elsewhere"))
    refused(tmp_path, "lies too deep")


def test_what_lies_beside_split_folders_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "train/cat/1.png", "Test/dog/2.png", "extras/3.png", "notes/raw/4.png")
    refused(tmp_path, "has the split folders Test, train and, beside them, extras, notes: move what is no split")


MANIFEST = "Path,label,split,domain,group\nb.png,cat,TRAIN,paris,g1\n sub/a.png , 3 ,val,,\n"


def test_csv_manifest(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text(MANIFEST, encoding="utf-8-sig")
    first, second = listing(tmp_path / "list.csv").images
    assert (first.name, first.label, first.split, first.domain, first.group) == ("b.png", "cat", "train", "paris", "g1")
    assert (second.name, second.label, second.split, second.domain, second.group) == (
        "sub/a.png",
        "3",
        "validation",
        "",
        "",
    )
    assert second.path == tmp_path / "sub/a.png"


def test_the_column_without_a_name_that_pandas_writes_is_none_of_ours(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text(",path,label,split\n7,a.png,cat,train\n8,b.png,dog,test\n")
    touch(tmp_path, "a.png", "b.png")
    images = listing(tmp_path / "m.csv").images
    assert [(image.split, image.group, image.domain) for image in images] == [("train", "", ""), ("test", "", "")]


def test_parquet_manifest_and_a_folder_that_holds_it(tmp_path: Path) -> None:
    table = pa.table({"label": [1, 0], "path": ["b.png", "a.png"], "image": [b"", b""], "domain": ["x", None]})
    pq.write_table(table, tmp_path / "manifest.parquet")
    assert told(tmp_path) == told(tmp_path / "manifest.parquet") == [("a.png", "0", ""), ("b.png", "1", "")]
    assert [image.domain for image in listing(tmp_path).images] == ["", "x"]


@pytest.mark.parametrize("form", ["zip", "tar", "gztar"])
def test_archives_with_and_without_a_folder_around(tmp_path: Path, form: str) -> None:
    touch(tmp_path / "in/pets", "cat/1.png", "dog/2.png")
    for root in (tmp_path / "in", tmp_path / "in/pets"):
        archive = shutil.make_archive(str(tmp_path / "pets"), form, root)
        with open_source(archive) as found:
            assert [image.path.read_bytes() for image in found.images] == [b"cat/1.png", b"dog/2.png"]
        assert not found.images[0].path.exists()


def test_an_archive_gives_what_its_folder_gives(tmp_path: Path) -> None:
    touch(tmp_path / "pets", "cat/img..9.png", "cat/1.png", "dog/2.png")
    archive = Path(shutil.make_archive(str(tmp_path / "in"), "zip", tmp_path / "pets"))
    loud = archive.rename(tmp_path / "PETS.ZIP")
    assert told(loud) == told(tmp_path / "pets")
    assert len(told(loud)) == 3


@pytest.mark.parametrize("form", ["zip", "tar", "gztar", "xztar"])
def test_damaged_archives_are_told_in_one_line(tmp_path: Path, form: str) -> None:
    touch(tmp_path / "pets", "cat/1.png", "dog/2.png")
    (tmp_path / "pets" / "cat" / "1.png").write_bytes(os.urandom(50_000))
    archive = Path(shutil.make_archive(str(tmp_path / "in"), form, tmp_path / "pets"))
    content = bytearray(archive.read_bytes())
    content[len(content) // 2] ^= 255
    archive.write_bytes(content[: len(content) // 2] if form == "tar" else content)
    refused(archive, "cannot be unpacked")


def test_what_was_appended_to_an_archive_is_left_alone_but_it_must_be_whole(tmp_path: Path) -> None:
    touch(tmp_path / "pets", "cat/1.png", "dog/2.png")
    (tmp_path / "pets" / "cat" / "1.png").write_bytes(os.urandom(50_000))
    archive = Path(shutil.make_archive(str(tmp_path / "in"), "gztar", tmp_path / "pets"))
    whole = archive.read_bytes()
    archive.write_bytes(whole + b"signature")
    assert [name for name, _, _ in told(archive)] == ["cat/1.png", "dog/2.png"]
    for damaged in (whole[:-8] + b"\0" * 8, whole[:-4], whole[: len(whole) // 2]):
        archive.write_bytes(damaged)
        refused(archive, "cannot be unpacked")


def test_an_archive_that_points_outside_is_refused(tmp_path: Path) -> None:
    touch(tmp_path / "pets", "cat/1.png", "dog/2.png")
    (tmp_path / "pets" / "dog" / "3.png").symlink_to("/etc/passwd")
    refused(shutil.make_archive(str(tmp_path / "in"), "tar", tmp_path / "pets"), "cannot be unpacked")


def test_a_name_that_cannot_be_written_down_is_refused(tmp_path: Path) -> None:
    touch(tmp_path / "pets", "cat/1.png", "dog/2.png")
    Path(os.fsdecode(os.fsencode(tmp_path / "pets" / "cat") + b"/caf\xe9.png")).touch()
    words = r"the name of caf\\xe9.png in .*cat is not UTF-8: rename it"
    refused(tmp_path / "pets", words)
    with pytest.raises(DataError, match=words):
        source_fingerprint(str(tmp_path / "pets"))


def test_names_with_accents_are_one_class_in_both_spellings(tmp_path: Path) -> None:
    touch(tmp_path, "train/caf\u00e9/1.png", "train/bar/2.png", "test/cafe\u0301/3.png")
    assert listing(tmp_path).labels == ["bar", "caf\u00e9"]


def test_folders_of_no_known_form(tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", "does not exist")
    refused("", "does not exist")
    refused(touch(tmp_path, "a.xlsx") / "a.xlsx", "not a folder, nor a .csv or .parquet manifest")
    refused(
        touch(tmp_path / "flat", "1.png", "2.jpg", "x.txt"), "found 2 images directly in .*flat but no class folders"
    )
    refused(touch(tmp_path / "text", "x.txt"), "text has no class folders")
    refused(touch(tmp_path / "none", "cat/x.txt", "dog/y.txt"), "has class folders but no images")
    refused(touch(tmp_path / "deep", "paris/cat/1.png", "rome/cat/2.png"), "cat/1.png lies too deep")
    refused(touch(tmp_path / "half", "train/cat/1.png", "test/2.png"), "found 1 images directly in .*test but no class")
    refused(touch(tmp_path, "broken.zip") / "broken.zip", "cannot be unpacked")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("file,label\na.png,cat\n", "lacks the column path: it has file, label"),
        ("path;label\na.png;cat\n", "lacks the column path and label: it has path;label"),
        ("", "lacks the column path and label: it is empty"),
        ("path,label\n", "has no rows"),
        ("path,label\na.png,cat\nb.png,\n", "row 2 of .* has no label"),
        ("path,label\na.png,cat\nb\0.png,cat\n", "the path in row 2 of .* holds a null character"),
        ("path,label,split\na.png,cat,holdout\n", "has the split 'holdout': use train, validation or test"),
        ("path,label,split\na.png,cat,train\nb.png,cat,\n", "for some rows but not for 1"),
    ],
)
def test_manifests_that_cannot_be_used(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "manifest.csv").write_text(text)
    refused(tmp_path, words)


def test_manifests_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_bytes(b"path,label\n\xff\xfe,cat\n")
    refused(tmp_path / "m.csv", "not a CSV file in UTF-8")
    (tmp_path / "m.parquet").write_bytes(b"path,label\n")
    refused(tmp_path / "m.parquet", "not a Parquet file")


def test_fingerprint_of_a_folder(tmp_path: Path) -> None:
    touch(tmp_path / "pets", "cat/1.png", "dog/2.png")
    before = source_fingerprint(str(tmp_path / "pets"))
    shutil.copytree(tmp_path / "pets", tmp_path / "copy")
    touch(tmp_path / "copy", ".DS_Store")
    assert source_fingerprint(str(tmp_path / "copy")) == before
    os.utime(tmp_path / "copy/cat/1.png", (1, 1))
    touched = source_fingerprint(str(tmp_path / "copy"))
    (tmp_path / "copy/cat/1.png").rename(tmp_path / "copy/cat/3.png")
    renamed = source_fingerprint(str(tmp_path / "copy"))
    touch(tmp_path / "copy", "cat/4.png")
    assert len({before, touched, renamed, source_fingerprint(str(tmp_path / "copy"))}) == 4


def test_fingerprint_of_a_manifest_covers_its_rows_and_its_images(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "unlisted.png")
    manifest = tmp_path / "m.csv"
    manifest.write_text("path,label\na.png,cat\nmissing.png,dog\n")
    before = source_fingerprint(str(manifest))
    (tmp_path / "unlisted.png").unlink()
    os.utime(manifest, (1, 1))
    assert source_fingerprint(str(manifest)) == before
    touch(tmp_path, "missing.png")
    there = source_fingerprint(str(manifest))
    manifest.write_text("path,label\na.png,cat\nmissing.png,cat\n")
    assert len({before, there, source_fingerprint(str(manifest))}) == 3
    with pytest.raises(DataError, match="does not exist"):
        source_fingerprint(str(tmp_path / "nowhere"))


def test_a_home_that_is_nobodys_is_a_missing_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused("~no-such-user/photos", "'~no-such-user/photos' does not exist")
    with pytest.raises(DataError, match="~no-such-user/photos does not exist"):
        find_images("~no-such-user/photos")
    monkeypatch.setenv("HOME", str(touch(tmp_path, "pets/cat/1.png")))
    assert absolute("~/pets") == str(tmp_path / "pets")
    assert told("~/pets") == [("cat/1.png", "cat", "")]


class Stream:
    """Items, and how many were taken from it."""

    def __init__(self) -> None:
        self.taken = 0

    def __iter__(self) -> Iterator[int]:
        for number in range(1000):
            self.taken += 1
            yield number


def test_a_stream_is_taken_a_few_items_ahead_however_many_processors_there_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    few, many = Stream(), Stream()
    assert next(map_threads(abs, few, workers=2)) == 0
    monkeypatch.setattr("graftline.data.parallel.cpu_count", lambda: 64)
    assert next(map_threads(abs, many)) == 0
    assert (few.taken, many.taken) == (4, 10)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="bound to processors on Linux only")
def test_only_processors_that_the_process_may_use_count() -> None:
    running, peak, guard = 0, 0, threading.Lock()

    def work(number: int) -> int:
        nonlocal running, peak
        with guard:
            running += 1
            peak = max(peak, running)
        time.sleep(0.01)
        with guard:
            running -= 1
        return number

    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert list(map_threads(work, range(5))) == list(range(5))
    finally:
        os.sched_setaffinity(0, before)
    assert peak == 1
