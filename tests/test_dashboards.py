"""Every query of the dashboards, asked of three real Prometheus servers."""

import copy
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import dashboard_checks as checks
import pytest
from dashboard_checks import Answers
from dashboard_rules import NOT_CHARTED
from dashboards import Json, boards
from fortnight import pages, write_blocks
from programs import needs
from prometheus import prometheus

from exporter.metrics import METRICS

pytestmark = needs("prometheus", "promtool")
BOARDS = {board["uid"]: board for board in boards()}


@dataclass(frozen=True, slots=True)
class Servers:
    """A fortnight of one exporter, nothing at all, and the same fortnight of two exporters."""

    demo: Answers
    empty: Answers
    replicas: Answers


@pytest.fixture(scope="session")
def fortnight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """TSDBs of one exporter and of two, made once for all processes of a test run."""
    own = tmp_path_factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    with (shared / "fortnight.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made = shared / "fortnight"
        if not made.exists():
            taken = list(pages(tmp_path_factory.mktemp("exporter")))
            unfinished = tmp_path_factory.mktemp("fortnight")
            write_blocks(taken, "exporter-0:9848", unfinished / "demo")
            shutil.copytree(unfinished / "demo", unfinished / "replicas")
            write_blocks(taken, "exporter-1:9848", unfinished / "replicas")
            unfinished.rename(made)
    return made


@pytest.fixture(scope="module")
def servers(fortnight: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    with ExitStack() as stack:
        started = []
        for name in ("demo", "empty", "replicas"):
            directory = tmp_path_factory.mktemp(name)
            if name != "empty":
                shutil.copytree(fortnight / name, directory / "tsdb")
            keep = "--storage.tsdb.retention.time=20y"
            started.append(Answers(stack.enter_context(prometheus(directory, "", keep))))
        yield Servers(*started)


@pytest.fixture(params=BOARDS)
def board(request: pytest.FixtureRequest) -> Json:
    return BOARDS[request.param]


def test_every_selector_matches_a_series(board: Json, servers: Servers) -> None:
    assert list(checks.selectors_match(board, servers.demo)) == []


def test_every_query_answers_a_number(board: Json, servers: Servers) -> None:
    assert list(checks.numbers_come(board, servers.demo)) == []


def test_every_single_choice_works(board: Json, servers: Servers) -> None:
    assert list(checks.every_choice_works(board, servers.demo)) == []


def test_no_graph_is_crowded(board: Json, servers: Servers) -> None:
    assert list(checks.graphs_are_not_crowded(board, servers.demo)) == []


def test_nothing_fails_where_there_is_no_data(board: Json, servers: Servers) -> None:
    assert list(checks.nothing_fails(board, servers.empty)) == []


def test_two_replicas_show_what_one_shows(board: Json, servers: Servers) -> None:
    assert list(checks.nothing_fails(board, servers.replicas)) == []
    assert list(checks.replicas_are_one(board, servers.demo, servers.replicas)) == []


def test_every_family_has_samples(servers: Servers) -> None:
    """Else a check that a dashboard passes would say little."""
    shown = {series["__name__"] for series in servers.demo.series('{__name__=~"ci_.+"}')}
    parts = ("", "_bucket")
    missing = [name for name in METRICS if not any(name + part in shown for part in parts)]
    assert missing == list(NOT_CHARTED)


# The faults that the checks are for


def planted(uid: str, title: str, expr: str) -> Json:
    """A dashboard in which one panel asks something else."""
    board = copy.deepcopy(BOARDS[uid])
    (panel,) = (panel for panel in board["panels"] if panel["title"] == title)
    panel["targets"][0]["expr"] = expr
    return board


def test_a_typo_is_found(servers: Servers) -> None:
    board = planted("ci-queue", "Running", 'sum(ci_steps_total{status="succeeded"})')
    (fault,) = checks.selectors_match(board, servers.demo)
    assert fault == 'ci-queue: Running: nothing matches ci_steps_total{status="succeeded"}'


def test_a_typo_hidden_behind_a_zero_is_found(servers: Servers) -> None:
    board = planted("ci-queue", "Running", "sum(ci_builds_runing) or vector(0)")
    assert list(checks.numbers_come(board, servers.demo)) == []
    assert len(list(checks.selectors_match(board, servers.demo))) == 1


@pytest.mark.parametrize(
    "expr", ["max(ci_builds_running) > 1000", "max(ci_server_up) / 0", "max(ci_server_up"]
)
def test_a_query_without_a_number_is_found(expr: str, servers: Servers) -> None:
    board = planted("ci-queue", "Running", expr)
    assert len(list(checks.numbers_come(board, servers.demo))) == 1


def test_a_variable_without_values_is_found(servers: Servers) -> None:
    board = copy.deepcopy(BOARDS["ci-queue"])
    board["templating"]["list"][1]["query"]["query"] = 'label_values(ci_server_up{server="none"}, server)'
    assert list(checks.numbers_come(board, servers.demo)) == ["ci-queue: variable server has no values"]


def test_what_fails_for_a_single_choice_is_found(servers: Servers) -> None:
    unchosen = 'ci_builds_running{repo=~"$repo", repo="shop/checkout"}'
    two = f"(max by (server) (ci_server_up) unless on () {unchosen})"
    board = planted("ci-queue", "Running", f"sum(ci_builds_running) or sum(ci_builds_running) + on () {two}")
    assert list(checks.numbers_come(board, servers.demo)) == []
    found = list(checks.every_choice_works(board, servers.demo))
    assert len(found) == 3
    assert all("found duplicate series" in fault for fault in found)


def test_a_crowded_graph_is_found(servers: Servers) -> None:
    """Every point has ten series, but not the same."""
    expr = "topk(10, sum by (repo, step) (rate(ci_step_duration_seconds_sum[$__rate_interval])))"
    board = planted("ci-steps", "Duration", expr)
    (fault,) = checks.graphs_are_not_crowded(board, servers.demo)
    assert "ci-steps: Duration: " in fault


def test_what_fails_without_data_is_found(servers: Servers) -> None:
    board = planted("ci-queue", "Running", "sum(ci_builds_running) +")
    assert len(list(checks.nothing_fails(board, servers.empty))) == 1


def test_what_fails_for_two_replicas_is_found(servers: Servers) -> None:
    join = "ci_builds_running * on (server, repo) group_left (build_url) ci_repo_info"
    board = planted("ci-queue", "Running", f"sum({join})")
    assert list(checks.nothing_fails(board, servers.demo)) == []
    assert len(list(checks.nothing_fails(board, servers.replicas))) == 1


def test_a_number_that_doubles_with_a_replica_is_found(servers: Servers) -> None:
    board = planted("ci-queue", "Running", "sum(ci_builds_running)")
    found = list(checks.replicas_are_one(board, servers.demo, servers.replicas))
    assert found == ["ci-queue: Running: other numbers from two replicas"]
