"""What is old goes: builds, and the names, counters and gauges of what builds no more.

Each repo is pruned in a transaction of its own, so that a poll never waits for long.
"""

import json
from collections.abc import Collection

import msgspec
from sqlalchemy import Connection, delete, select, tuple_

from exporter.ledger.counts import Series, born
from exporter.ledger.heads import Point
from exporter.ledger.ledger import Ledger
from exporter.ledger.names import BRANCH, CRON, as_json
from exporter.ledger.schema import SETTLED, builds, heads, names, steps, totals
from exporter.ledger.store import heads_of, names_of
from exporter.ledger.watched import RepoState, write_repos
from exporter.model import Status

BUILDS_AT_ONCE = 1000


class Head(msgspec.Struct):
    """What all heads have."""

    last: Point | None = None


def prune(ledger: Ledger, known: Collection[RepoState], *, builds_before: int, names_before: int) -> set[int]:
    """Removes builds that ended, and names without a build since, those times (server's clock).

    Returns the ids of the repos that have fewer series now. Counters of what still builds never fall.
    """
    with ledger.reading() as conn:
        idle = set(
            conn.execute(select(names.c.repo_id).where(names.c.last < names_before).distinct()).scalars()
        )
    changed: set[int] = set()
    for repo in known:
        with ledger.reading() as conn:
            old = _oldest(conn, repo.id) < builds_before
        while old:
            with ledger.transaction() as conn:
                old = _prune_builds(conn, repo, builds_before) == BUILDS_AT_ONCE
        if repo.id in idle:
            with ledger.transaction() as conn:
                _prune_names(conn, repo.id, builds_before, names_before)
            changed.add(repo.id)
    return changed


def _oldest(conn: Connection, repo_id: int) -> float:
    """When the lowest number of a repo was created: no other is older."""
    lowest = select(builds.c.created).where(builds.c.repo_id == repo_id)
    lowest = lowest.order_by(builds.c.generation, builds.c.number, builds.c.run).limit(1)
    found = conn.execute(lowest).scalar()
    return float("inf") if found is None else float(found)


def _prune_builds(conn: Connection, repo: RepoState, before: int) -> int:
    """Removes some builds, and notes that none so old is to be taken in again from a server's lists."""
    old = (
        select(builds.c.generation, builds.c.number, builds.c.run)
        .where(
            builds.c.repo_id == repo.id,
            builds.c.state >= SETTLED,
            builds.c.created < before,
            builds.c.finished < before,
        )
        .order_by(builds.c.generation, builds.c.number, builds.c.run)
        .limit(BUILDS_AT_ONCE)
    )
    keys = [tuple(row) for row in conn.execute(old)]
    if keys:
        repo.pruned = before
        write_repos(conn, [repo])
    for table in (steps, builds):
        key = tuple_(table.c.generation, table.c.number, table.c.run)
        conn.execute(delete(table).where(table.c.repo_id == repo.id, key.in_(keys)))
    return len(keys)


def _prune_names(conn: Connection, repo_id: int, builds_before: float, names_before: float) -> None:
    known = names_of(conn, repo_id)
    left = {key: name for key, name in known.items() if name.last >= names_before}
    conn.execute(delete(names).where(names.c.repo_id == repo_id, names.c.last < names_before))
    stored = conn.execute(select(totals.c.family, totals.c.labels).where(totals.c.repo_id == repo_id))
    announced, alive = born(known), born(left)
    dead = [(family, labels) for family, labels in stored if not _lives(family, labels, announced, alive)]
    if dead:
        key = tuple_(totals.c.family, totals.c.labels)
        conn.execute(delete(totals).where(totals.c.repo_id == repo_id, key.in_(dead)))
    for (kind, labels), state in heads_of(conn, repo_id).items():
        last = msgspec.json.decode(state, type=Head).last
        named = known.get((BRANCH if kind == BRANCH else kind, labels[0 if kind == BRANCH else -1]))
        gave_way = kind in (BRANCH, CRON) and named is not None and named.slot and named.last < names_before
        if gave_way or (last is not None and last.finished < builds_before):
            of_head = (heads.c.repo_id == repo_id, heads.c.kind == kind, heads.c.name == as_json(labels))
            conn.execute(delete(heads).where(*of_head))


def _lives(family: str, labels: str, announced: Collection[Series], alive: Collection[Series]) -> bool:
    """True while the names that a series is made of are in use.

    What no name announced (`other`, the status `unknown`) lives as long as its neighbours do.
    """
    values = tuple(json.loads(labels))
    if values and values[-1] == Status.UNKNOWN.word:
        values = (*values[:-1], Status.SUCCESS.word)
    return (family, values) in alive if (family, values) in announced else bool(alive)
