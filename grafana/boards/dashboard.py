"""A dashboard around its rows of panels: variables, annotations, links, and every panel's place."""

from dataclasses import dataclass

from boards.panels import DATASOURCE, OTHER_BOARD, Panel
from boards.promql import BUILD, REPO
from boards.style import Json

SCHEMA = 39
"""The version of the format of Grafana 10.4, which 11 to 13 read too."""
COLUMNS = 24
VARIABLES = {
    "server": ("Server", "label_values(ci_server_up, server)"),
    "repo": ("Repo", 'label_values(ci_repo_info{server=~"$server"}, repo)'),
    "branch": ("Branch", f"label_values(ci_builds_total{{{REPO}}}, branch)"),
    "event": ("Event", f"label_values(ci_builds_total{{{REPO}}}, event)"),
    "step": ("Step", f"label_values(ci_steps_total{{{REPO}}}, step)"),
    "window": ("Window", "label_values(ci_delivery_deployments, window)"),
}
"""Name → (label, query)."""


@dataclass(frozen=True, slots=True)
class Annotation:
    """Marks at the times that a query's values say; `on`: shown without being asked for."""

    name: str
    colour: str
    expr: str
    title: str
    on: bool

    def json(self) -> Json:
        return {
            "name": self.name,
            "datasource": DATASOURCE,
            "enable": self.on,
            "hide": False,
            "iconColor": self.colour,
            "expr": self.expr,  # up to Grafana 10; later ones read the target
            "target": {"refId": "Anno", "expr": self.expr, "interval": "60s"},
            "titleFormat": self.title,
            "textFormat": "{{server}}",
            "tagKeys": "repo",
            "step": "60s",
            "useValueForTime": True,
        }


def failures(where: str = REPO, *, on: bool = False) -> Annotation:
    """Every failure; off by default where there are so many that they would hide the graphs."""
    expr = f"1000 * max by (server, repo, branch, event) (ci_last_failure_timestamp_seconds{{{where}}})"
    return Annotation("Failures", "red", expr, "{{repo}} {{branch}} {{event}} failed", on)


FAILURES_OF_CHOSEN = failures(BUILD, on=True)
DEPLOYMENTS = Annotation(
    "Deployments",
    "purple",
    f"1000 * max by (server, repo, environment) (ci_last_deployment_timestamp_seconds{{{REPO}}})",
    "{{repo}} deployed to {{environment}}",
    on=True,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dashboard:
    """A page of panels; `variables` are names in `VARIABLES`, `since` is how far back it begins."""

    uid: str
    title: str
    description: str
    since: str
    variables: tuple[str, ...]
    rows: tuple[tuple[Panel, ...], ...]
    annotations: tuple[Annotation, ...] = ()
    chosen: tuple[tuple[str, str], ...] = ()
    """Values of variables in the beginning; All of the others."""

    def json(self) -> Json:
        """As Grafana reads it."""
        return {
            "uid": self.uid,
            "title": self.title,
            "description": self.description,
            "tags": ["ci"],
            "schemaVersion": SCHEMA,
            "version": 1,
            "editable": False,
            "graphTooltip": 1,
            "refresh": "1m",
            "time": {"from": f"now-{self.since}", "to": "now"},
            "timepicker": {},
            "timezone": "browser",
            "links": [
                {
                    "type": "dashboards",
                    "title": "CI",
                    "icon": "external link",
                    "tags": ["ci"],
                    "asDropdown": True,
                    "includeVars": True,
                    "keepTime": True,
                    "targetBlank": False,
                    "tooltip": "The other dashboards of the CI",
                    "url": "",
                }
            ],
            "templating": {"list": [_datasource(), *(self._variable(name) for name in self.variables)]},
            "annotations": {"list": [annotation.json() for annotation in self.annotations]},
            "panels": list(self._placed()),
        }

    def _placed(self) -> list[Json]:
        numbers = {panel.title: number for number, panel in enumerate((p for r in self.rows for p in r), 1)}
        placed, y = [], 0
        for row in self.rows:
            x = 0
            for panel in row:
                link = self._link(panel.leads_to, numbers)
                placed.append(panel.json(numbers[panel.title], x, y, link))
                x += panel.width
            if x != COLUMNS:
                raise ValueError(f"{self.uid}: the row of {row[0].title!r} is {x} columns wide")
            y += max(panel.height for panel in row)
        return placed

    def _link(self, target: str, numbers: dict[str, int]) -> str:
        """The address of a panel of this dashboard, by its title, or of another dashboard, by its uid."""
        if not target:
            return ""
        kept = "&".join(f"${{{name}:queryparam}}" for name in self.variables if name in ("server", "repo"))
        if target.startswith("ci-"):
            return f"/d/{target}?{OTHER_BOARD}&{kept}"
        rest = "".join(f"&${{{name}:queryparam}}" for name in self.variables if f"{{{name}:" not in kept)
        return f"/d/{self.uid}?{OTHER_BOARD}&{kept}{rest}&viewPanel={numbers[target]}"

    def _variable(self, name: str) -> Json:
        label, query = VARIABLES[name]
        chosen = dict(self.chosen).get(name)
        return {
            "name": name,
            "label": label,
            "type": "query",
            "datasource": DATASOURCE,
            "definition": query,
            "query": {"query": query, "refId": name},
            "regex": "",
            "refresh": 2,
            "sort": 1,
            "multi": True,
            "includeAll": True,
            "allValue": ".*",
            "hide": 0,
            "skipUrlSync": False,
            "options": [],
            "current": {"text": [chosen or "All"], "value": [chosen or "$__all"]},
        }


def _datasource() -> Json:
    return {
        "name": "datasource",
        "label": "Data source",
        "type": "datasource",
        "query": "prometheus",
        "regex": "",
        "refresh": 1,
        "multi": False,
        "includeAll": False,
        "hide": 0,
        "skipUrlSync": False,
        "options": [],
        "current": {},
    }
