"""The bundle's page: fetching its runtime, serving it, and the real thing in a real browser."""

import http.client
import io
import json
import os
import queue
import shutil
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from graftline.errors import GraftlineError
from graftline.export import page
from graftline.export.page import PageUnavailableError, fetch_runtime, open_page_server, write_page
from graftline.records import EdgeBundle, read_record

DRIVER = Path(__file__).with_name("export_web_driver.html")
FACTS = {
    "model": "tf_efficientnet_lite0",
    "file": "model.onnx",
    "bytes": 5,
    "precision": "float32",
    "labels": ["a", "b"],
    "data_version": "d0",
    "accuracy": {"value": 0.9, "low": 0.8, "high": 0.95, "n": 100},
}


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[str, int]]:
    """A bundle whose runtime files are stand-ins, on its server."""
    runtime, folder = tmp_path / "runtime", tmp_path / "bundle"
    runtime.mkdir()
    for name in page.RUNTIME_FILES:
        (runtime / name).write_text(name)
    write_page(folder, runtime, FACTS)
    (folder / "model.onnx").write_bytes(b"model")
    EdgeBundle(
        data_version="d0",
        model="",
        classes=["a", "b"],
        variants=[],
        shipped="model.onnx",
        why="",
        web_page="web/index.html",
        files=[],
    ).write(folder)
    with pytest.raises(GraftlineError, match=r"port 70000 cannot be used .*: give another, or 0 for a free one"):
        open_page_server(folder, 70000)
    with open_page_server(folder) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[0], server.server_port
        server.shutdown()


def get(address: tuple[str, int], path: str) -> tuple[int, str, bytes]:
    connection = http.client.HTTPConnection(*address, timeout=10)
    connection.request("GET", path)
    answer = connection.getresponse()
    return answer.status, answer.getheader("Content-Type", ""), answer.read()


def test_the_server_gives_what_a_module_page_needs(served: tuple[str, int]) -> None:
    assert served[0] == "127.0.0.1"
    assert get(served, "/")[0] == 302
    for path, kind in [
        ("/web/", "text/html; charset=utf-8"),
        ("/web/app.js", "text/javascript"),
        ("/web/ort.wasm.min.mjs", "text/javascript"),
        ("/web/ort-wasm-simd-threaded.wasm", "application/wasm"),
        ("/model.onnx", "application/octet-stream"),
    ]:
        assert get(served, path)[:2] == (200, kind)
    assert json.loads(get(served, "/web/model.json")[2]) == FACTS
    assert get(served, "/../runtime/ort.wasm.min.mjs")[0] == 404


def test_a_bundle_without_page_says_why(tmp_path: Path) -> None:
    record = {
        "data_version": "d0",
        "model": "",
        "classes": ["a"],
        "variants": [],
        "shipped": "",
        "why": "",
        "files": [],
    }
    EdgeBundle(**record, web_page="left out: npm is not installed").write(tmp_path)
    with pytest.raises(GraftlineError, match="holds no page: left out: npm is not installed"):
        open_page_server(tmp_path)


def fake_npm(folder: Path, body: str) -> None:
    script = folder / "npm"
    script.write_text(f"#!/bin/sh\n{body}\n")
    script.chmod(0o755)


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty workspace and a PATH with nothing on it but what the test puts there."""
    monkeypatch.setenv("GRAFTLINE_WORKSPACE", str(tmp_path / "work"))
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return tmp_path / "bin"


def test_without_npm_the_runtime_cannot_be_had(workshop: Path) -> None:
    with pytest.raises(PageUnavailableError, match="npm is not installed"):
        fetch_runtime()


def test_a_failing_npm_is_quoted(workshop: Path) -> None:
    fake_npm(workshop, "echo 'npm error code ENOTFOUND' >&2; exit 1")
    with pytest.raises(PageUnavailableError, match=r"npm could not fetch onnxruntime-web@[\d.]+ \(code ENOTFOUND\)"):
        fetch_runtime()


def test_other_files_than_the_pinned_ones_are_refused(workshop: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "package.tgz", "w:gz") as tar:
        for name in page.RUNTIME_FILES:
            content = b"something else"
            member = tarfile.TarInfo(f"package/dist/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    fake_npm(workshop, f'/bin/cp {tmp_path}/package.tgz "$4"')
    with pytest.raises(PageUnavailableError, match="is not the file it should be"):
        fetch_runtime()
    assert not list((tmp_path / "work").rglob("*.mjs"))


def test_the_runtime_is_fetched_once(workshop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contents = {name: name.encode() for name in page.RUNTIME_FILES}
    monkeypatch.setattr(page, "RUNTIME_FILES", {n: page.sha256_bytes(c) for n, c in contents.items()})
    with tarfile.open(tmp_path / "package.tgz", "w:gz") as tar:
        for name, content in contents.items():
            member = tarfile.TarInfo(f"package/dist/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    fake_npm(workshop, f'/bin/cp {tmp_path}/package.tgz "$4"')
    folder = fetch_runtime()
    (workshop / "npm").unlink()
    assert fetch_runtime() == folder
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == contents


class _Reports(BaseHTTPRequestHandler):
    """Takes what the driver found out."""

    found: "queue.Queue[dict]" = queue.Queue()

    def do_POST(self) -> None:
        self.found.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(204)
        self.send_header("Access-Control-Allow-Origin", "*")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="session")
def chromium() -> str:
    """The browser's path; asked for first, so that nothing is trained for a test that is left out."""
    name = os.environ.get("GRAFTLINE_BROWSER", "")
    if not name:
        pytest.skip("set GRAFTLINE_BROWSER to a Chromium (chromium, google-chrome, or a path) to test the page in it")
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"GRAFTLINE_BROWSER is {name}, which is not installed")
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed: the page cannot be built without onnxruntime-web")
    return path


@pytest.mark.slow
@pytest.mark.parametrize("shipped", ["model.int8.onnx", "model.onnx"])
def test_a_real_browser_says_what_python_says(
    shipped: str,
    chromium: str,
    solar_dataset: Path,
    trained_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import numpy as np
    from PIL import Image

    from graftline import export_onnx
    from graftline.data.dataset import iter_images
    from graftline.export.forms import FORMS
    from graftline.models.edge import EdgeModel

    bundle = tmp_path / "bundle"
    forms = tuple(form for form in FORMS if form.name in ("fp32", "int8"))
    monkeypatch.setattr("graftline.export.bundle.FORMS", forms)
    if shipped == "model.onnx":
        monkeypatch.setattr("graftline.export.int8.quantise", no_int8)
    record = export_onnx(solar_dataset, trained_model, bundle, min_agreement=0.0)
    assert record.shipped == shipped
    assert record.web_page.startswith("web/index.html")
    pictures = bundle / "test"
    pictures.mkdir()
    images = list(iter_images(solar_dataset, "test"))
    names = [f"{i}.png" for i in range(len(images))]
    for name, image in zip(names, images, strict=True):
        Image.fromarray(image).save(pictures / name)
    (pictures / "broken.png").write_bytes(b"no picture")
    with open_page_server(bundle) as server, ThreadingHTTPServer(("127.0.0.1", 0), _Reports) as reports:
        for each in (server, reports):
            threading.Thread(target=each.serve_forever, daemon=True).start()
        shutil.copy(DRIVER, pictures)
        task = json.dumps({"names": [*names, "broken.png"], "report": f"http://127.0.0.1:{reports.server_port}/"})
        (pictures / "task.json").write_text(task)
        address = f"http://127.0.0.1:{server.server_port}/test/{DRIVER.name}"
        found = run_browser(chromium, address, tmp_path / "profile")
        server.shutdown()
        reports.shutdown()
    assert "error" not in found, found
    edge = EdgeModel(bundle / record.shipped)
    *answers, broken = found["answers"]
    tolerance = 0.05 if "int8" in record.shipped else 1e-4  # processors round 8-bit sums differently, WebAssembly too
    for answer, image in zip(answers, images, strict=True):
        expected = edge(image[None])[0]
        shown = dict(answer["classes"])
        assert np.allclose([shown[name] for name in record.classes], expected, atol=tolerance)
        if np.ptp(expected) > 2 * tolerance:
            assert answer["status"] == record.classes[int(expected.argmax())]
        assert "300 × 300 pixels" in answer["time"]
    assert broken["state"] == "failed"
    assert broken["status"] == "broken.png is not a picture this browser can read."
    assert found["isolated"]
    assert read_record(bundle, EdgeBundle).data_version in found["facts"]


def no_int8(*_: object) -> None:
    raise NotImplementedError("for a test")


def run_browser(chromium: str, address: str, profile: Path) -> dict:
    flags = (
        "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
        "--disable-component-update --disable-sync --disable-dev-shm-usage"
    )
    command = [chromium, *flags.split(), f"--user-data-dir={profile}", address]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            return _Reports.found.get(timeout=180)
        finally:
            process.terminate()
