"""What only a real Prometheus can tell of a dashboard; each check answers the faults, a line each."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from dashboards import Asked, Json, asked, choosable, filled, place_of, reading, used
from fortnight import BEGIN, END, HOUR
from prometheus import Prometheus

STEP = 4 * HOUR


@dataclass(slots=True)
class Answers:
    """Asks one Prometheus, each question once."""

    server: Prometheus
    _given: dict[tuple[str, bool], dict[str, Any]] = field(default_factory=dict)

    def ask(self, query: Asked, board: Json, chosen: Mapping[str, str] | None = None) -> dict[str, Any]:
        """The whole answer, be it an error: at the end of the fortnight, or all along it."""
        expr = filled(query.expr, board, chosen)
        key = expr, query.instant
        if key not in self._given:
            if query.instant:
                self._given[key] = self.server.answer("query", query=expr, time=str(END))
            else:
                times = {"start": str(BEGIN), "end": str(END), "step": str(STEP)}
                self._given[key] = self.server.answer("query_range", query=expr, **times)
        return self._given[key]

    def series(self, selector: str) -> list[dict[str, str]]:
        found = self.server.api("series", **{"match[]": selector, "start": str(BEGIN), "end": str(END)})
        return list(found)

    def choices(self, query: str, board: Json) -> list[str]:
        """The values of a variable, whose query is `label_values(selector, label)`."""
        selector, _, label = query.removeprefix("label_values(").removesuffix(")").rpartition(", ")
        times = {"start": str(BEGIN), "end": str(END)}
        return list(self.server.api(f"label/{label}/values", **{"match[]": filled(selector, board)}, **times))


def selectors_match(board: Json, demo: Answers) -> Iterator[str]:
    """Every selector finds a series: one with a wrong word would show nothing, or a 0, for ever."""
    for query in asked(board):
        for selector in reading(query.expr, board).selectors:
            if not demo.series(selector):
                yield f"{query.place}: nothing matches {selector}"


def numbers_come(board: Json, demo: Answers) -> Iterator[str]:
    """With All chosen, every query answers a number, and every variable has values."""
    for query in asked(board):
        answer = demo.ask(query, board)
        if answer["status"] != "success":
            yield f"{query.place}: {answer['error']}"
        elif not any(math.isfinite(value) for series in _values(answer).values() for value in series):
            yield f"{query.place}: no number from {query.expr}"
    for name, query_text in choosable(board).items():
        if not demo.choices(query_text, board):
            yield f"{board['uid']}: variable {name} has no values"


def every_choice_works(board: Json, demo: Answers) -> Iterator[str]:
    """With any single value of any variable, no query fails."""
    queries = list(asked(board))
    for name, query_text in choosable(board).items():
        for value in demo.choices(query_text, board):
            for query in queries:
                if name in used(query.expr):
                    answer = demo.ask(query, board, {name: value})
                    if answer["status"] != "success":
                        yield f"{query.place}: with {name} {value}: {answer['error']}"


def graphs_are_not_crowded(board: Json, demo: Answers) -> Iterator[str]:
    """No query of a graph answers more series than one can follow, at whatever time they have points."""
    most = {"timeseries": 10, "state-timeline": 20}
    for panel in (panel for panel in board["panels"] if panel["type"] in most):
        for query in (query for query in asked(board) if query.place == place_of(board, panel)):
            series = len(_values(demo.ask(query, board)))
            if series > most[panel["type"]]:
                yield f"{query.place}: {series} series"


def nothing_fails(board: Json, other: Answers) -> Iterator[str]:
    """Where there is no data, or all of it twice, no query and no variable fails."""
    for query in asked(board):
        answer = other.ask(query, board)
        if answer["status"] != "success":
            yield f"{query.place}: {answer['error']}"
    for query_text in choosable(board).values():
        other.choices(query_text, board)


def replicas_are_one(board: Json, demo: Answers, replicas: Answers) -> Iterator[str]:
    """Two exporters on one ledger show what one shows, except counts of events and themselves."""
    for query in asked(board):
        counts = "increase(" in query.expr or "rate(" in query.expr
        ratio = "/" in query.expr or "histogram_quantile" in query.expr
        if (counts and not ratio) or "instance" in reading(query.expr, board).labels:
            continue
        one, two = (_values(server.ask(query, board)) for server in (demo, replicas))
        ranked = "topk(" in query.expr or "bottomk(" in query.expr  # of equal ones, any may be chosen
        if not (_alike(one, two) if ranked else one.keys() == two.keys() and _alike(one, two)):
            yield f"{query.place}: other numbers from two replicas"


def _alike(one: Mapping[str, list[float]], two: Mapping[str, list[float]]) -> bool:
    """The same numbers, whichever series they belong to; nothing is NaN in both or in none."""
    left, right = (
        sorted(f"{value:.6g}" for value in chain.from_iterable(values.values())) for values in (one, two)
    )
    return left == right


def _values(answer: dict[str, Any]) -> dict[str, list[float]]:
    """Labels of each series → its values."""
    if answer["status"] != "success":
        return {}
    result = answer["data"]["result"]
    if answer["data"]["resultType"] == "scalar":
        return {"": [float(result[1])]}
    return {
        str(sorted(series["metric"].items())): [
            float(value) for _, value in series.get("values", [series.get("value")])
        ]
        for series in result
    }
