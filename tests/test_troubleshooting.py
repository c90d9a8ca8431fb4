"""What the pages for bad days quote is what the program says, and their commands exist."""

import ast
import re
import shlex
from functools import cache
from pathlib import Path
from xml.etree import ElementTree

import click
import pytest

from exporter.cli.commands import commands
from exporter.metrics import METRICS

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "docs/troubleshooting.md", ROOT / "docs/upgrading.md"]
HOLE = "\0"


def text_of(node: ast.expr) -> str:
    """A string of the code, with a hole where an f-string puts a value."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(text_of(part) for part in parts)
    return HOLE


@cache
def said() -> list[str]:
    files = [path for path in ROOT.glob("exporter/**/*.py") if "simulator" not in path.parts]
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in files]
    strings = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.expr)]
    return [text_of(node) for node in strings if isinstance(node, ast.Constant | ast.JoinedStr)]


def is_said(quoted: str) -> bool:
    """True when one string of the code has the parts between ellipses, in their order."""
    parts = [part.strip() for part in quoted.split("…") if part.strip(" :;")]
    pattern = re.compile(".*".join(re.escape(part) for part in parts), re.DOTALL)
    return any(pattern.search(text) for text in said())


def quotes() -> list[str]:
    page = PAGES[0].read_text(encoding="utf-8").partition("\n## ")[2]
    return [re.sub(r"\s+", " ", quoted) for quoted in re.findall("“(.+?)”", page, re.DOTALL)]


def test_every_message_that_is_quoted_is_one_of_the_program() -> None:
    assert len(quotes()) > 30
    assert [quoted for quoted in quotes() if not is_said(quoted)] == []


def test_a_message_that_the_program_does_not_have_is_found() -> None:
    assert not is_said("the token was accepted: do nothing")
    assert not is_said("please report it… this is a fault of the program")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_their_options_exist(page: Path) -> None:
    found = re.findall(
        r"^build-exporter .+$|(?<=`)build-exporter [^`]+", page.read_text(encoding="utf-8"), re.MULTILINE
    )
    assert found
    for line in found:
        command: click.Command = commands
        for word in shlex.split(line)[1:]:
            if isinstance(command, click.Group) and not word.startswith("-"):
                assert word in command.commands, line
                command = command.commands[word]
            elif word.startswith("--"):
                assert any(word in option.opts for option in command.params), line


def test_the_picture_is_whole_and_names_what_exists() -> None:
    text = (ROOT / "docs/overview.svg").read_text(encoding="utf-8")
    assert ElementTree.fromstring(text).tag.endswith("svg")
    names = [re.sub("_(bucket|sum|count)$", "", name) for name in re.findall(r"\bci_[a-z_]+", text)]
    assert names
    assert [name for name in names if name not in METRICS] == []
    assert "prefers-color-scheme: dark" in text
