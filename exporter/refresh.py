"""Keeps the page true: renders what changed, what expired, and withdraws what is not known any more."""

import threading
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import ParamSpec, TypeAlias

from exporter.exposition import Page
from exporter.ledger import Ledger, LedgerError, Policy, RepoFacts
from exporter.log import logger
from exporter.metrics import METRICS, Sample
from exporter.samples import View, repo_samples

STALE = 600.0
"""Seconds after the last successful poll at which a server's gauges are withdrawn."""

P = ParamSpec("P")
Key: TypeAlias = tuple[str, str]
"""Server and name of a repo on the page."""

log = logger(__name__)


@dataclass(frozen=True, slots=True)
class Shown:
    """A server whose repos are on the page; `skew` is its clock minus ours in seconds."""

    policy: Policy
    skew: Callable[[], float]
    last_poll: Callable[[], float]
    """When it was last polled with success (our clock); 0 for never."""


class Refresher:
    """Renders repos from the ledger into the page."""

    def __init__(
        self, page: Page, ledger: Ledger, *, abandoned_after: float, clock: Callable[[], float]
    ) -> None:
        self._page, self._ledger, self._clock = page, ledger, clock
        self._abandoned_after = abandoned_after
        self._servers: dict[str, Shown] = {}
        self._expires: dict[int, float] = {}
        self._due: set[int] = set()
        self._unshown: set[str] = set()
        self._keys: dict[int, Key] = {}
        self._ids: dict[Key, int] = {}
        self._failing = False
        self._lock = threading.Lock()

    def show(self, server: str, shown: Shown) -> None:
        """Puts all repos of a server on the page."""
        with self._lock:
            self._servers[server] = shown
            self._unshown.add(server)
        self._show()

    def forget(self, server: str) -> None:
        """Takes a server off the page."""
        with self._lock:
            self._servers.pop(server, None)
            for repo_id in [i for i, key in self._keys.items() if key[0] == server]:
                self._drop(repo_id)

    def refresh(self, repo_ids: Collection[int]) -> None:
        """Renders these repos again; what cannot be read now is rendered once it can."""
        with self._lock:
            self._due.update(repo_ids)
            due = list(self._due)
        if self._could(self._render, self._ledger.facts(due)):
            with self._lock:
                self._due.difference_update(due)

    def tick(self) -> None:
        """Renders what changed by time alone; to be called every few seconds."""
        now = self._clock()
        with self._lock:
            self._due.update(repo_id for repo_id, at in self._expires.items() if at <= now)
            due = bool(self._due)
            servers = dict(self._servers)
        for name, shown in servers.items():
            if now - shown.last_poll() > STALE:
                self._page.hide(name)
            else:
                self._page.show(name)
        self._show()
        if due:
            self.refresh(())

    def _show(self) -> None:
        """Renders servers as a whole that were not rendered yet."""
        for server in list(self._unshown):
            if not self._could(self._render, self._ledger.facts(server=server)):
                return
            self._unshown.discard(server)

    def measure(self) -> None:
        """Renews the ledger's own figures on the page, where they can be had."""
        self._could(self._measure)

    def _could(self, work: Callable[P, None], *args: P.args, **options: P.kwargs) -> bool:
        """False when the ledger could not be read, which is logged when it begins and when it ends."""
        try:
            work(*args, **options)
        except LedgerError as error:
            if not self._failing:
                log.warning("the page cannot be renewed", error=error)
            self._failing = True
            return False
        if self._failing:
            log.info("the page is renewed again")
        self._failing = False
        return True

    def _measure(self) -> None:
        samples = [
            Sample(METRICS["ci_ledger_builds"], (server,), float(count))
            for server, count in self._ledger.count_builds().items()
            if server in self._servers
        ]
        samples.append(Sample(METRICS["ci_ledger_size_bytes"], (), float(self._ledger.size())))
        self._page.put("ledger", samples)

    def _render(self, found: Iterable[RepoFacts]) -> None:
        # Shown once all that had a name before has let go of it: no series stands twice on the page.
        late: list[tuple[int, Key, Sequence[Sample]]] = []
        with self._lock:
            for facts in found:
                repo = facts.repo
                shown = self._servers.get(repo.server)
                if shown is None or not repo.watched:
                    self._drop(repo.id)
                    continue
                now = self._clock()
                view = View(shown.policy, self._abandoned_after, now, now + shown.skew())
                samples, expires = repo_samples(facts, view)
                key = (repo.server, repo.name)
                if self._keys.get(repo.id, key) != key:
                    self._drop(repo.id)
                if self._ids.get(key, repo.id) == repo.id:
                    self._put(repo.id, key, samples)
                else:
                    late.append((repo.id, key, samples))
                if expires < float("inf"):
                    self._expires[repo.id] = expires
                else:
                    self._expires.pop(repo.id, None)
            for each in late:
                self._put(*each)

    def _put(self, repo_id: int, key: Key, samples: Sequence[Sample]) -> None:
        self._page.put(key, samples)
        self._keys[repo_id], self._ids[key] = key, repo_id

    def _drop(self, repo_id: int) -> None:
        """Takes a repo off the page, unless its place there is another one's by now."""
        key = self._keys.pop(repo_id, None)
        self._expires.pop(repo_id, None)
        if key is not None and self._ids[key] == repo_id:
            del self._ids[key]
            self._page.drop(key)
