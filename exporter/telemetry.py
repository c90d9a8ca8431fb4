"""The metrics that count this process's own work; they start at 0 with it.

What the ledger knows is in `exporter.samples`; names, help texts, labels and buckets of both come from
`exporter.metrics.METRICS`.
"""

import logging
import threading
from collections.abc import Collection, Iterable
from typing import Literal, get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)
from prometheus_client.metrics_core import Metric as Family

from exporter import __version__
from exporter.metrics import METRICS

Reason = Literal["timeout", "refused", "tls", "dns", "auth", "status", "json", "shape", "limit"]
"""Why a server could not be read: the closed list of the label `reason`."""

REASONS: tuple[Reason, ...] = get_args(Reason)
FIELDS = ("status", "step_status", "event", "queued", "created", "started", "finished", "reviewed", "row")
"""The values of the label `field`."""

KINDS = ("opened", "changed", "resolved", "flapping", "stale", "digest", "reminder", "alert", "test")
OUTCOMES = ("delivered", "dead", "superseded", "expired")
ATTEMPTS = ("ok", "retry", "permanent", "ambiguous")
"""The closed lists of the labels `kind` and `outcome` of messages, and of `outcome` of attempts."""

HookOutcome = Literal[
    "accepted",
    "unauthorized",
    "stale",
    "replayed",
    "tampered",
    "invalid",
    "slow",
    "oversized",
    "failed",
]
"""What becomes of what is sent to a hook: the closed list of the label `outcome` there."""

HOOK_OUTCOMES: tuple[HookOutcome, ...] = get_args(HookOutcome)

LOGGED_VALUES = 200
"""Unknown values of one server that are logged; more are only counted."""

log = logging.getLogger(__name__)


class Registry(CollectorRegistry):
    """A registry that leaves `_created` samples out unless they are wanted."""

    def __init__(self, *, created: bool) -> None:
        super().__init__(auto_describe=True)
        self._wants_created = created

    def collect(self) -> Iterable[Family]:
        for family in super().collect():
            if not self._wants_created:
                family.samples = [s for s in family.samples if not s.name.endswith("_created")]
            yield family


class Telemetry:
    """The process's own counters and gauges, one attribute a family, in a registry of their own.

    Every family that has a label `server` begins with it, so `labels(server, …)` always fits.
    """

    def __init__(self, *, created: bool = False) -> None:
        self.registry = Registry(created=created)
        self.up = self._gauge("ci_server_up")
        self.info = self._gauge("ci_server_info")
        self.last_poll = self._gauge("ci_server_last_poll_timestamp_seconds")
        self.poll_duration = self._histogram("ci_server_poll_duration_seconds")
        self.poll_failures = self._counter("ci_server_poll_failures_total")
        self.requests = self._counter("ci_server_requests_total")
        self.clock_skew = self._gauge("ci_server_clock_skew_seconds")
        self.detection = self._histogram("ci_build_detection_seconds")
        self.missing = self._gauge("ci_builds_missing")
        self.unknown_values = self._counter("ci_unknown_values_total")
        self.import_remaining = self._gauge("ci_import_repos_remaining")
        self._notified = self._counter("ci_notifications_total")
        self._attempts = self._counter("ci_notification_attempts_total")
        self._pending = self._gauge("ci_notifications_pending")
        self._dead = self._gauge("ci_notifications_dead")
        self._oldest = self._gauge("ci_notification_oldest_pending_timestamp_seconds")
        self._received = self._counter("ci_hook_requests_total")
        self.alertmanager_success = self._gauge("ci_alertmanager_last_success_timestamp_seconds")
        self.alertmanager_skew = self._gauge("ci_alertmanager_clock_skew_seconds")
        self._gauge("ci_exporter_build_info").labels(__version__).set(1)
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self._targets: set[str] = set()
        self._hooks: set[str] = set()
        self._alertmanagers: set[str] = set()
        self._logged: dict[str, set[tuple[str, str]]] = {}
        self._lock = threading.Lock()

    def add(self, server: str) -> None:
        """Let every series of a configured server whose labels are known exist, at 0."""
        self.up.labels(server)
        self.missing.labels(server)
        self.detection.labels(server)
        for reason in REASONS:
            self.poll_failures.labels(server, reason)
        for field in FIELDS:
            self.unknown_values.labels(server, field)

    def forget(self, server: str) -> None:
        """Drop every series of a server that left the configuration."""
        for family in (
            self.up,
            self.info,
            self.last_poll,
            self.poll_duration,
            self.poll_failures,
            self.requests,
            self.clock_skew,
            self.detection,
            self.missing,
            self.unknown_values,
            self.import_remaining,
        ):
            family.remove_by_labels({"server": server})
        with self._lock:
            self._logged.pop(server, None)

    def add_target(self, target: str) -> None:
        """Let every series of a target exist, at 0."""
        with self._lock:
            self._targets.add(target)
        self._pending.labels(target)
        self._dead.labels(target)
        for attempt in ATTEMPTS:
            self._attempts.labels(target, attempt)
        for kind in KINDS:
            for outcome in OUTCOMES:
                self._notified.labels(target, kind, outcome)

    def keep_targets(self, targets: Collection[str]) -> None:
        """Drop every series of targets that left the configuration."""
        with self._lock:
            left, self._targets = self._targets - set(targets), set(targets)
        for family in (self._notified, self._attempts, self._pending, self._dead, self._oldest):
            for target in left:
                family.remove_by_labels({"target": target})

    def add_alertmanager(self, address: str) -> None:
        """Let what is known of an Alertmanager before it answers exist."""
        with self._lock:
            self._alertmanagers.add(address)
        self.alertmanager_success.labels(address)

    def keep_alertmanagers(self, addresses: Collection[str]) -> None:
        """Drop every series of Alertmanagers that left the configuration."""
        with self._lock:
            left, self._alertmanagers = self._alertmanagers - set(addresses), set(addresses)
        for family in (self.alertmanager_success, self.alertmanager_skew):
            for address in left:
                family.remove_by_labels({"alertmanager": address})

    def notified(self, target: str, kind: str, outcome: str) -> None:
        """Count a message that is done with."""
        self._notified.labels(target, kind, outcome).inc()

    def attempted(self, target: str, outcome: str) -> None:
        """Count an attempt to send a message."""
        self._attempts.labels(target, outcome).inc()

    def waiting(self, target: str, pending: int, dead: int, oldest: float | None) -> None:
        """Show what waits for a target, and since when (Unix seconds)."""
        self._pending.labels(target).set(pending)
        self._dead.labels(target).set(dead)
        if oldest is not None:
            self._oldest.labels(target).set(oldest)
        else:
            self._oldest.remove_by_labels({"target": target})

    def keep_hooks(self, hooks: Collection[str]) -> None:
        """Let every series of these hooks exist, at 0 at first, and none of another."""
        with self._lock:
            left, self._hooks = self._hooks - set(hooks), set(hooks)
        for hook in left:
            self._received.remove_by_labels({"hook": hook})
        for hook in hooks:
            for outcome in HOOK_OUTCOMES:
                self._received.labels(hook, outcome)

    def received(self, hook: str, outcome: HookOutcome) -> None:
        """Count a request to a hook."""
        self._received.labels(hook, outcome).inc()

    def identify(self, server: str, dialect: str, version: str) -> None:
        """Say in ci_server_info what the server is, in place of what it was before."""
        self.info.remove_by_labels({"server": server})
        self.info.labels(server, dialect, version).set(1)

    def failed(self, server: str, reason: Reason) -> None:
        """Count a poll, or a part of one, that failed."""
        self.poll_failures.labels(server, reason).inc()

    def unknown(self, server: str, field: str, value: object) -> None:
        """Count a value outside what the server is known to send, and log it when it is new."""
        self.unknown_values.labels(server, field).inc()
        shown = repr(value[:80] if isinstance(value, str) else value)[:80]
        with self._lock:
            logged = self._logged.setdefault(server, set())
            if (field, shown) in logged or len(logged) >= LOGGED_VALUES:
                return
            logged.add((field, shown))
            last = len(logged) == LOGGED_VALUES
        log.warning(
            "server %s: %s: outside what it is known to send: %s%s",
            server,
            field,
            shown,
            " (more of this server are counted, not logged)" if last else "",
        )

    def _gauge(self, name: str) -> Gauge:
        metric = METRICS[name]
        return Gauge(name, metric.help, metric.labels, registry=self.registry)

    def _counter(self, name: str) -> Counter:
        metric = METRICS[name]
        return Counter(name, metric.help, metric.labels, registry=self.registry)

    def _histogram(self, name: str) -> Histogram:
        metric = METRICS[name]
        return Histogram(name, metric.help, metric.labels, registry=self.registry, buckets=metric.buckets)
