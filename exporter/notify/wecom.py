"""A robot of a WeCom group (developer.work.weixin.qq.com, document 91770).

The message is of the type `text`, whose only markup is `<@user>`.
"""

from exporter.config_notify import WecomSettings
from exporter.notify.message import fitted
from exporter.notify.post import HttpTarget, Verdict, coded
from exporter.notify.targets import Draft, Rate, Result, handles

LONGEST = 2048
"""Bytes of the text."""
CODES = {
    -1: Verdict(Result.RETRY, "WeCom is busy"),
    45009: Verdict(Result.RETRY, "too many messages", 60.0),
    45033: Verdict(Result.RETRY, "too many messages at once"),
    40058: Verdict(Result.TOO_LARGE, "the message is too large"),
    45002: Verdict(Result.TOO_LARGE, "the message is too large"),
    93000: Verdict(Result.PAUSE, "the robot does not exist: look at its address"),
    93004: Verdict(Result.PAUSE, "the robot is switched off"),
    93008: Verdict(Result.PAUSE, "the robot is not in the group any more"),
}


class Wecom(HttpTarget):
    """One group, by its robot's address."""

    rate = (Rate(18, 60.0),)

    def __init__(self, settings: WecomSettings) -> None:
        super().__init__(settings, coded(("errcode",), CODES))

    def body(self, draft: Draft) -> object:
        """Text; people are called by their user id or the number of their phone."""
        phones, users = handles(draft.notice.mention)
        text = {
            "content": fitted(draft.message, LONGEST),
            "mentioned_list": users,
            "mentioned_mobile_list": phones,
        }
        return {"msgtype": "text", "text": text}
