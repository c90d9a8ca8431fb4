"""Tells one Alertmanager what is red: all of it every minute and when it changes, so that nothing is lost.

Alertmanager keeps alerts in memory and wants to hear of them again and again; which of them people are
told, and when, is its own affair. Each of a cluster is told by itself.
"""

import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from exporter.config_alertmanager import AlertmanagerSettings
from exporter.ledger import LedgerError
from exporter.ledger.alerts import Alert
from exporter.log import logger
from exporter.notify.alert_book import AlertBook
from exporter.notify.alerts import posted
from exporter.notify.post import BY_STATUS, Answer, Post, Reply, Request, Verdict
from exporter.notify.targets import Outcome, Result
from exporter.telemetry import Telemetry

API = "/api/v2/alerts"
LOOK = 1.0
"""Seconds between two turns: so soon a change is posted."""
BATCH = 64
"""Alerts in one request."""
FIRST_WAIT = 5.0
"""Seconds until the next attempt after a failed one; they double up to the interval."""
REFUSED_AGAIN = 900.0
"""Seconds after which a refused alert is tried again though nothing changed about it."""
CONTENT = (400, 422)
"""Alertmanager refuses an alert with the first, and all of the request with the second."""

log = logger(__name__)


class Alertmanager:
    """One Alertmanager; `turn` is to be called every second by one thread at a time."""

    def __init__(
        self,
        url: str,
        settings: AlertmanagerSettings,
        book: AlertBook,
        telemetry: Telemetry,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.url = url
        self._book, self._telemetry, self._clock = book, telemetry, clock
        self._headers = {"Authorization": settings.authorization} if settings.authorization else {}
        self._post = Post(
            settings.name,
            secrets=settings.secrets,
            timeout=settings.timeout,
            ca_file=settings.ca_file,
            proxy=settings.proxy,
            judge=_judge,
        )
        self._skew: float | None = None
        """Its clock minus ours, or up to a second less: it tells whole seconds."""
        self._told = -1
        """Which of the book's versions it was told."""
        self._due = self._not_before = 0.0
        self._streak = 0
        self._refused: dict[str, tuple[Alert, float]] = {}
        """What it refused, by its labels, and when it is tried again."""
        self._closed = False
        self._turning = threading.Lock()
        telemetry.add_alertmanager(url)

    def __repr__(self) -> str:
        return f"Alertmanager({self.url!r})"

    def close(self) -> None:
        """Lets a request that waits fail at once; nothing is posted any more."""
        self._closed = True
        self._post.close()
        self._book.close()

    def wait(self, seconds: float) -> None:
        """Waits until a turn has ended, though not for ever."""
        if self._turning.acquire(timeout=max(0.0, seconds)):
            self._turning.release()

    def turn(self) -> None:
        """Posts all that is to be told, where something changed or the interval passed."""
        with self._turning:
            known = None if self._closed else self._book.look()
            now = time.monotonic()
            if known is None or now < self._not_before or (known[0] == self._told and now < self._due):
                return
            taken: list[Alert] = []
            fault = self._post_all(known[1], taken)
            if self._closed:
                return
            self._note(taken)
            if fault is not None:
                self._failed(fault)
            else:
                self._succeeded(known[0])

    def _post_all(self, alerts: Sequence[Alert], taken: list[Alert]) -> Outcome | None:
        """Posts alerts, adds the resolves that it took to `taken`; returns what keeps it from taking them."""
        content = {alert.labels: _content(alert) for alert in alerts}
        self._refused = {k: refused for k, refused in self._refused.items() if refused[0] == content.get(k)}
        now = time.monotonic()
        wanted = [a for a in alerts if a.labels not in self._refused or now >= self._refused[a.labels][1]]
        # Its clock has to be known before it is told of anything that is over; and it is asked for a sign
        # of life where there is nothing to tell.
        if (self._skew is None or not wanted) and (fault := self._send([]).outcome).result is not Result.OK:
            return fault
        batches = (wanted[at : at + BATCH] for at in range(0, len(wanted), BATCH))
        faults = (self._post_batch(batch, taken) for batch in batches)
        return next(filter(None, faults), None)

    def _post_batch(
        self, alerts: Sequence[Alert], taken: list[Alert], *, sound: bool = False
    ) -> Outcome | None:
        """`sound`: it is known that it takes requests, so that what it refuses is an alert."""
        theirs = self._clock() + (self._skew or 0.0)
        reply = self._send([posted(alert, theirs) for alert in alerts])
        match reply.outcome.result:
            case Result.OK:
                over = float("inf") if reply.date is None else reply.date + 1
                taken += [alert for alert in alerts if alert.resolved and min(alert.resolved, theirs) < over]
                return None
            case Result.PERMANENT | Result.TOO_LARGE:
                if not sound and (fault := self._send([]).outcome).result is not Result.OK:
                    return fault
            case _:
                return reply.outcome
        if len(alerts) == 1:
            self._refuse(alerts[0], reply.outcome)
            return None
        half = len(alerts) // 2
        halves = (self._post_batch(part, taken, sound=True) for part in (alerts[:half], alerts[half:]))
        return next(filter(None, halves), None)

    def _send(self, body: Sequence[object]) -> Reply:
        reply = self._post.send(Request(self.url + API, body, self._headers))
        if reply.outcome.result is Result.OK and reply.date is not None:
            self._skew = reply.date - self._clock()
            self._telemetry.alertmanager_skew.labels(self.url).set(self._skew)
        return reply

    def _refuse(self, alert: Alert, outcome: Outcome) -> None:
        """Leaves one alert out, for the sake of the others."""
        again = time.monotonic() + REFUSED_AGAIN
        known = self._refused.get(alert.labels)
        self._refused[alert.labels] = (_content(alert), again)
        if known is None or known[0] != _content(alert):
            log.warning(
                "an Alertmanager refuses an alert; it is left out",
                alertmanager=self.url,
                labels=alert.labels,
                said=outcome.detail,
            )

    def _note(self, taken: Sequence[Alert]) -> None:
        try:
            self._book.took(self.url, taken)
        except LedgerError as error:
            log.warning("what an Alertmanager took could not be noted", alertmanager=self.url, error=error)

    def _failed(self, outcome: Outcome) -> None:
        if not self._streak:
            log.warning(
                "an Alertmanager does not take alerts; they are posted again",
                alertmanager=self.url,
                result=outcome.result,
                said=outcome.detail,
            )
        wait = min(self._book.interval, FIRST_WAIT * 2.0 ** min(self._streak, 20))
        wait *= random.uniform(0.5, 1.0)  # noqa: S311  # it only spreads
        self._streak += 1
        self._not_before = time.monotonic() + (wait if outcome.retry_after is None else outcome.retry_after)

    def _succeeded(self, version: int) -> None:
        if self._streak:
            log.info("an Alertmanager takes alerts again", alertmanager=self.url)
        self._streak = 0
        self._told, self._due = version, time.monotonic() + self._book.interval
        self._telemetry.alertmanager_success.labels(self.url).set(self._clock())


def _content(alert: Alert) -> Alert:
    """What of it is posted."""
    return replace(alert, taken="")


def _judge(answer: Answer) -> Verdict | None:
    """Alertmanager's own refusals are of content; whatever else answers is not what was asked."""
    if answer.status in range(400, 500) and answer.status not in (*BY_STATUS, *CONTENT):
        return Verdict(Result.RETRY, "this is not how Alertmanager answers: look at `urls`")
    if answer.status in range(200, 300) and answer.text.lstrip().startswith("<"):
        return Verdict(Result.RETRY, "a web page answered: look at `urls`")
    return None
