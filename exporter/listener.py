"""A port that is listened on: uvicorn in a thread, with limits on what a client may cost."""

import asyncio
import errno
import logging
import os
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from exporter.log import logger

log = logger(__name__)

AT_ONCE = struct.pack("ii", 1, 0)
"""struct linger: closing sends a reset, and the kernel keeps nothing to deliver later."""


class ListenError(Exception):
    """The address cannot be listened on; `str()` names it and says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """What a client may cost; times in seconds, sizes in bytes."""

    request: float = 10.0
    """How long a request's head may take."""
    head: int = 64 * 1024
    """How large it may be."""
    stall: float = 60.0
    """How long a client may leave unread what was sent to it."""
    idle: int = 120
    """How long a connection is kept between two requests."""
    connections: int = 512
    """How many there may be; more are closed at once."""


class Listener:
    """Serves `app` on `address` (`host:port`, `[::1]:9848`, `:9848` for every interface).

    `tls` makes it HTTPS; `allowed` is asked about every new TLS connection, after its handshake.
    """

    def __init__(
        self,
        address: str,
        app: ASGIApp,
        *,
        tls: ssl.SSLContext | None = None,
        allowed: Callable[[ssl.SSLObject], bool] | None = None,
        patience: Patience | None = None,
    ) -> None:
        patience = patience or Patience()
        protocol = partial(_Connection, patience=patience, allowed=allowed)
        self.address = address
        """Where it listens; from `start` on with the real port where 0 was asked for."""
        self._server = _Server(
            uvicorn.Config(
                app,
                interface="asgi3",
                loop="asyncio",
                http=cast(type[asyncio.Protocol], protocol),
                ws="none",
                lifespan="off",
                log_config=None,
                log_level=logging.ERROR,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=patience.idle,
                ssl_context_factory=(lambda *_: tls) if tls else None,
            )
        )
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Serve from now on; raises `ListenError` where the address does not allow it."""
        listening = listen(self.address)
        host, port = listening.getsockname()[:2]
        self.address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._thread = threading.Thread(target=self._serve, args=(listening,), name="web", daemon=True)
        self._thread.start()
        self._server.serving.wait()
        if not self._server.started:
            raise ListenError(f"{self.address}: the server did not start; the log says why")

    def stop(self, timeout: float = 2.0) -> None:
        """Stop listening; answers that are under way have half of `timeout` (seconds) to get out."""
        if self._thread is None:
            return
        self._server.grace = timeout / 2
        self._server.should_exit = True
        self._thread.join(timeout)

    def _serve(self, listening: socket.socket) -> None:
        try:
            self._server.run(sockets=[listening])
        except Exception:
            log.exception("the listener ended", listen=self.address)
        finally:
            listening.close()
            self._server.serving.set()


class _Server(uvicorn.Server):
    """uvicorn, which says when it serves and does not wait for ever for clients when it ends."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.serving = threading.Event()
        self.grace = 1.0

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.serving.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        cut = asyncio.get_running_loop().call_later(self.grace, self._cut)
        await super().shutdown(sockets)
        cut.cancel()

    def _cut(self) -> None:
        self.force_exit = True
        for connection in list(self.server_state.connections):
            cut(connection.transport)


class _Connection(HttpToolsProtocol):
    """One client, who is cut off when patience ends."""

    def __init__(
        self, *args: Any, patience: Patience, allowed: Callable[[ssl.SSLObject], bool] | None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self._patience = patience
        self._allowed = allowed
        self._read = 0
        self._head: asyncio.TimerHandle | None = None
        self._stall: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        session = transport.get_extra_info("ssl_object")
        if len(self.connections) > self._patience.connections or (
            self._allowed and session and not self._allowed(session)
        ):
            cut(transport)
            return
        # Writing pauses while anything is unsent, so that a pause that lasts is a client that reads nothing.
        transport.set_write_buffer_limits(high=1, low=0)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_came()
        self._taken()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        while self._head and data and not self.transport.is_closing():
            # A body may come in one read with its head, and is not what is limited here.
            part = data[: self._patience.head - self._read + 1]
            data = data[len(part) :]
            self._read += len(part)
            super().data_received(part)
            if self._head and self._read > self._patience.head:
                cut(self.transport)
                return
        if data and not self.transport.is_closing():
            super().data_received(data)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._expect_head()

    def on_headers_complete(self) -> None:
        self._head_came()
        super().on_headers_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stall = self.loop.call_later(self._patience.stall, cut, self.transport)

    def resume_writing(self) -> None:
        self._taken()
        super().resume_writing()

    def _expect_head(self) -> None:
        self._head_came()
        self._read = 0
        self._head = self.loop.call_later(self._patience.request, cut, self.transport)

    def _head_came(self) -> None:
        if self._head:
            self._head.cancel()
            self._head = None

    def _taken(self) -> None:
        if self._stall:
            self._stall.cancel()
            self._stall = None


def cut(transport: asyncio.Transport) -> None:
    """End a connection at once; what is on its way to a client that reads nothing is dropped."""
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
    transport.abort()


def listen(address: str) -> socket.socket:
    """A socket that listens on `host:port`; raises `ListenError`."""
    host, colon, port = address.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not colon or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise ListenError(f"{address}: an address is host:port, [::1]:port or :port")
    if ":" in host and not bracketed:
        raise ListenError(f"{address}: an IPv6 address stands in brackets: [{host}]:{port}")
    name = host[1:-1] if bracketed else host
    try:
        if not name:
            return _everywhere(int(port))
        family, *_, place = socket.getaddrinfo(name, int(port), type=socket.SOCK_STREAM)[0]
        return socket.create_server(place[:2], family=family)
    except (socket.gaierror, UnicodeError):
        raise ListenError(f"{address}: the name {name} has no address") from None
    except OSError as error:
        raise ListenError(f"{address}: {_why(error)}") from None


def _everywhere(port: int) -> socket.socket:
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", port))


def _why(error: OSError) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return "another program listens there already"
        case errno.EACCES:
            return "no right to listen there (ports below 1024 are the administrator's)"
        case errno.EADDRNOTAVAIL:
            return "this machine has no such address"
        case _:
            return os.strerror(error.errno) if error.errno else str(error)
