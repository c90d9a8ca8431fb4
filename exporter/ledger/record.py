"""Builds into the ledger: every answer is taken once, every end counts once, in any order.

The caller opens the transaction and writes what else belongs to it (the gap that was read, the
feed's cursor) beside it.
"""

from bisect import insort
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import attrgetter

from sqlalchemy import Connection

from exporter.ledger import store
from exporter.ledger.counts import Addition, Series, Total, additions, born, step_additions
from exporter.ledger.details import Details
from exporter.ledger.names import Names, Policy
from exporter.ledger.pairs import pair_additions
from exporter.ledger.past import Past
from exporter.ledger.runs import Run, hear, is_overtaken, match, new_run
from exporter.ledger.schema import DOUBTED, ENDING, OPEN, SETTLED
from exporter.ledger.watched import RepoState
from exporter.model import Build, Event, Step, Word


@dataclass(frozen=True, slots=True)
class Moment:
    """Now, by our clock and by the server's (Unix seconds)."""

    ours: float
    server: float


@dataclass(frozen=True, slots=True)
class Ended:
    """An end that was settled: `counted` when it moved counters, else it is history."""

    run: Run
    steps: tuple[Step, ...]


@dataclass(slots=True)
class Recorded:
    """What a call changed: ends in rising number, then run."""

    ended: list[Ended] = field(default_factory=list)
    rewritten: list[Run] = field(default_factory=list)
    """Ends that had been settled and read otherwise now: they change gauges, never counters."""
    changed: bool = False


def record(
    conn: Connection, repo: RepoState, policy: Policy, builds: Iterable[Build], now: Moment
) -> Recorded:
    """Takes in what answers of the server tell of builds of `repo`; the same again changes nothing."""
    ordered = sorted(_unpruned(repo, builds), key=attrgetter("number", "run"))
    known = store.runs_of(conn, repo, sorted({b.number for b in ordered}))
    before = {id(run): replace(run) for runs in known.values() for run in runs}
    names = Names(repo.default_branch, policy, store.names_of(conn, repo.id), now.ours)
    past = Past(conn, repo.id, names)
    newest = _newest_ends(ordered)
    done = Recorded()
    touched: dict[int, Run] = {}
    details = Details(conn)
    seen: dict[tuple[str, str], int] = {}
    for build in ordered:
        runs, ended = known.setdefault(build.number, []), build.ended
        if runs and is_overtaken(runs, build):
            continue
        run = match(runs, build) if runs else None
        settled = run is not None and run.state >= SETTLED
        news = run is None or hear(run, build)
        if run is None:
            run = new_run(repo.id, repo.generation, build)
            insort(runs, run, key=attrgetter("run"))
        counts = policy.counts(build.event, build.branch)
        if news and not ended:
            if run.seen_open < repo.horizon:
                run.seen_open = max(int(now.server), repo.horizon)
        elif news and run.state in (OPEN, ENDING):
            if _is_last_word(repo, run, build, counts, newest, past):
                run.state = SETTLED
                run.recorded = now.ours
                run.counted = counts and is_live(repo, run)
                done.ended.append(Ended(run, build.steps))
            else:
                run.state = ENDING
        if build.detailed:
            _end_doubts(runs, touched)
        if news and ended and build.steps:
            details.take(run, build, settled=settled)
        old = before.get(id(run))
        if old is not None and run == old:
            continue
        if old is not None and old.state >= SETTLED and (news or run.key != old.key):
            done.rewritten.append(run)
        touched[id(run)] = run
        if counts:
            at = run.branch, run.event
            seen[at] = max(seen.get(at, 0), run.when_ended)
    peers = _peers(conn, repo.id, done.ended)
    store.write_runs(conn, list(touched.values()), repo.id, {before[i].key for i in touched if i in before})
    details.write()
    for (branch, event), built in seen.items():
        _announce(names, past, branch, event, built)
    sums = _fold(names, past, policy, peers, done) + _late(names, details)
    _add(conn, repo, names, sums, now)
    store.write_names(conn, repo.id, {key: names.known[key] for key in names.changed})
    past.write()
    done.changed = bool(touched or sums)
    return done


def _unpruned(repo: RepoState, builds: Iterable[Build]) -> Iterable[Build]:
    """Without the ends that the ledger had and let go."""
    if not repo.pruned:
        return builds
    return (b for b in builds if not b.ended or (b.finished or b.run or b.created) >= repo.pruned)


def _end_doubts(runs: Sequence[Run], touched: dict[int, Run]) -> None:
    """The single build told what run there is now, so no row is puzzling any more."""
    for run in runs:
        if run.state == DOUBTED:
            run.state = SETTLED
            touched[id(run)] = run


def is_live(repo: RepoState, run: Run) -> bool:
    """True when the run ended after the repo's horizon, so that counters count it."""
    return run.seen_open >= repo.horizon or run.when_ended > repo.horizon


def _is_last_word(
    repo: RepoState,
    run: Run,
    build: Build,
    counts: bool,
    newest: dict[tuple[str, str], tuple[int, int]],
    past: Past,
) -> bool:
    """True when nothing more is to be asked about this end.

    Ends that count are read singly. Of history a row is enough, unless it does not tell what a
    gauge shows.
    """
    if build.word is Word.FLEETING:
        return False
    if build.detailed or not counts:
        return True
    nameless = run.event == Event.DEPLOYMENT and not run.environment  # a feed's row does not tell where to
    if build.word is Word.ROW or build.run == 0 or nameless or is_live(repo, run):
        return False
    last = newest.get((build.branch, build.event)) == (build.number, build.run)
    return not past.needs_single(run, last=last)


def _newest_ends(builds: Sequence[Build]) -> dict[tuple[str, str], tuple[int, int]]:
    return {(b.branch, b.event): (b.number, b.run) for b in builds if b.ended}


def _announce(names: Names, past: Past, branch: str, event: str, built: int) -> None:
    """Gives the series of a branch and event their names, at 0 before the first end."""
    label = names.branch(branch, built)
    for each in {Event.PUSH.value, event}:
        if names.series(label, each, built) and label == branch:
            past.begin(branch, each)


def _peers(conn: Connection, repo_id: int, ended: Sequence[Ended]) -> Mapping[str, list[Run]]:
    """The ends of the same commits that were settled before; of history alone nothing is counted."""
    commits = {end.run.commit for end in ended} - {""}
    if commits and (any(end.run.counted for end in ended) or store.has_counted(conn, repo_id)):
        return store.peers_of(conn, repo_id, commits)
    return {}


def _fold(
    names: Names, past: Past, policy: Policy, peers: Mapping[str, list[Run]], done: Recorded
) -> list[tuple[Addition, Run]]:
    """Adds ends to the heads that gauges show; returns what counters are to add."""
    sums: list[tuple[Addition, Run]] = []
    same_commit = {commit: list(runs) for commit, runs in peers.items()}
    for run in done.rewritten:
        if policy.counts(run.event, run.branch):
            past.rewrite(run)
    for end in done.ended:
        run, built = end.run, end.run.when_ended
        if not policy.counts(run.event, run.branch):
            continue
        past.add(run)
        if run.commit:
            same = same_commit.setdefault(run.commit, [])
            sums += pair_additions(names, same, run)
            same.append(run)
        if run.counted:
            branch = names.branch(run.branch, built)
            names.series(branch, run.event, built, counted=True)
            environment = names.environment(run.environment, built) if run.event == Event.DEPLOYMENT else ""
            steps = names.steps((step.name for step in end.steps), built)
            sums += [(addition, run) for addition in additions(run, branch, environment, end.steps, steps)]
    return sums


def _late(names: Names, details: Details) -> list[tuple[Addition, Run]]:
    """What counters are to add for steps that ended after their run was counted."""
    return [
        (addition, run)
        for run, step in details.late()
        if run.counted
        for name in names.steps((step.name,), run.when_ended)
        for addition in step_additions(step, name)
    ]


def _add(
    conn: Connection, repo: RepoState, names: Names, sums: Sequence[tuple[Addition, Run]], now: Moment
) -> None:
    if not sums:
        return
    totals = store.totals_of(conn, repo.id, {(a.family, a.labels) for a, _ in sums})
    since = born(names.known)
    for addition, run in sums:
        series: Series = (addition.family, addition.labels)
        if series not in totals:
            totals[series] = Total(0.0, since.get(series, now.ours))
        totals[series].add(addition, run.number, float(run.when_ended))
    store.write_totals(conn, repo.id, totals)
