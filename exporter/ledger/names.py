"""Which label value a branch, step, environment or cron job has: its own, or `other`.

A value that was given a place keeps it until it is pruned, so that a series never changes its
name while it counts. What the rules of the configuration name takes no place.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from exporter.metrics import OTHER

BRANCH, SERIES, STEP, ENVIRONMENT, CRON = "branch", "series", "step", "environment", "cron"
PLACES = {BRANCH: 20, STEP: 50, ENVIRONMENT: 20, CRON: 20}


def as_json(labels: Sequence[str]) -> str:
    """The one spelling of several label values in a key."""
    return json.dumps(labels, ensure_ascii=False, separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class Policy:
    """What the configuration says of one server's builds."""

    names_branch: Callable[[str, str], bool]
    """(branch, default branch) -> it is always named."""
    counts: Callable[[str, str], bool]
    """(event, branch) -> builds of these are counted and shown."""
    series_retention: float
    """Seconds after which a value without a build gives its place back."""


@dataclass(slots=True)
class Name:
    """One label value in use: since when (our clock) and its newest build (server's clock)."""

    slot: bool
    since: float
    last: int


@dataclass(slots=True)
class Names:
    """The label values in use of one repo; `changed` are those to be written back."""

    default_branch: str
    policy: Policy
    known: dict[tuple[str, str], Name]
    now: float
    changed: set[tuple[str, str]] = field(default_factory=set)

    def branch(self, branch: str, built: int) -> str:
        """The label of `branch`, which has a build from `built` (server's clock)."""
        known = self.known.get((BRANCH, branch))
        if known is not None and built <= known.last and not known.slot:
            return branch
        if branch == "" or self.policy.names_branch(branch, self.default_branch):
            self._use(BRANCH, branch, built, slot=False)
            return branch
        return self._place(BRANCH, branch, built) or OTHER

    def series(self, branch: str, event: str, built: int, *, counted: bool = False) -> bool:
        """Notes that builds of `event` are counted under the label `branch`; True when that is new."""
        if built < self.now - self.policy.series_retention and not counted:
            return False
        return self._use(SERIES, as_json([branch, event]), built, slot=False)

    def steps(self, names: Iterable[str], built: int) -> list[str]:
        """The labels of a build's steps, in their order."""
        return [self._place(STEP, name, built) or OTHER for name in names]

    def environment(self, name: str, built: int) -> str:
        """The label of a deployment's environment."""
        return self._place(ENVIRONMENT, name, built) or OTHER

    def cron(self, name: str, built: int) -> str | None:
        """The label of a cron job; None beyond the cap, for a time has no meaning for several."""
        return self._place(CRON, name, built)

    def _place(self, kind: str, name: str, built: int) -> str | None:
        if (kind, name) not in self.known:
            taken = sum(1 for (k, _), known in self.known.items() if k == kind and known.slot)
            if taken >= PLACES[kind] or built < self.now - self.policy.series_retention:
                return None
        self._use(kind, name, built, slot=True)
        return name

    def _use(self, kind: str, name: str, built: int, *, slot: bool) -> bool:
        known = self.known.get((kind, name))
        if known is None:
            self.known[kind, name] = Name(slot, self.now, built)
        elif built > known.last or (known.slot and not slot):
            known.last, known.slot = max(built, known.last), slot
        else:
            return False
        self.changed.add((kind, name))
        return known is None
