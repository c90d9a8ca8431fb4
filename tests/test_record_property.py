"""Whatever order answers come in, and however often, the same history gives the same ledger."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, create_engine, insert

from exporter.ledger import Moment, Policy, record
from exporter.ledger.schema import metadata, repos, servers
from exporter.ledger.watched import RepoState
from exporter.model import Build, Event, Status, Step, Word

HORIZON = 1_795_500_000
NOW = Moment(ours=HORIZON + 50_000.0, server=HORIZON + 50_000.0)
NONE = {field.name: field.type() for field in fields(RepoState)}
REPO = RepoState(
    **NONE | {"id": 1, "server": "ci", "name": "octo/hello", "default_branch": "main", "horizon": HORIZON}
)
POLICY = Policy(
    names_branch=lambda branch, default: branch == default,
    counts=lambda event, _: event != "tag",
    series_retention=30 * 86_400.0,
)
TABLES = {
    "builds": "repo_id, generation, number, run, state, counted, id, status, event, branch, ref, ref_class, "
    '"commit", created, started, finished, wait, duration, parent, by_hand, environment, cron, recorded',
    "steps": "*",
    "totals": "*",
    "names": "*",
    "heads": "*",
}
"""What must not depend on the order: all but the notes that say which rows were seen."""


EVENTS = [Event.PUSH, Event.PUSH, Event.DEPLOYMENT, Event.CRON, Event.TAG]
"""The last two only where no run is restarted in place: those servers have no cron jobs, and what `only:`
leaves out is settled by whatever row comes first."""


@dataclass(frozen=True)
class Server:
    """What sets the answers of the dialects apart."""

    feeds_tell_run: bool
    restarts_in_place: bool
    rows_tell_all: bool


SERVERS = {
    "drone-0.5": Server(feeds_tell_run=False, restarts_in_place=True, rows_tell_all=False),
    "drone-0.6": Server(feeds_tell_run=False, restarts_in_place=True, rows_tell_all=True),
    "drone-1": Server(feeds_tell_run=True, restarts_in_place=False, rows_tell_all=True),
}


@dataclass(frozen=True)
class Truth:
    """One run as it went: its last word, and how far its row is off where it has several jobs."""

    end: Build
    until: int
    """When the server forgot it for the next run of its number."""
    row_started: int


def row(server: Server, truth: Truth, at: int, *, feed: bool) -> Build:
    """A row of a list or feed at a moment."""
    build = seen(truth.end, at)
    unexplained = build.status in (Status.CANCELLED, Status.FAILURE, Status.TIMEOUT, Status.PENDING)
    tells = server.rows_tell_all
    return replace(
        build,
        run=build.run if server.feeds_tell_run or not feed else 0,
        id=0 if feed else build.id,
        status=Status.FAILURE if build.status in (Status.CANCELLED, Status.TIMEOUT) else build.status,
        word=Word.ROW if unexplained else Word.FINAL,
        started=truth.row_started if build.ended else build.started,
        wait=None if feed else build.wait if tells else None,
        duration=build.duration if tells else None,
        parent=0 if feed else build.parent,
        environment="" if feed and not server.feeds_tell_run else build.environment,
        steps=(),
        detailed=False,
    )


def single(truth: Truth, at: int, *, soon: bool) -> Build:
    """The single build at a moment; `soon`: what a cancel reads like before the agent reported."""
    build = replace(seen(truth.end, at), detailed=True)
    if soon and build.status is Status.CANCELLED:
        return replace(build, status=Status.FAILURE, word=Word.FLEETING)
    return build


def seen(end: Build, at: int) -> Build:
    """The build at a moment."""
    if end.ended and (end.finished or end.started or end.run) <= at:
        return end
    status = Status.RUNNING if 0 < end.started <= at else Status.PENDING
    started = end.started if status is Status.RUNNING else 0
    return replace(end, status=status, started=started, finished=0, wait=None, duration=None, steps=())


@st.composite
def histories(draw: st.DrawFn, server: Server) -> list[Truth]:
    """Some builds of a repo, each with the runs that it had and that could still be seen.

    Without those of history that were then started again: that they ended is never told once they are
    known to be open again.
    """
    truths = []
    created = HORIZON - draw(st.integers(0, 2000))
    for number in range(1, draw(st.integers(1, 6)) + 1):
        created += draw(st.integers(0, 400))
        event = draw(st.sampled_from(EVENTS[:3] if server.restarts_in_place else EVENTS))
        branch = draw(st.sampled_from(["main", "develop"]))
        commit = draw(st.sampled_from(["", "c1", "c1", "c2"]))
        by_hand = draw(st.booleans()) and not server.restarts_in_place
        parent = draw(st.sampled_from([0, 0, 1])) if server.restarts_in_place else 0
        queued = created
        chain: list[Build] = []
        while True:
            build = Build(
                repo=REPO.name, number=number, run=queued, id=number, status=Status.SUCCESS, detailed=True,
                event=event, branch=branch, commit=commit, created=created, by_hand=by_hand,
                ref="refs/tags/v1" if event is Event.TAG else f"refs/heads/{branch}",
                cron="nightly" if event is Event.CRON else "",
                environment="prod" if event is Event.DEPLOYMENT else "",
                parent=parent,
            )  # fmt: skip
            chain.append(end(draw, build))
            again = server.restarts_in_place and chain[-1].finished and draw(st.integers(0, 3)) == 0
            if not again:
                break
            queued = chain[-1].finished + draw(st.integers(1, 300))
        for build, after in zip(chain, [*chain[1:], None], strict=True):
            until = after.run if after else int(NOW.server)
            off = draw(st.integers(0, 3)) if build.started and not server.rows_tell_all else 0
            history = 0 < build.finished <= HORIZON
            if until > HORIZON and not (history and after):
                truths.append(Truth(build, until, build.started + off))
    return truths


def end(draw: st.DrawFn, build: Build) -> Build:
    """The build with an end: most ran, some never began or ended without a time."""
    fates = ["success", "success", "failure", "cancelled", "timeout", "error"]
    if build.run > HORIZON:
        fates.append("lost")
    fate = draw(st.sampled_from(fates))
    started = build.run + draw(st.integers(0, 50))
    if fate == "lost":
        return replace(build, status=Status.ERROR, started=started, wait=started - build.run)
    seconds = draw(st.integers(0, 700))
    states = draw(st.lists(st.sampled_from([Status.SUCCESS, Status.FAILURE, Status.SKIPPED]), max_size=3))
    return replace(
        build,
        status=Status[fate.upper()],
        started=started,
        finished=started + seconds,
        wait=started - build.run,
        duration=seconds,
        steps=tuple(
            Step(name=f"s{i}", status=status, started=started, finished=started + seconds)
            for i, status in enumerate(states)
        ),
    )


@st.composite
def answers(draw: st.DrawFn, server: Server, truths: list[Truth]) -> list[list[Build]]:
    """What a reader may have been told, in any order: feeds, lists and single builds of any moment."""
    told = []
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.sampled_from(moments(truths)))
        there = [t for t in truths if t.end.run <= at < t.until]
        kind = draw(st.sampled_from(["feed", "feed", "list", "single"]))
        some = [t for t in there if draw(st.booleans())] if kind != "list" else there
        if kind == "single":
            told += [[single(t, at, soon=draw(st.booleans()))] for t in some]
        else:
            told.append([row(server, t, at, feed=kind == "feed") for t in some])
    told += [[t.end] for t in truths if draw(st.booleans())]
    return draw(st.permutations(told))


def moments(truths: list[Truth]) -> list[int]:
    """When an answer can differ from the one before."""
    times = {t for truth in truths for t in (truth.end.run, truth.end.started, truth.end.finished)}
    return sorted({HORIZON, int(NOW.server) - 1, *(t for t in times if t > HORIZON)})


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    made = create_engine("sqlite://")
    metadata.create_all(made)
    with made.begin() as conn:
        conn.execute(insert(servers).values(name="ci", first_contact=HORIZON))
        conn.execute(insert(repos).values(asdict(REPO)))
    yield made
    made.dispose()


def contents(conn: Connection) -> dict[str, list[tuple[object, ...]]]:
    return {
        table: sorted(tuple(row) for row in conn.exec_driver_sql(f"SELECT {columns} FROM {table}"))
        for table, columns in TABLES.items()
    }


def recorded(engine: Engine, told: list[list[Build]]) -> dict[str, list[tuple[object, ...]]]:
    """The ledger after these answers; each is given twice, and the second time must change nothing."""
    with engine.connect() as conn:
        for builds in told:
            record(conn, REPO, POLICY, builds, NOW)
            before = contents(conn)
            assert not record(conn, REPO, POLICY, builds, NOW).changed
            assert contents(conn) == before
        found = contents(conn)
        conn.rollback()
    return found


@pytest.mark.parametrize("dialect", SERVERS)
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_order_gives_the_same_ledger(engine: Engine, dialect: str, data: st.DataObject) -> None:
    server = SERVERS[dialect]
    truths = data.draw(histories(server))
    told = data.draw(answers(server, truths))
    last = [[truth.end] for truth in truths]
    assert recorded(engine, told + last) == recorded(engine, last)


@st.composite
def publications(draw: st.DrawFn) -> list[list[Build]]:
    """Of some builds, all that was told from their end until what comes after it had ended, too."""
    told = []
    for number in range(1, draw(st.integers(1, 3)) + 1):
        build = Build(
            repo=REPO.name, number=number, run=HORIZON + draw(st.integers(-100, 100)), id=number,
            status=Status.SUCCESS, detailed=True, event=Event.MANUAL, branch="main", created=HORIZON - 100,
            steps=(Step(name="build", status=Status.SUCCESS),),
        )  # fmt: skip
        ended = draw(st.sampled_from([Status.SUCCESS, Status.ERROR, Status.CANCELLED]))
        publish = Step(name="publish", status=Status.RUNNING, started=HORIZON + 200)
        times = {"finished": HORIZON + 200 + draw(st.integers(0, 900))} if draw(st.booleans()) else {}
        publish_ended = replace(publish, status=ended, **times)
        told.append(
            [replace(build, steps=(*build.steps, *after)) for after in ((), [publish], [publish_ended])]
        )
    return told


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_step_that_ends_after_its_build_counts_once(engine: Engine, data: st.DataObject) -> None:
    moments = data.draw(publications())
    answers = st.lists(
        st.sampled_from([build for of_one in moments for build in of_one]), min_size=1, max_size=4
    )
    told = data.draw(st.lists(answers, max_size=8))
    last = [[of_one[-1]] for of_one in moments]
    assert recorded(engine, told + last) == recorded(engine, last)
