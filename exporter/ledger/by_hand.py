"""The ledger's SQL for people at the command line: what they look at, and what they change beside `run`.

`run` reads the ledger anew in every transaction, so that what is written here holds at once; what it would
not look at soon by itself is marked so that it does.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import msgspec
from sqlalchemy import Connection, and_, func, select, text, update

from exporter.incidents import State
from exporter.ledger import messages, states
from exporter.ledger.messages import AGE, OPEN, Row, change, incident_key, thread_of
from exporter.ledger.outbox import AT_ONCE, close_lines
from exporter.ledger.schema import (
    DEAD,
    DELIVERED,
    EXPIRED,
    HELD,
    SUPERSEDED,
    WAITING,
    incidents,
    metadata,
    outbox,
    repos,
    servers,
)
from exporter.ledger.sql import upsert
from exporter.ledger.states import write_states
from exporter.ledger.watched import RepoState, ServerState
from exporter.routes import Hold

WORDS = ("held", "pending", "sending", "delivered", "superseded", "dead", "expired")
"""How a message's state is called, by its number."""
UNDONE = ("held", "pending", "sending", "dead", "expired")
"""States of messages that nobody has read."""

_DECODE = msgspec.json.Decoder(State)


@dataclass(frozen=True, slots=True)
class Incident:
    """One incident, open or a repo's last of its ref class."""

    repo: RepoState
    state: State

    @property
    def thread(self) -> str:
        return thread_of(self.repo.id, self.state.ref_class)

    @property
    def id(self) -> str:
        """Names it in full; any beginning of it that no other has is enough."""
        return incident_key(self.thread, self.state.epoch)


def create(conn: Connection) -> None:
    """Makes all tables, in a ledger that no file keeps."""
    metadata.create_all(conn)


def all_servers(conn: Connection) -> dict[str, ServerState]:
    """Every server that was ever read, by name."""
    return {row.name: ServerState(*row) for row in conn.execute(select(servers))}


def repo_named(conn: Connection, server: str, name: str) -> RepoState | None:
    found = conn.execute(select(repos).where(repos.c.server == server, repos.c.name == name)).first()
    return RepoState(*found) if found else None


def incidents_of(conn: Connection, *, closed: bool) -> list[Incident]:
    """All open incidents, by server and repo; with `closed` the last one of every other ref class too."""
    found = select(repos, incidents.c.state.label("told")).join(incidents, incidents.c.repo_id == repos.c.id)
    if not closed:
        found = found.where(text("red"))
    rows = conn.execute(found.order_by(repos.c.server, repos.c.name, incidents.c.ref_class))
    every = [Incident(RepoState(*row[:-1]), _DECODE.decode(row[-1])) for row in rows]
    return [incident for incident in every if incident.state.epoch]


def touch(conn: Connection, repo_id: int, state: State) -> None:
    """Stores a state that was changed by hand, so that `run` shows it from its next look at the clock on."""
    write_states(conn, repo_id, [state], look_at=0.0)


def messages_of(conn: Connection, incident: Incident) -> list[Row]:
    """What was told of an incident, or is to be, oldest first."""
    of_incident = and_(outbox.c.thread == incident.thread, outbox.c.epoch == incident.state.epoch)
    return [Row(*row) for row in conn.execute(select(outbox).where(of_incident).order_by(outbox.c.id))]


def listed(conn: Connection, states: Collection[str], targets: Collection[str] = ()) -> list[Row]:
    """Messages in one of these states (by their words), of these targets or of all, oldest first."""
    found = select(outbox).where(outbox.c.state.in_([WORDS.index(word) for word in states]))
    if targets:
        found = found.where(outbox.c.target.in_(targets))
    return [Row(*row) for row in conn.execute(found.order_by(outbox.c.id))]


def message(conn: Connection, row_id: int) -> Row | None:
    found = conn.execute(select(outbox).where(outbox.c.id == row_id)).first()
    return Row(*found) if found else None


def overtaken_by(conn: Connection, row: Row) -> int:
    """A later message that its target has of the same thread; 0 where there is none."""
    later = select(outbox.c.id).where(
        outbox.c.target == row.target,
        outbox.c.thread == row.thread,
        outbox.c.id > row.id,
        outbox.c.state == DELIVERED,
    )
    return conn.execute(later.limit(1)).scalar() or 0


def can_retry(row: Row) -> bool:
    return row.state in (WAITING, DEAD, EXPIRED)


def can_drop(row: Row) -> bool:
    return can_retry(row) or (row.state == HELD and not row.into_id)


def retry(conn: Connection, rows: Sequence[Row], now: float) -> None:
    """Lets messages be sent now, and tried for as long as new ones; their targets are left alone no more."""
    ids = [row.id for row in rows]
    change(conn, ids, state=WAITING, due=AT_ONCE, ready=now, expires=now + AGE, closed=0.0)


def drop(conn: Connection, rows: Sequence[Row], why: str, now: float) -> None:
    """Lets messages never be sent; with a digest its lines."""
    for row in rows:
        if row.kind == "digest":
            close_lines(conn, row.id, now)
    change(conn, [row.id for row in rows], state=SUPERSEDED, closed=now, answer=why)


def adopt(conn: Connection, repo: RepoState) -> None:
    """Takes in a repo of another ledger, with its id."""
    upsert(conn, repos, [tuple(getattr(repo, column.name) for column in repos.columns)])


def next_waking(conn: Connection) -> float:
    """When time alone changes something next; infinity for never."""
    found = conn.execute(select(func.min(incidents.c.wakes))).scalar()
    return float("inf") if found is None else float(found)


def deliver(conn: Connection) -> None:
    """Takes every message that is not held for told."""
    conn.execute(update(outbox).where(OPEN, outbox.c.state == WAITING).values(state=DELIVERED))


def end_mute(conn: Connection, server: str, repo: str, now: float) -> int:
    """Lets what a mute of a repo (empty: of all of the server) held be told now; how many messages."""
    held = [row for row in messages.held(conn) if row.hold == Hold.MUTED and row.server == server]
    of = [row for row in held if not repo or row.told.repo == repo]
    due = [row for row in of if states.muted_until(conn, server, row.told.repo, now) == 0.0]
    change(conn, [row.id for row in due], due=now)
    return len(due)
