"""What a metric is and what a series on the page is; the table of them is in `exporter.metrics`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal, TypeAlias

Kind: TypeAlias = Literal["counter", "gauge", "histogram"]


class Group(StrEnum):
    """The headings under which families are documented and kept."""

    HAPPENED = "What happened"
    NOW = "What is true now"
    FRESH = "How fresh and complete it is"
    DELIVERY = "Delivery of notifications"
    EXPORTER = "The exporter itself"


@dataclass(frozen=True, slots=True)
class Metric:
    """One family: `buckets` (upper bounds, without +Inf) only where the type is histogram."""

    name: str
    type: Kind
    labels: tuple[str, ...]
    group: Group
    help: str
    buckets: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Exemplar:
    """One build that fell into a bucket: `time` in Unix seconds."""

    labels: tuple[tuple[str, str], ...]
    value: float
    time: float


@dataclass(frozen=True, slots=True)
class Histogram:
    """A histogram's value: `counts` for each bucket alone (not cumulated), the last one +Inf."""

    counts: Sequence[int]
    sum: float
    exemplars: dict[int, Exemplar] = field(default_factory=dict)
    """The latest exemplar of a bucket, by its place in `counts`."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One series of a family and its value; `labels` in the order of the family's label names."""

    metric: Metric
    labels: tuple[str, ...]
    value: float | Histogram
    created: float = 0.0
    """Unix time at which a counter or histogram began; 0 where that is not known."""
