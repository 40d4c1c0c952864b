"""The demo's manifest: the published task, a fixed test split, and one clear line when the images are missing."""

import csv
import hashlib
import importlib.util
from collections import Counter
from pathlib import Path

import pytest

from graftline.errors import DataError
from graftline.runs.demo import lay_out

# SHA-256 over the sorted content hashes of the 656 test images: were the split to move, no two results would compare.
TEST_SPLIT = "03b3bc5b396a25ec99af9f8c87c2422642258d610746e1749bb280fdbbd0523e"


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lay_out(tmp_path_factory.mktemp("demo"))


@pytest.fixture(scope="module")
def rows(manifest: Path) -> list[dict[str, str]]:
    with manifest.open(newline="") as file:
        return list(csv.DictReader(file))


def test_manifest_holds_the_published_task(rows: list[dict[str, str]]) -> None:
    counts = Counter((row["label"], row["domain"]) for row in rows)
    assert counts == {
        ("functional", "poly"): 1098,
        ("functional", "mono"): 705,
        ("defective", "poly"): 452,
        ("defective", "mono"): 369,
    }
    assert all(Path(row["path"]).is_file() for row in rows)


def test_test_split_is_a_quarter_of_every_label_and_domain(rows: list[dict[str, str]]) -> None:
    counts = Counter((row["label"], row["domain"], row["split"]) for row in rows)
    assert {key[2] for key in counts} == {"train", "test"}
    assert sum(count for key, count in counts.items() if key[2] == "test") == 656
    for label, domain, split in list(counts):
        whole = counts[label, domain, "train"] + counts[label, domain, "test"]
        if split == "test":
            assert abs(counts[label, domain, split] - whole / 4) <= 0.5


def test_test_split_never_moves(rows: list[dict[str, str]]) -> None:
    images = [Path(row["path"]) for row in rows if row["split"] == "test"]
    hashes = sorted(hashlib.sha256(image.read_bytes()).hexdigest() for image in images)
    assert hashlib.sha256("".join(hashes).encode()).hexdigest() == TEST_SPLIT


def test_labels_agree_with_the_package(rows: list[dict[str, str]]) -> None:
    import elpv_dataset

    table = Path(elpv_dataset.__file__).parent / "data" / "labels.csv"
    probability = {Path(line.split()[0]).name: float(line.split()[1]) for line in table.read_text().splitlines()}
    for row in rows:
        assert (row["label"] == "defective") == (probability[Path(row["path"]).name] >= 0.5)


def test_laying_out_twice_changes_nothing(manifest: Path) -> None:
    before = manifest.read_bytes()
    assert lay_out(manifest.parent) == manifest
    assert manifest.read_bytes() == before
    assert [path.name for path in manifest.parent.iterdir()] == ["manifest.csv"]


def test_missing_package_names_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"pip install elpv-dataset==") as error:
        lay_out(tmp_path)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "manifest.csv").exists()
