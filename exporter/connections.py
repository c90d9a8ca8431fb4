"""Connections whose every wait ends: by the deadline of the whole answer, or when the session is closed."""

import contextlib
import http
import http.client
import io
import math
import socket
import ssl
import threading
import time
import zlib
from collections.abc import Iterator
from typing import Any

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection

from exporter.telemetry import Reason


class Gate:
    """What the connections of one session share: the deadline of each thread's call, and how to end all.

    `call` holds what one thread alone sees; `call.until` is the end of all its calls, where it has one,
    and `call.sent` is true once a request was written whole.
    """

    def __init__(self) -> None:
        self.call = threading.local()
        self.closed = threading.Event()
        self._sockets: set[socket.socket] = set()
        self._lock = threading.Lock()

    def begin(self, seconds: float) -> None:
        """Start this thread's call, which ends by the deadline; raises `OSError` when it may not start."""
        self.call.deadline = time.monotonic() + min(seconds, self.spare())
        self.call.reused = self.call.sent = False
        self.left()

    @contextlib.contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """Within it, this thread's calls end after so many seconds together."""
        self.call.until = time.monotonic() + seconds
        try:
            yield
        finally:
            self.call.until = math.inf

    def spare(self) -> float:
        """Seconds until this thread may call no more."""
        until: float = getattr(self.call, "until", math.inf)
        return until - time.monotonic()

    def left(self) -> float:
        """Seconds that this thread's call still has; raises `OSError` when it has none."""
        if self.closed.is_set():
            raise ConnectionAbortedError
        left: float = self.call.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left

    def was_dropped(self, error: Exception) -> bool:
        """True when a kept connection turned out to be closed before the server saw the request."""
        return self.call.reused and any(
            isinstance(cause, ConnectionResetError | BrokenPipeError) for cause in causes_of(error)
        )

    def opened(self, sock: socket.socket) -> None:
        with self._lock:
            self._sockets = {s for s in self._sockets if s.fileno() >= 0} | {sock}
        self.left()

    def close(self) -> None:
        self.closed.set()
        with self._lock:
            for sock in self._sockets:
                with contextlib.suppress(OSError):
                    # Below TLS, so that a thread that waits in recv() wakes up at once.
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)


class TooLargeError(OSError):
    """An answer has more bytes than are read."""


class _BoundedReader(io.RawIOBase):
    """The bytes of one answer: no more than `largest`, and no wait beyond the deadline of the whole."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket, gate: Gate, largest: int) -> None:
        self._raw, self._sock, self._gate, self._left = raw, sock, gate, largest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int | None:
        self._sock.settimeout(self._gate.left())
        count = self._raw.readinto(buffer)
        self._left -= count or 0
        if self._left < 0:
            raise TooLargeError
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


def _pools(gate: Gate, largest: int) -> dict[str, Any]:
    """Connection pools by scheme whose connections obey the gate."""

    class Response(http.client.HTTPResponse):
        def __init__(self, sock: socket.socket, *args: Any, **options: Any) -> None:
            super().__init__(sock, *args, **options)
            raw = self.fp.detach()
            self.fp = io.BufferedReader(_BoundedReader(raw, sock, gate, largest))

        def begin(self) -> None:
            super().begin()
            if self.status == http.HTTPStatus.SWITCHING_PROTOCOLS:
                self.length = None  # what follows is the other protocol's, to the connection's end

    class Watched(HTTPConnection):
        response_class = Response
        answers = 0

        def connect(self) -> None:
            super().connect()
            gate.opened(self.sock)

        def request(self, *args: Any, **options: Any) -> None:
            gate.call.reused = self.answers > 0
            super().request(*args, **options)

        def getresponse(self) -> urllib3.HTTPResponse:  # type: ignore[override]
            gate.call.sent = True
            response = super().getresponse()
            self.answers += 1
            gate.call.reused = False
            return response

    class WatchedTLS(Watched, HTTPSConnection):
        pass

    class Pool(urllib3.HTTPConnectionPool):
        ConnectionCls = Watched

    class PoolTLS(urllib3.HTTPSConnectionPool):
        ConnectionCls = WatchedTLS

    return {"http": Pool, "https": PoolTLS}


class BoundedAdapter(HTTPAdapter):
    """requests' own adapter over connections that obey the gate, trusting the system's certificates."""

    def __init__(self, gate: Gate, largest: int, *, system_trust: bool) -> None:
        self._pools = _pools(gate, largest)
        self._context = ssl.create_default_context() if system_trust else None
        super().__init__(pool_connections=1)

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, ssl_context=self._context, **options)
        self.poolmanager.pool_classes_by_scheme = self._pools

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        manager = super().proxy_manager_for(proxy, ssl_context=self._context, **options)
        manager.pool_classes_by_scheme = self._pools
        return manager


def causes_of(error: BaseException) -> list[BaseException]:
    """The error and all that it was raised for, in whichever way the libraries keep that."""
    found: list[BaseException] = []
    ahead: list[object] = [error]
    while ahead:
        cause = ahead.pop()
        if isinstance(cause, BaseException) and cause not in found:
            found.append(cause)
            ahead += [cause.__context__, cause.__cause__, getattr(cause, "reason", None), *cause.args]
    return found


NO_HTTP = "what answered there does not speak HTTP: look at `url`"
BROKEN_OFF = "the answer broke off before its end"
TOO_LARGE = "the answer is too large and was not read"
NO_WAY = "no connection: look at `url` and `proxy`"
CAUSES: tuple[tuple[tuple[type[BaseException], ...], Reason, str], ...] = (
    ((requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema), "refused", NO_WAY),
    ((socket.gaierror,), "dns", "the host's name cannot be resolved: look at `url`"),
    ((ssl.SSLError,), "tls", "no trusted connection ({why}): look at `url` and `ca_file`"),
    ((ConnectionError,), "refused", "the connection was refused or cut: does the server run there?"),
    ((TimeoutError,), "timeout", "no whole answer within {timeout:g} s: look at its load and `timeout`"),
    ((TooLargeError,), "shape", TOO_LARGE),
    ((http.client.IncompleteRead, zlib.error), "json", BROKEN_OFF),
    ((http.client.HTTPException,), "shape", NO_HTTP),
    ((urllib3.exceptions.ProtocolError,), "json", BROKEN_OFF),
    ((ValueError,), "shape", NO_HTTP),
)
"""What an exception, or one that it was raised for, stands for: the first line that fits."""

FAULTS = (OSError, urllib3.exceptions.HTTPError, http.client.HTTPException, ValueError, zlib.error)
"""What requests and the libraries below it raise where a server, or the way to it, is at fault."""


def explanation(error: BaseException, timeout: float) -> tuple[Reason, str] | None:
    """What a failed request stands for, and what to do about it; None where the error is not known."""
    found = causes_of(error)
    for kinds, reason, what in CAUSES:
        for cause in found:
            if isinstance(cause, kinds):
                why = getattr(cause, "verify_message", "") or getattr(cause, "reason", "")
                return reason, what.format(why=why, timeout=timeout)
    return None
