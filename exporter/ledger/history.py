"""What the ledger has of a repo's past, by time: ends that moved no counter, and those that did.

Ends are by the server's clock, and where there is no end time, when the run was queued; when an end was
recorded is by our clock.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Select, case, exists, func, select, tuple_

from exporter.ledger.heads import Key
from exporter.ledger.names import Policy
from exporter.ledger.runs import Run
from exporter.ledger.schema import ENDING, SETTLED, builds, gaps, repos, steps
from exporter.ledger.sql import chunks
from exporter.ledger.watched import RepoState, add_gap, gaps_of_repo
from exporter.model import FINISHED, STEP_FINISHED, Event, Status, Step

ROWS_AT_ONCE = 1000

_ENDED = case(
    (builds.c.finished > 0, builds.c.finished), (builds.c.run > 0, builds.c.run), else_=builds.c.created
)
_OF_STEP = (
    (steps.c.repo_id == builds.c.repo_id)
    & (steps.c.generation == builds.c.generation)
    & (steps.c.number == builds.c.number)
    & (steps.c.run == builds.c.run)
)
_BY_KEY = builds.c.generation, builds.c.number, builds.c.run


class Use(NamedTuple):
    """A value that a label is made of, and when its first and last builds ended (server's clock)."""

    value: str
    event: str
    first: int
    last: int


class Undetailed(NamedTuple):
    """A build of history whose steps were never read."""

    repo: str
    number: int


def ends_of_history(conn: Connection, repo: RepoState, after: float, until: float) -> Iterator[Run]:
    """The runs that ended within (after, until] and moved no counter, in the order of their ends."""
    return _stream(conn, _history(repo, after, until).order_by(_ENDED, *_BY_KEY))


def ends_counted(conn: Connection, repo: RepoState, after: float, until: float) -> Iterator[Run]:
    """The runs that moved counters and were recorded within (after, until], in that order."""
    counted = select(builds).where(
        builds.c.repo_id == repo.id,
        builds.c.counted,
        builds.c.recorded > after,
        builds.c.recorded <= until,
    )
    return _stream(conn, counted.order_by(builds.c.recorded, *_BY_KEY))


def first_counted(conn: Connection, repo: RepoState) -> float | None:
    """When the first end that moved a counter was recorded (our clock); None while there is none."""
    first = select(func.min(builds.c.recorded)).where(builds.c.repo_id == repo.id, builds.c.counted)
    return conn.execute(first).scalar()


def last_of_history(conn: Connection, repo: RepoState, until: float) -> int | None:
    """When the last run ended, by `until`, that moved no counter; None where there is none."""
    last = _history(repo, -1, until).with_only_columns(func.max(_ENDED))
    return conn.execute(last).scalar()


def branches_used(conn: Connection, repo: RepoState, policy: Policy, after: float, until: float) -> list[Use]:
    """The branches and events of history that are counted, those used last first."""
    found = _uses(conn, repo, builds.c.branch, after, until)
    return [use for use in found if policy.counts(use.event, use.value)]


def environments_used(conn: Connection, repo: RepoState, after: float, until: float) -> list[Use]:
    """The environments that history deployed to, those used last first."""
    found = _uses(conn, repo, builds.c.environment, after, until)
    return [use for use in found if use.event == Event.DEPLOYMENT]


def steps_used(conn: Connection, repo: RepoState, after: float, until: float) -> list[Use]:
    """The names of steps of history, those used last first."""
    history = _history(repo, after, until).join(steps, _OF_STEP)
    columns = steps.c.name, builds.c.event, func.min(_ENDED), func.max(_ENDED).label("last")
    return _as_uses(conn, history.with_only_columns(*columns).group_by(steps.c.name, builds.c.event))


def odd_statuses(
    conn: Connection, repo: RepoState, after: float, until: float, *, of_steps: bool
) -> set[Status]:
    """The statuses in history, of builds or of their steps, that no series is announced for."""
    wanted, announced = _history(repo, after, until), FINISHED
    column = builds.c.status
    if of_steps:
        wanted, announced, column = wanted.join(steps, _OF_STEP), STEP_FINISHED, steps.c.status
    found = conn.execute(wanted.with_only_columns(column).distinct()).scalars()
    return {Status(status) for status in found} - {*announced}


def steps_of(conn: Connection, repo: RepoState, keys: Sequence[Key]) -> Mapping[Key, tuple[Step, ...]]:
    """The recorded steps of runs, in their order."""
    found: dict[Key, tuple[Step, ...]] = {}
    key = tuple_(steps.c.generation, steps.c.number, steps.c.run)
    for chunk in chunks(keys):
        of_runs = select(
            steps.c.generation, steps.c.number, steps.c.run, steps.c.name, steps.c.status,
            steps.c.started, steps.c.finished,
        ).where(steps.c.repo_id == repo.id, key.in_(chunk))  # fmt: skip
        for *of_run, name, status, started, finished in conn.execute(of_runs.order_by(steps.c.position)):
            place = of_run[0], of_run[1], of_run[2]
            step = Step(name=name, status=Status(status), started=started, finished=finished)
            found[place] = (*found.get(place, ()), step)
    return found


def shared_commits(conn: Connection, repo: RepoState, commits: Collection[str]) -> set[str]:
    """Those of these commits that have more than one run."""
    found: set[str] = set()
    for chunk in chunks(sorted(commits)):
        shared = (
            select(builds.c.commit)
            .where(builds.c.repo_id == repo.id, builds.c.commit.in_(chunk))
            .group_by(builds.c.commit)
            .having(func.count() > 1)
        )
        found.update(conn.execute(shared).scalars())
    return found


def undetailed(conn: Connection, repo: RepoState, after: float, until: float) -> list[Undetailed]:
    """The builds of history that ran, and whose steps were not read, newest first."""
    unread = _history(repo, after, until).where(
        builds.c.started > 0, builds.c.generation == repo.generation, ~exists().where(_OF_STEP)
    )
    numbers = unread.with_only_columns(builds.c.number).distinct().order_by(builds.c.number.desc())
    return [Undetailed(repo.name, number) for number in conn.execute(numbers).scalars()]


def unread(conn: Connection, server: str) -> int:
    """Numbers and ends of a server's history that are still to be read."""
    shown = (repos.c.server == server, repos.c.watched, ~repos.c.gone)
    numbers = (
        select(func.coalesce(func.sum(gaps.c.high - gaps.c.low + 1), 0))
        .join(repos, repos.c.id == gaps.c.repo_id)
        .where(*shown, gaps.c.history)
    )
    ends = (
        select(func.count())
        .select_from(builds)
        .join(repos, repos.c.id == builds.c.repo_id)
        .where(
            *shown,
            builds.c.state == ENDING,
            builds.c.generation == repos.c.generation,
            builds.c.seen_open < repos.c.horizon,
            repos.c.horizon >= _ENDED,
        )
    )
    return int(conn.execute(numbers).scalar_one()) + int(conn.execute(ends).scalar_one())


def ask_for_older(conn: Connection, repo: RepoState, since: float, *, numbered: bool) -> bool:
    """Notes that history is to be read on where the oldest build known was created after `since`.

    `numbered`: the repo counts its builds. True where something is to be read.
    """
    if repo.gone or repo.pruned > since or any(gap.history for gap in gaps_of_repo(conn, repo.id)):
        return False
    oldest = conn.execute(
        select(builds.c.number, builds.c.created)
        .where(builds.c.repo_id == repo.id, builds.c.generation == repo.generation)
        .order_by(builds.c.number)
        .limit(1)
    ).first()
    lowest, created = (oldest[0], oldest[1]) if oldest else (repo.highest + 1, repo.horizon)
    if lowest <= 1 or created <= since:
        return False
    add_gap(conn, repo, 1, lowest - 1 if numbered else 1, history=True)
    return True


def _history(repo: RepoState, after: float, until: float) -> Select[Any]:
    return select(builds).where(
        builds.c.repo_id == repo.id,
        builds.c.state >= SETTLED,
        ~builds.c.counted,
        after < _ENDED,
        min(until, repo.horizon) >= _ENDED,
    )


def _uses(
    conn: Connection, repo: RepoState, value: ColumnElement[str], after: float, until: float
) -> list[Use]:
    columns = value, builds.c.event, func.min(_ENDED), func.max(_ENDED).label("last")
    history = _history(repo, after, until).with_only_columns(*columns)
    return _as_uses(conn, history.group_by(value, builds.c.event))


def _as_uses(conn: Connection, uses: Select[Any]) -> list[Use]:
    found = [Use._make(row) for row in conn.execute(uses)]
    return sorted(found, key=lambda use: (-use.last, use.value, use.event))


def _stream(conn: Connection, wanted: Select[Any]) -> Iterator[Run]:
    rows = conn.execute(wanted.execution_options(yield_per=ROWS_AT_ONCE))
    return (Run(*row) for row in rows)
