"""The ledger's SQL for sending messages: what is due, leased, what became of it, what is left."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, bindparam, delete, func, select, text, update

from exporter.ledger.messages import AGE, OPEN, Row
from exporter.ledger.schema import DEAD, DELIVERED, EXPIRED, HELD, SENDING, SUPERSEDED, WAITING, outbox
from exporter.ledger.sql import chunks

KEPT = 30 * 86_400.0
"""Seconds for which what became of a message is kept."""
AT_ONCE = 0.0
"""When a message is due that somebody wants sent now, though its target be left alone for a while."""

_EARLIER = outbox.alias("earlier")
_IN_ORDER = (
    ~select(_EARLIER.c.id)
    .where(
        _EARLIER.c.target == outbox.c.target,
        _EARLIER.c.thread == outbox.c.thread,
        _EARLIER.c.id < outbox.c.id,
        _EARLIER.c.state <= SENDING,
    )
    .exists()
)
_MEMBER = outbox.alias("member")
_MEMBERS_IN_ORDER = (
    ~select(_EARLIER.c.id)
    .join(_MEMBER, (_MEMBER.c.target == _EARLIER.c.target) & (_MEMBER.c.thread == _EARLIER.c.thread))
    .where(
        _MEMBER.c.target == outbox.c.target,
        _MEMBER.c.into_id == outbox.c.id,
        text("member.state <= 2"),
        _EARLIER.c.id < _MEMBER.c.id,
        _EARLIER.c.state <= SENDING,
        func.coalesce(_EARLIER.c.into_id, 0) != outbox.c.id,
    )
    .exists()
)
_DUE = (
    select(outbox)
    .where(
        outbox.c.target == bindparam("of_target"),
        OPEN,
        outbox.c.state == WAITING,
        outbox.c.due <= bindparam("now"),
        _IN_ORDER,
    )
    .order_by(outbox.c.id)
    .limit(bindparam("most"))
)
_DIGEST_DUE = select(outbox.c.id).where(outbox.c.id.in_(bindparam("ids", expanding=True)), _MEMBERS_IN_ORDER)
_REFERENCE = (
    select(outbox.c.reference)
    .where(
        outbox.c.target == bindparam("of_target"),
        outbox.c.thread == bindparam("of_thread"),
        outbox.c.epoch == bindparam("of_epoch"),
        outbox.c.state == DELIVERED,
        outbox.c.reference != "",
    )
    .order_by(outbox.c.id.desc())
    .limit(1)
)
_LEASE = update(outbox).where(outbox.c.id == bindparam("row")).values(state=SENDING, lease=bindparam("until"))
_MARK = (
    update(outbox)
    .where(outbox.c.id == bindparam("row"), outbox.c.state == SENDING)
    .values(
        state=bindparam("to"),
        closed=bindparam("when_closed"),
        due=bindparam("next_due"),
        attempts=outbox.c.attempts + bindparam("tried"),
        short=bindparam("is_short"),
        answer=bindparam("said"),
        reference=bindparam("by"),
    )
)


def due(conn: Connection, target: str, now: float, most: int) -> list[Row]:
    """The messages of a target that are to be sent now, none before the earlier ones of its thread."""
    rows = [Row(*row) for row in conn.execute(_DUE, {"of_target": target, "now": now, "most": most})]
    digests = [row.id for row in rows if row.kind == "digest"]
    if digests:
        ready = set(conn.execute(_DIGEST_DUE, {"ids": digests}).scalars())
        rows = [row for row in rows if row.kind != "digest" or row.id in ready]
    return rows


def waiting(conn: Connection, target: str) -> list[Row]:
    """All messages of a target that wait to be sent, oldest first."""
    of_target = (outbox.c.target == target, OPEN, outbox.c.state == WAITING)
    return [Row(*row) for row in conn.execute(select(outbox).where(*of_target).order_by(outbox.c.id))]


def lease(conn: Connection, ids: Sequence[int], until: float) -> None:
    if ids:
        conn.execute(_LEASE, [{"row": row_id, "until": until} for row_id in ids])


def reference_of(conn: Connection, row: Row) -> str:
    """By what the target finds the last message of the same incident; empty where it cannot."""
    where = {"of_target": row.target, "of_thread": row.thread, "of_epoch": row.epoch}
    return conn.execute(_REFERENCE, where).scalar() or ""


def lines_of(conn: Connection, row: Row) -> list[Row]:
    """The messages that a digest tells, oldest first."""
    of_digest = (outbox.c.target == row.target, outbox.c.into_id == row.id, outbox.c.state != DEAD)
    members = select(outbox).where(*of_digest)
    return [Row(*found) for found in conn.execute(members.order_by(outbox.c.id))]


@dataclass(frozen=True, slots=True)
class Mark:
    """What becomes of a message that was being sent."""

    id: int
    state: int
    due: float
    tried: int
    short: bool
    answer: str
    reference: str


def mark(conn: Connection, marks: Sequence[Mark], now: float) -> None:
    """Notes what became of messages; with a digest its lines are told."""
    if not marks:
        return
    conn.execute(
        _MARK,
        [
            {
                "row": m.id,
                "to": m.state,
                "when_closed": now if m.state > SENDING else 0.0,
                "next_due": m.due,
                "tried": m.tried,
                "is_short": m.short,
                "said": m.answer,
                "by": m.reference,
            }
            for m in marks
        ],
    )


def close_lines(conn: Connection, digest: int, now: float) -> list[str]:
    """What a digest that is done with held within it is done as well; the kind of each."""
    members = update(outbox).where(outbox.c.into_id == digest, OPEN, outbox.c.state == HELD)
    done = members.values(state=SUPERSEDED, closed=now).returning(outbox.c.kind)
    return list(conn.execute(done).scalars())


def needs_care(conn: Connection, now: float) -> bool:
    """True when a lease ended, or a message is too old to be tried any more."""
    ended = (outbox.c.state == SENDING) & (outbox.c.lease < now)
    aged = (outbox.c.state == WAITING) & (outbox.c.expires <= now)
    return conn.execute(select(outbox.c.id).where(OPEN, ended | aged).limit(1)).first() is not None


def free(conn: Connection, before: float) -> None:
    """Lets messages be sent again whose lease ended before then."""
    ended = (OPEN, outbox.c.state == SENDING, outbox.c.lease < before)
    conn.execute(update(outbox).where(*ended).values(state=WAITING))


def let_go(conn: Connection, ids: Sequence[int]) -> None:
    """Lets messages be sent again that were leased and not begun."""
    for chunk in chunks(ids):
        of = (outbox.c.id.in_(chunk), outbox.c.state == SENDING)
        conn.execute(update(outbox).where(*of).values(state=WAITING))


def asked(conn: Connection) -> set[str]:
    """Targets of which somebody wants a message sent now (`by_hand.retry`)."""
    at_once = (OPEN, outbox.c.state == WAITING, outbox.c.due == AT_ONCE)
    return set(conn.execute(select(outbox.c.target).where(*at_once)).scalars())


def heard(conn: Connection, now: float) -> None:
    """What was asked for is known now."""
    at_once = (OPEN, outbox.c.state == WAITING, outbox.c.due == AT_ONCE)
    conn.execute(update(outbox).where(*at_once).values(due=now))


def do_not_age(conn: Connection, target: str, now: float) -> None:
    """What waits for a target that takes nothing has all of its time again."""
    of_target = (outbox.c.target == target, OPEN, outbox.c.state == WAITING)
    conn.execute(update(outbox).where(*of_target).values(expires=now + AGE))


def hurry(conn: Connection, target: str, now: float) -> None:
    """Lets all that waits for a target be tried now: it answers again."""
    of_target = (outbox.c.target == target, OPEN, outbox.c.state == WAITING, outbox.c.due > now)
    conn.execute(update(outbox).where(*of_target).values(due=now))


def set_back(conn: Connection, now: float, lease: float) -> None:
    """Of what waits or is leased by a clock that was ahead: it is due now, or leased for so long from now."""
    waits = (OPEN, outbox.c.state == WAITING, outbox.c.due > now)
    conn.execute(update(outbox).where(*waits).values(due=now))
    leased = (OPEN, outbox.c.state == SENDING, outbox.c.lease > now + lease)
    conn.execute(update(outbox).where(*leased).values(lease=now + lease))


def expire(conn: Connection, now: float) -> list[tuple[str, str]]:
    """Gives up what was tried for too long; (target, kind) of each."""
    old = (OPEN, outbox.c.state == WAITING, outbox.c.expires <= now)
    given_up = conn.execute(
        update(outbox)
        .where(*old)
        .values(state=EXPIRED, closed=now)
        .returning(outbox.c.id, outbox.c.target, outbox.c.kind)
    ).all()
    for row_id, _, kind in given_up:
        if kind == "digest":
            close_lines(conn, row_id, now)
    return [(target, kind) for _, target, kind in given_up]


def forget(conn: Connection, before: float) -> None:
    """Removes what was done with before then."""
    conn.execute(delete(outbox).where(outbox.c.state > SENDING, outbox.c.closed < before))


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits for a target: how many, how many were given up, since when the oldest waits."""

    pending: int
    dead: int
    oldest: float | None


def backlogs(conn: Connection) -> dict[str, Backlog]:
    """What waits, by target."""
    found: dict[str, list[Any]] = {}
    rows = select(outbox.c.target, func.count(), func.min(outbox.c.ready)).where(
        OPEN, outbox.c.state.in_([WAITING, SENDING])
    )
    for target, count, oldest in conn.execute(rows.group_by(outbox.c.target)):
        found[target] = [count, 0, oldest]
    rows = select(outbox.c.target, func.count()).where(text("outbox.state >= 5"))
    for target, count in conn.execute(rows.group_by(outbox.c.target)):
        found.setdefault(target, [0, 0, None])[1] = count
    return {target: Backlog(*values) for target, values in found.items()}
