"""What the dialects share: requests, answers, tokens, and finding the way."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote

import msgspec

from exporter.simulator.repos import User
from exporter.simulator.world import World

JSON_UTF8 = "application/json; charset=utf-8"
JSON = "application/json"
TEXT = "text/plain; charset=utf-8"
HTML = "text/html; charset=utf-8"
PAGE = b"<!DOCTYPE html>\n<html><head><title>drone</title></head><body><div id=app></div></body></html>\n"

encode = msgspec.json.Encoder().encode


@dataclass(slots=True)
class Ask:
    """One request: `parts` are the variable segments of its path."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    now: float = 0.0
    user: User | None = None
    parts: tuple[str, ...] = ()
    body: bytes = b""


@dataclass(slots=True)
class Answer:
    """One response; `route` is the path with its variable segments left out."""

    status: int
    body: bytes = b""
    type: str = ""
    headers: list[tuple[str, str]] = field(default_factory=list)
    route: str = ""


Handler = Callable[[World, Ask], Answer]


def read_query(query: bytes) -> dict[str, str]:
    """The first value of each key; of a list (`key[]`) all, joined by commas."""
    found: dict[str, str] = {}
    for key, value in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
        if key.endswith("[]") and key in found:
            found[key] += f",{value}"
        found.setdefault(key, value)
    return found


def find_user(world: World, ask: Ask, *, csrf: bool, bare: bool = True) -> User | None:
    """Whose token it is; a bad one is nobody's, and a header is the only one tried where present.

    `csrf`: a session cookie counts only for GET (0.5, 0.8, Woodpecker); `bare`: a token without
    `Bearer` counts too.
    """
    header = ask.headers.get("authorization", "")
    if header:
        token = header.removeprefix("Bearer ")
        if not bare and token == header:
            return None
    elif "access_token" in ask.query:
        token = ask.query["access_token"]
    else:
        cookies = dict(
            pair.strip().partition("=")[::2] for pair in ask.headers.get("cookie", "").split(";") if pair
        )
        token = cookies.get("user_sess" if csrf else "_session_", "")
        if csrf and ask.method != "GET":
            return None
    return world.users.get(token)


class Routes:
    """Paths to handlers; in a path, `{}` stands for any one segment."""

    def __init__(self, routes: Sequence[tuple[str, str, Handler]]) -> None:
        self._by_size: dict[tuple[str, int], list[tuple[list[str], str, Handler]]] = {}
        for method, path, handler in routes:
            segments = path.split("/")
            self._by_size.setdefault((method, len(segments)), []).append((segments, path, handler))

    def find(self, method: str, path: str) -> tuple[Handler, str, tuple[str, ...]] | None:
        """(handler, route, variable segments), or None where nothing fits."""
        segments = path.split("/")
        for wanted, route, handler in self._by_size.get((method, len(segments)), ()):
            if all(w in ("{}", s) for w, s in zip(wanted, segments, strict=True)):
                parts = tuple(unquote(s) for w, s in zip(wanted, segments, strict=True) if w == "{}")
                return handler, route, parts
        return None


def log_lines(step: str, status: str, exit_code: int) -> list[str]:
    """Some plausible lines that a step printed."""
    match step:
        case "clone":
            return ["+ git init", "Initialized empty Git repository in /drone/src/.git/", ""]
        case "build":
            return ["+ go build", "正在编译 主程序 …", "ok"]
        case _:
            lines = [f"+ make {step}", f"{step}: 3 of 3"]
            if status == "failure":
                lines.append(f"make: *** [{step}] Error {exit_code}")
            return lines
