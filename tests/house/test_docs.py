"""What the documents show exists: commands parse, targets can be made, links lead somewhere, settings are read."""

import ast
import re
import shlex
from pathlib import Path

import pytest

from graftline.cli import main as cli
from graftline.steps import STEPS

ROOT = Path(__file__).parents[2]
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
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    shown = {words[1] for document in DOCUMENTS for words in _shown(document) if words[0] == "make"}
    assert "demo" in shown
    assert shown <= targets


def test_makefile_help_lists_every_target() -> None:
    text = (ROOT / "Makefile").read_text()
    phony = set(re.search(r"^\.PHONY: (.*)$", text, flags=re.MULTILINE)[1].split())  # type: ignore[index]
    assert set(re.findall(r"^([a-z-]+):.*## ", text, flags=re.MULTILINE)) == phony


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
    code = [path for part in ("src", "components") for path in (ROOT / part).rglob("*.py")]
    read = set(re.findall(r"\bGRAFTLINE_[A-Z_]+\b", "".join(path.read_text() for path in code)))
    assert set(re.findall(r"\bGRAFTLINE_[A-Z_]+\b", _text(document))) <= read


@pytest.mark.parametrize("document", DOCUMENTS, ids=NAMES)
def test_every_python_example_is_python(document: Path) -> None:
    for block in _blocks(document, "python"):
        ast.parse(block)
