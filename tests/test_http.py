"""Every fault of a server or of the way to it, shown by a server on loopback that really has it."""

import gzip
import logging
import socket
import ssl
import struct
import threading
import time
import traceback
import tracemalloc
from collections.abc import Callable, Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
import trustme
from raw import always, response, serving

from exporter.http import LARGEST_BODY, ServerError, Session
from exporter.telemetry import Telemetry

TOKEN = "t0p-s3cr3t-t0k3n"
PASSWORD = "pr0xy-p4ssw0rd"
NOW = 1_795_600_000.0


@pytest.fixture
def telemetry() -> Telemetry:
    return Telemetry()


@pytest.fixture
def session(telemetry: Telemetry, caplog: pytest.LogCaptureFixture) -> Iterator[Callable[..., Session]]:
    """Makes sessions; whatever they log, however verbosely, must not hold a secret."""
    caplog.set_level(logging.DEBUG)
    made: list[Session] = []

    def make(url: str, **options: Any) -> Session:
        options = {"name": "ci", "token": TOKEN, "telemetry": telemetry, "timeout": 5.0} | options
        made.append(Session(url=url, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()
        assert TOKEN not in repr(one)
    assert TOKEN not in caplog.text
    assert PASSWORD not in caplog.text


def fault_of(session: Session, path: str = "/api/user") -> ServerError:
    """The error that a request ends in, after a look for secrets in all that it shows."""
    with pytest.raises(ServerError) as caught:
        session.get(path, "user")
    error = caught.value
    shown = "".join(traceback.format_exception(error)) + repr(error) + str(error) + repr(vars(error))
    assert TOKEN not in shown
    assert PASSWORD not in shown
    assert str(error).startswith(f"server ci: {path}: ")
    return error


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    socket.close(connection.detach())


def test_a_good_answer(session: Callable[..., Session], telemetry: Telemetry) -> None:
    date = formatdate(NOW + 90, usegmt=True)
    with serving(always(response(body=b'{"a": 1}', Date=date, Set_Cookie="a=b; Path=/"))) as server:
        one = session(server.url + "/ci/", clock=lambda: NOW)
        answer = one.get("/api/user?page=1", "user")
        one.get("/api/user", "user")
    assert (answer.status, answer.body, answer.headers["content-type"]) == (
        200,
        b'{"a": 1}',
        "application/json",
    )
    first, second = server.requests
    assert first.startswith(b"GET /ci/api/user?page=1 HTTP/1.1\r\n")
    assert f"Authorization: Bearer {TOKEN}".encode() in first
    assert b"User-Agent: build-exporter/" in first
    assert b"Cookie" not in second
    assert server.connections == 1
    assert one.skew == 90
    assert one.server_now() == NOW + 90
    sample = telemetry.registry.get_sample_value
    assert sample("ci_server_clock_skew_seconds", {"server": "ci"}) == 90
    labels = {"server": "ci", "operation": "user", "code": "200"}
    assert sample("ci_server_requests_total", labels) == 2


def test_a_date_that_is_none_leaves_the_clock_alone(session: Callable[..., Session]) -> None:
    dates = iter([formatdate(NOW + 7, usegmt=True), "yesterday", "Tue, 99 Nov 99999 25:00:00 GMT"])
    with serving(lambda connection, *_: connection.sendall(response(Date=next(dates)))) as server:
        one = session(server.url, clock=lambda: NOW)
        for _ in range(3):
            one.get("/", "user")
            assert one.skew == 7


def test_nobody_listens(session: Callable[..., Session], telemetry: Telemetry) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        error = fault_of(session(f"http://127.0.0.1:{taken.getsockname()[1]}"))
    assert error.reason == "refused"
    labels = {"server": "ci", "operation": "user", "code": "refused"}
    assert telemetry.registry.get_sample_value("ci_server_requests_total", labels) == 1


def test_no_such_host(session: Callable[..., Session]) -> None:
    assert fault_of(session("http://no-such-host.invalid")).reason == "dns"


def trickle(head: bytes, piece: bytes) -> Callable[..., object]:
    def behaviour(connection: socket.socket, *_: object) -> None:
        connection.sendall(head)
        while True:
            connection.sendall(piece)
            time.sleep(0.02)

    return behaviour


@pytest.mark.parametrize(
    "behaviour",
    [
        pytest.param(lambda *_: time.sleep(1), id="silence"),
        pytest.param(trickle(b"HTTP/1.1 200 OK\r\nX-Long: ", b"x"), id="header"),
        pytest.param(trickle(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n[", b" "), id="body"),
        pytest.param(trickle(response(Transfer_Encoding="chunked", body=b""), b"1\r\n \r\n"), id="chunks"),
        pytest.param(trickle(response(Transfer_Encoding="chunked", body=b""), b"0"), id="chunk size"),
        pytest.param(trickle(b"HTTP/1.1 500 No\r\nContent-Length: 100000\r\n\r\n", b" "), id="error"),
    ],
)
def test_a_slow_answer_ends_by_its_deadline(behaviour: Any, session: Callable[..., Session]) -> None:
    with serving(behaviour) as server:
        one = session(server.url, timeout=0.3)
        began = time.monotonic()
        error = fault_of(one)
        assert time.monotonic() - began < 0.9
    assert error.reason == "timeout"
    assert "0.3 s" in str(error)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def server_context(authority: trustme.CA, name: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


def answer_without_tls(listener: socket.socket) -> None:
    connection, _ = listener.accept()
    with connection:
        connection.recv(65536)
        connection.sendall(response(400))


def test_tls(authority: trustme.CA, tmp_path: Path, session: Callable[..., Session]) -> None:
    ca_file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    with serving(always(response()), server_context(authority, "127.0.0.1")) as server:
        assert session(server.url, ca_file=ca_file).get("/", "user").body == b"{}"
        untrusted = fault_of(session(server.url))
        gone = fault_of(session(server.url, ca_file=tmp_path / "gone.pem"))
    with serving(always(response()), server_context(authority, "ci.example.com")) as server:
        other_name = fault_of(session(server.url, ca_file=ca_file))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=answer_without_tls, args=(listener,))
        thread.start()
        no_tls = fault_of(session(f"https://127.0.0.1:{listener.getsockname()[1]}"))
        thread.join()
    assert {error.reason for error in (untrusted, gone, other_name, no_tls)} == {"tls"}
    assert "unable to get local issuer certificate" in str(untrusted)
    assert "mismatch" in str(other_name)
    assert "`ca_file`" in str(gone)


def test_a_server_that_leaves_the_handshake_lying(session: Callable[..., Session]) -> None:
    with serving(always(response())) as server:
        error = fault_of(session(server.url.replace("http:", "https:"), timeout=0.3))
    assert error.reason == "timeout"


def test_tls_trickles_and_keeps_its_connection(
    authority: trustme.CA, tmp_path: Path, session: Callable[..., Session]
) -> None:
    ca_file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    slow = trickle(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n[", b" ")

    def behaviour(connection: socket.socket, request: bytes, number: int) -> None:
        connection.sendall(response()) if number < 3 else slow(connection)

    with serving(behaviour, server_context(authority, "127.0.0.1")) as server:
        one = session(server.url, ca_file=ca_file, timeout=0.5)
        one.get("/", "user")
        one.get("/", "user")
        assert server.connections == 1
        assert fault_of(one).reason == "timeout"


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7),
        ("0", 0),
        ("9" * 400, 3600),
        (formatdate(NOW + 42, usegmt=True), 12),
        (formatdate(NOW - 42, usegmt=True), 0),
        (formatdate(NOW + 9999, usegmt=True), 3600),
        ("soon", None),
        ("-5", None),
        ("²", None),
    ],
)
@pytest.mark.parametrize(("status", "reason"), [(429, "limit"), (503, "status")])
def test_retry_after(
    value: str, seconds: float | None, status: int, reason: str, session: Callable[..., Session]
) -> None:
    date = formatdate(NOW + 30, usegmt=True)
    answer = response(status, b"<html>", "text/html", Retry_After=value, Date=date)
    with serving(always(answer.decode().encode("latin-1"))) as server:
        error = fault_of(session(server.url, clock=lambda: NOW))
    assert (error.reason, error.status, error.retry_after) == (reason, status, seconds)


@pytest.mark.parametrize(
    ("status", "reason", "says"),
    [
        (401, "auth", "token was not accepted"),
        (403, "auth", "no right"),
        (413, "auth", "no right"),
        (404, "status", "not there"),
        (500, "status", "look at the log"),
        (501, "status", "edition"),
        (502, "status", "look at the log"),
        (503, "status", "look at the log"),
        (204, "status", "look at the log"),
        (304, "status", "look at the log"),
    ],
)
def test_refusals(
    status: int, reason: str, says: str, session: Callable[..., Session], telemetry: Telemetry
) -> None:
    body = b"" if status in {204, 304} else b"<html>a page with its own words</html>"
    with serving(always(response(status, body, "text/html"))) as server:
        error = fault_of(session(server.url))
    assert (error.reason, error.status) == (reason, status)
    assert f"answered {status}: " in str(error)
    assert says in str(error)
    assert "own words" not in str(error)
    labels = {"server": "ci", "operation": "user", "code": str(status)}
    assert telemetry.registry.get_sample_value("ci_server_requests_total", labels) == 1


def test_no_token_at_all(session: Callable[..., Session]) -> None:
    with serving(always(response(401))) as server:
        error = fault_of(session(server.url, token=""))
    assert b"Authorization" not in server.requests[0]
    assert error.reason == "auth"
    assert "token_file" in str(error)


@pytest.mark.parametrize("token", [f"{TOKEN}\nX-Other: 1", f"{TOKEN}é", f"{TOKEN}\x00"])
def test_a_token_that_cannot_be_one_is_not_sent(token: str, session: Callable[..., Session]) -> None:
    with serving(always(response())) as server:
        assert fault_of(session(server.url, token=token)).reason == "auth"
        assert not server.requests
        assert session(server.url, token=f" {TOKEN}\r\n").get("/", "user").status == 200
    assert f"Authorization: Bearer {TOKEN}\r\n".encode() in server.requests[0]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        pytest.param(response(body=b"<html>log in</html>", kind="text/html"), "shape", id="page"),
        pytest.param(response(Content_Encoding="br"), "shape", id="encoding"),
        pytest.param(b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "shape", id="other protocol"),
        pytest.param(response(Content_Length="99"), "json", id="cut"),
        pytest.param(response(body=b"5\r\n[1, 2", Transfer_Encoding="chunked"), "json", id="cut chunk"),
        pytest.param(
            response(body=b"5\r\n[1, 2\r\n", Transfer_Encoding="chunked"), "json", id="no last chunk"
        ),
        pytest.param(
            response(body=gzip.compress(b"[1]")[:-9], Content_Encoding="gzip"), "json", id="cut gzip"
        ),
        pytest.param(
            response(body=b"-5\r\n[1, 2]", Transfer_Encoding="chunked"), "shape", id="negative chunk"
        ),
        pytest.param(response(body=b"x\r\n[1, 2]", Transfer_Encoding="chunked"), "json", id="no chunk"),
        pytest.param(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70000, "shape", id="long header"),
        pytest.param(b"HTTP/1.1 200 OK\r\n" + b"X: x\r\n" * 200, "shape", id="many headers"),
        pytest.param(response(body=b"no gzip", Content_Encoding="gzip"), "json", id="no gzip"),
    ],
)
def test_bad_answers(answer: bytes, reason: str, session: Callable[..., Session]) -> None:
    def behaviour(connection: socket.socket, *_: object) -> None:
        connection.sendall(answer)
        connection.shutdown(socket.SHUT_WR)

    with serving(behaviour) as server:
        assert fault_of(session(server.url)).reason == reason


def test_a_packed_answer(session: Callable[..., Session]) -> None:
    body = b"[" + b"1, " * 100_000 + b"1]"
    with serving(always(response(body=gzip.compress(body), Content_Encoding="gzip"))) as server:
        assert session(server.url).get("/", "user").body == body
    assert b"Accept-Encoding: gzip" in server.requests[0]


@pytest.mark.parametrize(
    "head", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n["], ids=["head", "body"]
)
def test_a_reset_connection(head: bytes, session: Callable[..., Session]) -> None:
    def behaviour(connection: socket.socket, *_: object) -> None:
        if head:
            connection.sendall(head)
            time.sleep(0.05)
        reset(connection)

    with serving(behaviour) as server:
        assert fault_of(session(server.url)).reason == "refused"
    assert len(server.requests) == 1


@pytest.mark.parametrize("drop", [reset, lambda connection: connection.shutdown(socket.SHUT_RDWR)])
def test_a_kept_connection_that_the_server_gave_up_is_tried_anew_once(
    drop: Callable[[socket.socket], object], session: Callable[..., Session]
) -> None:
    def behaviour(connection: socket.socket, request: bytes, number: int) -> None:
        drop(connection) if number in {2, 5, 6} else connection.sendall(response())

    with serving(behaviour) as server:
        one = session(server.url)
        one.get("/", "user")
        one.get("/", "user")
        assert len(server.requests) == 3
        one.get("/", "user")
        assert fault_of(one).reason == "refused"
        assert len(server.requests) == 6


def test_an_answer_that_breaks_off_is_not_asked_for_again(session: Callable[..., Session]) -> None:
    def behaviour(connection: socket.socket, request: bytes, number: int) -> None:
        connection.sendall(response() if number == 1 else response(Content_Length="99"))
        if number > 1:
            time.sleep(0.05)
            reset(connection)

    with serving(behaviour) as server:
        one = session(server.url)
        one.get("/", "user")
        assert fault_of(one).reason == "refused"
        assert (len(server.requests), server.connections) == (2, 1)


def announced(connection: socket.socket, *_: object) -> None:
    connection.sendall(response(Content_Length=str(100 << 20), body=b"[" + b" " * 65536))


def chunked(connection: socket.socket, *_: object) -> None:
    connection.sendall(response(Transfer_Encoding="chunked", body=b""))
    chunk = b"100000\r\n" + b" " * (1 << 20) + b"\r\n"
    for _number in range(100):
        connection.sendall(chunk)


def endless(connection: socket.socket, *_: object) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n")
    while True:
        connection.sendall(b" " * (1 << 20))


def chunk_without_end(connection: socket.socket, *_: object) -> None:
    connection.sendall(response(Transfer_Encoding="chunked", body=b"-1\r\n"))
    while True:
        connection.sendall(b" " * (1 << 20))


def endless_redirect(connection: socket.socket, *_: object) -> None:
    connection.sendall(response(302, Location="/elsewhere", Content_Length=str(1 << 40)))
    while True:
        connection.sendall(b" " * (1 << 20))


@pytest.mark.parametrize("behaviour", [announced, chunked, endless, chunk_without_end])
def test_100_megabytes_are_refused(behaviour: Any, session: Callable[..., Session]) -> None:
    with serving(behaviour) as server:
        assert_refused_by_size(session(server.url, timeout=30), at_most=LARGEST_BODY + (24 << 20))


def test_the_body_of_a_redirect_is_not_read(session: Callable[..., Session]) -> None:
    with serving(endless_redirect) as server:
        assert fault_of(session(server.url)).status == 302


def test_a_few_bytes_that_unpack_to_much(session: Callable[..., Session]) -> None:
    bomb = gzip.compress(bytes(200 << 20), 1)
    with serving(always(response(body=bomb, Content_Encoding="gzip"))) as server:
        assert_refused_by_size(session(server.url, timeout=30), at_most=LARGEST_BODY + (24 << 20))


def assert_refused_by_size(session: Session, at_most: int) -> None:
    tracemalloc.start()
    try:
        error = fault_of(session)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert error.reason == "shape"
    assert "too large" in str(error)
    assert peak < at_most


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(status: int, session: Callable[..., Session]) -> None:
    with serving(always(response())) as other:
        place = f"http://user:{PASSWORD}@127.0.0.1:{other.port}/take?token=hidden"
        with serving(always(response(status, Location=place))) as server:
            error = fault_of(session(server.url))
    assert not other.requests
    assert other.connections == 0
    assert (error.reason, error.status) == ("status", status)
    assert f"http://127.0.0.1:{other.port}," in str(error)
    assert "`url`" in str(error)
    assert "take" not in str(error)
    assert "hidden" not in str(error)


@pytest.mark.parametrize(
    ("location", "says"),
    [
        ("/login", "another path"),
        ("http://[broken", "is none"),
        ("http://a:b/", "is none"),
        ("", "another path"),
    ],
)
def test_odd_redirects(location: str, says: str, session: Callable[..., Session]) -> None:
    with serving(always(response(302, Location=location))) as server:
        assert says in str(fault_of(session(server.url)))
    assert len(server.requests) == 1


def test_credentials_in_the_address_are_dropped(session: Callable[..., Session]) -> None:
    with serving(always(response(500))) as server:
        error = fault_of(session(server.url.replace("//", f"//user:{PASSWORD}@")))
    assert error.status == 500
    assert b"Basic" not in server.requests[0]
    assert f"Authorization: Bearer {TOKEN}".encode() in server.requests[0]


def test_a_proxy(session: Callable[..., Session]) -> None:
    with serving(always(response(body=b"[]"))) as proxy:
        address = proxy.url.replace("//", f"//user:{PASSWORD}@")
        assert session("http://ci.example.com", proxy=address).get("/a", "user").body == b"[]"
        refused = fault_of(session("https://ci.example.com", proxy=f"http://user:{PASSWORD}@127.0.0.1:1"))
        nowhere = fault_of(session("http://ci.example.com", proxy=f"http://user:{PASSWORD}@127.0.0.1:99999"))
    assert nowhere.reason == "refused"
    assert "`proxy`" in str(nowhere)
    assert proxy.requests[0].startswith(b"GET http://ci.example.com/a HTTP/1.1\r\n")
    assert b"Proxy-Authorization: Basic " in proxy.requests[0]
    assert refused.reason == "refused"


def test_the_environment_changes_nothing(
    session: Callable[..., Session], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("default login user password other\n", encoding="utf-8")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    with serving(always(response())) as server:
        session(server.url).get("/", "user")
    assert f"Authorization: Bearer {TOKEN}".encode() in server.requests[0]


def test_pacing(session: Callable[..., Session]) -> None:
    now, slept = [NOW], []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    with serving(always(response())) as server:
        one = session(server.url, clock=lambda: now[0], sleep=sleep)
        one.get("/", "user")
        with one.paced(2.0):
            one.get("/", "builds")
            one.get("/", "builds")
            now[0] += 0.5
            one.get("/", "builds")
            now[0] += 60
            one.get("/", "builds")
            now[0] -= 3600
            one.get("/", "builds")
        one.get("/", "user")
    assert slept == [2.0, 1.5, 2.0]


def test_pacing_holds_for_its_own_thread(session: Callable[..., Session]) -> None:
    slept: list[float] = []
    with serving(always(response())) as server:
        one = session(server.url, clock=lambda: NOW, sleep=slept.append)
        with one.paced(2.0):
            one.get("/", "builds")
            thread = threading.Thread(target=lambda: [one.get("/", "feed") for _ in range(3)])
            thread.start()
            thread.join()
            assert slept == []
            one.get("/", "builds")
    assert slept == [2.0]


def test_closing_ends_what_waits_and_what_comes_later(session: Callable[..., Session]) -> None:
    arrived, errors = threading.Event(), []

    def behaviour(connection: socket.socket, *_: object) -> None:
        arrived.set()
        time.sleep(1)

    with serving(behaviour) as server:
        one = session(server.url, timeout=30)
        thread = threading.Thread(target=lambda: errors.append(fault_of(one)))
        thread.start()
        arrived.wait()
        began = time.monotonic()
        one.close()
        thread.join()
        errors.append(fault_of(one))
        assert time.monotonic() - began < 0.5
        assert server.connections == 1
    assert [error.reason for error in errors] == ["refused", "refused"]
    assert "exporter" in str(errors[0])


def test_the_largest_body_is_still_read(session: Callable[..., Session]) -> None:
    body = b"[" + b" " * (LARGEST_BODY - 2) + b"]"
    with serving(always(response(body=body))) as server:
        assert len(session(server.url, timeout=30).get("/", "user").body) == LARGEST_BODY
