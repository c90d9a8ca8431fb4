"""The dashboards as they are checked in, and what Grafana makes of them before it asks Prometheus."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from promql import Reading, read

from exporter.metrics import METRICS

Json = dict[str, Any]

DIRECTORY = Path(__file__).parent.parent / "grafana/provisioning/dashboards/ci"
ALL = ".*"
MACROS = {"__range": "14d", "__interval": "4h", "__rate_interval": "4h"}
"""For a time range of a fortnight, in which a graph has some 84 points."""
NAME = re.compile(r"\$\{(\w+)(?::\w+)?\}|\$(\w+)")
LABEL = re.compile(r"\{\{(\w+)\}\}")
SPECIAL = re.compile(r"[$^*{}\[\]'+?.()|]")
PROCESS = {"up": frozenset[str](), "process_resident_memory_bytes": frozenset[str]()}
"""What is known of a target that is not a family of ours."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One query of a dashboard; `place` says where it stands."""

    place: str
    expr: str
    legend: str
    instant: bool


def boards() -> list[Json]:
    """Every dashboard."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(DIRECTORY.glob("*.json"))]


def place_of(board: Json, panel: Json) -> str:
    return f"{board['uid']}: {panel['title']}"


def asked(board: Json) -> Iterator[Asked]:
    """Every query of the panels and annotations."""
    for panel in board["panels"]:
        for target in panel["targets"]:
            legend = target["legendFormat"].replace("__auto", "")
            yield Asked(place_of(board, panel), target["expr"], legend, target["instant"])
    for annotation in board["annotations"]["list"]:
        legend = f"{annotation['titleFormat']} {annotation['textFormat']} {{{{{annotation['tagKeys']}}}}}"
        yield Asked(f"{board['uid']}: marks {annotation['name']}", annotation["expr"], legend, instant=False)


def choosable(board: Json) -> dict[str, str]:
    """The variables that choose values of labels, and their queries."""
    return {
        variable["name"]: variable["query"]["query"]
        for variable in board["templating"]["list"]
        if variable["type"] == "query"
    }


def used(text: str) -> set[str]:
    """The variables and macros that a query names; `$1` is a group of a pattern."""
    names = (braced or plain for braced, plain in NAME.findall(text))
    return {name for name in names if not name.isdigit()}


def filled(text: str, board: Json, chosen: Mapping[str, str] | None = None) -> str:
    """A query as Grafana sends it: with the `chosen` values of variables, and All of the others."""
    values = MACROS | dict.fromkeys(choosable(board), ALL)
    values |= {name: _escaped(value) for name, value in (chosen or {}).items()}
    return NAME.sub(lambda found: values.get(found[1] or found[2], found[0]), text)


def labels_of(metric: str) -> frozenset[str] | None:
    """The labels of a metric by its name in a query; None where there is no such metric."""
    if metric in PROCESS:
        return PROCESS[metric]
    family = re.sub(r"_(bucket|sum|count)$", "", metric)
    known = METRICS.get(metric) or METRICS.get(family)
    if known is None or (known.type == "histogram") != (family != metric and metric not in METRICS):
        return None
    return frozenset(known.labels) | ({"le"} if metric.endswith("_bucket") else frozenset())


def reading(expr: str, board: Json) -> Reading:
    """What the query reads, with All chosen."""
    return read(filled(expr, board), labels_of)


def _escaped(value: str) -> str:
    """A single value of a variable with several, as Grafana's Prometheus data source writes it."""
    return SPECIAL.sub(lambda found: "\\\\" + found[0], value.replace("\\", "\\\\\\\\"))
