"""From what the ledger knows of one repo to its samples on the page. Nothing here does I/O."""

import json
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from exporter.incidents import State
from exporter.ledger import Policy, RepoFacts, is_live, names
from exporter.ledger.counts import Total, born
from exporter.ledger.heads import BranchHead, CronHead, EnvironmentHead, Key, Point
from exporter.ledger.runs import Run
from exporter.ledger.schema import ENDING
from exporter.metrics import METRICS, OTHER, Exemplar, Histogram, Sample
from exporter.model import Status

WITHHELD = 120.0
"""Seconds for which a new series is shown at 0: Prometheus sees no increase in one that is born at 1."""

_BRANCH_HEAD = msgspec.json.Decoder(BranchHead)
_CRON_HEAD = msgspec.json.Decoder(CronHead)
_ENVIRONMENT_HEAD = msgspec.json.Decoder(EnvironmentHead)


@dataclass(frozen=True, slots=True)
class View:
    """What turns facts into samples beside the facts: now by both clocks, and the configuration."""

    policy: Policy
    abandoned_after: float
    now: float
    server_now: float


def repo_samples(facts: RepoFacts, view: View) -> tuple[list[Sample], float]:
    """All samples of a repo, and when (our clock) they change although nothing happens to it."""
    repo = facts.repo
    expires = [float("inf")]
    found = list(_happened(facts, view, expires))
    if not repo.gone:
        found += _heads(facts)
        found += _open(facts, view, expires)
        found += _red(facts)
        if repo.timeout:
            found.append(_gauge(facts, "ci_repo_timeout_seconds", (), repo.timeout))
        found.append(_gauge(facts, "ci_repo_info", (repo.build_url, repo.default_branch), 1))
    return found, min(expires)


def _happened(facts: RepoFacts, view: View, expires: list[float]) -> Iterator[Sample]:
    series = dict.fromkeys(facts.totals, 0.0) | born(facts.names)
    for key in sorted(series):
        family, labels = key
        metric = METRICS[family]
        total = facts.totals.get(key)
        since = total.since if total else series[key]
        if total and 0 <= view.now - since < WITHHELD:
            expires.append(since + WITHHELD)
            total = None
        value: float | Histogram = total.value if total else 0.0
        if metric.type == "histogram":
            value = _histogram(facts, total, len(metric.buckets) + 1)
        yield Sample(metric, (facts.repo.server, facts.repo.name, *labels), value, since)


def _histogram(facts: RepoFacts, total: Total | None, buckets: int) -> Histogram:
    if total is None or total.counts is None:
        return Histogram([0] * buckets, 0.0)
    url = facts.repo.build_url
    return Histogram(
        total.counts,
        total.value,
        {
            place: Exemplar((("build", str(number)), ("url", f"{url}{number}")), value, time)
            for place, (number, value, time) in total.exemplars.items()
        },
    )


def _heads(facts: RepoFacts) -> Iterator[Sample]:
    unread: dict[tuple[str, ...], Key] = {}
    for run in facts.open:
        if run.state == ENDING and not is_live(facts.repo, run):
            of_branch = (run.branch, run.event)
            unread[of_branch] = max(run.key, unread.get(of_branch, run.key))
    for (kind, name), state in facts.heads.items():
        labels = tuple(json.loads(name))
        if kind == names.BRANCH:
            yield from _branch(facts, labels, _BRANCH_HEAD.decode(state), unread=unread.get(labels))
        elif kind == names.CRON:
            cron = _CRON_HEAD.decode(state)
            if cron.last:
                yield _gauge(facts, "ci_last_cron_finished_timestamp_seconds", labels, cron.last.finished)
            if cron.interval is not None:
                yield _gauge(facts, "ci_cron_interval_seconds", labels, cron.interval)
        elif kind == names.ENVIRONMENT:
            last = _ENVIRONMENT_HEAD.decode(state).last
            if last:
                yield _gauge(facts, "ci_last_deployment_status", labels, last.status)
                yield _gauge(facts, "ci_last_deployment_timestamp_seconds", labels, last.finished)


def _branch(
    facts: RepoFacts, labels: tuple[str, ...], head: BranchHead, *, unread: Key | None
) -> Iterator[Sample]:
    """The gauges of a branch and event; `unread`: the newest end of its history still to be read singly."""
    last = head.last
    if last is None:
        return
    if unread is None or unread < last.key:
        yield from _last(facts, labels, last)
    points: tuple[tuple[str, Point | None], ...] = (
        ("ci_last_success_timestamp_seconds", head.good),
        ("ci_last_failure_timestamp_seconds", head.bad),
    )
    for family, point in points:
        if point is not None:
            yield _gauge(facts, family, labels, point.finished)
    if unread is None and (head.good is not None or not facts.importing):
        yield _gauge(facts, "ci_consecutive_failures", labels, head.failures)
    if head.expected_duration is not None:
        yield _gauge(facts, "ci_build_expected_duration_seconds", labels, head.expected_duration)


def _last(facts: RepoFacts, labels: tuple[str, ...], last: Point) -> Iterator[Sample]:
    yield _gauge(facts, "ci_last_build_status", labels, last.status)
    yield _gauge(facts, "ci_last_build_number", labels, last.key[1])
    yield _gauge(facts, "ci_last_build_finished_timestamp_seconds", labels, last.finished)
    if last.duration is not None:
        yield _gauge(facts, "ci_last_build_duration_seconds", labels, last.duration)


def _open(facts: RepoFacts, view: View, expires: list[float]) -> Iterator[Sample]:
    counts = dict.fromkeys((Status.RUNNING, Status.PENDING, Status.BLOCKED), 0)
    abandoned = 0
    oldest: dict[tuple[str, str], int] = {}
    for run in facts.open:
        status = Status(run.status)
        if not status.open or not view.policy.counts(run.event, run.branch):
            continue
        age = view.server_now - (run.run or run.created)
        if age > view.abandoned_after:
            abandoned += 1
            continue
        expires.append(view.now + view.abandoned_after - age + 1)
        counts[status] += 1
        family, since = _since(run, status)
        branch = run.branch if (names.BRANCH, run.branch) in facts.names else OTHER
        if since and branch != OTHER:
            oldest[family, branch] = min(since, oldest.get((family, branch), since))
    for status, count in counts.items():
        yield _gauge(facts, f"ci_builds_{status.word}", (), count)
    yield _gauge(facts, "ci_builds_abandoned", (), abandoned)
    for (family, branch), since in oldest.items():
        yield _gauge(facts, family, (branch,), since)


def _red(facts: RepoFacts) -> Iterator[Sample]:
    """What is red; of several incidents with the same labels the one that is open longest."""
    yield _gauge(facts, "ci_incidents_open", (), len(facts.red))
    oldest: dict[tuple[str, str], State] = {}
    for state in sorted(facts.red, key=lambda state: state.opened):
        branch = state.branch if (names.BRANCH, state.branch) in facts.names else OTHER
        oldest.setdefault((branch, state.event), state)
    for labels, state in oldest.items():
        yield _gauge(facts, "ci_incident_opened_timestamp_seconds", labels, state.opened)
        yield _gauge(facts, "ci_incident_first_build_number", labels, state.first)


def _since(run: Run, status: Status) -> tuple[str, int]:
    match status:
        case Status.RUNNING:
            return "ci_oldest_running_build_started_timestamp_seconds", run.started
        case Status.PENDING:
            return "ci_oldest_pending_build_queued_timestamp_seconds", run.run
        case _:
            return "ci_oldest_blocked_build_created_timestamp_seconds", run.created


def _gauge(facts: RepoFacts, family: str, labels: tuple[str, ...], value: float) -> Sample:
    return Sample(METRICS[family], (facts.repo.server, facts.repo.name, *labels), float(value))
