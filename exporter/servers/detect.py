"""From an address to a server that can be read: which dialect does it speak?"""

import time
from collections.abc import Callable

import msgspec

from exporter.config import ServerSettings
from exporter.http import Answer, ServerError, Session
from exporter.servers import NoRecall, Recall, Server
from exporter.servers.abf import Abf
from exporter.servers.drone05 import open_drone05
from exporter.servers.drone08 import open_drone08
from exporter.servers.drone1 import Drone1
from exporter.servers.woodpecker import Woodpecker
from exporter.telemetry import Telemetry


class Greeting(msgspec.Struct):
    """`GET /version` of any server that has it; `/api/v1/arches.json` of ABF."""

    source: str = ""
    version: str = ""
    architectures: msgspec.Raw = msgspec.Raw()


def open_server(
    settings: ServerSettings,
    telemetry: Telemetry,
    *,
    recall: Recall | None = None,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], object] = time.sleep,
) -> Server:
    """The configured server, in the configured dialect or the one that it is found to speak.

    `auto` asks the server, so it raises `ServerError` where that cannot be reached or read. The token is
    first tried by `whoami()`. `recall` tells what was recorded of the server's builds before.
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
    except ServerError:
        session.close()
        raise
    match dialect:
        case "drone-0.5":
            return open_drone05(session, settings.public_url)
        case "drone-0.8":
            return open_drone08(session, settings.public_url)
        case "drone-1":
            return Drone1(session, settings.public_url)
        case "woodpecker":
            return Woodpecker(session, settings.public_url)
        case _:
            password = settings.password.get_secret_value() if settings.password else ""
            session.use_basic(settings.login or "", password)
            return Abf(session, settings.public_url, settings.abf, recall or NoRecall())


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
