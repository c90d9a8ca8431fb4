"""Logs, restarts and cancels as servers answered them, through a real session; what a session may send."""

import gzip
import json
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from raw import response, serving
from replay import TOKEN, Replay, build_in, opened, recording, recordings, replaying

from exporter.cli.builds_find import DENIED, MISSING, UNFIT, code_of
from exporter.cli.common import SERVER
from exporter.http import ServerError, Session
from exporter.model import Build, Status, Step
from exporter.servers import Line, Publisher, Server
from exporter.servers.operations import change
from exporter.telemetry import Telemetry

PATH = "/api/repos/octo/hello/builds/7"
NO_RIGHT = "the token's user has no right to change it (Drone calls that push or write), or it is not there"
NO_LOG = "the server has no log of it: not yet (it may take half a minute), or no more"
NOT_ACCEPTED = "the token was not accepted: make a new one on the server's page of its user's account"
IS_RUNNING = "Cannot cancel a non-running build"
UNICODE = [
    Line("+ go build"),
    Line("正在编译 主程序 …", 1),
    Line("\x1b[32mok\x1b[0m\tdone", 4),
]  # fmt: skip

RESTARTED = {
    "drone-0.5/restart": (2, 0, "pending", 1795295278),
    "drone-0.5/restart-fork": (15, 1, "pending", 1795295279),
    "drone-0.5/restart-deploy": (16, 1, "pending", 1795295279),
    "drone-0.8/restart": (18, 2, "pending", 1795295279),
    "drone-0.8/restart-running": (17, 13, "pending", 1795295279),
    "drone-0.8/restart-fork": (19, 1, "pending", 1795295279),
    "drone-0.8/restart-deploy": (20, 1, "pending", 1795295279),
    "drone-1.x/restart": (11, 0, "pending", 1795446631),
}
"""Number, parent, status and the time of queueing of the build that runs after a restart."""

CANCELLED = (
    "drone-0.5/cancel", "drone-0.8/cancel", "drone-0.8/kill", "drone-0.8/kill-not-admin", "drone-1.x/cancel",
    "drone-1.x/cancel-blocked", "drone-1.x/cancel-pending",
)  # fmt: skip

LOGS = {
    "drone-0.5/logs": [
        Line("+ git init", 0, "clone"),
        Line("Initialized empty Git repository in /drone/src/.git/", 0, "clone"),
        Line("", 1, "clone"),
        *(Line(line.text, line.seconds, "build") for line in UNICODE),
        Line("+ go test", 0, "test"),
        Line("PASS", 7, "test"),
    ],
    "drone-0.5/logs-ran": [
        Line("+ step begins", 0, "ambassador"),
        Line("编译完成", 0, "ambassador"),
        *(
            Line(text, 0, step)
            for step, code in (("clone", 0), ("build", 0), ("test", 1), ("notify", 0))
            for text in ("+ step begins", "编译完成", f"exit code {code}")
        ),
    ],
    "drone-0.8/logs": [
        Line("+ git init"),
        Line("Initialized empty Git repository in /drone/src/.git/"),
        Line("", 1),
    ],
    "drone-0.8/logs-ran": [Line("+ step begins"), Line("编译完成")],
    "drone-0.8/logs-unicode": UNICODE,
    "drone-0.8/logs-by-name": UNICODE,
    "drone-1.x/logs": [
        Line("+ echo compiling"), Line("compiling"), Line("+ sleep 1"), Line(""),
        Line("+ echo 'ünïcode 编译完成'", 1), Line("ünïcode 编译完成", 1), Line("", 1),
    ],
}  # fmt: skip
LOGS["drone-0.5/logs-anonymous-public"] = LOGS["drone-0.5/logs"]
LOGS["drone-0.8/logs-anonymous-public"] = LOGS["drone-0.8/logs"]

REFUSED = {
    "drone-0.5/restart-anonymous": (DENIED, f"answered 401: {NOT_ACCEPTED}"),
    "drone-0.5/restart-session-no-csrf": (DENIED, f"answered 401: {NOT_ACCEPTED}"),
    "drone-0.5/restart-no-push": (DENIED, f"answered 404: {NO_RIGHT}"),
    "drone-0.5/restart-unknown": (DENIED, f"answered 404: {NO_RIGHT}"),
    "drone-0.5/restart-not-a-number": (SERVER, "answered 400: look at the log of the server or its proxy"),
    "drone-0.5/restart-running": (UNFIT, "answered 409: Cannot re-start a started build"),
    "drone-0.5/cancel-finished": (UNFIT, f"answered 400: {IS_RUNNING}"),
    "drone-0.5/cancel-pending": (UNFIT, f"answered 400: {IS_RUNNING}"),
    "drone-0.5/cancel-no-push": (DENIED, f"answered 404: {NO_RIGHT}"),
    "drone-0.5/cancel-unknown-build": (DENIED, f"answered 404: {NO_RIGHT}"),
    "drone-0.5/cancel-unknown-step": (DENIED, f"answered 404: {NO_RIGHT}"),
    "drone-0.5/logs-missing": (MISSING, f"step test: {NO_LOG}"),
    "drone-0.5/logs-unknown-build": (MISSING, f"step test: {NO_LOG}"),
    "drone-0.5/logs-unknown-step": (MISSING, f"step test: {NO_LOG}"),
    "drone-0.8/restart-anonymous": (DENIED, f"answered 401: {NOT_ACCEPTED}"),
    "drone-0.8/restart-session-no-csrf": (DENIED, f"answered 401: {NOT_ACCEPTED}"),
    "drone-0.8/restart-no-push": (DENIED, f"answered 404: {NO_RIGHT}"),
    "drone-0.8/restart-unknown": (DENIED, f"answered 404: {NO_RIGHT}"),
    "drone-0.8/restart-not-a-number": (SERVER, "answered 400: look at the log of the server or its proxy"),
    "drone-0.8/restart-blocked": (UNFIT, "answered 500: cannot restart a build with status blocked"),
    "drone-0.8/restart-declined": (UNFIT, "answered 500: cannot restart a build with status declined"),
    "drone-0.8/restart-bad-config": (SERVER, "answered 500: yaml: line 3: did not find expected key"),
    "drone-0.8/cancel-finished": (UNFIT, f"answered 400: {IS_RUNNING}"),
    "drone-0.8/cancel-pending": (UNFIT, f"answered 400: {IS_RUNNING}"),
    "drone-0.8/cancel-no-push": (DENIED, f"answered 404: {NO_RIGHT}"),
    "drone-0.8/cancel-unknown-build": (DENIED, f"answered 404: {NO_RIGHT}"),
    "drone-0.8/cancel-unknown-step": (DENIED, f"answered 404: {NO_RIGHT}"),
    "drone-0.8/kill-finished": (UNFIT, "answered 400: Cannot force cancel a non-running build"),
    "drone-0.8/kill-pending": (UNFIT, "answered 400: Cannot force cancel a non-running build"),
    "drone-0.8/logs-missing": (MISSING, f"step test: {NO_LOG}"),
    "drone-0.8/logs-parent-proc": (MISSING, f"step test: {NO_LOG}"),
    "drone-0.8/logs-skipped-step": (MISSING, f"step test: {NO_LOG}"),
    "drone-0.8/logs-unknown-build": (MISSING, f"step test: {NO_LOG}"),
    "drone-0.8/logs-unknown-step": (MISSING, f"step test: {NO_LOG}"),
    "drone-1.x/restart-anonymous": (DENIED, f"answered 401: {NOT_ACCEPTED}"),
    "drone-1.x/restart-declined": (UNFIT, "answered 400: cannot start a declined build"),
    "drone-1.x/restart-unknown": (DENIED, f"answered 404: {NO_RIGHT}"),
    "drone-1.x/cancel-ended": (UNFIT, "it had ended before (success), and the server changed nothing"),
    "drone-1.x/logs-unknown-step": (MISSING, f"step test: {NO_LOG}"),
}
"""The exit code and how the sentence ends, after server and path."""

ASKED_DIRECTLY = {
    "drone-0.5/cancel-whole-build": (SERVER, "let `url` be the CI server's own address"),
    "drone-0.8/decline": None,
    "drone-0.8/decline-again": (UNFIT, "answered 500: cannot decline a build with status declined"),
    "drone-1.x/approve": None,
    "drone-1.x/decline": None,
}
"""What no operation asks for today; a request for it is answered alike."""


@contextmanager
def server_of(system: str, **options: object) -> Iterator[tuple[Server, Replay]]:
    with replaying(system, "user", "version") as replay:
        server = opened(replay, Telemetry(), **{"allow_writes": True} | options)
        server.whoami()
        yield server, replay
        server.session.close()


def perform(key: str) -> Build | list[Line] | None:
    """What comes of the operation that a recording answers, for a build that is said to run."""
    system, _, name = key.partition("/")
    method, path = (recording(system, name)["request"][word] for word in ("method", "path"))
    parts = path.partition("?")[0].split("/")
    repo, number = f"{parts[3]}/{parts[4]}", int(parts[6]) if parts[6].isdigit() else 1
    build = f"/api/repos/{repo}/builds/{number}"
    with server_of(system) as (server, replay):
        if method == "POST":
            replay.play(name, at=f"POST {build}")
            return server.restart(repo, number)
        if method == "DELETE":
            if system == "drone-0.8":
                replay.play("kill-not-admin", at=f"DELETE {build}").play("cancel", at=f"DELETE {build}/1")
            replay.play(name).serve(build, running(system, number, *parts[7:]))
            server.cancel(repo, number)
            assert sum(line.startswith("DELETE") for line in replay.asked) in {1, 2}
            return None
        replay.play(name)
        log = "/".join(parts[7 if parts[5] == "logs" else 8 :])
        return server.log(repo, number, Step(name="test", status=Status.FAILURE, log=log))


def running(system: str, number: int, leg: str = "1") -> dict[str, Any]:
    """A build of which one job or leg runs, and another waits."""
    row: dict[str, Any] = recording(system, "build-running")["body"]
    row |= {"number": number, "status": "running"}
    if system == "drone-0.5":
        row["jobs"] = [{"number": int(leg), "status": "running"}, {"number": 98, "status": "pending"}]
    if system == "drone-0.8":
        row["procs"] = [{"pid": int(leg), "state": "running"}, {"pid": 98, "state": "pending"}]
    return row


def test_no_recorded_answer_is_left_out() -> None:
    operations = {
        f"{system}/{name}"
        for system in ("drone-0.5", "drone-0.8", "drone-1.x")
        for name in recordings(system)
        if name.startswith(("restart", "cancel", "kill", "logs", "decline", "approve"))
        and (recording(system, name)["request"]["method"] != "GET" or name.startswith("logs"))
    }
    other_path = {"drone-1.x/logs-0.8-path"}
    assert operations - other_path == {*RESTARTED, *CANCELLED, *LOGS, *REFUSED, *ASKED_DIRECTLY}


@pytest.mark.parametrize("key", RESTARTED)
def test_restarts(key: str) -> None:
    build = perform(key)
    assert isinstance(build, Build)
    assert (build.number, build.parent, build.status.word, build.run) == RESTARTED[key]


@pytest.mark.parametrize("key", CANCELLED)
def test_cancels(key: str) -> None:
    assert perform(key) is None


@pytest.mark.parametrize("key", LOGS)
def test_logs(key: str) -> None:
    assert perform(key) == LOGS[key]


@pytest.mark.parametrize("key", REFUSED)
def test_refusals(key: str) -> None:
    with pytest.raises(ServerError) as caught:
        perform(key)
    code, words = REFUSED[key]
    assert (code_of(caught.value), caught.value.message[-len(words) :]) == (code, words)
    assert caught.value.message.startswith("server ci: /api/repos/octo/")


@pytest.mark.parametrize("key", ASKED_DIRECTLY)
def test_what_no_operation_asks_for_is_answered_alike(key: str) -> None:
    system, _, name = key.partition("/")
    request = recording(system, name)["request"]
    with server_of(system) as (server, replay):
        replay.play(name)
        if expected := ASKED_DIRECTLY[key]:
            with pytest.raises(ServerError, match=expected[1]) as caught:
                change(server.session, request["method"], request["path"], "test")
            assert code_of(caught.value) == expected[0]
        else:
            assert change(server.session, request["method"], request["path"], "test").status in {200, 204}


# What the tables do not tell


def test_1_x_may_begin_nothing() -> None:
    with server_of("drone-1.x") as (server, replay):
        replay.serve(f"POST {PATH}", None)
        assert server.restart("octo/hello", 7) is None


@pytest.mark.parametrize("system", ["drone-0.5", "drone-0.8"])
def test_every_leg_that_runs_is_stopped(system: str) -> None:
    build = running(system, 7)
    key, number = ("jobs", "number") if system == "drone-0.5" else ("procs", "pid")
    state = "status" if system == "drone-0.5" else "state"
    build[key] = [{number: n, state: "running" if n < 4 else "pending"} for n in (1, 2, 3, 4)]
    with server_of(system) as (server, replay):
        replay.serve(PATH, build)
        for leg, name in ((1, "cancel"), (2, "cancel-finished"), (3, "cancel")):
            replay.play(name, at=f"DELETE {PATH}/{leg}")
        if system == "drone-0.8":
            replay.play("kill-not-admin", at=f"DELETE {PATH}")
        server.cancel("octo/hello", 7)  # leg 2 had ended by then
        assert [line for line in replay.asked if line.startswith(f"DELETE {PATH}/")] == [
            f"DELETE {PATH}/{leg}" for leg in (1, 2, 3)
        ]
        replay.play("cancel-no-push", at=f"DELETE {PATH}/3")
        with pytest.raises(ServerError, match="no right"):
            server.cancel("octo/hello", 7)


def test_a_leg_is_stopped_where_a_server_does_not_know_the_whole() -> None:
    """0.6 answers its web page."""
    with server_of("drone-0.8") as (server, replay):
        page = recording("drone-0.5", "cancel-whole-build")
        replay.answers[f"DELETE {PATH}"] = page
        replay.serve(PATH, running("drone-0.8", 7)).play("cancel", at=f"DELETE {PATH}/1")
        server.cancel("octo/hello", 7)
        assert replay.asked[-3:] == [f"DELETE {PATH}", PATH, f"DELETE {PATH}/1"]


@pytest.mark.parametrize("system", ["drone-0.5", "drone-0.8"])
def test_where_nothing_runs_nothing_is_stopped(system: str) -> None:
    with server_of(system) as (server, replay):
        if system == "drone-0.8":
            replay.play("kill-not-admin", at=f"DELETE {PATH}")
        build = running(system, 7)
        build["jobs"] = build["procs"] = None
        replay.serve(PATH, build)
        with pytest.raises(ServerError, match="this server stops no build that waits") as caught:
            server.cancel("octo/hello", 7)
        assert code_of(caught.value) == UNFIT
        assert not [line for line in replay.asked if line.startswith(f"DELETE {PATH}/")]


@pytest.mark.parametrize(
    ("status", "why"),
    [
        (Status.SKIPPED, "it never ran, so it has no log"),
        (Status.RUNNING, "it has not ended, and the server shows its log only then"),
        (Status.PENDING, "it has not ended, and the server shows its log only then"),
        (Status.SUCCESS, NO_LOG),
    ],
)
def test_why_there_is_no_log(status: Status, why: str) -> None:
    with server_of("drone-1.x") as (server, _), pytest.raises(ServerError, match="step test") as caught:
        server.log("octo/hello", 7, Step(name="test", status=status, log="1/9"))
    assert caught.value.message == f"server ci: {PATH}/logs/1/9: step test: {why}"
    assert caught.value.missing


def test_of_a_log_that_is_broken_in_places_the_rest_is_shown() -> None:
    rows = [
        {"out": "one\n"},
        {"out": 2},
        "three",
        {"out": "four\nfive\r\n", "time": 3},
        {"out": "six", "type": 3},
    ]
    with server_of("drone-1.x") as (server, replay):
        replay.serve(f"{PATH}/logs/1/2", rows)
        lines = server.log("octo/hello", 7, Step(name="test", status=Status.FAILURE, log="1/2"))
    assert lines == [Line("one"), Line("four", 3), Line("five\r", 3)]


def test_errors_of_builds_are_told() -> None:
    for system, name, words in (
        ("drone-0.5", "build-ran-cancel", "termination request received, build cancelled"),
        ("drone-0.8", "build-error-config", "yaml: line 4: did not find expected key"),
        ("drone-0.8", "build-ran-timeout", "Cancelled"),
        ("drone-1.x", "build-error-config", "yaml: line 1: mapping values are not allowed in this context"),
    ):
        with server_of(system) as (server, replay):
            assert build_in(server, replay, name).error == words


# ABF: decisions about packages, and logs that are files

DECIDED = {
    "rosa-cancel": (7, None),
    "rosa-cancel-refused": (7, (UNFIT, "answered 422: it neither waits nor runs")),
    "rosa-cancel-forbidden": (12, (DENIED, "may not do that, or it neither waits nor runs")),
    "om-cancel": (7, None),
    "om-cancel-refused": (7, (UNFIT, "answered 422: it neither waits nor runs")),
    "rosa-publish": (1, None),
    "rosa-publish-refused": (12, (DENIED, "may not do that, or there is nothing of it to publish")),
    "om-publish": (1, None),
    "rosa-reject-publish": (3, None),
    "rosa-reject-refused": (12, (UNFIT, "answered 422: there is nothing of it to reject")),
}
"""The build list, and what comes of it: nothing, or the exit code and how the sentence ends."""


@pytest.fixture
def abf() -> Iterator[tuple[Server, Replay]]:
    with replaying("abf", "rosa-arches") as replay:
        server = opened(replay, Telemetry(), allow_writes=True)
        yield server, replay
        server.session.close()


@pytest.mark.parametrize("name", DECIDED)
def test_decisions_about_packages(name: str, abf: tuple[Server, Replay]) -> None:
    server, replay = abf
    replay.play(name)
    number, refusal = DECIDED[name]
    assert isinstance(server, Publisher)
    decide = {"cancel": server.cancel, "publish": server.publish, "reject": server.reject}[name.split("-")[1]]
    if refusal is None:
        decide("import/hello", number)
    else:
        with pytest.raises(ServerError) as caught:
            decide("import/hello", number)
        assert (code_of(caught.value), caught.value.message[-len(refusal[1]) :]) == refusal
    assert replay.asked[-1].startswith(f"PUT /api/v1/build_lists/{number}/")


def test_a_limit_of_requests_is_no_lack_of_rights(abf: tuple[Server, Replay]) -> None:
    server, replay = abf
    replay.play("om-rate-limited", at="PUT /api/v1/build_lists/7/cancel.json")
    with pytest.raises(ServerError, match="this hour's requests are all made") as caught:
        server.cancel("import/hello", 7)
    assert (caught.value.reason, code_of(caught.value)) == ("limit", SERVER)


def test_logs_are_files_that_are_read_without_the_token(abf: tuple[Server, Replay]) -> None:
    server, replay = abf
    with replaying("abf") as store:
        shown = recording("abf", "rosa-show-with-packages-and-logs")
        row = shown["body"]["build_list"]
        for file in row["logs"]:
            path = file["url"].removeprefix("https://file-store.example.com")
            file["url"] = store.url + path
            text = f"+ {file['file_name']}\n\x1b[31mred\x1b[0m\n".encode()
            store.answers[path] = {"status": 200, "headers": {"Content-Type": "text/plain"}, "body": text}
        replay.answers[f"/api/v1/build_lists/{row['id']}.json"] = shown
        step = Step(name="build", status=Status.FAILURE)
        assert server.log("import/hello", row["id"], step) == [
            Line(text, 0, file)
            for file in ("build.log", "root.log")
            for text in (f"+ {file}", "\x1b[31mred\x1b[0m")
        ]
        assert store.tokens == [None, None]
        assert replay.tokens[-1] is not None
        store.answers.clear()
        with pytest.raises(ServerError, match=r"file build\.log is not on the file store any more") as caught:
            server.log("import/hello", row["id"], step)
        assert caught.value.missing
        store.answers[store.asked[0]] = {"status": 502, "headers": {}, "body": ""}
        with pytest.raises(ServerError, match="answered 502"):
            server.log("import/hello", row["id"], step)
    for url in ("file:///etc/passwd", "/etc/passwd", "http://[", "ftp://127.0.0.1/x"):
        row["logs"][0]["url"] = url
        with pytest.raises(ServerError, match=r"file build\.log has no address on a file store"):
            server.log("import/hello", row["id"], step)


def test_of_a_build_that_runs_the_tail_is_shown(abf: tuple[Server, Replay]) -> None:
    server, replay = abf
    shown = recording("abf", "rosa-show-started")
    number = shown["body"]["build_list"]["id"]
    replay.answers[f"/api/v1/build_lists/{number}.json"] = shown
    tail = f"/build_lists/{number}/log"
    replay.serve(tail, {"log": "one\ntwo\n", "building": True})
    step = Step(name="build", status=Status.RUNNING)
    assert server.log("import/hello", number, step) == [Line("one"), Line("two")]
    replay.serve(tail, {"log": "Log not available yet.", "building": False})
    with pytest.raises(ServerError, match="it has not ended"):
        server.log("import/hello", number, step)
    with pytest.raises(ServerError, match="the server has no log of it"):
        server.log("import/hello", number, Step(name="build", status=Status.FAILURE))


# What a session sends


def test_nothing_but_get_is_sent_unless_it_is_allowed() -> None:
    with server_of("drone-1.x", allow_writes=False) as (server, replay):
        replay.play("restart", at=f"POST {PATH}").play("cancel", at=f"DELETE {PATH}")
        for operation in (server.restart, server.cancel):
            with pytest.raises(ServerError, match="`allow_writes: true`"):
                operation("octo/hello", 7)
        assert {line.partition(" ")[0] for line in replay.asked} == {"/api/user", "/version"}


def session_of(url: str) -> Session:
    return Session(name="ci", url=url, token=TOKEN, telemetry=Telemetry(), timeout=5.0, allow_writes=True)


def test_a_change_is_sent_once_whatever_becomes_of_it() -> None:
    def behaviour(connection: socket.socket, request: bytes, number: int) -> None:
        if request.startswith(b"GET"):
            connection.sendall(response())
        else:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            socket.close(connection.detach())

    with serving(behaviour) as server:
        session = session_of(server.url)
        session.get("/api/user", "user")
        with pytest.raises(ServerError, match="refused or cut"):
            change(session, "POST", PATH, "restart")
        session.close()
    posts = [request for request in server.requests if request.startswith(b"POST")]
    assert len(posts) == 1
    assert b"Content-Length: 0\r\n" in posts[0]
    assert f"Authorization: Bearer {TOKEN}".encode() in posts[0]
    assert server.connections == 2, "a change has a connection of its own"


def test_a_whole_answer_of_202_is_read() -> None:
    body = json.dumps({"message": "x" * 300_000}).encode()
    packed = response(202, gzip.compress(body), Content_Encoding="gzip")
    with serving(lambda connection, *_: connection.sendall(packed)) as server:
        session = session_of(server.url)
        assert change(session, "POST", PATH, "restart").body == body
        session.close()


def test_the_words_of_a_refusal_are_tamed() -> None:
    said = f"no\r\nway \x1b]52;c;aGk=\x07 {TOKEN} \u202e" + "x" * 500
    with serving(
        lambda connection, *_: connection.sendall(response(409, said.encode(), "text/plain"))
    ) as server:
        session = session_of(server.url)
        with pytest.raises(ServerError) as caught:
            change(session, "POST", PATH, "restart")
        session.close()
    words = caught.value.message.partition("answered 409: ")[2]
    assert words.startswith("no way \ufffd]52;c;aGk=\ufffd <secret> \ufffdxxx")
    assert len(words) == 200
