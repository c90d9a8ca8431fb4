"""kill -9 at any moment, and a channel that answers as it likes: no message is lost, all come in order."""

import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
import pytest
from crashing import POINTS
from process import configure, entry, exporter, until

from exporter.ledger.schema import DELIVERED
from exporter.model import Status
from exporter.notify.lane import THREADS
from exporter.simulator import Clock, World, serve

SEED = int(os.environ.get("KILL_SEED", "20261124"))
KILLS = 11
LONGEST_LIFE = 2.0
REPOS, EACH = 60, 5
"""Builds of a repo: red, red by somebody else or not, green, red and green."""
LIVE = 20.0
"""Seconds in which builds end."""
TROUBLE = 0.25
"""Of all answers those that are none."""
CRASHING = Path(__file__).with_name("crashing.py")


@dataclass
class Message:
    """One message as it came: when, how it was answered, and what it says."""

    key: str
    answer: str
    """`ok`; `refused`; `hang` or `reset`: taken, and the sender does not know."""
    kind: str
    repo: str
    number: int


@dataclass
class Channel:
    """A webhook's receiver that refuses, hangs and hangs up at random while it is `moody`."""

    chance: random.Random
    moody: bool = True
    got: list[Message] = field(default_factory=list)
    url: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, body: bytes) -> tuple[str, int, dict[str, str]]:
        said = msgspec.json.decode(body)
        with self.lock:
            answer, status, headers = "ok", 200, dict[str, str]()
            if self.moody and self.chance.random() < TROUBLE:
                soon = formatdate(time.time() + 1, usegmt=True)
                answer, status, headers = self.chance.choice(
                    [
                        ("refused", 500, {}),
                        ("refused", 503, {}),
                        ("refused", 429, {"Retry-After": "1"}),
                        ("refused", 429, {"Retry-After": soon}),
                        ("hang", 0, {}),
                        ("reset", 0, {}),
                    ]
                )
            number = said["build"]["number"] if said["build"] else 0
            self.got.append(Message(said["key"], answer, said["kind"], said["repo"], number))
        return answer, status, headers


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Says nothing of clients that are killed."""


@contextmanager
def channel(seed: int) -> Iterator[Channel]:
    made = Channel(random.Random(seed))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            answer, status, headers = made.answer(self.rfile.read(int(self.headers["Content-Length"])))
            if answer == "hang":
                time.sleep(1.5)
            if answer in ("hang", "reset"):
                self.close_connection = True
                return
            self.send_response_only(status)
            for name, value in {**headers, "Content-Length": "0"}.items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    server = _Server(("127.0.0.1", 0), Handler)
    made.url = f"http://127.0.0.1:{server.server_address[1]}/hook"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def notify(directory: Path, hook: Channel) -> dict[str, Any]:
    (directory / "hook").write_text(hook.url)
    target = {"name": "team", "type": "webhook", "url_file": "hook", "timeout": "1s"}
    return {"targets": [target], "storm": 0}


def plan(world: World, chance: random.Random) -> None:
    """Of each repo: red, red, green, red, green; one after the other, at random moments."""
    now = world.clock.now()
    for repo in world.repos:
        moments = sorted(chance.uniform(1, LIVE) for _ in range(EACH))
        for moment, outcome in zip(
            moments, ("failure", "error", "success", "failure", "success"), strict=True
        ):
            at = now + moment
            begin = partial(world.start_build, repo, branch="main", outcome=outcome)
            world.at(at, lambda when, begin=begin: begin(started=when, finished=when + 0.5, at=when))


def rows_of(directory: Path) -> list[sqlite3.Row]:
    with sqlite3.connect(directory / "ledger.db") as ledger:
        ledger.row_factory = sqlite3.Row
        return list(ledger.execute("SELECT * FROM outbox ORDER BY id"))


def expected(directory: Path) -> dict[str, list[tuple[str, int]]]:
    """What is to be told of each repo, by what was recorded and in which order."""
    with sqlite3.connect(directory / "ledger.db") as ledger:
        ends = ledger.execute(
            "SELECT repos.name, number, status FROM builds JOIN repos ON repos.id = repo_id "
            "ORDER BY recorded, number"
        ).fetchall()
    told: dict[str, list[tuple[str, int]]] = defaultdict(list)
    newest: dict[str, int] = {}
    red: dict[str, bool] = {}
    for repo, number, status in ends:
        if number < newest.get(repo, 0):
            continue
        newest[repo] = number
        bad, was = status != Status.SUCCESS, red.get(repo, False)
        red[repo] = bad
        if bad and was:
            told[repo].append(("changed", number))
        elif bad is not was:
            flips = sum(kind != "changed" for kind, _ in told[repo])
            told[repo].append(("flapping" if flips == 3 else "opened" if bad else "resolved", number))
    return told


def test_kills_lose_no_message_and_keep_their_order(tmp_path: Path) -> None:
    print(f"seed {SEED}")
    chance = random.Random(SEED)
    world = World("drone-1", clock=Clock.real(), seed=1, default_branch="main")
    world.add_repos([f"octo/r{number:02}" for number in range(REPOS)])
    with serve(world) as running, channel(SEED) as hook:
        configure(tmp_path, entry(tmp_path, "ci", running), notify=notify(tmp_path, hook))
        with exporter(tmp_path) as process:
            process.ready()
            plan(world, chance)
            over = world.clock.now() + LIVE + 1
            for turn in range(KILLS):
                process.started()
                time.sleep(chance.uniform(0, LONGEST_LIFE))
                process.kill()
                print(f"kill {turn + 1}: {len(hook.got)} messages came, {len(rows_of(tmp_path))} are written")
                process.start()
            process.ready()
            until("the end of all builds", lambda: world.clock.now() > over, LIVE)
            hook.moody = False

            def done() -> bool:
                rows = rows_of(tmp_path)
                ended = sum(1 for _ in world.runs())
                with sqlite3.connect(tmp_path / "ledger.db") as ledger:
                    (settled,) = ledger.execute("SELECT count(*) FROM builds WHERE state = 2").fetchone()
                return settled == ended == REPOS * EACH and all(row["state"] >= DELIVERED for row in rows)

            until("every message", done, 30)
            assert process.stop() == 0

    rows = rows_of(tmp_path)
    told: dict[str, list[tuple[str, int]]] = {repo: [] for repo in world.repos}
    for row in rows:
        facts = msgspec.json.decode(row["facts"])
        told[facts["repo"]].append((row["kind"], facts["number"]))
    assert told == expected(tmp_path)
    assert {row["state"] for row in rows} == {DELIVERED}

    taken = Counter(message.key for message in hook.got if message.answer != "refused")
    assert set(taken) == {row["key"] for row in rows}, "each message came"
    in_order = {row["key"]: (row["thread"], row["id"]) for row in rows}
    for message in hook.got:
        thread, place = in_order[message.key]
        assert all(
            taken_before(hook, key, message)
            for key, (of, at) in in_order.items()
            if of == thread and at < place
        )
    repeated = sum(taken.values()) - len(taken)
    ambiguous = sum(message.answer in ("hang", "reset") for message in hook.got)
    print(f"{len(taken)} messages, {repeated} repeated, {ambiguous} without an answer")
    assert repeated <= KILLS * THREADS + ambiguous
    assert ambiguous > 0
    assert any(message.answer == "refused" for message in hook.got)


def taken_before(hook: Channel, key: str, message: Message) -> bool:
    """True when a message had been taken before this one came."""
    for one in hook.got:
        if one is message:
            return False
        if one.key == key and one.answer != "refused":
            return True
    return False


@pytest.mark.parametrize(
    ("point", "sent"), [("before the commit", 1), ("after the commit", 1), ("after the send", 2)]
)
def test_a_crash_at_any_point_is_made_good(tmp_path: Path, point: str, sent: int) -> None:
    assert point in POINTS
    world = World("drone-1", clock=Clock.real(), seed=1, default_branch="main")
    world.add_repo("octo/hello")
    with serve(world) as running, channel(SEED) as hook:
        hook.moody = False
        configure(tmp_path, entry(tmp_path, "ci", running), notify=notify(tmp_path, hook))
        with exporter(tmp_path) as process:
            process.ready()
            assert process.stop() == 0
        time.sleep(1.1)  # what ends in the second in which the repo was first seen is history
        number = world.start_build("octo/hello", branch="main", running=True)
        world.finish("octo/hello", number, "failure")
        crashed = subprocess.run(
            [sys.executable, CRASHING, point, "run"],
            cwd=tmp_path,
            capture_output=True,
            timeout=20,
            check=False,
        )
        assert crashed.returncode == -signal.SIGKILL, crashed.stderr
        before = len(hook.got)
        assert before <= sent - (point == "before the commit")
        with exporter(tmp_path) as process:
            until("the message", lambda: [row["state"] for row in rows_of(tmp_path)] == [DELIVERED])
            assert process.stop() == 0
        assert Counter((one.kind, one.number) for one in hook.got).keys() == {("opened", number)}
        assert len({one.key for one in hook.got}) == 1
        assert len(hook.got) <= sent
        assert (point == "after the send") is (before == 1 and len(hook.got) == 2)
