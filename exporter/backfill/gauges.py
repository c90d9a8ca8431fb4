"""The gauges of a repo's past: those that say what was true, and are known for sure."""

from collections.abc import Iterator

from exporter.ledger.counts import Series
from exporter.ledger.heads import BranchHead, EnvironmentHead, Key, Point, add_branch_end, add_environment_end
from exporter.ledger.runs import Run
from exporter.metrics import OTHER
from exporter.model import Event

FAMILIES = (
    "ci_last_build_status",
    "ci_consecutive_failures",
    "ci_build_expected_duration_seconds",
    "ci_last_deployment_status",
)
"""Those that dashboards show over time, and that ends alone tell."""


class Gauges:
    """Folds the ends of one repo, in the order of time, as the ledger does (`ledger.past`)."""

    def __init__(self) -> None:
        self._branches: dict[tuple[str, str], BranchHead] = {}
        self._environments: dict[str, EnvironmentHead] = {}
        self._bad: dict[tuple[str, str], list[Key]] = {}
        """Of a branch and event the bad ends since the newest good one."""

    def add(self, run: Run, branch: str, environment: str) -> Iterator[tuple[Series, float]]:
        """Folds one end in, under the label values that it has; the series that it moves, and to what."""
        end = Point(run.key, run.when_ended, run.status, run.duration)
        if branch != OTHER:
            labels = branch, run.event
            head = self._branches.setdefault(labels, BranchHead())
            add_branch_end(head, end, good=run.good, bad=run.bad)
            self._count_failures(labels, head, run)
            yield from _values(labels, head)
        if run.event == Event.DEPLOYMENT:
            deployed = self._environments.setdefault(environment, EnvironmentHead())
            add_environment_end(deployed, end)
            if deployed.last is not None:
                yield ("ci_last_deployment_status", (environment,)), float(deployed.last.status)

    def _count_failures(self, labels: tuple[str, str], head: BranchHead, run: Run) -> None:
        """A good end may come between bad ones that were folded in before it."""
        bad = self._bad.setdefault(labels, [])
        if run.bad:
            bad.append(run.key)
        if head.good is not None:
            good = head.good.key
            bad[:] = [key for key in bad if key > good]
        head.failures = len(bad)


def _values(labels: tuple[str, str], head: BranchHead) -> Iterator[tuple[Series, float]]:
    if head.last is not None:
        yield ("ci_last_build_status", labels), float(head.last.status)
    if head.good is not None:
        yield ("ci_consecutive_failures", labels), float(head.failures)
    if head.expected_duration is not None:
        yield ("ci_build_expected_duration_seconds", labels), head.expected_duration
