"""The change streams of the simulated servers: what they tell, in which order, and how they fail."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
from reader import authorization
from websockets.exceptions import ConnectionClosed, InvalidMessage, InvalidStatus
from websockets.sync.client import connect

from exporter.simulator import Clock, Leg, Running, StepPlan, World, serve
from exporter.simulator.streams import KINDS

NOW = 1_800_000_000.0
HELLO = "octo/hello"
RECORDINGS = Path(__file__).parent / "data" / "recordings"
EVENTS = ["drone-0.8", "drone-1", "woodpecker"]
LEGS = (Leg("build", (StepPlan("compile"), StepPlan("test"))),)


class Ear:
    """A listener to server-sent events."""

    def __init__(self, running: Running, token: str | None = None) -> None:
        dialect = running.world.dialect
        token = running.world.token if token is None else token
        headers = {"Authorization": authorization(dialect, token)} if token else {}
        address = running.url + KINDS[dialect].path
        self.answer = requests.get(address, headers=headers, stream=True, timeout=5)
        self._lines = self.answer.iter_lines(chunk_size=1)

    def line(self) -> str:
        """The next line that is not empty; "" at the end."""
        return next((line.decode() for line in self._lines if line), "")

    def rest(self) -> list[str]:
        """All that is still to come, to the end."""
        return [line.decode() for line in self._lines if line]

    def event(self) -> dict[str, Any]:
        """The next event, pings left out."""
        line = self.line()
        while line == ": ping":
            line = self.line()
        event: dict[str, Any] = json.loads(line.removeprefix("data: "))
        return event


@contextmanager
def hearing(world: World, token: str | None = None) -> Iterator[tuple[Ear, Running]]:
    """A listener that has been greeted."""
    with serve(world) as running:
        ear = Ear(running, token)
        assert ear.line() == ": ping"
        yield ear, running
        ear.answer.close()


def new_world(dialect: str) -> World:
    world = World(dialect, clock=Clock(NOW))
    world.add_repo(HELLO)
    return world


def build_of(event: dict[str, Any]) -> dict[str, Any]:
    """The build of an event of any dialect."""
    build: dict[str, Any] = event.get("pipeline") or event.get("build") or event["repo"]["build"]
    return build


def seen(event: dict[str, Any]) -> tuple[str, ...]:
    """The status of the build, and the states of its leg and of its steps."""
    build = build_of(event)
    legs = build.get("procs") or build.get("stages") or build.get("workflows") or []
    leg = legs[0]
    steps = leg.get("children") or leg.get("steps") or []
    words = [leg, *steps]
    return build["status"], *(word.get("state") or word.get("status") for word in words)


# What is told


@pytest.mark.parametrize("dialect", EVENTS)
def test_a_build_is_told_step_by_step(dialect: str) -> None:
    world = new_world(dialect)
    with hearing(world) as (ear, _):
        # Told in one go, though the clock has passed all of it.
        number = world.start_build(HELLO, started=NOW + 5, finished=NOW + 65, legs=LEGS)
        world.clock.advance(100)
        story = [("pending", "pending", "pending", "pending")] if dialect != "drone-1" else []
        story += [
            ("running", "running", "running", "pending"), ("running", "running", "running", "pending"),
            ("running", "running", "success", "running"), ("running", "running", "success", "running"),
        ]  # fmt: skip
        story += [("success", "success", "success", "success")] * 2
        events = [ear.event() for _ in story]
        assert [seen(event) for event in events] == story
        assert {build_of(event)["number"] for event in events} == {number}
        if dialect == "drone-0.8":
            assert [event["type"] for event in events] == ["enqueued", *[""] * (len(events) - 1)]


@pytest.mark.parametrize("dialect", EVENTS)
def test_acts_are_told_soon(dialect: str) -> None:
    world = new_world(dialect)
    with hearing(world) as (ear, _):
        begin = time.monotonic()
        number = world.start_build(HELLO, running=True, legs=LEGS)
        assert build_of(ear.event())["number"] == number
        assert time.monotonic() - begin < 2
        world.clock.advance(10)
        world.finish(HELLO, number, "failure", failed="test")
        while (status := build_of(ear.event())["status"]) == "running":
            pass
        assert status == "failure"


def recorded(name: str) -> tuple[dict[str, str], dict[str, Any]]:
    """The head of a recorded stream, and its first event."""
    answer = json.loads((RECORDINGS / f"{name}.json").read_text(encoding="utf-8"))
    body = answer["body"]
    if isinstance(body, list):
        return answer["headers"], json.loads(next(x[6:] for x in body if x.startswith("data: {")))
    return answer["headers"], next(iter(body.get("events") or body["messages"]))


RECORDED = {
    "drone-0.8": "drone-0.8/stream-admin", "drone-1": "drone-1.x/stream", "woodpecker": "woodpecker/stream",
}  # fmt: skip


def shape(value: Any, depth: int = 0) -> Any:
    """Keys and types of an event, lists by their first."""
    if isinstance(value, dict) and depth < 2:
        return {key: shape(one, depth + 1) for key, one in value.items()}
    return type(value)


@pytest.mark.parametrize("dialect", EVENTS)
def test_heads_and_events_as_recorded(dialect: str) -> None:
    head, event = recorded(RECORDED[dialect])
    world = new_world(dialect)
    with hearing(world) as (ear, _):
        assert {key: ear.answer.headers.get(key) for key in head} == head
        world.start_build(HELLO, started=NOW, finished=NOW + 5, legs=LEGS)
        assert shape(ear.event()) == shape(event)


def test_nobody_is_told_of_what_the_server_keeps_quiet() -> None:
    quiet: dict[str, list[Any]] = {
        "drone-0.8": [("block",), ("error",), ("decline",)],
        "drone-1": [("block",), ("error",), ("decline",), ("cancel",), ("start",)],
    }
    for dialect, acts in quiet.items():
        world = new_world(dialect)
        with hearing(world) as (ear, _):
            for (act,) in acts:
                world.clock.advance(1)
                match act:
                    case "error":
                        world.start_build(HELLO, outcome="error")
                    case "decline":
                        world.decline(HELLO, world.block(HELLO))
                    case "cancel":
                        world.cancel(HELLO, world.start_build(HELLO))
                    case "block":
                        world.block(HELLO)
                    case _:
                        world.start_build(HELLO)
            world.clock.advance(1)
            number = world.start_build(HELLO, running=True)
            assert build_of(ear.event())["number"] == number


def test_woodpecker_tells_of_what_waits_and_what_never_runs() -> None:
    world = new_world("woodpecker")
    with hearing(world) as (ear, _):
        world.start_build(HELLO, intake=1)
        assert build_of(ear.event())["status"] == "created"
        world.clock.advance(1)
        assert build_of(ear.event())["status"] == "pending"
        world.cancel(HELLO, 1)
        assert build_of(ear.event())["status"] == "canceled"
        world.block(HELLO)
        assert build_of(ear.event())["status"] == "blocked"
        world.start_build(HELLO, outcome="error")
        assert build_of(ear.event())["status"] == "error"


def test_a_builds_second_run_is_told() -> None:
    world = new_world("drone-0.8")
    number = world.start_build(HELLO, started=NOW, finished=NOW + 10)
    world.clock.advance(60)
    with hearing(world) as (ear, _):
        again = world.restart(HELLO, number)
        event = ear.event()
        assert (event["type"], event["build"]["number"], event["build"]["parent"]) == (
            "enqueued",
            again,
            number,
        )


def test_what_is_deleted_is_told_no_more() -> None:
    world = new_world("drone-1")
    world.add_repo("octo/other")
    world.start_build(HELLO, running=True)
    world.start_build("octo/other", running=True)
    with hearing(world) as (ear, _):
        world.remove_build(HELLO, 1)
        world.delete_repo("octo/other")
        world.clock.advance(10)
        number = world.start_build(HELLO, running=True)
        assert build_of(ear.event())["number"] == number


def test_an_old_event_may_come_after_the_last() -> None:
    world = new_world("drone-0.8")
    with hearing(world) as (ear, _):
        number = world.start_build(HELLO, running=True, legs=LEGS)
        while seen(ear.event())[2] != "running":
            pass
        world.clock.advance(30)
        world.cancel(HELLO, number)
        world.clock.advance(5)
        statuses = [build_of(ear.event())["status"]]
        while "failure" not in statuses or statuses[-1] == "failure":
            statuses.append(build_of(ear.event())["status"])
        assert statuses[-2:] == ["failure", "running"]


# Who hears what


@pytest.mark.parametrize("dialect", EVENTS)
def test_private_repos_are_those_of_the_first_moment(dialect: str) -> None:
    world = new_world(dialect)
    world.add_repo("octo/secret", private=True)
    with hearing(world) as (mine, running):
        nobodys = Ear(running, "")
        assert nobodys.line() == ": ping"
        world.add_repo("octo/later", private=True)
        world.clock.advance(1)
        for name in ("octo/later", "octo/secret", HELLO):
            world.start_build(name, running=True)

        def heard(ear: Ear) -> str:
            event = ear.event()
            repo = event.get("repo", event)
            return str(repo.get("full_name") or repo.get("slug"))

        assert heard(mine) == "octo/secret"
        assert heard(nobodys) == HELLO
        nobodys.answer.close()


# Time


def test_pings_come_with_the_clock() -> None:
    world = new_world("woodpecker")
    with hearing(world) as (ear, _):
        for _ in range(3):
            world.clock.advance(30)
            assert ear.line() == ": ping"
        world.clock.advance(29)
        world.start_build(HELLO)
        assert ear.line().startswith("data: ")


def test_an_hour_of_silence_ends_drones_stream() -> None:
    world = new_world("drone-1")
    with hearing(world) as (ear, _):
        world.clock.advance(3600)
        assert [ear.line() for _ in range(4)] == [": ping", "event: error", "data: eof", ""]


def test_who_is_far_behind_loses_events() -> None:
    world = new_world("drone-1")
    with hearing(world) as (ear, _):
        world.short_builds(100, [HELLO], over=10)
        world.clock.advance(60)
        numbers = {build_of(ear.event())["number"] for _ in range(100)}
        assert max(numbers) < 100
        number = world.start_build(HELLO, running=True)
        assert build_of(ear.event())["number"] == number


# Faults


@pytest.mark.parametrize("dialect", EVENTS)
def test_streams_are_refused_dropped_and_silenced(dialect: str) -> None:
    world = new_world(dialect)
    with serve(world) as running:
        path = KINDS[dialect].path
        world.faults.add("status", path, status=503, times=1)
        assert Ear(running).answer.status_code == 503
        ear = Ear(running)
        assert ear.line() == ": ping"
        silence = world.faults.add("silence", path)
        world.clock.advance(60)
        world.start_build(HELLO, running=True)
        while silence.struck < 3:
            time.sleep(0.01)
        world.faults.off(silence)
        number = world.start_build(HELLO, running=True)
        assert build_of(ear.event())["number"] == number, "what came in silence is lost"
        world.faults.add("drop", path, times=1)
        with pytest.raises(requests.exceptions.ChunkedEncodingError):
            ear.rest()
        assert Ear(running).line() == ": ping"
        assert requests.get(f"{running.url}/version", timeout=5).ok, "other paths are well"


def test_a_server_that_stops_lets_its_listeners_go() -> None:
    running = serve(new_world("woodpecker"))
    ear = Ear(running)
    begin = time.monotonic()
    running.stop()
    assert time.monotonic() - begin < 2
    with pytest.raises((requests.exceptions.ChunkedEncodingError, requests.exceptions.ConnectionError)):
        ear.rest()


def test_an_abf_has_no_stream() -> None:
    world = World("abf", clock=Clock(NOW))
    with serve(world) as running:
        assert requests.get(f"{running.url}/api/stream", timeout=5).status_code == 404
        with pytest.raises(InvalidStatus):
            connect(running.url.replace("http", "ws") + "/ws/feed")


# The WebSocket of 0.5


@contextmanager
def socket_to(running: Running, token: str = "") -> Iterator[Any]:
    headers = {"Authorization": token} if token else {}
    with connect(running.url.replace("http", "ws") + "/ws/feed", additional_headers=headers) as socket:
        yield socket


def test_jobs_are_told_over_the_socket() -> None:
    world = new_world("drone-0.5")
    matrix = tuple(Leg("", (StepPlan("build"),), (("V", v),)) for v in "12")
    with serve(world) as running, socket_to(running) as socket:
        world.start_build(HELLO, started=NOW + 5, finished=NOW + 25, legs=matrix)
        world.clock.advance(60)
        events = [json.loads(socket.recv(5)) for _ in range(5)]
        told = [(e["type"], e["job"]["number"], e["build"]["status"], e["job"]["status"]) for e in events]
        assert told == [
            ("enqueued", 0, "pending", ""), ("started", 1, "running", "running"),
            ("finished", 1, "running", "success"), ("started", 2, "running", "running"),
            ("finished", 2, "success", "success"),
        ]  # fmt: skip
        assert shape(events[0]) == shape(recorded("drone-0.5/ws-feed")[1])
        world.clock.advance(60)
        world.restart(HELLO, 1)
        assert json.loads(socket.recv(5))["type"] == "enqueued"


def test_long_messages_come_in_fragments() -> None:
    world = new_world("drone-0.5")
    with serve(world) as running, socket_to(running) as socket:
        world.start_build(HELLO)
        parts = list(socket.recv_streaming(5))
        assert [len(part) for part in parts][:1] == [1024]
        assert len(parts) == 2
        assert json.loads("".join(parts))["type"] == "enqueued"


def test_the_socket_shows_private_repos_to_their_own_only() -> None:
    world = new_world("drone-0.5")
    world.add_repo("octo/secret", private=True)
    with serve(world) as running, socket_to(running) as nobodys, socket_to(running, world.token) as mine:
        for name in ("octo/secret", HELLO):
            world.start_build(name)
        assert json.loads(nobodys.recv(5))["repo"]["full_name"] == HELLO
        assert json.loads(mine.recv(5))["repo"]["full_name"] == "octo/secret"


def test_the_socket_is_refused_dropped_and_silenced(caplog: pytest.LogCaptureFixture) -> None:
    world = new_world("drone-0.5")
    with serve(world) as running:
        world.faults.add("status", "/ws/feed", status=502, times=1)
        with pytest.raises(InvalidStatus, match="502"), socket_to(running):
            pass
        world.faults.add("reset", "/ws/feed", times=1)
        with pytest.raises(InvalidMessage), socket_to(running):
            pass
        world.faults.add("slow", "/ws/feed", seconds=0.1, times=1)
        with socket_to(running) as socket:
            silence = world.faults.add("silence", "/ws/feed")
            world.start_build(HELLO)
            with pytest.raises(TimeoutError):
                socket.recv(0.3)
            world.faults.off(silence)
            world.faults.add("drop", "/ws/feed", times=1)
            with pytest.raises(ConnectionClosed):
                socket.recv(5)
        world.faults.add("hang", "/ws/feed", times=1)
        with pytest.raises(TimeoutError):
            connect(running.url.replace("http", "ws") + "/ws/feed", open_timeout=0.2)
        page = requests.get(f"{running.url}/ws/feed", timeout=5)
        assert page.headers["Content-Type"].startswith("text/html")
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
