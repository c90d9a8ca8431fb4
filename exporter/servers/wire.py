"""What every dialect does with an answer: decode it, row by row where need be, and distrust its values."""

import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Annotated, Any, Generic, Protocol, TypeVar
from urllib.parse import quote

import msgspec

from exporter.http import Answer, ServerError, Session
from exporter.model import Event, Status

MOST_VALUES = 2_000_000
"""Values in one answer that are decoded at most (about 40,000 repos with their newest builds)."""
LONGEST_LABEL = 255
LONGEST_TITLE = 200
EARLIEST = 946_684_800
"""2000-01-01: an older time is none that a CI server wrote."""
AHEAD = 300
"""Seconds by which a time may be ahead of the server's clock: agents have clocks of their own."""

Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
"""An id or a number: anything else makes its row unreadable."""
Number = Annotated[int, msgspec.Meta(ge=1, le=2**53)]
Code = Annotated[int, msgspec.Meta(ge=-(2**31), le=2**32)]
"""An exit code; Windows has large ones."""

REPO_NAME = re.compile(r"(?!\.\.?/)[^/\s\x00-\x1f\x7f]+/(?!\.\.?$)[^/\s\x00-\x1f\x7f]+")
SURROGATE = re.compile("[\ud800-\udfff]")
BROKEN = (msgspec.MsgspecError, ValueError, RecursionError)

T = TypeVar("T")


class Numbered(Protocol):
    number: int


S = TypeVar("S", bound=Numbered)


class Reading:
    """One answer being read: values outside the contract become harmless ones, and are counted."""

    __slots__ = ("_latest", "_session")

    def __init__(self, session: Session) -> None:
        self._session = session
        self._latest = session.server_now() + AHEAD

    def moment(self, field: str, value: int) -> int:
        """The Unix time, or 0 where it cannot be real."""
        if value == 0 or EARLIEST <= value <= self._latest:
            return value
        self.unknown(field, value)
        return 0

    def status(self, table: Mapping[str, Status], value: str, field: str = "status") -> Status:
        found = table.get(value)
        if found is None:
            self.unknown(field, value)
            return Status.UNKNOWN
        return found

    def event(self, table: Mapping[str, Event], value: str) -> Event:
        found = table.get(value)
        if found is None:
            self.unknown("event", value)
            return Event.MANUAL
        return found

    def repo(self, name: str) -> bool:
        """True when it looks like `owner/name`; else the row that holds it is not to be used."""
        if is_repo_name(name):
            return True
        self.skip(f"no repo's name: {name[:60]}")
        return False

    def unknown(self, field: str, value: object) -> None:
        self._session.telemetry.unknown(self._session.name, field, value)

    def skip(self, why: str) -> None:
        """Count a row that cannot be used."""
        self.unknown("row", why)
        self._session.telemetry.failed(self._session.name, "shape")


def is_repo_name(name: str) -> bool:
    """True when it looks like `owner/name`, and is no longer than a label."""
    return len(name) <= LONGEST_LABEL and REPO_NAME.fullmatch(name) is not None


def repo_reader(kind: type[T], name: Callable[[T], str]) -> Callable[[str], str]:
    """Reads of an event of a change stream which repo it is of; empty where it makes no sense."""
    decode = msgspec.json.Decoder(kind).decode

    def repo_of(event: str) -> str:
        try:
            repo = name(decode(event))
        except BROKEN:
            return ""
        return repo if is_repo_name(repo) else ""

    return repo_of


class Told(msgspec.Struct, gc=False):
    """An event of the change stream of every dialect but Drone 1.x."""

    class Repo(msgspec.Struct, gc=False):
        full_name: str

    repo: Repo


repo_told = repo_reader(Told, lambda event: event.repo.full_name)


class Shape(Generic[T]):
    """How one kind of object is decoded, alone or in a list.

    `key`: where in an answer the list stands. `spare`: a field that a row is read without when its
    value makes no sense.
    """

    def __init__(self, kind: type[T], key: str = "", spare: str = "") -> None:
        self._kind = kind
        self._key, self._spare = key, spare
        self._one = msgspec.json.Decoder(kind)
        rows: Any = list[kind] | None  # type: ignore[valid-type]
        self._list: msgspec.json.Decoder[Any] = msgspec.json.Decoder(
            msgspec.defstruct("Named", [(key, rows)]) if key else rows
        )

    def rows(self, session: Session, answer: Answer) -> list[T]:
        """All rows that can be read; `null` is an empty list."""
        return self.counted(session, answer)[0]

    def counted(self, session: Session, answer: Answer) -> tuple[list[T], int]:
        """All rows that can be read, and how many the answer had."""
        _measure(session, answer)
        try:
            whole = self._list.decode(answer.body)
        except BROKEN:
            found = _loads(session, answer)
        else:
            read: list[T] = (getattr(whole, self._key) if self._key else whole) or []
            return read, len(read)
        if self._key:
            found = found.get(self._key) if isinstance(found, dict) else None
        if not isinstance(found, list):
            raise session.fault("shape", answer.path, "answered something else than a list", status=200)
        reading = Reading(session)
        rows: list[T] = []
        for row in found:
            try:
                rows.append(self._convert(row))
            except BROKEN as error:
                reading.skip(str(error))
                if self._spare and isinstance(row, dict) and row.pop(self._spare, None) is not None:
                    with suppress(*BROKEN):
                        rows.append(self._convert(row))
        return rows, len(found)

    def one(self, session: Session, answer: Answer) -> T:
        _measure(session, answer)
        try:
            return self._one.decode(answer.body)
        except BROKEN:
            found = _loads(session, answer)
        try:
            return self._convert(found)
        except BROKEN as error:
            what = f"answered something else than is known of this server ({str(error)[:100]})"
            raise session.fault("shape", answer.path, what, status=200) from None

    def _convert(self, value: object) -> T:
        return msgspec.convert(_scrubbed(value), self._kind)


class Account(msgspec.Struct, gc=False):
    """`GET /api/user` of every Drone."""

    login: str
    admin: bool = False


ACCOUNT = Shape(Account)


def text(value: str, longest: int = LONGEST_LABEL) -> str:
    """The text without what a database or a page cannot hold, cut to its longest."""
    if len(value) > longest:
        value = value[:longest]
    return value.replace("\0", "\ufffd") if "\0" in value else value


def title(*candidates: str) -> str:
    """The first line of the first candidate that has one."""
    for candidate in candidates:
        if line := candidate.lstrip()[: LONGEST_TITLE + 1].partition("\n")[0].rstrip():
            return text(line, LONGEST_TITLE)
    return ""


def branch(value: str, ref: str) -> str:
    """The branch that a build belongs to: empty where the server only repeats the tag."""
    if ref.startswith("refs/tags/"):
        if value.startswith("refs/tags/") or value == ref[10:]:
            return ""
    elif not value and ref.startswith("refs/heads/"):
        value = ref
    return text(value.removeprefix("refs/heads/"))


def span(start: int, end: int) -> int | None:
    """Seconds from one moment to another, where both are real."""
    return end - start if 0 < start <= end else None


def variables(environment: Mapping[str, str] | None) -> str:
    """The matrix of a leg as `K=V,…`, in the server's order."""
    return ",".join(f"{key}={value}" for key, value in (environment or {}).items())


def repo_path(repo: str) -> str:
    """The repo's name as a part of a path."""
    return quote(repo, safe="/")


def build_path(repo: str, number: int) -> str:
    """Where every Drone has a build."""
    return f"/api/repos/{repo_path(repo)}/builds/{number}"


def read_build(
    session: Session, shape: Shape[S], repo: str, number: int, *, refused: Callable[[Answer], bool]
) -> S:
    """The single build; `refused` says which answers mean that there is no such number."""
    answer = session.ask(build_path(repo, number), "build")
    if refused(answer):
        what = f"answered {answer.status}: there is no such build, or the token's user may not read it"
        raise session.fault("status", answer.path, what, status=answer.status, missing=True)
    row = shape.one(session, session.check(answer))
    if row.number != number:
        raise session.fault("shape", answer.path, f"answered build {row.number}", status=200)
    return row


def is_no_list(error: ServerError) -> bool:
    """True when a list of open builds is refused for good: no right to it, or not in this edition."""
    return error.status in {403, 404, 413, 501}


def _measure(session: Session, answer: Answer) -> None:
    if answer.body.count(b",") > MOST_VALUES:
        raise session.fault("shape", answer.path, "the answer holds too many values", status=200)


def _loads(session: Session, answer: Answer) -> Any:
    """The body by a decoder that also takes what no server should send: lone surrogates, broken UTF-8."""
    try:
        return json.loads(answer.body.decode("utf-8", "replace"), strict=False, parse_int=_whole)
    except (ValueError, RecursionError):
        raise session.fault("json", answer.path, "the answer is no whole JSON", status=200) from None


def _whole(digits: str) -> int | None:
    """A number that is none for its length costs its row, not the answer."""
    return int(digits) if len(digits) < 40 else None


def _scrubbed(value: Any) -> Any:
    if isinstance(value, str):
        return SURROGATE.sub("\ufffd", value)
    if isinstance(value, list):
        return [_scrubbed(item) for item in value]
    if isinstance(value, dict):
        return {_scrubbed(key): _scrubbed(item) for key, item in value.items()}
    return value
