"""What colours mean: statuses, thresholds, and series that have a meaning."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from exporter.colours import STATUS_COLOURS
from exporter.model import Status

Json = dict[str, Any]

GOOD, WARN, BAD, BUSY, PLAIN = "green", "yellow", "red", "blue", "text"
MEDIAN, HIGH = "blue", "purple"
"""Of the two lines by which durations and waits are told: the median and the 95th percentile."""


@dataclass(frozen=True, slots=True)
class Steps:
    """A colour from each value on; the first holds for everything below the second."""

    first: str
    then: tuple[tuple[float, str], ...]

    def json(self) -> Json:
        above = [{"value": value, "color": colour} for value, colour in self.then]
        return {"mode": "absolute", "steps": [{"value": None, "color": self.first}, *above]}


NONE_IS_GOOD = Steps(GOOD, ((1, BAD),))
SOME_IS_BAD = Steps(PLAIN, ((1, BAD),))
SUCCESS = Steps(BAD, ((0.8, WARN), (0.95, GOOD)))
WAIT = Steps(GOOD, ((300, WARN), (1200, BAD)))
CHANGE_FAILURE = Steps(GOOD, ((0.05, WARN), (0.15, BAD)))
STALE = Steps(GOOD, ((120, WARN), (600, BAD)))

STATUS_WORDS = [
    {
        "type": "value",
        "options": {
            str(status.value): {"text": status.word, "color": STATUS_COLOURS[status], "index": status.value}
            for status in Status
        },
    }
]
"""The value mapping from a status's code to its word and colour."""
UP_WORDS = [
    {
        "type": "value",
        "options": {
            "0": {"text": "down", "color": BAD, "index": 0},
            "1": {"text": "up", "color": GOOD, "index": 1},
        },
    }
]
STATUS_SERIES = {status.word: STATUS_COLOURS[status] for status in Status if not status.open}


def by_name(name: str, **properties: object) -> Json:
    """The override of one column or series; `custom__x` stands for the property `custom.x`."""
    return {
        "matcher": {"id": "byName", "options": name},
        "properties": [{"id": key.replace("__", "."), "value": value} for key, value in properties.items()],
    }


def coloured(series: Mapping[str, str]) -> list[Json]:
    """Gives each series, by its name, the colour that it means."""
    return [by_name(name, color={"mode": "fixed", "fixedColor": colour}) for name, colour in series.items()]
