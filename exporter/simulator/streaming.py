"""Serving the change streams: server-sent events, and the WebSocket of Drone 0.5."""

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request

from exporter.simulator.faults import Fault, proxy_page
from exporter.simulator.streams import Kind, Listener
from exporter.simulator.wire import Ask
from exporter.simulator.world import World

LOOK = 0.1
"""Seconds between two looks at the world."""
FRAGMENT = 1024
"""Bytes of a message that go into its first frame."""
TRANSPORT = "simulator.transport"
EVENTS = "text/event-stream"
FIRST = b": ping\n\n"
LAST = b"event: error\ndata: eof\n\n"
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Say: TypeAlias = Callable[[bytes], Awaitable[None]]


class WebSocket(WebSocketsSansIOProtocol):
    """Sends long messages in two frames, as Drone 0.5 does, and hands the transport to the application."""

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        if self.response.status_code == 101:
            self.scope["extensions"][TRANSPORT] = {"transport": self.transport}

    async def send(self, message: Any) -> None:
        text = message.get("text") if message["type"] == "websocket.send" else None
        data = text.encode() if isinstance(text, str) else b""
        if len(data) <= FRAGMENT:
            await super().send(message)
            return
        await self.writable.wait()
        if self.disconnected or self.close_sent:
            return
        self.conn.send_text(data[:FRAGMENT], fin=False)
        self.conn.send_continuation(data[FRAGMENT:], fin=True)
        self.transport.write(b"".join(self.conn.data_to_send()))


def reset(transport: asyncio.Transport) -> None:
    """Ends the connection with RST instead of FIN."""
    sock = transport.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


async def pause(stopping: asyncio.Event, seconds: float) -> None:
    """Waits, but no longer than the server lives."""
    try:
        async with asyncio.timeout(seconds):
            await stopping.wait()
    except TimeoutError:
        return


async def serve_events(
    world: World, kind: Kind, ask: Ask, transport: asyncio.Transport, stopping: asyncio.Event, send: Send
) -> None:
    """Server-sent events, after the head of the answer, until one of both sides ends it."""

    async def say(chunk: bytes) -> None:
        await send({"type": "http.response.body", "body": chunk, "more_body": True})

    async def tell(event: bytes) -> None:
        await say(b"data: %b\n\n" % event)

    async def ping() -> None:
        await say(FIRST)

    listener = _listener(world, kind, ask)
    await ping()
    if await _relay(world, kind, listener, transport, stopping, tell, ping):
        await say(LAST)
        await send({"type": "http.response.body", "body": b""})


async def serve_socket(
    world: World, kind: Kind, ask: Ask, transport: asyncio.Transport, stopping: asyncio.Event,
    receive: Receive, send: Send, fault: Fault | None,
) -> None:  # fmt: skip
    """The WebSocket: its handshake or the refusal of one, then its messages."""
    await receive()
    if fault is not None and not await _survives(fault, transport, stopping, send):
        return
    listener = _listener(world, kind, ask)
    await send({"type": "websocket.accept"})

    async def tell(event: bytes) -> None:
        await send({"type": "websocket.send", "text": event.decode()})

    async def ping() -> None:
        """The protocol pings by itself."""

    await _relay(world, kind, listener, transport, stopping, tell, ping)


async def _survives(fault: Fault, transport: asyncio.Transport, stopping: asyncio.Event, send: Send) -> bool:
    """Lets a fault befall a handshake; True when it goes on afterwards."""
    match fault.kind:
        case "slow":
            await pause(stopping, fault.seconds)
            return True
        case "hang":
            await pause(stopping, 3600.0)
            transport.abort()
        case "reset" | "cut":
            reset(transport)
        case _:
            status = 429 if fault.kind == "limit" else fault.status
            await send({"type": "websocket.http.response.start", "status": status, "headers": []})
            await send({"type": "websocket.http.response.body", "body": proxy_page(status)})
    # uvicorn takes note of the connection's end before the application's.
    await asyncio.sleep(0)
    return False


def _listener(world: World, kind: Kind, ask: Ask) -> Listener:
    """Made before the greeting: what comes after it is told."""
    with world.moment() as now:
        return Listener(world, kind, ask, now)


async def _relay(
    world: World, kind: Kind, listener: Listener, transport: asyncio.Transport, stopping: asyncio.Event,
    tell: Say, ping: Callable[[], Awaitable[None]],
) -> bool:  # fmt: skip
    """Looks at the world again and again; True when the server has had enough of the silence."""
    while not stopping.is_set() and not transport.is_closing():
        with world.moment() as now:
            fault = world.faults.strike_stream(kind.path)
            events = listener.look(now)
            due, over = listener.ping_is_due(now), listener.over(now)
        if fault is not None and fault.kind == "drop":
            transport.close()
        elif fault is None:
            for event in events:
                await tell(event)
            if due:
                await ping()
            if over:
                return True
        await pause(stopping, LOOK)
    return False
