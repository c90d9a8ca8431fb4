"""What the exporter has to call a run, whatever words its server has for it: for tests to compare with."""

from collections.abc import Callable

from exporter.model import Status
from exporter.simulator.builds import BLOCKED, NEW, PENDING, RUNNING, After, Build, Outcome
from exporter.simulator.history import DAY

OPEN = {NEW: Status.PENDING, PENDING: Status.PENDING, BLOCKED: Status.BLOCKED, RUNNING: Status.RUNNING}


def verdict(dialect: str, build: Build, now: float) -> Status:
    """The status of the run at this moment, once it has been read alone."""
    phase = build.phase(now)
    return OPEN[phase] if phase in OPEN else _ENDED[dialect](build, now)


def _plain(outcome: Outcome) -> Status:
    translated = {Outcome.KILLED: Outcome.FAILURE, Outcome.LOST: Outcome.ERROR}
    return Status[translated.get(outcome, outcome).upper()]


def _drone_05(build: Build, now: float) -> Status:
    if build.settling(now):
        return Status.CANCELLED if build.reported else Status.FAILURE
    return _plain(build.outcome)


def _drone_08(build: Build, now: float) -> Status:
    if build.settling(now):
        return Status.CANCELLED if build.whole else Status.RUNNING
    return _plain(build.outcome)


def _drone_1(build: Build, now: float) -> Status:
    if build.outcome is Outcome.KILLED:
        seconds = build.finished_at(now) - build.started_at(now)
        return Status.TIMEOUT if seconds >= DAY else Status.CANCELLED
    return _plain(build.outcome)


def _woodpecker(build: Build, _: float) -> Status:
    return Status.CANCELLED if build.outcome is Outcome.SKIPPED else _plain(build.outcome)


def _abf(build: Build, now: float) -> Status:
    if build.unconfirmed(now):
        return Status.CANCELLED if build.removed else Status.RUNNING
    for later in reversed(build.after(now)):
        if later.state == After.PACKAGES_LOST:
            return Status.FAILURE
        if later.state in set(Outcome):
            return _plain(Outcome(later.state))
    return Status.CANCELLED if build.outcome is Outcome.TIMEOUT else _plain(build.outcome)


_ENDED: dict[str, Callable[[Build, float], Status]] = {
    "drone-0.5": _drone_05,
    "drone-0.8": _drone_08,
    "drone-1": _drone_1,
    "woodpecker": _woodpecker,
    "abf": _abf,
}
