"""The change stream of one server as messages, whether it is server-sent events or a WebSocket."""

import logging
import sys
from collections.abc import Iterator
from typing import Any, ClassVar

import requests
from ld_eventsource import SSEClient
from ld_eventsource.actions import Comment, Event
from ld_eventsource.config import ConnectionClient, ConnectionResult, ConnectStrategy
from websockets.client import ClientProtocol
from websockets.datastructures import Headers
from websockets.exceptions import WebSocketException
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import CLIENT, OPEN, Protocol
from websockets.uri import parse_uri

from exporter.connections import FAULTS, TooLargeError, explanation
from exporter.http import CHUNK, Answer, Session

LARGEST_MESSAGE = 1 << 20
"""Bytes of one message, all around it included, that are read at most."""
EVENT_STREAM = "text/event-stream"
OPERATION = "stream"
"""Its name in `ci_server_requests_total`."""
NO_STREAM = "answered something else than a change stream (a web page, or a proxy in between)"

log = logging.getLogger("ld_eventsource")


class Chunks(Iterator[bytes]):
    """The bytes of one answer, as they come: none of its messages is too large, no silence too long."""

    def __init__(self, channel: "Channel", response: requests.Response, silence: float) -> None:
        self._channel, self._response, self._silence = channel, response, silence
        self._size = 0

    def __next__(self) -> bytes:
        if self._size > LARGEST_MESSAGE:
            raise TooLargeError
        self._channel.wait_for(self._silence)
        chunk: bytes = self._response.raw.read1(CHUNK, decode_content=False)
        self._size += len(chunk)
        if not chunk:
            raise StopIteration
        return chunk

    def message_ended(self) -> None:
        self._size = 0

    def send(self, data: bytes) -> None:
        """Sends bytes on the same connection."""
        connection: Any = self._response.raw.connection
        connection.sock.sendall(data)


class Channel(Session):
    """Another session with the same server, for its change stream alone; `close` ends it at once."""

    _largest: ClassVar[int] = sys.maxsize

    @classmethod
    def beside(cls, session: Session) -> "Channel":
        """A channel to the server of that session: same token, trust, proxy and time to connect."""
        return cls(
            name=session.name,
            url=session._url,
            token=session._token,
            telemetry=session.telemetry,
            timeout=session._timeout,
            ca_file=session._ca_file,
            proxy=session._proxies.get("http"),
        )

    def listen(self, path: str, *, socket: bool, silence: float) -> Iterator[str]:
        """The messages of the stream, to its end; empty ones are signs of life, the first that it has begun.

        Raises `ServerError` where it cannot be opened, is silent for `silence` seconds, breaks off, or
        sends what no stream is.
        """
        handshake = ClientProtocol(parse_uri(f"ws{self._url.removeprefix('http')}{path}"))
        headers = {**self._headers, "Accept-Encoding": "identity", "Accept": EVENT_STREAM}
        if socket:
            del headers["Accept"]
            headers |= {key: value for key, value in handshake.connect().headers.items() if key != "Host"}
        opened = False
        try:
            self._gate.begin(self._timeout)
            with self._send("GET", path, headers) as response:
                self.telemetry.requests.labels(self.name, OPERATION, str(response.status_code)).inc()
                self._expect(path, response, handshake if socket else None)
                opened = True
                if socket:
                    yield ""  # events begin with a ping, once the server has begun to collect them
                chunks = Chunks(self, response, silence)
                yield from frames(chunks) if socket else events(chunks)
        except UnicodeError:
            raise self.fault("json", path, "sent something else than text") from None
        except WebSocketException:
            raise self.fault("shape", path, NO_STREAM) from None
        except FAULTS as error:
            if opened and explanation(error, silence) == explanation(TimeoutError(), silence):
                raise self.fault("timeout", path, f"said nothing for {silence:g} s") from None
            raise self._explained(path, error) from None

    def wait_for(self, seconds: float) -> None:
        """Lets the next read take so long; raises `OSError` once the channel is closed."""
        self._gate.begin(seconds)

    def _expect(self, path: str, response: requests.Response, handshake: ClientProtocol | None) -> None:
        """Raises where the answer is the beginning of no stream."""
        status, kind = response.status_code, response.headers.get("Content-Type", "")
        if handshake is not None and status == 101:
            handshake.process_response(Response(status, "", Headers(response.headers.items())))
        elif handshake is not None or status != 200 or not kind.lower().startswith(EVENT_STREAM):
            if status in {101, 200}:
                raise self.fault("shape", path, NO_STREAM, status=status)
            raise self._refusal(Answer(path, status, response.headers, b""))


class Given(ConnectStrategy, ConnectionClient):  # type: ignore[misc]  # the library has no types
    """Lets the library read events from bytes that are there already, over a connection of ours."""

    def __init__(self, chunks: Chunks) -> None:
        self._chunks = chunks

    def create_client(self, logger: logging.Logger) -> "Given":  # noqa: ARG002
        return self

    def connect(self, last_event_id: str | None) -> ConnectionResult:  # noqa: ARG002 - no server has ids
        return ConnectionResult(self._chunks, None)


def events(chunks: Chunks) -> Iterator[str]:
    """The data of each server-sent event, and "" for a comment."""
    for action in SSEClient(Given(chunks), logger=log).all:
        chunks.message_ended()
        if isinstance(action, Event | Comment):
            yield action.data if isinstance(action, Event) else ""


def frames(chunks: Chunks) -> Iterator[str]:
    """The text of each message of a WebSocket, and "" for a ping, which is answered."""
    protocol = Protocol(CLIENT, state=OPEN, max_size=LARGEST_MESSAGE)
    parts: list[bytes] = []
    for chunk in chunks:
        protocol.receive_data(chunk)
        for data in protocol.data_to_send():
            if data:
                chunks.send(data)
        for frame in protocol.events_received():
            if isinstance(frame, Frame) and frame.opcode in {Opcode.TEXT, Opcode.BINARY, Opcode.CONT}:
                parts.append(bytes(frame.data))
                if frame.fin:
                    chunks.message_ended()
                    yield b"".join(parts).decode()
                    parts = []
            else:
                yield ""
        if protocol.parser_exc is not None:
            raise protocol.parser_exc
        if protocol.state is not OPEN:
            return
