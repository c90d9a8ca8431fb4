"""A watch on a simulated Woodpecker: pipelines that are seen for a moment, and numbers given out again."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from rig import Rig, build, rig

HELLO = "octo/hello"


@pytest.fixture
def ci(tmp_path: Path) -> Iterator[Rig]:
    with rig("woodpecker", tmp_path) as made:
        build(made)
        made.settle()
        yield made


def ends(ci: Rig) -> dict[str, float]:
    ci.good_poll(1)
    ci.good_poll(150)
    return {of["status"]: value for of, value in ci.family("ci_builds_total") if value}


@pytest.mark.parametrize("seen", [True, False])
@pytest.mark.parametrize("again", [True, False])
def test_a_number_that_is_given_out_again_is_another_run(
    ci: Rig, seen: bool, again: bool, caplog: pytest.LogCaptureFixture
) -> None:
    number = ci.world.filtered_push(HELLO, seconds=10)
    if seen:
        ci.good_poll(5)
        assert ci.value("ci_builds_pending", repo=HELLO) == 1
    ci.clock.advance(11)
    if not again:
        ci.good_poll()
        assert ci.value("ci_builds_pending", repo=HELLO) == 0, "it is not there any more"
    assert build(ci, "failure") == number
    assert ends(ci) == {"failure": 1}
    build(ci)
    ci.restart()
    assert ends(ci) == {"failure": 1, "success": 1}
    assert ci.query("SELECT number, generation, state FROM builds") == [(n, 0, 2) for n in (1, 2, 3)]
    assert ci.value("ci_builds_missing") == 0
    assert ci.query("SELECT count(*) FROM gaps") == [(0,)]
    assert "numbers begin again" not in caplog.text


def test_the_number_of_a_build_that_was_removed_is_given_out_again(
    ci: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    """Both ended, so both count."""
    number = build(ci)
    assert ends(ci) == {"success": 1}
    ci.world.vanish(HELLO, number, reuse=True)
    ci.good_poll()
    assert build(ci, "failure") == number
    assert ends(ci) == {"success": 1, "failure": 1}
    assert ci.value("ci_last_build_status", repo=HELLO, branch="main", event="push") == 2
    ci.restart()
    ci.good_poll(601)
    assert ends(ci) == {"success": 1, "failure": 1}
    assert "numbers begin again" not in caplog.text


@pytest.mark.parametrize("down", [False, True])
@pytest.mark.parametrize("builds", [1, 3])
def test_a_repo_that_is_removed_and_added_again_is_another_one(ci: Rig, builds: int, down: bool) -> None:
    """Its builds have the old numbers, and higher ids than those had."""
    build(ci)
    ci.world.start_build(HELLO, running=True)
    assert ends(ci) == {"success": 1}
    if down:
        ci.close()
    ci.world.delete_repo(HELLO)
    ci.world.add_repo("octo/other")
    ci.world.add_repo(HELLO, default_branch="main")
    ci.clock.advance(60)
    for _ in range(builds):
        build(ci, "failure")
    if down:
        ci.open()
    ci.good_poll(15)
    assert ci.value("ci_last_build_status", repo=HELLO, branch="main", event="push") == 2
    assert ci.value("ci_last_build_number", repo=HELLO, branch="main", event="push") == builds
    assert ci.value("ci_builds_running", repo=HELLO) == 0
    ci.restart()
    ci.good_poll(601)
    assert ends(ci) == {"success": 1, "failure": builds}
    build(ci)
    assert ends(ci) == {"success": 2, "failure": builds}
    assert ci.value("ci_last_build_status", repo=HELLO, branch="main", event="push") == 1
    assert ci.value("ci_builds_missing") == 0


def test_a_repo_whose_ids_changed_alone_is_the_same(ci: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """Its builds are still there: the server's database was moved."""
    build(ci)
    assert ends(ci) == {"success": 1}
    place = ci.world.repos[HELLO]
    with ci.world.moment():
        del ci.world.by_id[place.id]
        place.id = 77
        ci.world.by_id[77] = place
        ci.world.touch(place)
    build(ci, "failure")
    ci.good_poll(601)
    assert ends(ci) == {"success": 1, "failure": 1}
    assert ci.query("SELECT uid, generation FROM repos") == [("77", 0)]
    assert "numbers begin again" not in caplog.text


def test_a_repo_of_which_the_server_does_not_tell_is_asked_about_again(ci: Rig) -> None:
    build(ci)
    ci.good_poll()
    ci.world.delete_repo(HELLO)
    ci.world.add_repo("octo/other")
    ci.world.add_repo(HELLO, default_branch="main")
    for _ in range(3):
        build(ci, "failure")
    ci.world.faults.add("status", r"pipelines/\d+$", times=1, status=502)
    ci.good_poll(601)
    ci.good_poll(601)
    assert ends(ci) == {"success": 1, "failure": 3}
    assert ci.query("SELECT generation FROM repos WHERE name = 'octo/hello'") == [(1,)]


def test_a_cancel_is_told_from_a_time_limit(ci: Rig) -> None:
    for begun in (True, False):
        number = ci.world.start_build(HELLO, running=begun)
        ci.good_poll()
        ci.world.cancel(HELLO, number)
    number = ci.world.start_build(HELLO, running=True)
    ci.good_poll()
    ci.world.finish(HELLO, number, "timeout")
    assert ends(ci) == {"cancelled": 2, "timeout": 1}
    assert ci.value("ci_build_seconds_total", repo=HELLO, status="timeout") == 15


def test_a_build_that_waits_for_approval_and_one_that_is_declined(ci: Rig) -> None:
    for verdict in (ci.world.approve, ci.world.decline):
        number = ci.world.block(HELLO)
        ci.good_poll()
        assert ci.value("ci_builds_blocked", repo=HELLO) == 1
        verdict(HELLO, number)
        ci.good_poll()
        assert ci.value("ci_builds_blocked", repo=HELLO) == 0
    ci.world.finish(HELLO, number - 1)
    assert ends(ci) == {"success": 1, "declined": 1}
