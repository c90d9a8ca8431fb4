"""What the caps on label values left without a name of its own."""

from typing import NamedTuple

from sqlalchemy import Column, Connection, Select, Table, and_, func, select

from exporter.ledger.names import BRANCH, CRON, ENVIRONMENT, PLACES, STEP
from exporter.ledger.schema import builds, names, repos, steps


class Folded(NamedTuple):
    """A value that is shown as `other` (a cron job: not at all), and how many builds have it."""

    server: str
    repo: str
    kind: str
    name: str
    builds: int


def folded(conn: Connection) -> list[Folded]:
    """All values that are folded, those with the most builds first."""
    sources: tuple[tuple[str, Table, Column[str]], ...] = (
        (BRANCH, builds, builds.c.branch),
        (STEP, steps, steps.c.name),
        (ENVIRONMENT, builds, builds.c.environment),
        (CRON, builds, builds.c.cron),
    )
    found = [Folded._make(row) for source in sources for row in conn.execute(_unnamed(*source))]
    return sorted(found, key=lambda row: (-row.builds, row))


def _unnamed(kind: str, table: Table, value: Column[str]) -> Select[tuple[str, str, str, str, int]]:
    """Values without a name, in repos where all places are taken: elsewhere they just never counted."""
    places = (
        select(names.c.repo_id)
        .where(names.c.kind == kind, names.c.slot)
        .group_by(names.c.repo_id)
        .having(func.count() >= PLACES[kind])
    )
    named = and_(names.c.repo_id == table.c.repo_id, names.c.kind == kind, names.c.name == value)
    kind_column = func.coalesce(kind, "")
    return (
        select(repos.c.server, repos.c.name, kind_column, value, func.count())
        .select_from(table)
        .join(repos, repos.c.id == table.c.repo_id)
        .outerjoin(names, named)
        .where(names.c.name.is_(None), value != "", table.c.repo_id.in_(places))
        .group_by(repos.c.server, repos.c.name, value)
    )
