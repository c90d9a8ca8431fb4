"""One run of a build in a simulated world, and what can be seen of it at a moment.

A run carries the times at which things happen to it, past and to come; its visible state is a
function of them and of the clock. Times are Unix seconds, None where nothing is planned.
"""

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

SETTLING = 1.0
"""Seconds for which a cancelled build reads `killed` before its agent's report comes in."""


class Outcome(StrEnum):
    """How a run ends, in words of no dialect."""

    SUCCESS = "success"
    FAILURE = "failure"
    ERROR = "error"
    """The pipeline file is bad, or (0.5) the agent could not prepare the job."""
    CANCELLED = "cancelled"
    TIMEOUT = "timeout"
    KILLED = "killed"
    """Out of memory or a signal (0.5 says `killed`, 0.8 `failure`); 1.x: the clean-up after 24 hours."""
    DECLINED = "declined"
    SKIPPED = "skipped"
    """Overtaken by a newer build while pending (1.x)."""
    LOST = "lost"
    """In flight when the server was restarted (0.5): `error` without an end time."""


INTERRUPTED = frozenset({Outcome.CANCELLED, Outcome.TIMEOUT, Outcome.KILLED, Outcome.LOST})
BLOCKED, PENDING, RUNNING, WAITING = "blocked", "pending", "running", "waiting"


@dataclass(frozen=True, slots=True)
class Person:
    """Who committed or started something."""

    login: str
    name: str
    email: str


@dataclass(frozen=True, slots=True)
class StepPlan:
    """One step as it will go: `weight` is its share of its leg's time."""

    name: str
    weight: float = 1.0
    exit_code: int = 0
    ignored: bool = False
    """Its failure does not fail the build (1.x)."""
    always: bool = False
    """It runs after a failure too."""

    @property
    def bad(self) -> bool:
        return self.exit_code != 0 and not self.ignored


@dataclass(frozen=True, slots=True)
class Leg:
    """A matrix leg (0.5, 0.8) or a stage (1.x)."""

    name: str
    steps: tuple[StepPlan, ...]
    environ: tuple[tuple[str, str], ...] = ()
    after: tuple[str, ...] = ()
    """Names of the legs that must succeed first."""

    @property
    def bad(self) -> bool:
        return any(step.bad for step in self.steps)


@dataclass(slots=True, kw_only=True)
class Build:
    """One run of a build number, with all that will happen to it."""

    id: int
    number: int
    created: float
    queued: float
    """When this run was queued: `created`, until it is restarted in place."""
    legs: tuple[Leg, ...]
    person: Person
    outcome: Outcome = Outcome.SUCCESS
    started: float | None = None
    finished: float | None = None
    gated: bool = False
    reviewed: float | None = None
    """When a gated build was approved or declined."""
    reviewer: str = ""
    parent: int = 0
    event: str = "push"
    """push, pull_request, tag, cron, deployment, rollback or custom."""
    branch: str = ""
    """The branch it belongs to: a pull request's target, a tag's base."""
    source: str = ""
    """A pull request's own branch."""
    ref: str = ""
    commit: str = ""
    before: str = ""
    title: str = ""
    message: str = ""
    environment: str = ""
    cron: str = ""
    action: str = ""
    by: str = ""
    """Login of the person who started it by hand; empty for a hook or timer."""
    error: str = ""
    whole: bool = False
    """It was cancelled as a whole, not by its leg (0.8)."""
    reported: bool = True
    """Its agent tells the server how a cancelled leg ended."""
    edits: int = 0
    """Grows with every change, so that rendered rows can be kept."""

    def phase(self, now: float) -> str:
        """`blocked`, `pending`, `running`, or the outcome."""
        if self.finished is not None and now >= self.finished:
            return self.outcome
        if self.started is not None and now >= self.started:
            return RUNNING
        if self.gated and (self.reviewed is None or now < self.reviewed):
            return BLOCKED
        return PENDING

    def ended(self, now: float) -> bool:
        return self.finished is not None and now >= self.finished

    def settling(self, now: float) -> bool:
        """True while the report of a cancelled build's agent has not come in."""
        return (
            self.outcome is Outcome.CANCELLED
            and self.finished is not None
            and self.started is not None
            and self.started < self.finished <= now
            and (not self.reported or now < self.finished + SETTLING)
        )

    def started_at(self, now: float) -> int:
        """Whole Unix seconds; 0 when it has not happened."""
        return int(self.started) if self.started is not None and now >= self.started else 0

    def finished_at(self, now: float) -> int:
        """Whole Unix seconds; 0 when it has not happened, or was forgotten in a server's restart."""
        if self.outcome is Outcome.LOST:
            return 0
        return int(self.finished) if self.finished is not None and now >= self.finished else 0

    def stable_until(self, now: float) -> float:
        """When its row next changes by itself; infinity when it does not."""
        times = [t for t in (self.reviewed, self.started, self.finished) if t is not None and t > now]
        if self.finished is not None and now < self.finished + SETTLING:
            times.append(self.finished + SETTLING)
        if times and self.started is not None and now >= self.started and len(self.legs) > 1:
            times.append(math.floor(now) + 1)
        return min(times, default=math.inf)


@dataclass(frozen=True, slots=True)
class StepState:
    """One step at a moment: `state` is an outcome's word, `pending`, `running` or `skipped`."""

    plan: StepPlan
    state: str
    started: int = 0
    stopped: int = 0

    @property
    def exit_code(self) -> int:
        return self.plan.exit_code if self.state == Outcome.FAILURE else 0


@dataclass(frozen=True, slots=True)
class LegState:
    """One leg at a moment: `state` as of a step, also `waiting`, `blocked`, `declined`, `error`."""

    plan: Leg
    state: str
    started: int = 0
    stopped: int = 0
    steps: tuple[StepState, ...] = ()


def legs_at(build: Build, now: float, *, in_turn: bool = False) -> tuple[LegState, ...]:
    """Every leg of `build` as it stands; `in_turn`: one agent takes them one after another."""
    phase = build.phase(now)
    if phase in (BLOCKED, PENDING, Outcome.DECLINED):
        return tuple(_idle(leg, WAITING if leg.after and phase == PENDING else phase) for leg in build.legs)
    begin = build.started if build.started is not None else build.finished
    end = build.finished
    if begin is None or (end is not None and begin >= end and phase in (*INTERRUPTED, Outcome.SKIPPED)):
        if phase == Outcome.LOST:
            return tuple(_idle(leg, phase) for leg in build.legs)
        at = build.finished_at(now)
        return tuple(LegState(leg, Outcome.SKIPPED, at, at) for leg in build.legs)
    if phase == Outcome.ERROR:
        return tuple(LegState(leg, phase, int(begin), build.finished_at(now)) for leg in build.legs)
    windows = _in_turn(build, begin, end) if in_turn else _side_by_side(build, begin, end)
    return tuple(_leg_at(build, leg, window, now) for leg, window in zip(build.legs, windows, strict=True))


_Window: TypeAlias = tuple[float, float | None] | None


def _in_turn(build: Build, begin: float, end: float | None) -> list[_Window]:
    if end is None:
        return [(begin, None), *(None for _ in build.legs[1:])]
    share = (end - begin) / len(build.legs)
    return [(begin + i * share, begin + (i + 1) * share) for i in range(len(build.legs))]


def _side_by_side(build: Build, begin: float, end: float | None) -> list[_Window]:
    roots = [leg for leg in build.legs if not leg.after]
    dependents = len(roots) < len(build.legs)
    if end is None:
        return [None if leg.after else (begin, None) for leg in build.legs]
    cut = build.outcome in INTERRUPTED
    broken = cut or any(leg.bad for leg in roots)
    turn = begin + 0.6 * (end - begin) if dependents and not broken else end
    windows: list[_Window] = []
    for leg in build.legs:
        if leg.after:
            windows.append(None if broken else (turn, end))
        elif cut or leg is roots[-1]:
            windows.append((begin, turn))
        else:
            windows.append((begin, begin + (turn - begin) * (0.7 + 0.3 * roots.index(leg) / len(roots))))
    return windows


def _idle(leg: Leg, state: str) -> LegState:
    return LegState(leg, state, steps=tuple(StepState(step, PENDING) for step in leg.steps))


def _leg_at(build: Build, leg: Leg, window: _Window, now: float) -> LegState:
    if window is None:
        if build.ended(now):
            at = build.finished_at(now)
            return LegState(leg, Outcome.SKIPPED, at, at)
        return _idle(leg, WAITING if leg.after else PENDING)
    begin, end = window
    if now < begin:
        return _idle(leg, WAITING if leg.after else PENDING)
    done = end is not None and now >= end
    cut = build.outcome in INTERRUPTED and build.finished is not None and end == build.finished
    steps = _steps_at(leg, begin, end, now, build.outcome if cut else None)
    if not done:
        return LegState(leg, RUNNING, int(begin), 0, steps)
    state = build.outcome if cut else Outcome.FAILURE if leg.bad else Outcome.SUCCESS
    return LegState(leg, state, int(begin), 0 if state is Outcome.LOST else int(end or 0), steps)


def _steps_at(
    leg: Leg, begin: float, end: float | None, now: float, cut: Outcome | None
) -> tuple[StepState, ...]:
    """The steps of a leg that began, `cut`: how what runs at `end` is stopped."""
    states = {}
    for step, start, stop in _times(leg, begin, end, cut is not None):
        if now < start:
            states[step.name] = StepState(step, PENDING)
        elif now < stop:
            states[step.name] = StepState(step, RUNNING, int(start))
        elif cut is not None and stop == end:
            states[step.name] = StepState(step, cut, int(start), int(stop))
        else:
            word = Outcome.FAILURE if step.exit_code else Outcome.SUCCESS
            states[step.name] = StepState(step, word, int(start), int(stop))
    rest = Outcome.SKIPPED if end is not None and now >= end else PENDING
    return tuple(states.get(step.name) or StepState(step, rest) for step in leg.steps)


def _times(leg: Leg, begin: float, end: float | None, cut: bool) -> list[tuple[StepPlan, float, float]]:
    """(step, start, stop) of the steps that begin.

    Where the end is not known or comes from outside, the first step takes a second and the next
    one all that is left.
    """
    if cut or end is None:
        last = math.inf if end is None else end
        first, *rest = leg.steps
        if not rest or begin + 1 >= last:
            return [(first, begin, last)]
        return [(first, begin, begin + 1), (rest[0], begin + 1, last)]
    runs = _running_order(leg)
    total = sum(step.weight for step in runs)
    times = []
    at = begin
    for step in runs:
        stop = end if step is runs[-1] else at + (end - begin) * step.weight / total
        times.append((step, at, stop))
        at = stop
    return times


def _running_order(leg: Leg) -> list[StepPlan]:
    """The steps that begin: all up to one that fails, and those that run after a failure too."""
    runs = []
    failed = False
    for step in leg.steps:
        if not failed or step.always:
            runs.append(step)
        failed = failed or step.bad
    return runs
