"""Series over time as lines of OpenMetrics: points where something changes, and every hour.

An instant query finds a point that is at most 5 minutes old. Points lie on a grid of that step, so that all
parts of a histogram have the same ones, and a change has one before and one after it.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import lt

from exporter.backfill import HOUR, BackfillError
from exporter.chunks import Form, number
from exporter.metrics import Histogram, Metric

GRID = 300
"""Seconds between two points around a change: Prometheus's look-back."""
SECONDS_BELOW = 100_000_000_000
"""A time from here on is not in seconds; promtool would take it without a word."""
Value = float | Histogram


@dataclass(frozen=True, slots=True)
class Span:
    """The seconds from `begin` up to, not including, `end`."""

    begin: int
    end: int
    hours: tuple[int, ...] = field(init=False)
    """Its full hours, and the last point of the grid, which is the one before a change in the next span."""

    def __post_init__(self) -> None:
        full = range(-(-self.begin // HOUR) * HOUR, self.end, HOUR)
        object.__setattr__(self, "hours", tuple(sorted({*full, max(self.begin, self.end - GRID)})))


@dataclass(slots=True)
class Track:
    """One series within a span: `changes` are moments and the value from each on, in rising order."""

    first: int
    """From when on it has points."""
    last: int
    """Until when, inclusive."""
    value: Value | None
    """What it is before the changes; None: it is not there yet."""
    changes: list[tuple[int, Value]] = field(default_factory=list)

    def values(self, span: Span) -> Iterator[tuple[Value, list[int]]]:
        """Each value within a span with the times that it is written at.

        Those are around changes, at full hours, and at both ends of the series.
        """
        low, high = max(self.first, span.begin), min(self.last, span.end - 1)
        if low > high:
            return
        since = bisect_right(self.changes, low, key=_moment)
        changes = self.changes[since : bisect_left(self.changes, span.end + GRID, key=_moment)]
        value = self.changes[since - 1][1] if since else self.value
        if changes or (low, high) != (span.begin, span.end - 1):
            times = {*span.hours, self.first, self.last}
            for moment, _ in self.changes[max(0, since - 1) : since + len(changes)]:
                times |= {moment - GRID, moment}
            ordered = sorted(time for time in times if low <= time <= high)
        else:
            ordered = list(span.hours)
        at = 0
        for moment, after in changes:
            until = bisect_left(ordered, moment)
            if value is not None and until > at:
                yield value, ordered[at:until]
            at, value = until, after
        if value is not None and at < len(ordered):
            yield value, ordered[at:]


def _moment(change: tuple[int, Value]) -> int:
    return change[0]


class Lines:
    """Renders tracks of every family, with the labels that a scrape adds."""

    def __init__(self, metrics: Sequence[Metric], labels: Mapping[str, str]) -> None:
        self._values = tuple(labels.values())
        self._forms = {m.name: Form.of(replace(m, labels=(*labels, *m.labels)), 0) for m in metrics}

    def render(self, family: str, labels: tuple[str, ...], tracks: Sequence[Track], span: Span) -> bytes:
        """The lines of one series: `tracks` follow one another in time.

        Raises `BackfillError` where a time is not later than the one before it, or outside the span: promtool
        would take that without a word.
        """
        form = self._forms[family]
        named = form.labels((*self._values, *labels))
        parts: list[str] = []
        written: list[int] = []
        for track in tracks:
            for value, times in track.values(span):
                written += times
                if isinstance(value, Histogram):
                    # No label has a NUL, so it can hold the place of the time.
                    pattern = form.histogram(named, value).replace("\n", " \0\n")
                    parts += [pattern.replace("\0", str(time)) for time in times]
                else:
                    line = form.line % (named, number(value))
                    line = f"{line[:-1]} "
                    parts += [line, line.join([f"{time}\n" for time in times])]
        expect_order(written, span, f"{family}{list(labels)}")
        return "".join(parts).encode("utf-8", "replace")


def expect_order(times: Sequence[int], span: Span, series: str) -> None:
    """Raises `BackfillError` unless the times rise, lie within the span and are seconds."""
    if not times:
        return
    if not all(map(lt, times, times[1:])):
        raise BackfillError(f"{series}: its times do not rise: please report this")
    if not span.begin <= times[0] <= times[-1] < min(span.end, SECONDS_BELOW):
        raise BackfillError(f"{series}: a time is not within {span.begin} to {span.end}: please report this")
