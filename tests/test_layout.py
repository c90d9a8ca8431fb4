"""Modules import only downwards, are short, print nothing and keep a server's words to themselves."""

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "exporter"
LAYERS = """
exporter
exporter.model
exporter.colours
exporter.series
exporter.metrics
exporter.telemetry
exporter.log
exporter.yamlfile exporter.fields exporter.filters exporter.config_errors
exporter.incidents
exporter.routes
exporter.config_target exporter.config_alertmanager exporter.config_routes exporter.config_excerpt
exporter.config_notify exporter.config_hooks exporter.config_delivery exporter.config
exporter.headers exporter.connections exporter.http exporter.channel
exporter.servers
exporter.servers.*
exporter.dora
exporter.ledger exporter.ledger.*
exporter.verdicts exporter.bridge exporter.rehearsal
exporter.faults exporter.numbers
exporter.roster exporter.intake exporter.gaps exporter.renames exporter.sweep exporter.follow
exporter.streams
exporter.watch
exporter.notify exporter.notify.*
exporter.samples
exporter.chunks exporter.exposition
exporter.refresh exporter.delivery
exporter.web_config exporter.access exporter.listener exporter.web
exporter.hooks exporter.hooks.*
exporter.schedule
exporter.app
exporter.backfill exporter.backfill.*
exporter.rules
exporter.simulator exporter.simulator.*
exporter.demo exporter.demo.*
exporter.cli exporter.cli.* exporter.__main__
"""
"""From the lowest to the highest; modules of one line may import each other, though not in a circle."""
LONGEST = 350
WIRE_NAMES = {
    "author_login", "build_event", "build_list", "created_at", "enqueued_at", "finished_at",
    "last_build", "link_url", "procs", "started_at", "updated_at", "workflows",
}  # fmt: skip


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


PATHS = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py")) if "versions" not in path.parts}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in PATHS.items()}


def layer(module: str) -> int:
    parent = module.rpartition(".")[0]
    for names in (module, f"{parent}.*"):
        for place, line in enumerate(LAYERS.splitlines()):
            if names in line.split():
                return place
    raise AssertionError(f"{module} has no place in LAYERS")


def imports(module: str) -> set[str]:
    """The modules of this package that a module imports, wherever in it."""
    found = set()
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}:{node.lineno}: a relative import"
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in PATHS else str(node.module) for name in inner}
    return {name for name in found if name in PATHS}


@pytest.mark.parametrize("module", PATHS)
def test_imports_go_downwards(module: str) -> None:
    upwards = {name for name in imports(module) if layer(name) > layer(module)}
    assert not upwards, f"{module} imports {', '.join(upwards)} from above"


def test_imports_form_no_circle() -> None:
    TopologicalSorter({module: imports(module) for module in PATHS}).prepare()


@pytest.mark.parametrize("module", PATHS)
def test_modules_are_short(module: str) -> None:
    lines = PATHS[module].read_text(encoding="utf-8").count("\n")
    assert lines <= LONGEST, f"{module} has {lines} lines"


@pytest.mark.parametrize("module", [name for name in PATHS if not name.startswith("exporter.cli")])
def test_only_the_command_line_prints(module: str) -> None:
    calls = [node for node in ast.walk(TREES[module]) if isinstance(node, ast.Call)]
    printed = [call.lineno for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"]
    assert not printed, f"{module} prints in lines {printed}"


@pytest.mark.parametrize(
    "module", [name for name in PATHS if not re.match(r"exporter\.(servers|simulator)\b", name)]
)
def test_names_of_the_wire_stay_with_the_servers(module: str) -> None:
    words = set()
    for node in ast.walk(TREES[module]):
        for field in ("id", "attr", "arg", "name", "value"):
            word = getattr(node, field, None)
            words |= {word} if isinstance(word, str) else set()
    assert not words & WIRE_NAMES, f"{module} uses {', '.join(words & WIRE_NAMES)}"


def test_the_rules_see_what_they_forbid() -> None:
    assert layer("exporter.model") < layer("exporter.config") < layer("exporter.http")
    assert "exporter.model" in imports("exporter.metrics") | imports("exporter.config")
    with pytest.raises(AssertionError, match="no place"):
        layer("exporter.helpers")
