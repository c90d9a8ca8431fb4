"""The counters and histograms of one repo over a time: what they were, and what moved them."""

from dataclasses import dataclass, field

from exporter.backfill.tracks import Track, Value
from exporter.ledger.counts import Addition, Series, Total
from exporter.metrics import METRICS, Histogram


@dataclass(slots=True)
class Counters:
    """Values from `first` to `last` (inclusive), moved on span by span."""

    first: int
    last: int
    totals: dict[Series, Total] = field(default_factory=dict)
    lives: dict[Series, tuple[int, int]] = field(default_factory=dict)
    """When a series comes and goes."""
    _begins: dict[Series, Value] = field(default_factory=dict)
    _changes: dict[Series, list[tuple[int, Value]]] = field(default_factory=dict)

    def live(self, series: Series, since: int, until: int) -> None:
        """Lets a series be there for that time at least."""
        known = self.lives.get(series, (since, until))
        self.lives[series] = max(self.first, min(since, known[0])), min(self.last, max(until, known[1]))

    def add(self, addition: Addition, moment: int) -> None:
        """Adds at a moment, which is not before the one of the addition before."""
        series = addition.family, addition.labels
        total = self.totals.setdefault(series, Total(0.0, 0.0))
        if series not in self._begins:
            self._begins[series] = value_of(addition.family, total)
        total.add(addition, 0, 0.0)
        changes = self._changes.setdefault(series, [])
        if changes and changes[-1][0] == moment:
            changes.pop()
        changes.append((moment, value_of(addition.family, total)))

    def take_back(self, addition: Addition) -> None:
        """Undoes what a later end added; what it cannot have added stays at 0."""
        total = self.totals.get((addition.family, addition.labels))
        if total is None:
            return
        total.value = max(0.0, total.value - addition.amount)
        if total.counts is not None:
            before = Total(0.0, 0.0)
            before.add(addition, 0, 0.0)
            total.counts = [
                max(0, now - then) for now, then in zip(total.counts, before.counts or (), strict=True)
            ]

    def tracks(self) -> dict[Series, Track]:
        """What was added since the last call, as tracks of every series that is there."""
        found = {
            series: Track(
                first,
                last,
                self._begins[series]
                if series in self._begins
                else value_of(series[0], self.totals.get(series)),
                self._changes.get(series, []),
            )
            for series, (first, last) in self.lives.items()
        }
        self._begins, self._changes = {}, {}
        return found


def value_of(family: str, total: Total | None) -> Value:
    """A total as it is now, apart from what becomes of it."""
    buckets = METRICS[family].buckets
    if not buckets:
        return total.value if total else 0.0
    if total is None or total.counts is None:
        return Histogram([0] * (len(buckets) + 1), 0.0)
    return Histogram(list(total.counts), total.value)
