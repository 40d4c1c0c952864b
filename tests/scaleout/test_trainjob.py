"""Training on several nodes, against a stand-in for Kubernetes with Kubeflow Trainer that runs the nodes' commands."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from builders import write_plans
from trainjob_stand_in import DEPLOY, TRAINER, StandIn, serve

from graftline.cluster.compile import compile_pipeline
from graftline.errors import GraftlineError
from graftline.records import read_record
from graftline.scaleout import node
from graftline.scaleout.member import Failure
from graftline.scaleout.settings import VARIABLE, JobSettings
from graftline.scaleout.trainer import Trainer, TrainJobError
from graftline.storage import Store
from graftline.workspace import cache_folder

HERE = Path(__file__)
SMALL = {"image_size": 64, "epochs": 2, "batch_size": 8, "warmup_steps": 2, "learning_rate": 1e-4}
MORE = {"strategy": "fine_tuning", "frozen_groups": 4, "ema_decay": 0.9}


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[StandIn]:
    state, server = serve(tmp_path)
    yield state
    for name in list(state.jobs):
        state.delete(name)
    server.shutdown()
    server.server_close()


def compiled_task(folder: Path, **options: Any) -> dict[str, Any]:
    """Returns what the training task gets in a compiled pipeline: its environment, resources and pod."""
    spec, platform = yaml.safe_load_all(compile_pipeline(folder / "train.yaml", **options).read_text())
    executors = spec["deploymentSpec"]["executors"]
    (name,) = [name for name in executors if name.startswith("exec-fine-tune")]
    pods = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    environment = {one["name"]: one["value"] for one in executors[name]["container"]["env"]}
    return {"environment": environment, "pod": pods[name], **executors[name]["container"]}


def test_the_task_of_several_nodes_only_waits_and_knows_what_each_node_gets(tmp_path: Path) -> None:
    profile = str(DEPLOY / "profiles" / "gke-a100.yaml")
    task = compiled_task(tmp_path, profile=profile, gpus=4, nodes=2)
    settings = JobSettings.model_validate_json(task["environment"][VARIABLE])
    assert settings.nodes == 2
    assert settings.resources == {"cpu": "12", "memory": "64Gi", "nvidia.com/gpu": "4"}
    assert settings.node_selector["cloud.google.com/gke-accelerator"] == "nvidia-tesla-a100"
    assert "accelerator" not in task["resources"]
    assert task["resources"]["resourceCpuRequest"] == "500m"
    assert "nodeSelector" not in task["pod"]
    alone = compiled_task(tmp_path, profile=profile, gpus=4)
    assert VARIABLE not in alone["environment"]
    assert alone["resources"]["accelerator"]["count"] == "4"


def test_a_job_is_what_kubeflow_trainer_takes(
    cluster: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.runs = False
    task = compiled_task(tmp_path, profile=str(DEPLOY / "profiles" / "gke-a100.yaml"), gpus=4, nodes=2)
    settings = JobSettings.model_validate_json(task["environment"][VARIABLE])
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(cluster.kubeconfig()))
    trainer = Trainer()
    trainer.create("graftline-1", settings, ["python", "-m", "here"])
    spec = cluster.jobs["graftline-1"]["spec"]
    assert (spec["trainer"]["numNodes"], spec["trainer"]["command"]) == (2, ["python", "-m", "here"])
    assert spec["trainer"]["resourcesPerNode"]["limits"]["nvidia.com/gpu"] == "4"
    assert spec["activeDeadlineSeconds"] == 12 * 3600
    (patch,) = spec["runtimePatches"]
    pod = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    secret, shm, cache = pod["volumes"]
    assert secret["secret"]["secretName"] == "graftline-s3"
    assert shm["emptyDir"] == {"medium": "Memory", "sizeLimit": "8Gi"}
    assert cache["persistentVolumeClaim"]["claimName"] == "graftline-cache"
    job = trainer.job("graftline-1")
    assert job and (job.state, job.pods) == ("Created", {})
    trainer.delete("graftline-1")
    assert trainer.job("graftline-1") is None
    trainer.delete("graftline-1")


def test_what_is_missing_is_said(cluster: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(cluster.kubeconfig()))
    settings = JobSettings(nodes=2, image="i", resources={}, store_secret="s", store_keys=[], shared_memory="1Gi")
    monkeypatch.setattr("graftline.scaleout.trainer.RUNTIME", "another")
    with pytest.raises(TrainJobError, match=r"403.*deploy/trainer"):
        Trainer().create("graftline-1", settings, ["python"])
    monkeypatch.setitem(sys.modules, "kubeflow.trainer", None)
    with pytest.raises(TrainJobError, match=r"pip install 'graftline\[trainer\]'"):
        Trainer()


def work(dataset: Path, out: Path, mode: str, processes: int, device: str, checkpoints: str) -> None:
    """What the machines do in the tests that need no training."""
    node = os.environ["GROUP_RANK"]
    assert (dataset / "images.txt").read_text() == "images"
    print(f"machine {node} {mode}s", flush=True)
    if mode == "fail" and node == "1":
        raise GraftlineError("the plan is wrong: mend it")
    time.sleep(60)


def start_task(cluster: StandIn, folder: Path, mode: str) -> "subprocess.Popen[str]":
    """Starts a task that trains on two machines and shares nothing with them but the store."""
    (folder / "data").mkdir(exist_ok=True)
    (folder / "data" / "record.json").write_text("{}")
    (folder / "data" / "images.txt").write_text("images")
    settings = JobSettings(nodes=2, image="i", resources={}, store_secret="s", store_keys=[], shared_memory="1Gi")
    cluster.secret = {"GRAFTLINE_STORE": str(folder / "store")}
    script = (
        "from pathlib import Path; from graftline.scaleout import job; job.EVERY_SECONDS = 0.5\n"
        f"settings = job.JobSettings.model_validate_json({settings.model_dump_json()!r})\n"
        f"job.train_on_nodes(settings, '{HERE.stem}:work', {{'dataset': Path({str(folder / 'data')!r}), 'out': "
        f"Path({str(folder / 'out')!r}), 'mode': {mode!r}, 'processes': 0, 'device': 'cpu'}})"
    )
    environment = os.environ | cluster.secret | {"KUBECONFIG": str(cluster.kubeconfig())}
    return subprocess.Popen([sys.executable, "-c", script], env=environment, stderr=subprocess.PIPE, text=True)


@pytest.fixture
def found_here(monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in (HERE.parents[1], HERE.parent):  # the builders of all tests, and this file
        monkeypatch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)


def test_a_machine_tells_its_own_mistake_which_is_not_tried_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GRAFTLINE_STORE", str(tmp_path / "store"))
    store = Store(str(tmp_path / "store"))
    sent = {"folders": [], "options": {"processes": -1, "device": "cpu"}}
    store.write_text(json.dumps(sent), f"trainjobs/one/{node.ARGUMENTS}")
    assert node.main("trainjobs/one", f"{HERE.stem}:work") == 1
    assert "processes is -1" in capsys.readouterr().err
    (key,) = store.keys(f"trainjobs/one/{node.FAILURES}")
    failure = Failure.model_validate_json(store.read_text(key))
    assert failure.clear and "processes is -1: give how many train together" in failure.message


@pytest.mark.slow
@pytest.mark.usefixtures("found_here")
def test_a_machine_that_fails_fails_the_task_with_its_words(cluster: StandIn, tmp_path: Path) -> None:
    cluster.away = 1
    _, said = start_task(cluster, tmp_path, "fail").communicate(timeout=90)
    assert "trying again" in said, "a network fault does not end the following"
    assert said.splitlines()[-1] == "graftline.scaleout.trainer.TrainJobError: the plan is wrong: mend it"
    assert "machine 0 fails" in said, "the log of the first machine is passed on"


@pytest.mark.slow
@pytest.mark.usefixtures("found_here")
def test_the_next_try_of_a_lost_task_follows_its_job_until_that_goes_and_a_terminated_one_deletes_it(
    cluster: StandIn, tmp_path: Path
) -> None:
    lost = start_task(cluster, tmp_path, "wait")
    await_that(lambda: any("machine 0 waits" in log.read_text() for log in tmp_path.glob("graftline-*-0.log")))
    lost.kill()
    lost.communicate()
    task = start_task(cluster, tmp_path, "wait")
    assert task.stderr
    assert "is there already: following it" in task.stderr.readline()
    cluster.delete(next(iter(cluster.jobs)))
    await_that(lambda: bool(cluster.machines))
    machines = [machine for together in cluster.machines.values() for machine in together]
    task.send_signal(signal.SIGTERM)
    _, said = task.communicate(timeout=60)
    assert task.returncode == 143, said
    assert not cluster.jobs
    assert cluster.calls.count(f"POST {TRAINER}/trainjobs") == 2
    assert all(machine.wait(60) for machine in machines)


@pytest.mark.slow
def test_two_nodes_train_and_the_model_comes_back(
    cluster: StandIn, solar_dataset: Path, policy: Path, plans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from graftline import fine_tune
    from graftline.storage import connect_store
    from graftline.storage.environment import EMBEDDED

    inputs = (solar_dataset, policy, write_plans(plans, tmp_path / "plans", SMALL | MORE))
    alone = fine_tune(*inputs, tmp_path / "alone", precision="fp32", device="cpu")
    cache = cache_folder()
    monkeypatch.setenv("GRAFTLINE_WORKSPACE", str(tmp_path / "task"))
    with connect_store() as store:
        monkeypatch.delenv(EMBEDDED)  # for the task it is a store that all machines reach
        names = ("GRAFTLINE_STORE", "AWS_ENDPOINT_URL_S3", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
        cluster.secret = {name: os.environ[name] for name in (*names, "AWS_DEFAULT_REGION")}
        settings = JobSettings.model_validate_json(compiled_task(tmp_path, gpus=0, nodes=2)["environment"][VARIABLE])
        shared = settings.model_copy(update={"environment": {"GRAFTLINE_CACHE": str(cache)}})
        environment = os.environ | {VARIABLE: shared.model_dump_json(), "KUBECONFIG": str(cluster.kubeconfig())}
        command = [
            str(Path(sys.executable).parent / "graftline"),
            "fine_tune",
            *map(str, inputs),
            str(tmp_path / "out"),
        ]
        task = subprocess.run(
            [*command, "--precision=fp32", "--device=cpu"], env=environment, capture_output=True, text=True, check=False
        )
        assert task.returncode == 0, task.stderr
        assert not [*store.keys("trainjobs"), *store.keys("checkpoints")]
    assert not cluster.jobs
    assert task.stderr.count("epoch 2 of 2: validation") == 1
    assert f"POST {TRAINER}/trainjobs" in cluster.calls
    assert alone.plan == read_record(tmp_path / "out", type(alone)).plan
    curves = [json.loads((tmp_path / name / "history.json").read_text()) for name in ("alone", "out")]
    for one, two in zip(*curves, strict=True):
        assert two["validation_loss"] == pytest.approx(one["validation_loss"], abs=1e-3)


def await_that(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
