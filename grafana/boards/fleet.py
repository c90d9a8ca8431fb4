"""Is anything red, is anything slow, and where."""

from boards import columns, promql
from boards.columns import REPO, SERVER
from boards.dashboard import DEPLOYMENTS, Dashboard, failures
from boards.panels import Query, bars, graph, ranking, stat, timeline
from boards.promql import BAR, OF_BRANCH, OF_REPO
from boards.style import (
    BAD,
    BUSY,
    HIGH,
    MEDIAN,
    NONE_IS_GOOD,
    SOME_IS_BAD,
    STATUS_SERIES,
    STATUS_WORDS,
    SUCCESS,
    WAIT,
    WARN,
)
from boards.tables import table

BUILDS = f'{promql.REPO}, event=~"$event"'
BRANCHES = f'{BUILDS}, event!="pull_request"'
"""A pull request that fails breaks nobody's branch."""
BROKEN = f"({promql.gauge('ci_consecutive_failures', BRANCHES, OF_BRANCH)} > bool 0)"

DOWN = stat(
    "Servers down",
    "CI servers whose last poll failed. What they build is not seen until they answer again.",
    f"sum(1 - {promql.gauge('ci_server_up', promql.SERVER, 'server')})",
    steps=NONE_IS_GOOD,
    leads_to="ci-exporter",
)
BROKEN_BRANCHES = stat(
    "Broken branches",
    "Branches whose newest judged build of a push, tag, cron job or deployment is bad.",
    f"sum{BROKEN}",
    steps=NONE_IS_GOOD,
    leads_to="Repos",
)
RUNNING = stat(
    "Building now",
    "Builds that run at this moment.",
    promql.total("ci_builds_running", promql.REPO, OF_REPO),
    leads_to="Running and waiting",
)
WAITING = stat(
    "Waiting",
    "Builds that wait for a runner at this moment.",
    promql.total("ci_builds_pending", promql.REPO, OF_REPO),
    leads_to="ci-queue",
)
RATE = stat(
    "Success rate",
    "Good builds of those that ended well or badly in the time range; cancelled ones do not count.",
    promql.success(BUILDS),
    "percentunit",
    steps=SUCCESS,
    decimals=1,
    leads_to="Success rate by server",
)
COUNT = stat(
    "Builds",
    "Builds that ended in the time range, whatever their end.",
    promql.count("ci_builds_total", BUILDS),
    leads_to="Builds by result",
)
INCIDENTS = table(
    "Open incidents",
    "What is red now and since which build; the build leads to its page on the CI server.",
    REPO,
    columns.BRANCH,
    columns.EVENT,
    columns.build(
        f"{promql.gauge('ci_incident_first_build_number', BUILDS, promql.OF_BUILD)} * {promql.BUILD_URL}",
        "First build",
    ),
    columns.seconds("Red for", promql.age("ci_incident_opened_timestamp_seconds", BUILDS, promql.OF_BUILD)),
    columns.BUILD_URL,
    SERVER,
    sort="Red for",
    width=16,
    height=8,
    none="none open",
)
FAILURES = ranking(
    "Most failures",
    "The ten repos with the most bad builds in the time range.",
    Query(
        f"{promql.top(promql.count('ci_builds_total', f'{BUILDS}, {promql.BAD}', OF_REPO))} > 0", "{{repo}}"
    ),
    "none",
    BAD,
    width=8,
)
RESULTS = bars(
    "Builds by result",
    "Builds that ended in each interval, by how they ended.",
    Query(promql.count("ci_builds_total", BUILDS, "status", BAR), "{{status}}"),
    colours=STATUS_SERIES,
    many=True,
)
OPEN = graph(
    "Running and waiting",
    "Builds that run, and builds that wait for a runner. Waiting while few run: runners are missing.",
    Query(promql.total("ci_builds_running", promql.REPO, OF_REPO), "running"),
    Query(promql.total("ci_builds_pending", promql.REPO, OF_REPO), "waiting"),
    colours={"running": BUSY, "waiting": WARN},
)
DURATION = graph(
    "Duration",
    "How long good builds ran: half of them no longer than the median, 19 of 20 no longer than the other.",
    Query(promql.quantile_now(0.5, "ci_build_duration_seconds", BUILDS), "median"),
    Query(promql.quantile_now(0.95, "ci_build_duration_seconds", BUILDS), "95th percentile"),
    unit="s",
    colours={"median": MEDIAN, "95th percentile": HIGH},
    width=8,
    at_least="30m",
)
RATES = graph(
    "Success rate by server",
    "Good builds of the judged ones; the ten worst servers. One server alone low: look there first.",
    Query(
        promql.leading(
            promql.success(BUILDS, "server", BAR), "server", promql.success(BUILDS, "server"), op="bottomk"
        ),
        "{{server}}",
    ),
    unit="percentunit",
    width=8,
    many=True,
    at_least="1h",
    top=1,
)
RED = graph(
    "Red over time",
    "Broken branches and open incidents. A step up is a bad day, a slow rise is a bad habit.",
    Query(f"sum{BROKEN}", "broken branches"),
    Query(promql.total("ci_incidents_open", promql.REPO, OF_REPO), "open incidents"),
    colours={"broken branches": BAD, "open incidents": "orange"},
    width=8,
)
REPOS = table(
    "Repos",
    "Each repo in the time range: builds, success rate, medians; and its branches that are broken now.",
    REPO,
    columns.number("Builds", promql.count("ci_builds_total", BUILDS, OF_REPO)),
    columns.success(promql.success(BUILDS, OF_REPO)),
    columns.seconds("Median", promql.quantile(0.5, "ci_build_duration_seconds", BUILDS, OF_REPO)),
    columns.seconds("Waited", promql.quantile(0.5, "ci_build_queue_seconds", promql.REPO, OF_REPO), WAIT),
    columns.number("Broken", f"sum by ({OF_REPO}) {BROKEN}", SOME_IS_BAD),
    columns.ago("Last build", promql.when("ci_last_build_finished_timestamp_seconds", BUILDS, OF_REPO)),
    SERVER,
    sort="Broken",
)
DEFAULT_BRANCH = f'label_replace(ci_repo_info{{{promql.REPO}}}, "branch", "$1", "default_branch", "(.+)")'
BRANCHES_OVER_TIME = timeline(
    "Default branches over time",
    "The newest build of pushes to the default branch of the 20 repos with the most builds.",
    Query(
        promql.busiest(
            f'max by ({OF_REPO}) (ci_last_build_status{{{promql.REPO}, event="push"}}'
            f" and on ({OF_BRANCH}) {DEFAULT_BRANCH})",
            OF_REPO,
            promql.REPO,
        ),
        "{{repo}}",
    ),
    STATUS_WORDS,
    height=12,
)

BOARD = Dashboard(
    uid="ci-fleet",
    title="CI / Fleet",
    description="Is anything red, is anything slow, and where.",
    since="24h",
    variables=("server", "repo", "event"),
    rows=(
        (DOWN, BROKEN_BRANCHES, RUNNING, WAITING, RATE, COUNT),
        (INCIDENTS, FAILURES),
        (RESULTS, OPEN),
        (DURATION, RATES, RED),
        (REPOS,),
        (BRANCHES_OVER_TIME,),
    ),
    annotations=(failures(f'{promql.REPO}, event=~"$event"'), DEPLOYMENTS),
)
