"""Switches for everything that can go wrong between a server and its reader."""

import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import msgspec

Kind = Literal[
    "slow", "hang", "trickle", "reset", "cut",
    "limit", "status", "not_found", "not_admin", "community", "redirect", "html",
    "truncated", "stale", "wrong_types", "unknown_status", "times", "huge", "date", "drop", "silence",
]  # fmt: skip
STREAMING = ("drop", "silence")
"""They befall a stream that is connected: it is closed, or nothing comes any more."""
TIMES = {"future": 4_102_444_800, "zero": 0, "1999": 915_148_800}
ROW_TIMES = re.compile("(created|started|finished|enqueued|updated)(_at)?")
PROXY_PAGE = (
    b"<html><head><title>%d</title></head><body><center><h1>%d</h1></center><hr>nginx</body></html>\n"
)


@dataclass(slots=True)
class Fault:
    """One switch that is on.

    `path` is a regular expression searched in the path with its query; `left` how many more
    requests it strikes (None: all); the rest means something to some kinds only.
    """

    kind: Kind
    path: re.Pattern[str]
    left: int | None = None
    seconds: float = 2.0
    """slow: before the headers; trickle: in all; date: how far the Date header is ahead."""
    status: int = 503
    retry_after: str = ""
    """limit: the header's value, seconds or an HTTP date; empty: no header (ABF: 403, as OpenMandriva's)."""
    to: str = "http://elsewhere.invalid/"
    """redirect: the address, to which the path is added."""
    row: int = 0
    """wrong_types, unknown_status, times: which row of the answer; -1: every one. stale: how many of the
    newest rows are not there yet."""
    value: str = "future"
    """times: future, zero or 1999; unknown_status: the word (ABF: the code)."""
    size: int = 100_000_000
    """huge: bytes of the answer."""
    struck: int = 0
    """How often it has."""


@dataclass(slots=True)
class Faults:
    """The switches of one world; the first that is on for a request strikes."""

    on: list[Fault] = field(default_factory=list)

    def add(
        self,
        kind: Kind,
        path: str = "",
        *,
        times: int | None = None,
        seconds: float = 2.0,
        status: int = 503,
        retry_after: str = "",
        to: str = "http://elsewhere.invalid/",
        row: int = 0,
        value: str = "future",
        size: int = 100_000_000,
    ) -> Fault:
        """Switches a fault on for paths that `path` is found in, for the next `times` requests or all."""
        fault = Fault(kind, re.compile(path), times, seconds, status, retry_after, to, row, value, size)
        self.on.append(fault)
        return fault

    def off(self, fault: Fault) -> None:
        """Switches one off."""
        self.on.remove(fault)

    def clear(self) -> None:
        """Switches all off."""
        self.on.clear()

    def strike(self, path: str) -> Fault | None:
        """The fault that befalls this request, counted."""
        return self._first(path, streaming=False)

    def strike_stream(self, path: str) -> Fault | None:
        """The fault that befalls a connected stream now, counted at each look."""
        return self._first(path, streaming=True)

    def _first(self, path: str, *, streaming: bool) -> Fault | None:
        for fault in self.on:
            fits = (fault.kind in STREAMING) is streaming and fault.path.search(path)
            if fits and (fault.left is None or fault.left > 0):
                fault.struck += 1
                if fault.left is not None:
                    fault.left -= 1
                return fault
        return None


def spoil(body: bytes, fault: Fault) -> bytes:
    """The JSON answer with the fault worked into it."""
    if fault.kind == "truncated":
        return body[: len(body) // 2]
    change: Callable[[dict[str, object]], None]
    match fault.kind:
        case "wrong_types":
            change = _mistype
        case "unknown_status":
            change = _set_status(fault.value if fault.value not in TIMES else "exploded")
        case _:
            change = _set_times(TIMES[fault.value])
    answer = msgspec.json.decode(body)
    listed = answer.get("build_lists") if isinstance(answer, dict) else answer
    rows = listed if isinstance(listed, list) else [answer]
    if fault.kind == "stale":
        del rows[: fault.row]
        return msgspec.json.encode(answer)
    for i, row in enumerate(rows):
        if isinstance(row, dict) and fault.row in (-1, i):
            held = (row.get(key) for key in ("build", "last_pipeline", "build_list"))
            change(next((inner for inner in held if isinstance(inner, dict)), row))
    return msgspec.json.encode(answer)


def proxy_page(status: int) -> bytes:
    """What a proxy in front of a dead server answers."""
    return PROXY_PAGE % (status, status)


def padding(size: int) -> itertools.chain[bytes]:
    """A JSON list of about `size` bytes, in chunks."""
    chunk = b'{"id":1,"number":1,"message":"' + b"x" * 65_000 + b'"},'
    return itertools.chain([b"["], itertools.repeat(chunk, size // len(chunk) + 1), [b"{}]"])


def _mistype(row: dict[str, object]) -> None:
    for key, value in row.items():
        if isinstance(value, int) and key in ("number", "id"):
            row[key] = str(value)
        elif key == "status":
            row[key] = {"is": value}


def _set_status(word: str) -> Callable[[dict[str, object]], None]:
    """A status is a word, or (ABF) a number: one that is no number is 31337 there."""

    def change(row: dict[str, object]) -> None:
        if isinstance(row.get("status"), int):
            row["status"] = int(word) if word.isdecimal() else 31337
        elif "status" in row:
            row["status"] = word

    return change


def _set_times(at: int) -> Callable[[dict[str, object]], None]:
    def change(row: dict[str, object]) -> None:
        for key in row:
            if ROW_TIMES.fullmatch(key):
                row[key] = at

    return change
