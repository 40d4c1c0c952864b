"""Reading a dataset: the order of rows, memory maps, the cache, clear errors."""

import io
from pathlib import Path

import numpy as np
import pytest
from builders import noise
from PIL import Image

from graftline.data import shards
from graftline.data.dataset import iter_images, load_images, open_split
from graftline.data.decode import pixel_id, resize_square
from graftline.errors import DataError, GraftlineError
from graftline.records import DataVersion, read_record

SIZES = {"test": 2, "train": 70, "validation": 3}


def picture(number: int) -> np.ndarray:
    return noise(number, 6 + number % 3, 8)


@pytest.fixture
def dataset(own_cache: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """75 noise images in several small shards; the workspace is a temporary folder."""
    monkeypatch.setenv("GRAFTLINE_WORKSPACE", str(tmp_path / "work"))
    monkeypatch.setattr(shards, "SHARD_BYTES", 4_000)
    folder = tmp_path / "dataset"
    rows = []
    for number, split in enumerate(split for split, size in SIZES.items() for _ in range(size)):
        rgb, buffer = picture(number), io.BytesIO()
        Image.fromarray(rgb).save(buffer, "PNG")
        small = {"label": number % 2, "split": split, "group": "", "domain": "indoor", "id": pixel_id(rgb)}
        rows.append({**small, "image": buffer.getvalue(), "sha256": "", "width": rgb.shape[1], "height": rgb.shape[0]})
    files = shards.write_shards(folder, rows)
    assert len(files) > 3
    counts = {split: {"a": (size + 1) // 2, "b": size // 2} for split, size in SIZES.items()}
    about = {"images": 75, "median_width": 8, "median_height": 7, "grey": False, "shards": files}
    DataVersion(version="d0123", classes=["a", "b"], domains=["indoor"], counts=counts, **about).write(folder)
    return folder


def test_open_split_tells_ids_labels_domains(dataset: Path) -> None:
    split = open_split(dataset, "train")
    assert split.name == "train"
    assert split.ids == [pixel_id(picture(number)) for number in range(2, 72)]
    assert split.labels.dtype == np.int64
    assert split.labels.tolist() == [number % 2 for number in range(2, 72)]
    assert set(split.domains) == {"indoor"}


def test_images_come_in_the_same_order(dataset: Path) -> None:
    images = list(iter_images(dataset, "train"))
    assert all(np.array_equal(image, picture(number + 2)) for number, image in enumerate(images))
    assert len(images) == 70


def test_load_images_resizes_once_and_keeps_it(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = load_images(dataset, "validation", 4)
    assert images.shape == (3, 4, 4, 3)
    assert all(np.array_equal(image, resize_square(picture(72 + n), 4)) for n, image in enumerate(images))
    with pytest.raises(ValueError, match="read-only"):
        images[0] = 0
    bilinear = load_images(dataset, "validation", 4, "bilinear")
    assert not np.array_equal(images, bilinear)
    monkeypatch.setattr("graftline.data.dataset.decode_rgb", None)  # the second time nothing is decoded
    assert np.array_equal(load_images(dataset, "validation", 4), images)


def test_another_version_is_not_taken_from_the_cache(dataset: Path) -> None:
    before = load_images(dataset, "validation", 4)
    record = read_record(dataset, DataVersion)
    record.model_copy(update={"version": "d4567"}).write(dataset)
    assert not np.shares_memory(load_images(dataset, "validation", 4), before)
    assert len(list((dataset.parent / "work/cache/images").iterdir())) == 2


def test_an_interrupted_load_leaves_nothing(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("graftline.data.dataset.resize_square", lambda *_: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            load_images(dataset, "train", 4)
    assert list((dataset.parent / "work/cache/images").iterdir()) == []
    assert len(load_images(dataset, "train", 4)) == 70


def test_clear_errors(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no images in the split 'dev': it has test, train, validation"):
        open_split(dataset, "dev")
    with pytest.raises(DataError, match="'dev'"):
        iter_images(dataset, "dev")
    with pytest.raises(GraftlineError, match="not an output of `graftline version_data`"):
        load_images(tmp_path, "train", 4)
    shard = dataset / "shards/00001.parquet"
    shard.write_bytes(shard.read_bytes()[:-10])
    with pytest.raises(DataError, match="cut off or changed"):
        open_split(dataset, "train")
    shard.unlink()
    with pytest.raises(DataError, match="parquet is missing"):
        open_split(dataset, "train")
