"""Can I trust the other dashboards: the exporter itself, its servers, and what it sends."""

from boards import columns, promql
from boards.dashboard import Dashboard
from boards.panels import Query, bars, graph, stat
from boards.promql import BAR, RATE
from boards.style import BAD, GOOD, NONE_IS_GOOD, SOME_IS_BAD, STALE, UP_WORDS, WARN, Steps
from boards.tables import Column, table

WHERE = promql.SERVER
LIVE = "on (job, instance) last_over_time(ci_exporter_build_info[$__range])"
"""Keeps of what Prometheus says of all its targets that of the exporter, also while it is down."""
POLL = "ci_server_poll_duration_seconds"
DETECTION = "ci_build_detection_seconds"
ALL_UP = Steps(BAD, ((1, GOOD),))
OUTCOMES = {"delivered": GOOD, "dead": BAD, "superseded": "blue", "expired": "orange"}
ATTEMPTS = {"ok": GOOD, "retry": WARN, "permanent": BAD, "ambiguous": "orange"}
REASONS = {
    "auth": "red",
    "refused": "dark-red",
    "timeout": "orange",
    "limit": WARN,
    "tls": "purple",
    "dns": "dark-purple",
    "status": "blue",
    "json": "dark-blue",
    "shape": "dark-yellow",
}


def last_poll(task: str) -> str:
    """Seconds since each server was last read by this task."""
    return promql.age("ci_server_last_poll_timestamp_seconds", f'{WHERE}, task="{task}"', "server")


FIRST = (
    stat(
        "Exporter",
        "Whether Prometheus reaches the exporter.",
        f"max(up and {LIVE})",
        words=UP_WORDS,
        width=3,
        leads_to="Memory",
    ),
    stat(
        "Servers up",
        "The part of the CI servers whose last poll succeeded.",
        f"avg({promql.gauge('ci_server_up', WHERE, 'server')})",
        "percentunit",
        steps=ALL_UP,
        width=3,
        decimals=0,
        leads_to="Servers",
    ),
    stat(
        "Oldest poll",
        "How long ago the server was last read that was read least recently.",
        f"max({last_poll('watch')})",
        "s",
        steps=STALE,
        width=3,
        decimals=0,
        leads_to="Servers",
    ),
    stat(
        "Detection, 95th",
        "From a build's end to its record here, for 19 of 20 builds.",
        promql.quantile(0.95, DETECTION, WHERE),
        "s",
        steps=STALE,
        width=3,
        decimals=1,
        leads_to="Detection",
    ),
    stat(
        "Missing builds",
        "Build numbers known to exist that could not be read: 0 is the promise.",
        promql.total("ci_builds_missing", WHERE, "server"),
        steps=NONE_IS_GOOD,
        width=3,
        leads_to="Servers",
    ),
    stat(
        "Failed polls",
        "Polls, or parts of one, that failed in the time range.",
        promql.count("ci_server_poll_failures_total", WHERE),
        steps=Steps(GOOD, ((1, WARN), (100, BAD))),
        width=3,
        leads_to="Failed polls by reason",
    ),
    stat(
        "Notifications pending",
        "Messages that wait to be delivered.",
        promql.total("ci_notifications_pending", "", "target"),
        steps=Steps(GOOD, ((10, WARN), (100, BAD))),
        width=3,
        leads_to="Targets",
    ),
    stat(
        "Notifications dead",
        "Messages that were given up: somebody was not told.",
        promql.total("ci_notifications_dead", "", "target"),
        steps=NONE_IS_GOOD,
        width=3,
        leads_to="Targets",
    ),
)
SERVERS = table(
    "Servers",
    "What each server is, when it was last read, how its clock differs, and what it left unread or unknown.",
    Column(name="Server", label="server"),
    Column(name="Dialect", label="dialect", width=120),
    Column(name="Version", label="version", width=110),
    Column(name="State", expr=promql.gauge("ci_server_up", WHERE, "server"), width=80, words=UP_WORDS),
    *(
        columns.seconds(
            name,
            last_poll(task),
            STALE if task == "watch" else None,
            110,
        )
        for name, task in (("Last poll", "watch"), ("Last sweep", "sweep"))
    ),
    columns.seconds("Clock", promql.gauge("ci_server_clock_skew_seconds", WHERE, "server"), width=90),
    columns.number("Missing", promql.gauge("ci_builds_missing", WHERE, "server"), SOME_IS_BAD, 90),
    columns.number("Unknown", promql.count("ci_unknown_values_total", WHERE, "server"), SOME_IS_BAD, 90),
    columns.number("To import", promql.gauge("ci_import_repos_remaining", WHERE, "server"), width=100),
    columns.number("In ledger", promql.gauge("ci_ledger_builds", WHERE, "server"), width=100),
    Column(
        name="is",
        expr=promql.gauge("ci_server_info", WHERE, "server, dialect, version"),
        hidden=True,
    ),
    sort="Server",
    ascending=True,
    height=7,
)
REQUESTS = graph(
    "Requests by code",
    "HTTP requests a second to the CI servers by their answer; the ten most frequent.",
    Query(
        promql.leading(
            f"sum by (server, code) (rate(ci_server_requests_total{{{WHERE}}}[{RATE}]))",
            "server, code",
            promql.increase("ci_server_requests_total", WHERE, "server, code"),
        ),
        "{{server}} {{code}}",
    ),
    unit="reqps",
    many=True,
)
FAILURES = bars(
    "Failed polls by reason",
    "Polls, or parts of one, that failed in each interval.",
    Query(promql.count("ci_server_poll_failures_total", WHERE, "reason", BAR), "{{reason}}"),
    colours=REASONS,
    many=True,
)
DETECTED = graph(
    "Detection",
    "From a build's end to its record here.",
    Query(promql.quantile_now(0.5, DETECTION, WHERE), "median"),
    Query(promql.quantile_now(0.95, DETECTION, WHERE), "95th percentile"),
    unit="s",
    colours={"median": "blue", "95th percentile": "purple"},
    width=8,
    at_least="30m",
)
POLLS = graph(
    "Duration of polls",
    "How long a look at a server takes: the 95th percentile of each task; the ten slowest.",
    Query(
        promql.leading(
            promql.quantile_now(0.95, POLL, WHERE, "server, task"),
            "server, task",
            promql.quantile(0.95, POLL, WHERE, "server, task"),
        ),
        "{{server}} {{task}}",
    ),
    unit="s",
    width=8,
    many=True,
    at_least="5m",
)
IMPORT = graph(
    "Import",
    "Repos whose history is still to be read after a first start; the ten servers with the most.",
    Query(promql.top(promql.gauge("ci_import_repos_remaining", WHERE, "server")), "{{server}}"),
    width=8,
    many=True,
)
NOTIFICATIONS = bars(
    "Notifications by outcome",
    "Messages whose fate was decided in each interval.",
    Query(promql.count("ci_notifications_total", "", "outcome", BAR), "{{outcome}}"),
    colours=OUTCOMES,
)
TRIES = bars(
    "Attempts to deliver",
    "Attempts in each interval by what came of them.",
    Query(promql.count("ci_notification_attempts_total", "", "outcome", BAR), "{{outcome}}"),
    colours=ATTEMPTS,
)
TARGETS = table(
    "Targets",
    "What each target still has to be told, for how long the oldest message waits, and what was given up.",
    Column(name="Target", label="target"),
    columns.number("Pending", promql.gauge("ci_notifications_pending", "", "target")),
    columns.seconds(
        "Oldest", promql.age("ci_notification_oldest_pending_timestamp_seconds", "", "target"), STALE
    ),
    columns.number("Dead", promql.gauge("ci_notifications_dead", "", "target"), SOME_IS_BAD),
    sort="Pending",
    width=12,
    height=7,
    none="none",
)
ALERTMANAGERS = table(
    "Alertmanagers",
    "When each Alertmanager last took the open incidents, and how its clock differs from ours.",
    Column(name="Alertmanager", label="alertmanager"),
    columns.seconds(
        "Last success",
        promql.age("ci_alertmanager_last_success_timestamp_seconds", "", "alertmanager"),
        STALE,
        130,
    ),
    columns.seconds("Clock", promql.gauge("ci_alertmanager_clock_skew_seconds", "", "alertmanager")),
    sort="Last success",
    width=12,
    height=7,
    none="none",
)
MEMORY = graph(
    "Memory",
    "Resident memory of each process of the exporter; the ten largest.",
    Query(promql.top(f"max by (instance) (process_resident_memory_bytes and {LIVE})"), "{{instance}}"),
    unit="bytes",
    width=8,
    many=True,
)
SERIES = graph(
    "Series",
    "Series on the page by family; the ten largest. What a cap folds is in `build-exporter explain`.",
    Query(
        promql.leading(
            "max by (family) (ci_exporter_series)",
            "family",
            "max by (family) (max_over_time(ci_exporter_series[$__range]))",
        ),
        "{{family}}",
    ),
    width=8,
    many=True,
)
LEDGER = graph(
    "Ledger",
    "The size of the ledger, where all of this is kept.",
    Query("max(ci_ledger_size_bytes)", "size"),
    unit="bytes",
    colours={"size": "blue"},
    width=8,
)

BOARD = Dashboard(
    uid="ci-exporter",
    title="CI / Exporter",
    description="Can the other dashboards be trusted: the exporter, its servers, and what it sends.",
    since="24h",
    variables=("server",),
    rows=(
        FIRST,
        (SERVERS,),
        (REQUESTS, FAILURES),
        (DETECTED, POLLS, IMPORT),
        (NOTIFICATIONS, TRIES),
        (TARGETS, ALERTMANAGERS),
        (MEMORY, SERIES, LEDGER),
    ),
)
