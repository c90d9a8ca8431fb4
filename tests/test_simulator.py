"""The simulated CI server: its worlds, its clock, its acts, its faults and its life."""

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import requests
import trustme
from reader import Reader, authorization, reading

from exporter.model import Status
from exporter.simulator import Clock, Leg, Outcome, StepPlan, World, serve
from exporter.simulator.demo import demo_worlds
from exporter.simulator.history import DAY, History
from exporter.simulator.invention import TRAITS
from exporter.simulator.life import Life

NOW = 1_800_000_000.0
DIALECTS = ["drone-0.5", "drone-0.8", "drone-1"]
FEED = {"drone-0.5": "/api/user/feed", "drone-0.8": "/api/user/feed", "drone-1": "/api/user/builds"}
LATEST = {
    "drone-0.5": "/api/user/feed?latest=true",
    "drone-0.8": "/api/user/feed?latest=true",
    "drone-1": "/api/user/repos?latest=true",
}
OPEN = {"drone-0.5": "/api/builds", "drone-0.8": "/api/builds", "drone-1": "/api/builds/incomplete"}
HELLO = "/api/repos/octo/hello"


class Drone(Reader):
    """Reads a Drone."""

    def row(self, number: int) -> dict[str, Any]:
        row: dict[str, Any] = self.get(f"{HELLO}/builds/{number}")
        return row

    def feed(self) -> list[dict[str, Any]]:
        """Newest builds of all repos, as (0.5, 0.8) feed rows or (1.x) builds with the repo's name."""
        rows = self.get(FEED[self.world.dialect])
        return [row.get("build", row) | {"repo": row.get("slug", row.get("full_name"))} for row in rows]


@pytest.fixture(params=DIALECTS)
def reader(request: pytest.FixtureRequest) -> Iterator[Drone]:
    """A world of each dialect with one repo, octo/hello, and a clock that stands."""
    world = World(request.param, clock=Clock(NOW))
    world.add_repo("octo/hello")
    yield from reading(world, Drone)


@pytest.fixture
def old() -> Iterator[Drone]:
    world = World("drone-0.5", clock=Clock(NOW))
    world.add_repo("octo/hello")
    yield from reading(world, Drone)


# Size and seed


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_large_world_is_there_at_once(dialect: str) -> None:
    begin = time.perf_counter()
    world = World(dialect, clock=Clock(NOW))
    world.add_repos([f"load/r{i:05d}" for i in range(10_000)], builds=100)
    for reader in reading(world, Drone):
        feed = reader.feed()
        latest = reader.get(LATEST[dialect])
        page = reader.get("/api/repos/load/r09999/builds")
    assert time.perf_counter() - begin < 20
    assert len(feed) == TRAITS[dialect].feed_rows
    assert len({row["repo"] for row in feed}) == len(feed), "every repo has one build in a round"
    assert len(latest) == 10_000
    assert {row.get("build", row)["number"] for row in latest} == {100}
    assert len(page) == TRAITS[dialect].feed_rows


def test_what_is_kept_of_answers_is_bounded() -> None:
    world = World(clock=Clock(NOW))
    world.cache.limit = 100_000
    world.add_repos([f"load/r{i}" for i in range(50)], builds=100)
    for reader in reading(world, Drone):
        for name in world.repos:
            assert len(reader.get(f"/api/repos/{name}/builds")) == 25
    assert 50_000 < world.cache.size <= 100_000


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_world_is_a_function_of_its_seed(dialect: str) -> None:
    def page(seed: int) -> Any:
        world = World(dialect, clock=Clock(NOW), seed=seed)
        world.add_repos(["a/one", "a/two", "a/three"], builds=40)
        for reader in reading(world, Drone):
            return [reader.get(f"/api/repos/{name}/builds") for name in world.repos]
        return None

    assert page(1) == page(1)
    assert page(1) != page(2)


@pytest.mark.parametrize("dialect", ["drone-1", "abf"])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 24, 1000])
def test_history_rises_in_id_and_time(size: int, dialect: str) -> None:
    names = [f"load/r{i}" for i in range(size)]
    history = History(3, names, "main", 6, 100, NOW - 90 * DAY, NOW - 7200, TRAITS[dialect])
    rows = [(i, history.build(place, number)) for i, place, number in history.newest()]
    assert [build.id for _, build in rows] == [i for i, _ in rows] == list(range(99 + size * 6, 99, -1))
    assert all(newer.created >= older.created for (_, newer), (_, older) in pairwise(rows))
    assert all(build.ended(NOW) for _, build in rows)
    assert Counter(place for _, place, _ in history.newest()) == dict.fromkeys(range(size), 6)
    assert {n for _, place, n in history.newest() if place == 0} == set(history.numbers(0))


GATED = {"drone-0.8", "drone-1", "woodpecker"}
ENDS = {Status.SUCCESS, Status.FAILURE, Status.ERROR, Status.TIMEOUT, Status.CANCELLED}


def possible(dialect: str) -> set[Status]:
    """How builds of a dialect can end."""
    more = {Status.DECLINED} if dialect in GATED else set()
    more |= {Status.SKIPPED} if dialect == "drone-1" else set()
    return ENDS - ({Status.TIMEOUT} if dialect == "abf" else set()) | more


@pytest.mark.parametrize("dialect", TRAITS)
def test_history_has_a_bit_of_everything(dialect: str) -> None:
    world = World(dialect, clock=Clock(NOW))
    world.add_repos([f"load/r{i}" for i in range(40)], builds=100)
    runs = [build for _, build in world.runs(history=True)]
    assert {world.status(build) for build in runs} == possible(dialect)
    events = {"push", "pull_request", "tag", "deployment"}
    events |= {"cron", "rollback"} if TRAITS[dialect].crons else set()
    assert {b.event for b in runs} == (events if TRAITS[dialect].hooks else {"custom"})
    assert {world.default_branch, *TRAITS[dialect].branches} <= {b.branch for b in runs}
    assert any(not b.person.name.isascii() for b in runs)
    assert any(len(b.legs) > 1 for b in runs) == (dialect != "abf")
    assert 0.5 < sum(world.status(b) is Status.SUCCESS for b in runs) / len(runs) < 0.9


# The clock


def test_a_clock_stands_until_it_is_told() -> None:
    clock = Clock(NOW)
    assert (clock.advance(1.5), clock.now()) == (NOW + 1.5, NOW + 1.5)
    clock.set(NOW)
    assert clock.now() == NOW


def test_a_real_clock_runs_with_an_offset() -> None:
    times = iter([10.0, 10.0, 20.0, 30.0])
    clock = Clock.real(100, lambda: next(times))
    assert clock.now() == 110
    clock.set(0)
    assert (clock.now(), clock.now()) == (10, 20)


def test_a_planned_build_moves_by_itself(reader: Drone) -> None:
    clock = reader.world.clock
    number = reader.world.start_build("octo/hello", started=NOW + 5, finished=NOW + 65, outcome="failure")

    def look() -> tuple[Any, ...]:
        row, feed = reader.row(number), reader.feed()[0]
        assert (
            feed["status"]
            == row["status"]
            == reader.get(LATEST[reader.world.dialect])[0].get("build", feed)["status"]
        )
        start, end = ("started", "finished") if "trigger" in row else ("started_at", "finished_at")
        return (
            row["status"],
            row[start] - int(NOW) if row[start] else 0,
            row[end] - int(NOW) if row[end] else 0,
        )

    assert look() == ("pending", 0, 0)
    assert len(reader.get(OPEN[reader.world.dialect])) == 1
    clock.advance(5)
    assert look() == ("running", 5, 0)
    clock.advance(60)
    assert look() == ("failure", 5, 65)
    assert reader.get(OPEN[reader.world.dialect]) == []
    date = reader.ask("/version").headers["Date"]
    assert date == "Fri, 15 Jan 2027 08:01:05 GMT"


def test_steps_follow_the_clock() -> None:
    world = World("drone-1", clock=Clock(NOW))
    world.add_repo("octo/hello")
    legs = (Leg("first", (StepPlan("clone"), StepPlan("build", 3), StepPlan("test"))),)
    number = world.start_build("octo/hello", started=NOW, finished=NOW + 100, legs=legs)
    for reader in reading(world, Drone):
        seen = []
        for _ in range(102):
            stages = reader.row(number)["stages"]
            steps = [step for stage in stages for step in stage.get("steps", [])]
            running = [step["name"] for step in steps if step["status"] == "running"]
            assert len(running) == (0 if world.clock.now() >= NOW + 100 else len(running) or 1)
            seen += running
            world.clock.advance(1)
        assert Counter(seen) == {"clone": 20, "build": 60, "test": 20}
        assert list(dict.fromkeys(seen)) == ["clone", "build", "test"]
        assert {step["status"] for step in steps} == {"success"}
        assert all(a["stopped"] <= b["started"] for stage in stages for a, b in pairwise(stage["steps"]))


# Acts


def test_numbers_rise_and_pages_fall(reader: Drone) -> None:
    for _ in range(120):
        number = reader.world.start_build("octo/hello", running=True)
        reader.world.finish("octo/hello", number)
    modern = reader.world.dialect == "drone-1"
    size = 100 if modern else 50
    page = f"{HELLO}/builds?per_page=100&page="
    first = [row["number"] for row in reader.get(f"{page}1")]
    assert first == list(range(120, 120 - size, -1))
    second = [row["number"] for row in reader.get(f"{page}2")]
    assert second == (
        first if reader.world.dialect == "drone-0.5" else list(range(120 - size, max(0, 120 - 2 * size), -1))
    )
    reader.world.remove_build("octo/hello", 119)
    assert [row["number"] for row in reader.get(f"{page}1")][:3] == [120, 118, 117]
    assert reader.ask(f"{HELLO}/builds/119").status_code == (404 if modern else 500)
    assert 119 not in [row["number"] for row in reader.feed()]


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        ("success", ["success"] * 3), ("failure", ["failure"] * 3), ("error", ["error"] * 3),
        ("timeout", ["failure", "failure", "killed"]), ("killed", ["killed", "failure", "killed"]),
    ],
)  # fmt: skip
def test_every_end_in_the_words_of_the_dialect(reader: Drone, outcome: str, words: list[str]) -> None:
    number = reader.world.start_build("octo/hello", running=True)
    reader.world.clock.advance(60)
    reader.world.finish("octo/hello", number, outcome)
    assert reader.row(number)["status"] == words[DIALECTS.index(reader.world.dialect)]


def test_a_failure_is_that_of_a_step(reader: Drone) -> None:
    number = reader.world.start_build("octo/hello", running=True)
    reader.world.clock.advance(60)
    reader.world.finish("octo/hello", number, "failure", failed="build", exit_code=42)
    assert '"exit_code":42' in reader.ask(f"{HELLO}/builds/{number}").text
    assert reader.row(number)["status"] == "failure"


def test_a_cancelled_build_reads_killed_first(reader: Drone) -> None:
    number = reader.world.start_build("octo/hello", running=True)
    reader.world.clock.advance(30)
    reader.world.cancel("octo/hello", number)
    first = {"drone-0.5": "killed", "drone-0.8": "running", "drone-1": "killed"}[reader.world.dialect]
    assert reader.row(number)["status"] == reader.feed()[0]["status"] == first
    reader.world.clock.advance(1)
    later = "killed" if reader.world.dialect == "drone-1" else "failure"
    assert reader.row(number)["status"] == reader.feed()[0]["status"] == later
    [(_, run)] = reader.world.runs()
    assert reader.world.status(run) is Status.CANCELLED


@pytest.mark.parametrize("whole", [False, True])
def test_a_cancel_whose_agent_is_lost(reader: Drone, whole: bool) -> None:
    number = reader.world.start_build("octo/hello", running=True)
    reader.world.clock.advance(30)
    reader.world.cancel("octo/hello", number, whole=whole, reported=False)
    reader.world.clock.advance(3600)
    stays = "running" if reader.world.dialect == "drone-0.8" and not whole else "killed"
    assert reader.row(number)["status"] == reader.feed()[0]["status"] == stays
    [(_, run)] = reader.world.runs()
    own = {"drone-0.5": Status.FAILURE, "drone-0.8": Status.CANCELLED if whole else Status.RUNNING}
    assert reader.world.status(run) is own.get(reader.world.dialect, Status.CANCELLED)


def test_restarts(reader: Drone) -> None:
    world = reader.world
    number = world.start_build("octo/hello", running=True)
    world.clock.advance(60)
    world.finish("octo/hello", number, "failure")
    world.clock.advance(600)
    again = reader.session.post(f"{reader.running.url}{HELLO}/builds/{number}", timeout=5).json()
    assert again["status"] == "pending"
    if world.traits.restart_in_place:
        assert again["number"] == number
        assert (again["created_at"], again["enqueued_at"]) == (int(NOW), int(NOW) + 660)
        assert len(reader.feed()) == 1
    else:
        assert again["number"] == number + 1
        assert again["parent" if world.dialect == "drone-0.8" else "trigger"] in (number, "adminuser")
        assert reader.row(number)["status"] == "failure"
    world.run("octo/hello", again["number"])
    world.finish("octo/hello", again["number"])
    assert sorted(world.status(run).word for _, run in world.runs()) == ["failure", "success"]


def test_a_restarted_build_of_the_past_keeps_its_place_in_the_feed(old: Drone) -> None:
    old.world.add_repos(["load/a", "load/b", "load/c"], builds=20)
    before = [(row["repo"], row["number"]) for row in old.feed()]
    repo, number = before[10]
    old.world.restart(repo, number)
    after = old.feed()
    assert [(row["repo"], row["number"]) for row in after] == before
    assert [row["status"] for row in after].count("pending") == 1
    assert len(old.get("/api/builds")) == 1


def test_server_restart(reader: Drone) -> None:
    world = reader.world
    taken = world.start_build("octo/hello", running=True)
    waiting = world.start_build("octo/hello", started=NOW + 60, finished=NOW + 120)
    world.clock.advance(10)
    world.server_restart()
    now = {"drone-0.5": ["error", "error"]}.get(world.dialect, ["running", "pending"])
    assert [reader.row(n)["status"] for n in (taken, waiting)] == now
    world.clock.advance(DAY)
    later = {"drone-0.5": ["error", "error"]}.get(world.dialect, ["running", "success"])
    assert [reader.row(n)["status"] for n in (taken, waiting)] == later
    if world.dialect == "drone-0.5":
        assert [reader.row(n)["finished_at"] for n in (taken, waiting)] == [0, 0]


def test_approvals(reader: Drone) -> None:
    world = reader.world
    if not world.traits.gates:
        with pytest.raises(ValueError, match="no approvals"):
            world.block("octo/hello")
        return
    good, bad = world.block("octo/hello"), world.block("octo/hello")
    assert {row["status"] for row in reader.feed()} == {"pending" if world.traits.stages else "blocked"}
    if not world.traits.stages:
        assert reader.get("/api/builds") == []
    world.approve("octo/hello", good)
    world.decline("octo/hello", bad)
    assert [reader.row(n)["status"] for n in (good, bad)] == ["pending", "declined"]
    with pytest.raises(ValueError, match="is declined"):
        world.approve("octo/hello", bad)


def test_what_a_dialect_cannot_do_is_refused(old: Drone) -> None:
    number = old.world.start_build("octo/hello")
    for outcome, words in (("cancelled", "cannot stop"), ("skipped", "skips no"), ("declined", "blocked")):
        with pytest.raises(ValueError, match=words):
            old.world.finish("octo/hello", number, outcome)
    with pytest.raises(LookupError, match="no build 99"):
        old.world.run("octo/hello", 99)


def test_a_rebuilt_server_begins_at_1(reader: Drone) -> None:
    world = reader.world
    world.add_repo("octo/old", builds=30)
    assert reader.get("/api/repos/octo/old/builds")[0]["number"] == 30
    world.replace_by_empty()
    assert reader.get("/api/repos/octo/old/builds") == []
    number = world.start_build("octo/old")
    row = reader.get("/api/repos/octo/old/builds")[0]
    assert (row["number"], row["id"], number) == (1, 1, 1)
    assert [row["repo"] for row in reader.feed() if row.get("number")] == ["octo/old"]


# Who may


def test_a_bad_token_is_nobodys(reader: Drone) -> None:
    reader.world.add_repo("octo/secret", private=True)
    reader.world.revoke(reader.world.token)
    assert reader.ask("/api/user").status_code == 401
    assert reader.ask(HELLO).status_code == 200
    assert reader.ask("/api/repos/octo/secret").status_code == 401


def test_rights_come_and_go(reader: Drone) -> None:
    world = reader.world
    modern = world.dialect == "drone-1"
    world.set_user(admin=False)
    assert reader.ask(OPEN[world.dialect]).status_code == (403 if modern else 413)
    world.start_build("octo/hello")
    world.deny("octo/hello")
    refused = {"drone-0.5": 500, "drone-0.8": 404, "drone-1": 404}[world.dialect]
    assert reader.ask(f"{HELLO}/builds").status_code == refused
    assert reader.feed() == []
    world.allow("octo/hello")
    assert reader.ask(f"{HELLO}/builds").status_code == 200
    world.set_user(repos=[])
    assert reader.feed() == []
    world.make_private("octo/hello")
    assert reader.ask(f"{HELLO}/builds").status_code == refused
    world.set_user(admin=True)
    assert reader.ask(f"{HELLO}/builds").status_code == 200
    world.delete_repo("octo/hello")
    assert reader.ask(HELLO).status_code == 404


def test_a_new_repo_is_listed_late_where_asked_for(reader: Drone) -> None:
    world = reader.world
    world.listing_delay = 900
    world.add_repo("octo/new")
    world.start_build("octo/new")
    assert reader.feed() == []
    assert reader.ask("/api/repos/octo/new/builds").json()[0]["number"] == 1
    world.clock.advance(900)
    assert [row["repo"] for row in reader.feed()] == ["octo/new"]


def test_a_source_host_that_denies(reader: Drone) -> None:
    world = reader.world
    world.set_user(admin=False)
    world.source_host_down = True
    assert reader.ask(HELLO).status_code == (500 if world.dialect == "drone-0.5" else 404)
    assert reader.ask(FEED[world.dialect]).status_code == (500 if world.dialect == "drone-0.5" else 200)


def test_a_community_edition() -> None:
    world = World("drone-1", clock=Clock(NOW))
    world.community = True
    for reader in reading(world, Drone):
        for path in ("/api/builds/incomplete", "/api/queue", "/api/system/stats"):
            assert reader.ask(path).status_code == 501


def test_a_feed_looks_at_the_first_repos_only(old: Drone) -> None:
    old.world.add_repos([f"load/r{i}" for i in range(5)], builds=1)
    old.world.feed_repos = 3
    assert {row["repo"] for row in old.feed()} == {"load/r0", "load/r1", "load/r2"}


# Faults


def refused(reader: Drone, error: type[Exception], words: str | None = None, **how: Any) -> None:
    with pytest.raises(error, match=words):
        reader.ask("/api/user", **how)


Check = Callable[[Drone], None]
FAULTS: list[tuple[dict[str, Any], Check]] = [
    ({"kind": "slow", "seconds": 0.2}, lambda r: _took(r, 0.2)),
    ({"kind": "trickle", "seconds": 0.2}, lambda r: _took(r, 0.19)),
    ({"kind": "hang"}, lambda r: refused(r, requests.Timeout, timeout=0.2)),
    ({"kind": "reset"}, lambda r: refused(r, requests.ConnectionError, "reset by peer")),
    ({"kind": "cut"}, lambda r: refused(r, requests.exceptions.ChunkedEncodingError)),
    ({"kind": "limit", "retry_after": "7"}, lambda r: _says(r, 429, "text/plain", "Retry-After", "7")),
    ({"kind": "status", "status": 502}, lambda r: _says(r, 502, "text/html")),
    ({"kind": "html"}, lambda r: _says(r, 200, "text/html")),
    ({"kind": "redirect", "to": "http://elsewhere.invalid/"},
     lambda r: _says(r, 302, "text/html", "Location", "http://elsewhere.invalid/api/user")),
    ({"kind": "community"}, lambda r: _says(r, 501, "application/json")),
    ({"kind": "date", "seconds": 3600.0},
     lambda r: _says(r, 200, "app", "Date", "Fri, 15 Jan 2027 09:00:00 GMT")),
]  # fmt: skip


def _took(reader: Drone, seconds: float) -> None:
    begin = time.perf_counter()
    assert reader.get("/api/user")["login"] == "adminuser"
    assert time.perf_counter() - begin >= seconds


def _says(reader: Drone, status: int, kind: str, header: str = "Date", value: str | None = None) -> None:
    answer = reader.ask("/api/user")
    assert answer.status_code == status
    assert answer.headers["Content-Type"].startswith(kind)
    assert value is None or answer.headers[header] == value


@pytest.mark.parametrize(
    ("fault", "check"), FAULTS, ids=lambda value: value["kind"] if isinstance(value, dict) else ""
)
def test_faults_of_the_wire(old: Drone, fault: dict[str, Any], check: Check) -> None:
    old.world.faults.add(path="^/api/user$", **fault)
    check(old)
    assert old.world.faults.on[0].struck >= 1
    assert old.get(FEED["drone-0.5"]) == [], "other paths are well"
    old.world.faults.clear()
    assert old.get("/api/user")["login"] == "adminuser"


def test_truncated_json(reader: Drone) -> None:
    reader.world.start_build("octo/hello")
    reader.world.faults.add("truncated")
    with pytest.raises(json.JSONDecodeError):
        reader.ask(f"{HELLO}/builds").json()


def test_a_fault_strikes_as_often_as_it_is_told(reader: Drone) -> None:
    fault = reader.world.faults.add("status", times=2, status=500)
    assert [reader.ask("/api/user").status_code for _ in range(4)] == [500, 500, 200, 200]
    reader.world.faults.off(fault)
    assert reader.world.faults.on == []


def test_not_admin_and_not_found(reader: Drone) -> None:
    modern = reader.world.dialect == "drone-1"
    with_path = reader.world.faults
    with_path.add("not_admin", OPEN[reader.world.dialect])
    with_path.add("not_found", "/api/repos/")
    assert reader.ask(OPEN[reader.world.dialect]).status_code == (403 if modern else 413)
    assert reader.ask(HELLO).status_code == 404


def test_rows_that_are_wrong(reader: Drone) -> None:
    for _ in range(3):
        reader.world.start_build("octo/hello")
    path = f"{HELLO}/builds"
    right = reader.get(path)
    start = "created" if reader.world.dialect == "drone-1" else "created_at"

    def spoilt(**fault: Any) -> list[dict[str, Any]]:
        reader.world.faults.add(times=1, **fault)
        rows: list[dict[str, Any]] = reader.get(path)
        return rows

    rows = spoilt(kind="wrong_types", row=1)
    assert (rows[0], rows[2]) == (right[0], right[2])
    assert isinstance(rows[1]["number"], str)
    assert [row["status"] for row in spoilt(kind="unknown_status", row=2)][1:] == ["pending", "exploded"]
    assert [row[start] for row in spoilt(kind="times", row=-1, value="1999")] == [915_148_800] * 3
    assert spoilt(kind="times", value="zero")[0][start] == 0
    assert spoilt(kind="times", value="future")[0][start] > NOW * 2
    assert reader.get(path) == right


def test_a_huge_answer_can_be_left_early(old: Drone) -> None:
    old.world.faults.add("huge")
    with old.ask("/api/user/feed", stream=True) as answer:
        read = 0
        for chunk in answer.iter_content(1 << 20):
            read += len(chunk)
            if read > 20_000_000:
                break
    assert read > 20_000_000
    old.world.faults.clear()
    assert old.get("/api/user/feed") == []


def test_tls(tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    files = tmp_path / "cert.pem", tmp_path / "key.pem", tmp_path / "ca.pem"
    certificate.cert_chain_pems[0].write_to_path(files[0])
    certificate.private_key_pem.write_to_path(files[1])
    authority.cert_pem.write_to_path(files[2])
    world = World("drone-0.8", clock=Clock(NOW))
    with serve(world, tls=(str(files[0]), str(files[1]))) as running:
        with pytest.raises(requests.exceptions.SSLError):
            requests.get(f"{running.url}/version", timeout=5)
        assert requests.get(f"{running.url}/version", timeout=5, verify=str(files[2])).ok


# Many builds, and a life


def test_short_builds(reader: Drone) -> None:
    world = reader.world
    world.add_repos([f"load/r{i}" for i in range(10)])
    world.short_builds(100, [f"load/r{i}" for i in range(10)], over=5, seconds=0.5)
    world.clock.advance(2.01)
    reader.feed()
    assert len(world.runs()) == 41
    world.clock.advance(10)
    assert len(reader.feed()) == world.traits.feed_rows
    assert reader.get(OPEN[world.dialect]) == []
    runs = world.runs()
    assert Counter(repo for repo, _ in runs) == {f"load/r{i}": 10 for i in range(10)}
    assert Counter(world.status(run) for _, run in runs) == {Status.SUCCESS: 90, Status.FAILURE: 10}
    assert {run.started for _, run in runs} == {NOW + i * 0.05 for i in range(100)}


def test_requests_are_counted_by_route(reader: Drone) -> None:
    world = reader.world
    for _ in range(2):
        reader.row(world.start_build("octo/hello"))
    reader.feed()
    counted = reader.running.requests
    assert counted == {("GET", "/api/repos/{}/{}/builds/{}"): 2, ("GET", FEED[world.dialect]): 1}


def lively(dialect: str, seed: int = 5) -> World:
    world = World(dialect, clock=Clock(NOW), seed=seed)
    names = [f"octo/r{i}" for i in range(6)]
    for i, name in enumerate(names):
        world.add_repo(name, gated=i == 2, timeout=1 if i == 0 else 60)
    Life(
        world=world, repos=names, since=NOW - 2 * DAY, lively=NOW, crons={"octo/r1": ("nightly", 3600.0)}
    ).begin()  # fmt: skip
    return world


@pytest.mark.parametrize("dialect", TRAITS)
def test_a_life_does_not_depend_on_who_looks(dialect: str) -> None:
    def tell(step: float, seed: int = 5) -> list[tuple[Any, ...]]:
        world = lively(dialect, seed)
        while world.clock.now() < NOW + 900:
            world.clock.advance(step)
            with world.moment() as now:
                world.open_builds(now)
        return [
            (repo, b.id, b.number, b.created, b.queued, b.started, b.finished, b.outcome, b.commit, b.later)
            for repo, b in world.runs()
        ]

    assert tell(900) == tell(7.5)
    assert tell(900) != tell(900, seed=6)


@pytest.mark.parametrize("dialect", TRAITS)
def test_a_life_has_everything(dialect: str) -> None:
    world = lively(dialect)
    assert all(run.created <= NOW for _, run in world.runs()), "nothing is made ahead of its time"
    queued = 0
    for _ in range(180):
        world.clock.advance(20)
        with world.moment() as now:
            queued += sum(build.phase(now) == "pending" for _, build in world.open_builds(now))
    runs = world.runs()
    traits = world.traits
    assert {world.status(run) for _, run in runs if run.ended(NOW + 3600)} == possible(dialect)
    assert queued > 0
    ends = sum(run.ended(NOW + 3600) and not run.ended(NOW) for _, run in runs)
    assert 400 < ends < 1200
    assert any(run.environment for _, run in runs) == traits.hooks
    assert any(run.cron for _, run in runs) == traits.crons
    assert any(run.later for _, run in runs) == traits.publishes
    if traits.restart_in_place:
        assert any(repo.overwritten for repo in world.repos.values())
    else:
        assert any(run.by and not run.environment for _, run in runs)


def test_the_demo_shows_servers_with_a_past_and_a_life() -> None:
    clock = Clock(NOW)
    begin = time.perf_counter()
    worlds = demo_worlds(NOW, clock=clock)
    assert time.perf_counter() - begin < 8
    assert [dialect for _, dialect, _ in worlds] == list(TRAITS)
    assert len({name for name, _, _ in worlds}) == 5
    for _, dialect, world in worlds:
        assert 8 <= len(world.repos) <= 14
        before = {(repo, run.id, run.queued): run for repo, run in world.runs()}
        assert min(run.created for run in before.values()) < NOW - 13 * DAY
        words = Counter(world.status(run) for run in before.values())
        assert {*possible(dialect) & ENDS, Status.RUNNING} <= set(words)
        assert (Status.BLOCKED in words) == (dialect in GATED)
        with world.moment() as now:
            newest = [build for repo in world.repos.values() if (build := repo.newest()) is not None]
            assert any(world.status(build).bad for build in newest), "some are red"
            ends = [
                run.finished for _, run in world.runs() if run.ended(now) and (run.finished or 0) > NOW - 240
            ]
        assert len(ends) > 10, "a build ends every few seconds"
    clock.advance(60)
    assert all(len(world.runs()) > 500 for _, _, world in worlds)


def test_a_demo_clock_runs_on_from_the_time_given() -> None:
    times = iter(range(1000, 100_000))
    worlds = demo_worlds(NOW, tick=lambda: next(times))
    assert NOW < worlds[0][2].clock.now() < NOW + 1000


# A process of its own


def test_a_process_is_steered_over_http() -> None:
    arguments = ["--dialect", "drone-0.8", "--repos", "20", "--builds", "10", "--seed", "3", "--life"]
    process = subprocess.Popen(
        [sys.executable, "-m", "exporter.simulator", *arguments], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        url, token, plain = (process.stdout.readline().strip() for _ in range(3))

        def control(method: str, what: str, **arguments: Any) -> Any:
            answer = requests.request(method, f"{url}/_sim/{what}", json=arguments, timeout=5)
            assert answer.status_code == 200
            return answer.json()

        def get(path: str, token: str) -> requests.Response:
            return requests.get(url + path, headers={"Authorization": token}, timeout=5)

        assert get("/api/user", token).json()["admin"] is True
        assert get("/api/builds", plain).status_code == 413
        assert control("GET", "requests") == {"GET /api/user": 1, "GET /api/builds": 1}
        control("DELETE", "requests")
        assert control("GET", "requests") == {}
        number = control("POST", "start", repo="load/r00003", running=True)["number"]
        control("POST", "finish", repo="load/r00003", number=number, outcome="failure")
        control("POST", "burst", count=30, repos=5, over=10.0, seconds=1.0)
        assert control("POST", "advance", seconds=3600)["now"] > time.time() + 3500
        ended = control("GET", "ended")
        assert {"repo": "load/r00003", "number": number, "status": "failure"}.items() <= next(
            row.items() for row in ended if (row["repo"], row["number"]) == ("load/r00003", number)
        )
        assert len(ended) > 30
        control("POST", "faults", kind="status", status=503, path="/api/user", times=1)
        assert [get("/api/user", token).status_code for _ in range(2)] == [503, 200]
        control("POST", "faults", kind="status", status=503)
        control("DELETE", "faults")
        assert get("/version", token).status_code == 200
        assert requests.post(f"{url}/_sim/nothing", timeout=5).status_code == 404
    finally:
        process.terminate()
        assert process.wait(10) == 0
        process.stdout.close()


@pytest.mark.parametrize(("dialect", "path"), [("woodpecker", "/api/user"), ("abf", "/api/v1/user.json")])
def test_a_process_of_the_other_kinds(dialect: str, path: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "exporter.simulator", "--dialect", dialect, "--repos", "5", "--builds", "10"],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        url, token, _ = (process.stdout.readline().strip() for _ in range(3))
        for control, body in (("burst", {"count": 20, "over": 2.0}), ("advance", {"seconds": 60})):
            assert requests.post(f"{url}/_sim/{control}", json=body, timeout=5).ok
        ended = requests.get(f"{url}/_sim/ended", timeout=5).json()
        assert Counter(row["status"] for row in ended) == {"success": 18, "failure": 2}
        mine = requests.get(url + path, headers={"Authorization": authorization(dialect, token)}, timeout=5)
        assert mine.status_code == 200
    finally:
        process.terminate()
        assert process.wait(10) == 0
        process.stdout.close()


def test_control_is_not_there_otherwise(reader: Drone) -> None:
    assert reader.ask("/_sim/requests").headers["Content-Type"].startswith("text/html")


def test_outcomes_are_words_of_no_dialect() -> None:
    assert Outcome("cancelled") is Outcome.CANCELLED
    with pytest.raises(ValueError, match="exploded"):
        Outcome("exploded")
