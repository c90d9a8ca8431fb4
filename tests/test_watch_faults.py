"""What fails on a server, in a repo or in the ledger costs no build and no more requests than it must."""

import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path

import pytest
import requests
from pydantic import SecretStr
from rig import DAY, START, Rig, build, rig

from exporter.simulator import Clock, World, serve

DIALECTS = ("drone-0.5", "drone-0.8", "drone-1", "woodpecker")
HELLO = "octo/hello"
BRANCH = {"repo": HELLO, "branch": "main", "event": "push"}
FEED = r"/api/user/(feed|builds)$"


@pytest.fixture(params=DIALECTS)
def ci(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rig]:
    with rig(request.param, tmp_path) as made:
        yield made


@pytest.fixture
def new(tmp_path: Path) -> Iterator[Rig]:
    """Drone 1.x."""
    with rig("drone-1", tmp_path) as made:
        yield made


@pytest.fixture
def proxy() -> Iterator[Callable[[str], str]]:
    """Begins a proxy to an address that passes no page numbers on, and answers its own address."""
    target = ""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = re.sub(r"\bpage=\d+", "page=1", self.path)
            token = {"Authorization": self.headers.get("Authorization", "")}
            answer = requests.get(target + path, headers=token, timeout=5)
            self.send_response(answer.status_code)
            for name in ("Content-Type", "Date", "X-Drone-Version"):
                if name in answer.headers:
                    self.send_header(name, answer.headers[name])
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        def send_response(self, code: int, message: str | None = None) -> None:
            self.send_response_only(code, message)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def begin(url: str) -> str:
        nonlocal target
        target = url
        threading.Thread(target=server.serve_forever, args=(0.05,)).start()
        return f"http://127.0.0.1:{server.server_port}"

    yield begin
    server.shutdown()
    server.server_close()


def said(caplog: pytest.LogCaptureFixture, *levels: str) -> list[str]:
    levels = levels or ("ERROR", "WARNING")
    return [r.getMessage() for r in caplog.records if r.levelname in levels and r.name.startswith("exporter")]


def failures(ci: Rig, reason: str) -> float | None:
    return ci.value("ci_server_poll_failures_total", reason=reason)


def settled(ci: Rig, status: str) -> float | None:
    ci.good_poll(1)
    ci.good_poll(150)
    return ci.counted(HELLO, status)


# Of the whole server


def test_a_wrong_token_is_said_once_and_nothing_is_taken_for_success(
    ci: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    """Public repos answer anybody."""
    build(ci)
    ci.options["token"] = SecretStr("wrong")
    ci.restart()
    for _ in range(4):
        ci.poll(300)
    assert ci.value("ci_server_up") == 0
    assert failures(ci, "auth") == 4
    assert ci.query("SELECT count(*) FROM repos") == [(0,)]
    (line,) = said(caplog)
    assert line.startswith("server ci: /api/user: answered 401: the token was not accepted")
    assert "wrong" not in line


def test_a_token_that_is_revoked_and_given_back(ci: Rig, caplog: pytest.LogCaptureFixture) -> None:
    ci.settle()
    user = ci.world.users[ci.world.token]
    ci.world.revoke(ci.world.token)
    ci.poll()
    assert ci.value("ci_server_up") == 0
    assert failures(ci, "auth") == 1
    build(ci)
    ci.world.users[ci.world.token] = user
    assert settled(ci, "success") == 1
    assert ci.value("ci_server_up") == 1
    assert len(said(caplog, "ERROR")) == 1


FAULTS = {
    "bad gateway": ("status", {"status": 502}, "status"),
    "overloaded": ("status", {"status": 503}, "status"),
    "broken": ("status", {"status": 500}, "status"),
    "truncated": ("truncated", {}, "json"),
    "reset": ("reset", {}, "refused"),
    "cut": ("cut", {}, "json"),
    "login page": ("html", {}, "shape"),
    "redirect": ("redirect", {}, "status"),
    "silent": ("hang", {}, "timeout"),
    "too large": ("huge", {}, "shape"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_server_that_fails_is_left_alone_for_longer_and_longer(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kind, about, reason = FAULTS[name]
    with rig("drone-1", tmp_path, timeout=0.3 if kind == "hang" else 5.0) as ci:
        caplog.set_level("INFO")
        ci.settle()
        number = ci.world.start_build(HELLO, running=True)
        ci.good_poll()
        fault = ci.world.faults.add(kind, FEED, **about)
        tried, began = [], ci.clock.now()
        while len(tried) < 7:
            before = fault.struck
            ci.poll()
            if fault.struck > before:
                tried.append(ci.clock.now() - began)
        pauses = [later - earlier for earlier, later in pairwise(tried)]
        for turn, pause in enumerate(pauses):
            longest = min(300, 15 * 2**turn)
            assert longest / 2 <= pause <= longest + 15, "to the next poll after it"
        assert ci.value("ci_server_up") == 0
        assert failures(ci, reason) == len(tried)
        ci.world.faults.clear()
        ci.world.finish(HELLO, number)
        build(ci, "failure")
        ci.good_poll(300)
        assert ci.value("ci_server_up") == 1
        assert settled(ci, "success") == 1
        assert ci.counted(HELLO, "failure") == 1
        assert len(said(caplog, "ERROR", "WARNING")) == 1
        assert said(caplog, "INFO") == ["the server is polled again"]


def test_a_server_is_left_alone_for_as_long_as_it_asks(new: Rig) -> None:
    new.settle()
    fault = new.world.faults.add("limit", FEED, times=1, retry_after="700")
    new.poll()
    assert failures(new, "limit") == 1
    new.running.requests.clear()
    for _ in range(45):
        new.poll()
    assert new.running.requests.total() == 0
    new.good_poll(30)
    assert fault.struck == 1
    assert new.value("ci_server_up") == 1


def test_gauges_are_withdrawn_10_minutes_after_the_last_success_also_across_a_restart(ci: Rig) -> None:
    build(ci)
    ci.settle()
    ci.world.start_build(HELLO, running=True)
    build(ci)
    assert settled(ci, "success") == 1
    polled = ci.value("ci_server_last_poll_timestamp_seconds", task="watch")
    ci.world.faults.add("status", "")
    ci.poll(400)
    assert ci.value("ci_builds_running", repo=HELLO) == 1
    assert ci.value("ci_last_build_status", **BRANCH) == 1
    ci.restart()
    ci.poll(190)
    assert ci.value("ci_builds_running", repo=HELLO) == 1
    assert ci.value("ci_server_last_poll_timestamp_seconds", task="watch") == polled
    ci.poll(20)
    for family in ("ci_builds_running", "ci_last_build_status", "ci_repo_info"):
        assert ci.family(family) == []
    assert ci.counted(HELLO, "success") == 1, "counters stay"
    assert ci.value("ci_server_up") == 0
    ci.world.faults.clear()
    ci.good_poll(300)
    assert ci.value("ci_builds_running", repo=HELLO) == 1
    assert ci.value("ci_last_build_status", **BRANCH) == 1


def test_a_server_that_is_another_one_by_now_is_read_as_what_it_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As after an upgrade from Drone 0.8 to 1.x, with `dialect: auto`."""
    with rig("drone-0.8", tmp_path) as ci:
        ci.settle()
        newer = World("drone-1", clock=ci.clock, seed=2)
        newer.add_repo(HELLO, default_branch="main")
        port = ci.running.port
        ci.running.stop()
        with serve(newer, port) as ci.running:
            ci.world = newer
            ci.poll()
            build(ci)
            ci.good_poll(60)
            assert settled(ci, "success") == 1
            assert ci.value("ci_server_info", dialect="drone-1", version="1.10.1") == 1


def test_what_a_feed_overran_is_looked_for_until_that_succeeds(new: Rig) -> None:
    names = [f"octo/r{i}" for i in range(60)]
    new.world.add_repos(names, default_branch="main")
    build(new)
    new.settle()
    fault = new.world.faults.add("status", "latest=true")
    new.world.short_builds(60, names, over=10)
    new.poll()
    assert new.value("ci_server_up") == 0
    new.world.faults.off(fault)
    new.good_poll(30)
    assert new.query("SELECT count(*) FROM builds WHERE counted") == [(60,)]


def test_a_request_in_flight_ends_at_once_when_the_exporter_stops(new: Rig) -> None:
    """Also the first of all."""
    new.world.faults.add("hang", "/api/user$")
    new.options["timeout"] = 60.0
    new.restart()
    thread = threading.Thread(target=new.watch.cycle)
    thread.start()
    while not new.asked("/api/user"):
        assert thread.is_alive()
    new.watch.close()
    thread.join(5)
    assert not thread.is_alive()
    assert new.watch.fault == ""


def test_much_to_catch_up_with_keeps_no_feed_waiting(new: Rig) -> None:
    """Here each question costs a tenth of a second."""
    new.settle()
    new.world.short_builds(900, [HELLO], over=10)
    ours = new.clock.now
    new.clock.advance(12)

    def passes() -> float:
        if new.running.requests.total() > passed[0]:
            passed[0] = new.running.requests.total()
            new.clock.advance(0.1)
        return ours()

    passed = [new.running.requests.total()]
    new.ours = passes
    new.restart()
    looks = 0
    while new.query("SELECT count(*) FROM builds WHERE counted") != [(900,)]:
        looks += 1
        before = new.clock.now()
        new.good_poll(0)
        assert new.clock.now() - before < 40
    assert 3 <= looks < 10
    assert new.query("SELECT count(*) FROM gaps") == [(0,)]


# Of one repo


def test_a_single_build_that_cannot_be_had_counts_by_its_rows_own_word(
    ci: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    ci.world.add_repo("octo/other", default_branch="main")
    ci.settle()
    number = build(ci, "failure")
    fault = ci.world.faults.add("status", f"{ci.path(HELLO)}/{number}$", status=500)
    build(ci, repo="octo/other")
    ci.good_poll()
    assert ci.query("SELECT counted FROM builds WHERE state = 2") == [(1,)], "the other repo's"
    ci.good_poll()
    ci.good_poll(30)
    assert fault.struck == 3
    assert ci.query("SELECT count(*) FROM builds WHERE state = 2") == [(2,)]
    ci.good_poll(150)
    assert ci.counted(HELLO, "failure") == 1
    assert ci.value("ci_steps_total", repo=HELLO, step="test", status="failure") is None
    assert fault.struck == 3
    assert failures(ci, "status") == 3
    assert ci.value("ci_server_up") == 1
    assert len(said(caplog)) == 1
    ci.world.faults.clear()
    build(ci)
    assert settled(ci, "success") == 1
    assert said(caplog, "INFO") == ["a repo can be read again"]


def test_tries_of_a_build_that_runs_are_none_of_its_end(tmp_path: Path) -> None:
    with rig("drone-0.8", tmp_path, user={"admin": False}) as ci:
        ci.settle()
        number = ci.world.start_build(HELLO, running=True)
        ci.world.add_repo("octo/busy", default_branch="main")
        ci.good_poll(600)
        for _ in range(52):
            ci.world.start_build("octo/busy", started=ci.clock.now(), finished=ci.clock.now() + 1)
        fault = ci.world.faults.add("not_found", f"{ci.path(HELLO)}/{number}$")
        for _ in range(5):
            ci.good_poll(200)
        assert fault.struck == 5
        ci.world.cancel(HELLO, number)
        ci.good_poll(600)
        assert ci.query("SELECT state FROM builds WHERE repo_id = 1") == [(1,)], (
            "a list page said that it ended"
        )
        ci.world.faults.clear()
        ci.good_poll(600)
        assert settled(ci, "cancelled") == 1


def test_a_row_that_makes_no_sense_is_missing_until_it_can_be_read(ci: Rig) -> None:
    ci.settle()
    ci.world.short_builds(70, [HELLO], over=10)
    ci.clock.advance(12)
    in_list = ci.world.faults.add("wrong_types", rf"{ci.path(HELLO)}\?", row=15)
    number = 70 - 15
    single = ci.world.faults.add("wrong_types", f"{ci.path(HELLO)}/{number}$")
    feed = ci.world.faults.add("wrong_types", FEED, row=15)
    ci.good_poll()
    ci.good_poll()
    assert ci.value("ci_builds_missing") == 1
    assert ci.query("SELECT low, high FROM gaps") == [(number, number)]
    assert in_list.struck + feed.struck >= 1
    assert ci.value("ci_unknown_values_total", field="row") >= 1
    assert failures(ci, "shape") >= 2
    assert settled(ci, "success") + ci.counted(HELLO, "failure") == 69
    for fault in (in_list, single, feed):
        ci.world.faults.off(fault)
    ci.good_poll(600)
    assert ci.value("ci_builds_missing") == 0
    assert settled(ci, "success") + ci.counted(HELLO, "failure") == 70


def test_the_newest_build_is_known_to_exist_although_no_row_of_it_makes_sense(tmp_path: Path) -> None:
    """The server says how many numbers it gave out (0.8 and 1.x)."""
    for dialect in ("drone-0.8", "drone-1"):
        place = tmp_path / dialect
        place.mkdir()
        with rig(dialect, place) as ci:
            build(ci)
            ci.settle()
            fault = ci.world.faults.add("wrong_types", "feed|builds|latest", row=0)
            build(ci)
            ci.good_poll(600)
            assert ci.value("ci_builds_missing") == 1
            ci.world.faults.off(fault)
            ci.good_poll(600)
            assert ci.value("ci_builds_missing") == 0
            assert settled(ci, "success") == 1


def test_one_build_that_cannot_be_read_keeps_no_other_from_being_read(tmp_path: Path) -> None:
    """On 0.5 those beyond the newest 50 are read one by one."""
    with rig("drone-0.5", tmp_path) as ci:
        ci.settle()
        fault = ci.world.faults.add("wrong_types", "builds/20$")
        ci.world.short_builds(80, [HELLO], over=10)
        for _ in range(4):
            ci.good_poll(60)
        assert ci.value("ci_builds_missing") == 1
        assert settled(ci, "success") + ci.counted(HELLO, "failure") == 79
        ci.world.faults.off(fault)
        ci.good_poll(600)
        assert settled(ci, "success") + ci.counted(HELLO, "failure") == 80


def test_an_unknown_status_is_kept_and_neither_good_nor_bad(ci: Rig) -> None:
    ci.settle()
    number = build(ci, "failure")
    ci.world.faults.add("unknown_status", f"(feed|builds|builds/{number}|pipelines|pipelines/{number})$")
    ci.good_poll()
    assert ci.value("ci_unknown_values_total", field="status") >= 2
    ci.good_poll(150)
    assert ci.value("ci_builds_total", **BRANCH, status="unknown") == 1
    assert ci.value("ci_last_build_status", **BRANCH) == 0
    assert ci.value("ci_consecutive_failures", **BRANCH) == 0
    assert ci.value("ci_last_failure_timestamp_seconds", **BRANCH) is None


@pytest.mark.parametrize("value", ["future", "zero", "1999"])
def test_times_that_cannot_be_real_are_none(ci: Rig, value: str) -> None:
    ci.settle()
    ci.world.faults.add("times", "feed|builds|pipelines", row=-1, value=value)
    build(ci, "failure")
    for _ in range(3):
        ci.good_poll()
    assert ci.watch.fault == ""
    ci.world.faults.clear()
    build(ci)
    ci.good_poll()
    ci.good_poll(600)
    assert settled(ci, "success") == 1
    assert ci.value("ci_last_build_number", **BRANCH) == 2


@pytest.mark.parametrize("dialect", ["drone-0.8", "drone-1"])
def test_a_server_that_always_answers_the_same_page_is_not_asked_for_ever(
    dialect: str, tmp_path: Path, proxy: Callable[[str], str], caplog: pytest.LogCaptureFixture
) -> None:
    """As behind a proxy that drops what follows a question mark."""
    with rig(dialect, tmp_path) as ci:
        ci.settle()
        ci.world.short_builds(250, [HELLO], over=10)
        ci.options["url"] = proxy(ci.running.url)
        ci.restart()
        ci.good_poll()
        assert ci.asked("{}/builds") <= 4
        assert ci.value("ci_builds_missing") > 0
        assert "every page of its list of builds is the same" in said(caplog)[0]


def test_pages_that_are_all_the_same_are_no_endless_history(
    tmp_path: Path, proxy: Callable[[str], str], caplog: pytest.LogCaptureFixture
) -> None:
    """ABF's history has no numbers that say how many pages there are."""
    world = World("abf", clock=Clock(START), seed=1, default_branch="rosa2023.1/main/x86_64")
    world.add_repo("import/hello", builds=50, days=30)
    with rig("abf", tmp_path, world) as ci:
        ci.options["url"] = proxy(ci.running.url)
        ci.restart()
        ci.world.start_build("import/hello", running=True)
        for _ in range(5):
            ci.good_poll()
        assert 2 <= ci.asked("{}/build_lists") <= 5
        assert ci.value("ci_import_repos_remaining") == 1
        assert any("two pages of its list of builds are the same" in line for line in said(caplog))


def test_numbers_out_of_all_reason_are_noted_and_no_more(new: Rig) -> None:
    new.settle()
    new.world.repos[HELLO].counter = 2**40
    build(new)
    new.good_poll()
    assert new.query("SELECT high - low FROM gaps") == []
    assert settled(new, "success") == 1


# Of the ledger


def test_what_could_not_be_written_is_read_again(ci: Rig, caplog: pytest.LogCaptureFixture) -> None:
    ci.settle()
    with ci.ledger.transaction() as conn:
        conn.exec_driver_sql(
            "CREATE TRIGGER full BEFORE INSERT ON builds BEGIN SELECT RAISE(ABORT, 'disk full'); END"
        )
    build(ci)
    for _ in range(3):
        ci.poll()
    assert "disk full" in ci.watch.fault
    assert ci.value("ci_server_up") == 0
    assert ci.query("SELECT highest FROM repos") == [(0,)]
    with ci.ledger.transaction() as conn:
        conn.exec_driver_sql("DROP TRIGGER full")
    build(ci, "failure")
    assert settled(ci, "success") == 1
    assert ci.counted(HELLO, "failure") == 1
    assert len(said(caplog, "ERROR")) == 1


# History


def history(ci: Rig, count: int, days: float = 80) -> None:
    """A repo with so many builds over so many days."""
    ci.world.add_repo("octo/old", builds=count, days=days, default_branch="main")


def test_an_import_goes_on_where_it_was_cut_off_and_the_newest_come_first(ci: Rig) -> None:
    ci.options["import_rate"] = 0.5
    ci.restart()
    count = 80 if ci.world.dialect == "drone-0.5" else 250
    history(ci, count)
    ci.good_poll()
    left = [(count,)]
    polls = 0
    while left != [(None,)]:
        polls += 1
        assert polls < 400
        ci.good_poll()
        lowest = ci.query("SELECT min(number), count(*) FROM builds b WHERE repo_id = 2")[0]
        assert lowest[1] == count - lowest[0] + 1, "without a hole, from the newest down"
        now = ci.query("SELECT max(high) FROM gaps")
        assert now == [(None,)] or now <= left
        left = now
        if polls % 3 == 0:
            ci.restart()
    for _ in range(100):
        ci.good_poll(60)
    assert ci.value("ci_import_repos_remaining") == 0
    assert ci.query("SELECT count(*) FROM builds WHERE state <> 2") == [(0,)]
    assert ci.query("SELECT count(*), sum(counted) FROM builds WHERE repo_id = 2") == [(count, 0)]
    assert all(value == 0 for _, value in ci.family("ci_builds_total"))


def test_history_ends_where_it_is_too_old(ci: Rig) -> None:
    ci.options["import_"] = 10 * DAY
    ci.restart()
    history(ci, 300, days=30)
    ci.settle()
    oldest, count = ci.query("SELECT min(created), count(*) FROM builds WHERE repo_id = 2")[0]
    assert ci.clock.now() - 10 * DAY - 600 <= oldest <= ci.clock.now() - 9 * DAY
    assert 80 < count < 120
    assert ci.value("ci_import_repos_remaining") == 0


def test_without_an_import_no_list_is_read(ci: Rig) -> None:
    ci.options["import_"] = 0.0
    ci.restart()
    history(ci, 300)
    ci.settle()
    assert ci.asked("{}/builds") == 0
    assert ci.value("ci_import_repos_remaining") == 0
    build(ci, repo="octo/old")
    ci.good_poll(1)
    ci.good_poll(150)
    assert ci.counted("octo/old", "success") == 1


def test_an_import_keeps_its_pace_and_no_poll_waits_for_it(new: Rig) -> None:
    new.options["import_rate"] = 2.0
    new.restart()
    new.world.add_repos([f"octo/r{i}" for i in range(60)], builds=30, days=20)
    new.good_poll()
    began = new.clock.now()
    new.running.requests.clear()
    build(new, seconds=1)
    for _ in range(2):
        before = new.clock.now()
        new.good_poll(0)
        assert new.clock.now() - before <= 15
    assert settled(new, "success") == 1
    read = new.asked("{}/builds") + new.asked("builds/{}")
    assert 40 <= read <= 2 * (new.clock.now() - began)
    for _ in range(40):
        new.good_poll()
    assert new.value("ci_import_repos_remaining") == 0


def test_a_slow_import_still_gets_on(new: Rig) -> None:
    new.options["import_rate"] = 1 / 40
    new.restart()
    history(new, 250)
    new.good_poll()
    new.running.requests.clear()
    for _ in range(12):
        before = new.clock.now()
        new.good_poll()
        assert new.clock.now() == before + 15
    assert 4 <= new.asked("{}/builds") + new.asked("builds/{}") <= 5


def test_builds_end_while_history_is_read(ci: Rig) -> None:
    ci.options["import_rate"] = 1.0
    ci.restart()
    history(ci, 150)
    ci.good_poll()
    ends = 0
    while not ends or ci.value("ci_import_repos_remaining") or ends < 5:
        ends += 1
        assert ends < 60
        build(ci, "failure" if ends % 2 else "success", repo="octo/old", seconds=3)
        ci.good_poll()
    ci.good_poll(150)
    good, bad = (ci.counted("octo/old", status) for status in ("success", "failure"))
    assert (good, bad) == (ends // 2, ends - ends // 2)
    assert ci.query("SELECT count(*) FROM builds WHERE repo_id = 2") == [(150 + ends,)]


# What it costs


@pytest.mark.parametrize("admin", [True, False])
def test_requests_for_each_build_that_ends(ci: Rig, admin: bool) -> None:
    repos = [f"octo/r{i}" for i in range(100)]
    ci.world.add_repos(repos, default_branch="main")
    ci.world.set_user(admin=admin)
    ci.settle()
    ci.running.requests.clear()
    ci.world.short_builds(600, repos, over=30)
    for _ in range(3):
        ci.good_poll()
    ended = ci.query("SELECT count(*) FROM builds WHERE state = 2 AND counted")[0][0]
    assert ended == 600
    assert ci.running.requests.total() / ended <= 2.1


def test_a_quiet_server_is_asked_3_times_a_look_at_most(ci: Rig) -> None:
    ci.world.add_repos([f"octo/r{i}" for i in range(100)], builds=3)
    ci.settle()
    ci.good_poll(600)
    ci.running.requests.clear()
    for _ in range(39):
        ci.good_poll()
        assert ci.running.requests.total() <= 3
        ci.running.requests.clear()
