"""The kinds of panels: each function takes what differs and answers a `Panel`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from boards.style import PLAIN, Json, Steps, coloured

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
ROW = 4
"""Height of the first row of a dashboard."""
GRAPH = 8
OTHER_BOARD = "${__url_time_range}&${datasource:queryparam}"


def repo_page(labels: str) -> str:
    """The dashboard of a repo: `labels` is what Grafana calls the labels at this place."""
    chosen = "".join(f"&var-{name}=${{{labels}.{name}:percentencode}}" for name in ("server", "repo"))
    return f"/d/ci-repository?{OTHER_BOARD}{chosen}"


@dataclass(frozen=True, slots=True)
class Query:
    """A PromQL expression; `legend` names its series."""

    expr: str
    legend: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One panel, without its place."""

    type: str
    title: str
    description: str
    width: int
    height: int
    queries: tuple[Query, ...]
    unit: str
    none: str = "no data"
    """What is shown where there is no value."""
    form: str = "time_series"
    instant: bool = False
    at_least: str = ""
    """The shortest interval of a range query."""
    defaults: Json
    """The field options of everything in the panel."""
    overrides: list[Json] = field(default_factory=list)
    options: Json = field(default_factory=dict)
    transformations: list[Json] = field(default_factory=list)
    leads_to: str = ""
    """The title of the panel, or the uid of the dashboard, that explains the number."""

    def json(self, panel_id: int, x: int, y: int, link: str) -> Json:
        """As Grafana reads it, at its place, its number leading to `link`."""
        links = [{"title": "What it is made of", "url": link}] if link else []
        return {
            "id": panel_id,
            "type": self.type,
            "title": self.title,
            "description": self.description,
            "gridPos": {"x": x, "y": y, "w": self.width, "h": self.height},
            "datasource": DATASOURCE,
            "targets": [
                {
                    "refId": chr(ord("A") + place),
                    "datasource": DATASOURCE,
                    "editorMode": "code",
                    "expr": query.expr,
                    "legendFormat": query.legend or "__auto",
                    "format": self.form,
                    "instant": self.instant,
                    "range": not self.instant,
                }
                for place, query in enumerate(self.queries)
            ],
            **({"interval": self.at_least} if self.at_least else {}),
            "fieldConfig": {
                "defaults": {
                    "unit": self.unit,
                    "noValue": self.none,
                    **({"links": links} if links else {}),
                    **self.defaults,
                },
                "overrides": self.overrides,
            },
            "options": self.options,
            "transformations": self.transformations,
        }


def fixed(colour: str) -> Json:
    return {"mode": "fixed", "fixedColor": colour}


def stat(
    title: str,
    description: str,
    query: Query | str,
    unit: str = "none",
    *,
    steps: Steps | None = None,
    words: Sequence[Json] = (),
    width: int = 4,
    none: str = "no data",
    decimals: int | None = None,
    leads_to: str = "",
) -> Panel:
    """A number, on a coloured ground where its height or word has a meaning; with `legend`, named by it."""
    query = Query(query) if isinstance(query, str) else query
    meant = steps is not None or bool(words)
    return Panel(
        type="stat",
        title=title,
        description=description,
        width=width,
        height=ROW,
        queries=(query,),
        unit=unit,
        none=none,
        instant=True,
        defaults={
            "color": {"mode": "thresholds"} if steps else fixed(PLAIN),
            **({"thresholds": steps.json()} if steps else {}),
            **({"mappings": list(words)} if words else {}),
            **({} if decimals is None else {"decimals": decimals}),
        },
        options={
            "colorMode": "background" if meant else "value",
            "graphMode": "none",
            "justifyMode": "auto",
            "orientation": "auto",
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "showPercentChange": False,
            "textMode": "value_and_name" if query.legend else "value",
            "wideLayout": True,
        },
        leads_to=leads_to,
    )


def graph(
    title: str,
    description: str,
    *queries: Query,
    unit: str = "none",
    colours: Mapping[str, str] | None = None,
    width: int = 12,
    many: bool = False,
    at_least: str = "",
    none: str = "no data",
    top: float | None = None,
    fill: int = 0,
) -> Panel:
    """Lines over time; `many`: more than five, so the legend is a table. `colours`: by name of series."""
    custom = {
        "drawStyle": "line",
        "lineInterpolation": "linear",
        "lineWidth": 2,
        "fillOpacity": fill,
        "gradientMode": "none",
        "showPoints": "auto",
        "pointSize": 5,
        "spanNulls": False,
        "stacking": {"mode": "none", "group": "A"},
        "axisPlacement": "auto",
        "axisLabel": "",
        "scaleDistribution": {"type": "linear"},
        "thresholdsStyle": {"mode": "off"},
    }
    placed = {"displayMode": "table", "placement": "right", "calcs": ["lastNotNull", "max"]}
    listed = {"displayMode": "list", "placement": "bottom", "calcs": []}
    return Panel(
        type="timeseries",
        title=title,
        description=description,
        width=width,
        height=GRAPH,
        queries=queries,
        unit=unit,
        none=none,
        at_least=at_least,
        defaults={
            "color": {"mode": "palette-classic-by-name"},
            "min": 0,
            **({} if top is None else {"max": top}),
            "custom": custom,
        },
        overrides=coloured(colours or {}),
        options={
            "legend": {"showLegend": True, **(placed if many else listed)},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
    )


def bars(
    title: str,
    description: str,
    *queries: Query,
    unit: str = "none",
    colours: Mapping[str, str] | None = None,
    width: int = 12,
    many: bool = False,
    at_least: str = "5m",
    none: str = "no data",
) -> Panel:
    """Stacked bars over time, one for each interval."""
    made = graph(
        title, description, *queries, unit=unit, colours=colours, width=width, many=many,
        at_least=at_least, none=none, fill=85,
    )  # fmt: skip
    made.defaults["custom"] |= {
        "drawStyle": "bars",
        "lineWidth": 0,
        "showPoints": "never",
        "barAlignment": -1,
        "stacking": {"mode": "normal", "group": "A"},
    }
    if many:
        made.options["legend"]["calcs"] = ["sum"]
    return made


def timeline(title: str, description: str, query: Query, words: list[Json], *, height: int = 10) -> Panel:
    """A bar of states over time for each series, each with its word and colour."""
    return Panel(
        type="state-timeline",
        title=title,
        description=description,
        width=24,
        height=height,
        queries=(query,),
        unit="none",
        defaults={
            # With thresholds, merged values would be one bar in one colour, whatever they mean.
            "color": fixed(PLAIN),
            "mappings": words,
            "custom": {"fillOpacity": 80, "lineWidth": 0},
        },
        options={
            "mergeValues": True,
            "showValue": "auto",
            "alignValue": "left",
            "rowHeight": 0.85,
            "legend": {"showLegend": False, "displayMode": "list", "placement": "bottom", "calcs": []},
            "tooltip": {"mode": "single", "sort": "none"},
        },
    )


def heatmap(title: str, description: str, query: Query, *, width: int = 12) -> Panel:
    """How often each duration was seen over time; the query is a histogram's buckets by `le`."""
    return Panel(
        type="heatmap",
        title=title,
        description=description,
        width=width,
        height=GRAPH,
        queries=(query,),
        unit="none",
        form="heatmap",
        at_least="1h",
        defaults={"custom": {"scaleDistribution": {"type": "linear"}}},
        options={
            "calculate": False,
            "cellGap": 1,
            "cellValues": {"unit": "none"},
            "color": {
                "mode": "scheme", "scheme": "Blues", "scale": "exponential", "exponent": 0.5, "steps": 32,
                "reverse": False, "fill": "blue",
            },
            "exemplars": {"color": "rgba(255,0,255,0.7)"},
            "filterValues": {"le": 1e-9},
            "legend": {"show": True},
            "rowsFrame": {"layout": "auto", "value": "builds"},
            "showValue": "never",
            "tooltip": {"mode": "single", "yHistogram": False, "showColorScale": False},
            "yAxis": {"axisPlacement": "left", "unit": "s", "reverse": False},
        },
    )  # fmt: skip


def ranking(
    title: str,
    description: str,
    query: Query,
    unit: str,
    colour: str,
    *,
    width: int = 12,
    height: int = GRAPH,
    none: str = "none",
) -> Panel:
    """Horizontal bars of repos, or of parts of them, the largest first; each leads to its repo."""
    return Panel(
        type="bargauge",
        title=title,
        description=description,
        width=width,
        height=height,
        queries=(replace(query, expr=f"sort_desc({query.expr})"),),
        unit=unit,
        none=none,
        instant=True,
        defaults={
            "color": fixed(colour),
            "min": 0,
            "links": [{"title": "The repository", "url": repo_page("__field.labels")}],
        },
        options={
            "displayMode": "basic",
            "orientation": "horizontal",
            "valueMode": "color",
            "namePlacement": "left",
            "showUnfilled": False,
            "sizing": "auto",
            "minVizWidth": 8,
            "minVizHeight": 16,
            "maxVizHeight": 32,
            "legend": {"showLegend": False, "displayMode": "list", "placement": "bottom", "calcs": []},
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        },
    )
