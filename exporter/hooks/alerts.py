"""What an Alertmanager's webhook says (version 4, contract: its recorded bodies), and what is told of it.

Pure. Every text in it is untrusted: it is data here, and each target makes it harmless.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Literal

import msgspec

from exporter.ledger.messages import Facts, message_key
from exporter.notify.text import one_line
from exporter.routes import ALERT, Routes, Subject

VERSION = "4"
NAME, LINE = 100, 300
LINES = 60
"""Characters of names and lines, and lines of one message."""
REPEAT = 3600.0
"""Seconds in which the same alerts are told once: what Alertmanager sends again before is a copy."""

Moment = Annotated[datetime, msgspec.Meta(tz=True)]


class Alert(msgspec.Struct, frozen=True, rename="camel"):
    """One alert as it was when the webhook was sent."""

    status: Literal["firing", "resolved"]
    labels: dict[str, str]
    starts_at: Moment
    ends_at: Moment
    annotations: dict[str, str] = {}
    generator_url: str = msgspec.field(name="generatorURL", default="")

    @property
    def firing(self) -> bool:
        return self.status == "firing"

    @property
    def changed(self) -> float:
        """When it turned to what it is (Unix seconds, the sender's clock)."""
        return (self.starts_at if self.firing else self.ends_at).timestamp()

    @property
    def identity(self) -> tuple[object, ...]:
        """The same in every copy, whatever its annotations say by then."""
        return self.status, self.starts_at.timestamp(), sorted(self.labels.items())

    @property
    def line(self) -> str:
        """What it says, in one line."""
        word = "Firing" if self.firing else "Resolved"
        said = self.annotations.get("summary", "").strip() or f"{self.name} {self.others}"
        return one_line(f"{word}: {said}", LINE)

    @property
    def name(self) -> str:
        return self.labels.get("alertname", "") or "an alert without a name"

    @property
    def others(self) -> str:
        """Its labels but the name."""
        return ", ".join(f"{key}={value}" for key, value in self.labels.items() if key != "alertname")


class Post(msgspec.Struct, frozen=True, rename="camel"):
    """What one webhook says of one group of alerts."""

    version: str
    group_key: str
    alerts: list[Alert]
    truncated_alerts: int = 0


_DECODE = msgspec.json.Decoder(Post)


def read(body: bytes) -> Post:
    """The webhook's body; raises `ValueError` where it is none of version 4."""
    try:
        post = _DECODE.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError("not the webhook of an Alertmanager") from error
    if post.version != VERSION or not post.group_key or not post.alerts:
        raise ValueError("not the webhook of an Alertmanager, version 4")
    return post


def routed(post: Post, routes: Routes) -> dict[str, list[Alert]]:
    """The alerts that each target is told of, each alert by its own labels."""
    found: dict[str, list[Alert]] = {}
    for alert in post.alerts:
        server, repo, branch = (alert.labels.get(key, "") for key in ("server", "repo", "branch"))
        for target in routes.messages_for(Subject(server, repo, branch, ALERT, "")):
            found.setdefault(target, []).append(alert)
    return found


def content_key(alerts: Sequence[Alert], now: float) -> str:
    """The same for every copy of what is told of these alerts, another one for a reminder of them."""
    newest = max(alert.changed for alert in alerts)
    return message_key(sorted(alert.identity for alert in alerts), (now - newest) // REPEAT)


def facts_of(alerts: Sequence[Alert], truncated: int = 0) -> Facts:
    """What one message says of these alerts: its first line is the title."""
    firing = [alert for alert in alerts if alert.firing]
    common = dict(set.intersection(*(set(alert.labels.items()) for alert in alerts)))
    links = ("runbook_url", "dashboard_url")
    first = (firing or alerts)[0]
    return Facts(
        repo=one_line(common.get("repo", ""), NAME),
        branch=one_line(common.get("branch", ""), NAME),
        since=min(alert.starts_at.timestamp() for alert in firing or alerts),
        failures=len(firing),
        at=max(alert.changed for alert in alerts),
        url=next(filter(None, (first.annotations.get(key) for key in links)), first.generator_url),
        lines=tuple(_lines(alerts, len(firing), truncated)),
    )


def server_of(alerts: Sequence[Alert]) -> str:
    """The label `server`, where all of them have the same."""
    servers = {alert.labels.get("server", "") for alert in alerts}
    return one_line(servers.pop(), NAME) if len(servers) == 1 else ""


def _lines(alerts: Sequence[Alert], firing: int, truncated: int) -> list[str]:
    if len(alerts) == 1:
        (alert,) = alerts
        description = alert.annotations.get("description", "").splitlines()
        return [alert.line, *(one_line(line, LINE) for line in (*description[:10], alert.others) if line)]
    names = one_line(", ".join(dict.fromkeys(alert.name for alert in alerts)), NAME)
    resolved = len(alerts) - firing
    counts = [f"{count} {word}" for count, word in ((firing, "firing"), (resolved, "resolved")) if count]
    told = [alert.line for alert in sorted(alerts, key=lambda alert: not alert.firing)]
    more = len(told) - LINES + truncated if len(told) > LINES else truncated
    return [
        f"{'Firing' if firing else 'Resolved'}: {names} ({', '.join(counts)})",
        *told[:LINES],
        *([f"and {more} more"] if more else []),
    ]
