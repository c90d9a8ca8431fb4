"""A robot of a DingTalk group (open.dingtalk.com, "Custom robot").

The message is of the type `text`, which has no markup: whom it calls stands apart from the text, in `at`.
"""

import base64
import hmac
import time
from collections.abc import Callable
from urllib.parse import urlencode

from exporter.config_notify import DingtalkSettings
from exporter.notify.message import fitted
from exporter.notify.post import HttpTarget, Request, Verdict, coded
from exporter.notify.targets import Draft, Rate, Result, handles

LONGEST = 9000
"""Bytes of the text: with every one of them escaped in JSON, the body stays below its 20,000."""
TEN_MINUTES = 600.0
CODES = {
    -1: Verdict(Result.RETRY, "DingTalk is busy"),
    # Who sends more than 20 in a minute is not heard for ten.
    130101: Verdict(Result.RETRY, "too many messages", TEN_MINUTES),
    410100: Verdict(Result.RETRY, "too many messages", TEN_MINUTES),
    460101: Verdict(Result.TOO_LARGE, "the message is too large"),
    310000: Verdict(
        Result.PAUSE,
        "keyword, signature or address refused: look at `keyword`, `secret_file` and the clock",
    ),
    300001: Verdict(Result.PAUSE, "the robot does not exist: look at its address"),
    300005: Verdict(Result.PAUSE, "the robot does not exist: look at its address"),
    400101: Verdict(Result.PAUSE, "the robot does not exist: look at its address"),
    400102: Verdict(Result.PAUSE, "the robot is switched off"),
    400106: Verdict(Result.PAUSE, "the robot does not exist: look at its address"),
    400013: Verdict(Result.PAUSE, "the group is gone"),
}


class Dingtalk(HttpTarget):
    """One group, by its robot's address and, where it wants one, a signature."""

    rate = (Rate(18, 60.0),)

    def __init__(self, settings: DingtalkSettings, clock: Callable[[], float] = time.time) -> None:
        super().__init__(settings, coded(("errcode",), CODES))
        self._secret = settings.secret.get_secret_value() if settings.secret else ""
        self._keyword = settings.keyword
        self._clock = clock

    def body(self, draft: Draft) -> object:
        """Text; people are called by the number of their phone or their user id."""
        head = f"{self._keyword}\n" if self._keyword else ""
        phones, users = handles(draft.notice.mention)
        return {
            "msgtype": "text",
            "text": {"content": head + fitted(draft.message, LONGEST)},
            "at": {"atMobiles": phones, "atUserIds": users, "isAtAll": False},
        }

    def request(self, draft: Draft) -> Request:
        """The body at the robot's address, which carries the signature."""
        url = self.url
        if self._secret:
            timestamp = str(int(self._clock() * 1000))
            query = urlencode({"timestamp": timestamp, "sign": sign(timestamp, self._secret)})
            url += f"{'&' if '?' in url else '?'}{query}"
        return Request(url, self.body(draft))


def sign(timestamp: str, secret: str) -> str:
    """DingTalk's signature of a timestamp in milliseconds, before it is quoted for an address."""
    digest = hmac.digest(secret.encode(), f"{timestamp}\n{secret}".encode(), "sha256")
    return base64.b64encode(digest).decode()
