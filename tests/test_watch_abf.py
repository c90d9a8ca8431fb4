"""A watch on a simulated ABF: no list of repos, numbers of the whole server, publishing after the end."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rig import DAY, START, Rig, build, rig

from exporter.cli.check import look
from exporter.simulator import Clock, World

HELLO = "import/hello"
BRANCH = "rosa2023.1/main/x86_64"
LABELS = {"repo": HELLO, "branch": BRANCH, "event": "manual"}


def world(**about: object) -> World:
    made = World("abf", clock=Clock(START), seed=1, default_branch=BRANCH)
    made.add_repo(HELLO, **about)
    return made


@pytest.fixture
def ci(tmp_path: Path) -> Iterator[Rig]:
    with rig("abf", tmp_path, world()) as made:
        yield made


@pytest.fixture
def met(ci: Rig) -> Rig:
    """One that has met its repo, and counted a good build of it."""
    ci.good_poll()
    hello(ci)
    ci.good_poll()
    assert ends(ci) == {"success": 1}
    return ci


def hello(ci: Rig, outcome: str = "success", **about: Any) -> int:
    return build(ci, outcome, HELLO, **about)


def started(ci: Rig, **about: Any) -> int:
    """A build that runs, and was seen to."""
    number: int = ci.world.start_build(HELLO, **about)
    ci.good_poll()
    ci.world.run(HELLO, number)
    ci.good_poll()
    return number


def ends(ci: Rig) -> dict[str, float]:
    """How many ended, by status, over all repos and branches; after a while in which all can be seen."""
    ci.good_poll(61)
    ci.good_poll(150)
    found: dict[str, float] = {}
    for labels, value in ci.family("ci_builds_total"):
        if value:
            found[labels["status"]] = found.get(labels["status"], 0) + value
    return found


def steps(ci: Rig) -> dict[tuple[str, str], float]:
    """How many steps ended, by name and status."""
    return {(of["step"], of["status"]): value for of, value in ci.family("ci_steps_total") if value}


def shown(ci: Rig) -> int:
    """Requests for a single build list."""
    return ci.running.requests["GET", "/api/v1/build_lists/{}"]


# From first contact on


def test_a_build_is_followed_from_pending_to_its_end(met: Rig) -> None:
    number = met.world.start_build(HELLO)
    met.good_poll()
    assert met.value("ci_builds_pending", repo=HELLO) == 1
    met.clock.advance(7)
    met.world.run(HELLO, number)
    met.good_poll()
    assert met.value("ci_builds_running", repo=HELLO) == 1
    met.clock.advance(20)
    met.world.finish(HELLO, number, "failure")
    met.good_poll()
    assert met.value("ci_builds_running", repo=HELLO) == 0
    assert met.value("ci_builds_total", **LABELS, status="failure") == 1
    assert met.value("ci_last_build_status", **LABELS) == 2
    assert met.value("ci_last_build_number", **LABELS) == number
    assert met.value("ci_build_seconds_total", repo=HELLO, status="failure") == 35
    assert met.value("ci_build_queue_seconds_sum", repo=HELLO) == 5 + 22
    assert steps(met) == {("build", "success"): 1, ("tests", "success"): 1, ("build", "failure"): 1}


def test_a_repo_that_is_met_is_imported_and_counts_from_first_contact(tmp_path: Path) -> None:
    with rig("abf", tmp_path, world(builds=45, days=30)) as ci:
        old = ci.world.start_build(HELLO, running=True)
        ci.settle()
        assert ci.query("SELECT count(*) FROM builds") == [(46,)], "a repo with an open build is met at once"
        assert ends(ci) == {}
        assert ci.value("ci_last_build_status", **LABELS) is not None
        ci.world.finish(HELLO, old, "failure")
        assert ends(ci) == {"failure": 1}
        ci.world.add_repo("import/old", builds=30, days=300)
        ci.good_poll()
        assert ci.query("SELECT count(*) FROM repos") == [(1,)], "nothing tells of it"
        build(ci, repo="import/old")
        ci.settle()
        assert ends(ci) == {"failure": 1, "success": 1}
        read = ci.query(
            "SELECT count(*) FROM builds JOIN repos ON repos.id = repo_id WHERE name = 'import/old'"
        )
        recent = sum(
            b.created > ci.clock.now() - 90 * DAY for r, b in ci.world.runs(history=True) if r == "import/old"
        )
        assert read == [(recent,)]
        ci.restart()
        assert ends(ci) == {"failure": 1, "success": 1}


def test_an_import_that_was_cut_off_asks_again_for_what_is_not_recorded_alone(tmp_path: Path) -> None:
    with rig("abf", tmp_path, world(builds=100, days=30), import_rate=1.0) as ci:
        ci.world.start_build(HELLO, running=True)
        ci.good_poll()
        before = ci.query("SELECT count(*) FROM builds")[0][0]
        assert 1 < before < 100
        ci.restart()
        ci.options["import_rate"] = 0.0
        ci.restart()
        ci.running.requests.clear()
        ci.settle()
        assert ci.query("SELECT count(*) FROM builds") == [(101,)]
        assert shown(ci) <= 101 - before + 2
        assert ends(ci) == {}


def test_an_import_that_was_cut_off_knows_the_project(tmp_path: Path) -> None:
    """A search by a part of its name could find all that a server has."""
    with rig("abf", tmp_path, world(builds=60, days=5), import_rate=0.1) as ci:
        ci.world.add_repo("import/hello-world", builds=500, days=5)
        number = ci.world.start_build(HELLO, running=True)
        ci.good_poll()
        ci.world.finish(HELLO, number)
        ci.good_poll()
        ci.clock.advance(200)  # so that no window has it any more
        ci.world.add_repo("import/other")
        build(ci, repo="import/other")
        ci.good_poll()
        ci.restart()
        ci.running.requests.clear()
        ci.good_poll(3600)
        lists = ci.running.requests["GET", "/api/v1/build_lists"]
        assert ci.running.requests["GET", "/api/v1/projects/{}/build_lists"] > 0, "history was read"
        assert lists <= 3, "the feed, what was lost, and what is open"


def test_what_ends_while_the_exporter_is_down_counts_once(met: Rig) -> None:
    number = started(met)
    met.close()
    met.world.finish(HELLO, number, "failure")
    for _ in range(130):
        hello(met, seconds=1)
    met.world.add_repo("import/new")
    build(met, repo="import/new")
    met.clock.advance(3600)
    met.open()
    met.good_poll()
    expected = {"failure": 1, "success": 132}
    assert ends(met) == expected
    assert (
        met.value("ci_builds_total", repo="import/new", branch=BRANCH, event="manual", status="success") == 1
    )
    met.restart()
    assert ends(met) == expected


def test_a_kill_before_the_cursor_was_stored_loses_nothing(met: Rig) -> None:
    hello(met, "failure")
    met.world.faults.add("status", "filter%5Bid|filter%5Bstatus|user", status=500)
    met.poll()  # the feed is recorded, and the look fails later
    met.restart()
    met.world.faults.clear()
    hello(met, "cancelled")
    assert ends(met) == {"success": 1, "failure": 1, "cancelled": 1}


def test_a_server_that_is_down_for_a_while_and_a_token_that_is_revoked(met: Rig) -> None:
    number = started(met)
    user = met.world.users[met.world.token]
    for reason in ("status", "auth"):
        if reason == "status":
            met.world.faults.add("status", "")
        else:
            met.world.revoke(met.world.token)
        for _ in range(4):
            met.poll(300)
        assert met.value("ci_server_up") == 0
        assert met.value("ci_server_poll_failures_total", reason=reason)
        assert met.value("ci_builds_running", repo=HELLO) is None, "what is not known is not shown"
        met.world.faults.clear()
        met.world.users[met.world.token] = user
        met.poll(600)
        assert met.value("ci_builds_running", repo=HELLO) == 1
    met.world.finish(HELLO, number)
    hello(met, "failure")
    met.poll(600)
    assert ends(met) == {"success": 2, "failure": 1}


@pytest.mark.parametrize("restart", [False, True])
def test_new_projects_count_although_the_server_failed_before_all_were_read(met: Rig, restart: bool) -> None:
    numbers = []
    for i in range(20):
        met.world.add_repo(f"import/new{i}")
        numbers.append(build(met, repo=f"import/new{i}", seconds=1))
    later = "|".join(map(str, numbers[8:]))
    met.world.faults.add("status", f"build_lists/({later}).json", status=503, times=1)
    met.good_poll()
    if restart:
        met.restart()
    met.good_poll()
    assert ends(met) == {"success": 21}


@pytest.mark.parametrize("status", [500, 404])
def test_a_restart_forgets_no_build_that_could_not_be_read_yet(met: Rig, status: int) -> None:
    met.good_poll(120)
    number = hello(met, "failure")
    met.world.faults.add("status", f"build_lists/{number}.json", status=status)
    for _ in range(3):
        met.clock.advance(60)
        hello(met, seconds=1)
        met.good_poll()
    met.world.faults.clear()
    met.restart()
    assert ends(met) == {"success": 4, "failure": 1}


def test_a_build_that_can_never_be_read_holds_nothing_up(met: Rig) -> None:
    """The window begins where it began when that was first asked for, and moves on once it is given up."""
    met.good_poll(120)
    for _ in range(25):
        number = hello(met, seconds=1)
        met.world.faults.add("status", f"build_lists/{number}.json", status=500)
        hello(met, seconds=1)
        met.clock.advance(60)
        met.good_poll()
    before = shown(met)
    met.good_poll()
    assert shown(met) - before <= 10, "each is tried ten times"
    (cursor,) = met.query("SELECT cursor FROM servers")[0]
    assert all(met.clock.now() - int(at) < 11 * 90 + 120 for at in str(cursor).split(".")[:2])
    met.world.faults.clear()
    assert ends(met)["success"] > 26


def test_an_end_that_is_refused_for_a_moment_is_no_cancel(met: Rig) -> None:
    number = started(met)
    met.close()
    met.world.finish(HELLO, number)
    met.clock.advance(600)
    met.world.faults.add("not_found", f"build_lists/{number}.json", times=2)
    met.open()
    met.good_poll()
    assert ends(met) == {"success": 2}


# What ends mean


def test_publishing_changes_no_result_and_is_a_step(met: Rig) -> None:
    number = started(met)
    met.world.finish(HELLO, number)
    met.good_poll()
    before = steps(met)
    met.world.publish(HELLO, number)
    assert ends(met) == {"success": 2}
    assert steps(met) == before, "it goes on"
    met.restart()
    met.clock.advance(9)
    met.world.published(HELLO, number, failed=True)
    assert ends(met) == {"success": 2}
    assert steps(met) == before | {("publish", "error"): 1}
    assert met.value("ci_last_build_status", **LABELS) == 1
    assert met.value("ci_step_duration_seconds_count", repo=HELLO, step="publish") == 1
    met.world.publish(HELLO, number)
    met.good_poll()
    met.world.published(HELLO, number)
    met.restart()
    assert ends(met) == {"success": 2}
    assert steps(met) == before | {("publish", "error"): 1}, "what ended once is not counted again"


def test_0_may_never_be_seen(met: Rig) -> None:
    number = started(met, publish="default")
    met.world.finish(HELLO, number)
    assert ends(met) == {"success": 2}
    met.world.published(HELLO, number)
    assert ends(met) == {"success": 2}
    assert steps(met) == {("build", "success"): 2, ("tests", "success"): 2, ("publish", "success"): 1}


def test_tests_that_fail_are_a_failure_of_that_step_although_it_is_published(met: Rig) -> None:
    number = started(met)
    met.world.finish(HELLO, number, "failure", failed="tests")
    assert ends(met) == {"success": 1, "failure": 1}
    met.world.publish(HELLO, number, ends=met.clock.now() + 20)
    assert ends(met) == {"success": 1, "failure": 1}
    assert steps(met)["tests", "failure"] == 1
    assert met.value("ci_last_build_status", **LABELS) == 2


def test_tests_that_are_run_again_are_a_run_that_tells_no_duration(met: Rig) -> None:
    number = started(met)
    met.world.finish(HELLO, number, "failure", failed="tests")
    met.good_poll()
    seconds = met.family("ci_build_seconds_total")
    met.world.rerun_tests(HELLO, number)
    met.good_poll()
    met.world.run(HELLO, number)
    met.good_poll()
    met.world.finish(HELLO, number)
    assert ends(met) == {"success": 2, "failure": 1}
    assert met.family("ci_build_seconds_total") == seconds
    assert steps(met)["build", "success"] == 2


def test_a_build_that_is_put_back_into_the_queue_is_the_same_run(met: Rig) -> None:
    for openmandriva in (False, True):
        met.world.openmandriva = openmandriva
        number = started(met)
        met.world.requeue(HELLO, number)
        met.good_poll(61)
        assert met.value("ci_builds_pending", repo=HELLO) == 1
        met.world.run(HELLO, number)
        met.good_poll()
        met.world.finish(HELLO, number)
        met.good_poll()
        assert met.query(f"SELECT count(*), max(wait) FROM builds WHERE number = {number}") == [(1, None)]
    assert ends(met) == {"success": 3}


def test_a_restart_is_a_run_of_its_own(met: Rig) -> None:
    number = hello(met, "failure", commit="c" * 40)
    met.good_poll()
    met.world.restart(HELLO, number)
    met.good_poll()
    met.world.run(HELLO, number)
    met.good_poll()
    met.world.finish(HELLO, number)
    assert ends(met) == {"success": 2, "failure": 1}
    assert met.value("ci_build_restarts_total", repo=HELLO) == 1
    assert met.value("ci_build_flaky_total", repo=HELLO, branch=BRANCH) == 1


def test_a_cancel_that_no_worker_takes_ends_when_the_build_list_is_deleted(met: Rig) -> None:
    number = met.world.start_build(HELLO)
    met.good_poll()
    met.world.cancel(HELLO, number)
    met.good_poll(61)
    assert met.value("ci_builds_running", repo=HELLO) == 1, "it is being cancelled"
    met.restart()
    met.good_poll(1800)
    assert ends(met) == {"success": 1}
    met.good_poll(1800)
    assert ends(met) == {"success": 1, "cancelled": 1}
    number = started(met)
    met.world.cancel(HELLO, number)
    assert ends(met) == {"success": 1, "cancelled": 2}


def test_a_build_that_is_removed_while_it_runs_is_gone(met: Rig) -> None:
    number = started(met)
    met.world.remove_build(HELLO, number)
    met.good_poll(61)
    assert met.value("ci_builds_running", repo=HELLO) == 0
    assert met.query("SELECT count(*) FROM builds WHERE state = 0") == [(0,)]
    met.good_poll(601)
    assert ends(met) == {"success": 1}
    assert met.value("ci_builds_missing") == 0


def test_packages_that_are_found_missing_later_change_the_gauges_alone(met: Rig) -> None:
    number = hello(met)
    assert ends(met) == {"success": 2}
    met.world.lose_packages(HELLO, number)
    met.good_poll(601)
    assert ends(met) == {"success": 2}
    assert met.value("ci_last_build_status", **LABELS) == 2


def test_an_unknown_code_is_counted_and_ends_nothing(met: Rig) -> None:
    number = started(met)
    fault = met.world.faults.add("unknown_status", f"build_lists/{number}.json")
    met.world.finish(HELLO, number)
    met.good_poll()
    assert met.value("ci_unknown_values_total", field="status")
    met.world.faults.clear()
    assert fault.struck
    met.world.touch_build(HELLO, number)
    assert ends(met) == {"success": 2}


def test_an_unknown_code_hides_no_restart(met: Rig) -> None:
    number = hello(met)
    assert ends(met) == {"success": 2}
    met.world.faults.add("unknown_status", "build_lists")
    met.world.touch_build(HELLO, number)
    met.good_poll()
    assert met.value("ci_unknown_values_total", field="status")
    assert ends(met) == {"success": 2}
    assert met.value("ci_last_build_status", **LABELS) == 1, "it ended, whatever became of it then"
    met.world.faults.clear()
    met.world.restart(HELLO, number)
    met.good_poll()
    met.world.run(HELLO, number)
    met.good_poll()
    met.world.finish(HELLO, number, "failure")
    assert ends(met) == {"success": 2, "failure": 1}


# Repos


def test_no_repo_is_gone_because_nothing_tells_of_it(met: Rig) -> None:
    met.restart()
    for _ in range(5):
        met.good_poll(601)
    assert met.query("SELECT gone, missed_sweeps FROM repos") == [(0, 0)]
    assert met.value("ci_last_build_status", **LABELS) == 1


def test_a_repo_that_is_deleted_loses_what_is_open_and_keeps_what_it_counted(met: Rig) -> None:
    started(met)
    met.world.drop_repo(HELLO)
    met.good_poll(61)
    assert met.value("ci_builds_running", repo=HELLO) == 0
    assert ends(met) == {"success": 1}


def test_a_repo_that_was_left_out_for_a_while_reads_as_history_what_it_missed(met: Rig) -> None:
    met.options["repos"] = {"exclude": [HELLO]}
    met.restart()
    met.good_poll()
    hello(met, "failure")
    assert ends(met) == {}
    met.options["repos"] = {}
    met.restart()
    met.settle()
    assert ends(met) == {"success": 1}
    assert met.value("ci_last_build_status", **LABELS) == 2
    hello(met)
    assert ends(met) == {"success": 2}


def test_a_project_that_is_renamed_goes_on_under_its_new_name(met: Rig) -> None:
    met.world.rename_repos({HELLO: "import/hallo"})
    build(met, "failure", "import/hallo")
    assert ends(met) == {"success": 1, "failure": 1}
    assert met.query("SELECT name FROM repos") == [("import/hallo",)]


def test_a_server_replaced_by_an_empty_one_loses_nothing(met: Rig, caplog: pytest.LogCaptureFixture) -> None:
    started(met)
    met.world.replace_by_empty()
    met.good_poll(61)
    assert met.value("ci_builds_running", repo=HELLO) == 0
    for _ in range(4):
        hello(met, "failure")
    assert ends(met) == {"success": 1, "failure": 4}
    assert "numbers begin again" in caplog.text


def test_builds_count_although_the_servers_clock_was_set_back(met: Rig) -> None:
    ours, ahead = met.clock.now, 5 * 3600
    met.ours = lambda: ours() - ahead
    met.restart()
    met.good_poll()
    met.clock.advance(-ahead)
    met.ours = ours
    met.restart()
    met.good_poll(601)
    hello(met)
    assert ends(met) == {"success": 2}


# What it costs


def test_a_quiet_server_is_asked_once_a_look_and_each_change_costs_one_more(tmp_path: Path) -> None:
    with rig("abf", tmp_path, world(builds=200)) as ci:
        ci.world.add_repos([f"import/r{i}" for i in range(50)], builds=3)
        started(ci)
        ci.settle()
        ci.good_poll(601)
        ci.running.requests.clear()
        for _ in range(39):
            ci.good_poll()
        quiet = ci.running.requests.total()
        assert quiet == 39 + 9, "the feed, and what is open once a minute"
        for _ in range(2):
            for i in range(30):
                build(ci, repo=f"import/r{i}", seconds=1)
            ci.running.requests.clear()
            ci.good_poll()
        assert shown(ci) == 30


def test_a_limit_of_requests_slows_the_watch_down_before_it_is_hit(tmp_path: Path) -> None:
    busy = world()
    busy.openmandriva, busy.hourly_limit = True, 200
    with rig("abf", tmp_path, busy) as ci:
        until = ci.clock.now() + 3 * 3600
        count = 0
        ci.good_poll()
        while ci.clock.now() < until:
            count += 1
            hello(ci, seconds=20)
            ci.poll()
            assert ci.watch.fault == ""
        assert all(spent <= busy.hourly_limit for spent in busy.spent.values())
        assert ends(ci)["success"] == count


def test_check_finds_nothing_wrong_where_no_repo_was_met_yet(ci: Rig) -> None:
    report = look(ci.settings, ci.telemetry)
    assert (report.bad, report.repos) == ([], "0 of 0 met")
    ci.world.start_build(HELLO)
    report = look(ci.settings, ci.telemetry)
    assert (report.bad, report.repos) == ([], "1 of 1 met")
    assert any("no list of repos" in note for note in report.notes)
