"""What can be told from a dashboard alone; each rule answers the faults that it finds, a line each."""

import colorsys
import re
from collections.abc import Iterator
from itertools import combinations
from urllib.parse import parse_qs, urlsplit

from dashboards import LABEL, MACROS, Json, asked, choosable, labels_of, place_of, reading, used
from made_up import ATTEMPTS, OUTCOMES, WINDOWS

from exporter.metrics import METRICS
from exporter.model import FINISHED
from exporter.telemetry import REASONS

CLOSED = {
    "status": tuple(status.word for status in FINISHED),
    "reason": REASONS,
    "window": WINDOWS,
}
"""Labels with a closed list of values."""
OUTCOMES_OF = {"ci_notifications_total": OUTCOMES, "ci_notification_attempts_total": ATTEMPTS}
FEW, TOP, STATES = 5, 10, 20
SCREEN = 1550
"""Pixels of a window 1600 wide that panels share."""
LEAST = 100
"""Pixels that a column of no given width needs."""
MEANINGS = {
    "green": {"success", "delivered", "ok", "up"},
    "red": {"failure", "error", "dead", "permanent", "down", "broken branches", "Failures"},
    "yellow": {"retry", "waiting", "blocked"},
    "purple": {"Deployments"},
}
HUES = {"green": (80, 160), "red": (345, 375), "yellow": (40, 65), "purple": (260, 300)}
ORDER = {"repo": 0, "branch": 1, "event": 2, "Build": 4, "First build": 4, "Result": 5, "server": 9}
OTHER_LABEL, NUMBER = 3, 6
COLUMN = re.compile(r"\$\{__data\.fields\.(\w+)")
SERIES = re.compile(r"\$\{__field\.labels\.(\w+)")
VALUE = re.compile(r"^Value( #[A-Z])?$")
NOT_CHARTED = {"ci_hook_requests_total": "hooks are off by default"}
"""Families on no dashboard, and why."""


def queries_are_sound(board: Json) -> Iterator[str]:
    """Metrics, variables and labels exist wherever they are named; a `rate` has Grafana's own window."""
    known = set(choosable(board)) | set(MACROS)
    for query in asked(board):
        yield from (f"{query.place}: there is no variable ${name}" for name in used(query.expr) - known)
        found = reading(query.expr, board)
        yield from (f"{query.place}: {fault}" for fault in found.faults)
        missing = set(LABEL.findall(query.legend)) - found.labels
        yield from (f"{query.place}: the legend names {label}" for label in sorted(missing))
        if query.instant and "$__interval" in query.expr:
            yield f"{query.place}: an instant query has no interval"
        windows = re.findall(r"\brate\([^[]*\[([^\]]+)\]", query.expr)
        yield from (
            f"{query.place}: rate over {window}" for window in windows if window != "$__rate_interval"
        )
        for operator in re.findall(r'(!=|!~|=)"\$', query.expr):
            yield f"{query.place}: a variable is matched by {operator}, not by =~"
        counted = re.search(r"increase\(\w+_total\b", query.expr)
        if counted and not re.search(r"round\(|/|_seconds_total|@ end\(\)", query.expr):
            yield f"{query.place}: a count that is not rounded"
    for name, query_text in choosable(board).items():
        ((metric, label),) = re.findall(r"^label_values\((\w+)(?:\{.*\})?, (\w+)\)$", query_text)
        if label not in (labels_of(metric) or ()):
            yield f"{board['uid']}: variable {name}: {metric} has no label {label}"


def variables_are_regular(board: Json) -> Iterator[str]:
    """One data source; of everything else several values or All, looked up again with the time range."""
    first, *others = board["templating"]["list"]
    if (first["name"], first["label"], first["type"]) != ("datasource", "Data source", "datasource"):
        yield f"{board['uid']}: the first variable is not the data source"
    for variable in others:
        wanted = {"multi": True, "includeAll": True, "allValue": ".*", "refresh": 2, "type": "query"}
        if wrong := sorted(key for key, value in wanted.items() if variable.get(key) != value):
            yield f"{board['uid']}: variable {variable['name']}: {', '.join(wrong)}"
    if board["editable"] is not False:
        yield f"{board['uid']}: editable"
    sources = [panel["datasource"] for panel in board["panels"]]
    sources += [target["datasource"] for panel in board["panels"] for target in panel["targets"]]
    sources += [annotation["datasource"] for annotation in board["annotations"]["list"]]
    sources += [variable["datasource"] for variable in others]
    if any(source != {"type": "prometheus", "uid": "${datasource}"} for source in sources):
        yield f"{board['uid']}: a data source other than the chosen one"


def panels_are_described(board: Json) -> Iterator[str]:
    """Title, description, unit, and what is shown where there is nothing."""
    for panel in board["panels"]:
        defaults = panel["fieldConfig"]["defaults"]
        for what in ("title", "description"):
            if not panel.get(what):
                yield f"{place_of(board, panel)}: no {what}"
        for what in ("unit", "noValue"):
            if not defaults.get(what):
                yield f"{place_of(board, panel)}: no {what}"
        if "vector(0)" in str(panel["targets"]):
            yield f"{place_of(board, panel)}: a 0 that no metric tells"


def layout_is_sound(board: Json) -> Iterator[str]:
    """Ids and titles are unique, and panels lie beside each other within 24 columns."""
    panels = board["panels"]
    for what in ("id", "title"):
        seen = [panel[what] for panel in panels]
        yield from (f"{board['uid']}: {what} {one} twice" for one in {x for x in seen if seen.count(x) > 1})
    for panel in panels:
        box = panel["gridPos"]
        if box["x"] < 0 or box["x"] + box["w"] > 24 or min(box["w"], box["h"]) < 1:
            yield f"{place_of(board, panel)}: outside of the page"
    for one, other in combinations(panels, 2):
        a, b = one["gridPos"], other["gridPos"]
        beside = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        below = a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
        if not beside and not below:
            yield f"{place_of(board, one)}: overlaps {other['title']}"


def links_lead_somewhere(board: Json, boards: list[Json]) -> Iterator[str]:
    """Links name labels of the result, and dashboards, panels and variables that exist."""
    known = {other["uid"]: other for other in boards}
    for panel in board["panels"]:
        place = place_of(board, panel)
        labels = frozenset().union(*(reading(t["expr"], board).labels for t in panel["targets"]))
        config = panel["fieldConfig"]
        found = [link["url"] for link in config["defaults"].get("links", [])]
        for override in config["overrides"]:
            found += [u["url"] for p in override["properties"] if p["id"] == "links" for u in p["value"]]
        if panel["gridPos"]["y"] == 0 and not found:
            yield f"{place}: a number of the first row that leads nowhere"
        for url in found:
            for label in COLUMN.findall(url) + SERIES.findall(url):
                if label not in labels:
                    yield f"{place}: the link names {label}"
            if url.startswith("/d/"):
                yield from (f"{place}: {fault}" for fault in _wrong_target(url, board, known))
    if not any(link["type"] == "dashboards" and link["tags"] == ["ci"] for link in board["links"]):
        yield f"{board['uid']}: no list of the other dashboards"
    if board["tags"] != ["ci"]:
        yield f"{board['uid']}: is in no list of the other dashboards"


def _wrong_target(url: str, board: Json, known: dict[str, Json]) -> Iterator[str]:
    parts = urlsplit(url)
    target = known.get(parts.path.removeprefix("/d/"))
    if target is None:
        yield f"the link leads to {parts.path}"
        return
    if "${__url_time_range}" not in parts.query:
        yield "the link loses the time range"
    variables = set(choosable(target)) | {"datasource"}
    query = parse_qs(parts.query)
    given = {name.removeprefix("var-") for name in query if name.startswith("var-")}
    passed = set(re.findall(r"\$\{(\w+):queryparam\}", parts.query))
    yield from (f"the link sets {name}" for name in sorted(given - variables))
    yield from (f"the link passes {name}" for name in sorted(passed - set(choosable(board)) - {"datasource"}))
    for number in query.get("viewPanel", []):
        if int(number) not in {panel["id"] for panel in target["panels"]}:
            yield f"the link leads to panel {number}"


def tables_read_well(board: Json) -> Iterator[str]:
    """Columns in the order in which one reads, none cut off, and colours where a value is judged."""
    for panel in (panel for panel in board["panels"] if panel["type"] == "table"):
        place = place_of(board, panel)
        options = next(t["options"] for t in panel["transformations"] if t["id"] == "organize")
        order, names = options["indexByName"], options["renameByName"]
        looks = {
            override["matcher"]["options"]: {p["id"]: p["value"] for p in override["properties"]}
            for override in panel["fieldConfig"]["overrides"]
        }
        labels = frozenset().union(*(reading(t["expr"], board).labels for t in panel["targets"]))
        values = len(panel["targets"])
        wanted = {"Value"} if values == 1 else {f"Value #{target['refId']}" for target in panel["targets"]}
        if fields := sorted((labels | wanted) ^ set(order)):
            yield f"{place}: columns without a place, or places without a column: {', '.join(fields)}"
        if not options["excludeByName"].get("Time"):
            yield f"{place}: shows the time of the query"
        shown = [
            field
            for field in sorted(order, key=order.__getitem__)
            if not looks.get(names.get(field, ""), {}).get("custom.hidden")
        ]
        ranks = [
            ORDER.get(field, ORDER.get(names[field], NUMBER if VALUE.match(field) else OTHER_LABEL))
            for field in shown
        ]
        if "repo" in shown and ranks != sorted(ranks):
            yield f"{place}: order of columns: {', '.join(names[field] for field in shown)}"
        wide = sum(looks.get(names[field], {}).get("custom.width", LEAST) for field in shown)
        if wide > SCREEN * panel["gridPos"]["w"] / 24:
            yield f"{place}: {wide} pixels wide"
        for name, look in looks.items():
            if look.get("custom.hidden") != look.get("custom.hideFrom.viz"):
                yield f"{place}: {name} is hidden in some versions of Grafana"
            judged = "mappings" in look or "thresholds" in look or look.get("unit") == "percentunit"
            if judged and not str(look.get("custom.cellOptions", {}).get("type")).startswith("color-"):
                yield f"{place}: {name} has no colour"
            if "mappings" in look and "text" not in str(look["mappings"]):
                yield f"{place}: {name} has no word"


def graphs_read_well(board: Json) -> Iterator[str]:
    """Legends fit, few areas are filled, and no series has a colour by chance."""
    for panel in board["panels"]:
        place, config = place_of(board, panel), panel["fieldConfig"]
        mode = config["defaults"].get("color", {}).get("mode")
        if panel["type"] == "state-timeline":
            if mode != "fixed" or not config["defaults"].get("mappings"):
                yield f"{place}: merged states in one colour"
            if panel["options"]["showValue"] != "auto":
                yield f"{place}: states without their words"
            yield from _limited(panel, place, STATES)
        if panel["type"] != "timeseries":
            continue
        bounded, names = _series(panel, board)
        legend = panel["options"]["legend"]
        listed = (legend["displayMode"], legend["placement"]) == ("list", "bottom")
        tabled = (legend["displayMode"], legend["placement"]) == ("table", "right")
        if not (listed if bounded and len(names) <= FEW else tabled):
            yield f"{place}: a legend that does not fit"
        if not bounded:
            yield from _limited(panel, place, TOP)
        custom = config["defaults"]["custom"]
        if custom["fillOpacity"] > 0 and custom["stacking"]["mode"] != "normal" and len(names) > 1:
            yield f"{place}: areas that cover each other"
        if custom["drawStyle"] == "line" and custom["stacking"]["mode"] == "normal":
            yield f"{place}: stacked lines"
        if mode != "palette-classic-by-name":
            yield f"{place}: colours by order"
        coloured = {
            override["matcher"]["options"]
            for override in config["overrides"]
            if any(p["id"] == "color" for p in override["properties"])
        }
        yield from (f"{place}: {name} has no colour of its own" for name in sorted(names - coloured))


def _series(panel: Json, board: Json) -> tuple[bool, set[str]]:
    """Whether the series of a panel are known before, and the names of those that are."""
    names, bounded = set(), True
    for target in panel["targets"]:
        labels = LABEL.findall(target["legendFormat"])
        values = {"outcome": ()} | CLOSED
        for metric in reading(target["expr"], board).metrics:
            values["outcome"] = OUTCOMES_OF.get(metric, values["outcome"])
        if not labels:
            names.add(target["legendFormat"])
        elif len(labels) == 1 and labels[0] in values:
            names |= set(values[labels[0]])
        else:
            bounded = False
    return bounded, names


def _limited(panel: Json, place: str, most: int) -> Iterator[str]:
    for target in panel["targets"]:
        if "{{" in target["legendFormat"]:
            limits = [int(size) for size in re.findall(r"\b(?:top|bottom)k\((\d+)", target["expr"])]
            if not limits or min(limits) > most:
                yield f"{place}: any number of series"


def colours_have_meaning(board: Json) -> Iterator[str]:
    """Good is green, bad is red, what is tried again is yellow, wherever it is named."""
    painted: list[tuple[str, str, str]] = []
    for panel in board["panels"]:
        place, config = place_of(board, panel), panel["fieldConfig"]
        mappings = [config["defaults"].get("mappings", [])]
        for override in config["overrides"]:
            for property_ in override["properties"]:
                if property_["id"] == "color" and property_["value"]["mode"] == "fixed":
                    painted.append((place, override["matcher"]["options"], property_["value"]["fixedColor"]))
                elif property_["id"] == "mappings":
                    mappings.append(property_["value"])
        for mapping in (one for several in mappings for one in several):
            painted += [(place, one["text"], one["color"]) for one in mapping["options"].values()]
    for annotation in board["annotations"]["list"]:
        painted.append((board["uid"], annotation["name"], annotation["iconColor"]))
    for place, name, colour in painted:
        wanted = next((hue for hue, names in MEANINGS.items() if name in names), None)
        if wanted and not _is(colour, wanted):
            yield f"{place}: {name} is {colour}"


def _is(colour: str, hue: str) -> bool:
    if not colour.startswith("#"):
        return colour.rpartition("-")[2] == hue
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    degrees = colorsys.rgb_to_hsv(red, green, blue)[0] * 360
    low, high = HUES[hue]
    return low <= degrees <= high or low <= degrees + 360 <= high


def annotations_are_quiet(board: Json) -> Iterator[str]:
    """Failures are shown unasked only where they are those of the chosen branches."""
    for annotation in board["annotations"]["list"]:
        chosen = "$branch" in annotation["expr"] and "$repo" in annotation["expr"]
        if annotation["name"] == "Failures" and annotation["enable"] and not chosen:
            yield f"{board['uid']}: failures of everything are marked unasked"
        if annotation["target"]["expr"] != annotation["expr"]:
            yield f"{board['uid']}: {annotation['name']} asks two things"
        if annotation["name"] == "Deployments" and not annotation["enable"]:
            yield f"{board['uid']}: deployments are not marked"


def everything_is_charted(boards: list[Json]) -> Iterator[str]:
    """Every family is on a dashboard, or on the list of those that are not."""
    metrics = {metric for board in boards for q in asked(board) for metric in reading(q.expr, board).metrics}
    charted = {re.sub(r"_(bucket|sum|count)$", "", metric) for metric in metrics} & set(METRICS)
    yield from (f"{name} is on no dashboard" for name in sorted(set(METRICS) - charted - set(NOT_CHARTED)))
    yield from (f"{name} is on a dashboard after all" for name in sorted(charted & set(NOT_CHARTED)))


RULES = (
    queries_are_sound,
    variables_are_regular,
    panels_are_described,
    layout_is_sound,
    tables_read_well,
    graphs_read_well,
    colours_have_meaning,
    annotations_are_quiet,
)
