"""What an incident is as an alert of Alertmanager's: labels that name it, annotations that tell of it.

Alertmanager knows an alert by all of its labels, so whatever may change is an annotation; changed ones
alone make it send nothing. It has no limits of its own: here a label has at most 256 bytes, an annotation
2 KiB, an alert 16 KiB. No I/O.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime

from exporter.incidents import State
from exporter.ledger.alerts import Alert
from exporter.ledger.watched import RepoState
from exporter.notify.message import below, compose
from exporter.notify.notice import Notice
from exporter.notify.text import cut_bytes, many_lines, one_line, size, unlinked

ALERTNAME, SEVERITY = "CIBuildFailed", "warning"
LABEL, ANNOTATION, WORD = 256, 2048, 200
"""Bytes of a label and of an annotation; characters of a short one."""
DIGEST = 8
AHEAD = 86_400.0
"""Seconds after which Alertmanager takes an open alert for resolved when it hears no more of it."""
EVENTS = {
    "cron": "cron",
    "deploy": "deployment",
    "manual": "manual",
    "pr": "pull_request",
    "push": "push",
    "tag": "tag",
}
"""The label `event` by the kind of a ref class; a kind that is a step (`publish`) stands for itself."""


def labels_of(repo: RepoState, state: State) -> str:
    """The identity of an incident, as JSON: equal texts are the same alert.

    `branch` and `event` are those of the metrics, so that an inhibition can compare them.
    """
    kind, _, rest = state.ref_class.partition(":")
    labels = {
        "alertname": ALERTNAME,
        "severity": SEVERITY,
        "server": repo.server,
        "repo": repo.name,
        "branch": state.branch,
        "event": EVENTS.get(kind, kind),
    }
    match kind:
        case "cron":
            labels["cron"] = rest.removesuffix(f":{state.branch}")
        case "deploy":
            labels["environment"] = rest
        case "tag" | "pr":
            labels["ref"] = rest
    return _json({name: _label(value) for name, value in labels.items()})


def annotations_of(notice: Notice) -> tuple[str, str]:
    """What is to be told of an incident, as JSON, and the address of its build."""
    message, build = compose(replace(notice, excerpt="")), notice.build
    address = message.link.replace("@", "%40")
    told = {
        "summary": dead(message.title),
        "description": below(message, ANNOTATION, dead),
        "since": _time(notice.since),
        "failures": str(notice.failures),
        "build_url": address,
        "log": cut_bytes(dead(many_lines(notice.excerpt, ANNOTATION)), ANNOTATION),
    }
    if build:
        told["build"] = str(build.number)
        words = {"commit": build.commit, "author": build.author, "step": build.step}
        told |= {name: dead(one_line(word, WORD)) for name, word in words.items()}
    return _json(told), address


def posted(alert: Alert, theirs: float) -> dict[str, object]:
    """An alert as it is posted to an Alertmanager whose clock says `theirs` (Unix seconds).

    It takes a resolve only of the past: an end that lies ahead by its clock would leave the alert open
    until the one that it was told before. (Alertmanager 0.25, types.Alert.Merge)
    """
    ends = min(alert.resolved, theirs) if alert.resolved else theirs + AHEAD
    told: dict[str, object] = {
        "labels": json.loads(alert.labels),
        "annotations": json.loads(alert.annotations),
        "startsAt": _time(min(max(alert.opened, 0.0), ends)),
        "endsAt": _time(ends),
    }
    return told | ({"generatorURL": alert.url} if alert.url else {})


def dead(text: str) -> str:
    """The text with nothing left that calls or links in the chats that Alertmanager writes to as it is."""
    return unlinked(text).translate({ord("<"): "\uff1c", ord(">"): "\uff1e"})


def _label(text: str) -> str:
    """The text where it is short and harmless, so that it equals the metrics' label; else one like it that
    no other text becomes."""
    shown = dead(one_line(text, LABEL))
    if shown == text and size(text) <= LABEL:
        return text
    mark = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:DIGEST]
    return f"{cut_bytes(shown, LABEL - DIGEST - 1)}~{mark}"


def _json(texts: Mapping[str, str]) -> str:
    """Without what is empty, which Alertmanager takes for absent."""
    return json.dumps({name: text for name, text in sorted(texts.items()) if text}, ensure_ascii=False)


def _time(unix: float) -> str:
    """RFC 3339, never later than `unix`; empty for a time that no calendar has."""
    try:
        return datetime.fromtimestamp(unix, UTC).isoformat(timespec="milliseconds")
    except (ValueError, OverflowError, OSError):
        return ""
