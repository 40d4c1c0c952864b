"""A stand-in for the API of Kubeflow Pipelines: a small HTTP server on loopback, not a cluster.

It holds what the client sends against the models of `kfp-server-api`, field by field, and keeps runs, pipelines and
schedules in memory. How a real cluster schedules, runs and reports is not in it.
"""

import json
import re
import socket
import struct
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import kfp_server_api
import yaml

API = "/apis/v2beta1"
KUBERNETES_PROXY = "/api/v1/namespaces/kubeflow/services/ml-pipeline:http/proxy"
ENUMS = {"RecurringRunMode", "V2beta1RuntimeState", "V2beta1RecurringRunStatus"}


def check_model(value: Any, kind: str, where: str = "") -> None:
    """Raises AssertionError unless a JSON value is what a model of `kfp-server-api` writes."""
    if kind.startswith("list["):
        assert isinstance(value, list), f"{where} is no list"
        for entry in value:
            check_model(entry, kind[5:-1], where)
    elif kind.startswith("dict(") or kind == "object":
        assert isinstance(value, dict) or kind == "object", f"{where} is no object"
    elif kind in ("str", "datetime") or kind in ENUMS:
        assert isinstance(value, str) or (kind == "str" and where.endswith("max_concurrency")), f"{where}: {value!r}"
    elif kind in ("bool", "int"):
        assert isinstance(value, bool if kind == "bool" else int), f"{where}: {value!r} is no {kind}"
    else:
        model = getattr(kfp_server_api, kind)
        names = {json_name: name for name, json_name in model.attribute_map.items()}
        assert isinstance(value, dict), f"{where} is no {kind}"
        for json_name, entry in value.items():
            assert json_name in names, f"{kind} has no field {json_name}"
            check_model(entry, model.openapi_types[names[json_name]], f"{where}.{json_name}")


class StandIn:
    """The server's state.

    Attributes:
        calls: Method and path of every request that was answered.
        requests: The same with query, body and headers.
        states: What a run's state is each time it is asked for; the last one stays.
        faults: What happens instead of an answer, once each: (beginning of method and path, status code or "reset").
        after: The same with the connection reset after the work has been done.
    """

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.requests: list[tuple[str, dict[str, list[str]], Any, dict[str, str]]] = []
        self.states: list[dict[str, Any]] = [{"state": "SUCCEEDED"}]
        self.faults: list[tuple[str, int | str]] = []
        self.after: list[tuple[str, int | str]] = []
        self.runs: dict[str, dict[str, Any]] = {}
        self.experiments: dict[str, dict[str, Any]] = {}
        self.pipelines: dict[str, dict[str, Any]] = {}
        self.versions: dict[str, dict[str, Any]] = {}
        self.schedules: dict[str, dict[str, Any]] = {}
        self.logs: dict[str, str] = {}
        self.healthz: Any = {"multi_user": False}
        self._asked: dict[str, int] = {}
        self._count = 0
        self.url = ""

    def new_id(self, kind: str) -> str:
        self._count += 1
        return f"{kind}-{self._count}"

    def run(self, identity: str) -> dict[str, Any]:
        """Returns a run in its next state."""
        index = min(self._asked.get(identity, 0), len(self.states) - 1)
        self._asked[identity] = index + 1
        return {**self.runs[identity], **self.states[index]}


def task(name: str, state: str, start: int = 0, end: int = 0, **more: Any) -> dict[str, Any]:
    """Returns a task's detail as the API has it; times in seconds after noon."""
    times = {
        key: f"2026-11-20T12:{at // 60:02}:{at % 60:02}Z" for key, at in (("start_time", start), ("end_time", end))
    }
    return {"display_name": name, "state": state, "pod_name": f"pod-{name}", **times, **more}


def details(*tasks: dict[str, Any]) -> dict[str, Any]:
    return {"run_details": {"task_details": list(tasks)}}


class Handler(BaseHTTPRequestHandler):
    state: StandIn
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._answer("GET")

    def do_POST(self) -> None:
        self._answer("POST")

    def do_DELETE(self) -> None:
        self._answer("DELETE")

    def _answer(self, method: str) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = urlsplit(self.path)
        call = f"{method} {parts.path}"
        fault = self._take(self.state.faults, call)
        if fault == "reset":
            return self._reset()
        if fault:
            return self._send(int(fault), {"message": "as the test wants it"})
        self.state.calls.append(call)
        query = parse_qs(parts.query)
        self.state.requests.append((call, query, content, dict(self.headers)))
        try:
            status, answer = self._route(method, parts.path, query, content)
        except AssertionError as error:
            status, answer = 400, {"message": f"the stand-in refuses: {error}"}
        except KeyError as error:
            status, answer = 404, {"message": f"{error} not found"}
        if self._take(self.state.after, call):
            return self._reset()
        return self._send(status, answer)

    def _take(self, faults: list[Any], call: str) -> Any:
        for index, (beginning, fault) in enumerate(faults):
            if call.startswith(beginning):
                del faults[index]
                return fault
        return None

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.rfile.close()
        self.wfile.close()
        self.connection.close()

    def _send(self, status: int, answer: Any) -> None:
        text = answer if isinstance(answer, str) else json.dumps(answer)
        self.send_response(status)
        self.send_header("Content-Type", "text/plain" if isinstance(answer, str) else "application/json")
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def _route(self, method: str, path: str, query: dict[str, list[str]], content: bytes) -> tuple[int, Any]:
        for pattern, function in ROUTES:
            found = re.fullmatch(pattern, f"{method} {path.removeprefix(KUBERNETES_PROXY)}")
            if found:
                return 200, function(self.state, query, content, **found.groupdict())
        raise KeyError(path)


def _body(content: bytes, kind: str) -> dict[str, Any]:
    value = json.loads(content)
    check_model(value, kind, kind)
    return dict(value)


def _document(content: bytes) -> dict[str, Any]:
    """Returns the pipeline's specification of a multipart upload."""
    text = content.decode()
    assert 'name="uploadfile"' in text, "the field is called uploadfile"
    body = text.split("\r\n\r\n", 1)[1].rsplit("\r\n--", 1)[0]
    spec, platform = yaml.safe_load_all(body)
    assert spec["pipelineInfo"]["name"] and platform["platforms"]
    return dict(spec)


def _create_run(state: StandIn, query: Any, content: bytes) -> Any:
    body = _body(content, "V2beta1Run")
    assert body["experiment_id"] in {one["experiment_id"] for one in state.experiments.values()}
    assert ("pipeline_spec" in body) != ("pipeline_version_reference" in body)
    identity = state.new_id("run")
    state.runs[identity] = {**body, "run_id": identity, "created_at": "2026-11-20T12:00:00Z"}
    return {**state.runs[identity], "state": "PENDING"}


def _list_runs(state: StandIn, query: Any, content: bytes) -> Any:
    size, start = int(query["page_size"][0]), int((query.get("page_token") or ["0"])[0] or 0)
    every = [{"state": "RUNNING", **one} for one in reversed(state.runs.values())]
    more = {"next_page_token": str(start + size)} if start + size < len(every) else {}
    return {"runs": every[start : start + size], **more}


def _create_experiment(state: StandIn, query: Any, content: bytes) -> Any:
    body = _body(content, "V2beta1Experiment")
    return state.experiments.setdefault(body["display_name"], {**body, "experiment_id": state.new_id("experiment")})


def _list_experiments(state: StandIn, query: Any, content: bytes) -> Any:
    (predicate,) = json.loads(query["filter"][0])["predicates"]
    wanted = predicate.get("string_value") or predicate.get("stringValue")
    return {"experiments": [one for one in state.experiments.values() if one["display_name"] == wanted]}


def _upload(state: StandIn, query: Any, content: bytes) -> Any:
    _document(content)
    identity = state.new_id("pipeline")
    state.pipelines[identity] = {"pipeline_id": identity, "display_name": query["name"][0]}
    return state.pipelines[identity]


def _upload_version(state: StandIn, query: Any, content: bytes) -> Any:
    spec, identity = _document(content), state.new_id("version")
    about = {"pipeline_id": query["pipelineid"][0], "display_name": query["name"][0]}
    assert about["pipeline_id"] in state.pipelines
    state.versions[identity] = {**about, "pipeline_version_id": identity, "pipeline_spec": spec}
    return state.versions[identity]


def _create_schedule(state: StandIn, query: Any, content: bytes) -> Any:
    body = _body(content, "V2beta1RecurringRun")
    assert body["pipeline_version_reference"]["pipeline_version_id"] in state.versions
    assert len(body["trigger"]["cron_schedule"]["cron"].split()) == 6
    identity = state.new_id("schedule")
    state.schedules[identity] = {**body, "recurring_run_id": identity, "status": f"{body['mode']}D"}
    return state.schedules[identity]


def _switch(state: StandIn, query: Any, content: bytes, identity: str, action: str) -> Any:
    state.schedules[identity] |= {"mode": action.upper(), "status": f"{action.upper()}D"}
    return {}


def _pod_log(state: StandIn, query: Any, content: bytes) -> Any:
    return state.logs[query["podname"][0]]


def _terminate(state: StandIn, query: Any, content: bytes, identity: str) -> Any:
    state.runs[identity]["terminated"] = True
    return {}


def _known(name: str, key: str) -> Callable[..., Any]:
    return lambda state, query, content: {key: list(getattr(state, name).values())}


def _versions(state: StandIn, query: Any, content: bytes, identity: str) -> Any:
    return {"pipeline_versions": [one for one in state.versions.values() if one["pipeline_id"] == identity]}


ROUTES: list[tuple[str, Callable[..., Any]]] = [
    (f"GET {API}/healthz", lambda state, query, content: state.healthz),
    (f"POST {API}/experiments", _create_experiment),
    (f"GET {API}/experiments", _list_experiments),
    (f"POST {API}/runs", _create_run),
    (f"GET {API}/runs", _list_runs),
    (f"GET {API}/runs/(?P<identity>[^:/]+)", lambda state, query, content, identity: state.run(identity)),
    (f"POST {API}/runs/(?P<identity>[^:/]+):terminate", _terminate),
    (f"GET {API}/pipelines", _known("pipelines", "pipelines")),
    (f"GET {API}/pipelines/(?P<identity>[^:/]+)/versions", _versions),
    (f"POST {API}/pipelines/upload", _upload),
    (f"POST {API}/pipelines/upload_version", _upload_version),
    (f"POST {API}/recurringruns", _create_schedule),
    (f"GET {API}/recurringruns", _known("schedules", "recurringRuns")),
    (f"POST {API}/recurringruns/(?P<identity>[^:/]+):(?P<action>enable|disable)", _switch),
    (f"DELETE {API}/recurringruns/(?P<identity>[^:/]+)", lambda s, q, c, identity: s.schedules.pop(identity) and {}),
    (r"GET /k8s/pod/logs", _pod_log),
]


def serve() -> tuple[StandIn, ThreadingHTTPServer]:
    """Starts the server on a free port of 127.0.0.1."""
    state = StandIn()
    handler = type("BoundHandler", (Handler,), {"state": state})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    state.url = f"http://127.0.0.1:{server.server_port}"
    return state, server
