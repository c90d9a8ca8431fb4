"""One repo's past, folded in the order of time into the tracks of its series."""

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

from sqlalchemy import Connection

from exporter.backfill import DAY, HOUR
from exporter.backfill.counters import Counters, value_of
from exporter.backfill.gauges import Gauges
from exporter.backfill.tracks import GRID, Span, Track
from exporter.ledger import Policy, RepoFacts, history, store
from exporter.ledger.counts import Addition, Series, additions, born
from exporter.ledger.heads import Key
from exporter.ledger.names import ENVIRONMENT, SERIES, STEP, Name, Names, as_json
from exporter.ledger.pairs import pair_additions
from exporter.ledger.runs import Run
from exporter.ledger.sql import AT_ONCE
from exporter.ledger.watched import RepoState
from exporter.metrics import METRICS
from exporter.model import Event, Status, Step
from exporter.samples import WITHHELD

LEAD = DAY
"""Seconds for which a series is at 0 before its first end: `offset 1d` finds it there."""
BEFORE_HISTORY = -1.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be written, for every repo of a server."""

    begin: int
    """Full hour from which on counters count."""
    until: int
    """Up to when live counters are written where they go on past the horizon; 0: they are not."""
    policy: Policy
    details: bool
    now: float


def seam_of(conn: Connection, repo: RepoState) -> int | None:
    """When the history of a repo ends and its live counters begin (our clock); None: it has no history.

    Where the horizon was moved later, because `repos:` left the repo out for a time, live counters were shown
    before it: then history ends with the last end before the first that they counted.
    """
    until = float(repo.horizon)
    counted = history.first_counted(conn, repo)
    if counted is not None and counted < repo.horizon - repo.horizon_skew:
        until = counted + repo.horizon_skew
    last = history.last_of_history(conn, repo, until)
    if last is None:
        return None
    return math.floor((repo.horizon if until == repo.horizon else last + 1) - repo.horizon_skew)


class Past:
    """One repo's series, span by span."""

    def __init__(self, conn: Connection, facts: RepoFacts, seam: int | None, wanted: Wanted) -> None:
        repo = self.repo = facts.repo
        self._wanted, self._skew = wanted, repo.horizon_skew
        horizon = math.floor(repo.horizon - repo.horizon_skew)
        self.seam = seam
        self._names = Names(repo.default_branch, wanted.policy, dict(facts.names), wanted.now)
        self._ended = Counters(wanted.begin, (horizon if seam is None else seam) - 1)
        self._gauges = Gauges()
        self._shown: dict[Series, tuple[int, float]] = {}
        """The gauges that are there: since when, and their values."""
        self._find_lives(conn)
        for run in history.ends_of_history(conn, repo, BEFORE_HISTORY, wanted.begin + self._skew):
            if self._is_counted(run):
                self._note(run, wanted.begin)
        self._counted: Counters | None = None
        if wanted.until > max(horizon, wanted.begin):
            first = max(self._ended.last + 2, wanted.begin)
            self._counted = self._live(conn, facts, first)
            for run in history.ends_counted(conn, repo, BEFORE_HISTORY, first):
                if self._is_counted(run):
                    self._note(run, first)

    @property
    def lines(self) -> int:
        """About how many lines all its series have together at one time."""
        lives = {*self._ended.lives, *(self._counted.lives if self._counted else ())}
        return sum(len(METRICS[family].buckets) + 3 if METRICS[family].buckets else 1 for family, _ in lives)

    @property
    def last(self) -> int:
        """When its last point is."""
        return max(self.seam or 0, self._counted.last if self._counted else 0)

    def tracks(self, conn: Connection, span: Span) -> dict[Series, list[Track]]:
        """What its series did within a span; spans come in rising order."""
        moved: dict[Series, list[tuple[int, float]]] = {}
        shown = dict(self._shown)
        counters = self._fold_history(conn, span, moved)
        if self.seam is not None and span.begin <= self.seam < span.end:
            for series, tracks in counters.items():
                tracks.append(Track(self.seam, self.seam, value_of(series[0], None)))
        for series, track in self._fold_counted(conn, span, moved).items():
            counters.setdefault(series, []).append(track)
        end = self._counted.last if self._counted else self._ended.last
        for series in shown.keys() | moved.keys():
            since, value = shown.get(series, (moved[series][0][0] if series in moved else 0, None))
            counters[series] = [Track(since, end, value, list(moved.get(series, ())))]
        return counters

    def _is_counted(self, run: Run) -> bool:
        return self._wanted.policy.counts(run.event, run.branch)

    def _note(self, run: Run, moment: int) -> list[tuple[Series, float]]:
        """Folds an end into the gauges; returns what it moved."""
        moved = []
        for series, value in self._gauges.add(run, self._branch(run), self._environment(run)):
            since, before = self._shown.get(series, (moment, None))
            self._shown[series] = since, value
            if value != before:
                moved.append((series, value))
        return moved

    def _find_lives(self, conn: Connection) -> None:
        """Names what history used, those used last first, and since when and until when it is shown."""
        repo, policy = self.repo, self._wanted.policy
        window = self._wanted.begin + self._skew, self._ended.last + 1 + self._skew
        odd = history.odd_statuses(conn, repo, *window, of_steps=False)
        for use in history.branches_used(conn, repo, policy, *window):
            label = self._names.branch(use.value, use.last)
            self._show(SERIES, as_json([label, use.event]), use, odd)
        for use in history.environments_used(conn, repo, *window):
            self._show(ENVIRONMENT, self._names.environment(use.value, use.last), use, odd)
        if self._wanted.details:
            odd = history.odd_statuses(conn, repo, *window, of_steps=True)
            for use in history.steps_used(conn, repo, *window):
                self._show(STEP, self._names.steps([use.value], use.last)[0], use, odd)

    def _show(self, kind: str, label: str, use: history.Use, odd: Collection[Status]) -> None:
        """Lets the series of a label be there: those that are born with it, and those of odd statuses."""
        since = (math.floor(use.first - self._skew) - LEAD) // HOUR * HOUR
        until = math.ceil(use.last - self._skew + self._wanted.policy.series_retention)
        for family, labels in born({(kind, label): Name(False, 0.0, use.last)}):
            self._ended.live((family, labels), since, until)
            if labels and labels[-1] == Status.SUCCESS.word:
                for status in odd:
                    self._ended.live((family, (*labels[:-1], status.word)), since, until)

    def _fold_history(
        self, conn: Connection, span: Span, moved: dict[Series, list[tuple[int, float]]]
    ) -> dict[Series, list[Track]]:
        begin, last = self._wanted.begin, self._ended.last
        if span.begin > last + 1:
            return {}
        after = max(begin, span.begin - GRID) + self._skew
        runs = history.ends_of_history(conn, self.repo, after, min(span.end, last + 1) + 1 + self._skew)
        for run, same, steps in self._with_others(conn, runs, self._as_history):
            moment = _moment(run.when_ended - self._skew, last)
            if not span.begin <= moment < span.end:
                continue
            for series, value in self._note(run, moment):
                _move(moved, series, moment, value)
            for addition in self._additions(run, same, steps):
                self._ended.add(addition, moment)
        return {series: [track] for series, track in self._ended.tracks().items()}

    def _live(self, conn: Connection, facts: RepoFacts, first: int) -> Counters:
        """The live counters as they were at `first`: what they are now, without what came since."""
        counters = Counters(first, self._wanted.until, dict(facts.totals))
        for series, since in (born(facts.names) | {s: t.since for s, t in facts.totals.items()}).items():
            counters.live(series, math.ceil(since), self._wanted.until)
        later = history.ends_counted(conn, self.repo, first, float("inf"))
        for run, same, steps in self._with_others(conn, later, self._as_counted):
            for addition in self._additions(run, same, steps):
                counters.take_back(addition)
        return counters

    def _fold_counted(
        self, conn: Connection, span: Span, moved: dict[Series, list[tuple[int, float]]]
    ) -> dict[Series, Track]:
        counters = self._counted
        if counters is None or span.end <= counters.first:
            return {}
        after = max(counters.first, span.begin - GRID - WITHHELD)
        runs = history.ends_counted(conn, self.repo, after, min(span.end, counters.last))
        due: list[tuple[int, Addition]] = []
        for run, same, steps in self._with_others(conn, runs, self._as_counted):
            moment = _moment(run.recorded, counters.last)
            if span.begin <= moment < span.end:
                for series, value in self._note(run, moment):
                    _move(moved, series, moment, value)
            for addition in self._additions(run, same, steps):
                total = counters.totals.get((addition.family, addition.labels))
                shown = max(run.recorded, total.since + WITHHELD if total else 0.0)
                moment = _moment(shown, counters.last)
                if shown <= counters.last and span.begin <= moment < span.end:
                    due.append((moment, addition))
        for moment, addition in sorted(due, key=lambda each: each[0]):
            counters.add(addition, moment)
        return counters.tracks()

    def _additions(self, run: Run, same: list[Run], steps: tuple[Step, ...]) -> Iterator[Addition]:
        names = self._names
        if run.commit:
            for addition, _ in pair_additions(names, same, run):
                yield addition
        if run.counted:
            labels = names.steps((step.name for step in steps), run.when_ended)
            yield from additions(run, self._branch(run), self._environment(run), steps, labels)

    def _with_others(
        self, conn: Connection, runs: Iterable[Run], place: Callable[[Run], tuple[Run, tuple[float, Key]]]
    ) -> Iterator[tuple[Run, list[Run], tuple[Step, ...]]]:
        """Each run that counts with the earlier ends of its commit, and with its steps where they are wanted.

        `place` tells a run as it counts here, and its place in the order of time.
        """
        ordered = iter(runs)
        while batch := list(islice(ordered, AT_ONCE)):
            shared = history.shared_commits(conn, self.repo, {run.commit for run in batch} - {""})
            peers = store.peers_of(conn, self.repo.id, shared)
            placed = {commit: [place(run) for run in of_commit] for commit, of_commit in peers.items()}
            steps: Mapping[Key, tuple[Step, ...]] = {}
            if self._wanted.details:
                steps = history.steps_of(conn, self.repo, [run.key for run in batch])
            for run in filter(self._is_counted, batch):
                told, at = place(run)
                same = [other for other, when in placed.get(run.commit, ()) if when < at]
                yield told, same, steps.get(run.key, ())

    def _as_history(self, run: Run) -> tuple[Run, tuple[float, Key]]:
        """An end as if the horizon had been the beginning; a live one is not there yet."""
        at = run.when_ended - self._skew
        is_history = not run.counted and at <= self._ended.last + 2
        run.counted = is_history and at > self._wanted.begin and self._is_counted(run)
        return run, (at if is_history else math.inf, run.key)

    def _as_counted(self, run: Run) -> tuple[Run, tuple[float, Key]]:
        """An end as the live counters took it; history was there before."""
        return run, (run.recorded if run.counted else -math.inf, run.key)

    def _branch(self, run: Run) -> str:
        return self._names.branch(run.branch, run.when_ended)

    def _environment(self, run: Run) -> str:
        if run.event != Event.DEPLOYMENT:
            return ""
        return self._names.environment(run.environment, run.when_ended)


def _moment(at: float, last: int) -> int:
    """The first point of the grid that shows what happened `at`; the last point shows all."""
    return min(math.ceil(at / GRID) * GRID, last)


def _move(moved: dict[Series, list[tuple[int, float]]], series: Series, moment: int, value: float) -> None:
    changes = moved.setdefault(series, [])
    if changes and changes[-1][0] == moment:
        changes.pop()
    changes.append((moment, value))
