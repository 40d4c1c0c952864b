"""The store: a folder, the user's S3, and the embedded server that starts, is shared and ends."""

import json
import os
import signal
import socket
import ssl
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import pytest

from graftline.errors import StoreError
from graftline.storage import Store, connect_store, embedded
from graftline.storage.addresses import without_password
from graftline.storage.locks import is_held

DiskUsage = namedtuple("DiskUsage", "total used free")
_AWS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_PROFILE")


@pytest.fixture(autouse=True)
def _no_settings_of_the_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("GRAFTLINE_STORE", *_AWS):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))


@pytest.fixture(scope="module")
def server_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("workspace") / "store"


@pytest.fixture(scope="module")
def server(server_folder: Path) -> Iterator[dict[str, str]]:
    """The environment of a running embedded server."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("GRAFTLINE_STORE", raising=False)
        with connect_store(server_folder):
            yield {name: os.environ[name] for name in (*_AWS[:3], "GRAFTLINE_STORE", "AWS_DEFAULT_REGION")}


@pytest.fixture
def own_s3(server: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The settings of a user who has an S3 of their own."""
    for name, value in server.items():
        monkeypatch.setenv(name, value)
    return server


def _round_trip(store: Store, folder: Path) -> None:
    source = folder / "source.bin"
    source.write_bytes(os.urandom(9_000_000))  # above the size at which boto3 cuts uploads into parts
    assert not store.exists("some/key.bin")
    store.upload(source, "some/key.bin")
    assert store.exists("some/key.bin")
    store.download("some/key.bin", folder / "new" / "copy.bin")
    assert (folder / "new" / "copy.bin").read_bytes() == source.read_bytes()
    with pytest.raises(StoreError, match=r"holds no some/other"):
        store.download("some/other", folder / "other")


def test_a_folder_is_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GRAFTLINE_STORE", "shared/store")
    with connect_store() as store:
        assert store.url == os.environ["GRAFTLINE_STORE"] == str(tmp_path / "shared" / "store")
        assert not store.is_s3
        _round_trip(store, tmp_path)
    assert os.environ["GRAFTLINE_STORE"] == "shared/store"


@pytest.mark.parametrize("value", ["gs://bucket/prefix", "s3://", "s3:///prefix", "https://host/bucket"])
def test_a_malformed_setting_is_named(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAFTLINE_STORE", value)
    with pytest.raises(StoreError, match=f"GRAFTLINE_STORE is '{value}'"), connect_store():
        pass


def test_a_file_is_no_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("GRAFTLINE_STORE", str(tmp_path / "file"))
    with pytest.raises(StoreError, match="folder"), connect_store():
        pass


def test_a_home_that_is_nobodys_is_a_folder_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GRAFTLINE_STORE", "~no-such-user/store")
    with connect_store() as store:
        assert store.url == str(tmp_path / "~no-such-user" / "store")


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("https://me:p@ss@host/x", "https://host/x"),
        ("from https://a:b@host/x to postgresql://c@d:e@db/x", "from https://host/x to postgresql://db/x"),
        ("https://host/mail@home", "https://host/mail@home"),
        ("git@host:r.git", "git@host:r.git"),
    ],
)
def test_nothing_of_a_password_is_shown(address: str, shown: str) -> None:
    assert without_password(address) == shown


def _message_of_connecting() -> str:
    with pytest.raises(StoreError) as caught, connect_store():
        pass
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_an_unreachable_endpoint_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{unused.getsockname()[1]}"
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "something")
        monkeypatch.setenv("GRAFTLINE_STORE", "s3://bucket")
        message = _message_of_connecting()
    assert "unreachable" in message
    assert endpoint in message


@pytest.mark.slow
def test_an_endpoint_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "something")
        monkeypatch.setenv("GRAFTLINE_STORE", "s3://bucket")
        assert "did not answer" in _message_of_connecting()


def test_missing_credentials_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("GRAFTLINE_STORE", "s3://bucket")
    assert _message_of_connecting().startswith("no credentials for the store s3://bucket")


def test_an_unknown_profile_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobodys")
    monkeypatch.setenv("GRAFTLINE_STORE", "s3://bucket")
    message = _message_of_connecting()
    assert message.startswith("no credentials for the store s3://bucket")
    assert "nobodys" in message and "AWS_PROFILE" in message


@pytest.mark.parametrize("endpoint", ["nonsense", "http://"])
def test_a_malformed_endpoint_is_one_line(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "something")
    monkeypatch.setenv("GRAFTLINE_STORE", "s3://bucket")
    assert "s3://bucket" in _message_of_connecting()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_wrong_credentials_are_one_line(name: str, own_s3: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "wrong")
    assert "refused the credentials" in _message_of_connecting()


@pytest.mark.slow
@pytest.mark.parametrize("bucket", ["missing-bucket", "No Bucket Name"])
def test_a_missing_bucket_is_one_line(bucket: str, own_s3: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAFTLINE_STORE", f"s3://{bucket}/prefix")
    assert bucket in _message_of_connecting()


@pytest.mark.slow
def test_a_prefix_of_a_bucket_is_a_store(
    own_s3: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GRAFTLINE_STORE", "s3://graftline/deep/prefix/")
    with connect_store() as store:
        assert store.child("key") == "s3://graftline/deep/prefix/key"
        _round_trip(store, tmp_path)
    assert Store("s3://graftline").exists("deep/prefix/some/key.bin")


@pytest.mark.slow
def test_secrets_are_readable_by_the_owner_only(server: dict[str, str], server_folder: Path) -> None:
    assert stat.S_IMODE(server_folder.stat().st_mode) == 0o700
    for name in ("credentials.json", "security/security.toml", "security/key.pem"):
        assert stat.S_IMODE((server_folder / name).stat().st_mode) == 0o600
    assert server["AWS_SECRET_ACCESS_KEY"] in (server_folder / "credentials.json").read_text()


def _status(url: str, method: str) -> int:
    request = urllib.request.Request(url, method=method, data=b"x" if method == "PUT" else None)
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


@pytest.fixture
def ports(own_s3: dict[str, str], server_folder: Path, tmp_path: Path) -> dict[str, int]:
    """The ports of a server that holds one secret."""
    (tmp_path / "secret").write_text("content")
    Store("s3://graftline").upload(tmp_path / "secret", "secret")
    return {role: int(port) for role, port in json.loads((server_folder / "server.json").read_text()).items()}


def _is_unharmed(folder: Path) -> bool:
    Store("s3://graftline").download("secret", folder / "copy")
    return (folder / "copy").read_text() == "content"


@pytest.mark.slow
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_http_refuses_the_unauthenticated(method: str, ports: dict[str, int], tmp_path: Path) -> None:
    assert _status(f"http://127.0.0.1:{ports['filer']}/buckets/graftline/secret", method) in (401, 403, 404)
    assert _status(f"http://127.0.0.1:{ports['s3']}/graftline/secret", method) == 403
    assert _status(f"http://127.0.0.1:{ports['master']}/col/delete?collection=graftline", method) in (401, 403, 404)
    assert _is_unharmed(tmp_path)


def _grpc_answers(port: int, security: Path | None) -> bool:
    """Opens an HTTP/2 connection, with the certificate in the folder `security` if given; returns whether it stands."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    if security:
        context.load_cert_chain(security / "certificate.pem", security / "key.pem")
    try:
        with (
            socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
            context.wrap_socket(plain) as connection,
        ):
            connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5))
            return len(connection.recv(9)) > 0
    except (ssl.SSLError, ConnectionError):
        return False


@pytest.mark.slow
@pytest.mark.parametrize("role", ["master", "volume", "filer", "s3"])
def test_grpc_refuses_whoever_has_no_certificate(role: str, ports: dict[str, int], server_folder: Path) -> None:
    assert not _grpc_answers(ports[role] + 10_000, None)
    assert _grpc_answers(ports[role] + 10_000, server_folder / "security")


_USER = """
import os, sys
from pathlib import Path
from graftline.storage import connect_store
with connect_store(Path(sys.argv[1])) as store:
    print(os.environ["AWS_ENDPOINT_URL_S3"], flush=True)
    sys.stdin.readline()
"""


def _start_user(folder: Path) -> tuple["subprocess.Popen[str]", str]:
    """Starts a process that uses the server of `folder` until it is sent a line; returns it and the endpoint."""
    user = subprocess.Popen(
        [sys.executable, "-c", _USER, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert user.stdout
    return user, user.stdout.readline().strip()


def _finish(user: "subprocess.Popen[str]") -> None:
    user.communicate("\n", timeout=60)
    assert user.returncode == 0


def _is_running(folder: Path) -> bool:
    return is_held(folder / "server.lock")


@pytest.mark.slow
def test_the_server_is_shared_and_ends_with_its_last_user(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    starter, endpoint = _start_user(folder)
    with connect_store(folder) as store:
        assert os.environ["AWS_ENDPOINT_URL_S3"] == endpoint
        _finish(starter)
        _round_trip(store, tmp_path)
    assert not _is_running(folder)
    assert "AWS_ENDPOINT_URL_S3" not in os.environ


@pytest.mark.slow
def test_a_moved_server_still_starts_and_no_proxy_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("content")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "localhost")
    monkeypatch.delenv("NO_PROXY", raising=False)
    with connect_store(tmp_path / "store") as store:
        assert os.environ["no_proxy"] == os.environ["NO_PROXY"] == "localhost,127.0.0.1"
        store.upload(tmp_path / "file", "key")
    assert (os.environ["no_proxy"], os.environ.get("NO_PROXY")) == ("localhost", None)
    with connect_store((tmp_path / "store").rename(tmp_path / "elsewhere")) as store:
        assert store.exists("key")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a,b", "\U0001f600 caf\u00e9 [x]"])
def test_a_folder_of_any_name_holds_a_server_whatever_profile_is_set(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobodys")
    with connect_store(tmp_path / name / "store") as store:
        assert "AWS_PROFILE" not in os.environ
        _round_trip(store, tmp_path)
        port = json.loads((tmp_path / name / "store" / "server.json").read_text())["filer"] + 10_000
        security = tmp_path / name / "store" / "security"
        assert (_grpc_answers(port, None), _grpc_answers(port, security)) == (False, True), "it is locked there, too"
    assert os.environ["AWS_PROFILE"] == "nobodys"
    assert {path.name for path in tmp_path.iterdir()} == {name, "source.bin", "new"}
    assert any((tmp_path / name / "store" / "data").iterdir())


@pytest.mark.slow
def test_the_server_ends_after_an_exception_and_keeps_its_data(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content")
    with pytest.raises(KeyboardInterrupt), connect_store(tmp_path / "store") as store:
        store.upload(tmp_path / "file", "key")
        raise KeyboardInterrupt
    assert not _is_running(tmp_path / "store")
    with connect_store(tmp_path / "store") as store:
        assert store.exists("key")


def _wait_until_it_ends(folder: Path) -> None:
    for _ in range(600):
        if not _is_running(folder):
            return
        time.sleep(0.05)
    pytest.fail("the server outlived its users")


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_the_server_ends_when_its_starter_is_killed(how: signal.Signals, tmp_path: Path) -> None:
    starter, _ = _start_user(tmp_path / "store")
    starter.send_signal(how)
    starter.communicate()
    with connect_store(tmp_path / "store") as store:  # at once, while the first is still ending
        _round_trip(store, tmp_path)
    _wait_until_it_ends(tmp_path / "store")


def _fields(pid: int) -> list[str]:
    """The state, the parent and what follows them in the process table."""
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()


def _is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists() and _fields(pid)[0] != "Z"


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads the process table of Linux")
def test_a_killed_keeper_never_leaves_two_servers(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    starter, _ = _start_user(folder)
    first = json.loads((folder / "server.json").read_text())["pid"]
    os.kill(int(_fields(first)[1]), signal.SIGKILL)
    with connect_store(folder) as store:
        assert not _is_alive(first)
        _round_trip(store, tmp_path)
        _finish(starter)
    _wait_until_it_ends(folder)


@pytest.mark.slow
def test_a_server_that_cannot_start_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "data").write_text("not a folder")
    with pytest.raises(StoreError, match="does not start") as caught, connect_store(tmp_path / "store"):
        pass
    assert "\n" not in str(caught.value)
    assert not _is_running(tmp_path / "store")


_SILENT = """#!/bin/sh
echo started "$#" >> started
echo "no room on volume" >&2
exec sleep 60
"""


@pytest.mark.slow
def test_a_server_that_never_answers_is_started_once_and_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "weed"
    program.write_text(_SILENT)
    program.chmod(0o755)
    monkeypatch.setattr(embedded, "_program", lambda: str(program))
    monkeypatch.setattr(embedded, "_START_SECONDS", 5.0)
    monkeypatch.setattr(embedded, "disk_usage", lambda folder: DiskUsage(total=1000, used=995, free=5))
    folder = tmp_path / "store"
    with pytest.raises(StoreError) as caught, connect_store(folder):
        pass
    expected = "does not start (less than 1 % of its disk is free: make room): no room on volume (log: "
    assert expected in str(caught.value)
    assert len((folder / "started").read_text().splitlines()) == 1
    assert not is_held(folder / "keeper.lock")
    assert not _is_running(folder)
