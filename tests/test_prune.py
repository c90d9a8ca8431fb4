"""What is old goes, and counters of what still builds never fall."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from rig import DAY, Rig, rig

from exporter.ledger.prune import prune


@pytest.fixture
def ci(tmp_path: Path) -> Iterator[Rig]:
    with rig("drone-1", tmp_path) as made:
        yield made


def build(ci: Rig, outcome: str = "success", **about: object) -> int:
    number = ci.world.start_build("octo/hello", **about)
    ci.world.run("octo/hello", number)
    ci.clock.advance(30)
    ci.world.finish("octo/hello", number, outcome)
    return number


def pruned(ci: Rig, builds: float = 400 * DAY, names: float = 30 * DAY) -> set[int]:
    now = int(ci.clock.now())
    known = ci.watch.roster.repos.values()
    changed = prune(ci.ledger, known, builds_before=int(now - builds), names_before=int(now - names))
    ci.refresher.refresh(changed)
    return changed


def happened(ci: Rig) -> dict[str, float]:
    families = (
        "ci_builds_total",
        "ci_build_duration",
        "ci_build_seconds",
        "ci_build_queue",
        "ci_steps_total",
    )
    return {key: value for key, value in ci.samples().items() if key.startswith(families)}


def test_old_builds_and_their_steps_go_and_no_counter_falls(ci: Rig) -> None:
    ci.settle()
    first = build(ci, "failure")
    ci.good_poll()
    ci.clock.advance(399 * DAY)
    build(ci)
    ci.good_poll()
    ci.good_poll(150)
    before = happened(ci)
    assert ci.counted("octo/hello", "failure") == 1
    assert not pruned(ci)
    assert ci.query("SELECT count(*) FROM builds") == [(2,)]
    ci.clock.advance(2 * DAY)
    pruned(ci)
    assert ci.query("SELECT number FROM builds") == [(first + 1,)]
    assert ci.query("SELECT DISTINCT number FROM steps") == [(first + 1,)]
    ci.good_poll()
    assert happened(ci) == before


def test_builds_that_are_still_open_stay(ci: Rig) -> None:
    ci.settle()
    ci.world.start_build("octo/hello", running=True)
    ci.good_poll()
    ci.clock.advance(500 * DAY)
    pruned(ci)
    assert ci.query("SELECT count(*) FROM builds") == [(1,)]


def test_a_branch_without_a_build_gives_its_series_and_its_place_back(ci: Rig) -> None:
    ci.settle()
    build(ci, branch="feature/a")
    build(ci)
    ci.good_poll()
    ci.good_poll(150)
    assert ci.counted("octo/hello", "success", branch="feature/a") == 1
    ci.clock.advance(29 * DAY)
    build(ci)
    ci.good_poll()
    assert not pruned(ci)
    ci.clock.advance(2 * DAY)
    assert pruned(ci)
    ci.good_poll()
    assert not [key for key in ci.samples() if "feature/a" in key]
    assert ci.counted("octo/hello", "success") == 2, "the branch that still builds keeps its counter"
    assert ci.value("ci_steps_total", repo="octo/hello", step="test", status="success") == 3


def test_a_repo_without_a_build_keeps_the_state_of_its_main_branch_and_no_counter(ci: Rig) -> None:
    ci.settle()
    build(ci, "failure")
    ci.good_poll()
    ci.good_poll(150)
    ci.clock.advance(31 * DAY)
    pruned(ci)
    ci.good_poll()
    assert not happened(ci)
    assert ci.value("ci_last_build_status", repo="octo/hello", branch="main", event="push") == 2
    assert ci.value("ci_builds_running", repo="octo/hello") == 0
    build(ci)
    ci.good_poll()
    assert ci.counted("octo/hello", "success") == 0, "its series is born anew, at 0"
    ci.good_poll(130)
    assert ci.counted("octo/hello", "success") == 1
    assert ci.counted("octo/hello", "failure") == 0
    ci.clock.advance(401 * DAY)
    pruned(ci)
    ci.good_poll()
    assert ci.value("ci_last_build_status", repo="octo/hello", branch="main", event="push") is None
