"""One message over HTTP: what every answer, and the lack of one, means for the message.

Redirects are not followed, the environment's proxies are not used, answers are read up to a limit.
"""

import json
import time
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

from exporter import __version__
from exporter.config_notify import HttpSettings
from exporter.connections import FAULTS, NO_WAY, BoundedAdapter, Gate, explanation
from exporter.headers import LONGEST_RETRY_AFTER, place_of, retry_after, unix_time
from exporter.notify.targets import Base, Draft, Outcome, Result, without_secrets

READ = 64 << 10
"""Bytes of an answer that are read."""
LARGEST_ANSWER = 4 << 20
LONGEST_CONNECT = 10.0
BY_STATUS: Mapping[int, tuple[Result, str]] = {
    401: (Result.PAUSE, "not let in: look at its secrets"),
    403: (Result.PAUSE, "not let in: look at its secrets"),
    404: (Result.PAUSE, "nothing there: look at its address"),
    407: (Result.PAUSE, "the proxy wants a login"),
    408: (Result.RETRY, "it waited too long for the message"),
    413: (Result.TOO_LARGE, "the message is too large"),
    425: (Result.RETRY, "too early"),
    429: (Result.RETRY, "too many messages"),
}
WORDS = ("errmsg", "msg", "error", "message", "description", "detail")
"""Under what channels say in words why they refuse."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an answer means."""

    result: Result
    what: str = ""
    retry_after: float | None = None
    """Seconds to leave the channel alone where its answer does not say."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a channel answered: `body` is the JSON in `text`, None where that is none."""

    status: int
    text: str
    body: Any


Judge = Callable[[Answer], Verdict | None]
"""What a channel means beyond HTTP; None where the status says all."""


@dataclass(frozen=True, slots=True)
class Request:
    """A POST: `body` is sent as JSON where it is not bytes already."""

    url: str
    body: object
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reply:
    """What became of a request, and the JSON that was answered, None where there was none."""

    outcome: Outcome
    body: Any = None
    date: float | None = None
    """When it was answered, by the channel's own clock (Unix seconds, whole ones)."""


class Post:
    """The way to one channel. `secrets` are left out of what is told."""

    def __init__(
        self,
        name: str,
        *,
        secrets: tuple[str, ...],
        timeout: float = 10.0,
        ca_file: Path | None = None,
        proxy: str | None = None,
        judge: Judge = lambda _: None,
    ) -> None:
        self._name, self._secrets, self._judge, self._timeout = name, secrets, judge, timeout
        self._gate = Gate()
        self._verify: str | bool = str(ca_file) if ca_file else True
        self._proxies = {"http": proxy, "https": proxy} if proxy else {}
        self._adapter = BoundedAdapter(self._gate, LARGEST_ANSWER, system_trust=ca_file is None)

    def __repr__(self) -> str:
        return f"Post({self._name!r})"

    def close(self) -> None:
        """End what waits, and let all later requests fail."""
        self._gate.close()
        self._adapter.close()

    def send(self, request: Request) -> Reply:
        """Send it once; raises nothing that the channel or the way to it is the cause of."""
        body = request.body
        data = body if isinstance(body, bytes) else json.dumps(body, ensure_ascii=False).encode()
        sent = {
            "User-Agent": f"build-exporter/{__version__}",
            "Accept-Encoding": "identity",
            "Content-Type": "application/json; charset=utf-8",
            **request.headers,
        }
        try:
            self._gate.begin(self._timeout)
            with self._adapter.send(
                requests.Request("POST", request.url, headers=sent, data=data).prepare(),
                stream=True,
                timeout=(min(self._timeout, LONGEST_CONNECT), self._timeout),
                verify=self._verify,
                proxies=self._proxies,
            ) as response:
                return self._judged(response)
        except FAULTS as error:
            return Reply(self._unanswered(error))

    def _judged(self, response: requests.Response) -> Reply:
        status, headers = response.status_code, response.headers
        try:
            text = response.raw.read(READ, decode_content=False).decode(errors="replace")
        except FAULTS:
            text = ""
        body, date = _json(text), unix_time(headers.get("Date", ""))
        verdict = self._judge(Answer(status, text, body)) or _by_status(status, headers)
        if verdict.result is Result.OK:
            return Reply(Outcome(result=Result.OK), body, date)
        now = time.time() if date is None else date
        waits = (retry_after(headers, now), _asked(body), verdict.retry_after)
        wait = next((seconds for seconds in waits if seconds is not None), None)
        said = ": ".join(filter(None, (str(status), _words(text, body))))
        return Reply(self._outcome(verdict.result, f"{verdict.what} ({said})", wait), body, date)

    def _unanswered(self, error: Exception) -> Outcome:
        if self._gate.closed.is_set():
            what = "not waited for, for the exporter stops"
        else:
            known = explanation(error, self._timeout)
            what = known[1] if known else NO_WAY
        if self._gate.call.sent:
            return self._outcome(Result.AMBIGUOUS, f"sent, and no answer: {what}")
        return self._outcome(Result.RETRY, f"not sent: {what}")

    def _outcome(self, result: Result, detail: str, wait: float | None = None) -> Outcome:
        return Outcome(result=result, detail=without_secrets(detail, self._secrets), retry_after=wait)


class HttpTarget(Base):
    """A target that takes every message as one POST."""

    def __init__(self, settings: HttpSettings, judge: Judge = lambda _: None) -> None:
        super().__init__(settings.name)
        self.url = settings.url.get_secret_value() if settings.url else ""
        self.post = Post(
            settings.name,
            secrets=settings.secrets,
            timeout=settings.timeout,
            ca_file=settings.ca_file,
            proxy=settings.proxy,
            judge=judge,
        )

    @abstractmethod
    def body(self, draft: Draft) -> object:
        """What is to be sent as JSON, before it is signed."""

    def request(self, draft: Draft) -> Request:
        """The body, signed and addressed."""
        return Request(self.url, self.body(draft))

    def shown(self, draft: Draft) -> str:
        """The body as indented JSON."""
        return json.dumps(self.body(draft), ensure_ascii=False, indent=2)

    def deliver(self, draft: Draft) -> Outcome:
        """Send it."""
        return self.post.send(self.request(draft)).outcome

    def close(self) -> None:
        """End what waits."""
        self.post.close()


def coded(keys: tuple[str, ...], codes: Mapping[int, Verdict]) -> Judge:
    """The judge of a channel that says in the body what it did, under the first of `keys`: 0 is good."""

    def judge(answer: Answer) -> Verdict | None:
        body = answer.body if isinstance(answer.body, dict) else {}
        code = next((body[key] for key in keys if isinstance(body.get(key), int)), None)
        if code is None:
            unknown = Verdict(Result.AMBIGUOUS, "something else answered than this channel")
            return unknown if answer.status in range(200, 300) else None
        if code == 0:
            return Verdict(Result.OK) if answer.status in range(200, 300) else None
        if verdict := codes.get(code):
            return Verdict(verdict.result, f"{verdict.what}: code {code}", verdict.retry_after)
        refused = Verdict(Result.PERMANENT, f"refused: code {code}")
        return refused if answer.status in range(200, 300) else None

    return judge


def _by_status(status: int, headers: Mapping[str, str]) -> Verdict:
    if known := BY_STATUS.get(status):
        return Verdict(*known)
    if status in range(200, 300):
        return Verdict(Result.OK)
    if status in range(300, 400):
        return Verdict(
            Result.PAUSE, f"it is not there any more, but at {place_of(headers.get('Location', ''))}"
        )
    if status in range(400, 500):
        return Verdict(Result.PERMANENT, "refused")
    return Verdict(Result.RETRY, "it is in trouble")


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _asked(body: Any) -> float | None:
    """Seconds that the body's `retry_after` asks for, at most an hour; of Telegram it is in `parameters`."""
    for mapping in (body, body.get("parameters") if isinstance(body, dict) else None):
        wait = mapping.get("retry_after") if isinstance(mapping, dict) else None
        if isinstance(wait, int | float) and not isinstance(wait, bool) and wait >= 0:
            return float(min(wait, LONGEST_RETRY_AFTER))
    return None


def _words(text: str, body: Any) -> str:
    """What the answer says in words, if it is not a page."""
    if isinstance(body, str):
        return body
    if isinstance(body, dict):
        return next((body[key] for key in WORDS if isinstance(body.get(key), str)), "")
    return "" if body is not None or text.lstrip().startswith("<") else text
