"""What a target is: it takes notices, and says of each what became of it."""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from exporter.log import logger
from exporter.notify.message import Message, compose
from exporter.notify.notice import Notice
from exporter.notify.text import cut, one_line

LONGEST_DETAIL = 200
MENTIONS = 20
"""People that one message calls at most."""

log = logger(__name__)


class Result(StrEnum):
    """What became of one attempt to send a notice."""

    OK = "ok"
    RETRY = "retry"
    """Not delivered; later it may be."""
    PERMANENT = "permanent"
    """Refused, and it would be refused again."""
    AMBIGUOUS = "ambiguous"
    """It was sent whole, and there was no answer: it may have been delivered."""
    PAUSE = "pause"
    """This target takes nothing until somebody changes its settings or the channel."""
    TOO_LARGE = "too_large"
    """To be sent again, short."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one attempt, and what the outbox keeps of it."""

    result: Result
    detail: str = ""
    """One line for the operator of at most 200 characters, without secrets."""
    retry_after: float | None = None
    """Seconds that the channel asks to be left alone, at most an hour; None where it does not say."""
    reference: str = ""
    """By what the target finds a message that it took, to write it anew; empty where it cannot."""


@dataclass(frozen=True, slots=True)
class Rate:
    """How many messages a channel takes in a time."""

    count: int
    seconds: float


class Target(Protocol):
    """One place that people read. Threads may share it."""

    @property
    def name(self) -> str:
        """What it is called in the configuration."""

    @property
    def rate(self) -> tuple[Rate, ...]:
        """What the channel takes: all of them hold at once; empty where there is no limit."""

    def send(self, notice: Notice, *, short: bool = False, reference: str = "") -> Outcome:
        """Tell it, in few words if `short`, in place of the message `reference` if it can.

        It never raises, and ends within about the target's `timeout`.
        """

    def preview(self, notice: Notice, *, short: bool = False) -> str:
        """What `send` would send, without signatures and secrets."""

    def close(self) -> None:
        """End a `send` that waits, and let every later one fail at once."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A notice that is to be sent, its text, and the message that it is to replace (or empty)."""

    notice: Notice
    message: Message
    reference: str


class Base(ABC):
    """What all targets share."""

    rate: tuple[Rate, ...] = ()

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"

    def send(self, notice: Notice, *, short: bool = False, reference: str = "") -> Outcome:
        """As `Target` says: a fault of ours costs this message, not the ones after it."""
        try:
            return self.deliver(Draft(notice, compose(notice, short=short), reference))
        except Exception as error:
            log.exception("a message could not be written", target=self.name, key=notice.key)
            return Outcome(result=Result.PERMANENT, detail=f"not written: {type(error).__name__}")

    def preview(self, notice: Notice, *, short: bool = False) -> str:
        """As `Target` says."""
        return self.shown(Draft(notice, compose(notice, short=short), ""))

    @abstractmethod
    def shown(self, draft: Draft) -> str:
        """What is sent, as text."""

    @abstractmethod
    def deliver(self, draft: Draft) -> Outcome:
        """Send it once."""

    @abstractmethod
    def close(self) -> None:
        """As `Target` says."""


def without_secrets(text: str, secrets: Iterable[str]) -> str:
    """What a channel or a library said, fit for `Outcome.detail`."""
    seen = one_line(text, len(text))
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        seen = seen.replace(secret, "<secret>")
    return cut(seen, LONGEST_DETAIL)


def handles(mention: Iterable[str]) -> tuple[list[str], list[str]]:
    """Numbers of phones and user ids among the handles of people; never the one for everybody."""
    phones: list[str] = []
    users: list[str] = []
    for handle in list(mention)[:MENTIONS]:
        if re.fullmatch(r"\+?[0-9-]{6,20}", handle):
            phones.append(handle)
        elif re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,63}", handle) and handle.lower() != "all":
            users.append(handle)
    return phones, users
