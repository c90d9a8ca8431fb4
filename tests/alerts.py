"""The alert rules as they are shipped."""

import re
from pathlib import Path
from typing import Any

import yaml

from exporter.metrics import METRICS

ROOT = Path(__file__).parent.parent
GRAFANA = ROOT / "grafana"
SHIPPED = [GRAFANA / "rules/ci.yaml", GRAFANA / "rules/optional/ci-red-branch.yaml"]
TESTS = {path.stem: path for path in sorted((GRAFANA / "rules/tests").glob("*.yaml"))}
"""The unit tests of promtool, by the name of the alert."""
PROMETHEUS = {"up": frozenset({"job", "instance"})}
"""What rules read that Prometheus itself makes, with its labels."""
COMING = {
    "ci_notifications_pending": frozenset({"target"}),
    "ci_notifications_dead": frozenset({"target"}),
    "ci_notification_oldest_pending_timestamp_seconds": frozenset({"target"}),
    "ci_notification_attempts_total": frozenset({"target", "outcome"}),
    "ci_alertmanager_last_success_timestamp_seconds": frozenset({"alertmanager"}),
    "ci_alertmanager_clock_skew_seconds": frozenset({"alertmanager"}),
}
"""Families that are promised and not in METRICS yet; what is there is taken from there."""
COMING_COMMANDS = {"outbox"}
"""Commands that runbooks name before they exist."""


def rules_of(*paths: Path) -> list[dict[str, Any]]:
    """Every rule of these files."""
    files = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in paths]
    return [rule for file in files for group in file["groups"] for rule in group["rules"]]


RULES = rules_of(*SHIPPED)
NAMES = [rule["alert"] for rule in RULES]


def labels_of(name: str) -> frozenset[str] | None:
    """The labels of what is scraped under this name; None where there is no such family."""
    family = name if name in METRICS else re.sub(r"_(bucket|sum|count)$", "", name)
    if family in METRICS:
        return frozenset({*METRICS[family].labels, *(("le",) if name.endswith("_bucket") else ())})
    return (PROMETHEUS | COMING).get(name)
