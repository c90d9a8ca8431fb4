"""Change streams make looks come sooner: what is heeded, how often, and what a bad stream costs."""

import logging
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import trustme
from process import Exporter, configure, entry, exporter, first_look, until
from pydantic import SecretStr
from raw import Behaviour, always, response, serving

from exporter.config import RepoFilter, ServerSettings
from exporter.http import Session
from exporter.ledger import Ledger, Moment
from exporter.model import Repo
from exporter.numbers import Numbers
from exporter.roster import Roster
from exporter.schedule import Schedule
from exporter.servers import Limits
from exporter.servers.detect import open_server
from exporter.simulator import Clock, Running, World, serve
from exporter.simulator.streams import KINDS
from exporter.streams import MOST_STRANGERS, REST, Hints, Pace, Subscription
from exporter.telemetry import Telemetry

NOW = 1_800_000_000.0
HELLO = "octo/hello"
DIALECTS = list(KINDS)
POLLED = {
    "drone-0.5": "/api/user/feed", "drone-0.8": "/api/user/feed", "drone-1": "/api/user/builds",
    "woodpecker": "/api/user/feed",
}  # fmt: skip
QUICK = Pace(first=0.01, longest=0.02, proven=0.2)
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n: ping\n\n"


class Ear:
    """A subscription to one server, whose hints are counted."""

    def __init__(self, directory: Path, url: str, token: str, dialect: str, pace: Pace = QUICK) -> None:
        self.hints = 0
        self.settings = ServerSettings.model_validate({
            "name": "ci", "url": url, "token": SecretStr(token), "dialect": dialect,
            "repos": RepoFilter(exclude=("octo/ignored",)),
        })  # fmt: skip
        self._ledger = Ledger(f"sqlite:///{directory}/ledger.db")
        self._ledger.migrate()
        roster = Roster(self._ledger, self.settings)
        with self._ledger.transaction() as conn:
            roster.update(
                conn, [Repo(name=HELLO)], {}, Limits(feed_rows=50, page_size=50), Numbers(), Moment(NOW, NOW)
            )
        self.subscription = Subscription(self.settings, roster, self._hint, pace)
        self.subscription.start()

    def meet(self) -> None:
        self.subscription.meet(open_server(self.settings, Telemetry()))

    def _hint(self) -> None:
        self.hints += 1

    def hinted(self) -> bool:
        """True, after a hint, once; those that follow close behind count with it."""
        until("a hint", lambda: self.hints, 5)
        while self.hints:
            self.hints = 0
            time.sleep(0.3)
        return True

    def close(self) -> None:
        self.subscription.close()
        self._ledger.close()


@contextmanager
def ear(
    directory: Path, url: str, token: str = "token", dialect: str = "drone-1", pace: Pace = QUICK
) -> Iterator[Ear]:
    made = Ear(directory, url, token, dialect, pace)
    try:
        made.meet()
        yield made
    finally:
        made.close()


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("stream of")]


# Which events are heeded


@pytest.mark.parametrize("dialect", DIALECTS)
def test_events_of_watched_repos_are_hints(dialect: str, tmp_path: Path) -> None:
    world = World(dialect, clock=Clock(NOW))
    for name in (HELLO, "octo/ignored", "octo/new"):
        world.add_repo(name)
    with serve(world) as running, ear(tmp_path, running.url, world.token, dialect, Pace()) as one:
        assert one.hinted(), "it was opened"
        number = world.start_build(HELLO, running=True)
        assert one.hinted()
        world.finish(HELLO, number)
        assert one.hinted()
        world.start_build("octo/ignored", running=True)
        world.start_build("octo/new", running=True)
        assert one.hinted(), "a repo that no list has shown yet"
        number = world.start_build("octo/new", running=True)
        world.finish("octo/new", number)
        world.start_build("octo/ignored", running=True)
        time.sleep(0.5)
        assert one.hints == 0, "once is enough"


def test_a_server_of_strangers_is_not_remembered_without_end(tmp_path: Path) -> None:
    events = b"".join(b'data: {"slug":"a/%d"}\n\n' % i for i in range(3 * MOST_STRANGERS))

    def behaviour(connection: socket.socket, *_: object) -> None:
        connection.sendall(HEAD + events)
        connection.recv(1)

    with serving(behaviour) as server, ear(tmp_path, server.url, pace=Pace()) as one:
        until("all that is heeded", lambda: one.hints == MOST_STRANGERS + 1)
        time.sleep(0.2)
        assert one.hints == MOST_STRANGERS + 1


def test_a_name_that_is_no_repos_is_neither_heeded_nor_kept(tmp_path: Path) -> None:
    names = [f"a/{i}{'x' * 100_000}" for i in range(10)] + ["noslash", "a/b/c", "a/ b"]
    events = b"".join(b'data: {"slug":"%s"}\n\n' % name.encode() for name in [*names, "octo/last"])

    def behaviour(connection: socket.socket, *_: object) -> None:
        connection.sendall(HEAD + events)
        connection.recv(1)

    with serving(behaviour) as server, ear(tmp_path, server.url, pace=Pace()) as one:
        until("the last of them", lambda: one.hints > 1)
        time.sleep(0.2)
        assert one.hints == 2, "that it was opened, and the last one"


# A stream that fails


def closes(connection: socket.socket, *_: object) -> None:
    connection.sendall(HEAD)
    connection.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize(
    "behaviour", [always(response(401, b"")), always(response(200, b"<html>", "text/html")), closes]
)
def test_a_stream_that_goes_and_comes_back_is_told_of_once(
    behaviour: Behaviour, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    well = threading.Event()

    def answer(connection: socket.socket, request: bytes, count: int) -> None:
        if not well.is_set():
            behaviour(connection, request, count)
            return
        connection.sendall(HEAD)
        for _ in range(6):
            time.sleep(0.1)
            connection.sendall(b": ping\n\n")
        connection.shutdown(socket.SHUT_RDWR)

    def said() -> list[str]:
        return [record.getMessage() for record in caplog.records if record.name == "exporter.streams"]

    with serving(answer) as server, ear(tmp_path, server.url):
        until("many tries", lambda: len(server.requests) > 20)
        until("the bad news", said)
        time.sleep(0.2)
        assert len(said()) == 1
        assert said()[0].startswith("server ci: /api/stream: ")
        well.set()
        until("the good news", lambda: len(said()) > 1)
        assert said()[1:] == ["the change stream is heard again"]
        tries = len(server.requests)
        until("the end of a long life", lambda: len(server.requests) > tries + 1)
        assert len(said()) == 2, "that a stream ends after a long life is no news"


def test_pauses_grow_and_begin_anew(tmp_path: Path) -> None:
    times: list[float] = []

    def answer(connection: socket.socket, _: bytes, count: int) -> None:
        times.append(time.monotonic())
        connection.sendall(HEAD)
        if count == 7:
            time.sleep(0.4)
            connection.sendall(b": ping\n\n")
        connection.shutdown(socket.SHUT_RDWR)

    with serving(answer) as server, ear(tmp_path, server.url, pace=Pace(0.02, 0.4, 0.3)):
        until("nine tries", lambda: len(times) > 8)
        pauses = [after - before for before, after in pairwise(times)]
        assert all(0.01 * 2**i < pauses[i] < 0.02 * 2**i + 0.1 for i in range(5)), pauses
        assert 0.2 < pauses[5] < 0.5, pauses
        assert pauses[6] < 0.4 + 0.12, "after a long life the first pause is short"
        assert pauses[7] < 0.14


def test_a_server_that_answers_again_is_heard_at_once(tmp_path: Path) -> None:
    with (
        serving(always(response(503, b""))) as server,
        ear(tmp_path, server.url, pace=Pace(60, 60, 60)) as one,
    ):
        until("a try", lambda: server.requests)
        one.meet()
        until("another", lambda: len(server.requests) == 2, 2)


def test_a_stream_asks_for_no_more_than_the_server_wants(tmp_path: Path) -> None:
    with serving(always(response(429, b"", Retry_After="30"))) as server, ear(tmp_path, server.url):
        until("a try", lambda: server.requests)
        time.sleep(0.5)
        assert len(server.requests) == 1


def test_closing_ends_the_thread_and_its_hints(tmp_path: Path) -> None:
    world = World("drone-1", clock=Clock(NOW))
    world.add_repo(HELLO)
    with serve(world) as running:
        with ear(tmp_path, running.url, world.token) as one:
            assert one.hinted()
            assert threads()
        until("no thread", lambda: not threads(), 1)
        world.start_build(HELLO, running=True)
        time.sleep(0.3)
        assert one.hints == 0


class ClearedLate(threading.Event):
    """What it is told of, it tells `told` just before it forgets it."""

    told: Callable[[], None] | None = None

    def clear(self) -> None:
        told, self.told = self.told, None
        if told is not None:
            told()
        super().clear()


@pytest.mark.parametrize("when", ["before it looks for the server", "before it connects"])
def test_an_end_in_between_is_an_end(when: str, tmp_path: Path) -> None:
    def says_nothing(connection: socket.socket, *_: object) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        connection.recv(1)

    with serving(says_nothing) as server, ear(tmp_path, server.url) as one:
        subscription, known = one.subscription, open_server(one.settings, Telemetry())
        until("the first stream", lambda: server.requests)

        class Met:
            limits = known.limits

            @property
            def session(self) -> Session:
                subscription.close()
                return known.session

        news = ClearedLate()
        waiting, subscription._news = subscription._news, news
        if when == "before it connects":
            subscription._server = Met()  # type: ignore[assignment]
        else:
            news.told = subscription.close
        assert subscription._channel is not None
        subscription._channel.close()
        waiting.set()
        until("no thread", lambda: not threads(), 2)


def test_abf_has_none(tmp_path: Path) -> None:
    with serving(always(response())) as server, ear(tmp_path, server.url, dialect="abf") as one:
        time.sleep(0.2)
        assert (server.connections, one.hints) == (0, 0)
    until("no thread", lambda: not threads(), 1)


# When a look comes


def test_hints_are_due_between_rests() -> None:
    now = [0.0]
    hints = Hints(lambda: now[0])
    hints.give()
    assert hints.due, "the first at once"
    hints.begin()
    assert not hints.due
    hints.give()
    now[0] += 5
    hints.end()
    assert (hints.due, hints.wait()) == (False, 5.0), "a server that takes long is asked half of the time"
    now[0] += 5
    assert hints.due
    hints.begin()
    now[0] += 0.25
    hints.end()
    now[0] += REST
    assert not hints.due, "what came before a look is seen by it"


class Looks:
    """A job that takes a while, run by a schedule, and when it began."""

    def __init__(self, seconds: float, takes: float) -> None:
        self.began: list[float] = []
        self.hints = Hints(time.monotonic)
        self.schedule = Schedule()
        self.hurry = self.schedule.watch("ci", seconds, lambda: self._look(takes), self.hints.wait)
        self.schedule.start()

    def _look(self, takes: float) -> None:
        self.hints.begin()
        self.began.append(time.monotonic())
        time.sleep(takes)
        self.hints.end()


@contextmanager
def looks(seconds: float, takes: float) -> Iterator[Looks]:
    made = Looks(seconds, takes)
    try:
        until("the first look", lambda: made.began)
        yield made
    finally:
        made.schedule.stop()


def test_a_hint_brings_a_look_at_once() -> None:
    with looks(60, 0) as job:
        time.sleep(REST)
        job.hurry()
        until("a look", lambda: len(job.began) == 2, 0.5)


def test_hints_during_a_look_bring_one_more() -> None:
    takes = REST + 0.2
    with looks(60, takes) as job:
        for _ in range(50):
            job.hurry()
        until("another look", lambda: len(job.began) == 2, 2 * takes + 1)
        time.sleep(2 * takes + 0.3)
        assert len(job.began) == 2


def test_a_storm_of_hints_is_no_storm_of_looks() -> None:
    with looks(60, 0.05) as job:
        end = time.monotonic() + 3 * REST
        while time.monotonic() < end:
            job.hurry()
            time.sleep(0.001)
        assert 3 <= len(job.began) <= 4
        assert all(after - before >= REST for before, after in pairwise(job.began))


def test_hints_put_no_look_off() -> None:
    with looks(0.2, 0) as job:
        job.hurry()
        until("the next look", lambda: len(job.began) > 2, 0.7)


# End to end


def failures(process: Exporter) -> float:
    """Ends that were counted as failures."""
    page = process.metrics().items()
    return sum(value for series, value in page if re.match('ci_builds_total.*status="failure"', series))


@contextmanager
def running_exporter(directory: Path, running: Running, **settings: object) -> Iterator[Exporter]:
    configure(directory, entry(directory, "ci", running, **settings))
    first_look(directory, running.world.clock)
    with exporter(directory) as process:
        yield process.started()


def new_world(dialect: str) -> World:
    world = World(dialect, clock=Clock.real(-1000))
    world.add_repo(HELLO, default_branch="main")
    world.finish(HELLO, world.start_build(HELLO, running=True), "failure")
    return world


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_builds_end_is_shown_within_2_seconds(dialect: str, tmp_path: Path) -> None:
    world = new_world(dialect)
    with serve(world) as running, running_exporter(tmp_path, running, poll="15s") as process:
        path = KINDS[dialect].path
        until("the stream", lambda: running.requests["GET", path])
        number = world.start_build(HELLO, running=True)
        time.sleep(1.5)
        before = failures(process)
        world.finish(HELLO, number, "failure")
        until("its end", lambda: failures(process) == before + 1, 2)
        asked = sum(running.requests.values())
        world.clock.advance(1)
        world.short_builds(200, [HELLO], over=2)
        world.clock.advance(10)
        time.sleep(2.5)
        looked = running.requests["GET", POLLED[dialect]]
        assert looked < 12, "a storm of events is none of looks"
        assert sum(running.requests.values()) > asked
        assert process.stop() == 0
        assert process.log.count("stream") == 0


def test_history_lets_hints_through(tmp_path: Path) -> None:
    world = new_world("drone-1")
    world.add_repos([f"octo/old{i}" for i in range(40)], builds=100)
    with serve(world) as running:
        configure(tmp_path, entry(tmp_path, "ci", running, poll="15s", import_rate=5.0))
        with exporter(tmp_path) as process:
            process.ready()
            until("the stream", lambda: running.requests["GET", KINDS["drone-1"].path])
            number = world.start_build(HELLO, running=True)
            time.sleep(2)
            world.finish(HELLO, number, "failure")
            newest = f'ci_last_build_number{{server="ci",repo="{HELLO}",branch="main",event="push"}}'
            until("its end", lambda: process.metrics().get(newest) == number, 2)
            assert process.metrics()['ci_import_repos_remaining{server="ci"}'] > 0, "history was being read"
            read = sum(running.requests.values())
            until("more history", lambda: sum(running.requests.values()) > read + 10, 10)


@pytest.mark.parametrize("broken", ["status", "drop", "silence", "off"])
def test_without_a_stream_everything_is_seen_all_the_same(broken: str, tmp_path: Path) -> None:
    world = new_world("drone-1")
    if broken != "off":
        world.faults.add(broken, KINDS["drone-1"].path)  # type: ignore[arg-type]
    stream = "off" if broken == "off" else "auto"
    with serve(world) as running, running_exporter(tmp_path, running, poll="1s", stream=stream) as process:
        number = world.start_build(HELLO, running=True)
        time.sleep(1)
        before = failures(process)
        world.finish(HELLO, number, "failure")
        until("its end", lambda: failures(process) == before + 1, 5)
        metrics = process.metrics()
        assert metrics['ci_server_up{server="ci"}'] == 1
        assert not [s for s, v in metrics.items() if s.startswith("ci_server_poll_failures_total") and v]
        assert process.stop() == 0
        assert "/api/stream" not in process.log, "the log has time"
        if broken == "off":
            assert ("GET", "/api/stream") not in running.requests


NEXT_TO_NOTHING = {
    "/api/user": b'{"login":"ada","admin":false}', "/version": b'{"source":"","version":"1.10.1"}',
    "/api/user/repos": b"[]", "/api/user/builds": b"[]", "/api/builds/incomplete": b"[]",
}  # fmt: skip


class SecondHangs(ssl.SSLContext):
    """Leaves the second connection's handshake lying: it is the stream's."""

    hung: threading.Event
    count = 0

    def wrap_socket(self, sock: socket.socket, *args: Any, **options: Any) -> Any:
        self.count += 1
        if self.count > 1:
            self.hung.set()
            return sock
        return super().wrap_socket(sock, *args, **options)


@pytest.mark.parametrize("hang", ["before TLS", "before the answer", "in the stream"])
def test_a_signal_ends_a_stream_that_hangs(hang: str, tmp_path: Path) -> None:
    hung = threading.Event()

    def behaviour(connection: socket.socket, request: bytes, _: int) -> None:
        path = request.split()[1].decode().partition("?")[0]
        if path != "/api/stream":
            connection.sendall(response(200, NEXT_TO_NOTHING[path]))
            return
        if hang == "in the stream":
            connection.sendall(HEAD)
        hung.set()
        connection.recv(1)

    context, options = None, {"dialect": "drone-1", "timeout": "60s"}
    if hang == "before TLS":
        authority = trustme.CA()
        authority.cert_pem.write_to_path(tmp_path / "ca.pem")
        options["ca_file"] = "ca.pem"
        context = SecondHangs(ssl.PROTOCOL_TLS_SERVER)
        context.hung = hung
        authority.issue_cert("127.0.0.1").configure_cert(context)
    with serving(behaviour, context) as server:
        configure(tmp_path, entry(tmp_path, "ci", server.url, **options))
        with exporter(tmp_path) as process:
            process.started()
            assert hung.wait(10)
            began = time.monotonic()
            assert process.stop() == 0
            assert time.monotonic() - began < 5
