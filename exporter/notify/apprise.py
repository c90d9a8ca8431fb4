"""Whatever else Apprise reaches: one URL, plain text, sent once a call (its retries are the outbox's).

Apprise tells only whether it went well: what did not is tried again.
"""

import threading

import apprise

from exporter.config_notify import AppriseSettings
from exporter.notify.message import Tone, below
from exporter.notify.targets import Base, Draft, Outcome, Rate, Result, without_secrets
from exporter.notify.text import unlinked

LONGEST = 1500
"""Bytes of the text below the link; Apprise cuts it further where a service takes less."""
LOOK_ALIKES = str.maketrans("<>[]`*_~", "\uff1c\uff1e\uff3b\uff3d\u02cb\uff0a\uff3f\uff5e")
"""What Discord, Telegram and others take for markup, as letters that only look so."""
TYPES = {
    Tone.BAD: apprise.NotifyType.FAILURE,
    Tone.GOOD: apprise.NotifyType.SUCCESS,
    Tone.WARNING: apprise.NotifyType.WARNING,
    Tone.INFO: apprise.NotifyType.INFO,
}


class Apprise(Base):
    """One service by its Apprise URL."""

    rate = (Rate(1, 1.0),)

    def __init__(self, settings: AppriseSettings) -> None:
        super().__init__(settings.name)
        self._settings = settings
        self._closed = threading.Event()

    def shown(self, draft: Draft) -> str:
        """Title and text."""
        return "\n".join((dead(draft.message.title), "", _text(draft)))

    def deliver(self, draft: Draft) -> Outcome:
        """Hand it to Apprise; a URL that it does not know pauses the target."""
        message = draft.message
        if self._closed.is_set():
            return Outcome(result=Result.RETRY, detail="not sent, for the exporter stops")
        service = self._service()
        if service is None:
            return Outcome(result=Result.PAUSE, detail="Apprise does not know such a URL: look at it")
        everything = apprise.Apprise()
        everything.add(service)
        try:
            went_well = everything.notify(
                title=dead(message.title),
                body=_text(draft) or dead(message.title),
                notify_type=TYPES[message.tone],
                body_format=apprise.NotifyFormat.TEXT,
                interpret_escapes=False,
            )
        except (OSError, TypeError, ValueError) as error:
            what = without_secrets(f"{type(error).__name__}: {error}", self._settings.secrets)
            return Outcome(result=Result.RETRY, detail=what)
        if went_well:
            return Outcome(result=Result.OK)
        return Outcome(result=Result.RETRY, detail="Apprise could not send it; its own log line says why")

    def close(self) -> None:
        """Let every later one fail; one that waits ends by its timeout."""
        self._closed.set()

    def _service(self) -> apprise.NotifyBase | None:
        asset = apprise.AppriseAsset(app_id="build-exporter", async_mode=False, secure_logging=True)
        url = self._settings.url.get_secret_value() if self._settings.url else ""
        service = apprise.Apprise.instantiate(url, asset=asset)
        if service is not None:
            service.retry = 0
            service.overflow_mode = apprise.OverflowMode.TRUNCATE
            service.redirects = False
            service.socket_connect_timeout = service.socket_read_timeout = self._settings.timeout
        return service


def dead(text: str) -> str:
    """The text without what any of the services could read as markup, a link or a call."""
    return unlinked(text).translate(LOOK_ALIKES)


def _text(draft: Draft) -> str:
    """The link before what Apprise may cut."""
    return "\n".join(filter(None, (draft.message.link, below(draft.message, LONGEST, dead))))
