"""Serving a simulated world over HTTP on loopback."""

import asyncio
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from email.utils import formatdate
from types import TracebackType
from typing import Self

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from exporter.simulator import abf_api, drone05, drone08, drone1_api, woodpecker_api
from exporter.simulator.faults import Fault, padding
from exporter.simulator.spoiling import spoiled
from exporter.simulator.streaming import (
    EVENTS,
    FIRST,
    TRANSPORT,
    Message,
    Receive,
    Send,
    WebSocket,
    pause,
    reset,
    serve_events,
    serve_socket,
)  # fmt: skip
from exporter.simulator.streams import KINDS, PING, Kind
from exporter.simulator.wire import JSON_UTF8, Answer, Ask, read_query
from exporter.simulator.world import World

ANSWER: dict[str, Callable[[World, Ask], Answer]] = {
    "drone-0.5": drone05.answer,
    "drone-0.8": drone08.answer,
    "drone-1": drone1_api.answer,
    "woodpecker": woodpecker_api.answer,
    "abf": abf_api.answer,
}
Control = Callable[[Counter[tuple[str, str]], Ask, bytes], Answer]


class _Protocol(HttpToolsProtocol):
    """Hands the transport to the application, which breaks connections with it."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {TRANSPORT: {"transport": self.transport}}


class Application:
    """The ASGI application of one world; `requests` counts (method, route)."""

    def __init__(self, world: World, control: Control | None = None) -> None:
        self.world = world
        self.requests: Counter[tuple[str, str]] = Counter()
        self.stopping = asyncio.Event()
        self._answer = ANSWER[world.dialect]
        self._control = control

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        body = b""
        method = scope.get("method", "GET")
        more = method != "GET"
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        headers = {k.decode("latin-1").lower(): v.decode("latin-1") for k, v in scope["headers"]}
        raw = scope["raw_path"].decode("latin-1")
        ask = Ask(method, raw, read_query(scope["query_string"]), headers, body=body)
        if self._control and raw.startswith("/_sim/"):
            await _send(send, self._control(self.requests, ask, body), self.world.clock.now())
            return
        query = scope["query_string"].decode("latin-1")
        kind = self._stream(scope["type"], ask)
        with self.world.moment() as now:
            ask.now = now
            fault = self.world.faults.strike(f"{raw}?{query}" if query else raw)
            if kind:
                made = Answer(200, FIRST, EVENTS, list(kind.headers.items()), raw)
            else:
                made = self._answer(self.world, ask)
            self.requests[method, made.route] += 1
        transport = scope["extensions"][TRANSPORT]["transport"]
        if scope["type"] == "websocket":
            if kind:
                await serve_socket(
                    self.world, kind, ask, transport, self.stopping, receive, send, fault
                )  # fmt: skip
            else:
                await send({"type": "websocket.close"})
        elif fault is not None:
            await self._send_spoiled(scope, send, made, now, fault)
        elif kind:
            await send(_head(made, now, None))
            await serve_events(self.world, kind, ask, transport, self.stopping, send)
        else:
            await _send(send, made, now)

    def _stream(self, protocol: str, ask: Ask) -> Kind | None:
        """The stream that is asked for; None where it is something else."""
        kind = KINDS.get(self.world.dialect)
        if kind is None or (ask.method, ask.path) != ("GET", kind.path):
            return None
        return kind if kind.socket is (protocol == "websocket") else None

    async def _send_spoiled(self, scope: Message, send: Send, made: Answer, now: float, fault: Fault) -> None:
        match fault.kind:
            case "slow":
                await pause(self.stopping, fault.seconds)
            case "hang":
                await pause(self.stopping, 3600.0)
            case "reset":
                reset(scope["extensions"][TRANSPORT]["transport"])
                return
            case "cut":
                await _send(send, made, now, length=len(made.body) + 1000, last=False)
                scope["extensions"][TRANSPORT]["transport"].close()
                return
            case "trickle":
                await self._trickle(send, made, now, fault.seconds)
                return
            case "huge":
                await _send_chunks(send, made, now, padding(fault.size))
                return
            case "date":
                now += fault.seconds
            case _:
                made = spoiled(self.world, scope["path"], made, fault)
        await _send(send, made, now)

    async def _trickle(self, send: Send, made: Answer, now: float, seconds: float) -> None:
        await send(_head(made, now, len(made.body)))
        steps = 20
        size = max(1, len(made.body) // steps)
        for begin in range(0, len(made.body), size):
            await pause(self.stopping, seconds / steps)
            await send(
                {"type": "http.response.body", "body": made.body[begin : begin + size], "more_body": True}
            )
        await send({"type": "http.response.body", "body": b""})


def _head(made: Answer, now: float, length: int | None) -> Message:
    headers = [(b"date", formatdate(now, usegmt=True).encode())]
    if made.type:
        headers.append((b"content-type", made.type.encode()))
    if length is not None and made.status not in (204, 304):
        headers.append((b"content-length", str(length).encode()))
    headers += [(k.lower().encode(), v.encode()) for k, v in made.headers]
    return {"type": "http.response.start", "status": made.status, "headers": headers}


async def _send(
    send: Send, made: Answer, now: float, *, length: int | None = None, last: bool = True
) -> None:
    await send(_head(made, now, len(made.body) if length is None else length))
    await send({"type": "http.response.body", "body": made.body, "more_body": not last})


async def _send_chunks(send: Send, made: Answer, now: float, chunks: Iterator[bytes]) -> None:
    await send(_head(Answer(200, type=made.type or JSON_UTF8, headers=made.headers), now, None))
    for chunk in chunks:
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


class Running:
    """A world being served; a context manager that stops when it is left."""

    def __init__(self, world: World, port: int, control: Control | None, tls: tuple[str, str] | None) -> None:
        self.world = world
        # With the protocol named, asyncio switches Nagle's algorithm off for every connection.
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("127.0.0.1", port))
        self.port: int = self._socket.getsockname()[1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        self._tls = tls or (None, None)
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._app: Application | None = None
        self._control = control
        self._thread = threading.Thread(target=self._run, name=f"simulator-{self.port}", daemon=True)
        self._thread.start()
        if not self._ready.wait(10):
            raise TimeoutError("the simulated server did not start")

    @property
    def requests(self) -> Counter[tuple[str, str]]:
        """How many requests came, by (method, route); to be cleared by whoever counts."""
        return self._app.requests if self._app else Counter()

    def stop(self) -> None:
        """Stops serving and closes what hangs."""
        if self._loop and self._app and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._app.stopping.set)
            self._thread.join(10)
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        """Runs uvicorn's protocol on a plain asyncio server, which starts and stops at once."""
        self._loop = asyncio.get_running_loop()
        self._app = Application(self.world, self._control)
        config = uvicorn.Config(
            self._app, http=_Protocol, ws=WebSocket, ws_ping_interval=PING, ws_ping_timeout=2 * PING,
            ws_per_message_deflate=False, lifespan="off", log_config=None, access_log=False,
            interface="asgi3", ssl_certfile=self._tls[0], ssl_keyfile=self._tls[1],
        )  # fmt: skip
        config.load()
        state = ServerState()
        server = await self._loop.create_server(
            lambda: _Protocol(config, state, {}), sock=self._socket, ssl=config.ssl, backlog=512
        )
        self._ready.set()
        await self._app.stopping.wait()
        server.close()
        await asyncio.sleep(0.01)  # a connection that was just accepted gets its protocol
        for connection in list(state.connections):
            connection.transport.abort()
        if state.tasks:
            await asyncio.wait(state.tasks, timeout=5)


def serve(
    world: World, port: int = 0, control: Control | None = None, tls: tuple[str, str] | None = None
) -> Running:
    """Serves `world` on loopback in a thread of its own, until `stop()` or the end of a `with`.

    `tls`: files with the certificate and its key.
    """
    return Running(world, port, control, tls)
