"""Versions of the data in DVC and Git: recorded once, pulled bit by bit, by whoever shares the store."""

import contextlib
import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from graftline.data.versions import pull_version, record_version
from graftline.errors import GraftlineError, StoreError
from graftline.files import sha256_file
from graftline.records import DataVersion, FileEntry, read_record
from graftline.runs.local import run
from graftline.storage import Store, connect_store


@pytest.fixture(autouse=True)
def _own_machine(own_cache: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine with a workspace and a folder store, where Git knows nobody's name."""
    monkeypatch.setenv("GRAFTLINE_WORKSPACE", str(tmp_path / "workspace"))
    monkeypatch.setenv("GRAFTLINE_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", os.devnull)
    for name in ("GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL", "EMAIL"):
        monkeypatch.delenv(name, raising=False)


def _dataset(folder: Path, content: bytes = b"image") -> Path:
    """Writes a small dataset folder: two shards, a record, and a report that is not part of the version."""
    (folder / "shards").mkdir(parents=True)
    rows = [content + bytes([number]) for number in range(6)]
    for number in range(2):
        table = pa.table({"image": rows[number * 3 : number * 3 + 3], "label": pa.array([0, 1, 0], pa.int32())})
        pq.write_table(table, folder / "shards" / f"{number:05}.parquet")
    shards = [
        FileEntry(file=f"shards/{path.name}", sha256=sha256_file(path), bytes=path.stat().st_size)
        for path in sorted((folder / "shards").iterdir())
    ]
    (folder / "report.json").write_text(str(folder))
    DataVersion(
        version="d" + hashlib.sha256(content).hexdigest()[:16],
        classes=["cat", "dog"],
        domains=[],
        counts={"train": {"cat": 4, "dog": 2}},
        images=6,
        median_width=8,
        median_height=8,
        grey=False,
        shards=shards,
    ).write(folder)
    return folder


def _version(folder: Path, registry: str = "") -> str:
    with connect_store() as store:
        return record_version(folder, store, registry)


def _git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", "-C", folder, *arguments], check=True, capture_output=True, text=True).stdout.strip()


def _bytes(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _versioned_bytes(dataset: Path) -> dict[str, bytes]:
    return {name: content for name, content in _bytes(dataset).items() if name != "report.json"}


@pytest.fixture
def bare(tmp_path: Path) -> str:
    """A registry that several machines share."""
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", tmp_path / "bare.git"], check=True)
    return str(tmp_path / "bare.git")


def test_a_version_comes_back_bit_by_bit(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    dataset = _dataset(tmp_path / "dataset")
    version = _version(dataset)
    record = pull_version(version, tmp_path / "pulled")
    assert _bytes(tmp_path / "pulled") == _versioned_bytes(dataset)
    assert record.version == version
    assert capfd.readouterr() == ("", "")


def test_the_registry_tells_what_was_recorded(tmp_path: Path) -> None:
    version = _version(_dataset(tmp_path / "dataset"))
    registry = tmp_path / "workspace" / "data-registry"
    assert _git(registry, "tag") == version
    message, author = _git(registry, "log", "-1", "--format=%s|%an <%ae>").split("|")
    assert message == f"Data {version}: 6 images of 2 classes (cat, dog)"
    assert author == "graftline <graftline@localhost>"
    assert _git(registry, "status", "--porcelain") == ""


def test_plain_dvc_pulls_it_too(tmp_path: Path) -> None:
    dataset = _dataset(tmp_path / "dataset")
    _version(dataset)
    _git(tmp_path, "clone", "-q", str(tmp_path / "workspace" / "data-registry"), "clone")
    from dvc.repo import Repo

    with contextlib.closing(Repo(str(tmp_path / "clone"))) as repo:
        repo.pull()
    assert _bytes(tmp_path / "clone" / "dataset") == _versioned_bytes(dataset)
    assert _git(tmp_path / "clone", "status", "--porcelain") == ""


def test_the_same_content_changes_nothing(tmp_path: Path) -> None:
    version = _version(_dataset(tmp_path / "dataset"))
    registry = tmp_path / "workspace" / "data-registry"
    commit = _git(registry, "rev-parse", "HEAD")
    stored = {path: path.stat().st_mtime_ns for path in (tmp_path / "store").rglob("*")}
    assert _version(_dataset(tmp_path / "elsewhere")) == version
    assert _git(registry, "rev-parse", "HEAD") == commit
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "store").rglob("*")} == stored


def test_a_store_that_lost_the_bytes_gets_them_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    version = _version(_dataset(tmp_path / "dataset"))
    monkeypatch.setenv("GRAFTLINE_STORE", str(tmp_path / "another"))
    with pytest.raises(StoreError, match=f"does not hold version {version}"):
        pull_version(version, tmp_path / "pulled")
    assert not (tmp_path / "pulled").exists()
    _version(tmp_path / "dataset")
    pull_version(version, tmp_path / "pulled")


def test_earlier_versions_stay(tmp_path: Path) -> None:
    first, second = _dataset(tmp_path / "first", b"one"), _dataset(tmp_path / "second", b"two")
    versions = [_version(folder) for folder in (first, second, first)]
    assert _git(tmp_path / "workspace" / "data-registry", "rev-list", "--count", "HEAD") == "2"
    for version, folder in zip(versions, (first, second), strict=False):
        pull_version(version, tmp_path / "pulled")
        assert _bytes(tmp_path / "pulled") == _versioned_bytes(folder)


def test_an_unknown_version_is_answered_with_the_known(tmp_path: Path) -> None:
    version = _version(_dataset(tmp_path / "dataset"))
    with pytest.raises(GraftlineError, match=f"has no version d0123: it has {version}"):
        pull_version("d0123", tmp_path / "pulled")


def test_a_workspace_without_registry_says_so(tmp_path: Path) -> None:
    with pytest.raises(GraftlineError, match="not a Git repository"):
        pull_version("d0123", tmp_path / "pulled")
    assert not (tmp_path / "workspace" / "data-registry").exists()


def test_a_damaged_dataset_is_not_recorded(tmp_path: Path) -> None:
    dataset = _dataset(tmp_path / "dataset")
    (dataset / "shards" / "00001.parquet").write_bytes(b"cut")
    with pytest.raises(GraftlineError, match=r"00001\.parquet is not what its record says"):
        _version(dataset)


def test_bytes_damaged_in_the_store_are_not_handed_out(tmp_path: Path) -> None:
    dataset = _dataset(tmp_path / "dataset")
    version = _version(dataset)
    shard = (dataset / "shards" / "00000.parquet").read_bytes()
    stored = next(path for path in (tmp_path / "store").rglob("*") if path.is_file() and path.read_bytes() == shard)
    stored.chmod(0o644)
    stored.write_bytes(shard[:-1] + b"?")
    with pytest.raises(StoreError, match="damaged"):
        pull_version(version, tmp_path / "pulled")


def test_machines_share_a_registry(tmp_path: Path, bare: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = _dataset(tmp_path / "first", b"one"), _dataset(tmp_path / "second", b"two")
    versions = [_version(first, bare)]
    monkeypatch.setenv("GRAFTLINE_WORKSPACE", str(tmp_path / "another"))
    pull_version(versions[0], tmp_path / "pulled", bare)
    assert _bytes(tmp_path / "pulled") == _versioned_bytes(first)
    versions.append(_version(second, bare))
    monkeypatch.setenv("GRAFTLINE_WORKSPACE", str(tmp_path / "workspace"))
    pull_version(versions[1], tmp_path / "pulled", bare)
    assert _bytes(tmp_path / "pulled") == _versioned_bytes(second)
    assert _git(Path(bare), "rev-list", "--count", "main") == "2"


def test_a_push_that_was_overtaken_is_repeated(tmp_path: Path, bare: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _version(_dataset(tmp_path / "first", b"one"), bare)
    other = tmp_path / "other"
    _git(tmp_path, "clone", "-q", bare, str(other))
    (other / "dataset.dvc").write_text((other / "dataset.dvc").read_text().replace("size: ", "size: 1"))
    _git(other, "-c", "user.name=a", "-c", "user.email=b", "commit", "-qam", "meanwhile")
    # The other machine pushes in the very moment before our push arrives.
    hook = next((tmp_path / "workspace" / "cache" / "registries").glob("*/.git")) / "hooks" / "pre-push"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\ncd {other} && env -u GIT_DIR git push -q origin main 2>/dev/null\nexit 0\n")
    hook.chmod(0o755)
    version = _version(_dataset(tmp_path / "second", b"two"), bare)
    assert _git(Path(bare), "log", "--format=%s", "main").splitlines()[1] == "meanwhile"
    pull_version(version, tmp_path / "pulled", bare)


def test_a_version_that_was_never_pushed_is_pushed(tmp_path: Path, bare: str) -> None:
    dataset = _dataset(tmp_path / "dataset")
    refuse = Path(bare) / "hooks" / "pre-receive"
    refuse.write_text("#!/bin/sh\necho closed for repairs >&2\nexit 1\n")
    refuse.chmod(0o755)
    with pytest.raises(GraftlineError, match=r"git push failed .*closed for repairs"):
        _version(dataset, bare)
    refuse.unlink()
    version = _version(dataset, bare)
    assert _git(Path(bare), "tag") == version


def test_a_registry_of_the_users_own_keeps_its_other_changes(tmp_path: Path) -> None:
    own = tmp_path / "own"
    subprocess.run(["git", "init", "-q", "-b", "main", own], check=True)
    (own / "notes.txt").write_text("mine")
    _git(own, "add", "notes.txt")
    version = _version(_dataset(tmp_path / "dataset"), str(own))
    assert _git(own, "status", "--porcelain") == "A  notes.txt"
    assert _git(own, "tag") == version


@pytest.mark.parametrize("registry", ["missing", "plain"])
def test_what_is_no_registry_is_named(registry: str, tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    with pytest.raises(GraftlineError, match=f"{registry} is not a Git repository"):
        _version(_dataset(tmp_path / "dataset"), str(tmp_path / registry))


def test_an_unreachable_registry_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(GraftlineError, match="git clone failed") as caught:
        _version(_dataset(tmp_path / "dataset"), "http://127.0.0.1:1/registry.git")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("address", ["https://somebody:topsecret@host/r.git", "HTTP://topsecret@host/r.git"])
def test_an_address_with_credentials_is_refused_before_it_is_written_down(address: str, tmp_path: Path) -> None:
    with pytest.raises(GraftlineError, match="must not hold credentials") as caught:
        _version(_dataset(tmp_path / "dataset"), address)
    assert "topsecret" not in str(caught.value)
    assert "not even a user name" in str(caught.value)
    with pytest.raises(GraftlineError, match="must not hold credentials"):
        run(str(tmp_path), registry=address, workspace=str(tmp_path / "work"))
    assert not (tmp_path / "work").exists()


def test_settings_of_the_users_hold_in_their_registry_and_not_in_the_workspaces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    (hooks / "pre-commit").write_text("#!/bin/sh\necho run the linter first >&2\nexit 1\n")
    (hooks / "pre-commit").chmod(0o755)
    (tmp_path / "gitconfig").write_text(
        f"[commit]\ngpgsign = true\n[tag]\ngpgsign = true\n[gpg]\nprogram = false\n[core]\nhooksPath = {hooks}\n"
    )
    dataset = _dataset(tmp_path / "dataset")
    own = tmp_path / "own"
    subprocess.run(["git", "init", "-q", "-b", "main", own], check=True)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    version = _version(dataset)
    assert _git(tmp_path / "workspace" / "data-registry", "tag") == version
    with pytest.raises(GraftlineError, match=r"git commit failed .*run the linter first"):
        _version(dataset, str(own))


def test_a_record_is_utf8_whatever_the_locale(tmp_path: Path) -> None:
    folder = _dataset(tmp_path / "dataset")
    record = read_record(folder, DataVersion).model_copy(update={"classes": ["caf\u00e9", "\u732b"]})
    record.write(folder)
    code = (
        "import sys; from pathlib import Path; from graftline.records import DataVersion, read_record;"
        "print(ascii(read_record(Path(sys.argv[1]), DataVersion).classes))"
    )
    elsewhere = os.environ | {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    done = subprocess.run([sys.executable, "-c", code, folder], env=elsewhere, capture_output=True, text=True)
    assert done.stdout == "['caf\\xe9', '\\u732b']\n", done.stderr


def test_a_git_hook_does_not_lead_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subprocess.run(["git", "init", "-q", tmp_path / "project"], check=True)
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "project" / ".git"))
    version = _version(_dataset(tmp_path / "dataset"))
    monkeypatch.delenv("GIT_DIR")
    assert _git(tmp_path / "workspace" / "data-registry", "tag") == version
    assert _git(tmp_path / "project", "tag") == ""


def test_without_git_one_line_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = _dataset(tmp_path / "dataset")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(GraftlineError, match="git is not installed"):
        _version(dataset)


@pytest.fixture
def embedded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.delenv("GRAFTLINE_STORE")
    with connect_store(tmp_path / "server") as store:
        yield store


@pytest.mark.slow
def test_versions_travel_over_s3(
    tmp_path: Path, bare: str, embedded: Store, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    dataset = _dataset(tmp_path / "dataset")
    version = record_version(dataset, embedded, bare)
    assert record_version(dataset, embedded, bare) == version
    monkeypatch.setenv("GRAFTLINE_WORKSPACE", str(tmp_path / "another"))
    pull_version(version, tmp_path / "pulled", bare)
    assert _bytes(tmp_path / "pulled") == _versioned_bytes(dataset)
    assert capfd.readouterr() == ("", "")
    secret = os.environ["AWS_SECRET_ACCESS_KEY"]
    everything = [*Path(bare).rglob("*"), *(tmp_path / "workspace").rglob("*"), *(tmp_path / "another").rglob("*")]
    assert not [path for path in everything if path.is_file() and secret.encode() in path.read_bytes()]


@pytest.mark.slow
def test_a_store_that_refuses_is_one_line(
    tmp_path: Path, embedded: Store, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    dataset = _dataset(tmp_path / "dataset")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(StoreError) as caught:
        record_version(dataset, embedded, "")
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")
