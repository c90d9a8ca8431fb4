"""Servers on loopback that answer byte by byte as a test says, to show every way in which a server fails."""

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Behaviour = Callable[[socket.socket, bytes, int], object]
"""Answers a request (its bytes) on its connection; the number counts all requests from 1."""


class RawServer:
    """`requests` holds the bytes of every request that arrived, `connections` how many there were."""

    def __init__(self, behaviour: Behaviour, context: ssl.SSLContext | None) -> None:
        self.requests: list[bytes] = []
        self.connections = 0
        self._behaviour, self._context = behaviour, context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    @property
    def url(self) -> str:
        return f"{'https' if self._context else 'http'}://127.0.0.1:{self.port}"

    def close(self) -> None:
        for sock in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)
            sock.close()
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            if self._context:
                connection = self._context.wrap_socket(
                    connection, server_side=True, do_handshake_on_connect=False
                )
            self._open.append(connection)
            thread = threading.Thread(target=self._talk, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _talk(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            stack.callback(connection.close)
            reader = stack.enter_context(connection.makefile("rb"))
            request = b""
            while line := reader.readline():
                request += line
                if line == b"\r\n":
                    self.requests.append(request)
                    self._behaviour(connection, request, len(self.requests))
                    request = b""


@contextmanager
def serving(behaviour: Behaviour, context: ssl.SSLContext | None = None) -> Iterator[RawServer]:
    server = RawServer(behaviour, context)
    try:
        yield server
    finally:
        server.close()


def response(status: int = 200, body: bytes = b"{}", kind: str = "application/json", **headers: str) -> bytes:
    """A whole answer; `Retry_After="1"` is a header `Retry-After: 1`."""
    lines = [f"HTTP/1.1 {status} Some Reason", f"Content-Type: {kind}"]
    if "Transfer_Encoding" not in headers:
        headers.setdefault("Content_Length", str(len(body)))
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def always(answer: bytes) -> Behaviour:
    return lambda connection, *_: connection.sendall(answer)
