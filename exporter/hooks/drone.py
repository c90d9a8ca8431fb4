"""Webhooks of Drone servers (1.0 or newer): signed hints that something changed, and nothing more.

The body is never read for what it says: it only makes the next look at the server come now. Signatures
are those of draft-cavage-http-signatures, as the contract of Drone 1.x records them: HMAC-SHA256 over the
headers `date` and `digest`, with the bytes of `DRONE_WEBHOOK_SECRET` as the key.
"""

import hmac
import re
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256

from starlette.datastructures import Headers

from exporter.headers import unix_time
from exporter.hooks.receiver import RefusedError, Take

OFF = 300.0
"""Seconds by which the sender's Date may differ from our clock."""
KEPT = 600.0
"""Seconds for which signatures are known: as long as their Date can be good."""
_PARAMETER = re.compile(r'\s*([A-Za-z]+)="([^"]*)"\s*(?:,|$)')


class DroneHook:
    """Receives the webhooks of all servers; which one it is shows by the secret that fits."""

    name = "drone"

    def __init__(
        self,
        secrets: Sequence[tuple[str, bytes]],
        hints: Mapping[str, Callable[[], None]],
        clock: Callable[[], float],
    ) -> None:
        """`secrets` are pairs of a server's name and its secret; `hints` make a look at a server come now."""
        self._secrets, self._hints, self._clock = secrets, hints, clock
        self._seen: dict[bytes, float] = {}

    def admit(self, headers: Headers) -> Take:
        """As `Hook` says: by the signature, which covers the date and the digest of the body."""
        signed = self._signed(headers)
        at, now = unix_time(headers["date"]), self._clock()
        if at is None or abs(now - at) > OFF:
            raise RefusedError("stale", 401)

        async def take(body: bytes) -> None:
            if not hmac.compare_digest(headers["digest"].encode(), digest_of(body).encode()):
                raise RefusedError("tampered", 401)
            self._expect_new(signed, now)
            self._seen |= dict.fromkeys(signed.values(), now + KEPT)
            for server in signed:
                self._hints[server]()

        return take

    def _signed(self, headers: Headers) -> dict[str, bytes]:
        """The servers whose secret made the signature, and what it is."""
        values = {name: headers.getlist(name) for name in ("date", "digest", "signature")}
        signed: dict[str, bytes] = {}
        if all(len(given) == 1 for given in values.values()):
            (date,), (digest,), (signature,) = values.values()
            given = _given(signature)
            for server, secret in self._secrets:
                made = sign(secret, date, digest)
                if hmac.compare_digest(made, given):
                    signed[server] = made
        if not signed:
            raise RefusedError("unauthorized", 401)
        return signed

    def _expect_new(self, signed: Mapping[str, bytes], now: float) -> None:
        self._seen = {made: until for made, until in self._seen.items() if until >= now}
        if not self._seen.keys().isdisjoint(signed.values()):
            raise RefusedError("replayed", 401)


def sign(secret: bytes, date: str, digest: str) -> bytes:
    """The signature of a request whose headers `Date` and `Digest` are these."""
    return hmac.digest(secret, f"date: {date}\ndigest: {digest}".encode(), "sha256")


def digest_of(body: bytes) -> str:
    """The header `Digest` of a body (RFC 3230)."""
    return f"SHA-256={b64encode(sha256(body).digest()).decode()}"


def _given(header: str) -> bytes:
    """The signature in a header `Signature`; empty where it is none over date and digest."""
    known = dict(_PARAMETER.findall(header))
    if known.get("algorithm") != "hmac-sha256" or known.get("headers", "").lower() != "date digest":
        return b""
    try:
        return b64decode(known.get("signature", ""), validate=True)
    except ValueError:
        return b""
