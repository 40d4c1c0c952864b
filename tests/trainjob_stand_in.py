"""A stand-in for the Kubernetes API with Kubeflow Trainer's objects: a small HTTP server on loopback, not a cluster.

It holds a TrainJob against the models of Kubeflow Trainer's own SDK, lets through only what the roles in `deploy` allow
the account `graftline-runner`, and runs the command of each machine as a process here, with the settings that Kubeflow
Trainer gives its pods. How a real cluster schedules, mounts, connects and reports is not in it.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml
from kfp_stand_in import Handler as HttpHandler
from kubeflow_trainer_api import models

DEPLOY = Path(__file__).parents[1] / "deploy"
NAMESPACE = "default"
TRAINER = f"/apis/trainer.kubeflow.org/v1alpha1/namespaces/{NAMESPACE}"
CORE = f"/api/v1/namespaces/{NAMESPACE}"
TIME = "2026-11-20T12:00:00Z"
VERBS = {"GET": "get", "POST": "create", "DELETE": "delete"}
ACCOUNT = "graftline-runner"


def allowed_rules() -> list[dict[str, Any]]:
    """Returns the rules that the roles in `deploy` give the account of the tasks."""
    files = (DEPLOY / "base" / "accounts.yaml", DEPLOY / "trainer" / "access.yaml")
    every = [one for path in files for one in yaml.safe_load_all(path.read_text())]
    bound = {
        one["roleRef"]["name"]
        for one in every
        if one["kind"] == "RoleBinding" and ACCOUNT in [subject["name"] for subject in one["subjects"]]
    }
    return [
        rule for one in every if one["kind"] == "Role" and one["metadata"]["name"] in bound for rule in one["rules"]
    ]


def is_allowed(method: str, path: str) -> bool:
    """Whether a rule covers a request, as Kubernetes would read it."""
    found = re.fullmatch(r"/apis?(?:/([\w.]+))?/v\w+/namespaces/([\w-]+)/(\w+)(?:/([\w.-]+))?(?:/(\w+))?", path)
    if not found or found[2] != NAMESPACE:
        return False
    group, _, kind, name, below = found.groups()
    verb = "list" if method == "GET" and not name else VERBS[method]
    resource = f"{kind}/{below}" if below else kind
    return any(
        (group or "") in rule["apiGroups"]
        and resource in rule["resources"]
        and verb in rule["verbs"]
        and name in (rule.get("resourceNames") or [name])
        for rule in allowed_rules()
    )


class StandIn:
    """The server's state.

    Attributes:
        calls: Method and path of every request.
        jobs: The TrainJobs, by name.
        machines: The processes of each, while there are any.
        runs: Whether the machines' commands are run.
        secret: What the store's secret holds.
        folder: Where logs, secrets and each machine's disk are.
        away: How many requests get no answer but 503, once there is a job.
    """

    def __init__(self, folder: Path) -> None:
        self.calls: list[str] = []
        self.jobs: dict[str, dict[str, Any]] = {}
        self.machines: dict[str, list[subprocess.Popen[bytes]]] = {}
        self.runs, self.folder, self.away = True, folder, 0
        self.secret: dict[str, str] = {}
        self.url = ""

    def kubeconfig(self) -> Path:
        """Writes kubectl's configuration for this server."""
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "here",
            "clusters": [{"name": "here", "cluster": {"server": self.url}}],
            "users": [{"name": "me", "user": {"token": "not-a-secret"}}],
            "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me", "namespace": NAMESPACE}}],
        }
        path = self.folder / "kubeconfig.yaml"
        path.write_text(yaml.safe_dump(content))
        return path

    def create(self, body: dict[str, Any]) -> dict[str, Any]:
        """Takes a TrainJob, if it is one, and starts its machines."""
        assert models.TrainerV1alpha1TrainJob.from_dict(body).to_dict() == body, "a field that TrainJobs have not"
        name, trainer = body["metadata"]["name"], body["spec"]["trainer"]
        assert (body["spec"]["runtimeRef"]["name"], body["spec"]["runtimeRef"]["kind"]) == (
            "graftline",
            "TrainingRuntime",
        )
        (patch,) = body["spec"]["runtimePatches"]
        (job,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
        pod = job["template"]["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        assert (job["name"], container["name"]) == ("node", "node")
        assert "env" not in container, "Kubeflow Trainer refuses it for this container"
        assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
        metadata = body["metadata"] | {"namespace": NAMESPACE, "creationTimestamp": TIME, "uid": f"uid-{name}"}
        self.jobs[name] = body | {"metadata": metadata}
        if self.runs:
            port, mounts = str(free_port()), {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
            self.machines[name] = [
                self._start(name, rank, port, trainer, mounts["store"]) for rank in range(trainer["numNodes"])
            ]
        return self.jobs[name]

    def _start(
        self, name: str, rank: int, port: str, trainer: dict[str, Any], secrets: str
    ) -> "subprocess.Popen[bytes]":
        disk = self.folder / f"{name}-{rank}"
        (disk / "secrets").mkdir(parents=True, exist_ok=True)
        for key, value in self.secret.items():
            (disk / "secrets" / key).write_text(value)
        given = {one["name"]: one["value"].replace(secrets, str(disk / "secrets")) for one in trainer["env"]}
        launcher = {
            "PET_NNODES": str(trainer["numNodes"]),
            "PET_NPROC_PER_NODE": "auto",
            "PET_NODE_RANK": str(rank),
            "PET_MASTER_ADDR": "127.0.0.1",
            "PET_MASTER_PORT": port,
        }
        own = {name: os.environ[name] for name in ("PATH", "HOME", "PYTHONPATH") if name in os.environ}
        environment = own | {"GRAFTLINE_WORKSPACE": str(disk), "OMP_NUM_THREADS": "1"} | given | launcher
        program, *words = trainer["command"]
        assert program == "python"
        with (self.folder / f"{name}-{rank}.log").open("wb") as log:
            return subprocess.Popen([sys.executable, *words], env=environment, stdout=log, stderr=log, cwd=disk)

    def job(self, name: str) -> dict[str, Any]:
        """Returns a TrainJob with its state."""
        codes = [machine.poll() for machine in self.machines.get(name, [])]
        kind = "Failed" if any(codes) else "Complete" if codes and None not in codes else ""
        condition = {"type": kind, "status": "True", "reason": "R", "message": "m", "lastTransitionTime": TIME}
        return self.jobs[name] | {"status": {"conditions": [condition]} if kind else {}}

    def delete(self, name: str) -> dict[str, Any]:
        """Forgets a TrainJob and ends its machines."""
        del self.jobs[name]
        for machine in self.machines.pop(name, []):
            if machine.poll() is None:
                machine.send_signal(signal.SIGTERM)
        return {"kind": "Status", "status": "Success"}

    def pods(self, selector: str) -> dict[str, Any]:
        """Returns the pods of a TrainJob."""
        (name,) = re.findall(r"jobset-name=([\w-]+),", selector)
        phases = {None: "Running", 0: "Succeeded"}
        labels = {"jobset.sigs.k8s.io/jobset-name": name, "jobset.sigs.k8s.io/replicatedjob-name": "node"}
        items = [
            {
                "metadata": {
                    "name": f"{name}-node-0-{rank}",
                    "creationTimestamp": TIME,
                    "labels": labels | {"batch.kubernetes.io/job-completion-index": str(rank)},
                },
                "spec": {"containers": [{"name": "node", "image": "i"}]},
                "status": {"phase": phases.get(machine.poll(), "Failed")},
            }
            for rank, machine in enumerate(self.machines.get(name, []))
        ]
        return {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}

    def log(self, pod: str) -> str:
        """Returns what a machine has written."""
        return (self.folder / f"{pod.replace('-node-0-', '-')}.log").read_text(errors="replace")


class Handler(HttpHandler):
    state: StandIn  # type: ignore[assignment]

    def _answer(self, method: str) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = urlsplit(self.path)
        self.state.calls.append(f"{method} {parts.path}")
        if self.state.away and self.state.jobs:
            self.state.away -= 1
            return self._send(503, {"kind": "Status", "message": "as the test wants it"})
        if not is_allowed(method, parts.path):
            return self._send(403, {"kind": "Status", "message": f"{ACCOUNT} may not {method} {parts.path}"})
        try:
            return self._send(200, self._found(method, parts.path, parse_qs(parts.query), content))
        except KeyError as error:
            return self._send(404, {"kind": "Status", "message": f"{error} not found"})
        except AssertionError as error:
            return self._send(422, {"kind": "Status", "message": f"the stand-in refuses: {error}"})

    def _found(self, method: str, path: str, query: dict[str, list[str]], content: bytes) -> Any:
        state, name = self.state, path.rpartition("/")[2]
        if path == f"{TRAINER}/trainjobs":
            return state.create(json.loads(content))
        if path.startswith(f"{TRAINER}/trainjobs/"):
            return state.job(name) if method == "GET" else state.delete(name)
        if path == f"{TRAINER}/trainingruntimes/graftline":
            return yaml.safe_load((DEPLOY / "trainer" / "runtime.yaml").read_text())
        if path == f"{CORE}/pods":
            return state.pods(query["labelSelector"][0])
        return state.log(path.split("/")[-2])


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def serve(folder: Path) -> tuple[StandIn, ThreadingHTTPServer]:
    """Starts the server on a free port of 127.0.0.1."""
    state = StandIn(folder)
    handler = type("BoundHandler", (Handler,), {"state": state})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    state.url = f"http://127.0.0.1:{server.server_port}"
    return state, server
