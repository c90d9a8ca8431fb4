"""The ledger's SQL for builds and what is made of them, a repo at a time, in the caller's transaction."""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Any, TypeAlias

from sqlalchemy import Connection, bindparam, delete, func, select, tuple_, update

from exporter.ledger.counts import Series, Total
from exporter.ledger.heads import Key
from exporter.ledger.names import Name, as_json
from exporter.ledger.runs import COLUMNS, Run
from exporter.ledger.schema import SETTLED, builds, heads, names, repos, steps, totals
from exporter.ledger.sql import chunks, upsert
from exporter.ledger.watched import RepoState
from exporter.model import Build, Status, Step

HeadKey: TypeAlias = tuple[str, tuple[str, ...]]
"""The kind of a head and the label values that it is of."""
_RUN_ROW = attrgetter(*COLUMNS)
_STEP_COLUMNS = ("name", "status", "exit_code", "started", "finished", "ignored")
_STEP_ROW = attrgetter(*_STEP_COLUMNS)
_BAD = [status.value for status in Status if status.bad]
_DENSE = 4
"""Numbers that lie at most so many times further apart than they are many are read as a range."""

# Built once: SQLAlchemy needs several times as long to build a statement as SQLite to run it.
_RUNS = (
    select(builds)
    .where(builds.c.repo_id == bindparam("repo"), builds.c.generation == bindparam("generation"))
    .order_by(builds.c.number, builds.c.run)
)
_RUNS_BETWEEN = _RUNS.where(builds.c.number.between(bindparam("low"), bindparam("high")))
_RUNS_AMONG = _RUNS.where(builds.c.number.in_(bindparam("numbers", expanding=True)))
_HIGHEST_ID = select(func.max(builds.c.id)).where(
    builds.c.repo_id == bindparam("repo"), builds.c.generation == bindparam("generation")
)
_STEPS = (
    select(steps.c.position, *(steps.c[name] for name in _STEP_COLUMNS))
    .where(
        steps.c.repo_id == bindparam("repo"),
        steps.c.generation == bindparam("generation"),
        steps.c.number == bindparam("number"),
        steps.c.run == bindparam("run"),
    )
    .order_by(steps.c.position)
)
_PEERS = select(builds).where(
    builds.c.repo_id == bindparam("repo"),
    builds.c.commit.in_(bindparam("commits", expanding=True)),
    builds.c.state >= SETTLED,
)
_ANY_BUILD = select(builds.c.number).where(builds.c.repo_id == bindparam("repo")).limit(1)
_ANY_COUNTED = _ANY_BUILD.where(builds.c.counted)
_NAMES = select(names.c.kind, names.c.name, names.c.slot, names.c.since, names.c.last).where(
    names.c.repo_id == bindparam("repo")
)
_HEADS = select(heads.c.kind, heads.c.name, heads.c.state).where(heads.c.repo_id == bindparam("repo"))
_TOTALS = select(totals).where(
    totals.c.repo_id == bindparam("repo"),
    tuple_(totals.c.family, totals.c.labels).in_(bindparam("keys", expanding=True)),
)
_ENDS_OF_BRANCH = (
    builds.c.repo_id == bindparam("repo"),
    builds.c.branch == bindparam("branch"),
    builds.c.event == bindparam("event"),
    builds.c.state >= SETTLED,
)
_NEWEST_ENDS = (
    select(builds)
    .where(*_ENDS_OF_BRANCH)
    .order_by(builds.c.generation.desc(), builds.c.number.desc(), builds.c.run.desc())
    .limit(bindparam("limit"))
)
_UNSETTLED = (
    select(builds)
    .join(repos, repos.c.id == builds.c.repo_id)
    .where(repos.c.server == bindparam("server"), repos.c.watched, ~repos.c.gone, builds.c.state != SETTLED)
    .order_by(builds.c.created, builds.c.number)
)


def runs_of(conn: Connection, repo: RepoState, numbers: Sequence[int]) -> dict[int, list[Run]]:
    """All known runs of these numbers (rising) of the repo's generation, oldest first."""
    found: dict[int, list[Run]] = {}
    where: dict[str, object] = {"repo": repo.id, "generation": repo.generation}
    for chunk in chunks(numbers):
        if chunk[-1] - chunk[0] < _DENSE * len(chunk):
            rows = conn.execute(_RUNS_BETWEEN, {**where, "low": chunk[0], "high": chunk[-1]})
        else:
            rows = conn.execute(_RUNS_AMONG, {**where, "numbers": list(chunk)})
        for row in rows:
            found.setdefault(row[2], []).append(Run(*row))
    return found


def unsettled(conn: Connection, server: str) -> list[Run]:
    """All runs of a server's watched repos whose end is still to come or to be read, oldest first."""
    return [Run(*row) for row in conn.execute(_UNSETTLED, {"server": server})]


def has_counted(conn: Connection, repo_id: int) -> bool:
    """True when an end of the repo has moved counters."""
    return conn.execute(_ANY_COUNTED, {"repo": repo_id}).first() is not None


def peers_of(conn: Connection, repo_id: int, commits: Collection[str]) -> dict[str, list[Run]]:
    """The settled runs of these commits."""
    found: dict[str, list[Run]] = {}
    for chunk in chunks(sorted(commits)):
        for row in conn.execute(_PEERS, {"repo": repo_id, "commits": list(chunk)}):
            run = Run(*row)
            found.setdefault(run.commit, []).append(run)
    return found


def drop_run(conn: Connection, run: Run) -> None:
    """Forgets a run that never ended and is not there any more."""
    write_runs(conn, [], run.repo_id, [run.key])


def begin_generation(conn: Connection, repo: RepoState, since: int) -> dict[int, int]:
    """Moves the runs that were created after `since` (Unix seconds) into the repo's next generation.

    They were taken in before it was seen that numbers are given out again. Returns their numbers, and
    when those were created.
    """
    old = {"repo_id": repo.id, "generation": repo.generation}
    newer = select(builds.c.number, builds.c.run, builds.c.created).filter_by(**old)
    moved = conn.execute(newer.where(builds.c.created > since)).all()
    for table in (builds, steps):
        of_run = (table.c.number == bindparam("of_number"), table.c.run == bindparam("of_run"))
        move = update(table).filter_by(**old).where(*of_run).values(generation=repo.generation + 1)
        if moved:
            conn.execute(move, [{"of_number": number, "of_run": run} for number, run, _ in moved])
    return {number: created for number, _, created in moved}


def of_generation(conn: Connection, repo: RepoState, told: Sequence[Build]) -> list[Build]:
    """Those builds that are not of an earlier generation: where the newest build was removed and its
    number given out again, those below it are still the same."""
    known: set[tuple[int, int]] = set()
    for chunk in chunks(sorted({build.number for build in told})):
        rows = conn.execute(
            select(builds.c.number, builds.c.run, builds.c.created).where(
                builds.c.repo_id == repo.id,
                builds.c.generation < repo.generation,
                builds.c.number.in_(chunk),
            )
        )
        for number, run, created in rows:
            known |= {(number, run), (number, created)}
    return [build for build in told if (build.number, build.run or build.created) not in known]


def highest_id(conn: Connection, repo: RepoState) -> int:
    """The highest id that the server gave to a build of the repo's generation; 0 where none is known."""
    where = {"repo": repo.id, "generation": repo.generation}
    return conn.execute(_HIGHEST_ID, where).scalar() or 0


def steps_of(conn: Connection, run: Run) -> dict[int, Step]:
    """The recorded steps of a run, by position."""
    generation, number, of_run = run.key
    where = {"repo": run.repo_id, "generation": generation, "number": number, "run": of_run}
    return {
        position: Step(**dict(zip(_STEP_COLUMNS, (name, Status(status), *rest), strict=True)))
        for position, name, status, *rest in conn.execute(_STEPS, where)
    }


def has_builds(conn: Connection, repo_id: int) -> bool:
    """True when any build of the repo is known."""
    return conn.execute(_ANY_BUILD, {"repo": repo_id}).first() is not None


def newest_ends(conn: Connection, repo_id: int, branch: str, event: str, limit: int) -> list[Run]:
    """The newest settled runs of a branch and event, newest first."""
    where = {"repo": repo_id, "branch": branch, "event": event, "limit": limit}
    return [Run(*row) for row in conn.execute(_NEWEST_ENDS, where)]


def write_runs(conn: Connection, runs: Sequence[Run], repo_id: int, old_keys: Collection[Key] = ()) -> None:
    """Stores runs of a repo; of `old_keys`, those that no run has any more are removed."""
    for generation, number, run in set(old_keys) - {run.key for run in runs}:
        conn.execute(
            delete(builds).where(
                builds.c.repo_id == repo_id,
                builds.c.generation == generation,
                builds.c.number == number,
                builds.c.run == run,
            )
        )
    upsert(conn, builds, [_RUN_ROW(run) for run in runs])


def write_steps(conn: Connection, ended: Iterable[tuple[Run, Mapping[int, Step]]]) -> None:
    """Stores the steps of runs, by position."""
    upsert(
        conn,
        steps,
        [
            (run.repo_id, *run.key, position, *_STEP_ROW(step))
            for run, of_run in ended
            for position, step in of_run.items()
        ],
    )


def names_of(conn: Connection, repo_id: int) -> dict[tuple[str, str], Name]:
    rows = conn.execute(_NAMES, {"repo": repo_id})
    return {(kind, name): Name(slot, since, last) for kind, name, slot, since, last in rows}


def write_names(conn: Connection, repo_id: int, changed: Mapping[tuple[str, str], Name]) -> None:
    rows = [(repo_id, kind, name, v.slot, v.since, v.last) for (kind, name), v in changed.items()]
    upsert(conn, names, rows)


def heads_of(conn: Connection, repo_id: int) -> dict[HeadKey, str]:
    rows = conn.execute(_HEADS, {"repo": repo_id})
    return {(kind, tuple(json.loads(name))): state for kind, name, state in rows}


def write_heads(conn: Connection, repo_id: int, changed: Mapping[HeadKey, str]) -> None:
    rows = [(repo_id, kind, as_json(labels), state) for (kind, labels), state in changed.items()]
    upsert(conn, heads, rows)


def totals_of(conn: Connection, repo_id: int, series: Collection[Series]) -> dict[Series, Total]:
    """The values of those of `series` that have one."""
    found: dict[Series, Total] = {}
    for chunk in chunks(sorted(series)):
        keys = [(family, as_json(labels)) for family, labels in chunk]
        for row in conn.execute(_TOTALS, {"repo": repo_id, "keys": keys}):
            found[row.family, tuple(json.loads(row.labels))] = total_of(row)
    return found


def total_of(row: Any) -> Total:
    """The value that a row of the table `totals` holds."""
    if row.counts is None:
        return Total(row.value, row.since)
    exemplars = {int(place): tuple(of) for place, of in json.loads(row.exemplars or "{}").items()}
    return Total(row.value, row.since, json.loads(row.counts), exemplars)


def write_totals(conn: Connection, repo_id: int, changed: Mapping[Series, Total]) -> None:
    upsert(
        conn,
        totals,
        [
            (
                repo_id,
                family,
                as_json(labels),
                total.value,
                None if total.counts is None else json.dumps(total.counts),
                json.dumps(total.exemplars, sort_keys=True) if total.exemplars else None,
                total.since,
            )
            for (family, labels), total in changed.items()
        ],
    )
