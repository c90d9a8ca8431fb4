"""A robot of a Feishu or Lark group (open.feishu.cn, "Custom bot guide").

The message is a card: all that comes from a build stands in elements of the kind `plain_text`, which
have no markup; the link is the address of a button.
"""

import base64
import hmac
import re
import time
from collections.abc import Callable

from exporter.config_notify import FeishuSettings
from exporter.notify.message import Tone, below
from exporter.notify.post import Answer, HttpTarget, Judge, Request, Verdict, coded
from exporter.notify.targets import MENTIONS, Draft, Rate, Result
from exporter.notify.text import cut_bytes, unlinked

LONGEST, LONGEST_TITLE = 7000, 900
"""Bytes of the text and the title: with every one of them escaped in JSON, the body stays below 20 KiB."""
COLOURS = {Tone.BAD: "red", Tone.GOOD: "green", Tone.WARNING: "orange", Tone.INFO: "blue"}
CODES = {
    11232: Verdict(Result.RETRY, "too many messages", 60.0),
    11233: Verdict(Result.RETRY, "too many messages", 60.0),
    99991400: Verdict(Result.RETRY, "too many messages", 60.0),
    1500: Verdict(Result.RETRY, "internal error"),
    # The one code for a body that is too large or not understood.
    9499: Verdict(Result.TOO_LARGE, "the message was not taken"),
    19001: Verdict(Result.PAUSE, "the robot does not exist: look at its address"),
    19007: Verdict(Result.PAUSE, "the robot is switched off"),
    19021: Verdict(Result.PAUSE, "signature not accepted: look at `secret_file` and the clock"),
    19022: Verdict(Result.PAUSE, "the robot takes no messages from this address"),
    19024: Verdict(Result.PAUSE, "the robot demands a word: look at `keyword`"),
}


class Feishu(HttpTarget):
    """One group, by its robot's address and, where it wants one, a signature."""

    rate = (Rate(4, 1.0), Rate(90, 60.0))

    def __init__(self, settings: FeishuSettings, clock: Callable[[], float] = time.time) -> None:
        super().__init__(settings, _judge(coded(("code", "StatusCode"), CODES)))
        self._secret = settings.secret.get_secret_value() if settings.secret else ""
        self._keyword = settings.keyword
        self._clock = clock

    def body(self, draft: Draft) -> dict[str, object]:
        """A card; people are called by their open id (`ou_…`)."""
        return {"msg_type": "interactive", "card": self._card(draft)}

    def request(self, draft: Draft) -> Request:
        """The body, which carries its signature."""
        body = self.body(draft)
        if self._secret:
            timestamp = str(int(self._clock()))
            body |= {"timestamp": timestamp, "sign": sign(timestamp, self._secret)}
        return Request(self.url, body)

    def _card(self, draft: Draft) -> dict[str, object]:
        notice, message = draft.notice, draft.message
        elements: list[object] = [{"tag": "div", "text": _plain(below(message, LONGEST))}]
        people = [handle for handle in notice.mention if re.fullmatch(r"ou_[A-Za-z0-9]{1,64}", handle)]
        if people:
            calls = " ".join(f"<at id={handle}></at>" for handle in people[:MENTIONS])
            elements.append({"tag": "div", "text": {"tag": "lark_md", "content": calls}})
        if self._keyword:
            elements.append({"tag": "note", "elements": [_plain(self._keyword)]})
        if message.link:
            button = {"tag": "button", "type": "default", "text": _plain(message.link_text)}
            elements.append({"tag": "action", "actions": [button | {"url": message.link}]})
        return {
            "config": {"wide_screen_mode": True},
            "header": {
                "template": COLOURS[message.tone],
                "title": _plain(cut_bytes(unlinked(message.title), LONGEST_TITLE)),
            },
            "elements": elements,
        }


def sign(timestamp: str, secret: str) -> str:
    """Feishu's signature of a timestamp in seconds: the key is what others sign, and nothing is signed."""
    digest = hmac.digest(f"{timestamp}\n{secret}".encode(), b"", "sha256")
    return base64.b64encode(digest).decode()


def _plain(text: str) -> dict[str, object]:
    return {"tag": "plain_text", "content": text}


def _judge(by_code: Judge) -> Judge:
    """As the codes say, but that Feishu gives the one for a bad body also to who writes too often."""

    def judge(answer: Answer) -> Verdict | None:
        if isinstance(answer.body, dict) and "too many" in str(answer.body.get("msg")):
            return Verdict(Result.RETRY, "too many messages", 60.0)
        return by_code(answer)

    return judge
