"""Change streams on the wire: every dialect's, and every way in which one fails, on loopback."""

import io
import json
import logging
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import trustme
from pydantic import SecretStr
from raw import Behaviour, always, response, serving
from websockets.frames import Frame, Opcode
from websockets.utils import accept_key

from exporter.channel import LARGEST_MESSAGE, Channel
from exporter.config import ServerSettings
from exporter.http import ServerError, Session
from exporter.log import setup
from exporter.servers import Stream
from exporter.servers.detect import open_server
from exporter.simulator import Clock, World, serve
from exporter.telemetry import Telemetry

RECORDINGS = Path(__file__).parent / "data" / "recordings"
RECORDED = {
    "drone-0.5": "drone-0.5/ws-feed", "drone-0.8": "drone-0.8/stream-admin",
    "drone-1": "drone-1.x/stream", "woodpecker": "woodpecker/stream",
}  # fmt: skip
DIALECTS = list(RECORDED)
TOKEN = "t0p-s3cr3t-t0k3n"
HELLO = "octo/hello"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
CHUNKED = HEAD.replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n")
PING = b": ping\n\n"
EVENT = b'data: {"slug":"octo/hello"}\n\n'


@pytest.fixture
def telemetry() -> Telemetry:
    return Telemetry()


@pytest.fixture
def channel(telemetry: Telemetry) -> Iterator[Callable[..., Channel]]:
    """Makes channels; whatever is logged at the level `debug` must not hold the token."""
    made: list[Channel] = []
    root, logged = logging.getLogger(), io.StringIO()
    handlers, level = list(root.handlers), root.level
    setup("debug", "logfmt", (), logged)  # knows no secret, so that it hides none

    def make(url: str, **options: Any) -> Channel:
        options = {"name": "ci", "token": TOKEN, "telemetry": telemetry, "timeout": 5.0} | options
        made.append(Channel.beside(Session(url=url, **options)))
        return made[-1]

    yield make
    for one in made:
        one.close()
    root.handlers[:], root.level = handlers, level
    assert TOKEN not in logged.getvalue()


def stream_of(dialect: str) -> Stream:
    settings = ServerSettings(
        name="ci",
        url="http://ci.example.com",
        token=SecretStr(TOKEN),
        dialect=dialect,  # type: ignore[arg-type, call-arg]
    )
    stream = open_server(settings, Telemetry()).limits.stream
    assert stream is not None
    return stream


def told(channel: Channel, *, socket: bool = False, silence: float = 5.0) -> list[str]:
    """All messages of a stream up to its end, without signs of life."""
    return [text for text in channel.listen("/stream", socket=socket, silence=silence) if text]


def fault_of(channel: Channel, **options: Any) -> ServerError:
    with pytest.raises(ServerError) as caught:
        told(channel, **options)
    assert str(caught.value).startswith("server ci: /stream: ")
    assert TOKEN not in repr(vars(caught.value))
    return caught.value


def upgraded(request: bytes) -> bytes:
    key = re.search(rb"(?i)sec-websocket-key: (\S+)", request)
    assert key is not None
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: %b\r\n\r\n" % accept_key(key[1].decode()).encode()
    )


def frame(opcode: Opcode, data: bytes, *, fin: bool = True) -> bytes:
    return Frame(opcode, data, fin).serialize(mask=False)


def talks(*parts: bytes) -> Behaviour:
    """A WebSocket server that says this in one go, then hangs up."""

    def behaviour(connection: socket.socket, request: bytes, _: int) -> None:
        connection.sendall(upgraded(request) + b"".join((*parts, frame(Opcode.CLOSE, b""))))
        connection.shutdown(socket.SHUT_WR)

    return behaviour


def says(*parts: bytes, head: bytes = HEAD) -> Behaviour:
    """A server of events that says this in parts, then hangs up."""

    def behaviour(connection: socket.socket, *_: object) -> None:
        for part in (head, *parts):
            connection.sendall(part)
            time.sleep(0.002)
        connection.shutdown(socket.SHUT_WR)

    return behaviour


# What a dialect makes of it


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_repo_of_each_recorded_event(dialect: str) -> None:
    body = json.loads((RECORDINGS / f"{RECORDED[dialect]}.json").read_text(encoding="utf-8"))["body"]
    lines = [line[6:] for line in body if line.startswith("data: ")] if isinstance(body, list) else []
    events = lines or [json.dumps(event) for event in body.get("events") or body["messages"]]
    repos = {stream_of(dialect).repo_of(event) for event in events}
    assert repos <= {"octo/hello", "adminuser/demo", "octo/gated"}
    assert "octo/hello" in repos


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    "event", ["eof", "{", "[]", "null", "{}", '{"repo":null,"slug":null}', '{"repo":7,"slug":7}', "[" * 9999]
)
def test_an_event_that_makes_no_sense_is_of_no_repo(dialect: str, event: str) -> None:
    assert stream_of(dialect).repo_of(event) == ""


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_build_is_heard_of(dialect: str, channel: Callable[..., Channel], telemetry: Telemetry) -> None:
    world = World(dialect, clock=Clock(1_800_000_000.0))
    world.add_repo(HELLO, private=True)
    stream = stream_of(dialect)
    with serve(world) as running:
        one = channel(running.url, token=world.token)
        heard = one.listen(stream.path, socket=stream.socket, silence=5)
        assert next(heard) == ""
        world.start_build(HELLO, running=True, branch="b" * 2000)
        event = next(text for text in heard if text)
        assert stream.repo_of(event) == HELLO
        one.close()
        with pytest.raises(ServerError, match="not asked any more"):
            list(heard)
    code = "101" if stream.socket else "200"
    assert telemetry.requests.labels("ci", "stream", code)._value.get() == 1


@pytest.mark.parametrize("dialect", ["drone-0.5", "drone-1"])
def test_trust_is_the_sessions(
    dialect: str, tmp_path: Path, channel: Callable[..., Channel], telemetry: Telemetry
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    issued = authority.issue_cert("127.0.0.1")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    issued.private_key_pem.write_to_path(tmp_path / "key.pem")
    stream, world = stream_of(dialect), World(dialect, clock=Clock(1_800_000_000.0))
    world.add_repo(HELLO)
    with serve(world, tls=(str(tmp_path / "cert.pem"), str(tmp_path / "key.pem"))) as running:
        trusting = channel(running.url, token=world.token, ca_file=tmp_path / "ca.pem")
        heard = trusting.listen(stream.path, socket=stream.socket, silence=5)
        assert next(heard) == ""
        world.start_build(HELLO, running=True)
        assert stream.repo_of(next(text for text in heard if text)) == HELLO
        with pytest.raises(ServerError) as caught:
            list(channel(running.url).listen(stream.path, socket=stream.socket, silence=5))
    assert caught.value.reason == "tls"


# How it comes


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
def test_events_in_any_pieces(line_end: bytes, channel: Callable[..., Channel]) -> None:
    whole = (PING + b"event: x\nid: 1\nretry: 1\ndata: a\ndata:b\n\n" + b"data: c\n\n").replace(
        b"\n", line_end
    )
    pieces = [whole[i : i + 1] for i in range(len(whole))]
    with serving(says(*pieces)) as server:
        assert told(channel(server.url)) == ["a\nb", "c"]
    with serving(says(*(b"1\r\n%b\r\n" % piece for piece in pieces), b"0\r\n\r\n", head=CHUNKED)) as server:
        assert told(channel(server.url)) == ["a\nb", "c"]
    assert b"Authorization: Bearer " + TOKEN.encode() in server.requests[0]
    assert b"Accept: text/event-stream" in server.requests[0]


def test_signs_of_life(channel: Callable[..., Channel]) -> None:
    with serving(says(PING, EVENT, PING)) as server:
        heard = list(channel(server.url).listen("/stream", socket=False, silence=5))
    assert heard == ["", '{"slug":"octo/hello"}', ""]
    with serving(talks(frame(Opcode.PING, b"?"), frame(Opcode.TEXT, b"a"))) as server:
        heard = list(channel(server.url).listen("/stream", socket=True, silence=5))
    assert heard == ["", "", "a", ""]


def test_messages_in_fragments_with_a_ping_between(channel: Callable[..., Channel]) -> None:
    answers: list[bytes] = []

    def behaviour(connection: socket.socket, request: bytes, _: int) -> None:
        parts = (
            frame(Opcode.TEXT, b"a" * 1024, fin=False), frame(Opcode.PING, b"?"), frame(Opcode.CONT, b"b"),
        )  # fmt: skip
        for byte in upgraded(request) + b"".join(parts):
            connection.sendall(bytes([byte]))
        answers.append(connection.recv(100))
        connection.sendall(frame(Opcode.CLOSE, b""))
        connection.shutdown(socket.SHUT_WR)

    with serving(behaviour) as server:
        assert told(channel(server.url), socket=True) == ["a" * 1024 + "b"]
    assert answers[0][0] == 0x80 | Opcode.PONG
    assert b"Authorization: Bearer " + TOKEN.encode() in server.requests[0]


def test_all_messages_together_may_be_of_any_size(channel: Callable[..., Channel]) -> None:
    one, count = "x" * (LARGEST_MESSAGE // 4), 12
    with serving(says(*[b"data: %b\n\n" % one.encode()] * count)) as server:
        assert told(channel(server.url)) == [one] * count
    with serving(talks(*[frame(Opcode.TEXT, one.encode())] * count)) as server:
        assert told(channel(server.url), socket=True) == [one] * count


# How it fails


def then(data: bytes, times: int = 1, head: bytes = HEAD) -> Behaviour:
    """Says this so often, and holds the connection."""

    def behaviour(connection: socket.socket, *_: object) -> None:
        with suppress(OSError):
            connection.sendall(head)
            for _ in range(times):
                connection.sendall(data)
            connection.recv(1)

    return behaviour


def resets(connection: socket.socket, *_: object) -> None:
    connection.sendall(HEAD + PING)
    time.sleep(0.1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    socket.close(connection.detach())


REFUSALS: dict[str, tuple[Behaviour, str]] = {
    "401": (always(response(401, b"User not authorized", "text/plain")), "auth"),
    "404": (always(response(404, b"")), "status"),
    "500": (always(response(500, b"")), "status"),
    "502": (always(response(502, b"<html>", "text/html")), "status"),
    "a web page": (always(response(200, b"<html>", "text/html")), "shape"),
    "JSON": (always(response(200, b"[]")), "shape"),
    "no HTTP": (always(b"SSH-2.0-OpenSSH_9.2\r\n"), "shape"),
    "a switch that nobody asked for": (always(response(101, b"")), "shape"),
}
FAILURES: dict[str, tuple[Behaviour, str]] = {
    "silence": (then(PING), "timeout"),
    "silence from the beginning": (then(b""), "timeout"),
    "silence within a chunk": (then(b"fff\r\nabc", head=CHUNKED), "timeout"),
    "a reset": (resets, "refused"),
    "a chunk that breaks off": (says(b"fff\r\nabc", head=CHUNKED), "json"),
    "no text": (says(b"data: \xff\xff\n\n"), "json"),
    "a line without end": (then(b"x" * (1 << 20), 100), "shape"),
    "an event without end": (then(b"data: x\n" * (1 << 17), 100), "shape"),
    "a chunk's length without end": (then(b"0" * (1 << 20), 10, head=CHUNKED), "shape"),
    "chunks of nonsense": (says(b"zzz\r\nabc", head=CHUNKED), "json"),
}
SOCKET_FAILURES: dict[str, tuple[Behaviour, str]] = {
    "a wrong key": (
        lambda connection, request, _: connection.sendall(
            re.sub(rb"Accept: .*", b"Accept: x\r", upgraded(request))
        ),
        "shape",
    ),
    "silence": (lambda connection, request, _: connection.sendall(upgraded(request)), "timeout"),
    "a frame of nonsense": (talks(b"\xff\xff\xff\xff"), "shape"),
    "a message too large": (talks(frame(Opcode.TEXT, b"x" * (LARGEST_MESSAGE + 1))), "shape"),
    "fragments without end": (
        talks(frame(Opcode.TEXT, b"", fin=False), frame(Opcode.CONT, b"", fin=False) * (1 << 20)),
        "shape",
    ),
    "no text": (talks(frame(Opcode.TEXT, b"\xff")), "json"),
    "events": (then(PING), "shape"),
}


@pytest.mark.parametrize("what", [*REFUSALS, *FAILURES])
def test_a_stream_of_events_fails(what: str, channel: Callable[..., Channel]) -> None:
    behaviour, reason = (REFUSALS | FAILURES)[what]
    with serving(behaviour) as server:
        began = time.monotonic()
        assert fault_of(channel(server.url), silence=0.3).reason == reason
        assert time.monotonic() - began < 3


@pytest.mark.parametrize("what", [*REFUSALS, *SOCKET_FAILURES])
def test_a_socket_fails(what: str, channel: Callable[..., Channel]) -> None:
    behaviour, reason = (REFUSALS | SOCKET_FAILURES)[what]
    with serving(behaviour) as server:
        assert fault_of(channel(server.url), socket=True, silence=0.3).reason == reason


@pytest.mark.parametrize("of_socket", [False, True])
def test_the_token_goes_to_no_other_host(of_socket: bool, channel: Callable[..., Channel]) -> None:
    with serving(says(EVENT)) as other:
        moved = response(307, b"", Location=f"{other.url}/stream")
        with serving(always(moved)) as server:
            assert "not followed" in str(fault_of(channel(server.url), socket=of_socket))
    assert other.connections == 0


def test_a_server_that_says_nothing_to_the_request(channel: Callable[..., Channel]) -> None:
    with serving(lambda *_: None) as server:
        assert fault_of(channel(server.url, timeout=0.3)).reason == "timeout"


@pytest.mark.parametrize("of_socket", [False, True])
def test_a_proxy(of_socket: bool, channel: Callable[..., Channel]) -> None:
    behaviour = talks(frame(Opcode.TEXT, b"a")) if of_socket else says(b"data: a\n\n")
    with serving(behaviour) as proxy:
        assert told(channel("http://ci.example.com", proxy=proxy.url), socket=of_socket) == ["a"]
    assert proxy.requests[0].startswith(b"GET http://ci.example.com/stream HTTP/1.1\r\n")


def test_closing_wakes_up_who_listens(channel: Callable[..., Channel]) -> None:
    with serving(then(PING)) as server:
        one = channel(server.url)
        threading.Timer(0.2, one.close).start()
        began = time.monotonic()
        with suppress(ServerError):
            told(one, silence=30)
        assert time.monotonic() - began < 2
