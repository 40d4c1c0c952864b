"""The bundle's page: runs the shipped model in a browser with onnxruntime-web; no picture leaves the device.

The runtime's three files come from the npm package, once, into the workspace's cache. They are optional: without them
the bundle is complete but for the page.
"""

import functools
import shutil
import subprocess
import sys
import tarfile
import tempfile
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from pathlib import Path
from typing import Any

from graftline.errors import GraftlineError
from graftline.files import sha256_bytes, sha256_file, write_atomic, write_json
from graftline.records import EdgeBundle, read_record
from graftline.workspace import workspace

RUNTIME = "onnxruntime-web@1.30.0"
RUNTIME_FILES = {
    "ort.wasm.min.mjs": "219e6a1fc8a9938268d18efca3c91d310bd2f4a59bbd13744df5b2b7fc6cee3b",
    "ort-wasm-simd-threaded.mjs": "e13f7f94fc51b4ca72b12faeb1ee95f4ace6dfbc8939bc718aabdc0a27c4299b",
    "ort-wasm-simd-threaded.wasm": "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
}
PAGE_FILES = ("index.html", "app.js", "style.css")
_NPM_SECONDS = 120


class PageUnavailableError(GraftlineError):
    """The page cannot be made here; the message says why and how to get it."""


def fetch_runtime() -> Path:
    """Returns the folder with the three files of onnxruntime-web: the image's, or the cache, filled with npm once.

    Raises:
        PageUnavailableError: npm is missing or failed, or the files are not those of the pinned version.
    """
    folder = workspace() / "cache" / RUNTIME.replace("@", "-")
    for place in (Path(sys.prefix) / "share" / folder.name, folder):
        if all((place / name).is_file() and sha256_file(place / name) == sha for name, sha in RUNTIME_FILES.items()):
            return place
    with tempfile.TemporaryDirectory() as scratch:
        contents = _unpack(_npm_pack(Path(scratch)))
    for name, content in contents.items():
        if sha256_bytes(content) != RUNTIME_FILES[name]:
            raise PageUnavailableError(f"{name} of {RUNTIME} is not the file it should be: check the npm registry")
        write_atomic(folder / name, content)
    return folder


def _npm_pack(folder: Path) -> Path:
    """Downloads the package as npm published it (nothing of it is run) and returns the archive."""
    npm = shutil.which("npm")
    if npm is None:
        raise PageUnavailableError(f"npm is not installed; with it, export again and it fetches {RUNTIME}")
    command = [npm, "pack", RUNTIME, "--pack-destination", str(folder), "--fetch-retries=1", "--loglevel=error"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_NPM_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise PageUnavailableError(
            f"npm did not deliver {RUNTIME} within {_NPM_SECONDS} s; export again with a working connection"
        ) from error
    if done.returncode:
        lines = [line.removeprefix("npm error ").strip() for line in done.stderr.splitlines() if "error" in line]
        reason = lines[0] if lines else f"exit code {done.returncode}"
        raise PageUnavailableError(f"npm could not fetch {RUNTIME} ({reason}); export again when it can")
    return next(folder.glob("*.tgz"))


def _unpack(archive: Path) -> dict[str, bytes]:
    with tarfile.open(archive) as tar:
        members = {name: tar.extractfile(f"package/dist/{name}") for name in RUNTIME_FILES}
        return {name: file.read() for name, file in members.items() if file is not None}


def write_page(folder: Path, runtime: Path, facts: dict[str, Any]) -> None:
    """Writes `web/` into a bundle folder.

    Args:
        folder: The bundle folder; the page loads the model from there.
        runtime: From `fetch_runtime`.
        facts: What the page shows and needs: see `app.js`.
    """
    web = folder / "web"
    for name in PAGE_FILES:
        write_atomic(web / name, resources.files("graftline.export").joinpath("web", name).read_bytes())
    for name in RUNTIME_FILES:
        shutil.copyfile(runtime / name, web / name)
    write_json(web / "model.json", facts)


def open_page_server(bundle: Path, port: int = 0) -> ThreadingHTTPServer:
    """Binds a server for a bundle's page on 127.0.0.1; the caller runs `serve_forever` and closes it.

    Args:
        bundle: A bundle folder with `web/`.
        port: 0 takes a free one; `server_port` of the result tells which.

    Raises:
        GraftlineError: Not a bundle, a bundle without its page, or the port is taken.
    """
    record = read_record(bundle, EdgeBundle)
    if not (bundle / "web" / "index.html").is_file():
        raise GraftlineError(f"{bundle} holds no page: {record.web_page}")
    try:
        return ThreadingHTTPServer(("127.0.0.1", port), functools.partial(_PageHandler, directory=str(bundle)))
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", "") or str(error)
        raise GraftlineError(f"port {port} cannot be used ({why}): give another, or 0 for a free one") from error


def serve_page(bundle: Path, port: int = 0) -> None:
    """Serves a bundle's page to this machine until interrupted.

    Args:
        bundle: A bundle folder that `graftline export_onnx` wrote.
        port: Port on 127.0.0.1; 0 takes a free one.

    Raises:
        GraftlineError: As `open_page_server`.
    """
    with open_page_server(bundle, port) as server:
        print(f"http://127.0.0.1:{server.server_port}/web/ (Ctrl+C ends it)", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return


class _PageHandler(SimpleHTTPRequestHandler):
    """Adds the types that modules and WebAssembly need, and the isolation that lets the runtime use several threads."""

    extensions_map = {  # noqa: RUF012  (the base class declares it so)
        ".html": "text/html; charset=utf-8",
        ".css": "text/css; charset=utf-8",
        ".js": "text/javascript",
        ".mjs": "text/javascript",
        ".json": "application/json",
        ".wasm": "application/wasm",
        "": "application/octet-stream",
    }

    def do_GET(self) -> None:
        """Sends the visitor of the root to the page."""
        if self.path == "/":
            self.send_response(HTTPStatus.FOUND)
            self.send_header("Location", "/web/")
            self.end_headers()
            return
        super().do_GET()

    def end_headers(self) -> None:
        """Adds the headers of a cross-origin isolated page."""
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        self.send_header("Cache-Control", "no-cache")
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing: the terminal shows only the address."""
