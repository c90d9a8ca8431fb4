"""The ledger's SQL: rows of one repo in and out, within the caller's transaction."""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from sqlalchemy import Connection, Table, and_, delete, func, insert, select, tuple_, update
from sqlalchemy.dialects import postgresql, sqlite

from exporter.ledger.counts import Series, Total
from exporter.ledger.heads import Key
from exporter.ledger.names import Name, as_json
from exporter.ledger.runs import COLUMNS, Run
from exporter.ledger.schema import SETTLED, builds, gaps, heads, names, repos, servers, steps, totals
from exporter.model import Status, Step

T = TypeVar("T")
_BAD = [status.value for status in Status if status.bad]
_AT_ONCE = 500
"""Values in one IN list; SQLite takes 32,766 parameters a statement."""


@dataclass(slots=True)
class RepoState:
    """A row of the table `repos`; fields in the order of its columns."""

    id: int
    server: str
    name: str
    uid: str
    default_branch: str
    timeout: int
    build_url: str
    horizon: int
    horizon_skew: float
    generation: int
    highest: int
    highest_created: int
    watched: bool
    missed_sweeps: int
    missed_since: float
    gone: bool


@dataclass(slots=True)
class ServerState:
    """A row of the table `servers`; fields in the order of its columns."""

    name: str
    first_contact: int
    last_sweep: int
    last_poll: float
    skew: float


@dataclass(slots=True)
class Gap:
    """Numbers `low` to `high` of a repo that are known to exist and not read yet."""

    id: int
    repo_id: int
    generation: int
    low: int
    high: int
    history: bool
    failed: bool


def server_state(conn: Connection, name: str) -> ServerState | None:
    row = conn.execute(select(servers).where(servers.c.name == name)).first()
    return ServerState(*row) if row else None


def write_server(conn: Connection, state: ServerState) -> None:
    _upsert(conn, servers, [_row(state)])


def repo_states(conn: Connection, server: str) -> list[RepoState]:
    rows = conn.execute(select(repos).where(repos.c.server == server))
    return [RepoState(*row) for row in rows]


def write_repos(conn: Connection, states: Iterable[RepoState]) -> None:
    """Stores repos; one with id 0 is new and gets its id."""
    old: list[dict[str, Any]] = []
    for state in states:
        row = _row(state)
        if state.id:
            old.append(row)
            continue
        del row["id"]
        state.id = conn.execute(insert(repos).values(row).returning(repos.c.id)).scalar_one()
    _upsert(conn, repos, old)


def gaps_of(conn: Connection, server: str) -> list[Gap]:
    """The gaps of a server's watched repos; live ones first, then newest repo's history first."""
    rows = conn.execute(
        select(gaps)
        .join(repos, repos.c.id == gaps.c.repo_id)
        .where(repos.c.server == server, repos.c.watched, ~repos.c.gone)
        .order_by(gaps.c.history, gaps.c.id)
    )
    return [Gap(*row) for row in rows]


def add_gap(
    conn: Connection, repo: RepoState, low: int, high: int, *, history: bool, failed: bool = False
) -> None:
    conn.execute(
        insert(gaps).values(
            repo_id=repo.id, generation=repo.generation, low=low, high=high, history=history, failed=failed
        )
    )


def write_gap(conn: Connection, gap: Gap) -> None:
    """Stores what is left of a gap; nothing left removes it."""
    if gap.low > gap.high:
        conn.execute(delete(gaps).where(gaps.c.id == gap.id))
    else:
        conn.execute(update(gaps).where(gaps.c.id == gap.id).values(high=gap.high, failed=gap.failed))


def drop_gaps(conn: Connection, repo: RepoState) -> None:
    conn.execute(delete(gaps).where(gaps.c.repo_id == repo.id))


def runs_of(conn: Connection, repo: RepoState, numbers: Sequence[int]) -> dict[int, list[Run]]:
    """All known runs of these numbers of the repo's generation, oldest first."""
    found: dict[int, list[Run]] = {}
    for chunk in _chunks(numbers):
        rows = conn.execute(
            select(builds)
            .where(
                builds.c.repo_id == repo.id,
                builds.c.generation == repo.generation,
                builds.c.number.in_(chunk),
            )
            .order_by(builds.c.number, builds.c.run)
        )
        for row in rows:
            found.setdefault(row.number, []).append(Run(*row))
    return found


def unsettled(conn: Connection, server: str) -> list[Run]:
    """All runs of a server's watched repos whose end is still to come or to be read, oldest first."""
    rows = conn.execute(
        select(builds)
        .join(repos, repos.c.id == builds.c.repo_id)
        .where(repos.c.server == server, repos.c.watched, ~repos.c.gone, builds.c.state < SETTLED)
        .order_by(builds.c.created, builds.c.number)
    )
    return [Run(*row) for row in rows]


def peers_of(conn: Connection, repo_id: int, commits: Collection[str]) -> dict[str, list[Run]]:
    """The settled runs of these commits."""
    found: dict[str, list[Run]] = {}
    for chunk in _chunks(sorted(commits)):
        rows = conn.execute(
            select(builds).where(
                builds.c.repo_id == repo_id, builds.c.commit.in_(chunk), builds.c.state == SETTLED
            )
        )
        for row in rows:
            found.setdefault(row.commit, []).append(Run(*row))
    return found


def newest_ended(conn: Connection, server: str) -> dict[str, tuple[int, int, int]]:
    """Of each repo whose highest number has ended: that number, when it started and finished."""
    rows = conn.execute(
        select(repos.c.name, builds.c.number, builds.c.started, builds.c.finished)
        .join(
            builds,
            and_(
                builds.c.repo_id == repos.c.id,
                builds.c.generation == repos.c.generation,
                builds.c.number == repos.c.highest,
            ),
        )
        .where(repos.c.server == server, builds.c.state == SETTLED)
        .order_by(builds.c.run)
    )
    return {name: (number, started, finished) for name, number, started, finished in rows}


def drop_run(conn: Connection, run: Run) -> None:
    """Forgets a run that never ended and is not there any more."""
    write_runs(conn, [], run.repo_id, [run.key])


def newest_ends(conn: Connection, repo_id: int, branch: str, event: str, limit: int) -> list[Run]:
    """The newest settled runs of a branch and event, newest first."""
    rows = conn.execute(
        select(builds)
        .where(
            builds.c.repo_id == repo_id,
            builds.c.branch == branch,
            builds.c.event == event,
            builds.c.state == SETTLED,
        )
        .order_by(builds.c.generation.desc(), builds.c.number.desc(), builds.c.run.desc())
        .limit(limit)
    )
    return [Run(*row) for row in rows]


def count_bad_since(conn: Connection, repo_id: int, branch: str, event: str, key: Key) -> int:
    """How many settled bad runs of a branch and event are newer than `key`."""
    newer = tuple_(builds.c.generation, builds.c.number, builds.c.run) > tuple_(*key)
    return conn.execute(
        select(func.count()).where(
            builds.c.repo_id == repo_id,
            builds.c.branch == branch,
            builds.c.event == event,
            builds.c.state == SETTLED,
            builds.c.status.in_(_BAD),
            newer,
        )
    ).scalar_one()


def write_runs(conn: Connection, runs: Sequence[Run], repo_id: int, old_keys: Collection[Key] = ()) -> None:
    """Stores runs of a repo; of `old_keys`, those that no run has any more are removed."""
    kept = {run.key for run in runs}
    for key in set(old_keys) - kept:
        conn.execute(
            delete(builds).where(
                and_(
                    builds.c.repo_id == repo_id,
                    builds.c.generation == key[0],
                    builds.c.number == key[1],
                    builds.c.run == key[2],
                )
            )
        )
    _upsert(conn, builds, [{name: getattr(run, name) for name in COLUMNS} for run in runs])


def write_steps(conn: Connection, ended: Sequence[tuple[Run, Sequence[Step]]]) -> None:
    _upsert(
        conn,
        steps,
        [
            {
                "repo_id": run.repo_id,
                "generation": run.generation,
                "number": run.number,
                "run": run.run,
                "position": position,
                "name": step.name,
                "status": step.status.value,
                "exit_code": step.exit_code,
                "started": step.started,
                "finished": step.finished,
                "ignored": step.ignored,
            }
            for run, of_run in ended
            for position, step in enumerate(of_run)
        ],
    )


def names_of(conn: Connection, repo_id: int) -> dict[tuple[str, str], Name]:
    rows = conn.execute(
        select(names.c.kind, names.c.name, names.c.slot, names.c.since, names.c.last).where(
            names.c.repo_id == repo_id
        )
    )
    return {(kind, name): Name(slot, since, last) for kind, name, slot, since, last in rows}


def write_names(conn: Connection, repo_id: int, changed: Mapping[tuple[str, str], Name]) -> None:
    _upsert(
        conn,
        names,
        [
            {"repo_id": repo_id, "kind": k, "name": n, "slot": v.slot, "since": v.since, "last": v.last}
            for (k, n), v in changed.items()
        ],
    )


def heads_of(conn: Connection, repo_id: int) -> dict[tuple[str, str], str]:
    rows = conn.execute(select(heads.c.kind, heads.c.name, heads.c.state).where(heads.c.repo_id == repo_id))
    return {(kind, name): state for kind, name, state in rows}


def write_heads(conn: Connection, repo_id: int, changed: Mapping[tuple[str, str], str]) -> None:
    rows = [{"repo_id": repo_id, "kind": k, "name": n, "state": state} for (k, n), state in changed.items()]
    _upsert(conn, heads, rows)


def totals_of(conn: Connection, repo_id: int, series: Collection[Series]) -> dict[Series, Total]:
    """The values of those of `series` that have one."""
    found: dict[Series, Total] = {}
    for chunk in _chunks(sorted(series)):
        keys = [(family, as_json(labels)) for family, labels in chunk]
        rows = conn.execute(
            select(totals).where(
                totals.c.repo_id == repo_id, tuple_(totals.c.family, totals.c.labels).in_(keys)
            )
        )
        for row in rows:
            found[row.family, tuple(json.loads(row.labels))] = total_of(row)
    return found


def total_of(row: Any) -> Total:
    """The value that a row of the table `totals` holds."""
    if row.counts is None:
        return Total(row.value, row.since)
    exemplars = {int(place): tuple(of) for place, of in json.loads(row.exemplars or "{}").items()}
    return Total(row.value, row.since, json.loads(row.counts), exemplars)


def write_totals(conn: Connection, repo_id: int, changed: Mapping[Series, Total]) -> None:
    _upsert(
        conn,
        totals,
        [
            {
                "repo_id": repo_id,
                "family": family,
                "labels": as_json(labels),
                "value": total.value,
                "counts": None if total.counts is None else json.dumps(total.counts),
                "exemplars": json.dumps(total.exemplars) if total.exemplars else None,
                "since": total.since,
            }
            for (family, labels), total in changed.items()
        ],
    )


def _row(state: RepoState | ServerState) -> dict[str, Any]:
    return {f.name: getattr(state, f.name) for f in fields(state)}


def _upsert(conn: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    if not rows:
        return
    statement = (postgresql if conn.dialect.name == "postgresql" else sqlite).insert(table)
    keys = [column.name for column in table.primary_key]
    values = {c.name: statement.excluded[c.name] for c in table.columns if c.name not in keys}
    conn.execute(statement.on_conflict_do_update(index_elements=keys, set_=values), list(rows))


def _chunks(values: Sequence[T]) -> Iterable[Sequence[T]]:
    return (values[at : at + _AT_ONCE] for at in range(0, len(values), _AT_ONCE))
