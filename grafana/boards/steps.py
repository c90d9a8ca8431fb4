"""Which step costs and which breaks."""

from boards import columns, promql
from boards.columns import REPO, SERVER
from boards.dashboard import DEPLOYMENTS, Dashboard, failures
from boards.panels import Query, bars, graph, ranking, stat
from boards.promql import BAD, BAR, JUDGED
from boards.style import BAD as RED
from boards.style import BUSY, PLAIN, Steps
from boards.tables import Column, table

STEP = f'{promql.REPO}, step=~"$step"'
OF_STEP = "server, repo, step"
NAMED = "{{repo}} {{step}}"
SECONDS = "ci_step_duration_seconds"
FAILED_SHARE = Steps(PLAIN, ((0.05, "orange"), (0.2, RED)))
SPENT = promql.increase(f"{SECONDS}_sum", STEP, OF_STEP)
FAILED = promql.count("ci_steps_total", f"{STEP}, {BAD}", OF_STEP)

FIRST = (
    stat(
        "Costs most",
        "The step that most time went into in the time range.",
        Query(promql.top(SPENT, 1), NAMED),
        "s",
        width=8,
        decimals=1,
        leads_to="Where the time goes",
    ),
    stat(
        "Breaks most",
        "The step that failed most often in the time range.",
        Query(promql.top(FAILED, 1), NAMED),
        width=8,
        leads_to="What breaks",
    ),
    stat(
        "Step runs",
        "Steps that ended in the time range, whatever their end.",
        promql.count("ci_steps_total", STEP),
        leads_to="Steps",
    ),
    stat(
        "Failed",
        "Steps that ended badly in the time range.",
        promql.count("ci_steps_total", f"{STEP}, {BAD}"),
        leads_to="What breaks",
    ),
)
STEPS = table(
    "Steps",
    "Each step in the time range: how often it ran and failed, how long it takes, and its time in all.",
    REPO,
    Column(name="Step", label="step"),
    columns.number("Runs", promql.count("ci_steps_total", STEP, OF_STEP)),
    columns.number("Failed", FAILED),
    Column(
        name="Failed share",
        expr=promql.share("ci_steps_total", BAD, JUDGED, STEP, OF_STEP),
        unit="percentunit",
        width=110,
        decimals=1,
        steps=FAILED_SHARE,
    ),
    columns.seconds("Median", promql.quantile(0.5, SECONDS, STEP, OF_STEP)),
    columns.seconds("95th", promql.quantile(0.95, SECONDS, STEP, OF_STEP)),
    columns.seconds("Total", SPENT),
    SERVER,
    sort="Total",
    height=12,
)
COST = ranking(
    "Where the time goes",
    "The ten steps that most time went into in the time range.",
    Query(promql.top(SPENT), NAMED),
    "s",
    BUSY,
)
BREAKS = ranking(
    "What breaks",
    "The ten steps that failed most often in the time range.",
    Query(f"{promql.top(FAILED)} > 0", NAMED),
    "none",
    RED,
)
DURATION = graph(
    "Duration",
    "The median duration of the ten slowest steps.",
    Query(
        promql.leading(
            promql.quantile_now(0.5, SECONDS, STEP, OF_STEP),
            OF_STEP,
            promql.quantile(0.5, SECONDS, STEP, OF_STEP),
        ),
        NAMED,
    ),
    unit="s",
    many=True,
    at_least="30m",
)
FAILURES = bars(
    "Failures",
    "Bad ends of the ten steps that failed most often, in each interval.",
    Query(
        promql.leading(
            promql.count("ci_steps_total", f"{STEP}, {BAD}", OF_STEP, BAR), OF_STEP, f"{FAILED} > 0"
        ),
        NAMED,
    ),
    many=True,
    at_least="1h",
)

BOARD = Dashboard(
    uid="ci-steps",
    title="CI / Steps",
    description="Which step costs and which breaks.",
    since="7d",
    variables=("server", "repo", "step"),
    rows=(FIRST, (STEPS,), (COST, BREAKS), (DURATION, FAILURES)),
    annotations=(failures(), DEPLOYMENTS),
)
