"""Sources in S3: the same images as from a folder, fetched once, and one clear line when they cannot be had."""

import io
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from builders import noise
from PIL import Image
from registry_inputs import make_bundle, make_dataset, make_evaluation, threshold

from graftline import detect_change, register_model, version_data
from graftline.data import checks
from graftline.data.checks import Picture, check_source
from graftline.data.dataset import iter_images, open_split
from graftline.data.remote import place_of
from graftline.data.sources import find_images, open_source, source_fingerprint
from graftline.data.trees import tree_of_objects
from graftline.data.versions import record_version
from graftline.errors import DataError, GraftlineError, StoreError
from graftline.runs.local import run
from graftline.storage import connect_store
from graftline.storage.objects import Objects, StoredObject
from graftline.storage.store import s3_client
from graftline.workspace import cache_folder

_ACCESS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL_S3", "AWS_DEFAULT_REGION")


class Bucket:
    """A test's own part of a bucket."""

    def __init__(self, part: str) -> None:
        self.part, self.client = part, s3_client(connect_timeout=5, read_timeout=30, total_max_attempts=3)

    def url(self, key: str) -> str:
        return f"s3://images/{self.part}/{key}"

    def put(self, key: str, content: bytes | str) -> str:
        """Stores an object and returns its URL."""
        self.client.put_object(Bucket="images", Key=f"{self.part}/{key}", Body=content)
        return self.url(key)

    def delete(self, key: str) -> None:
        self.client.delete_object(Bucket="images", Key=f"{self.part}/{key}")

    def put_folder(self, folder: Path, prefix: str) -> str:
        """Stores the files of a folder and returns their URL."""
        for path in folder.rglob("*"):
            if path.is_file():
                self.put(f"{prefix}/{path.relative_to(folder).as_posix()}", path.read_bytes())
        return self.url(prefix)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of somebody who has an S3."""
    with connect_store(tmp_path_factory.mktemp("s3")):
        s3_client(connect_timeout=5, read_timeout=30, total_max_attempts=3).create_bucket(Bucket="images")
        yield {name: os.environ[name] for name in _ACCESS}


@pytest.fixture
def bucket(own_cache: None, server: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """A place for images; the workspace is empty, the store a folder."""
    monkeypatch.setenv("GRAFTLINE_WORKSPACE", str(tmp_path / "work"))
    monkeypatch.setenv("GRAFTLINE_STORE", str(tmp_path / "store"))
    monkeypatch.delenv("GRAFTLINE_STORE_IS_EMBEDDED", raising=False)
    for name, value in server.items():
        monkeypatch.setenv(name, value)
    return Bucket(tmp_path.name)


def png(number: int) -> bytes:
    content = io.BytesIO()
    Image.fromarray(noise(number)).save(content, "png")
    return content.getvalue()


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """Ten cats and ten dogs in class folders."""
    for number in range(20):
        path = tmp_path / "pets" / ("cat", "dog")[number % 2] / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(number))
    return tmp_path / "pets"


def told(source: Path | str) -> list[tuple[str, str, str, str]]:
    """Lists a source and reads its images, which must be text."""
    with open_source(str(source)) as found:
        return [(image.name, image.label, image.domain, image.path.read_text()) for image in found.images]


def copies() -> list[Path]:
    return [path for path in (cache_folder() / "objects").glob("??/*") if path.suffix != ".part"]


# The same as from a folder


@pytest.mark.slow
def test_a_prefix_gives_the_same_version_as_the_folder(pets: Path, bucket: Bucket, tmp_path: Path) -> None:
    url = bucket.put_folder(pets, "deep/pets")
    here, there = (version_data(str(source), tmp_path / name) for source, name in ((pets, "a"), (url, "b")))
    assert here == there
    for name in ("files.csv", "report.json", "record.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert version_data(f"{url}/", tmp_path / "c") == here, "a slash at the end means the same"


@pytest.mark.slow
def test_split_folders_empty_folders_and_what_is_no_image(bucket: Bucket) -> None:
    for key in ("train/cat/1.png", "val/cat/2.png", "test/dog/3.JPG", "train/cat/notes.txt", "train/cat/.1.png"):
        bucket.put(f"x/{key}", key)
    for key in ("train/emu/", "train/.cache/1.png"):
        bucket.put(f"x/{key}", "")
    with open_source(bucket.url("x")) as found:
        assert [(image.name, image.label, image.split) for image in found.images] == [
            ("test/dog/3.JPG", "dog", "test"),
            ("train/cat/1.png", "cat", "train"),
            ("val/cat/2.png", "cat", "validation"),
        ]
        assert [image.path.read_text() for image in found.images] == [image.name for image in found.images]
        assert found.labels == ["cat", "dog", "emu"]
        assert found.ignored == {"hidden": 1, "not an image": 1}
    assert len(copies()) == 3, "what is no image is not fetched"


@pytest.mark.slow
@pytest.mark.parametrize("form", ["zip", "gztar"])
def test_an_archive(form: str, pets: Path, bucket: Bucket, tmp_path: Path) -> None:
    archive = Path(shutil.make_archive(str(tmp_path / "images"), form, pets))
    url = bucket.put(f"in/{archive.name}", archive.read_bytes())
    with open_source(str(archive)) as here, open_source(url) as there:
        assert [(i.name, i.label, i.path.read_bytes()) for i in there.images] == [
            (i.name, i.label, i.path.read_bytes()) for i in here.images
        ]
    (copy,) = copies()
    before = copy.stat().st_mtime_ns
    with open_source(url):
        assert copy.stat().st_mtime_ns == before, "fetched once"


def manifest(*rows: str) -> str:
    return "\n".join(["path,label,domain", *rows, ""])


@pytest.mark.slow
def test_a_manifest_names_images_beside_it_or_anywhere_in_s3(bucket: Bucket, tmp_path: Path) -> None:
    for key in ("data/a/1.png", "data/2.png", "other/3.png", "other/unlisted.png"):
        bucket.put(key, key)
    rows = ("./2.png,cat,x", f"{bucket.url('other/3.png')},dog,y", "../other/3.png,dog,y", "a/1.png,cat,")
    bucket.put("data/manifest.csv", manifest(*rows))
    expected = [
        ("../other/3.png", "dog", "y", "other/3.png"),
        ("./2.png", "cat", "x", "data/2.png"),
        ("a/1.png", "cat", "", "data/a/1.png"),
        (bucket.url("other/3.png"), "dog", "y", "other/3.png"),
    ]
    assert told(bucket.url("data/manifest.csv")) == expected
    assert told(bucket.url("data")) == expected, "a prefix that holds a manifest"
    assert len(copies()) == 4, "the manifest and three images; under its own suffix the manifest is read"
    (tmp_path / "here.csv").write_text(manifest(f"{bucket.url('data/2.png')},cat,x"))
    assert told(tmp_path / "here.csv") == [(bucket.url("data/2.png"), "cat", "x", "data/2.png")]


@pytest.mark.slow
def test_an_image_that_a_manifest_names_in_vain_is_left_to_the_checks(bucket: Bucket) -> None:
    for number in range(6):
        bucket.put(f"{number}.png", png(number))
    rows = [f"{number}.png,{('cat', 'dog')[number % 2]}," for number in range(7)]
    with open_source(bucket.put("m.csv", manifest(*rows))) as found:
        checked = check_source(found)
    assert [(one.name, one.reason) for one in checked.rejected] == [("6.png", "the file does not exist")]
    assert len(checked.pictures) == 6


# Fetched once, decoded once


@pytest.mark.slow
def test_only_what_is_new_is_fetched(pets: Path, bucket: Bucket, capsys: pytest.CaptureFixture[str]) -> None:
    def said() -> str:
        with open_source(url):
            return capsys.readouterr().err

    url = bucket.put_folder(pets, "pets")
    assert said() == "fetched 20 images (3.6 kB); 0 were here already\n"
    assert said() == ""
    bucket.put("pets/cat/00.png", png(100))
    bucket.put("pets/cat/new.png", png(101))
    assert said() == "fetched 2 images (364 B); 19 were here already\n"
    copies()[0].write_bytes(b"cut")
    assert said() == f"fetched 1 images ({len(png(100))} B); 20 were here already\n", "a copy that is cut off is none"


@pytest.mark.slow
def test_an_unchanged_object_is_decoded_once(
    pets: Path, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[bytes] = []
    decode = checks.decode_rgb
    monkeypatch.setattr(checks, "decode_rgb", lambda content: decoded.append(content) or decode(content))

    def pictures() -> list[tuple[object, ...]]:
        with open_source(url) as found:
            return [facts(picture) for picture in check_source(found).pictures]

    def facts(p: Picture) -> tuple[object, ...]:
        return (p.id, p.sha256, p.width, p.height, p.grey, p.source.label)

    url = bucket.put_folder(pets, "pets")
    first = pictures()
    assert len(decoded) == 20
    (journal,) = (cache_folder() / "objects").glob("*.jsonl")
    journal.write_text(journal.read_text() + '["cut off when')
    assert pictures() == first
    assert len(decoded) == 20
    bucket.put("pets/cat/00.png", png(100))
    changed = pictures()
    assert len(decoded) == 21
    with open_source(url) as found:
        assert pictures() == changed
        assert len(decoded) == 21, "a line that was cut off does not spoil the next one"
        assert len(found.images) == 20


@pytest.mark.slow
def test_a_stopped_fetch_goes_on_where_it_was(bucket: Bucket, tmp_path: Path) -> None:
    content = os.urandom(3_000_000)
    item = Objects().find(bucket.put("images.zip", content))
    (tmp_path / "copy.part").write_bytes(bytes(1_000_000))
    Objects().fetch(item, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == bytes(1_000_000) + content[1_000_000:], "the first part was kept"
    assert not (tmp_path / "copy.part").exists()


@pytest.mark.slow
def test_a_fingerprint_needs_no_image_and_follows_every_change(bucket: Bucket) -> None:
    for key in ("pets/cat/1.png", "pets/dog/2.png", "pets/.hidden"):
        bucket.put(key, key)
    seen = [source_fingerprint(bucket.url("pets"))]
    bucket.put("pets/.hidden", "other")
    bucket.put("pets/cat/1.png", "pets/cat/1.png")
    assert source_fingerprint(bucket.url("pets")) == seen[0], "the same content again is no change"
    bucket.put("pets/cat/1.png", "pets/cat/2.png")
    seen.append(source_fingerprint(bucket.url("pets")))
    bucket.put("pets/cat/3.png", "x")
    seen.append(source_fingerprint(bucket.url("pets")))
    assert copies() == []
    url = bucket.put("m.csv", manifest("pets/cat/1.png,cat,"))
    seen.append(source_fingerprint(url))
    bucket.put("pets/cat/1.png", "again")
    seen.append(source_fingerprint(url))
    bucket.put("m.csv", manifest("pets/cat/1.png,dog,"))
    seen.append(source_fingerprint(url))
    assert len(set(seen)) == 6
    assert {path.suffix for path in copies()} == {".csv"}


# What goes wrong


def refused(source: str, words: str, kind: type[GraftlineError] = StoreError) -> None:
    with pytest.raises(kind, match=words) as caught, open_source(source):
        pass
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_what_is_not_there(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket.put("pets2/cat/1.png", "x")
    bucket.put("flat/1.png", "x")
    bucket.put("broken.zip", "x")
    refused("s3://missing-bucket/pets", "the bucket of the source s3://missing-bucket/pets.* does not exist at http")
    refused(bucket.url("pets"), "s3://images/.*/pets holds nothing: give a prefix", DataError)
    refused(bucket.url("flat"), "found 1 images directly in s3://images/.*/flat but no class folders", DataError)
    refused(bucket.url("m.csv"), "s3://images/.*/m.csv does not exist")
    refused(bucket.url("pets.zip"), "s3://images/.*/pets.zip does not exist")
    refused(bucket.url("broken.zip"), "s3://images/.*/broken.zip cannot be unpacked", DataError)
    for path in ("/etc/passwd", "../../../x.png"):
        refused(
            bucket.put("sub/m.csv", manifest(f"{path},cat,")), f"names {path}, which is not in its bucket", DataError
        )
    refused(
        bucket.put("m.csv", "file,label\n"),
        r"s3://images/.*/m.csv lacks the column path: it has file, label",
        DataError,
    )
    monkeypatch.setenv("GRAFTLINE_STORE_IS_EMBEDDED", "1")
    refused("s3://missing-bucket/pets", "embedded store; set GRAFTLINE_STORE to read from an S3 of your own")


@pytest.mark.slow
@pytest.mark.parametrize("name", _ACCESS[:2])
def test_wrong_credentials(name: str, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "wrong")
    refused(bucket.url("pets"), "the source s3://images.* refused the credentials")


@pytest.mark.slow
def test_no_credentials_and_no_endpoint(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    refused(
        bucket.url("pets"), "the source s3://images.* is unreachable at http://127.0.0.1:1: check AWS_ENDPOINT_URL_S3"
    )
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "none")
    refused(bucket.url("pets"), "no credentials for the source s3://images")


@pytest.mark.slow
@pytest.mark.parametrize("change", ["other content", None])
def test_what_changes_between_listing_and_fetching_is_told(change: str | None, bucket: Bucket, tmp_path: Path) -> None:
    item = Objects().find(bucket.put("1.png", "content"))
    if change:
        bucket.put("1.png", change)
    else:
        bucket.delete("1.png")
    with pytest.raises(StoreError, match=r"1.png changed while the source was read: run the same command again"):
        Objects().fetch(item, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_addresses_that_are_none() -> None:
    refused("gs://bucket/pets", "gs://bucket/pets cannot be read: give a path, or s3://bucket/prefix")
    refused("s3:///pets", "cannot be read")
    with pytest.raises(StoreError, match="must not hold credentials") as caught, open_source("s3://ID:SECRET@bucket/x"):
        pass
    assert "SECRET" not in str(caught.value)


def test_no_key_becomes_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAFTLINE_WORKSPACE", str(tmp_path))
    keys = ["../../etc/1.png", "cat/../../2.png", "/etc/3.png", "cat//4.png", "cat/./5.png", f"cat/{'6' * 300}.png"]
    tree = tree_of_objects("s3://b/p", [StoredObject("b", f"p/{key}", 3, "e") for key in keys])
    assert list(tree.files) == keys[-1:], "names that no folder can have are left aside"
    place = place_of(tree.files[keys[-1]])
    assert (place.parent.parent, len(place.name)) == (cache_folder() / "objects", 64)


# The commands


@pytest.mark.slow
def test_an_unchanged_source_and_production_images_in_s3(bucket: Bucket, tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "dataset")
    labels = open_split(dataset, "test").labels
    for number, (rgb, label) in enumerate(zip(iter_images(dataset, "test"), labels, strict=True)):
        content = io.BytesIO()
        Image.fromarray(rgb).save(content, "png")
        bucket.put(f"images/{('dark', 'bright')[label]}/{number}.png", content.getvalue())
    with connect_store() as store:
        record_version(dataset, store, "")
    make_bundle(tmp_path / "bundle", dataset, threshold(6))
    make_evaluation(tmp_path / "evaluation", dataset)
    register_model(dataset, tmp_path / "bundle", tmp_path / "evaluation", tmp_path / "registration")
    same = detect_change(bucket.url("images"), tmp_path / "change", production=bucket.url("images"))
    assert not same.retrain
    assert same.drift
    assert (same.drift.images, same.drift.distance) == (24, 0)
    bucket.put("images/dark/new.png", png(1))
    assert detect_change(bucket.url("images"), tmp_path / "change").added == 1
    some = find_images(bucket.url("images"), 3)
    assert next(iter(some)).startswith(bucket.url("images/bright/")) and all(path.is_file() for path in some.values())
    (alone,) = find_images(bucket.url("images/dark/new.png")).items()
    assert alone[0] == bucket.url("images/dark/new.png") and alone[1].read_bytes() == png(1)
    with pytest.raises(DataError, match=r"s3://images/.*/none holds no images"):
        find_images(bucket.url("none"), 3)


def test_a_cluster_gets_no_address_that_cannot_be_read(
    cluster: object, call: Callable[..., tuple[int, str, str]]
) -> None:
    code, _, err = call("submit", "s3://ID:SECRET@bucket/pets")
    assert (code, err) == (1, "graftline: s3:// addresses must not hold credentials: give them in the environment\n")
    code, _, err = call("submit", "s3://bucket/pets", "--pipeline", "retrain", "--production", "gs://bucket/new")
    assert (code, err) == (1, "graftline: gs://bucket/new cannot be read: give a path, or s3://bucket/prefix\n")


@pytest.mark.slow
def test_a_run_reads_from_the_embedded_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAFTLINE_WORKSPACE", str(tmp_path / "work"))
    with connect_store() as store:
        (tmp_path / "1.png").write_bytes(png(1))
        store.upload(tmp_path / "1.png", "pets/only/1.png")
    with pytest.raises(GraftlineError, match=r"version_data failed.* there is only one class, 'only'"):
        run("s3://graftline/pets")
    (folder,) = (tmp_path / "work" / "runs").iterdir()
    assert json.loads((folder / "arguments.json").read_text())["source"] == "s3://graftline/pets"
    with pytest.raises(DataError, match="s3://graftline/none holds nothing"):
        run("s3://graftline/none")
