"""The ledger's SQL for messages: written in the transaction that records what they tell of."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import msgspec
from sqlalchemy import Connection, bindparam, func, insert, select, text, update
from sqlalchemy.dialects import postgresql, sqlite

from exporter.ledger.schema import DEAD, HELD, SUPERSEDED, WAITING, mutes, outbox
from exporter.routes import Folded, Hold, Waiting

AGE = 86_400.0
"""Seconds for which a message is tried; what its target's pause takes does not count."""


class Facts(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a message says: an incident as it was then, and the build that changed it. Times: Unix seconds."""

    repo: str = ""
    branch: str = ""
    event: str = ""
    ref: str = ""
    """What was built beside a branch, in words: `tag v1.2`."""
    since: float = 0.0
    failures: int = 0
    first: int = 0
    flaky: bool = False
    at: float = 0.0
    number: int = 0
    run: int = 0
    url: str = ""
    commit: str = ""
    author: str = ""
    title: str = ""
    status: str = ""
    step: str = ""
    exit_code: int = 0
    duration: int | None = None
    finished: int = 0
    lines: tuple[str, ...] = ()
    """Of an alert: its title, and what stands below it."""


class UnreadableError(Exception):
    """What the ledger has of a message says nothing here: a later version wrote it, or it is damaged."""

    def __init__(self, row_id: int) -> None:
        super().__init__(f"message {row_id} cannot be read")
        self.row_id = row_id


@dataclass(slots=True)
class Row:
    """A row of the table `outbox`; fields in the order of its columns."""

    id: int
    key: str
    target: str
    thread: str
    epoch: int
    kind: str
    server: str
    repo_id: int | None
    state: int
    hold: str = Hold.NO
    into_id: int | None = None
    created: float = 0.0
    ready: float = 0.0
    due: float = 0.0
    expires: float = 0.0
    lease: float = 0.0
    closed: float = 0.0
    attempts: int = 0
    short: bool = False
    answer: str = ""
    reference: str = ""
    facts: str = ""
    excerpt: str | None = None
    excerpt_note: str = ""

    @property
    def told(self) -> Facts:
        """What it says; raises `UnreadableError`."""
        try:
            return _DECODE.decode(self.facts)
        except msgspec.MsgspecError:
            raise UnreadableError(self.id) from None


_DECODE = msgspec.json.Decoder(Facts)
_COLUMNS = tuple(f.name for f in fields(Row) if f.name != "id")
OPEN = text("outbox.state <= 2")  # as the index has it
# Without an order: SQLite would go through all that is kept for it.
_HELD = select(outbox).where(OPEN, outbox.c.state == HELD, outbox.c.into_id.is_(None))
_JOINS = (
    select(outbox.c.hold, outbox.c.due)
    .where(
        outbox.c.target == bindparam("of_target"),
        outbox.c.thread == bindparam("of_thread"),
        outbox.c.state == HELD,
        outbox.c.into_id.is_(None),
    )
    .limit(1)
)
OPENINGS = select(func.count(outbox.c.thread.distinct())).where(
    outbox.c.server == bindparam("of_server"),
    outbox.c.created > bindparam("since"),
    outbox.c.kind == "opened",
    outbox.c.thread != bindparam("of_thread"),
)


def encode(facts: Facts) -> str:
    """The facts as a row holds them."""
    return msgspec.json.encode(facts).decode()


def message_key(*parts: object) -> str:
    """The idempotency key of what these parts name."""
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()[:32]


def thread_of(repo_id: int, ref_class: str) -> str:
    """What all messages of a ref class have in common: they are told in order."""
    return f"{repo_id} {ref_class}"


def incident_key(thread: str, epoch: int) -> str:
    """What names one incident: at a target, and (its beginning) on the command line."""
    return message_key(thread, epoch)


def add(conn: Connection, rows: Sequence[Row]) -> None:
    """Writes new messages; one that is there already stays as it is."""
    if not rows:
        return
    dialect = postgresql if conn.dialect.name == "postgresql" else sqlite
    values = [{name: getattr(row, name) for name in _COLUMNS} for row in rows]
    conn.execute(dialect.insert(outbox).on_conflict_do_nothing(index_elements=["key"]), values)


def joins(conn: Connection, target: str, thread: str) -> tuple[str, float] | None:
    """Why the earlier messages of a thread are held, and until when; None where none is."""
    found = conn.execute(_JOINS, {"of_target": target, "of_thread": thread}).first()
    return (found[0], found[1]) if found else None


def last_epoch(conn: Connection, target: str, thread: str) -> int:
    """The epoch of the newest message of a thread; 0 where there is none."""
    of_thread = (outbox.c.target == target, outbox.c.thread == thread)
    return conn.execute(select(func.max(outbox.c.epoch)).where(*of_thread)).scalar() or 0


def openings(conn: Connection, server: str, thread: str, since: float) -> int:
    """How many other incidents of a server were told to be open since then."""
    where = {"of_server": server, "of_thread": thread, "since": since}
    return int(conn.execute(OPENINGS, where).scalar_one())


def storm_until(conn: Connection, server: str) -> float | None:
    """When the storm on a server that is being collected is told."""
    found = select(func.min(outbox.c.due)).where(
        OPEN, outbox.c.server == server, outbox.c.state == HELD, outbox.c.hold == Hold.STORM
    )
    return conn.execute(found.where(outbox.c.into_id.is_(None))).scalar()


def held(conn: Connection) -> list[Row]:
    """What is told later, oldest first; not what is a line of a message already."""
    return sorted((Row(*row) for row in conn.execute(_HELD)), key=lambda row: row.id)


def muted(conn: Connection) -> dict[tuple[str, str], float]:
    """Until when nobody is told, by server and repo (empty: all of the server)."""
    return {(server, repo): until for server, repo, until in conn.execute(select(mutes))}


def waiting_of(rows: Iterable[Row]) -> list[Waiting]:
    """Messages as routes fold them."""
    return [Waiting(row.id, row.thread, row.kind, row.hold, row.told.since) for row in rows]


def apply(
    conn: Connection, target: str, rows: Mapping[int, Row], folded: Folded, now: float, *, held: bool = True
) -> None:
    """Writes what was made of messages of one target that waited; where they were `held`, some go out."""
    if folded.keep and held:
        change(conn, folded.keep, state=WAITING, hold=Hold.NO, ready=now, due=now, expires=now + AGE)
    for row_id, into in folded.superseded.items():
        change(conn, [row_id], state=SUPERSEDED, into_id=into, closed=now)
    if folded.lines:
        ids = [row_id for line in folded.lines for row_id in line]
        server, thread = rows[ids[0]].server, f"digest {ids[0]}"
        digest = Row(0, message_key(thread, target), target, thread, 0, "digest", server, None, WAITING)
        digest.created = digest.ready = digest.due = now
        digest.expires = now + AGE
        digest.facts, digest.excerpt = encode(Facts(at=now)), ""
        values = {name: getattr(digest, name) for name in _COLUMNS}
        into = conn.execute(insert(outbox).values(values).returning(outbox.c.id)).scalar_one()
        change(conn, ids, state=HELD, hold=Hold.DIGEST, into_id=into)
        # A digest that becomes part of another one hands its lines over.
        inner = update(outbox).where(outbox.c.into_id.in_(ids), outbox.c.state == HELD)
        conn.execute(inner.values(into_id=into))
        change(conn, [i for i in ids if rows[i].kind == "digest"], state=SUPERSEDED, closed=now)


def change(conn: Connection, ids: Sequence[int], **values: Any) -> None:
    """Sets columns of these messages."""
    for at in range(0, len(ids), 500):
        conn.execute(update(outbox).where(outbox.c.id.in_(ids[at : at + 500])).values(values))


def bury(conn: Connection, ids: Sequence[int], now: float) -> None:
    """Gives up messages that cannot be read, for the sake of the others."""
    change(conn, ids, state=DEAD, closed=now, answer="what the ledger has of it cannot be read")


def write_excerpt(conn: Connection, ids: Sequence[int], excerpt: str, note: str) -> None:
    """Keeps lines of the log that messages are about, or why there are none."""
    change(conn, ids, excerpt=excerpt, excerpt_note=note)
