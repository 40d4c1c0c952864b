"""The step version_data: recorded or not there at all."""

import json
from pathlib import Path

import pytest
from builders import noise
from PIL import Image

from graftline import version_data
from graftline.data.build import keeps_splits_of
from graftline.data.dataset import open_split
from graftline.errors import DataError, GraftlineError, StoreError
from graftline.records import DataVersion, read_record

SHARES = {"validation_fraction": 0.2, "test_fraction": 0.4}


@pytest.fixture
def pets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Ten cats and ten dogs; the store is a folder."""
    monkeypatch.setenv("GRAFTLINE_WORKSPACE", str(tmp_path / "work"))
    monkeypatch.setenv("GRAFTLINE_STORE", str(tmp_path / "store"))
    for number in range(20):
        path = tmp_path / "pets" / ("cat", "dog")[number % 2] / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise(number)).save(path)
    return tmp_path / "pets"


def stored(tmp_path: Path) -> set[str]:
    """The files in the store."""
    return {path.relative_to(tmp_path).as_posix() for path in (tmp_path / "store").rglob("*") if path.is_file()}


def test_the_same_content_is_one_version_and_is_stored_once(pets: Path, tmp_path: Path) -> None:
    record = version_data(str(pets), tmp_path / "one")
    assert record == read_record(tmp_path / "one", DataVersion)
    assert {path.name for path in (tmp_path / "one").iterdir()} == {"record.json", "shards", "report.json", "files.csv"}
    before = stored(tmp_path)
    assert before
    (pets / "cat/00.png").rename(pets / "cat/renamed.png")
    assert version_data(str(pets), tmp_path / "two") == record
    assert stored(tmp_path) == before
    (pets / "cat/02.png").unlink()
    assert version_data(str(pets), tmp_path / "two").version != record.version
    assert stored(tmp_path) > before


def splits_of(dataset: Path) -> dict[str, str]:
    return {id: split for split in ("train", "validation", "test") for id in open_split(dataset, split).ids}


def test_old_images_stay_in_their_splits_when_the_data_grow(pets: Path, tmp_path: Path) -> None:
    first = version_data(str(pets), tmp_path / "one", previous="")
    for number in range(20, 30):
        Image.fromarray(noise(number)).save(pets / "dog" / f"{number}.png")
    version_data(str(pets), tmp_path / "two", previous=first.version)
    old, new = splits_of(tmp_path / "one"), splits_of(tmp_path / "two")
    assert len(new) == 30
    assert {id: new[id] for id in old} == old
    report = json.loads((tmp_path / "two" / "report.json").read_text())
    assert report["previous"] == {"versions": [first.version], "unmoved": [first.version], "stayed": 20, "moved": 0}
    assert keeps_splits_of(tmp_path / "two") == {first.version}
    assert keeps_splits_of(tmp_path / "one") == set()
    with pytest.raises(GraftlineError, match="has no version d9"):
        version_data(str(pets), tmp_path / "three", previous="d9")


def test_an_image_that_comes_back_finds_its_old_split(pets: Path, tmp_path: Path) -> None:
    first = version_data(str(pets), tmp_path / "one")
    trained = open_split(tmp_path / "one", "train").ids
    (tmp_path / "away").mkdir()
    for path in sorted(pets.glob("dog/*.png"))[:5]:
        path.rename(tmp_path / "away" / path.name)
    second = version_data(str(pets), tmp_path / "two", previous=first.version)
    for path in (tmp_path / "away").iterdir():
        path.rename(pets / "dog" / path.name)
    back = {**SHARES, "previous": f"{second.version},{first.version}"}
    version_data(str(pets), tmp_path / "three", **back)  # type: ignore[arg-type]
    assert set(trained) <= set(open_split(tmp_path / "three", "train").ids), "it was trained on and is never tested on"
    assert keeps_splits_of(tmp_path / "three") == {first.version, second.version}
    forgetful = {**SHARES, "previous": second.version}
    version_data(str(pets), tmp_path / "four", **forgetful)  # type: ignore[arg-type]
    assert set(trained) - set(open_split(tmp_path / "four", "train").ids)


def test_images_that_the_source_moves_to_another_split_are_told(pets: Path, tmp_path: Path) -> None:
    first = version_data(str(pets), tmp_path / "one")
    for label in ("cat", "dog"):
        for number, path in enumerate(sorted((pets / label).iterdir())):
            target = tmp_path / "given" / ("train", "val", "test")[number % 3] / label / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            path.rename(target)
    version_data(str(tmp_path / "given"), tmp_path / "two", previous=first.version)
    report = json.loads((tmp_path / "two" / "report.json").read_text())["previous"]
    assert report["moved"] > 0
    assert report["moved"] + report["stayed"] == 20
    assert keeps_splits_of(tmp_path / "two") == set(), "training cannot start from what has seen the first version"
    second = json.loads((tmp_path / "two" / "record.json").read_text())["version"]
    version_data(str(tmp_path / "given"), tmp_path / "three", previous=f"{second},{first.version}")
    report = json.loads((tmp_path / "three" / "report.json").read_text())["previous"]
    assert report["moved"] == 0, "by the word of the newest"
    assert keeps_splits_of(tmp_path / "three") == {second}


def test_an_unreachable_store_is_noticed_before_the_images_are_read(
    pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "store").write_text("a file")
    monkeypatch.setattr("graftline.data.build.check_source", None)
    with pytest.raises(StoreError, match="store"):
        version_data(str(pets), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_recorded_leaves_the_earlier_output(pets: Path, tmp_path: Path) -> None:
    record = version_data(str(pets), tmp_path / "out")
    (pets / "cat/02.png").unlink()
    (tmp_path / "no-repository").write_text("a file")
    with pytest.raises(GraftlineError, match="no-repository"):
        version_data(str(pets), tmp_path / "out", registry=str(tmp_path / "no-repository"))
    assert read_record(tmp_path / "out", DataVersion) == record
    assert {path.name for path in tmp_path.iterdir()} == {"pets", "store", "work", "out", "no-repository"}


def test_mistakes_are_noticed_first(pets: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="test_fraction is 2"):
        version_data(str(pets), tmp_path / "out", test_fraction=2)
    with pytest.raises(DataError, match="does not exist"):
        version_data(str(tmp_path / "nowhere"), tmp_path / "out")
    with pytest.raises(GraftlineError, match="graftline did not write"):
        version_data(str(pets), pets)
    assert not (tmp_path / "work").exists()
