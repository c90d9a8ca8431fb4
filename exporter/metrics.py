"""The metrics that are promised: every family stands once, in `METRICS`.

README, docs, tests, dashboards and rules are checked against this table, both ways.
"""

from exporter.series import Exemplar, Group, Histogram, Metric, Sample

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

METRICS: dict[str, Metric] = {
    m.name: m
    for m in (
        Metric("ci_builds_total", "counter", (*BRANCH, "status"), Group.HAPPENED, "Finished runs of builds."),
        Metric(
            "ci_build_duration_seconds",
            "histogram",
            BRANCH,
            Group.HAPPENED,
            "How long good builds ran, from start to end.",
            DURATION_BUCKETS,
        ),
        Metric(
            "ci_build_seconds_total",
            "counter",
            (*REPO, "status"),
            Group.HAPPENED,
            "Time that builds ran, whatever their end.",
        ),
        Metric(
            "ci_build_queue_seconds",
            "histogram",
            REPO,
            Group.HAPPENED,
            "How long builds waited from queued to started.",
            QUEUE_BUCKETS,
        ),
        Metric(
            "ci_steps_total",
            "counter",
            (*REPO, "step", "status"),
            Group.HAPPENED,
            "Finished steps of builds (Drone 0.5: jobs).",
        ),
        Metric(
            "ci_step_duration_seconds",
            "histogram",
            (*REPO, "step"),
            Group.HAPPENED,
            "How long steps ran.",
            STEP_BUCKETS,
        ),
        Metric(
            "ci_build_flaky_total",
            "counter",
            (*REPO, "branch"),
            Group.HAPPENED,
            "Commits with a bad and a later good end.",
        ),
        Metric("ci_build_restarts_total", "counter", REPO, Group.HAPPENED, "Runs that were started again."),
        Metric(
            "ci_deployments_total",
            "counter",
            (*REPO, "environment", "status"),
            Group.HAPPENED,
            "Finished builds of event deployment.",
        ),
        Metric(
            "ci_last_build_status",
            "gauge",
            BRANCH,
            Group.NOW,
            "Status of the newest finished build: 0 unknown, 1 success, 2 failure, 3 error, 4 timeout, "
            "5 cancelled, 6 skipped, 7 declined.",
        ),
        Metric("ci_last_build_number", "gauge", BRANCH, Group.NOW, "Number of the newest finished build."),
        Metric(
            "ci_last_build_duration_seconds",
            "gauge",
            BRANCH,
            Group.NOW,
            "How long the newest finished build ran.",
        ),
        Metric(
            "ci_last_build_finished_timestamp_seconds",
            "gauge",
            BRANCH,
            Group.NOW,
            "When the newest finished build ended.",
        ),
        Metric(
            "ci_last_success_timestamp_seconds",
            "gauge",
            BRANCH,
            Group.NOW,
            "When a build last ended well; absent until one did.",
        ),
        Metric(
            "ci_last_failure_timestamp_seconds",
            "gauge",
            BRANCH,
            Group.NOW,
            "When a build last ended badly; absent until one did.",
        ),
        Metric(
            "ci_consecutive_failures",
            "gauge",
            BRANCH,
            Group.NOW,
            "Bad builds since the last good one; neutral ones do not count.",
        ),
        Metric("ci_builds_running", "gauge", REPO, Group.NOW, "Builds that run."),
        Metric("ci_builds_pending", "gauge", REPO, Group.NOW, "Builds that wait for a runner."),
        Metric("ci_builds_blocked", "gauge", REPO, Group.NOW, "Builds that wait for approval."),
        Metric(
            "ci_builds_abandoned",
            "gauge",
            REPO,
            Group.NOW,
            "Builds open for so long that nobody works on them any more.",
        ),
        Metric(
            "ci_oldest_running_build_started_timestamp_seconds",
            "gauge",
            (*REPO, "branch"),
            Group.NOW,
            "When the build that runs longest was started; only while one runs.",
        ),
        Metric(
            "ci_oldest_pending_build_queued_timestamp_seconds",
            "gauge",
            (*REPO, "branch"),
            Group.NOW,
            "When the build that waits longest was queued; only while one waits.",
        ),
        Metric(
            "ci_oldest_blocked_build_created_timestamp_seconds",
            "gauge",
            (*REPO, "branch"),
            Group.NOW,
            "When the build that waits longest for approval was created; only while one waits.",
        ),
        Metric(
            "ci_build_expected_duration_seconds",
            "gauge",
            BRANCH,
            Group.NOW,
            "Median duration of the last 20 good builds, from 3 on.",
        ),
        Metric(
            "ci_last_cron_finished_timestamp_seconds",
            "gauge",
            (*REPO, "branch", "cron"),
            Group.NOW,
            "When a build of this cron job last ended.",
        ),
        Metric(
            "ci_cron_interval_seconds",
            "gauge",
            (*REPO, "branch", "cron"),
            Group.NOW,
            "Median time between the last 10 starts of this cron job, from 3 on.",
        ),
        Metric("ci_incidents_open", "gauge", REPO, Group.NOW, "Ref classes that are red."),
        Metric(
            "ci_incident_opened_timestamp_seconds",
            "gauge",
            BRANCH,
            Group.NOW,
            "When the incident that is open longest was opened; only while one is.",
        ),
        Metric(
            "ci_incident_first_build_number",
            "gauge",
            BRANCH,
            Group.NOW,
            "Number of the build that opened it; only while one is open.",
        ),
        Metric("ci_repo_timeout_seconds", "gauge", REPO, Group.NOW, "Time limit of the repo's builds."),
        Metric(
            "ci_last_deployment_status",
            "gauge",
            (*REPO, "environment"),
            Group.NOW,
            "Status of the newest finished deployment; codes as in ci_last_build_status.",
        ),
        Metric(
            "ci_last_deployment_timestamp_seconds",
            "gauge",
            (*REPO, "environment"),
            Group.NOW,
            "When the newest finished deployment ended.",
        ),
        Metric(
            "ci_repo_info",
            "gauge",
            (*REPO, "build_url", "default_branch"),
            Group.NOW,
            "1; build_url followed by a build number is that build's page.",
        ),
        Metric(
            "ci_delivery_deployments",
            "gauge",
            (*REPO, "window"),
            Group.NOW,
            "Deployments that ended in the last days.",
        ),
        Metric(
            "ci_delivery_failed_deployments",
            "gauge",
            (*REPO, "window"),
            Group.NOW,
            "Deployments that failed in the last days.",
        ),
        Metric(
            "ci_delivery_lead_time_seconds",
            "gauge",
            (*REPO, "window"),
            Group.NOW,
            "Median time from a commit's first build to the end of its deployment.",
        ),
        Metric(
            "ci_delivery_time_to_restore_seconds",
            "gauge",
            (*REPO, "window"),
            Group.NOW,
            "Median time from a failed deployment to the next good one.",
        ),
        Metric("ci_server_up", "gauge", SERVER, Group.FRESH, "1 when the last poll succeeded."),
        Metric("ci_server_info", "gauge", (*SERVER, "dialect", "version"), Group.FRESH, "1; what it is."),
        Metric(
            "ci_server_last_poll_timestamp_seconds",
            "gauge",
            (*SERVER, "task"),
            Group.FRESH,
            "When this task last succeeded.",
        ),
        Metric(
            "ci_server_poll_duration_seconds",
            "histogram",
            (*SERVER, "task"),
            Group.FRESH,
            "How long the tasks took.",
            POLL_BUCKETS,
        ),
        Metric(
            "ci_server_poll_failures_total",
            "counter",
            (*SERVER, "reason"),
            Group.FRESH,
            "Polls, or parts of one, that failed.",
        ),
        Metric(
            "ci_server_requests_total",
            "counter",
            (*SERVER, "operation", "code"),
            Group.FRESH,
            "HTTP requests made to the server.",
        ),
        Metric(
            "ci_server_clock_skew_seconds",
            "gauge",
            SERVER,
            Group.FRESH,
            "The server's clock minus ours.",
        ),
        Metric(
            "ci_build_detection_seconds",
            "histogram",
            SERVER,
            Group.FRESH,
            "From a build's end to its record here.",
            DETECTION_BUCKETS,
        ),
        Metric(
            "ci_builds_missing",
            "gauge",
            SERVER,
            Group.FRESH,
            "Build numbers known to exist that could not be read.",
        ),
        Metric(
            "ci_unknown_values_total",
            "counter",
            (*SERVER, "field"),
            Group.FRESH,
            "Values and rows outside what the server is known to send.",
        ),
        Metric(
            "ci_import_repos_remaining",
            "gauge",
            SERVER,
            Group.FRESH,
            "Repos whose history is still to be read.",
        ),
        Metric(
            "ci_notifications_total",
            "counter",
            ("target", "kind", "outcome"),
            Group.DELIVERY,
            "Messages that are done with.",
        ),
        Metric(
            "ci_notification_attempts_total",
            "counter",
            ("target", "outcome"),
            Group.DELIVERY,
            "Attempts to send a message.",
        ),
        Metric(
            "ci_notifications_pending",
            "gauge",
            ("target",),
            Group.DELIVERY,
            "Messages that wait to be sent, without those held back.",
        ),
        Metric(
            "ci_notifications_dead",
            "gauge",
            ("target",),
            Group.DELIVERY,
            "Messages that were refused or tried in vain; kept for 30 days.",
        ),
        Metric(
            "ci_notification_oldest_pending_timestamp_seconds",
            "gauge",
            ("target",),
            Group.DELIVERY,
            "Since when the message that waits longest waits; only while one does.",
        ),
        Metric(
            "ci_hook_requests_total",
            "counter",
            ("hook", "outcome"),
            Group.EXPORTER,
            "Requests to /hooks, by what became of them.",
        ),
        Metric(
            "ci_alertmanager_last_success_timestamp_seconds",
            "gauge",
            ("alertmanager",),
            Group.DELIVERY,
            "When it last took all that it is to be told; 0: not yet.",
        ),
        Metric(
            "ci_alertmanager_clock_skew_seconds",
            "gauge",
            ("alertmanager",),
            Group.DELIVERY,
            "Its clock minus ours.",
        ),
        Metric("ci_exporter_build_info", "gauge", ("version",), Group.EXPORTER, "1; the exporter's version."),
        Metric("ci_exporter_series", "gauge", ("family",), Group.EXPORTER, "Series on the page by family."),
        Metric("ci_ledger_builds", "gauge", SERVER, Group.EXPORTER, "Runs of builds kept in the ledger."),
        Metric("ci_ledger_size_bytes", "gauge", (), Group.EXPORTER, "Size of the ledger."),
    )
}
