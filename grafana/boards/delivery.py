"""The four DORA numbers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from boards import columns, promql
from boards.columns import REPO, SERVER
from boards.dashboard import DEPLOYMENTS as DEPLOYED
from boards.dashboard import Dashboard
from boards.panels import Panel, Query, bars, graph, stat
from boards.promql import BAR, OF_REPO
from boards.style import CHANGE_FAILURE, MEDIAN, STATUS_SERIES, Steps
from boards.tables import Column, table

DAYS = {"7d": 7, "30d": 30, "90d": 90}
WHERE = f'{promql.REPO}, window=~"$window"'
OF_WINDOW = f"{OF_REPO}, window"
OF_ENVIRONMENT = f"{OF_REPO}, environment"
WINDOWS: Mapping[str, str] = {"7d": "light-blue", "30d": MEDIAN, "90d": "dark-blue"}
"""The longer the window, the darker its line."""


def summed(metric: str, by: str) -> str:
    return f"sum by ({by}) ({promql.gauge(metric, WHERE, OF_WINDOW)})"


def a_day(by: str) -> str:
    """Deployments a day: what a window counts, by its days."""
    counted = (
        (promql.gauge("ci_delivery_deployments", f'{WHERE}, window="{window}"', OF_WINDOW), days)
        for window, days in DAYS.items()
    )
    return " or ".join(f"sum by ({by}) ({deployments}) / {days}" for deployments, days in counted)


def failed(by: str) -> str:
    return f"{summed('ci_delivery_failed_deployments', by)} / ({summed('ci_delivery_deployments', by)} > 0)"


def median(metric: str, by: str) -> str:
    """The median of the repos' own medians."""
    return f"quantile by ({by}) (0.5, {promql.gauge(metric, WHERE, OF_WINDOW)})"


@dataclass(frozen=True, slots=True)
class Number:
    """One of the four: `expr` answers its query by these labels."""

    title: str
    about: str
    expr: Callable[[str], str]
    unit: str
    steps: Steps | None = None

    @property
    def stat(self) -> Panel:
        return stat(
            self.title,
            self.about,
            Query(self.expr("window"), "{{window}}"),
            self.unit,
            steps=self.steps,
            width=6,
            none="no deployment",
            decimals=2 if self.unit == "none" else 1,
            leads_to=f"{self.title} over time",
        )

    @property
    def graph(self) -> Panel:
        return graph(
            f"{self.title} over time",
            self.about,
            Query(self.expr("window"), "{{window}}"),
            unit=self.unit,
            colours=WINDOWS,
            at_least="1h",
            none="no deployment",
        )


NUMBERS = (
    Number(
        "Deployments a day",
        "How often a day something was deployed to the environments that count.",
        a_day,
        "none",
    ),
    Number(
        "Lead time",
        "From a commit's first build to the end of its deployment: the median of the repos' medians.",
        partial(median, "ci_delivery_lead_time_seconds"),
        "s",
    ),
    Number(
        "Change failure rate", "Deployments that ended badly, of all.", failed, "percentunit", CHANGE_FAILURE
    ),
    Number(
        "Time to restore",
        "From a failed deployment to the next good one: the median of the repos' medians.",
        partial(median, "ci_delivery_time_to_restore_seconds"),
        "s",
    ),
)
REPOS = table(
    "Repos",
    "The four numbers of each repo that deployed something in the window.",
    REPO,
    Column(name="Window", label="window", width=90),
    Column(name="A day", expr=a_day(OF_WINDOW), width=90, decimals=2),
    columns.seconds("Lead time", promql.gauge("ci_delivery_lead_time_seconds", WHERE, OF_WINDOW), width=120),
    Column(
        name="Change failures",
        expr=failed(OF_WINDOW),
        unit="percentunit",
        width=130,
        decimals=1,
        steps=CHANGE_FAILURE,
    ),
    columns.seconds(
        "Time to restore", promql.gauge("ci_delivery_time_to_restore_seconds", WHERE, OF_WINDOW), width=130
    ),
    SERVER,
    sort="A day",
)
DEPLOYMENTS = bars(
    "Deployments by result",
    "Builds of event deployment that ended in each interval, to whatever environment.",
    Query(promql.count("ci_deployments_total", promql.REPO, "status", BAR), "{{status}}"),
    colours=STATUS_SERIES,
    many=True,
    at_least="1h",
)
LAST = table(
    "Last deployments",
    "How and when each repo was last deployed to each environment.",
    REPO,
    Column(name="Environment", label="environment"),
    columns.result(promql.gauge("ci_last_deployment_status", promql.REPO, OF_ENVIRONMENT)),
    columns.ago("Ended", promql.when("ci_last_deployment_timestamp_seconds", promql.REPO, OF_ENVIRONMENT)),
    SERVER,
    sort="Ended",
    width=12,
    height=8,
)
DEPLOYS, LEAD, FAILED, RESTORE = (number.graph for number in NUMBERS)

BOARD = Dashboard(
    uid="ci-delivery",
    title="CI / Delivery",
    description="The four DORA numbers: how often, how fast and how safely it is delivered, how soon mended.",
    since="90d",
    variables=("server", "repo", "window"),
    chosen=(("window", "30d"),),
    rows=(
        tuple(number.stat for number in NUMBERS),
        (DEPLOYS, LEAD),
        (FAILED, RESTORE),
        (REPOS,),
        (DEPLOYMENTS, LAST),
    ),
    annotations=(DEPLOYED,),
)
