"""How is this repo doing."""

from boards import columns, promql
from boards.dashboard import DEPLOYMENTS, FAILURES_OF_CHOSEN, Dashboard
from boards.panels import Query, bars, graph, heatmap, stat, timeline
from boards.promql import BAR, BUILD, OF_BRANCH, OF_BUILD
from boards.style import (
    HIGH,
    MEDIAN,
    NONE_IS_GOOD,
    PLAIN,
    SOME_IS_BAD,
    STATUS_SERIES,
    STATUS_WORDS,
    SUCCESS,
    WAIT,
    Steps,
    by_name,
)
from boards.tables import Column, table

OVERDUE = Steps(PLAIN, ((2, "red"),))
NEWEST = f"topk(1, {promql.gauge('ci_last_build_finished_timestamp_seconds', BUILD, OF_BUILD)})"
DURATION = "ci_last_build_duration_seconds"
ENDED = f"(changes(ci_last_build_finished_timestamp_seconds{{{BUILD}}}[{BAR}]) > 0)"
CRON = f'{promql.REPO}, branch=~"$branch"'
OF_CRON = f"{OF_BRANCH}, cron"
EXPECTED = promql.gauge("ci_build_expected_duration_seconds", BUILD, OF_BUILD)

FIRST = (
    stat(
        "Last result",
        "How the newest build that ended did, of the chosen branches and events.",
        f"max(ci_last_build_status{{{BUILD}}} and on ({OF_BUILD}) {NEWEST})",
        words=STATUS_WORDS,
        leads_to="Last builds",
    ),
    stat(
        "Success rate",
        "Good builds of those that ended well or badly in the time range; cancelled ones do not count.",
        promql.success(BUILD),
        "percentunit",
        steps=SUCCESS,
        decimals=1,
        leads_to="Builds by result",
    ),
    stat(
        "Builds",
        "Builds that ended in the time range, whatever their end.",
        promql.count("ci_builds_total", BUILD),
        leads_to="Builds by result",
    ),
    stat(
        "Median duration",
        "Half of the good builds in the time range ran no longer.",
        promql.quantile(0.5, "ci_build_duration_seconds", BUILD),
        "s",
        decimals=1,
        leads_to="Durations",
    ),
    stat(
        "Median wait",
        "Half of the repo's builds in the time range waited no longer for a runner.",
        promql.quantile(0.5, "ci_build_queue_seconds", promql.REPO),
        "s",
        steps=WAIT,
        decimals=1,
        leads_to="Wait",
    ),
    stat(
        "Failures in a row",
        "Bad builds since the last good one, on the branch where they are most.",
        f"max(ci_consecutive_failures{{{BUILD}}})",
        steps=NONE_IS_GOOD,
        leads_to="Last builds",
    ),
)
LAST = table(
    "Last builds",
    "The newest build that ended of each branch and event; its number leads to its page on the CI server.",
    columns.REPO,
    columns.BRANCH,
    columns.EVENT,
    columns.build(f"{promql.gauge('ci_last_build_number', BUILD, OF_BUILD)} * {promql.BUILD_URL}"),
    columns.result(promql.gauge("ci_last_build_status", BUILD, OF_BUILD)),
    columns.number(
        "Bad in a row", promql.gauge("ci_consecutive_failures", BUILD, OF_BUILD), SOME_IS_BAD, 100
    ),
    columns.seconds("Took", promql.gauge(DURATION, BUILD, OF_BUILD)),
    columns.seconds("Expected", EXPECTED),
    columns.ago("Ended", promql.when("ci_last_build_finished_timestamp_seconds", BUILD, OF_BUILD)),
    columns.ago("Last good", promql.when("ci_last_success_timestamp_seconds", BUILD, OF_BUILD)),
    columns.ago("Last bad", promql.when("ci_last_failure_timestamp_seconds", BUILD, OF_BUILD)),
    columns.BUILD_URL,
    columns.SERVER_UNSEEN,
    sort="Ended",
)
BRANCHES = timeline(
    "Branches over time",
    "The newest build of each branch and event; the 20 with the most builds.",
    Query(
        promql.busiest(promql.gauge("ci_last_build_status", BUILD, OF_BUILD), OF_BUILD, BUILD),
        "{{repo}} {{branch}} {{event}}",
    ),
    STATUS_WORDS,
)
DURATIONS = graph(
    "Duration of the last builds",
    "Each newest build of the ten busiest branches, and how long good builds usually take (dashed).",
    Query(
        promql.busiest(f"max by ({OF_BUILD}) ({DURATION}{{{BUILD}}} and {ENDED})", OF_BUILD, BUILD, 10),
        "{{repo}} {{branch}} {{event}}",
    ),
    Query(
        f"quantile(0.5, {promql.gauge('ci_build_expected_duration_seconds', BUILD, OF_BUILD)})", "expected"
    ),
    unit="s",
    many=True,
    at_least="2m",
)
DURATIONS.defaults["custom"] |= {"drawStyle": "points", "pointSize": 7, "showPoints": "always"}
DURATIONS.overrides.append(
    by_name(
        "expected",
        custom__drawStyle="line",
        custom__showPoints="never",
        custom__lineStyle={"fill": "dash", "dash": [10, 10]},
        color={"mode": "fixed", "fixedColor": "gray"},
    )
)
SPREAD = heatmap(
    "Durations",
    "How many good builds took how long; the stronger the colour, the more.",
    Query(f"sum by (le) (increase(ci_build_duration_seconds_bucket{{{BUILD}}}[{BAR}]))", "{{le}}"),
)
RESULTS = bars(
    "Builds by result",
    "Builds that ended in each interval, by how they ended.",
    Query(promql.count("ci_builds_total", BUILD, "status", BAR), "{{status}}"),
    colours=STATUS_SERIES,
    many=True,
)
WAITS = graph(
    "Wait",
    "How long the repo's builds waited for a runner.",
    Query(promql.quantile_now(0.5, "ci_build_queue_seconds", promql.REPO), "median"),
    Query(promql.quantile_now(0.95, "ci_build_queue_seconds", promql.REPO), "95th percentile"),
    unit="s",
    colours={"median": MEDIAN, "95th percentile": HIGH},
    at_least="30m",
)
AGAIN = bars(
    "Flaky commits and restarts",
    "Commits that failed and then passed unchanged, and builds that somebody started again.",
    Query(promql.count("ci_build_flaky_total", CRON, window=BAR), "flaky commits"),
    Query(promql.count("ci_build_restarts_total", promql.REPO, window=BAR), "restarts"),
    colours={"flaky commits": "orange", "restarts": "blue"},
    at_least="1h",
)
CRONS = table(
    "Cron jobs",
    "When each cron job last ended, how often it comes, and how many intervals ago that was: over 2 is late.",
    columns.REPO,
    columns.BRANCH,
    Column(name="Cron job", label="cron"),
    columns.ago("Last end", promql.when("ci_last_cron_finished_timestamp_seconds", CRON, OF_CRON)),
    columns.seconds("Every", promql.gauge("ci_cron_interval_seconds", CRON, OF_CRON)),
    Column(
        name="Intervals ago",
        expr=f"({promql.age('ci_last_cron_finished_timestamp_seconds', CRON, OF_CRON)})"
        f" / {promql.gauge('ci_cron_interval_seconds', CRON, OF_CRON)}",
        width=110,
        decimals=1,
        steps=OVERDUE,
    ),
    columns.SERVER_UNSEEN,
    sort="Intervals ago",
    width=12,
    height=8,
    none="none",
)

BOARD = Dashboard(
    uid="ci-repository",
    title="CI / Repository",
    description="How is this repo doing.",
    since="7d",
    variables=("server", "repo", "branch", "event"),
    rows=(FIRST, (LAST,), (BRANCHES,), (DURATIONS, SPREAD), (RESULTS, WAITS), (AGAIN, CRONS)),
    annotations=(FAILURES_OF_CHOSEN, DEPLOYMENTS),
)
