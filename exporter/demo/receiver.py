"""A page that shows the messages that came, in place of the people who would get them."""

import base64
import hashlib
import json
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import Any
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from exporter.colours import STATUS_COLOURS
from exporter.model import Status

KEPT = 200
"""Messages that are shown."""
LARGEST = 1024 * 1024
REFRESH = 5
"""Seconds after which the page loads itself anew."""
RED, GREEN, GREY = (STATUS_COLOURS[status] for status in (Status.FAILURE, Status.SUCCESS, Status.CANCELLED))
COLOURS = {"firing": RED, "opened": RED, "changed": RED, "resolved": GREEN}
STYLE = f"""
:root{{color-scheme:light dark}}
body{{font:1rem/1.5 sans-serif;max-width:56rem;margin:2rem auto;padding:0 1rem}}
article{{border-left:.4rem solid {GREY};padding:.1rem 0 .1rem 1rem;margin:1.2rem 0}}
article.firing{{border-color:{RED}}}
article.resolved{{border-color:{GREEN}}}
h2{{font-size:1.05rem;margin:0}}
p,ul{{margin:.2rem 0}}
small{{opacity:.7}}
pre{{white-space:pre-wrap;overflow-wrap:anywhere;font-size:.85rem}}
"""
STYLE_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
HEADERS = {
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{STYLE_HASH}'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True, slots=True)
class Message:
    """One that came, when (Unix seconds), and the path that it was posted to."""

    at: float
    path: str
    body: Any


class Receiver:
    """Takes every JSON that is posted to it, at any path, and shows the newest first at `/`."""

    def __init__(self, kept: int = KEPT) -> None:
        self.messages: deque[Message] = deque(maxlen=kept)
        """The newest last."""
        routes = [
            Route("/", self._page, methods=["GET"]),
            Route("/messages", self._as_json, methods=["GET"]),
            Route("/{path:path}", self._take, methods=["POST"]),
        ]
        self.app = Starlette(routes=routes)

    async def _take(self, request: Request) -> Response:
        body = b""
        async for part in request.stream():
            body = (body + part)[: LARGEST + 1]
        if len(body) > LARGEST:
            return PlainTextResponse("This is larger than a message may be.\n", 413, headers=HEADERS)
        try:
            content = json.loads(body)
        except (ValueError, RecursionError):
            return PlainTextResponse("This is no JSON.\n", 400, headers=HEADERS)
        self.messages.append(Message(time.time(), request.url.path, content))
        return PlainTextResponse("Shown.\n", headers=HEADERS)

    async def _page(self, _request: Request) -> Response:
        shown = "".join(_article(message) for message in reversed(self.messages))
        return HTMLResponse(
            '<!doctype html><html lang="en"><head><meta charset="utf-8">'
            f'<meta http-equiv="refresh" content="{REFRESH}"><title>Messages ({len(self.messages)})</title>'
            f"<style>{STYLE}</style></head><body><h1>Messages</h1>"
            f"{shown or '<p>None came yet. An alert is told some seconds after it begins.</p>'}"
            "</body></html>\n",
            headers=HEADERS,
        )

    async def _as_json(self, _request: Request) -> Response:
        """What came, the newest first: for those who would rather see it whole."""
        bodies = [message.body for message in reversed(self.messages)]
        return PlainTextResponse(
            json.dumps(bodies, indent=2) + "\n", media_type="application/json", headers=HEADERS
        )


def _article(message: Message) -> str:
    """One message in HTML; everything in it is text of somebody else."""
    body = message.body if isinstance(message.body, dict) else {}
    if isinstance(body.get("alerts"), list):
        status, title = body.get("status", ""), " ".join(map(str, _mapping(body.get("groupLabels")).values()))
        shown = "".join(_alert(alert) for alert in body["alerts"] if isinstance(alert, dict))
    elif isinstance(body.get("title"), str):
        status, title, shown = body.get("kind", ""), body["title"], _told(body)
    else:
        status, title, shown = "", "a message", _quoted(json.dumps(message.body, indent=2))
    kind = {RED: "firing", GREEN: "resolved"}.get(COLOURS.get(str(status), GREY), "other")
    came = f"{time.strftime('%H:%M:%S', time.localtime(message.at))} at {message.path}"
    return (
        f'<article class="{kind}"><h2>{escape(f"{status} {title}".strip())}</h2>'
        f"<small>{escape(came)}</small>{shown}</article>"
    )


def _alert(alert: Mapping[str, Any]) -> str:
    """One alert of a message of Alertmanager's (webhook, version 4)."""
    notes, labels = _mapping(alert.get("annotations")), _mapping(alert.get("labels"))
    links = {
        "build": notes.get("build_url"),
        "dashboard": notes.get("dashboard_url"),
        "query": alert.get("generatorURL"),
    }
    summary = notes.get("summary") or " ".join(map(str, labels.values()))
    return (
        f"<p>{escape(str(alert.get('status', '')))}: {escape(str(summary))}</p>"
        f"<p><small>{escape(str(notes.get('description', '')))} {_links(links)}</small></p>"
    )


def _told(body: Mapping[str, Any]) -> str:
    """What the exporter itself tells: facts, the end of the log, the way to the build."""
    facts = body.get("facts")
    told = [fact for fact in facts if isinstance(fact, dict)] if isinstance(facts, list) else []
    rows = "".join(
        f"<li>{escape(str(fact.get('label')))}: {escape(str(fact.get('value')))}</li>" for fact in told
    )
    lines = body.get("lines")
    more = "".join(f"<p>{escape(str(line))}</p>" for line in lines) if isinstance(lines, list) else ""
    excerpt = body.get("excerpt")
    return (
        f"<ul>{rows}</ul>{more}{_quoted(str(excerpt)) if excerpt else ''}"
        f"<p><small>{_links({'build': body.get('link')})}</small></p>"
    )


def _quoted(text: str) -> str:
    return f"<pre>{escape(text)}</pre>"


def _links(found: Mapping[str, object]) -> str:
    return " ".join(
        f'<a href="{escape(url)}" rel="noreferrer">{name}</a>'
        for name, url in found.items()
        if isinstance(url, str) and _leads_to_a_page(url)
    )


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _leads_to_a_page(url: str) -> bool:
    """False of what a browser would run instead, like `javascript:`."""
    try:
        return urlsplit(url).scheme in ("http", "https")
    except ValueError:
        return False
