"""How anything is received: POST of JSON, of at most 1 MiB, by whom a hook lets in; all else is refused.

Who is not let in costs no memory and learns nothing: what such a client sends is dropped as it comes.
Every request is counted by what became of it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from http import HTTPStatus
from typing import Protocol

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from exporter.log import logger
from exporter.telemetry import HookOutcome, Telemetry

LARGEST = 1024 * 1024
"""Bytes of a body at most."""
PATIENCE = 5.0
"""Seconds in which a body must have come."""
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")

log = logger(__name__)


class RefusedError(Exception):
    """What was sent is not taken in; the sender sees nothing but the status."""

    def __init__(self, outcome: HookOutcome, status: int) -> None:
        super().__init__(outcome)
        self.outcome, self.status = outcome, status


Take = Callable[[bytes], Awaitable[None]]


class Hook(Protocol):
    """What is received at one path. The event loop calls it, one call at a time."""

    @property
    def name(self) -> str:
        """The last part of its path, and its value of the label `hook`."""

    def admit(self, headers: Headers) -> Take:
        """What takes in the body of a request with these headers.

        Raises `RefusedError` where they show that the sender may not send, as does what is returned.
        """


def build_app(hooks: Iterable[Hook], telemetry: Telemetry, *, patience: float = PATIENCE) -> Starlette:
    """The application: each hook at `/hooks/NAME`, and nothing else."""
    routes = [
        Route(f"/hooks/{hook.name}", _endpoint(hook, telemetry, patience), methods=METHODS) for hook in hooks
    ]
    app = Starlette(routes=routes, exception_handlers={HTTPException: _unknown})
    app.router.redirect_slashes = False
    return app


def _endpoint(hook: Hook, telemetry: Telemetry, patience: float) -> Callable[[Request], Awaitable[Response]]:
    async def post(request: Request) -> Response:
        outcome: HookOutcome = "accepted"
        status = 200
        try:
            await _receive(hook, request, patience)
        except RefusedError as refused:
            outcome, status = refused.outcome, refused.status
        except Exception:
            log.exception("what was sent could not be taken in", hook=hook.name)
            outcome, status = "failed", 503
        telemetry.received(hook.name, outcome)
        return _plain(status)

    return post


async def _receive(hook: Hook, request: Request, patience: float) -> None:
    try:
        if request.method != "POST":
            raise RefusedError("invalid", 405)
        take = hook.admit(request.headers)
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json" or "content-encoding" in request.headers:
            raise RefusedError("invalid", 415)
    except RefusedError:
        # Closing a connection with bytes unread resets it, and the answer would be lost.
        with suppress(RefusedError):
            await _read(request, patience, keep=False)
        raise
    await take(await _read(request, patience))


async def _read(request: Request, patience: float, *, keep: bool = True) -> bytes:
    """The body, or nothing where it is not to be kept; raises `RefusedError`."""
    body, size = bytearray(), 0
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > LARGEST:
        raise RefusedError("oversized", 413)
    try:
        async with asyncio.timeout(patience):
            async for part in request.stream():
                size += len(part)
                if size > LARGEST:
                    raise RefusedError("oversized", 413)
                if keep:
                    body += part
    except TimeoutError:
        raise RefusedError("slow", 408) from None
    except ClientDisconnect:
        raise RefusedError("invalid", 400) from None
    return bytes(body)


async def _unknown(_request: Request, refused: Exception) -> Response:
    return _plain(refused.status_code if isinstance(refused, HTTPException) else 500)


def _plain(status: int) -> Response:
    headers = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}
    if status == 405:
        headers["Allow"] = "POST"
    if status != 200:
        headers["Connection"] = "close"
    return PlainTextResponse(f"{HTTPStatus(status).phrase}\n", status, headers=headers)
