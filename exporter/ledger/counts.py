"""What one counted end adds to the counters and histograms. Nothing here does I/O."""

import json
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from exporter.ledger.names import ENVIRONMENT, SERIES, STEP, Name
from exporter.ledger.runs import Run
from exporter.metrics import METRICS
from exporter.model import FINISHED, STEP_FINISHED, Event, Status, Step

Series: TypeAlias = tuple[str, tuple[str, ...]]
"""A family and the label values that follow server and repo."""


@dataclass(frozen=True, slots=True)
class Addition:
    """`amount` to add to a counter, or to observe where the family is a histogram."""

    family: str
    labels: tuple[str, ...]
    amount: float


@dataclass(slots=True)
class Total:
    """The value of one series so far; `counts` (each bucket alone) only of a histogram."""

    value: float
    since: float
    counts: list[int] | None = None
    exemplars: dict[int, tuple[int, float, float]] = field(default_factory=dict)
    """Of a bucket the latest build: its number, the value, when it ended (to the second)."""

    def add(self, addition: Addition, number: int, ended: float) -> None:
        """Adds one end of build `number`."""
        self.value += addition.amount
        buckets = METRICS[addition.family].buckets
        if not buckets:
            return
        if self.counts is None:
            self.counts = [0] * (len(buckets) + 1)
        place = bisect_left(buckets, addition.amount)
        self.counts[place] += 1
        known = self.exemplars.get(place)
        # Prometheus takes of a series no second exemplar of the same time: builds that ended within one
        # second are set apart.
        time = ended + number % 1000 / 1000
        if known is None or (time, number) > (known[2], known[0]):
            self.exemplars[place] = (number, addition.amount, time)


def additions(
    run: Run, branch: str, environment: str, steps: Sequence[Step], step_names: Sequence[str]
) -> Iterator[Addition]:
    """All that the end of `run` adds by itself; names are those it has as label values."""
    status = Status(run.status).word
    yield Addition("ci_builds_total", (branch, run.event, status), 1)
    if run.duration is not None:
        yield Addition("ci_build_seconds_total", (status,), run.duration)
        if run.good:
            yield Addition("ci_build_duration_seconds", (branch, run.event), run.duration)
    if run.wait is not None:
        yield Addition("ci_build_queue_seconds", (), run.wait)
    if run.restarted:
        yield Addition("ci_build_restarts_total", (), 1)
    if run.event == Event.DEPLOYMENT:
        yield Addition("ci_deployments_total", (environment, status), 1)
    for step, name in zip(steps, step_names, strict=True):
        yield from step_additions(step, name)


def step_additions(step: Step, name: str) -> Iterator[Addition]:
    """What a step adds once it has ended, be it after its build did."""
    if step.status.open:
        return
    yield Addition("ci_steps_total", (name, step.status.word), 1)
    if step.duration is not None and step.status is not Status.SKIPPED:
        yield Addition("ci_step_duration_seconds", (name,), step.duration)


def born(known: Mapping[tuple[str, str], Name]) -> dict[Series, float]:
    """Every series that the label values in use will have, and since when it is shown, at 0 (our clock)."""
    found: dict[Series, float] = {}

    def show(since: float, family: str, *labels: str) -> None:
        found[family, labels] = min(since, found.get((family, labels), since))

    for (kind, name), value in known.items():
        since = value.since
        if kind == SERIES:
            branch, event = json.loads(name)
            show(since, "ci_build_duration_seconds", branch, event)
            show(since, "ci_build_flaky_total", branch)
            show(since, "ci_build_queue_seconds")
            show(since, "ci_build_restarts_total")
            for status in FINISHED:
                show(since, "ci_builds_total", branch, event, status.word)
                show(since, "ci_build_seconds_total", status.word)
        elif kind == STEP:
            show(since, "ci_step_duration_seconds", name)
            for status in STEP_FINISHED:
                show(since, "ci_steps_total", name, status.word)
        elif kind == ENVIRONMENT:
            for status in FINISHED:
                show(since, "ci_deployments_total", name, status.word)
    return found
