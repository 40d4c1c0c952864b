"""The command line: help made from the functions, arguments in their types, one line for each mistake."""

import inspect
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from builders import draw_light_and_dark

import graftline
from graftline import __version__
from graftline.cli import main as cli
from graftline.cli.help import parameters, spelt
from graftline.errors import GraftlineError

EVERY = [name for group in cli.COMMANDS.values() for name in group]
PROGRAM = Path(sys.executable).parent / "graftline"


def call(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Returns exit code, standard output and standard error."""
    code = cli.main(words)
    said = capsys.readouterr()
    return code, said.out, said.err


def test_help_lists_every_command_with_its_first_line(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = call(capsys, "--help")
    assert (code, err) == (0, "")
    for name in EVERY:
        assert f"\n  {name} " in out
        assert (inspect.getdoc(cli.load(name)) or "").split()[0] in out
    assert call(capsys)[1] == out


def test_help_loads_nothing_heavy() -> None:
    heavy = {
        "torch",
        "timm",
        "mlflow",
        "dvc",
        "kfp",
        "sklearn",
        "matplotlib",
        "onnx",
        "onnxruntime",
        "pyarrow",
        "numpy",
    }
    code = (
        "import sys; from graftline.cli.main import main; main(['--help']); main(['fine_tune', '--help']);"
        f"print({heavy} & set(sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.endswith("set()\n")


@pytest.mark.parametrize("command", EVERY)
def test_help_of_a_command_documents_every_parameter(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "110")
    code, out, _ = call(capsys, command, "--help")
    assert code == 0
    rows = out.split("\n\n", 1)[1].splitlines()
    for name, parameter in parameters(cli.load(command)).items():
        shown = name.upper() if parameter.default is parameter.empty else spelt(name)
        at = next((index for index, row in enumerate(rows) if row.split()[:1] == [shown]), None)
        assert at is not None, f"{shown} is not in the help"
        text = " ".join(rows[at : at + 5]).removeprefix(f"  {shown}").strip()
        assert len(text.split()) > 2, f"{shown} is not described"
        if parameter.default not in (parameter.empty, "", None):
            assert f"[{parameter.default}]" in text


def test_options_are_taken_with_dashes_and_underscores_and_typed() -> None:
    function = cli.load("fine_tune")
    folders = ["data", "policy", "plans", "out"]
    dashes = cli.parse("fine_tune", function, [*folders, "--batch-size", "16", "--learning-rate=1e-3"])
    underscores = cli.parse("fine_tune", function, [*folders, "--batch_size=16", "--learning_rate", "0.001"])
    assert dashes == underscores
    assert (dashes["dataset"], dashes["batch_size"], dashes["learning_rate"]) == (Path("data"), 16, 0.001)
    assert dashes["rank"] == inspect.signature(function).parameters["rank"].default


def test_texts_stay_as_they_are_written() -> None:
    function = cli.load("select_strategy")
    for text in ("a,b", "1", "null", "[a]", "true"):
        assert cli.parse("select_strategy", function, ["d", "p", "o", "--backbones", text])["backbones"] == text


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["fnie_tune"], "no command 'fnie_tune': did you mean 'fine_tune'?"),
        (["xyzzy"], "no command 'xyzzy'; see `graftline --help`"),
        (["run"], "SOURCE is missing"),
        (["fine_tune", "a", "b"], "PLANS, OUT is missing"),
        (["run", "x", "--sed", "3"], "no option '--sed': did you mean '--seed'?"),
        (["run", "x", "--source", "y"], "no option '--source'"),
        (["run", "x", "--published", "3"], "no option '--published'"),
        (["run", "x", "--seed", "z"], "--seed takes a whole number, not 'z'"),
        (["run", "x", "--test-fraction", "z"], "--test-fraction takes a number, not 'z'"),
        (["run", "x", "--strategy", "foo"], "--strategy takes auto, feature_extraction, fine_tuning"),
        (["run", "x", "--seed"], "--seed needs a value"),
        (["run", "x", "y"], "'y' is one argument too many"),
    ],
)
def test_a_wrong_call_is_one_line_and_exit_2(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = call(capsys, *words)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert says in err
    assert "graftline" in err


def test_what_a_command_meets_is_one_line_and_exit_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, says in (
        (["evaluate", str(tmp_path), str(tmp_path), str(tmp_path / "out")], "is not an output of `graftline"),
        (["run", str(tmp_path / "none"), "--workspace", str(tmp_path / "work")], "does not exist"),
        (["compile", "/proc/train.yaml"], "/proc"),
        (["lineage", str(tmp_path / "none.onnx")], "does not exist"),
    ):
        code, out, err = call(capsys, *words)
        assert (code, out, err.count("\n")) == (1, "", 1), words
        assert says in err
    assert not (tmp_path / "work").exists(), "nothing is begun for a source that is not there"


def test_debug_shows_where_an_error_comes_from(tmp_path: Path) -> None:
    result = subprocess.run(
        [PROGRAM, "lineage", tmp_path / "none.onnx", "--debug"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    assert "Traceback" in result.stderr


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(capsys, "--version") == (0, f"graftline {__version__}\n", "")


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_stops_early_is_no_error(unbuffered: str) -> None:
    read, write = os.pipe()
    os.close(read)
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    result = subprocess.run(
        [PROGRAM, "--help"], env=environment, stdout=write, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(write)
    assert (result.returncode, result.stderr) == (1, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is full")
def test_a_full_disk_is_one_line() -> None:
    with Path("/dev/full").open("w") as full:
        result = subprocess.run([PROGRAM, "--help"], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (result.returncode, result.stderr) == (1, "graftline: No space left on device\n")


@pytest.mark.parametrize(
    "words",
    [
        ["run", "photos"],
        ["retrain", "photos"],
        ["submit", "photos"],
        ["schedule", "create", "nightly", "photos"],
        ["register_model", "data", "bundle", "evaluation", "out"],
        ["history"],
    ],
)
@pytest.mark.parametrize(
    "address", ["https://bob:top@secret@host", "https://topsecret@host", "mysql://bob:topsecret@db"]
)
def test_no_command_takes_a_password_that_others_can_read(
    words: list[str], address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = call(capsys, *words, "--tracking-uri", address)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "MLFLOW_TRACKING_URI in the environment" in err
    assert "secret" not in err


def test_a_step_takes_texts_for_its_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GRAFTLINE_STORE", "store")
    for step in graftline.__all__:
        function = getattr(graftline, step)
        paths = {Path: "nowhere", list[Path]: ["nowhere"], str: "nowhere"}
        given = {n: paths[p.annotation] for n, p in parameters(function).items() if p.default is p.empty}
        given |= {n: "nowhere" for n, p in parameters(function).items() if p.annotation == Path | None}
        with pytest.raises(GraftlineError, match="nowhere"):
            function(**given, **({"tracking_uri": "nowhere://"} if step == "fetch_champion" else {}))
        with pytest.raises(GraftlineError, match="give a folder below it"):
            function(**given | {"out": "."})
        with pytest.raises(TypeError, match="colour"):
            function(**given, colour="red")
        assert pickle.loads(pickle.dumps(function)) is function


def test_a_step_shows_its_record_and_where_it_lies(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRAFTLINE_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("GRAFTLINE_WORKSPACE", str(tmp_path / "work"))
    draw_light_and_dark(tmp_path / "images")
    code, out, err = call(capsys, "version-data", str(tmp_path / "images"), str(tmp_path / "data"))
    assert code == 0, err
    assert out.splitlines()[-1] == f"out: {tmp_path / 'data'}"
    assert "images: 40" in out
    version = next(line.split()[1] for line in out.splitlines() if line.startswith("version:"))
    code, out, err = call(capsys, "pull", version, str(tmp_path / "again"))
    assert code == 0, err
    assert f"version: {version}" in out
    shards = sorted(path.relative_to(tmp_path / "again") for path in (tmp_path / "again").rglob("*.parquet"))
    assert shards
    assert all((tmp_path / "again" / s).read_bytes() == (tmp_path / "data" / s).read_bytes() for s in shards)


def test_a_process_does_not_look_through_its_imports_once_more_at_its_end() -> None:
    watch = "import atexit, gc; atexit.register(lambda: print(gc.get_freeze_count() > 0)); import graftline"
    task = "from graftline.components.task import as_task; as_task(print)"
    program = "import sys, graftline.cli.main; sys.argv[1:] = ['--version']; graftline.cli.main.main()"
    for process, frozen in [(program, True), (task, True), ("import graftline.cli.main; graftline.evaluate", False)]:
        command = [sys.executable, "-c", f"{watch}; {process}"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout.endswith(f"{frozen}\n"), process
