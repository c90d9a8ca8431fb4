"""What can be seen of the legs and steps of a build at a moment.

Times are Unix seconds; what has not happened is 0 on a state and None where it is planned.
"""

import math
from dataclasses import dataclass
from typing import TypeAlias

from exporter.simulator.builds import (
    BLOCKED,
    INTERRUPTED,
    NEW,
    PENDING,
    RUNNING,
    SETTLING,
    WAITING,
    Build,
    Leg,
    Outcome,
    StepPlan,
)


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
    if phase in (NEW, BLOCKED, PENDING, Outcome.DECLINED):
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
    windows = _windows(build, begin, end, in_turn=in_turn)
    return tuple(_leg_at(build, leg, window, now) for leg, window in zip(build.legs, windows, strict=True))


def change_times(build: Build, since: float, until: float, *, in_turn: bool = False) -> list[float]:
    """When the build, a leg or a step of it changes by itself: after `since`, not after `until`."""
    times = {build.accepted, build.reviewed, build.started, build.finished}
    if build.outcome is Outcome.CANCELLED and build.reported and build.finished is not None:
        times.add(build.finished + SETTLING)
    if build.started is not None and (build.finished is None or build.started < build.finished):
        cut = build.outcome in INTERRUPTED
        windows = _windows(build, build.started, build.finished, in_turn=in_turn)
        for leg, window in zip(build.legs, windows, strict=True):
            if window is not None:
                times.update(window)
                times.update(at for _, *both in _times(leg, *window, cut) for at in both)
    return sorted(at for at in times if at is not None and since < at <= until and at < math.inf)


_Window: TypeAlias = tuple[float, float | None] | None


def _windows(build: Build, begin: float, end: float | None, *, in_turn: bool) -> list[_Window]:
    """When each leg begins and ends."""
    return _in_turn(build, begin, end) if in_turn else _side_by_side(build, begin, end)


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
            word = Outcome.FAILURE if step.exit_code or step.broken else Outcome.SUCCESS
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
