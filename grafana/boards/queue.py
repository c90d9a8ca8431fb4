"""Do we need more runners, and is something stuck."""

from boards import columns, promql
from boards.columns import BRANCH, REPO, SERVER
from boards.dashboard import DEPLOYMENTS, Dashboard
from boards.panels import Query, graph, stat
from boards.promql import OF_BRANCH, OF_REPO, RATE
from boards.style import BUSY, HIGH, MEDIAN, NONE_IS_GOOD, SOME_IS_BAD, STATUS_SERIES, WAIT, WARN
from boards.tables import table

WHERE = promql.REPO
WAITING = "ci_oldest_pending_build_queued_timestamp_seconds"
RUNNING = "ci_oldest_running_build_started_timestamp_seconds"
BLOCKED = "ci_oldest_blocked_build_created_timestamp_seconds"
EXPECTED = promql.gauge("ci_build_expected_duration_seconds", WHERE, OF_BRANCH)
EXPECTED_OF_WAITING, EXPECTED_OF_RUNNING = (
    f"{EXPECTED} and on ({OF_BRANCH}) {promql.gauge(oldest, WHERE, OF_BRANCH)}"
    for oldest in (WAITING, RUNNING)
)
WAIT_SECONDS = "ci_build_queue_seconds"
SPENT = "ci_build_seconds_total"


def open_builds(state: str) -> str:
    """How many builds of each repo are in this state, where there are any."""
    return f"{promql.gauge(f'ci_builds_{state}', WHERE, OF_REPO)} > 0"


FIRST = (
    stat(
        "Waiting",
        "Builds that wait for a runner at this moment.",
        promql.total("ci_builds_pending", WHERE, OF_REPO),
        width=3,
        leads_to="Waiting builds",
    ),
    stat(
        "Oldest wait",
        "How long the build has waited that waits longest.",
        f"max({promql.age(WAITING, WHERE, OF_BRANCH)})",
        "s",
        steps=WAIT,
        width=3,
        none="none waits",
        decimals=1,
        leads_to="Waiting builds",
    ),
    stat(
        "Running",
        "Builds that run at this moment.",
        promql.total("ci_builds_running", WHERE, OF_REPO),
        width=3,
        leads_to="Running builds",
    ),
    stat(
        "Longest build",
        "How long the build has run that runs longest.",
        f"max({promql.age(RUNNING, WHERE, OF_BRANCH)})",
        "s",
        width=3,
        none="none runs",
        decimals=1,
        leads_to="Running builds",
    ),
    stat(
        "Wait, median",
        "Half of the builds in the time range waited no longer.",
        promql.quantile(0.5, WAIT_SECONDS, WHERE),
        "s",
        steps=WAIT,
        width=3,
        decimals=1,
        leads_to="Wait",
    ),
    stat(
        "Wait, 95th",
        "19 of 20 builds in the time range waited no longer.",
        promql.quantile(0.95, WAIT_SECONDS, WHERE),
        "s",
        steps=WAIT,
        width=3,
        decimals=1,
        leads_to="Wait",
    ),
    stat(
        "Peak concurrency",
        "The most builds that ran at once in the time range: so many runners were of use.",
        f"max_over_time({promql.total('ci_builds_running', WHERE, OF_REPO)}[$__range:5m])",
        width=3,
        leads_to="Running and waiting",
    ),
    stat(
        "Abandoned",
        "Builds open for so long that nobody works on them any more: an agent died, or a hook was lost.",
        promql.total("ci_builds_abandoned", WHERE, OF_REPO),
        steps=NONE_IS_GOOD,
        width=3,
        leads_to="Open builds by repo",
    ),
)
WAITS = table(
    "Waiting builds",
    "Branches with a build that waits for a runner: for how long, and how long it usually runs.",
    REPO,
    BRANCH,
    columns.seconds("Waits for", promql.age(WAITING, WHERE, OF_BRANCH), WAIT),
    columns.seconds("Expected run", EXPECTED_OF_WAITING),
    SERVER,
    sort="Waits for",
    width=12,
    height=8,
)
RUNS = table(
    "Running builds",
    "Branches with a running build: for how long, how long it usually takes, and when it is stopped.",
    REPO,
    BRANCH,
    columns.seconds("Runs for", promql.age(RUNNING, WHERE, OF_BRANCH)),
    columns.seconds("Expected", EXPECTED_OF_RUNNING),
    columns.seconds(
        "Time limit",
        f"{promql.gauge(RUNNING, WHERE, OF_BRANCH)} * 0"
        f" + on (server, repo) group_left () {promql.gauge('ci_repo_timeout_seconds', WHERE, OF_REPO)}",
    ),
    SERVER,
    sort="Runs for",
    width=12,
    height=8,
)
OPEN = graph(
    "Running and waiting",
    "Builds that run, and builds that wait. Waiting while the other line is flat: all runners are busy.",
    Query(promql.total("ci_builds_running", WHERE, OF_REPO), "running"),
    Query(promql.total("ci_builds_pending", WHERE, OF_REPO), "waiting"),
    colours={"running": BUSY, "waiting": WARN},
)
WAIT_OVER_TIME = graph(
    "Wait",
    "How long builds waited for a runner.",
    Query(promql.quantile_now(0.5, WAIT_SECONDS, WHERE), "median"),
    Query(promql.quantile_now(0.95, WAIT_SECONDS, WHERE), "95th percentile"),
    unit="s",
    colours={"median": MEDIAN, "95th percentile": HIGH},
    at_least="30m",
)
BY_REPO = graph(
    "Build time by repo",
    "How many runners each repo kept busy on average; the ten that use most.",
    Query(
        promql.leading(
            f"sum by ({OF_REPO}) (rate({SPENT}{{{WHERE}}}[{RATE}]))",
            OF_REPO,
            promql.increase(SPENT, WHERE, OF_REPO),
        ),
        "{{repo}}",
    ),
    many=True,
    at_least="30m",
)
BY_RESULT = graph(
    "Build time by result",
    "How many runners were busy on average with builds that ended so: what failures cost.",
    Query(f"sum by (status) (rate({SPENT}{{{WHERE}}}[{RATE}]))", "{{status}}"),
    colours=STATUS_SERIES,
    many=True,
    at_least="30m",
)
BLOCKS = table(
    "Waiting for approval",
    "Branches with a build that somebody has to approve or decline, and since when.",
    REPO,
    BRANCH,
    columns.seconds("Waits for", promql.age(BLOCKED, WHERE, OF_BRANCH)),
    SERVER,
    sort="Waits for",
    width=12,
    height=8,
)
BY_STATE = table(
    "Open builds by repo",
    "What has no end yet in each repo that has such builds.",
    REPO,
    *(
        columns.number(name, open_builds(state), steps, 90)
        for name, state, steps in (
            ("Running", "running", None),
            ("Waiting", "pending", None),
            ("Blocked", "blocked", None),
            ("Abandoned", "abandoned", SOME_IS_BAD),
        )
    ),
    SERVER,
    sort="Waiting",
    width=12,
    height=8,
)

BOARD = Dashboard(
    uid="ci-queue",
    title="CI / Queue",
    description="Do we need more runners, and is something stuck.",
    since="24h",
    variables=("server", "repo"),
    rows=(FIRST, (WAITS, RUNS), (OPEN, WAIT_OVER_TIME), (BY_REPO, BY_RESULT), (BLOCKS, BY_STATE)),
    annotations=(DEPLOYMENTS,),
)
