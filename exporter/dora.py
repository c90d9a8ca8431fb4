"""The four numbers of software delivery, from deployments. Nothing here does I/O.

They are those of the DORA reports: how often it is deployed, how often that fails, how long a commit
takes to be deployed, and how long it takes to have a failed deployment made good.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

WINDOWS = {"7d": 7 * 86_400, "30d": 30 * 86_400, "90d": 90 * 86_400}
"""Seconds by the value of the label `window`."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """One deployment that ended well or badly; times are Unix seconds."""

    environment: str
    finished: int
    good: bool
    committed: int = 0
    """When the first build of its commit was created; 0 where that is not known."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """What the deployments of a window say; times are medians in seconds, None without any."""

    deployments: int
    failed: int
    lead_time: float | None
    time_to_restore: float | None


def deliver(deployments: Iterable[Deployment], now: float) -> dict[str, Delivery]:
    """The four numbers by window, for deployments of one repo in any order.

    A deployment belongs to the windows in which it ended, and a restoration to those in which the
    environment was good again; it counts from the first of the failures before.
    """
    ended = sorted(deployments, key=lambda deployment: deployment.finished)
    restored = _restorations(ended)
    return {
        window: _in_window(
            [deployment for deployment in ended if deployment.finished > now - seconds],
            [took for at, took in restored if at > now - seconds],
        )
        for window, seconds in WINDOWS.items()
    }


def _in_window(ended: Sequence[Deployment], restored: Sequence[int]) -> Delivery:
    leads = [
        max(0, deployment.finished - deployment.committed)
        for deployment in ended
        if deployment.good and deployment.committed
    ]
    return Delivery(
        len(ended),
        sum(not deployment.good for deployment in ended),
        median(leads) if leads else None,
        median(restored) if restored else None,
    )


def _restorations(ended: Iterable[Deployment]) -> list[tuple[int, int]]:
    """When a bad environment was good again, and how many seconds that took."""
    bad_since: dict[str, int] = {}
    found = []
    for deployment in ended:
        if not deployment.good:
            bad_since.setdefault(deployment.environment, deployment.finished)
        elif deployment.environment in bad_since:
            since = bad_since.pop(deployment.environment)
            found.append((deployment.finished, deployment.finished - since))
    return found
