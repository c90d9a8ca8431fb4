"""Signed JSON to a program: docs/targets.md says what is in it and how a receiver checks the signature."""

import hmac
import json
import time
from collections.abc import Callable
from dataclasses import asdict

from exporter.config_notify import WebhookSettings
from exporter.notify.message import Message
from exporter.notify.notice import BuildFacts, Notice
from exporter.notify.post import HttpTarget, Request
from exporter.notify.targets import Draft
from exporter.notify.text import one_line

VERSION = 1
LONGEST = 300
"""Characters of a text of a build that are sent."""


class Webhook(HttpTarget):
    """A program that takes POSTed JSON; any status from 200 to 299 says that it did."""

    def __init__(self, settings: WebhookSettings, clock: Callable[[], float] = time.time) -> None:
        super().__init__(settings)
        self._secret = settings.secret.get_secret_value().encode() if settings.secret else b""
        self._clock = clock

    def body(self, draft: Draft) -> object:
        """The facts and the text."""
        return document(draft.notice, draft.message)

    def request(self, draft: Draft) -> Request:
        """The body with the row's key as `Idempotency-Key`, and signed where there is a secret."""
        body = json.dumps(self.body(draft), ensure_ascii=False, separators=(",", ":")).encode()
        headers = {"Idempotency-Key": draft.notice.key}
        if self._secret:
            timestamp = str(int(self._clock()))
            headers["X-Build-Exporter-Timestamp"] = timestamp
            headers["X-Build-Exporter-Signature"] = signature(self._secret, timestamp, body)
        return Request(self.url, body, headers)


def signature(secret: bytes, timestamp: str, body: bytes) -> str:
    """`sha256=` and the HMAC-SHA256, in hex, of the timestamp's digits, a full stop and the body."""
    return f"sha256={hmac.digest(secret, timestamp.encode() + b'.' + body, 'sha256').hex()}"


def document(notice: Notice, message: Message) -> dict[str, object]:
    """What is sent: texts are plain, of visible characters, and mean nothing but themselves."""
    return {
        "version": VERSION,
        "key": notice.key,
        "thread": notice.thread,
        "kind": notice.kind.value,
        "state": message.tone.value,
        "title": message.title,
        "facts": [{"label": label, "value": value} for label, value in message.facts],
        "lines": message.lines,
        "excerpt": message.excerpt,
        "link": message.link,
        "server": one_line(notice.server, LONGEST),
        "repo": one_line(notice.repo, LONGEST),
        "branch": one_line(notice.branch, LONGEST),
        "event": one_line(notice.event, LONGEST),
        "ref": one_line(notice.ref, LONGEST),
        "since": notice.since,
        "failures": notice.failures,
        "first_number": notice.first_number,
        "flaky": notice.flaky,
        "mention": [one_line(handle, LONGEST) for handle in notice.mention],
        "at": notice.at,
        "build": _build(notice.build, message) if notice.build else None,
    }


def _build(build: BuildFacts, message: Message) -> dict[str, object]:
    texts = {key: one_line(value, LONGEST) for key, value in asdict(build).items() if isinstance(value, str)}
    return asdict(build) | texts | {"url": message.link}
