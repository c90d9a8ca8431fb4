"""The ledger's SQL for incidents: the state of each ref class, and the ends that it is computed from."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import TypeAlias

import msgspec
from sqlalchemy import Connection, and_, bindparam, delete, func, or_, select, text

from exporter.incidents import End, State, wakes
from exporter.ledger.heads import Key
from exporter.ledger.record import is_live
from exporter.ledger.runs import Run
from exporter.ledger.schema import ENDING, builds, incidents, mutes, steps
from exporter.ledger.sql import chunks, upsert
from exporter.ledger.watched import RepoState, imports
from exporter.model import Status, Step

FailedStep: TypeAlias = tuple[str, int]
"""Name and exit code of the step that failed first."""
RECOMPUTED = 5000
"""Newest runs of a ref class that its state is computed from."""

_DECODE = msgspec.json.Decoder(State)
_STATES = select(incidents.c.ref_class, incidents.c.state).where(incidents.c.repo_id == bindparam("repo"))
_STATES_AMONG = _STATES.where(incidents.c.ref_class.in_(bindparam("classes", expanding=True)))
_RUNS = (
    select(builds)
    .where(builds.c.repo_id == bindparam("repo"), builds.c.state >= ENDING)
    .order_by(builds.c.generation.desc(), builds.c.number.desc(), builds.c.run.desc())
)
_RUNS_OF_CLASS = _RUNS.where(builds.c.ref_class == bindparam("ref_class")).limit(RECOMPUTED)
_FAILED = (
    select(steps.c.generation, steps.c.number, steps.c.run, steps.c.name, steps.c.exit_code)
    .where(
        steps.c.repo_id == bindparam("repo"),
        steps.c.status.in_([status.value for status in Status if status.bad]),
        ~steps.c.ignored,
    )
    .order_by(steps.c.generation, steps.c.number, steps.c.run, steps.c.position)
)
_FAILED_OF_RUN = _FAILED.where(
    steps.c.generation == bindparam("generation"),
    steps.c.number == bindparam("number"),
    steps.c.run == bindparam("run"),
).limit(1)
_UNTOLD = (
    select(builds.c.number).where(builds.c.repo_id == bindparam("repo"), builds.c.state == ENDING).limit(1)
)
_MUTED = select(func.max(mutes.c.until)).where(
    mutes.c.server == bindparam("server"),
    or_(mutes.c.repo == "", mutes.c.repo == bindparam("repo")),
    mutes.c.until > bindparam("now"),
)
_DUE = select(incidents.c.repo_id, incidents.c.state).where(incidents.c.wakes <= bindparam("now"))
_RED = select(incidents.c.state).where(incidents.c.repo_id == bindparam("repo"), text("red"))


def states_of(conn: Connection, repo_id: int, classes: Collection[str]) -> dict[str, State]:
    """The states of these ref classes, of those that have one."""
    found: dict[str, State] = {}
    for chunk in chunks(sorted(classes)):
        for name, state in conn.execute(_STATES_AMONG, {"repo": repo_id, "classes": list(chunk)}):
            found[name] = _DECODE.decode(state)
    return found


def all_states(conn: Connection, repo_id: int) -> dict[str, State]:
    return {name: _DECODE.decode(state) for name, state in conn.execute(_STATES, {"repo": repo_id})}


def red_states(conn: Connection, repo_id: int) -> list[State]:
    """The open incidents of a repo."""
    return [_DECODE.decode(state) for (state,) in conn.execute(_RED, {"repo": repo_id})]


def due_states(conn: Connection, now: float) -> list[tuple[int, State]]:
    """What time alone may change by now: (repo, state)."""
    return [(repo_id, _DECODE.decode(state)) for repo_id, state in conn.execute(_DUE, {"now": now})]


def write_states(
    conn: Connection, repo_id: int, states: Iterable[State], *, look_at: float = float("inf")
) -> None:
    """Stores states of a repo; they are looked at when time alone may change them, at `look_at` at the
    latest."""
    rows = (
        (
            repo_id,
            state.ref_class,
            state.red,
            min(wakes(state), look_at),
            msgspec.json.encode(state).decode(),
        )
        for state in states
    )
    upsert(conn, incidents, list(rows))


def drop_states(conn: Connection, repo_id: int, classes: Collection[str]) -> None:
    for chunk in chunks(sorted(classes)):
        of_repo = (incidents.c.repo_id == repo_id, incidents.c.ref_class.in_(chunk))
        conn.execute(delete(incidents).where(*of_repo))


def runs_of_repo(conn: Connection, repo_id: int) -> list[Run]:
    """The known ends of a repo, oldest first; of those still to be read singly what their row says."""
    return [Run(*row) for row in conn.execute(_RUNS, {"repo": repo_id})][::-1]


def runs_of_class(conn: Connection, repo_id: int, ref_class: str) -> list[Run]:
    """The same of one ref class."""
    where = {"repo": repo_id, "ref_class": ref_class}
    return [Run(*row) for row in conn.execute(_RUNS_OF_CLASS, where)][::-1]


def failed_steps(conn: Connection, repo_id: int) -> dict[Key, FailedStep]:
    """Of each run of a repo whose steps are known the one that failed first."""
    found: dict[Key, FailedStep] = {}
    for generation, number, run, name, exit_code in conn.execute(_FAILED, {"repo": repo_id}):
        found.setdefault((generation, number, run), (name, exit_code))
    return found


def failed_step(conn: Connection, run: Run) -> FailedStep:
    """The step of a run that failed first; empty where none is known."""
    where = {"repo": run.repo_id, "generation": run.generation, "number": run.number, "run": run.run}
    found = conn.execute(_FAILED_OF_RUN, where).first()
    return (found[3], found[4]) if found else ("", 0)


def first_failed(told: Iterable[Step]) -> FailedStep:
    """The step that failed first and does not let errors pass; `told` in their order."""
    found = next((step for step in told if step.status.bad and not step.ignored), None)
    return (found.name, found.exit_code) if found else ("", 0)


def is_whole(conn: Connection, repo_id: int) -> bool:
    """True when no history of a repo is left to be read, neither by pages nor singly."""
    if imports(conn, repo_id):
        return False
    return conn.execute(_UNTOLD, {"repo": repo_id}).first() is None


def run_at(conn: Connection, repo_id: int, key: Key) -> Run | None:
    """One run, where it is still kept."""
    of_key = and_(builds.c.generation == key[0], builds.c.number == key[1], builds.c.run == key[2])
    found = conn.execute(select(builds).where(builds.c.repo_id == repo_id, of_key)).first()
    return Run(*found) if found else None


def muted_until(conn: Connection, server: str, repo: str, now: float) -> float:
    """Until when nobody is to be told of a repo; 0 where it is not muted."""
    return float(conn.execute(_MUTED, {"server": server, "repo": repo, "now": now}).scalar() or 0.0)


def mute(conn: Connection, server: str, repo: str, until: float) -> None:
    """Lets messages of a repo (empty: of all of the server) wait until then; a time that is over ends it."""
    upsert(conn, mutes, [(server, repo, until)])


def to_end(run: Run, *, history: bool, at: float, step: str) -> End:
    """A stored run as the end that incidents are made of; `at` by our clock."""
    return End(
        key=run.key,
        status=Status(run.status),
        at=at,
        history=history,
        branch=run.branch,
        event=run.event,
        commit=run.commit,
        author=run.author,
        step=step,
    )


def ends(
    repo: RepoState, runs: Iterable[Run], failed: Mapping[Key, FailedStep], skew: float
) -> Iterator[tuple[Run, End]]:
    """Stored runs (oldest first) with the ends that they are: history unless they count.

    Left out is what is judged later, what says nothing of a branch, and of good ends of a ref class in
    a row those between the first and the last: they leave no trace.
    """
    said = [run for run in runs if (run.good or run.bad) and not (run.state == ENDING and is_live(repo, run))]
    after: dict[str, bool] = {}
    good_after = []
    for run in reversed(said):
        good_after.append(after.get(run.ref_class, False))
        after[run.ref_class] = run.good
    before: dict[str, bool] = {}
    for run, is_followed in zip(said, reversed(good_after), strict=True):
        follows = before.get(run.ref_class, True)
        before[run.ref_class] = run.good
        if not (run.good and follows and is_followed):
            step = failed.get(run.key, ("", 0))[0]
            yield run, to_end(run, history=not run.counted, at=run.when_ended - skew, step=step)
