"""From a row of the outbox to the notice that its target is given."""

from collections.abc import Callable, Sequence

from exporter.ledger.messages import Row, UnreadableError, incident_key
from exporter.notify.message import compose
from exporter.notify.notice import BuildFacts, Kind, Notice

CALLED = (Kind.OPENED, Kind.CHANGED)
"""Kinds for which the author is called."""


def notice_of(
    row: Row, mention: Callable[[str, str], str] = lambda _target, _author: "", lines: Sequence[str] = ()
) -> Notice:
    """The facts of a row; `mention` gives an author's handle at a target, `lines` are those of a digest.

    Raises `UnreadableError`.
    """
    if row.kind not in list(Kind):
        raise UnreadableError(row.id)
    facts, kind = row.told, Kind(row.kind)
    handle = mention(row.target, facts.author) if kind in CALLED else ""
    build = BuildFacts(
        number=facts.number,
        url=facts.url,
        commit=facts.commit,
        author=facts.author,
        title=facts.title,
        status=facts.status,
        step=facts.step,
        exit_code=facts.exit_code or None,
        duration=facts.duration,
        finished=facts.finished,
    )
    return Notice(
        key=row.key,
        thread=incident_key(row.thread, row.epoch),
        kind=kind,
        server=row.server,
        repo=facts.repo,
        branch=facts.branch,
        event=facts.event,
        ref=facts.ref,
        build=build if facts.number else None,
        since=int(facts.since),
        failures=facts.failures,
        first_number=facts.first,
        flaky=facts.flaky,
        excerpt=row.excerpt or "",
        excerpt_note=row.excerpt_note,
        lines=facts.lines if kind is Kind.ALERT else tuple(lines),
        mention=(handle,) if handle else (),
        at=int(facts.at),
        url=facts.url if kind is Kind.ALERT else "",
    )


def digest_lines(members: Sequence[Row]) -> list[str]:
    """What a digest says: of each thread how it went out, in the order in which they began."""
    last: dict[str, Row] = {}
    for member in members:
        if member.kind != Kind.DIGEST:
            last[member.thread] = member if member.kind != Kind.CHANGED else last.get(member.thread, member)
    return [compose(notice_of(row)).title for row in last.values()]
