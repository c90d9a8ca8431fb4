"""What gauges need to know of a branch's, cron job's or environment's past: a fold over its ends.

The folds take ends in any order, since an import reads the newest first while live ends arrive.
Nothing here does I/O.
"""

from bisect import insort
from itertools import pairwise
from statistics import median
from typing import TypeAlias

import msgspec

Key: TypeAlias = tuple[int, int, int]
"""Generation, number and run: the order of builds."""

DURATIONS_KEPT = 20
STARTS_KEPT = 10
FROM_SAMPLES = 3
"""A median of fewer says nothing."""


class Point(msgspec.Struct, array_like=True):
    """One end: `finished` in Unix seconds."""

    key: Key
    finished: int
    status: int = 0
    duration: int | None = None


class BranchHead(msgspec.Struct, omit_defaults=True):
    """The newest ends of one branch and event."""

    last: Point | None = None
    good: Point | None = None
    bad: Point | None = None
    failures: int = 0
    """Bad ends since the newest good one."""
    durations: list[tuple[Key, int]] = []
    """Seconds that the newest good builds ran, oldest first."""

    @property
    def expected_duration(self) -> float | None:
        """Median of the last 20 good builds, in seconds; None below 3."""
        return _median([seconds for _, seconds in self.durations])


class CronHead(msgspec.Struct, omit_defaults=True):
    """The newest ends of one cron job on one branch."""

    last: Point | None = None
    starts: list[tuple[Key, int]] = []
    """When its newest builds were created, oldest first."""

    @property
    def interval(self) -> float | None:
        """Median gap of the last 10 starts, in seconds; None below 3 starts."""
        times = [time for _, time in self.starts]
        return None if len(times) < FROM_SAMPLES else _median_gap(times)


class EnvironmentHead(msgspec.Struct, omit_defaults=True):
    """The newest deployment to one environment."""

    last: Point | None = None


def add_branch_end(head: BranchHead, end: Point, *, good: bool, bad: bool) -> bool:
    """Folds `end` in; True when the failures must be counted again from the ledger.

    That is so only when a good end falls between bad ones that were folded in before.
    """
    if _is_past(head, end.key):
        return False
    head.last = _newer(head.last, end)
    if bad:
        head.bad = _newer(head.bad, end)
        if head.good is None or end.key > head.good.key:
            head.failures += 1
        return False
    if not good:
        return False
    if end.duration is not None:
        _keep_newest(head.durations, (end.key, end.duration), DURATIONS_KEPT)
    if head.good is not None and end.key < head.good.key:
        return False
    head.good = end
    if head.bad is None or end.key > head.bad.key:
        head.failures = 0
        return False
    return head.failures > 0


def add_cron_end(head: CronHead, end: Point, created: int, *, scheduled: bool) -> None:
    """Folds one end of a cron job in; only runs that the schedule began tell its interval."""
    head.last = _newer(head.last, end)
    if scheduled:
        _keep_newest(head.starts, (end.key, created), STARTS_KEPT)


def add_environment_end(head: EnvironmentHead, end: Point) -> None:
    """Folds one deployment in."""
    head.last = _newer(head.last, end)


def knows_durations_since(head: BranchHead, key: Key) -> bool:
    """True when an end at `key` or earlier has no place among the durations that are kept."""
    return len(head.durations) == DURATIONS_KEPT and key < head.durations[0][0]


def _is_past(head: BranchHead, key: Key) -> bool:
    """True when nothing that the head keeps reaches back to `key`: so it is with most of an import."""
    return (
        head.good is not None
        and head.bad is not None
        and key < head.good.key
        and key < head.bad.key
        and knows_durations_since(head, key)
    )


def _newer(known: Point | None, end: Point) -> Point:
    return end if known is None or end.key >= known.key else known


def _keep_newest(values: list[tuple[Key, int]], value: tuple[Key, int], kept: int) -> None:
    insort(values, value)
    if len(values) > kept:
        del values[0]


def _median(values: list[int]) -> float | None:
    return float(median(values)) if len(values) >= FROM_SAMPLES else None


def _median_gap(times: list[int]) -> float:
    return float(median(newer - older for older, newer in pairwise(times)))
