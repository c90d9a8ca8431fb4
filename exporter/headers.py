"""What a server's headers tell: its clock, when it may be asked again, and how often."""

from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

HOUR = 3600.0
LONGEST_RETRY_AFTER = HOUR
LONGEST_PAUSE = 15.0
RESERVE = 5
"""Requests that are left to whoever else uses the account, so that the limit is never hit."""


def unix_time(date: str) -> float | None:
    """Unix seconds of an HTTP date; None when it is none."""
    try:
        return parsedate_to_datetime(date).replace(tzinfo=UTC).timestamp()
    except (ValueError, OverflowError, TypeError):
        return None


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds from `now` (the server's clock) that `Retry-After` asks for, at most an hour."""
    value = headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdigit():
        return min(float(value), LONGEST_RETRY_AFTER)
    if (date := unix_time(value)) is None:
        return None
    return min(max(date - now, 0.0), LONGEST_RETRY_AFTER)


def place_of(location: str) -> str:
    """Scheme, host and port of a redirect's target, without what else it may hold."""
    try:
        parts = urlsplit(location)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return "an address that is none"
    if not host:
        return "another path of its own"
    shown = "".join(c if c.isascii() and c.isprintable() else "?" for c in host[:253])
    return f"{parts.scheme or 'http'}://{shown}" + (f":{port}" if port else "")


def left_of_hour(now: float) -> float:
    """Seconds until the clock hour turns."""
    return HOUR - now % HOUR


def is_used_up(headers: Mapping[str, str]) -> bool:
    """True when the server says that it answers no more requests for now."""
    return headers.get("X-RateLimit-Remaining", "").strip() == "0"


class Quota:
    """How many requests a server still answers in this clock hour, by `X-RateLimit-Remaining`.

    Half of them may be made at once; the rest is spread over what is left of the hour. Times are the
    server's clock in Unix seconds. (OpenMandriva's ABF counts so; contract rosa-abf, "Access".)
    """

    def __init__(self) -> None:
        self._known = (0.0, 0, 0)

    def note(self, headers: Mapping[str, str], now: float) -> None:
        """Takes in what an answer announces."""
        limit, remaining = headers.get("X-RateLimit-Limit", ""), headers.get("X-RateLimit-Remaining", "")
        if all(text.isascii() and text.isdigit() and len(text) < 16 for text in (limit, remaining)):
            self._known = (now // HOUR, int(limit), int(remaining))

    def pause(self, now: float) -> float:
        """Seconds to wait before the next request."""
        hour, limit, remaining = self._known
        left = left_of_hour(now)
        if hour != now // HOUR or remaining * 2 >= limit or remaining * HOUR >= limit * left:
            return 0.0
        return min(left / max(remaining - RESERVE, 1), LONGEST_PAUSE)

    def exhausted(self, now: float) -> bool:
        """True when no more requests are to be made before the hour turns."""
        hour, limit, remaining = self._known
        return hour == now // HOUR and remaining <= min(RESERVE, limit // 2)
