"""What the documents show exists: commands parse, targets can be made, links lead somewhere, settings are read."""

import ast
import re
import shlex
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
from pydantic.fields import FieldInfo

from graftline.cli import main as cli
from graftline.records import Interval, ProbeEvidence, Settings, TransferPlan
from graftline.steps import STEPS
from graftline.steps.fine_tune import fine_tune
from graftline.transfer.evidence import BackboneEvidence
from graftline.transfer.plans import rank_plans

ROOT = Path(__file__).parents[2]
CONFTEST = ROOT / "tests" / "conftest.py"  # which reads settings of the tests
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
KNOWN = {name for group in cli.COMMANDS.values() for name in group}
NAMES = [document.relative_to(ROOT).as_posix() for document in DOCUMENTS]


def _text(document: Path) -> str:
    return re.sub(r"<!--.*?-->", "", document.read_text(), flags=re.DOTALL)


def _blocks(document: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", _text(document), flags=re.DOTALL | re.MULTILINE)


def _spans(document: Path) -> list[str]:
    without_blocks = re.sub(r"^```.*?^```$", "", _text(document), flags=re.DOTALL | re.MULTILINE)
    return re.findall(r"`([^`\n]+)`", without_blocks)


def _commands(document: Path) -> list[str]:
    """Returns every command shown, in blocks and in running text."""
    lines = [line for block in _blocks(document, "sh") for line in block.replace("\\\n", " ").splitlines()]
    parts = [part for line in [*lines, *_spans(document)] for part in line.split("&&")]
    return [part for part in parts if re.match(r"\s*(\S*/)?(graftline|make) ", part)]


def _shown(document: Path) -> list[list[str]]:
    """Returns the words of every command shown."""
    words = [shlex.split(command, comments=True) for command in _commands(document)]
    return [[Path(first).name, *rest] for first, *rest in words]


def _graftline_commands() -> list[tuple[str, list[str]]]:
    """Returns document and words after `graftline` of every command; STEP stands for each of the steps."""
    commands = []
    for name, document in zip(NAMES, DOCUMENTS, strict=True):
        for program, first, *rest in _shown(document):
            if program == "graftline":
                commands += [(name, [command, *rest]) for command in (STEPS if first == "STEP" else [first])]
    return commands


def _slug(heading: str) -> str:
    """Returns the anchor that a heading gets."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize(("document", "words"), _graftline_commands(), ids=lambda value: str(value)[:60])
def test_every_graftline_command_parses(document: str, words: list[str]) -> None:
    command, arguments = cli.split(words)
    if words[0].startswith("--"):
        assert words[0] in ("--help", "--version")
        return
    function = cli.load(command)
    if arguments and "--help" not in arguments:  # alone, a command is only spoken of
        cli.parse(command, function, arguments)


@pytest.mark.parametrize("document", DOCUMENTS, ids=NAMES)
def test_no_semicolon_ends_a_command(document: Path) -> None:
    """A list such as `[1;2]` needs quotes: a shell takes what comes after its first semicolon for another command."""
    for command in _commands(document):
        tokens = shlex.shlex(command, posix=True, punctuation_chars=";")
        assert not any(set(token) == {";"} for token in tokens), command


def test_readme_shows_every_step_and_the_everyday_commands() -> None:
    shown = {words[0] for document, words in _graftline_commands() if document == "README.md"}
    assert {*STEPS, "run", "compile"} <= shown <= {name.split()[0] for name in KNOWN}


def test_every_make_target_exists() -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    shown = {words[1] for document in DOCUMENTS for words in _shown(document) if words[0] == "make"}
    assert "demo" in shown
    assert shown <= targets


def test_makefile_help_lists_every_target() -> None:
    text = (ROOT / "Makefile").read_text()
    phony = set(re.search(r"^\.PHONY: (.*)$", text, flags=re.MULTILINE)[1].split())  # type: ignore[index]
    assert set(re.findall(r"^([a-z0-9-]+):.*## ", text, flags=re.MULTILINE)) == phony


@pytest.mark.parametrize("document", DOCUMENTS, ids=NAMES)
def test_every_relative_link_leads_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", _text(document)):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        file = (document.parent / path).resolve() if path else document
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", file.read_text(), flags=re.MULTILINE)
            assert anchor in {_slug(heading) for heading in headings}, target


@pytest.mark.parametrize("document", DOCUMENTS, ids=NAMES)
def test_every_path_of_the_project_exists(document: Path) -> None:
    for span in _spans(document):
        if re.fullmatch(r"(src|components|pipelines|docker|tests|benchmarks)/[\w./]*", span):
            assert (ROOT / span).exists(), span


@pytest.mark.parametrize("document", DOCUMENTS, ids=NAMES)
def test_every_setting_is_read_by_the_library(document: Path) -> None:
    code = [path for part in ("src", "components") for path in (ROOT / part).rglob("*.py")] + [CONFTEST]
    read = set(re.findall(r"\bGRAFTLINE_[A-Z_]+\b", "".join(path.read_text() for path in code)))
    assert set(re.findall(r"\bGRAFTLINE_[A-Z_]+\b", _text(document))) <= read


@pytest.mark.parametrize("document", DOCUMENTS, ids=NAMES)
def test_every_python_example_is_python(document: Path) -> None:
    for block in _blocks(document, "python"):
        ast.parse(block)


def test_the_table_of_settings_is_made_from_them() -> None:
    """One line for each field of `Settings`: name, what select_strategy takes, range, sentence."""
    plans = _plans()
    lines = [_setting_line(name, field, plans) for name, field in Settings.model_fields.items()]
    text = _text(ROOT / "docs" / "strategies.md")
    table = text.partition("| setting |")[2].partition("\n\n")[0].splitlines()[2:]
    assert table == lines, "docs/strategies.md is to say:\n" + "\n".join(line for line in lines if line not in table)


def test_the_help_of_fine_tune_names_every_setting() -> None:
    named = (fine_tune.__doc__ or "").partition("settings: ")[2].partition("seed: ")[0]
    assert [name for name in Settings.model_fields if not re.search(rf"\b{name}\b", named)] == []


def _setting_line(name: str, field: FieldInfo, plans: list[TransferPlan]) -> str:
    values = {str(getattr(plan, name)).lower() for plan in plans}
    taken = values.pop() if len(values) == 1 else "by the data"
    return f"| `{name}` | {taken} | {_range(field)} | {field.description} |"


def _plans() -> list[TransferPlan]:
    """Returns what select_strategy makes of few images and of many."""
    known = Interval(value=0.8, low=0.7, high=0.9, n=100)
    probe = ProbeEvidence(accuracy=known, macro_f1=0.8, folds=5, regularisation=1)
    evidence = [BackboneEvidence("tf_efficientnet_lite0", probe, 4, known)]
    return [plan for images, side in ((100, 96), (20_000, 224)) for plan in rank_plans(evidence, images, "auto", side)]


def _range(field: FieldInfo) -> str:
    if field.annotation is bool:
        return "`true`, `false`"
    if get_origin(field.annotation) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(field.annotation))
    if get_origin(field.annotation) is list:
        item = get_args(get_args(field.annotation)[0])[1]
        return f"a list, each {_bounds(item.metadata)}"
    return _bounds(field.metadata)


def _bounds(metadata: list[Any]) -> str:
    signs = (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<"))
    return ", ".join(f"{sign} {getattr(part, key)}" for part in metadata for key, sign in signs if hasattr(part, key))
