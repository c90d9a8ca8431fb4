"""A watch on a simulated server of each dialect: every build once, whatever happens."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from rig import DAY, Rig, build, rig

DIALECTS = ("drone-0.5", "drone-0.8", "drone-1", "woodpecker")
HELLO = "octo/hello"


@pytest.fixture(params=DIALECTS)
def ci(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rig]:
    with rig(request.param, tmp_path) as made:
        yield made


@pytest.fixture
def old(tmp_path: Path) -> Iterator[Rig]:
    """Drone 0.5."""
    with rig("drone-0.5", tmp_path) as made:
        yield made


@pytest.fixture
def new(tmp_path: Path) -> Iterator[Rig]:
    """Drone 1.x."""
    with rig("drone-1", tmp_path) as made:
        yield made


def ends(ci: Rig) -> dict[str, float]:
    """How many ended, by status, over all repos, branches and events."""
    ci.good_poll(1)
    ci.good_poll(150)
    found: dict[str, float] = {}
    for labels, value in ci.family("ci_builds_total"):
        if value:
            found[labels["status"]] = found.get(labels["status"], 0) + value
    return found


# From pending to the end


def test_a_build_is_followed_from_pending_to_its_end(ci: Rig) -> None:
    ci.good_poll()
    assert ci.value("ci_builds_pending", repo=HELLO) == 0
    number = ci.world.start_build(HELLO)
    ci.good_poll()
    assert ci.value("ci_builds_pending", repo=HELLO) == 1
    assert ci.counted(HELLO, "failure") == 0, "the series is there before the build ends"
    ci.world.run(HELLO, number)
    ci.good_poll()
    assert ci.value("ci_builds_running", repo=HELLO) == 1
    ci.world.finish(HELLO, number, "failure")
    ci.good_poll(150)
    assert ci.value("ci_builds_running", repo=HELLO) == 0
    assert ci.counted(HELLO, "failure") == 1
    branch = {"repo": HELLO, "branch": "main", "event": "push"}
    assert ci.value("ci_last_build_status", **branch) == 2
    assert ci.value("ci_last_build_number", **branch) == number
    assert ci.value("ci_consecutive_failures", **branch) == 1


def test_a_short_build_between_two_polls_counts_and_its_series_is_born_at_0(ci: Rig) -> None:
    ci.good_poll()
    build(ci)
    ci.good_poll()
    assert ci.counted(HELLO, "success") == 0
    ci.good_poll(130)
    assert ci.counted(HELLO, "success") == 1
    assert ci.value("ci_build_queue_seconds_sum", repo=HELLO) == 5


def test_history_moves_no_counter_and_feeds_the_gauges(ci: Rig) -> None:
    for outcome in ("failure", "success", "success", "success", "failure", "failure"):
        build(ci, outcome)
    ci.settle()
    assert ends(ci) == {}
    branch = {"repo": HELLO, "branch": "main", "event": "push"}
    assert ci.value("ci_consecutive_failures", **branch) == 2
    assert ci.value("ci_build_expected_duration_seconds", **branch) == 30
    build(ci)
    assert ends(ci) == {"success": 1}
    assert ci.value("ci_consecutive_failures", **branch) == 0


def test_a_build_that_was_open_at_first_contact_counts(ci: Rig) -> None:
    number = ci.world.start_build(HELLO, running=True)
    build(ci)
    ci.settle()
    ci.world.finish(HELLO, number, "failure")
    assert ends(ci) == {"failure": 1}


def test_open_builds_that_the_feed_does_not_show_are_known_from_the_first_look(ci: Rig) -> None:
    """An admin's list has them; anybody else finds them with the import."""
    old = ci.world.start_build(HELLO, running=True)
    ci.world.add_repo("octo/busy", default_branch="main")
    for _ in range(55):
        ci.world.start_build("octo/busy", started=ci.clock.now(), finished=ci.clock.now())
    build(ci)
    ci.clock.advance(10)
    ci.good_poll()
    assert ci.value("ci_builds_running", repo=HELLO) == 1
    ci.world.finish(HELLO, old)
    assert ends(ci) == {"success": 1}


def test_what_ends_while_the_exporter_is_down_counts_once(ci: Rig) -> None:
    ci.settle()
    number = ci.world.start_build(HELLO, running=True)
    ci.good_poll()
    ci.close()
    ci.world.finish(HELLO, number, "failure")
    for _ in range(3):
        build(ci)
    ci.clock.advance(3600)
    ci.open()
    ci.good_poll()
    assert ends(ci) == {"failure": 1, "success": 3}
    ci.restart()
    assert ends(ci) == {"failure": 1, "success": 3}


# What ends mean


def test_a_cancel_is_no_failure(ci: Rig) -> None:
    ci.settle()
    number = ci.world.start_build(HELLO, running=True)
    ci.good_poll()
    ci.world.cancel(HELLO, number)
    assert ends(ci) == {"cancelled": 1}


def test_a_time_limit_is_no_failure(ci: Rig) -> None:
    ci.settle()
    number = ci.world.start_build(HELLO, running=True)
    ci.good_poll(90)
    ci.world.finish(HELLO, number, "timeout")
    assert ends(ci) == {"timeout": 1}


@pytest.mark.parametrize("dialect", ["drone-0.5", "drone-0.8"])
def test_killed_in_history_is_read_once(dialect: str, tmp_path: Path) -> None:
    with rig(dialect, tmp_path) as ci:
        for _ in range(3):
            number = ci.world.start_build(HELLO, running=True)
            ci.clock.advance(30)
            ci.world.cancel(HELLO, number, whole=dialect == "drone-0.8", reported=False)
        ci.clock.advance(60)
        before = ci.clock.now()
        ci.good_poll()
        assert ci.clock.now() == before + 15, "no import waits"
        assert ci.query("SELECT count(*) FROM builds WHERE state = 2") == [(3,)]
        assert ci.asked("builds/{}") == 3


@pytest.mark.parametrize("dialect", ["drone-0.5", "drone-0.8"])
@pytest.mark.parametrize("reported", [True, False])
def test_killed_is_read_again_after_2_seconds(dialect: str, reported: bool, tmp_path: Path) -> None:
    with rig(dialect, tmp_path) as ci:
        ci.settle()
        number = ci.world.start_build(HELLO, running=True)
        ci.good_poll()
        ci.world.cancel(HELLO, number, whole=dialect == "drone-0.8", reported=reported)
        began = ci.clock.now()
        ci.good_poll(0.4)
        assert ci.query("SELECT status FROM builds WHERE state = 2") == [
            (2 if dialect == "drone-0.5" and not reported else 5,)
        ]
        assert 2.4 <= ci.clock.now() - began < 3
        assert ends(ci) == {"failure" if dialect == "drone-0.5" and not reported else "cancelled": 1}


def test_a_build_killed_after_24_hours_was_stopped_by_the_clean_up(new: Rig) -> None:
    new.settle()
    number = new.world.start_build(HELLO, running=True)
    new.good_poll()
    new.good_poll(DAY + 1800)
    new.world.finish(HELLO, number, "killed")
    assert ends(new) == {"timeout": 1}


@pytest.mark.parametrize("dialect", ["drone-0.8", "drone-1"])
def test_approval(dialect: str, tmp_path: Path) -> None:
    """On 1.x only the single build tells that a `pending` one is blocked."""
    with rig(dialect, tmp_path) as ci:
        ci.settle()
        first, second = ci.world.block(HELLO), ci.world.block(HELLO)
        ci.good_poll()
        assert ci.value("ci_builds_blocked", repo=HELLO) == 2
        assert ci.value("ci_builds_pending", repo=HELLO) == 0
        since = ci.value("ci_oldest_blocked_build_created_timestamp_seconds", repo=HELLO, branch="main")
        assert since == ci.clock.now() - 15
        ci.world.approve(HELLO, first)
        ci.good_poll(60)
        assert ci.value("ci_builds_blocked", repo=HELLO) == 1
        assert ci.value("ci_builds_pending", repo=HELLO) == 1
        ci.world.decline(HELLO, second)
        ci.world.run(HELLO, first)
        ci.clock.advance(20)
        ci.world.finish(HELLO, first)
        assert ends(ci) == {"success": 1, "declined": 1}
        assert ci.value("ci_builds_blocked", repo=HELLO) == 0


def test_a_pipeline_file_that_is_bad_is_an_error(ci: Rig) -> None:
    ci.settle()
    if ci.world.traits.gates:
        ci.world.start_build(HELLO, outcome="error")
    else:
        number = ci.world.start_build(HELLO, running=True)
        ci.world.finish(HELLO, number, "error")
    assert ends(ci) == {"error": 1}


def test_a_server_restart_of_0_5_ends_builds_without_a_time(old: Rig) -> None:
    old.settle()
    old.world.start_build(HELLO, running=True)
    old.world.start_build(HELLO)
    old.good_poll()
    old.world.server_restart()
    assert ends(old) == {"error": 2}
    assert old.value("ci_build_seconds_total", repo=HELLO, status="error") == 0
    seen = old.value("ci_last_build_finished_timestamp_seconds", repo=HELLO, branch="main", event="push")
    assert seen == old.clock.now() - 150, "an end without a time was when it was seen"


def test_a_build_overtaken_while_it_waited_is_skipped(new: Rig) -> None:
    new.settle()
    number = new.world.start_build(HELLO)
    new.world.finish(HELLO, number, "skipped")
    assert ends(new) == {"skipped": 1}
    assert new.value("ci_build_queue_seconds_count", repo=HELLO) == 0


# Restarts


def test_a_restart_in_place_is_a_run_of_its_own(old: Rig) -> None:
    old.settle()
    number = build(old, "failure")
    old.good_poll()
    old.world.restart(HELLO, number)
    old.good_poll()
    assert old.value("ci_builds_pending", repo=HELLO) == 1
    old.world.run(HELLO, number)
    old.good_poll()
    old.world.finish(HELLO, number)
    assert ends(old) == {"failure": 1, "success": 1}
    assert old.value("ci_build_restarts_total", repo=HELLO) == 1
    assert old.value("ci_build_flaky_total", repo=HELLO, branch="main") == 1


def test_a_restart_in_place_is_known_by_its_times_alone(old: Rig) -> None:
    """It began and ended between two polls."""
    old.settle()
    number = build(old, "failure")
    old.good_poll()
    old.world.restart(HELLO, number)
    old.world.run(HELLO, number)
    old.clock.advance(5)
    old.world.finish(HELLO, number, "failure")
    assert ends(old) == {"failure": 2}
    assert old.value("ci_build_restarts_total", repo=HELLO) == 1


def test_the_result_before_a_restart_counts_although_its_build_cannot_be_read_any_more(old: Rig) -> None:
    old.settle()
    old.world.faults.add("status", "builds/1$", times=1, status=500)
    number = build(old, "failure")
    old.good_poll()
    old.world.restart(HELLO, number)
    old.good_poll()
    old.world.run(HELLO, number)
    old.world.finish(HELLO, number)
    assert ends(old) == {"failure": 1, "success": 1}
    assert old.query("SELECT count(*) FROM builds WHERE state <> 2") == [(0,)]


def test_a_run_that_nobody_saw_end_before_it_was_restarted_is_one_run(old: Rig) -> None:
    old.settle()
    number = old.world.start_build(HELLO, running=True)
    old.good_poll()
    old.world.finish(HELLO, number, "failure")
    old.world.restart(HELLO, number)
    old.good_poll()
    assert old.value("ci_builds_running", repo=HELLO) == 0
    assert old.value("ci_builds_pending", repo=HELLO) == 1
    old.world.run(HELLO, number)
    old.clock.advance(20)
    old.world.finish(HELLO, number)
    assert ends(old) == {"success": 1}
    assert old.query("SELECT count(*) FROM builds") == [(1,)]


def push_out_of_the_feed(ci: Rig) -> None:
    ci.world.add_repo("octo/busy", default_branch="main")
    ci.good_poll(600)
    for _ in range(52):
        ci.world.start_build("octo/busy", started=ci.clock.now(), finished=ci.clock.now() + 1)
    ci.good_poll()


def test_a_restart_in_place_of_a_quiet_repos_newest_build_is_found_by_the_sweep(tmp_path: Path) -> None:
    with rig("drone-0.5", tmp_path, user={"admin": False}) as ci:
        ci.settle()
        number = build(ci, "failure")
        ci.good_poll()
        push_out_of_the_feed(ci)
        ci.world.restart(HELLO, number)
        ci.world.run(HELLO, number)
        ci.clock.advance(20)
        ci.world.finish(HELLO, number)
        ci.good_poll()
        assert ci.query("SELECT count(*) FROM builds WHERE number = 1 AND repo_id = 1") == [(1,)]
        ci.good_poll(600)
        ci.good_poll(150)
        assert ci.counted(HELLO, "success") == 1
        assert ci.counted(HELLO, "failure") == 1


def test_a_restart_in_place_of_an_old_build_is_in_the_admins_list(old: Rig) -> None:
    old.settle()
    number = build(old, "failure")
    build(old)
    old.good_poll()
    push_out_of_the_feed(old)
    old.world.restart(HELLO, number)
    old.good_poll()
    old.world.run(HELLO, number)
    old.good_poll()
    old.world.finish(HELLO, number)
    old.good_poll(150)
    assert old.counted(HELLO, "success") == 2
    assert old.counted(HELLO, "failure") == 1


def test_builds_with_several_jobs_are_read_once(old: Rig) -> None:
    """Their rows tell another start than their jobs: no reason to read them again and again."""
    from exporter.simulator import Leg, StepPlan

    old.settle()
    legs = [Leg(f"l{i}", (StepPlan("test"),), (("N", str(i)),)) for i in range(3)]
    build(old, legs=legs)
    old.good_poll()
    old.running.requests.clear()
    for _ in range(4):
        old.good_poll()
    assert old.asked("builds/{}") == 0
    assert ends(old) == {"success": 1}


def test_a_restart_elsewhere_is_a_number_of_its_own(tmp_path: Path) -> None:
    for dialect in ("drone-0.8", "drone-1"):
        place = tmp_path / dialect
        place.mkdir()
        with rig(dialect, place) as ci:
            ci.settle()
            first = build(ci, "failure")
            ci.good_poll()
            again = ci.world.restart(HELLO, first)
            assert again == first + 1
            ci.world.run(HELLO, again)
            ci.clock.advance(9)
            ci.world.finish(HELLO, again)
            assert ends(ci) == {"failure": 1, "success": 1}
            assert ci.value("ci_build_restarts_total", repo=HELLO) == 1
            assert ci.value("ci_build_flaky_total", repo=HELLO, branch="main") == 1


# Nothing is missed


@pytest.mark.parametrize("admin", [True, False])
@pytest.mark.parametrize("count", [60, 300])
def test_more_builds_than_the_feed_has_rows(ci: Rig, count: int, admin: bool) -> None:
    ci.world.set_user(admin=admin)
    repos = [f"octo/r{i}" for i in range(7)]
    for name in repos:
        ci.world.add_repo(name, default_branch="main")
    ci.settle()
    ci.world.short_builds(count, repos, over=14)
    ci.good_poll(16)
    assert ci.value("ci_builds_missing") == 0
    assert ends(ci) == {"success": count * 0.9, "failure": count / 10}
    for name in repos:
        assert ci.query(
            f"SELECT count(*) FROM builds b JOIN repos r ON r.id = b.repo_id WHERE name = '{name}'"
        )


def test_more_builds_than_the_feed_has_rows_on_a_server_that_had_none(ci: Rig) -> None:
    names = [f"octo/r{i}" for i in range(60)]
    ci.world.add_repos(names, default_branch="main")
    ci.good_poll()
    ci.good_poll()
    ci.world.short_builds(60, names, over=10)
    ci.good_poll()
    assert ends(ci) == {"success": 54, "failure": 6}


def test_beyond_the_50_that_0_5_lists_builds_are_read_one_by_one(old: Rig) -> None:
    old.settle()
    old.world.short_builds(80, [HELLO], over=10)
    old.good_poll()
    assert ends(old) == {"success": 72, "failure": 8}
    assert old.value("ci_builds_missing") == 0


def test_repos_beyond_those_that_0_5_shows_are_asked_one_by_one_in_a_sweep(old: Rig) -> None:
    """With SQLite its feed and lists hold the first 999 repos of a user: here 2."""
    for name in ("octo/b", "octo/x", "octo/y", "octo/z"):
        old.world.add_repo(name, default_branch="main")
    old.world.feed_repos = 2
    for name in ("octo/y", "octo/hello"):
        build(old, repo=name)
    old.settle()
    assert ends(old) == {}
    for name in ("octo/x", "octo/y", "octo/y", "octo/hello"):
        build(old, repo=name)
    old.good_poll(600)
    assert ends(old) == {"success": 4}
    failing = old.world.faults.add("status", "octo/x/builds")
    build(old, repo="octo/x")
    build(old, repo="octo/z")
    old.good_poll(600)
    assert ends(old) == {"success": 5}, "a repo that fails is its own matter"
    old.world.faults.off(failing)
    old.good_poll(600)
    assert ends(old) == {"success": 6}
    assert old.query("SELECT count(*) FROM repos WHERE missed_sweeps > 0") == [(0,)]


def test_a_number_without_a_build_is_gone_and_not_missing(ci: Rig) -> None:
    ci.settle()
    ci.world.short_builds(100, [HELLO], over=10)
    ci.clock.advance(12)
    for number in (3, 40, 41, 70, 100):
        ci.world.remove_build(HELLO, number)
    ci.good_poll()
    ci.good_poll()
    assert ci.value("ci_builds_missing") == 0
    assert ci.query("SELECT count(*) FROM gaps") == [(0,)]
    assert sum(ends(ci).values()) == 95


def test_a_build_that_is_removed_while_it_runs_is_gone(ci: Rig) -> None:
    ci.settle()
    number = ci.world.start_build(HELLO, running=True)
    ci.good_poll()
    ci.world.remove_build(HELLO, number)
    ci.good_poll()
    assert ci.value("ci_builds_running", repo=HELLO) == 0
    assert ci.value("ci_builds_missing") == 0
    assert ends(ci) == {}


def test_a_refused_build_is_not_gone_while_a_list_page_has_it(ci: Rig) -> None:
    """A source host that is down reads the same as a build that was removed."""
    ci.settle()
    number = ci.world.start_build(HELLO, running=True)
    ci.good_poll()
    push_out_of_the_feed(ci)
    ci.world.set_user(admin=False)
    ci.world.faults.add("not_found", f"{ci.path(HELLO)}/{number}$")
    ci.good_poll()
    assert ci.value("ci_builds_running", repo=HELLO) == 1
    ci.world.faults.add("not_found", ci.path(HELLO))
    for _ in range(5):
        ci.good_poll(60)
    assert ci.value("ci_builds_running", repo=HELLO) == 1
    ci.world.faults.clear()
    ci.world.finish(HELLO, number)
    ci.good_poll(700)
    assert ci.counted(HELLO, "success") == 1


def test_repos_that_are_not_wanted_cost_nothing(tmp_path: Path) -> None:
    with rig("drone-1", tmp_path, repos={"include": ["octo/*"], "exclude": ["*/archive-*"]}) as ci:
        for name in ("octo/archive-1", "else/where"):
            ci.world.add_repo(name, default_branch="main")
        build(ci)
        ci.settle()
        ci.running.requests.clear()
        for name in ("octo/archive-1", "else/where", HELLO):
            build(ci, repo=name)
            ci.good_poll()
        assert ci.asked("user/repos") == 0, "a repo that is not wanted is no reason to sweep"
        assert ends(ci) == {"success": 1}
        assert ci.query("SELECT name FROM repos") == [(HELLO,)]


def test_repos_that_are_switched_off_are_watched_on_request(new: Rig) -> None:
    new.world.add_repo("octo/off", active=False, default_branch="main")
    new.settle()
    assert new.value("ci_builds_running", repo="octo/off") is None
    new.options["repos"] = {"active_only": False}
    new.restart()
    new.settle()
    assert new.value("ci_builds_running", repo="octo/off") == 0
    build(new, "failure", "octo/off")
    new.good_poll(601)
    new.good_poll(150)
    assert new.counted("octo/off", "failure") == 1
    new.options["repos"] = {}
    new.restart()
    for _ in range(5):
        new.good_poll(601)
    assert new.value("ci_builds_running", repo="octo/off") is None
    assert new.counted("octo/off", "failure") == 1, "as of every repo that is not listed any more"


def test_only_some_builds_count(tmp_path: Path) -> None:
    with rig("drone-0.8", tmp_path, only={"events": ["push"], "branches": ["main", "release/*"]}) as ci:
        ci.settle()
        build(ci)
        build(ci, branch="release/1")
        build(ci, "failure", branch="develop")
        build(ci, "failure", event="tag")
        ci.running.requests.clear()
        assert ends(ci) == {"success": 2}
        assert ci.asked("builds/{}") == 2, "what does not count is not read singly"
        assert ci.query("SELECT count(*) FROM builds WHERE state = 2 AND NOT counted") == [(2,)]
        assert ci.value("ci_last_build_number", repo=HELLO, branch="develop", event="push") is None
        ci.world.start_build(HELLO, branch="develop", running=True)
        ci.good_poll()
        assert ci.value("ci_builds_running", repo=HELLO) == 0


# Repos come and go


def test_all_builds_of_a_repo_that_was_just_made_count(ci: Rig) -> None:
    ci.settle()
    ci.world.add_repo("octo/fresh", default_branch="main")
    build(ci, "failure", repo="octo/fresh")
    build(ci, repo="octo/fresh")
    ci.good_poll()
    assert ends(ci) == {"failure": 1, "success": 1}, "its first build is enough to find it"


def test_all_builds_of_a_repo_that_is_listed_late_count(tmp_path: Path) -> None:
    """0.8 lists a new repo up to 72 hours late."""
    with rig("drone-0.8", tmp_path) as ci:
        ci.settle()
        ci.good_poll(4 * DAY)
        ci.world.listing_delay = 2 * DAY
        ci.world.add_repo("octo/fresh", default_branch="main")
        for _ in range(3):
            build(ci, repo="octo/fresh")
            ci.good_poll(3600)
        assert ends(ci) == {}
        ci.good_poll(2 * DAY)
        assert ends(ci) == {"success": 3}


def test_the_history_of_an_old_repo_that_is_newly_seen_is_history(ci: Rig) -> None:
    ci.world.set_user(repos=[HELLO], admin=False)
    ci.world.add_repo("octo/old", default_branch="main")
    ci.settle()
    for _ in range(3):
        build(ci, repo="octo/old")
        ci.good_poll(1800)
    ci.good_poll(4 * DAY)
    ci.world.set_user(repos=[HELLO, "octo/old"])
    ci.settle()
    assert ends(ci) == {}
    build(ci, repo="octo/old")
    assert ends(ci) == {"success": 1}
    assert ci.value("ci_build_expected_duration_seconds", repo="octo/old", branch="main", event="push") == 30


def test_a_repo_newly_included_counts_from_then_on(ci: Rig) -> None:
    ci.options["repos"] = {"exclude": ["octo/h*"]}
    ci.restart()
    build(ci)
    ci.good_poll()
    assert ci.query("SELECT name FROM repos") == []
    ci.options["repos"] = {}
    ci.restart()
    ci.settle()
    assert ends(ci) == {}
    build(ci)
    assert ends(ci) == {"success": 1}


def test_a_repo_that_was_left_out_for_a_while_keeps_what_it_counted(ci: Rig) -> None:
    ci.settle()
    build(ci)
    assert ends(ci) == {"success": 1}
    ci.options["repos"] = {"exclude": ["octo/h*"]}
    ci.restart()
    ci.good_poll()
    assert ends(ci) == {}
    assert ci.value("ci_builds_running", repo=HELLO) is None
    build(ci, "failure")
    ci.good_poll()
    ci.options["repos"] = {}
    ci.restart()
    ci.settle()
    assert ends(ci) == {"success": 1}, "what ended meanwhile is history"
    build(ci, "failure")
    assert ends(ci) == {"success": 1, "failure": 1}


def test_a_deleted_repo_is_gone_after_three_sweeps_and_half_an_hour(
    ci: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    ci.settle()
    build(ci)
    ci.world.start_build(HELLO, running=True)
    assert ends(ci) == {"success": 1}
    ci.world.delete_repo(HELLO)
    for _ in range(3):
        ci.good_poll(601)
        assert ci.value("ci_builds_running", repo=HELLO) == 1
    ci.good_poll(601)
    assert ci.value("ci_builds_running", repo=HELLO) is None
    assert (
        ci.value(
            "ci_repo_info", repo=HELLO, build_url="https://ci.example.com/octo/hello/", default_branch="main"
        )
        is None
    )
    assert ci.counted(HELLO, "success") == 1, "counters stay"
    assert [r.getMessage() for r in caplog.records].count(
        "a repo is not listed any more: its gauges are withdrawn"
    ) == 1
    ci.running.requests.clear()
    ci.good_poll()
    assert ci.asked("{}/builds") + ci.asked("builds/{}") == 0, "nobody asks for what is gone"


def test_a_repo_that_is_listed_again_goes_on(ci: Rig) -> None:
    ci.settle()
    build(ci)
    assert ends(ci) == {"success": 1}
    ci.world.set_user(repos=[], admin=False)
    for _ in range(5):
        ci.good_poll(601)
    assert ci.value("ci_builds_running", repo=HELLO) is None
    build(ci, "failure")
    ci.world.set_user(repos=[HELLO])
    ci.good_poll(601)
    assert ci.value("ci_builds_running", repo=HELLO) == 0
    assert ends(ci) == {"success": 1, "failure": 1}


def test_a_repo_made_private_meanwhile_is_its_own_matter(ci: Rig, caplog: pytest.LogCaptureFixture) -> None:
    ci.world.add_repo("octo/other", default_branch="main")
    ci.settle()
    number = ci.world.start_build(HELLO, running=True)
    ci.good_poll()
    ci.world.make_private(HELLO)
    ci.world.set_user(admin=False, repos=["octo/other"])
    build(ci, "failure", repo="octo/other")
    for _ in range(5):
        ci.good_poll(601)
    assert ci.counted("octo/other", "failure") == 1
    assert ci.value("ci_builds_running", repo=HELLO) is None
    assert ci.query("SELECT state FROM builds WHERE repo_id = 1") == [(0,)]
    assert len([r for r in caplog.records if getattr(r, "fields", {}).get("repo") == HELLO]) == 2
    ci.world.set_user(repos=[HELLO, "octo/other"])
    ci.world.finish(HELLO, number)
    ci.good_poll(601)
    assert ends(ci) == {"failure": 1, "success": 1}


def test_a_source_host_that_is_down_takes_no_repo_and_no_build_away(ci: Rig) -> None:
    ci.world.set_user(admin=False)
    ci.settle()
    number = ci.world.start_build(HELLO, running=True)
    ci.good_poll()
    ci.world.source_host_down = True
    for _ in range(6):
        ci.poll(600)
    assert ci.query("SELECT gone FROM repos") == [(0,)]
    assert ci.query("SELECT count(*) FROM builds WHERE state = 0") == [(1,)]
    ci.world.source_host_down = False
    ci.world.finish(HELLO, number)
    ci.good_poll(600)
    assert ends(ci) == {"success": 1}


def test_a_server_replaced_by_an_empty_one_loses_nothing(ci: Rig, caplog: pytest.LogCaptureFixture) -> None:
    ci.settle()
    for _ in range(3):
        build(ci)
    number = ci.world.start_build(HELLO, running=True)
    ci.good_poll()
    assert ends(ci) == {"success": 3}
    ci.world.replace_by_empty()
    ci.good_poll()
    assert ci.value("ci_builds_running", repo=HELLO) == 0
    ci.clock.advance(60)
    build(ci, "failure")
    ci.good_poll()
    assert ends(ci) == {"success": 3, "failure": 1}
    for _ in range(number):
        build(ci)
    assert ends(ci) == {"success": 3 + number, "failure": 1}
    assert ci.query("SELECT generation, count(*) FROM builds GROUP BY 1") == [(0, 3), (1, 1 + number)]
    assert ci.value("ci_last_build_number", repo=HELLO, branch="main", event="push") == number + 1
    warnings = [r for r in caplog.records if "numbers begin again" in r.getMessage()]
    assert len(warnings) == 1
    ci.restart()
    assert ends(ci) == {"success": 3 + number, "failure": 1}


def test_a_number_given_out_again_counts_and_those_below_it_do_not_count_twice(ci: Rig) -> None:
    """Where the newest build was removed from the database of a server that counts what is there."""
    ci.settle()
    for _ in range(3):
        build(ci)
    assert ends(ci) == {"success": 3}
    ci.world.remove_build(HELLO, 3)
    ci.world.repos[HELLO].counter, ci.world.repos[HELLO].holes = 2, set()
    assert build(ci, "failure") == 3
    assert ends(ci) == {"success": 3, "failure": 1}
    build(ci)
    ci.good_poll(600)
    assert ends(ci) == {"success": 4, "failure": 1}
    assert ci.query("SELECT count(*) FROM gaps") == [(0,)]


# Time


@pytest.mark.parametrize("hours", [-5, 7])
def test_a_server_whose_clock_is_off(ci: Rig, hours: int) -> None:
    ours = ci.clock.now
    ci.ours = lambda: ours() - hours * 3600
    ci.restart()
    build(ci)
    ci.settle()
    number = ci.world.start_build(HELLO)
    ci.good_poll()
    assert ci.value("ci_server_clock_skew_seconds") == hours * 3600
    ci.world.run(HELLO, number)
    ci.clock.advance(7)
    ci.world.finish(HELLO, number)
    assert ends(ci) == {"success": 1}
    assert ci.value("ci_build_detection_seconds_count") == 1
    assert ci.value("ci_build_detection_seconds_sum") == 1
    assert ci.value("ci_builds_abandoned", repo=HELLO) == 0


def test_builds_count_although_the_servers_clock_was_set_back(ci: Rig) -> None:
    ours = ci.clock.now
    ahead = 5 * 3600
    ci.ours = lambda: ours() - ahead
    ci.restart()
    ci.settle()
    ci.clock.advance(-ahead)
    ci.ours = ours
    ci.restart()
    ci.good_poll(601)
    build(ci)
    assert ends(ci) == {"success": 1}


def test_old_open_builds_are_asked_about_less_and_less_and_abandoned(tmp_path: Path) -> None:
    with rig("drone-0.8", tmp_path, user={"admin": False}) as ci:
        ci.settle()
        number = ci.world.start_build(HELLO, running=True)
        ci.good_poll()
        push_out_of_the_feed(ci)

        def asked(age: float, looks: int, every: float) -> int:
            """How often so many looks ask for the build when it is so old."""
            ci.clock.set(began + age)
            ci.good_poll()
            ci.running.requests.clear()
            for _ in range(looks):
                ci.good_poll(every)
            return ci.asked("builds/{}")

        began = ci.clock.now()
        assert asked(3600, 10, every=15) == 10
        assert 3 <= asked(1.5 * DAY, 60, every=120) <= 5
        assert ci.value("ci_builds_running", repo=HELLO) == 1
        assert 2 <= asked(2.5 * DAY, 36, every=300) <= 3
        assert ci.value("ci_builds_running", repo=HELLO) == 0
        assert ci.value("ci_builds_abandoned", repo=HELLO) == 1
        assert (
            ci.value("ci_oldest_running_build_started_timestamp_seconds", repo=HELLO, branch="main") is None
        )
        ci.world.finish(HELLO, number, "failure")
        ci.good_poll(3700)
        assert ci.value("ci_builds_abandoned", repo=HELLO) == 0
        ci.good_poll(150)
        assert ci.counted(HELLO, "failure") == 1


@pytest.mark.parametrize("dialect", ["drone-0.8", "drone-1"])
def test_builds_that_wait_for_approval_are_asked_about_less_and_less(dialect: str, tmp_path: Path) -> None:
    with rig(dialect, tmp_path, user={"admin": False}) as ci:
        ci.settle()
        ci.world.block(HELLO)
        ci.good_poll()
        push_out_of_the_feed(ci)
        ci.running.requests.clear()
        for _ in range(40):
            ci.good_poll()
        assert 9 <= ci.asked("builds/{}") <= 11, "each minute"
        ci.good_poll(3 * DAY)
        ci.running.requests.clear()
        for _ in range(40):
            ci.good_poll(90)
        assert ci.asked("builds/{}") == 1
