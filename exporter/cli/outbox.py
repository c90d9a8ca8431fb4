"""`build-exporter outbox`: which messages wait or were given up, and what is to become of them."""

import time
from collections.abc import Callable
from pathlib import Path

import click
from rich.table import Table
from rich.text import Text
from sqlalchemy import Connection

from exporter.cli.builds_text import moment_text, one_line, to_json
from exporter.cli.common import (
    BAD,
    GOOD,
    StopError,
    console,
    load_config,
    open_ledger,
    plain_table,
    say,
    with_config,
)
from exporter.config import Config
from exporter.ledger import by_hand
from exporter.ledger import outbox as sending
from exporter.ledger.messages import Facts, Row, UnreadableError
from exporter.ledger.schema import DELIVERED, HELD, SENDING, WAITING
from exporter.notify.facts import digest_lines, notice_of
from exporter.notify.message import compose
from exporter.notify.notice import Kind

LARGEST = 2**63 - 1
"""The largest id that a ledger can hold."""


@click.group(short_help="Look at messages; send one again, or drop it.")
def outbox() -> None:
    """Look at messages that wait, or that a target refused, as the ledger has them.

    `run` may be under way: it goes by what is changed here within seconds.
    """


@outbox.command("list", short_help="Messages that nobody has read.")
@with_config
@click.option(
    "--state",
    "states",
    type=click.Choice(by_hand.WORDS),
    multiple=True,
    help="Only in this state; may be repeated.  [default: all but delivered and superseded]",
)
@click.option("--target", "targets", metavar="NAME", multiple=True, help="Only to it; may be repeated.")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="Rows to show.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts: all rows.")
def list_messages(
    config_path: Path, states: tuple[str, ...], targets: tuple[str, ...], limit: int, *, as_json: bool
) -> int:
    """List messages that wait or were given up, the newest last.

    Delivered ones, and those that another one told, are kept for 30 days.
    """
    ledger = open_ledger(load_config(config_path))
    with ledger.reading() as conn:
        rows = by_hand.listed(conn, states or by_hand.UNDONE, targets)
        if as_json:
            say(to_json([message_record(conn, row) for row in rows]))
            return GOOD
        if rows:
            console().print(message_table(conn, rows[-limit:]))
    if not rows:
        say("Nothing waits, and nothing was given up." if not states else "There is no such message.")
    elif len(rows) > limit:
        say(f"… and {len(rows) - limit} older ones (--limit)")
    return GOOD


@outbox.command(short_help="Send messages again, now.")
@with_config
@click.argument("ids", metavar="ID…", type=click.IntRange(1, LARGEST), nargs=-1, required=True)
def retry(config_path: Path, ids: tuple[int, ...]) -> int:
    """Send messages now that wait for their next attempt, or were given up.

    They are tried for another 24 hours, and a target that is left alone for a while is tried at once.
    """
    config = load_config(config_path)
    known = {target.name for target in config.notify.targets}
    rows = _change(config, ids, lambda conn, row: _keeps_from_retry(conn, row, known), by_hand.retry)
    say(f"{_count(rows)} will be sent now, by `build-exporter run`")
    return GOOD


@outbox.command(short_help="Let messages never be sent.")
@with_config
@click.argument("ids", metavar="ID…", type=click.IntRange(1, LARGEST), nargs=-1, required=True)
def drop(config_path: Path, ids: tuple[int, ...]) -> int:
    """Let messages never be sent that wait, are held, or were given up.

    Later messages of the same branch are sent all the same.
    """

    def perform(conn: Connection, rows: list[Row], now: float) -> None:
        by_hand.drop(conn, rows, "dropped by hand", now)

    rows = _change(load_config(config_path), ids, lambda _conn, row: _keeps_from_drop(row), perform)
    say(f"{_count(rows)} will not be sent")
    return GOOD


def _change(
    config: Config,
    ids: tuple[int, ...],
    keeps: Callable[[Connection, Row], str],
    perform: Callable[[Connection, list[Row], float], None],
) -> list[Row]:
    """Does it to all of these messages, or to none where something `keeps` one from it."""
    ledger = open_ledger(config)
    with ledger.transaction() as conn:
        rows = []
        for row_id in dict.fromkeys(ids):
            row = by_hand.message(conn, row_id)
            why = "there is none" if row is None else keeps(conn, row)
            if row is None or why:
                others = " (nothing was changed)" if len(ids) > 1 else ""
                raise StopError(BAD, f"message {row_id}: {why}{others}")
            rows.append(row)
        perform(conn, rows, time.time())
    return rows


def _keeps_from_retry(conn: Connection, row: Row, targets: set[str]) -> str:
    if not by_hand.can_retry(row):
        return _standing(row)
    if row.target not in targets:
        return f"the configuration has no target {row.target} any more"
    if later := by_hand.overtaken_by(conn, row):
        return f"message {later} told {row.target} how it went on: sent now, it would be wrong; drop it"
    return ""


def _keeps_from_drop(row: Row) -> str:
    return "" if by_hand.can_drop(row) else _standing(row)


def _standing(row: Row) -> str:
    """Why nothing can be done with a message, in a clause."""
    match row.state:
        case _ if row.state == HELD and row.into_id:
            return f"it is a line of message {row.into_id}"
        case _ if row.state == HELD:
            return f"it is held back ({row.hold}) until {moment_text(int(row.due))} at the latest"
        case _ if row.state == SENDING:
            return "it is being sent right now"
        case _ if row.state == DELIVERED:
            return "it was delivered"
        case _:
            return f"message {row.into_id} tells it" if row.into_id else "it was dropped"


def _count(rows: list[Row]) -> str:
    return f"{len(rows)} message" + ("" if len(rows) == 1 else "s")


def message_table(conn: Connection, rows: list[Row]) -> Table:
    """Messages as a table."""
    columns = ("id", "target", "state", "made", "tries", "next", "message", "last answer")
    table = plain_table(*columns, wraps=("message", "last answer"))
    for row in rows:
        next_try = max(row.due, row.created) if row.state in (HELD, WAITING) and not row.into_id else 0.0
        answer = f"told by {row.into_id}" if row.into_id else row.answer
        table.add_row(
            str(row.id),
            row.target,
            f"{by_hand.WORDS[row.state]}{f' ({row.hold})' if row.hold else ''}",
            moment_text(int(row.created)),
            str(row.attempts),
            moment_text(int(next_try)),
            Text(one_line(title_of(conn, row))),
            Text(one_line(answer)),
        )
    return table


def title_of(conn: Connection, row: Row) -> str:
    """The first line of a message."""
    try:
        lines = digest_lines(sending.lines_of(conn, row)) if row.kind == Kind.DIGEST else ()
        return compose(notice_of(row, lines=lines)).title
    except UnreadableError:
        return "(cannot be read)"


def message_record(conn: Connection, row: Row) -> dict[str, object]:
    """A message for scripts: times are Unix seconds, null where there is none."""
    try:
        told = row.told
    except UnreadableError:
        told = Facts()
    return {
        "id": row.id,
        "target": row.target,
        "state": by_hand.WORDS[row.state],
        "hold": row.hold or None,
        "told_by": row.into_id,
        "kind": row.kind,
        "title": title_of(conn, row),
        "server": row.server,
        "repo": told.repo,
        "branch": told.branch,
        "number": told.number or None,
        "created": int(row.created),
        "due": int(max(row.due, row.created)) if row.state in (HELD, WAITING) else None,
        "closed": int(row.closed) or None,
        "attempts": row.attempts,
        "answer": row.answer,
        "key": row.key,
    }
