"""Builds into the ledger: every answer is taken once, every end counts once, in any order.

The caller opens the transaction and writes what else belongs to it (the gap that was read, the
feed's cursor) beside it.
"""

from bisect import insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection

from exporter.ledger import store
from exporter.ledger.counts import Addition, Series, Total, additions
from exporter.ledger.names import BRANCH, ENVIRONMENT, SERIES, STEP, Names, Policy, as_json
from exporter.ledger.past import Past
from exporter.ledger.runs import Run, contradicts, is_news, match, new_run, take
from exporter.ledger.schema import ENDING, SETTLED
from exporter.ledger.watched import RepoState
from exporter.model import Build, Event, Status, Step, Word


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
    """What a call changed: ends in rising number, then run; rows of `wanted` may be of another run."""

    ended: list[Ended] = field(default_factory=list)
    wanted: set[int] = field(default_factory=set)
    changed: bool = False


def record(
    conn: Connection, repo: RepoState, policy: Policy, builds: Iterable[Build], now: Moment
) -> Recorded:
    """Takes in what answers of the server tell of builds of `repo`; the same again changes nothing."""
    ordered = sorted(builds, key=lambda b: (b.number, b.run))
    known = store.runs_of(conn, repo, sorted({b.number for b in ordered}))
    keys = {id(run): run.key for runs in known.values() for run in runs}
    names = Names(repo.default_branch, policy, store.names_of(conn, repo.id), now.ours)
    past = Past(conn, repo.id, names)
    newest = _newest_ends(ordered)
    done = Recorded()
    touched: dict[int, Run] = {}
    seen: dict[tuple[str, str], Run] = {}
    for build in ordered:
        runs = known.setdefault(build.number, [])
        run = match(runs, build)
        if run is None:
            run = new_run(repo.id, repo.generation, build)
            insort(runs, run, key=lambda r: r.run)
        elif contradicts(run, build):
            done.wanted.add(build.number)
            continue
        elif run.key != keys.get(id(run), run.key):
            pass  # its queue time became known: to be written whatever else the answer says
        elif not is_news(run, build) or not (_moved(run, build) or run.seen_open < repo.horizon):
            continue
        else:
            take(run, build)
        before = run.state
        touched[id(run)] = run
        counts = policy.counts(build.event, build.branch)
        if counts:
            seen[run.branch, run.event] = run
        if not build.ended:
            run.seen_open = int(now.server)
        elif before == SETTLED:
            past.rewrite(run)
        elif _is_last_word(repo, run, build, counts, newest, past):
            run.state = SETTLED
            run.recorded = now.ours
            run.counted = counts and is_live(repo, run)
            done.ended.append(Ended(run, build.steps))
        else:
            run.state = ENDING
    for run in seen.values():
        _announce(names, run, past)
    _count(conn, repo, names, past, done.ended, policy, now)
    store.write_runs(conn, list(touched.values()), repo.id, {keys[i] for i in touched if i in keys})
    store.write_steps(conn, [(e.run, e.steps) for e in done.ended if e.steps])
    store.write_names(conn, repo.id, {key: names.known[key] for key in names.changed})
    past.write()
    done.changed = bool(touched)
    return done


def _moved(run: Run, build: Build) -> bool:
    return run.state == ENDING or build.ended or (run.status, run.started) != (build.status, build.started)


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

    Ends that count are read singly. Of history a row is enough, unless it does not tell, or is
    the newest end of a named branch.
    """
    if build.word is Word.FLEETING:
        return False
    if build.detailed or not counts:
        return True
    if build.word is Word.ROW or run.guessed or is_live(repo, run):
        return False
    if newest.get((build.branch, build.event)) != (build.number, build.run):
        return True
    return past.knows_newer(run)


def _newest_ends(builds: Sequence[Build]) -> dict[tuple[str, str], tuple[int, int]]:
    return {(b.branch, b.event): (b.number, b.run) for b in builds if b.ended}


def _announce(names: Names, run: Run, past: Past) -> None:
    """Gives the series of this build's branch and event their names, at 0 before the first end."""
    built = run.when_ended
    branch = names.branch(run.branch, built)
    for event in {Event.PUSH.value, run.event}:
        if names.series(branch, event, built) and branch == run.branch:
            past.begin(branch, event)


def _count(
    conn: Connection,
    repo: RepoState,
    names: Names,
    past: Past,
    ended: Sequence[Ended],
    policy: Policy,
    now: Moment,
) -> None:
    """Adds new ends to gauges' heads and, where they count, to the totals."""
    shown = [e for e in ended if policy.counts(e.run.event, e.run.branch)]
    if not shown:
        return
    sums: list[tuple[Addition, Run]] = []
    pairs = any(e.run.counted for e in shown) or store.has_counted(conn, repo.id)
    peers = store.peers_of(conn, repo.id, {e.run.commit for e in shown if e.run.commit}) if pairs else {}
    for end in shown:
        run = end.run
        built = run.when_ended
        branch = names.branch(run.branch, built)
        environment = names.environment(run.environment, built) if run.event == Event.DEPLOYMENT else ""
        cron = names.cron(run.cron, built) if run.event == Event.CRON else None
        past.add(run, branch, environment, cron)
        if pairs and run.commit:
            same = peers.setdefault(run.commit, [])
            if same:
                sums += _pair_additions(names, same, run)
            same.append(run)
        if run.counted:
            names.series(branch, run.event, built, counted=True)
            step_names = names.steps((step.name for step in end.steps), built)
            sums += [
                (addition, run) for addition in additions(run, branch, environment, end.steps, step_names)
            ]
    _add(conn, repo, names, sums, now)


def _pair_additions(names: Names, same: Sequence[Run], run: Run) -> list[tuple[Addition, Run]]:
    """What `run` adds together with other ends of its commit, whichever of them came first."""
    added: list[tuple[Addition, Run]] = []
    if run.event == Event.DEPLOYMENT:
        return added
    flaky = _flaky_end([*same, run], run.ref_class)
    if flaky and not _flaky_end(same, run.ref_class):
        branch = names.branch(flaky.branch, flaky.when_ended)
        added.append((Addition("ci_build_flaky_total", (branch,), 1), flaky))
    before, after = _restarts(same, run), _restarts([*same, run], run)
    added += [(Addition("ci_build_restarts_total", (), 1), again) for again in after if again not in before]
    return added


def _flaky_end(runs: Sequence[Run], ref_class: str) -> Run | None:
    """The first counted good end of a ref class that follows a bad one of the same commit."""
    same = [run for run in runs if run.ref_class == ref_class]
    bad = min((run.key for run in same if run.bad), default=None)
    good = [run for run in same if run.good and run.counted and bad is not None and run.key > bad]
    return min(good, key=lambda run: run.key, default=None)


def _restarts(runs: Sequence[Run], of: Run) -> list[Run]:
    """The counted runs that a person started after another of the same commit, event and ref.

    Drone 1.x says of a restart no more than that (contract drone-1.x, "Restart").
    """
    same = [run for run in runs if (run.event, run.ref) == (of.event, of.ref)]
    first = min((run.key for run in same), default=None)
    return [r for r in same if r.by_hand and r.counted and not r.restarted and r.key != first]


def _add(
    conn: Connection, repo: RepoState, names: Names, sums: Sequence[tuple[Addition, Run]], now: Moment
) -> None:
    totals = store.totals_of(conn, repo.id, {(a.family, a.labels) for a, _ in sums})
    for addition, run in sums:
        series: Series = (addition.family, addition.labels)
        if series not in totals:
            totals[series] = Total(0.0, _born(names, addition, now.ours))
        totals[series].add(addition, run.number, float(run.when_ended))
    store.write_totals(conn, repo.id, totals)


def _born(names: Names, addition: Addition, now: float) -> float:
    """When the series of an addition was first shown, at 0."""
    labels = addition.labels
    if labels and labels[-1] == Status.UNKNOWN.word:
        return now
    match addition.family:
        case "ci_builds_total" | "ci_build_duration_seconds":
            since = names.since(SERIES, as_json(labels[:2]))
        case "ci_steps_total" | "ci_step_duration_seconds":
            since = names.since(STEP, labels[0])
        case "ci_deployments_total":
            since = names.since(ENVIRONMENT, labels[0])
        case "ci_build_flaky_total":
            since = names.since(BRANCH, labels[0])
        case _:
            since = names.repo_since()
    return now if since is None else since
