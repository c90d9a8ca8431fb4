"""The metrics that are promised: every family stands once, in `METRICS`.

README, docs, tests, dashboards and rules are checked against this table, both ways.
"""

from collections.abc import Sequence

from exporter.series import Exemplar, Group, Histogram, Kind, Metric, Sample

__all__ = ["METRICS", "OTHER", "Exemplar", "Group", "Histogram", "Metric", "Sample"]

SERVER = ("server",)
REPO = ("server", "repo")
BRANCH = ("server", "repo", "branch", "event")
OTHER = "other"
"""The label value into which what is beyond a cap is folded."""

DURATION_BUCKETS = (15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1800.0, 3600.0, 7200.0)
QUEUE_BUCKETS = (1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)
STEP_BUCKETS = (1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1800.0, 3600.0, 7200.0)
POLL_BUCKETS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
DETECTION_BUCKETS = (1.0, 2.5, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)

BUCKETS = {
    "ci_build_duration_seconds": DURATION_BUCKETS,
    "ci_build_queue_seconds": QUEUE_BUCKETS,
    "ci_step_duration_seconds": STEP_BUCKETS,
    "ci_server_poll_duration_seconds": POLL_BUCKETS,
    "ci_build_detection_seconds": DETECTION_BUCKETS,
}

_TABLE: dict[Group, Sequence[tuple[Kind, str, Sequence[str], str]]] = {
    Group.HAPPENED: (
        ("counter", "ci_builds_total", (*BRANCH, "status"), "Finished runs of builds."),
        ("histogram", "ci_build_duration_seconds", BRANCH, "How long good builds ran, from start to end."),
        ("counter", "ci_build_seconds_total", (*REPO, "status"), "Time that builds ran, whatever their end."),
        ("histogram", "ci_build_queue_seconds", REPO, "How long builds waited from queued to started."),
        (
            "counter",
            "ci_steps_total",
            (*REPO, "step", "status"),
            "Finished steps of builds (Drone 0.5: jobs).",
        ),
        ("histogram", "ci_step_duration_seconds", (*REPO, "step"), "How long steps ran."),
        ("counter", "ci_build_flaky_total", (*REPO, "branch"), "Commits with a bad and a later good end."),
        ("counter", "ci_build_restarts_total", REPO, "Runs that were started again."),
        (
            "counter",
            "ci_deployments_total",
            (*REPO, "environment", "status"),
            "Finished builds of event deployment.",
        ),
    ),
    Group.NOW: (
        (
            "gauge",
            "ci_last_build_status",
            BRANCH,
            "Status of the newest finished build: 0 unknown, 1 success, 2 failure, 3 error, 4 timeout, "
            "5 cancelled, 6 skipped, 7 declined.",
        ),
        ("gauge", "ci_last_build_number", BRANCH, "Number of the newest finished build."),
        ("gauge", "ci_last_build_duration_seconds", BRANCH, "How long the newest finished build ran."),
        (
            "gauge",
            "ci_last_build_finished_timestamp_seconds",
            BRANCH,
            "When the newest finished build ended.",
        ),
        (
            "gauge",
            "ci_last_success_timestamp_seconds",
            BRANCH,
            "When a build last ended well; absent until one did.",
        ),
        (
            "gauge",
            "ci_last_failure_timestamp_seconds",
            BRANCH,
            "When a build last ended badly; absent until one did.",
        ),
        (
            "gauge",
            "ci_consecutive_failures",
            BRANCH,
            "Bad builds since the last good one; neutral ones do not count.",
        ),
        ("gauge", "ci_builds_running", REPO, "Builds that run."),
        ("gauge", "ci_builds_pending", REPO, "Builds that wait for a runner."),
        ("gauge", "ci_builds_blocked", REPO, "Builds that wait for approval."),
        ("gauge", "ci_builds_abandoned", REPO, "Builds open for so long that nobody works on them any more."),
        (
            "gauge",
            "ci_oldest_running_build_started_timestamp_seconds",
            (*REPO, "branch"),
            "When the build that runs longest was started; only while one runs.",
        ),
        (
            "gauge",
            "ci_oldest_pending_build_queued_timestamp_seconds",
            (*REPO, "branch"),
            "When the build that waits longest was queued; only while one waits.",
        ),
        (
            "gauge",
            "ci_oldest_blocked_build_created_timestamp_seconds",
            (*REPO, "branch"),
            "When the build that waits longest for approval was created; only while one waits.",
        ),
        (
            "gauge",
            "ci_build_expected_duration_seconds",
            BRANCH,
            "Median duration of the last 20 good builds, from 3 on.",
        ),
        (
            "gauge",
            "ci_last_cron_finished_timestamp_seconds",
            (*REPO, "branch", "cron"),
            "When a build of this cron job last ended.",
        ),
        (
            "gauge",
            "ci_cron_interval_seconds",
            (*REPO, "branch", "cron"),
            "Median time between the last 10 starts of this cron job, from 3 on.",
        ),
        ("gauge", "ci_incidents_open", REPO, "Ref classes that are red."),
        (
            "gauge",
            "ci_incident_opened_timestamp_seconds",
            BRANCH,
            "When the incident that is open longest was opened; only while one is.",
        ),
        (
            "gauge",
            "ci_incident_first_build_number",
            BRANCH,
            "Number of the build that opened it; only while one is open.",
        ),
        ("gauge", "ci_repo_timeout_seconds", REPO, "Time limit of the repo's builds."),
        (
            "gauge",
            "ci_last_deployment_status",
            (*REPO, "environment"),
            "Status of the newest finished deployment; codes as in ci_last_build_status.",
        ),
        (
            "gauge",
            "ci_last_deployment_timestamp_seconds",
            (*REPO, "environment"),
            "When the newest finished deployment ended.",
        ),
        (
            "gauge",
            "ci_repo_info",
            (*REPO, "build_url", "default_branch"),
            "1; build_url followed by a build number is that build's page.",
        ),
        ("gauge", "ci_delivery_deployments", (*REPO, "window"), "Deployments that ended in the last days."),
        (
            "gauge",
            "ci_delivery_failed_deployments",
            (*REPO, "window"),
            "Deployments that failed in the last days.",
        ),
        (
            "gauge",
            "ci_delivery_lead_time_seconds",
            (*REPO, "window"),
            "Median time from a commit's first build to the end of its deployment.",
        ),
        (
            "gauge",
            "ci_delivery_time_to_restore_seconds",
            (*REPO, "window"),
            "Median time from a failed deployment to the next good one.",
        ),
    ),
    Group.FRESH: (
        ("gauge", "ci_server_up", SERVER, "1 when the last poll succeeded."),
        ("gauge", "ci_server_info", (*SERVER, "dialect", "version"), "1; what it is."),
        (
            "gauge",
            "ci_server_last_poll_timestamp_seconds",
            (*SERVER, "task"),
            "When this task last succeeded.",
        ),
        ("histogram", "ci_server_poll_duration_seconds", (*SERVER, "task"), "How long the tasks took."),
        (
            "counter",
            "ci_server_poll_failures_total",
            (*SERVER, "reason"),
            "Polls, or parts of one, that failed.",
        ),
        (
            "counter",
            "ci_server_requests_total",
            (*SERVER, "operation", "code"),
            "HTTP requests made to the server.",
        ),
        ("gauge", "ci_server_clock_skew_seconds", SERVER, "The server's clock minus ours."),
        ("histogram", "ci_build_detection_seconds", SERVER, "From a build's end to its record here."),
        ("gauge", "ci_builds_missing", SERVER, "Build numbers known to exist that could not be read."),
        (
            "counter",
            "ci_unknown_values_total",
            (*SERVER, "field"),
            "Values and rows outside what the server is known to send.",
        ),
        ("gauge", "ci_import_repos_remaining", SERVER, "Repos whose history is still to be read."),
    ),
    Group.DELIVERY: (
        ("counter", "ci_notifications_total", ("target", "kind", "outcome"), "Messages that are done with."),
        ("counter", "ci_notification_attempts_total", ("target", "outcome"), "Attempts to send a message."),
        (
            "gauge",
            "ci_notifications_pending",
            ("target",),
            "Messages that wait to be sent, without those held back.",
        ),
        (
            "gauge",
            "ci_notifications_dead",
            ("target",),
            "Messages that were refused or tried in vain; kept for 30 days.",
        ),
        (
            "gauge",
            "ci_notification_oldest_pending_timestamp_seconds",
            ("target",),
            "Since when the message that waits longest waits; only while one does.",
        ),
        (
            "gauge",
            "ci_alertmanager_last_success_timestamp_seconds",
            ("alertmanager",),
            "When it last took all that it is to be told; 0: not yet.",
        ),
        ("gauge", "ci_alertmanager_clock_skew_seconds", ("alertmanager",), "Its clock minus ours."),
    ),
    Group.EXPORTER: (
        (
            "counter",
            "ci_hook_requests_total",
            ("hook", "outcome"),
            "Requests to /hooks, by what became of them.",
        ),
        ("gauge", "ci_exporter_build_info", ("version",), "1; the exporter's version."),
        ("gauge", "ci_exporter_series", ("family",), "Series on the page by family."),
        ("gauge", "ci_ledger_builds", SERVER, "Runs of builds kept in the ledger."),
        ("gauge", "ci_ledger_size_bytes", (), "Size of the ledger."),
    ),
}
"""Type, name, labels and meaning of every family, in the order of the page."""

METRICS: dict[str, Metric] = {
    name: Metric(name, kind, tuple(labels), group, meaning, BUCKETS.get(name, ()))
    for group, rows in _TABLE.items()
    for kind, name, labels, meaning in rows
}
