"""From an address to a server that can be read: which dialect does it speak?"""

import time
from collections.abc import Callable

import msgspec

from exporter.config import ServerSettings
from exporter.http import Answer, ServerError, Session
from exporter.servers import Server
from exporter.servers.drone05 import open_drone05
from exporter.servers.drone08 import open_drone08
from exporter.servers.drone1 import Drone1
from exporter.servers.woodpecker import Woodpecker
from exporter.telemetry import Telemetry

READABLE: dict[str, Callable[[Session, str], Server]] = {
    "drone-0.5": open_drone05,
    "drone-0.8": open_drone08,
    "drone-1": Drone1,
    "woodpecker": Woodpecker,
}
"""Opens a server of a dialect from its session and the address for links."""


class Greeting(msgspec.Struct):
    """`GET /version` of any server that has it; `/api/v1/arches.json` of ABF."""

    source: str = ""
    version: str = ""
    architectures: msgspec.Raw = msgspec.Raw()


def open_server(
    settings: ServerSettings,
    telemetry: Telemetry,
    *,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], object] = time.sleep,
) -> Server:
    """The configured server, in the configured dialect or the one that it is found to speak.

    `auto` asks the server, so it raises `ServerError` where that cannot be reached or read. The token is
    first tried by `whoami()`.
    """
    session = Session(
        name=settings.name,
        url=settings.url,
        token=settings.token.get_secret_value() if settings.token else "",
        telemetry=telemetry,
        timeout=settings.timeout,
        ca_file=settings.ca_file,
        proxy=settings.proxy,
        allow_writes=settings.allow_writes,
        clock=clock,
        sleep=sleep,
    )
    try:
        dialect = detect(session) if settings.dialect == "auto" else settings.dialect
        if dialect not in READABLE:
            raise session.fault("shape", "/version", f"speaks {dialect}, which this version cannot read yet")
    except ServerError:
        session.close()
        raise
    return READABLE[dialect](session, settings.public_url)


def detect(session: Session) -> str:
    """The dialect that the server speaks, found without the token; `ServerError` where none is known."""
    answer = session.ask("/version", "version", with_token=False)
    drone = answer.headers.get("X-Drone-Version", "")
    greeting = _greeting(answer)
    if "X-Woodpecker-Version" in answer.headers or "woodpecker" in greeting.source:
        return "woodpecker"
    version = drone or greeting.version
    for beginnings, dialect in (
        (("0.5",), "drone-0.5"),
        (("0.6", "0.7", "0.8"), "drone-0.8"),
        (("1.", "2."), "drone-1"),
    ):
        if version.startswith(beginnings):
            return dialect
    if answer.status not in {200, 404}:
        session.check(answer)
    arches = _greeting(session.ask("/api/v1/arches.json", "version", with_token=False)).architectures
    if bytes(arches).startswith(b"["):
        return "abf"
    raise session.fault(
        "shape",
        "/version",
        "is no CI server that is known: let `url` be the server's own address, "
        "or set `dialect` where a proxy hides what it is",
        status=answer.status,
    )


def _greeting(answer: Answer) -> Greeting:
    if answer.status == 200 and answer.is_json:
        try:
            return msgspec.json.decode(answer.body, type=Greeting)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            pass
    return Greeting()
