"""What answers over HTTP: the page /metrics, health, reload and an index of them."""

import asyncio
import base64
import hashlib
import math
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from html import escape
from http import HTTPStatus
from typing import Generic, ParamSpec, TypeVar

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from exporter import __version__
from exporter.exposition import Body
from exporter.log import logger

P = ParamSpec("P")
T = TypeVar("T")
Endpoint = Callable[[Request], Awaitable[Response]]

log = logger(__name__)

Render = Callable[[bool, bool, frozenset[str] | None], Body]
"""`Page.render`: OpenMetrics or text, gzip or not, the families asked for."""

OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
TEXT = "text/plain; version=0.0.4; charset=utf-8"
STYLE = "body{font:1rem/1.5 sans-serif;max-width:40rem;margin:3rem auto;padding:0 1rem}"
STYLE_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
SAFE_HEADERS = {
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{STYLE_HASH}'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
PAGES = {
    "/metrics": "what Prometheus scrapes",
    "/healthz": "whether the process answers",
    "/readyz": "whether every server was tried and the ledger can be written",
}


class Streamed(Response):
    """A body that is handed over slice by slice, no faster than the client takes it."""

    def __init__(self, body: Body, headers: Mapping[str, str]) -> None:
        super().__init__(headers={**headers, "Content-Length": str(len(body))})
        self._slices = body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it; the rest is left out once the client has gone."""
        gone = asyncio.create_task(_disconnect(receive))
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            for part in self._slices if scope["method"] != "HEAD" else ():
                await send({"type": "http.response.body", "body": part, "more_body": True})
                # A send that does not have to wait never yields, and would keep others waiting.
                await asyncio.sleep(0)
                if gone.done():
                    return
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            gone.cancel()


def build_app(
    render: Render,
    failures: Callable[[], Sequence[str]],
    reload: Callable[[], str] | None = None,
) -> Starlette:
    """The application; all three are called in threads of their own.

    `failures` names what keeps the exporter from being ready, one line each, without secrets. `reload`
    loads the configuration and says what is wrong with it, or nothing; None refuses to reload.
    """
    routes = [
        Route("/", _index),
        Route("/metrics", _metrics(_Work("rendering /metrics", render))),
        Route("/healthz", _alive),
        Route("/readyz", _ready(_Work("asking for /readyz", failures))),
        Route(
            "/-/reload", _reloading(_Work("reloading", reload) if reload else None), methods=["POST", "PUT"]
        ),
    ]
    app = Starlette(routes=routes, exception_handlers={HTTPException: _refusal, _WorkError: _failure})
    app.router.redirect_slashes = False
    return app


class _WorkError(Exception):
    """What an answer needs cannot be had; the log says why."""


class _Work(Generic[P, T]):
    """A call in a thread: others are answered meanwhile, and a failure is logged when it begins and ends."""

    def __init__(self, what: str, call: Callable[P, T]) -> None:
        self._what = what
        self._call = call
        self._failing = False

    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        """What the call returns; raises `_WorkError`."""
        try:
            result = await run_in_threadpool(self._call, *args, **kwargs)
        except Exception:
            if not self._failing:
                log.exception(f"{self._what} fails")
            self._failing = True
            raise _WorkError from None
        if self._failing:
            log.info(f"{self._what} works again")
        self._failing = False
        return result


def _metrics(render: _Work[[bool, bool, frozenset[str] | None], Body]) -> Endpoint:
    async def get(request: Request) -> Response:
        openmetrics = wants_openmetrics(request.headers.getlist("accept"))
        gzip = accepts_gzip(request.headers.getlist("accept-encoding"))
        asked = request.query_params.getlist("name[]")
        body = await render(openmetrics, gzip, frozenset(asked) if asked else None)
        headers = {
            **SAFE_HEADERS,
            "Content-Type": OPENMETRICS if openmetrics else TEXT,
            "Vary": "Accept, Accept-Encoding",
            "Cache-Control": "no-store",
        }
        return Streamed(body, {**headers, "Content-Encoding": "gzip"} if gzip else headers)

    return get


async def _index(_request: Request) -> Response:
    links = "".join(f'<li><a href="{path[1:]}">{path}</a>: {what}</li>' for path, what in PAGES.items())
    return HTMLResponse(
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>build-exporter</title>'
        f"<style>{STYLE}</style></head><body><h1>build-exporter</h1>"
        f"<p>Version {escape(__version__)}</p><ul>{links}</ul></body></html>\n",
        headers=SAFE_HEADERS,
    )


async def _refusal(_request: Request, refused: Exception) -> Response:
    """What is said of a path or method that does not exist here."""
    status = refused.status_code if isinstance(refused, HTTPException) else 500
    headers = refused.headers if isinstance(refused, HTTPException) else None
    return _plain(HTTPStatus(status).phrase, status, headers)


async def _failure(_request: Request, _failed: Exception) -> Response:
    return _plain("This cannot be answered; the exporter's log says why.", 500)


async def _alive(_request: Request) -> Response:
    return _plain("The exporter answers.")


def _ready(failures: _Work[[], Sequence[str]]) -> Endpoint:
    async def get(_request: Request) -> Response:
        failing = await failures()
        return _plain("\n".join(failing), 503) if failing else _plain("Ready.")

    return get


def _reloading(reload: _Work[[], str] | None) -> Endpoint:
    async def post(request: Request) -> Response:
        if reload is None:
            return _plain("Reloading over HTTP is off: set web.lifecycle to true.", 403)
        if request.headers.get("sec-fetch-site", "none") not in {"none", "same-origin"}:
            return _plain("Reloading is not for other sites' pages.", 403)
        wrong = await reload()
        return _plain(wrong, 500) if wrong else _plain("Reloaded.")

    return post


def _plain(text: str, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return PlainTextResponse(f"{text}\n", status, headers={**SAFE_HEADERS, **(headers or {})})


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def wants_openmetrics(accept: Iterable[str]) -> bool:
    """Whether the client likes OpenMetrics 1 best, named as such, or text as well or better."""
    best = {"openmetrics": 0.0, "text": 0.0}
    for value, parameters, quality in _accepted(accept):
        if value == "application/openmetrics-text":
            if parameters.get("version", "1.0.0").split(".")[0] == "1":
                best["openmetrics"] = max(best["openmetrics"], quality)
        elif value in {"text/plain", "text/*", "*/*"}:
            best["text"] = max(best["text"], quality)
    return best["openmetrics"] > 0 and best["openmetrics"] >= best["text"]


def accepts_gzip(accept_encoding: Iterable[str]) -> bool:
    """Whether the client takes gzip at least as gladly as nothing."""
    qualities = {value: quality for value, _, quality in _accepted(accept_encoding)}
    gzip = qualities.get("gzip", qualities.get("*", 0.0))
    return gzip > 0 and gzip >= qualities.get("identity", 0.0)


def _accepted(headers: Iterable[str]) -> Iterator[tuple[str, dict[str, str], float]]:
    """The values of an Accept header (RFC 9110, 12.5) with their parameters and quality."""
    for item in ",".join(headers).lower().split(","):
        value, *rest = (part.strip() for part in item.split(";"))
        parameters = {}
        for part in rest:
            name, _, text = part.partition("=")
            parameters[name.strip()] = text.strip().strip('"')
        if value:
            yield value, parameters, _quality(parameters.get("q", "1"))


def _quality(text: str) -> float:
    try:
        quality = float(text)
    except ValueError:
        return 0.0
    return min(max(quality, 0.0), 1.0) if math.isfinite(quality) else 0.0
