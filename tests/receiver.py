"""A channel on loopback that answers what a test says, and the messages that tests send to it."""

import json
import socket
import struct
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from pydantic import TypeAdapter

from exporter.config_notify import AnyTarget
from exporter.notify.channels import open_target
from exporter.notify.notice import BuildFacts, Kind, Notice
from exporter.notify.targets import Target

KEY = "hunter2-VerySecret-0123456789abcdef"
"""What every secret of a test begins with."""
HOSTILE = (
    "<!channel> <@U012AB3CD> <!subteam^S012>",
    "@everyone @here @channel @all @所有人",
    '<at user_id="all">everyone</at> <at id=all></at>',
    "<@all> <@wangqing>",
    "[click](http://evil.example/a) <http://evil.example|ok> https://evil.example/b ![x](http://evil.example/c)",
    '*bold* _it_ ~gone~ # head <b>b</b> <script>alert(1)</script> <font color="warning">x</font>',
    "``` `code` ```\n```",
    "first\r\nBcc: all@evil.example\r\n\r\nbody\n.\r\nQUIT",
    "\u202egpj.exe\u202c \u2066x\u2069 \u200b\u200d\ufeff\u2060 <!chan\u200bnel>",
    "nul\0 bell\a esc\x1b[31m del\x7f c1\x85\x9b line\u2028para\u2029",
    "{0} %s {{x}} ${y} {title.__class__}",
    '", "text": {"isAtAll": true}, "x": "\\',
)
"""What a build may say to fool its readers."""
INVISIBLE = "\0\a\x1b\x7f\x85\x9b\u2028\u2029\u202e\u202c\u2066\u2069\u200b\u200d\ufeff\u2060"


@dataclass
class Case:
    """An answer: a status with headers and a body, or what is done in its place."""

    status: int = 200
    body: object = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    does: str = ""
    """`hang`: nothing comes; `reset`: cut off after the message was read; `half`: cut off in the body;
    `leave`: the connection is closed after the answer without a word."""


@dataclass
class Got:
    """A message as it arrived."""

    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Says nothing of clients that hang up."""


class Receiver:
    """Answers the cases in turn, the last of them for ever."""

    def __init__(self) -> None:
        self.cases: list[Case] = [Case()]
        self.got: list[Got] = []
        self.done = threading.Event()
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def answer(self, *cases: Case) -> "Receiver":
        self.cases, self.got = list(cases), []
        return self

    def close(self) -> None:
        self.done.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _handler(receiver: Receiver) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            receiver.got.append(Got(self.path, dict(self.headers), body))
            case = receiver.cases.pop(0) if len(receiver.cases) > 1 else receiver.cases[0]
            if case.does == "hang":
                receiver.done.wait(20)
            if case.does in {"hang", "reset"}:
                linger = struct.pack("ii", 1, 0)
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                self.close_connection = True
                return
            text = case.body if isinstance(case.body, str) else json.dumps(case.body)
            self.send_response_only(case.status)
            for name, value in case.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(text.encode()) + (100 if case.does == "half" else 0)))
            self.end_headers()
            self.wfile.write(text.encode())
            self.close_connection = case.does in {"half", "leave"}

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    return Handler


@contextmanager
def receiving() -> Iterator[Receiver]:
    receiver = Receiver()
    try:
        yield receiver
    finally:
        receiver.close()


SECRETS = {
    "webhook": {"secret": f"{KEY}-signs"},
    "dingtalk": {"secret": f"SEC{KEY}"},
    "feishu": {"secret": f"{KEY}-signs"},
    "lark": {"secret": f"{KEY}-signs"},
    "bot": {"token": f"xoxb-{KEY}", "channel": "C0123456789"},
}
PATHS = {
    "webhook": f"/hooks/{KEY}?token={KEY}-query",
    "slack": f"/services/T000/B000/{KEY}",
    "dingtalk": f"/robot/send?access_token={KEY}",
    "wecom": f"/cgi-bin/webhook/send?key={KEY}",
    "feishu": f"/open-apis/bot/v2/hook/{KEY}",
    "lark": f"/open-apis/bot/v2/hook/{KEY}",
}
HTTP = ("webhook", "slack", "bot", "dingtalk", "wecom", "feishu", "lark")
"""The kinds of targets that are written here and speak HTTP; `bot` is Slack's second way."""
GOOD: Mapping[str, object] = {
    "webhook": "",
    "slack": "ok",
    "bot": {"ok": True, "channel": "C0123456789", "ts": "1503435956.000247"},
    "dingtalk": {"errcode": 0, "errmsg": "ok"},
    "wecom": {"errcode": 0, "errmsg": "ok"},
    "feishu": {"code": 0, "msg": "success", "data": {}, "StatusCode": 0},
    "lark": {"StatusCode": 0, "StatusMessage": "success"},
}
"""What the channel answers when it took a message."""


def settings(kind: str, url: str, /, **more: object) -> AnyTarget:
    """Settings of a target of that kind at the receiver."""
    given: dict[str, object] = {"name": kind, "type": "slack" if kind == "bot" else kind, "timeout": 2}
    given |= {"api_url": url} if kind == "bot" else {"url": url + PATHS.get(kind, "")}
    given |= SECRETS.get(kind, {}) | more
    adapter: TypeAdapter[AnyTarget] = TypeAdapter(AnyTarget)
    return adapter.validate_python(given)


def target(kind: str, url: str, /, **more: object) -> Target:
    return open_target(settings(kind, url, **more))


def build(**changes: Any) -> BuildFacts:
    facts: dict[str, Any] = {
        "number": 42,
        "url": "https://ci.example.com/acme/web/42",
        "commit": "1a2b3c4d5e6f7a8b9c0d1a2b3c4d5e6f7a8b9c0d",
        "author": "ann",
        "title": "Parse dates without a zone",
        "status": "failure",
        "step": "test",
        "exit_code": 2,
        "duration": 200.0,
        "finished": 1_795_600_000,
    }
    return BuildFacts(**(facts | changes))


def notice(**changes: Any) -> Notice:
    facts: dict[str, Any] = {
        "key": "drone/acme/web/push:main/1/opened/1/team",
        "thread": "drone/acme/web/push:main/1",
        "kind": Kind.OPENED,
        "server": "drone",
        "repo": "acme/web",
        "branch": "main",
        "event": "push",
        "ref": "",
        "build": build(),
        "since": 1_795_592_200,
        "failures": 1,
        "first_number": 42,
        "flaky": False,
        "excerpt": "E   AssertionError: 3 != 4\nexit code 2",
        "excerpt_note": "",
        "lines": (),
        "mention": (),
        "at": 1_795_600_000,
    }
    return Notice(**(facts | changes))


def hostile(text: str, **changes: Any) -> Notice:
    """A notice that says the text wherever something of a build can stand."""
    facts = build(
        author=text, title=text, step=text, commit=text, status=text, url=f"https://ci.example.com/{text}"
    )
    parts = dict.fromkeys(("server", "repo", "branch", "event", "ref", "excerpt", "excerpt_note"), text)
    return notice(build=facts, lines=(text, text), mention=(text,), **(parts | changes))
