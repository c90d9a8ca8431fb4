"""The excerpt of a failing step's log, read from servers that are late, broken, silent or gone."""

import base64
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pytest
import regex
from replay import Replay, build_in, opened, recording, replaying

from exporter.config_excerpt import ExcerptSettings
from exporter.model import Build, Event
from exporter.notify import fetch
from exporter.notify.fetch import Excerpt, LogReader
from exporter.notify.redact import Redactor
from exporter.servers import Server
from exporter.telemetry import Telemetry

FORK = Excerpt(note="log not shown: the pull request may come from a fork")
BUILD_1X = "/api/repos/octo/hello/builds/{}"


class Waits(threading.Event):
    """Lets no real time pass: each wait moves the clocks of reader and server."""

    def __init__(self, replay: Replay) -> None:
        super().__init__()
        self.replay, self.waited = replay, 0.0

    def wait(self, timeout: float | None = None) -> bool:
        self.waited += timeout or 0.0
        self.replay.now += timeout or 0.0
        return self.is_set()


Open = Callable[..., tuple[Replay, Server, LogReader, Waits]]


@pytest.fixture
def start() -> Iterator[Open]:
    """A server that replays recordings of a system, and a reader whose waits are free."""
    with ExitStack() as stack:

        def begin(system: str, **settings: Any) -> tuple[Replay, Server, LogReader, Waits]:
            replay = stack.enter_context(replaying(system))
            server = opened(replay, Telemetry(), system.removesuffix(".x"))
            stack.callback(server.session.close)
            waits = Waits(replay)
            hide = Redactor(["correct-horse"], settings.pop("redact", ()))
            reader = LogReader(hide, ExcerptSettings(**settings), waits, clock=lambda: waits.waited)
            return replay, server, reader, waits

        yield begin


def drone1(replay: Replay, *texts: str, step: str = "1/2", number: int = 2) -> None:
    rows = [{"pos": n, "out": f"{text}\n", "time": 0} for n, text in enumerate(texts)]
    replay.serve(f"{BUILD_1X.format(number)}/logs/{step}", rows)


def failing(build: Build) -> str:
    return next(step.name for step in build.steps if step.status.bad)


def test_the_failing_steps_log_is_read_once_where_it_is_whole(start: Open) -> None:
    replay, server, reader, waits = start("drone-1.x")
    build = build_in(server, replay, "build-failure")
    drone1(replay, "+ make", "error: token correct-horse", step="1/2", number=build.number)
    replay.asked.clear()
    assert reader.read(server, build, failing(build)) == Excerpt("+ make\nerror: token <secret>\nexit code 3")
    assert len(replay.asked) == 1
    assert not waits.waited


def test_a_build_as_the_ledger_has_it_is_read_again(start: Open) -> None:
    replay, server, reader, _ = start("drone-1.x")
    build = build_in(server, replay, "build-failure")
    drone1(replay, "error: broken", number=build.number)
    stored = replace(
        build, detailed=False, steps=tuple(replace(step, log="") for step in build.steps), error=""
    )
    assert reader.read(server, stored, failing(build)).text.startswith("error: broken")
    again = replace(stored, run=stored.run - 5)
    assert reader.read(server, again, failing(build)).note == "log gone: the build was started again"
    assert "no such step" in reader.read(server, stored, "other").note


def test_patterns_of_a_repo_choose(start: Open) -> None:
    settings = {"octo/*": ("^OOPS",), "other/*": ("^WRONG",)}
    replay, server, reader, _ = start("drone-1.x", patterns=settings)
    build = build_in(server, replay, "build-failure")
    fill = [f"line {n}" for n in range(50)]
    drone1(replay, "error: no", *fill, "WRONG", *fill, "OOPS", *fill, number=build.number)
    text = reader.read(server, build, failing(build)).text
    assert "OOPS" in text
    assert "WRONG" not in text


@pytest.mark.parametrize(("ago", "most"), [(0, 10), (3600, 0)])
def test_a_log_that_is_missing_is_waited_for_only_after_the_end(start: Open, ago: int, most: int) -> None:
    replay, server, reader, waits = start("drone-1.x")
    build = build_in(server, replay, "build-failure")
    replay.now = next(step for step in build.steps if step.status.bad).finished + ago
    server.session.skew = 0.0
    assert reader.read(server, build, failing(build)) == Excerpt(note="log unavailable (404)")
    assert most * 0.7 <= waits.waited <= most


def drone05(start: Open, come: float) -> tuple[Replay, Server, LogReader, Waits, Build]:
    """A build of Drone 0.5 that just failed, whose log comes so many seconds after its end."""
    replay, server, reader, waits = start("drone-0.5")
    build = build_in(server, replay, "build-ran-failure")
    path = recording("drone-0.5", "logs-ran")["request"]["path"].rpartition("/logs/")[0]
    log = {
        "status": 200,
        "headers": recording("drone-0.5", "logs-ran")["headers"],
        "body": [
            {"proc": "clone", "pos": 0, "out": "error: hint"},
            {"proc": "clone", "type": 2, "pos": 0, "out": "0"},
            {"proc": "test", "pos": 0, "out": "AssertionError: 1 is not 2"},
            {"proc": "test", "type": 2, "pos": 0, "out": "1"},
            {},
        ],
    }
    end = max(step.finished for step in build.steps)
    replay.now = float(end)
    wanted = f"{path}/logs/{build.number}/"
    replay.live = lambda line: log if line.startswith(wanted) and replay.now >= end + come else None
    return replay, server, reader, waits, build


def test_logs_of_drone_05_come_late(start: Open) -> None:
    _, server, reader, waits, build = drone05(start, come=29)
    assert reader.read(server, build, failing(build)).text.splitlines()[0] == "AssertionError: 1 is not 2"
    assert 29 <= waits.waited <= 33


def test_logs_of_drone_05_may_not_come(start: Open) -> None:
    replay, server, reader, waits, build = drone05(start, come=1e9)
    replay.asked.clear()
    assert reader.read(server, build, failing(build)) == Excerpt(note="log unavailable (404)")
    assert 30 <= waits.waited <= 45
    assert len(replay.asked) < 25


def test_last_lines_of_woodpecker_come_after_the_end(start: Open) -> None:
    replay, server, reader, waits = start("woodpecker")
    replay.serve("/api/repos/lookup/octo/hello", {"id": 1, "full_name": "octo/hello"})
    build = build_in_woodpecker(server, replay)
    end = next(step for step in build.steps if step.status.bad)
    replay.now = float(end.finished)

    def live(line: str) -> Any:
        if "/logs/" not in line:
            return None
        came = [0, 3, 5, 6]
        rows = [n for n, after in enumerate(came) if replay.now >= end.finished + after]
        body = [{"id": n, "line": n, "data": base64.b64encode(b"error: %d" % n).decode()} for n in rows]
        return {"status": 200, "headers": {"Content-Type": "application/json"}, "body": body}

    replay.live = live
    text = reader.read(server, build, end.name).text
    assert "error: 3" in text, "two answers were alike before the last line came"
    assert 7 <= waits.waited <= 10


def build_in_woodpecker(server: Server, replay: Replay, **changed: object) -> Build:
    answer = recording("woodpecker", "pipeline-failure")
    body = answer["body"] | changed
    replay.serve(answer["request"]["path"], body)
    return server.build("octo/hello", body["number"])


@pytest.mark.parametrize(
    ("changed", "shown"),
    [
        ({"source_repo": "octo/hello"}, True),
        ({"source_repo": "mallory/hello"}, False),
        ({"source_repo": ""}, False),
    ],
)
def test_pull_requests_from_forks_are_not_shown_1x(start: Open, changed: dict[str, str], shown: bool) -> None:
    replay, server, reader, _ = start("drone-1.x")
    single = recording("drone-1.x", "build-failure")["body"]
    pull = {"event": "pull_request", "ref": "refs/pull/3/head"}
    for event in (pull, pull | {"event": "promote"}):
        body = single | event | changed
        replay.serve(BUILD_1X.format(single["number"]), body)
        drone1(replay, "error: of a fork", number=single["number"])
        build = server.build("octo/hello", single["number"])
        replay.asked.clear()
        found = reader.read(server, build, failing(build))
        assert bool(found.text) is shown
        assert shown or found == FORK
        assert shown or not replay.asked, "nothing is asked of what is not shown"


def test_pull_requests_from_forks_are_not_shown_woodpecker(start: Open) -> None:
    replay, server, reader, _ = start("woodpecker")
    replay.serve("/api/repos/lookup/octo/hello", {"id": 1, "full_name": "octo/hello"})
    pull = {"event": "pull_request", "ref": "refs/pull/3/head"}
    fork = build_in_woodpecker(server, replay, from_fork=True, **pull)
    assert reader.read(server, fork, failing(fork)) == FORK
    own = build_in_woodpecker(server, replay, **pull)
    assert not own.foreign


@pytest.mark.parametrize(
    ("system", "name"), [("drone-0.5", "build-pull-request"), ("drone-0.8", "build-pull-request")]
)
def test_no_pull_request_is_shown_where_forks_are_not_told(start: Open, system: str, name: str) -> None:
    replay, server, reader, _ = start(system)
    build = build_in(server, replay, name)
    assert build.event is Event.PULL_REQUEST
    assert build.foreign
    replay.asked.clear()
    assert reader.read(server, build, "any") == FORK


def test_a_slow_pattern_costs_the_excerpt_alone(start: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exporter.notify.redact.LONGEST_SEARCH", 0.05)
    replay, server, reader, _ = start("drone-1.x", redact=[regex.compile(r"(x|xx)+y")])
    build = build_in(server, replay, "build-failure")
    drone1(replay, "y" + "x" * 80, number=build.number)
    assert reader.read(server, build, failing(build)).note.startswith("log not shown: a pattern of")


def test_a_silent_server_holds_nobody_up(start: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "WAIT", 0.4)
    replay, server, _, _ = start("drone-1.x")
    build = build_in(server, replay, "build-failure")
    reader = LogReader(Redactor(), ExcerptSettings(), threading.Event())
    replay.live = lambda line: time.sleep(1.5) if "/logs/" in line else None
    began = time.monotonic()
    assert reader.read(server, build, failing(build)) == Excerpt(note="log unavailable (timeout)")
    assert time.monotonic() - began < 1.2
    # What came after is not bounded any more.
    assert server.build("octo/hello", build.number).number == build.number


def test_a_closed_session_and_a_stop_end_it(start: Open) -> None:
    replay, server, reader, waits = start("drone-1.x")
    build = build_in(server, replay, "build-failure")
    replay.now = float(max(step.finished for step in build.steps))
    waits.set()
    assert reader.read(server, build, failing(build)).note == "log unavailable (404)"
    assert waits.waited <= fetch.PAUSES[0]
    server.session.close()
    assert reader.read(server, build, failing(build)).note == "log unavailable (refused)"


def test_threads_share_a_server_and_a_reader(start: Open) -> None:
    replay, server, reader, _ = start("drone-1.x")
    build = build_in(server, replay, "build-failure")
    drone1(replay, "error: broken", number=build.number)
    found: list[Excerpt] = []
    threads = [
        threading.Thread(target=lambda: found.append(reader.read(server, build, failing(build))))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [excerpt.text for excerpt in found] == ["error: broken\nexit code 3"] * 8


def test_what_a_reader_did_not_expect_costs_the_excerpt_alone(
    start: Open, caplog: pytest.LogCaptureFixture
) -> None:
    replay, server, _, waits = start("drone-1.x")
    build = build_in(server, replay, "build-failure")
    drone1(replay, "error: broken", number=build.number)

    def broken(text: str) -> str:
        raise ZeroDivisionError

    reader = LogReader(broken, ExcerptSettings(), waits)
    assert reader.read(server, build, failing(build)) == Excerpt(note="log not shown: ZeroDivisionError")
    assert "no excerpt of a log" in caplog.text
