"""What could not be read, of a server or of one of its repos: asked for again later and later.

A fault is counted each time, and logged when it begins and when it ends.
"""

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass

from exporter.http import ServerError
from exporter.log import logger
from exporter.telemetry import Telemetry

LONGEST_BACKOFF = 300.0
"""Seconds for which a server is left alone at most, unless it asks for more."""
TRIES, TRIED_FOR = 3, 600.0
"""After so many tries or seconds something of a repo is given up; it is asked for at least that often."""
SERVER_FAULTS = frozenset({"dns", "tls", "limit"})
"""Reasons that concern the whole server; others on a repo's path concern that repo."""
UNANSWERED = frozenset({"timeout", "refused"})
"""Reasons that are a repo's own while the server answers others."""


log = logger(__name__)


@dataclass(slots=True)
class Attempts:
    """Since when, how often and when next (monotonic seconds) something is asked for."""

    first: float
    count: int = 0
    next: float = 0.0

    def are_enough(self, now: float) -> bool:
        """True when it has been asked for often or long enough to do without."""
        return self.count >= TRIES or now - self.first >= TRIED_FOR


class Faults:
    """The faults of one server, and of its repos."""

    def __init__(
        self,
        name: str,
        telemetry: Telemetry,
        poll: float,
        monotonic: Callable[[], float],
        stop: threading.Event,
    ) -> None:
        self._name, self._telemetry, self._poll = name, telemetry, poll
        self._monotonic, self._stop = monotonic, stop
        self._attempts: dict[object, Attempts] = {}
        self._failing: set[str] = set()
        self._silent: set[str] = set()
        """What did not answer since the server last did."""
        self._failures, self._not_before = 0, 0.0
        self.server = ""
        """Why the last look at the server failed; empty while all is well."""

    def server_due(self) -> bool:
        """True when the server is to be looked at (again)."""
        return self._monotonic() >= self._not_before

    def server_bad(self, error: ServerError) -> None:
        """Leaves the server alone for a while: longer each time, to 5 minutes, or as long as it asks."""
        self._telemetry.failed(self._name, error.reason)
        delay = min(LONGEST_BACKOFF, self._poll * 2 ** min(self._failures, 10))
        self._failures += 1
        jittered = delay * random.uniform(0.5, 1.0)  # noqa: S311  # spreads load, guards nothing
        self._not_before = self._monotonic() + max(jittered, error.retry_after or 0.0)
        self.stopped(error.message)

    def stopped(self, fault: str) -> None:
        """The look at the server failed, whoever is at fault."""
        self._telemetry.up.labels(self._name).set(0)
        if not self.server:
            log.error(fault, server=self._name)
        self.server = fault

    def answered(self) -> None:
        """The server itself is there: what does not answer after this is that repo's own fault."""
        self._silent.clear()

    def server_good(self) -> None:
        """The look at the server was a success."""
        self._telemetry.up.labels(self._name).set(1)
        self._failures = 0
        if self.server:
            log.info("the server is polled again", server=self._name)
        self.server = ""

    def due(self, key: object) -> bool:
        """True when it is time to ask for `key` (again)."""
        known = self._attempts.get(key)
        return known is None or self._monotonic() >= known.next

    def good(self, key: object, repo: str) -> None:
        """It was read."""
        self._silent.clear()
        self._attempts.pop(key, None)
        if repo in self._failing:
            self._failing.discard(repo)
            log.info("a repo can be read again", server=self._name, repo=repo)

    def later(self, key: object, seconds: float) -> None:
        """It was read, and is to be asked for again, though not so soon."""
        now = self._monotonic()
        self._attempts[key] = Attempts(now, next=now + seconds)

    def forget(self, key: object) -> None:
        """It is not asked for any more."""
        self._attempts.pop(key, None)

    def bad(self, key: object, repo: str, error: ServerError) -> bool:
        """It could not be read: counted, and tried again after longer and longer.

        True when that was tried often enough to do without. Raises `error` again where it concerns
        the whole server, as it does when a second repo in a row does not answer, or where the
        exporter stops and nobody is at fault.
        """
        if error.reason in SERVER_FAULTS or self._stop.is_set():
            raise error
        self._telemetry.failed(self._name, error.reason)
        if repo not in self._failing:
            self._failing.add(repo)
            log.warning(str(error), server=self._name, repo=repo)
        now = self._monotonic()
        tries = self._attempts.setdefault(key, Attempts(now))
        tries.count += 1
        tries.next = now + min(TRIED_FOR, self._poll * 2 ** min(tries.count - 1, 10))
        if error.reason in UNANSWERED:
            self._silent.add(repo)
            if len(self._silent) > 1:
                raise error
        return tries.are_enough(now)
