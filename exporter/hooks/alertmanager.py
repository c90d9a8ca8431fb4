"""Alerts of an Alertmanager, passed on by the same outbox and targets as what builds say.

They are told at all hours and one by one: when, how grouped and silenced is Alertmanager's to decide.
"""

import asyncio
import hmac
import threading
from base64 import b64decode
from collections.abc import Callable

from starlette.datastructures import Headers

from exporter.config_hooks import AlertmanagerSettings
from exporter.hooks import alerts
from exporter.hooks.receiver import RefusedError, Take
from exporter.ledger import Ledger, LedgerError, messages
from exporter.ledger.messages import AGE, Row, message_key
from exporter.ledger.schema import WAITING
from exporter.log import logger
from exporter.notify.notice import Kind
from exporter.routes import Routes

IN_TIME = 1.0
"""Seconds after which Alertmanager is asked to send it again; it gives up itself after 10 at most."""

log = logger(__name__)


class AlertmanagerHook:
    """Receives webhooks, and answers well only once what they say is in the ledger."""

    name = "alertmanager"

    def __init__(
        self,
        settings: AlertmanagerSettings,
        ledger: Ledger,
        routes: Routes,
        due: threading.Event,
        clock: Callable[[], float],
    ) -> None:
        """`due` is set when there is something to be sent."""
        self._scheme, self._expected = _expected(settings)
        self._ledger, self._routes, self._due, self._clock = ledger, routes, due, clock

    def admit(self, headers: Headers) -> Take:
        """As `Hook` says: by the token, or the name and password."""
        scheme, _, given = ",".join(headers.getlist("authorization")).partition(" ")
        known = _basic(given) if self._scheme == "basic" else given.strip().encode()
        if not hmac.compare_digest(known, self._expected) or scheme.lower() != self._scheme:
            raise RefusedError("unauthorized", 401)
        return self._take

    async def _take(self, body: bytes) -> None:
        """Where the ledger is busy for too long it is sent again, and of the two one changes nothing."""
        try:
            post = alerts.read(body)
        except ValueError as error:
            log.warning("what an Alertmanager sent cannot be read", error=error)
            raise RefusedError("invalid", 400) from None
        try:
            loop = asyncio.get_running_loop()
            await asyncio.wait_for(loop.run_in_executor(None, self.tell, post), IN_TIME)
        except (TimeoutError, LedgerError):
            raise RefusedError("failed", 503) from None

    def tell(self, post: alerts.Post) -> None:
        """Writes the messages of a webhook, in one transaction; raises `LedgerError`."""
        now = self._clock()
        thread = f"alert {message_key(post.group_key)}"
        with self._ledger.transaction() as conn:
            rows = []
            for target, told in alerts.routed(post, self._routes).items():
                facts = alerts.facts_of(told, post.truncated_alerts)
                # Where a target writes a message over the one before, only the all-clear does so.
                epoch = messages.last_epoch(conn, target, thread) + (facts.failures > 0)
                key = message_key(thread, alerts.content_key(told, now), target)
                row = Row(0, key, target, thread, epoch, Kind.ALERT, alerts.server_of(told), None, WAITING)
                row.created = row.ready = row.due = now
                row.expires = now + AGE
                row.facts, row.excerpt = messages.encode(facts), ""
                rows.append(row)
            messages.add(conn, rows)
        self._due.set()


def _expected(settings: AlertmanagerSettings) -> tuple[str, bytes]:
    """The scheme of `Authorization` in small letters, and what stands behind it, decoded."""
    if settings.token is not None:
        return "bearer", settings.token.get_secret_value().encode()
    password = settings.password.get_secret_value() if settings.password else ""
    return "basic", f"{settings.login}:{password}".encode()


def _basic(given: str) -> bytes:
    try:
        return b64decode(given.strip(), validate=True)
    except ValueError:
        return b""
