"""Who may read our pages: what the file of `web_config` says, read anew whenever it changes."""

import asyncio
import base64
import hmac
import ipaddress
import secrets
import ssl
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self, cast

import bcrypt
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from exporter import web_config
from exporter.log import logger
from exporter.web_config import WebConfig, WebConfigError

log = logger(__name__)

REMEMBERED = 100
"""Correct passwords that are remembered, so that a scrape does not cost a bcrypt each."""
BCRYPT_BYTES = 72
"""What bcrypt looks at of a password."""
CHALLENGE = 'Basic realm="build-exporter", charset="UTF-8"'

Stamp = tuple[tuple[int, int, int] | None, ...]


class Access:
    """The file at `path` as it is now; raises `WebConfigError` where it is wrong at the start.

    Later, a file that is wrong is logged once, and what was read before stays in force.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._config, _ = web_config.load(path)
        # Stamps are older than what is read, so that no change falls between the two.
        self._stamp = _stamp(self._files())
        self._config, self._context = web_config.load(path)
        self._refused = ""
        self.tls = _Reread(self) if self._context else None
        """For `Listener`; None where the file has no TLS."""

    def config(self) -> WebConfig:
        """What the file says, read again if it or a certificate changed."""
        stamp = _stamp(self._files())
        if stamp != self._stamp or self._refused:
            self._stamp = stamp
            self._read()
        return self._config

    def context(self) -> ssl.SSLContext:
        """TLS for the next handshake."""
        self.config()
        if self._context is None:
            raise RuntimeError(f"{self._path} has no tls_server_config")
        return self._context

    def allows(self, session: ssl.SSLObject) -> bool:
        """Whether the client's certificate has one of the names that are asked for."""
        tls = self._config.tls
        if tls is None or not tls.client_allowed_sans:
            return True
        return not set(map(_plain_name, tls.client_allowed_sans)).isdisjoint(_names(session))

    def _read(self) -> None:
        try:
            config, context = web_config.load(self._path)
            if (context is None) is not (self._context is None):
                raise WebConfigError([f"{self._path}: TLS is put on or off by a restart only"])
        except WebConfigError as error:
            if str(error) != self._refused:
                reasons = "; ".join(error.messages)
                log.warning("the web configuration was not read: what was before stays", error=reasons)
            self._refused = str(error)
            return
        self._refused = ""
        self._config, self._context = config, context
        log.info("the web configuration was read again", file=self._path)

    def _files(self) -> list[Path]:
        tls = self._config.tls
        named = (tls.cert_file, tls.key_file, tls.client_ca_file) if tls else ()
        return [self._path, *filter(None, named)]


class Guard:
    """Lets through to `app` whom the file knows, and adds the file's headers to every answer."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access
        self._secret = secrets.token_bytes(32)
        self._remembered: dict[bytes, None] = {}
        # One thread: guesses wait for each other and leave the other cores alone.
        self._hashing = ThreadPoolExecutor(1, thread_name_prefix="bcrypt")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 401 to a stranger, else what `app` answers."""
        config = self._access.config()

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(config.headers)
            await send(message)

        if config.users and not await self._knows(Headers(scope=scope), config.users):
            refusal = PlainTextResponse("Unauthorized\n", 401, {"WWW-Authenticate": CHALLENGE})
            await refusal(scope, receive, send_with_headers)
        else:
            await self._app(scope, receive, send_with_headers)

    async def _knows(self, headers: Headers, users: Mapping[str, str]) -> bool:
        user, password = _credentials(headers.get("authorization", ""))
        # A name that nobody has costs as much time as one that is known.
        hashed = users.get(user) or _nobody(users.values())
        proof = self._proof(user, password, hashed)
        if proof in self._remembered:
            return True
        checked = asyncio.get_running_loop().run_in_executor(self._hashing, _fits, password, hashed)
        if not await checked or user not in users:
            return False
        while len(self._remembered) >= REMEMBERED:
            del self._remembered[next(iter(self._remembered))]
        self._remembered[proof] = None
        return True

    def _proof(self, user: str, password: bytes, hashed: str) -> bytes:
        """What is remembered in place of a password."""
        parts = (user.encode(), hashed.encode(), password)
        text = b"".join(len(part).to_bytes(4) + part for part in parts)
        return hmac.digest(self._secret, text, "sha256")


class _Reread(ssl.SSLContext):
    """Hands every handshake to the context that the files say by then."""

    def __new__(cls, _access: Access) -> Self:
        return super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)

    def __init__(self, access: Access) -> None:
        self._access = access

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        """As asyncio calls it for every connection."""
        return self._access.context().wrap_bio(*args, **kwargs)


def _stamp(files: Iterable[Path]) -> Stamp:
    """What tells that a file was changed or replaced; None where it cannot be read."""
    stamps: list[tuple[int, int, int] | None] = []
    for file in files:
        try:
            found = file.stat()
        except OSError:
            stamps.append(None)
        else:
            stamps.append((found.st_mtime_ns, found.st_size, found.st_ino))
    return tuple(stamps)


def _credentials(header: str) -> tuple[str, bytes]:
    """User and password of an Authorization header (RFC 7617); empty where it is none."""
    scheme, _, encoded = header.partition(" ")
    try:
        user, _, password = base64.b64decode(encoded, validate=True).partition(b":")
        return (user.decode(), password) if scheme.lower() == "basic" else ("", b"")
    except ValueError:
        return "", b""


def _nobody(hashes: Iterable[str]) -> str:
    """A hash that no password fits, of the highest cost among `hashes`."""
    cost = max(hashed.split("$")[2] for hashed in hashes)
    return f"$2b${cost}${'.' * 53}"


def _fits(password: bytes, hashed: str) -> bool:
    return bcrypt.checkpw(password[:BCRYPT_BYTES], hashed.encode())


def _names(session: ssl.SSLObject) -> Iterator[str]:
    certificate = session.getpeercert() or {}
    names = cast(tuple[tuple[str, str], ...], certificate.get("subjectAltName", ()))
    return (_plain_name(name) for _kind, name in names)


def _plain_name(name: str) -> str:
    """A name as it compares: IP addresses are written in many ways."""
    try:
        return str(ipaddress.ip_address(name.strip()))
    except ValueError:
        return name
