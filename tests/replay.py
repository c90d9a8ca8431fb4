"""A server on loopback that answers what a real one answered once (tests/data/recordings)."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from exporter.config import ServerSettings
from exporter.model import Build
from exporter.servers import Recall, Server
from exporter.servers.detect import open_server
from exporter.telemetry import Telemetry

RECORDINGS = Path(__file__).parent / "data" / "recordings"
NOW = 1_795_600_000
"""The clock of the server that replays: after all that was recorded."""
TOKEN = "t0p-s3cr3t-t0k3n"
ANY = dict.fromkeys(("drone-0.5", "drone-0.8", "drone-1.x", "woodpecker"), "user") | {"abf": "rosa-index"}
"""A recording of each system that has the headers of its JSON answers."""
UNKNOWN = {"status": 404, "headers": {}, "body": ""}


@cache
def recordings(system: str) -> dict[str, str]:
    """The text of every recording of a system, by name."""
    return {
        path.stem: path.read_text(encoding="utf-8") for path in sorted((RECORDINGS / system).glob("*.json"))
    }


def recording(system: str, name: str) -> Any:
    """One recording as a fresh value: `request`, `status`, `headers`, `body`."""
    return json.loads(recordings(system)[name])


@dataclass
class Replay:
    """What is answered, by path with query, else by path alone; `asked` is what was asked.

    Before the path of anything but GET stands its method.
    """

    system: str
    url: str = ""
    answers: dict[str, Any] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    tokens: list[str | None] = field(default_factory=list)
    now: float = NOW
    """What its clock says."""
    live: Callable[[str], Any] | None = None
    """Answers what nothing was put at, where it answers anything."""

    def play(self, *names: str, at: str = "") -> "Replay":
        """Answer these recordings where they were asked, or at another path."""
        for name in names:
            answer = recording(self.system, name)
            self.answers[at or _line(**answer["request"])] = answer
        return self

    def serve(self, path: str, body: object, status: int = 200) -> "Replay":
        """Answer this JSON value (or these bytes) there, as the system would."""
        headers = recording(self.system, ANY[self.system])["headers"]
        self.answers[path] = {"status": status, "headers": headers, "body": body}
        return self

    def asked_by(self, name: str) -> str:
        """The path that a recording answers."""
        return str(recording(self.system, name)["request"]["path"])

    def answer_to(self, path: str) -> Any:
        put = self.answers.get(path) or self.answers.get(path.partition("?")[0])
        return put or (self.live and self.live(path)) or UNKNOWN


def _line(method: str, path: str, **_: object) -> str:
    return path if method == "GET" else f"{method} {path}"


def _payload(answer: Any) -> bytes:
    body = answer["body"]
    if isinstance(body, bytes):
        return body
    is_json = answer["headers"].get("Content-Type", "").startswith("application/json")
    return (json.dumps(body) if is_json else str(body)).encode()


@contextmanager
def replaying(system: str, *names: str) -> Iterator[Replay]:
    """A server of that system which answers the recordings of `names`."""
    replay = Replay(system)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = 1 << 16
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            line = _line(self.command, self.path)
            replay.asked.append(line)
            replay.tokens.append(self.headers.get("Authorization"))
            answer = replay.answer_to(line)
            payload = _payload(answer)
            self.send_response_only(answer["status"])
            self.send_header("Date", formatdate(replay.now, usegmt=True))
            for name, value in answer["headers"].items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        replay.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield replay.play(*names)
        finally:
            server.shutdown()
            thread.join()


def opened(
    replay: Replay,
    telemetry: Telemetry,
    dialect: str = "auto",
    *,
    recall: Recall | None = None,
    **options: object,
) -> Server:
    """The server of a replay, read as the exporter reads it; `options` are settings of it."""
    settings = ServerSettings.model_validate(
        {
            "name": "ci",
            "url": replay.url,
            "public_url": "https://ci.example.com/",
            "token": SecretStr(TOKEN),
            "dialect": dialect,
        }
        | options
    )
    return open_server(settings, telemetry, recall=recall, clock=lambda: replay.now)


def build_in(server: Server, replay: Replay, name: str) -> Build:
    """The single build of a recording, asked for as it was when it was recorded."""
    _, _, _, owner, repo, _, number = replay.play(name).asked_by(name).split("/")
    return server.build(f"{owner}/{repo}", int(number))


def differences(build: Build, **expected: object) -> dict[str, object]:
    """What of a build is not as expected; steps are given as (name, status, exit code, duration)."""
    found = {name: getattr(build, name) for name in expected}
    if "steps" in found:
        found["steps"] = [(s.name, s.status.word, s.exit_code, s.duration) for s in build.steps]
    return {name: value for name, value in found.items() if value != expected[name]}
