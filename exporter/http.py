"""One server over HTTP: requests bounded in time and size, faults with one of a few reasons."""

import base64
import contextlib
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal
from urllib.parse import urlsplit

import requests

from exporter import __version__
from exporter.connections import BROKEN_OFF, FAULTS, NO_WAY, TOO_LARGE, BoundedAdapter, Gate, explanation
from exporter.headers import Quota, is_used_up, left_of_hour, place_of, retry_after, unix_time
from exporter.telemetry import Reason, Telemetry

LARGEST_BODY = 64 << 20
"""Bytes of an answer, after unpacking, that are read at most."""
LARGEST_ANSWER = LARGEST_BODY + (1 << 20)
"""Bytes of an answer as it comes, with its headers."""
LONGEST_CONNECT = 10.0
CHUNK = 64 << 10

Method = Literal["GET", "POST", "PUT", "DELETE"]
DONE = (200, 202)
REDIRECTS = (301, 302, 303, 307, 308)
REFUSALS: dict[int, tuple[Reason, str]] = {
    401: ("auth", "the token was not accepted: make a new one on the server's page of its user's account"),
    403: ("auth", "the token's user has no right to read it"),
    404: ("status", "not there, or the token's user may not read it"),
    413: ("auth", "the token's user has no right to read it"),
    429: ("limit", "the server or a proxy in front of it wants fewer requests"),
    501: ("status", "this edition of the server does not have it"),
}
"""What a status stands for; 413 is how Drone before 1.0 says that a user is no administrator."""


class ServerError(Exception):
    """Why a server could not be read: the only error that leaves `exporter.servers`.

    The message is one sentence for the operator: server, path, what happened, what to do; never a secret.
    """

    def __init__(
        self,
        reason: Reason,
        message: str,
        *,
        status: int = 0,
        retry_after: float | None = None,
        missing: bool = False,
        unfit: bool = False,
    ) -> None:
        super().__init__(message)
        self.reason: Reason = reason
        self.message = message
        self.status = status
        """The HTTP status; 0 where there was no answer."""
        self.retry_after = retry_after
        """Seconds that the server asks to be left alone, at most an hour; None where it does not say."""
        self.missing = missing
        """True when the server refused this one build number."""
        self.unfit = unfit
        """True when the build is in no state for what was asked of it."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server answered; the names of `headers` may be asked for in any case."""

    path: str
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def is_json(self) -> bool:
        kind = self.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        return kind == "application/json" or kind.endswith("+json")


class Session:
    """One server's address, token and limits; `get` returns JSON answers and raises only `ServerError`.

    Without `allow_writes` it sends nothing but GET.
    `timeout` is how long one answer may take, to its last byte, in seconds. Credentials in `url` are
    dropped (they would take the token's place), redirects are not followed, the environment's proxies and
    netrc are not read. Threads may share a session; `paced` and `within` hold for the thread that entered.
    """

    _largest: ClassVar[int] = LARGEST_ANSWER

    def __init__(
        self,
        *,
        name: str,
        url: str,
        token: str = "",
        telemetry: Telemetry,
        timeout: float = 30.0,
        ca_file: Path | None = None,
        proxy: str | None = None,
        allow_writes: bool = False,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self.name = name
        self.telemetry = telemetry
        self.skew = 0.0
        """The server's clock minus ours, in seconds, by the last `Date` header."""
        self._token = token.strip()
        self._authorization = f"Bearer {self._token}" if self._token else ""
        self._login = self._password = ""
        self._quota = Quota()
        self._timeout = timeout
        self._allow_writes = allow_writes
        self._clock, self._sleep = clock, sleep
        parts = urlsplit(url)
        self._url = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl().rstrip("/")
        self._gate = Gate()
        self._ca_file = ca_file
        self._proxies = {"http": proxy, "https": proxy} if proxy else {}
        system_trust = parts.scheme == "https" and ca_file is None
        # Not a requests.Session: it reads a redirect's whole body, the environment and cookies.
        self._adapter = BoundedAdapter(self._gate, self._largest, system_trust=system_trust)
        self._headers = {
            "User-Agent": f"build-exporter/{__version__}",
            "Accept": "application/json",
            "Accept-Encoding": "gzip",
        }

    def __repr__(self) -> str:
        return f"Session({self.name!r})"

    def use_basic(self, login: str = "", password: str = "") -> None:
        """Sign in as `login` with its password, or with the token in the place of a user's name (ABF)."""
        self._login, self._password = login, password
        pair = f"{login or self._token}:{password}".encode()
        self._authorization = f"Basic {base64.b64encode(pair).decode()}" if len(pair) > 1 else ""

    def server_now(self) -> float:
        """The server's clock, in Unix seconds."""
        return self._clock() + self.skew

    def close(self) -> None:
        """End a request that waits, and let every later one fail at once; any thread may call it."""
        self._gate.close()
        self._adapter.close()

    @contextlib.contextmanager
    def paced(self, interval: float) -> Iterator[None]:
        """Within it, this thread's requests begin at least `interval` seconds apart."""
        self._gate.call.interval, self._gate.call.next = interval, 0.0
        try:
            yield
        finally:
            self._gate.call.interval = 0.0

    def within(self, seconds: float) -> contextlib.AbstractContextManager[None]:
        """Within it, this thread's requests end after so many seconds together, however many they are."""
        return self._gate.within(seconds)

    def get(self, path: str, operation: str) -> Answer:
        """The JSON answer (status 200) to GET `path`; `operation` is its name in ci_server_requests_total."""
        return self.check(self.ask(path, operation))

    def ask(self, path: str, operation: str, *, method: Method = "GET", with_token: bool = True) -> Answer:
        """The answer to GET (or another method) of `path`, whatever its status and type."""
        if method != "GET":
            if not self._allow_writes:
                raise self.fault("auth", path, "nothing is changed there unless `allow_writes: true` is set")
            # What changes something is sent once; a kept connection might turn out to be closed.
            self._adapter.close()
        if not (self._token.isascii() and self._token.isprintable()):
            raise self.fault("auth", path, "the token has characters that no token has: write its file anew")
        if self._quota.exhausted(self.server_now()):
            after = left_of_hour(self.server_now())
            raise self.fault("limit", path, "not asked: this hour's requests are made", retry_after=after)
        self._wait()
        try:
            answer = self._exchange(method, path, with_token=with_token)
        except ServerError as error:
            code = str(error.status) if error.status else error.reason
            self.telemetry.requests.labels(self.name, operation, code).inc()
            raise
        self.telemetry.requests.labels(self.name, operation, str(answer.status)).inc()
        return answer

    def check(self, answer: Answer) -> Answer:
        """The answer itself when it is JSON with status 200 or 202, else the fault that it stands for."""
        if answer.status not in DONE:
            raise self._refusal(answer)
        if not answer.is_json:
            raise self.fault(
                "shape",
                answer.path,
                "answered something else than JSON (a web page?): let `url` be the CI server's own address, "
                "not that of a login page in front of it",
                status=200,
            )
        return answer

    def elsewhere(self, url: str) -> "Session":
        """A session for a server that this one names: bounded alike, without the token."""
        return Session(
            name=self.name,
            url=url,
            telemetry=self.telemetry,
            timeout=min(self._timeout, max(self._gate.spare(), 0.01)),
            ca_file=self._ca_file,
            proxy=self._proxies.get("http"),
            clock=self._clock,
            sleep=self._sleep,
        )

    def without_token(self, text: str) -> str:
        """The text with token and password, should a server have sent them back, left out."""
        sent = self._authorization.rpartition(" ")[2]
        for secret in filter(None, (sent, self._token, self._password)):
            text = text.replace(secret, "<secret>")
        return text

    def fault(
        self,
        reason: Reason,
        path: str,
        what: str,
        *,
        status: int = 0,
        retry_after: float | None = None,
        missing: bool = False,
        unfit: bool = False,
    ) -> ServerError:
        """An error about this path of this server; `what` goes on where the path ends."""
        message = f"server {self.name}: {path}: {what}"
        return ServerError(
            reason, message, status=status, retry_after=retry_after, missing=missing, unfit=unfit
        )

    def _refusal(self, answer: Answer) -> ServerError:
        status = answer.status
        if status in REDIRECTS:
            reason: Reason = "status"
            what = (
                f"a redirect to {place_of(answer.headers.get('Location', ''))}, which is not followed "
                "(the token was not sent there): set `url` to the address that the server is really at"
            )
        else:
            reason, what = REFUSALS.get(status, ("status", "look at the log of the server or its proxy"))
        after = retry_after(answer.headers, self.server_now())
        if status == 401 and not self._authorization:
            what = "there is no token: set `token_file` or `token_env`"
        elif status == 401 and self._login:
            what = "`login` and its password were not accepted"
        elif status == 403 and (is_used_up(answer.headers) or b"Rate Limit Exceeded" in answer.body):
            reason, what = "limit", "this hour's requests are all made"
            after = left_of_hour(self.server_now())
        return self.fault(reason, answer.path, f"answered {status}: {what}", status=status, retry_after=after)

    def _wait(self) -> None:
        self._keep_pace()
        pause = min(self._quota.pause(self.server_now()), self._gate.spare())
        while pause > 0 and not self._gate.closed.is_set():
            self._sleep(min(pause, 1.0))
            pause -= 1.0

    def _keep_pace(self) -> None:
        call = self._gate.call
        interval: float = getattr(call, "interval", 0.0)
        if interval <= 0:
            return
        now = self._clock()
        # Never more than one interval, so that a clock that was set back does not stop us.
        if (pause := min(call.next - now, interval)) > 0:
            self._sleep(pause)
            now += pause
        call.next = now + interval

    def _exchange(self, method: Method, path: str, *, with_token: bool) -> Answer:
        try:
            self._gate.begin(self._timeout)
            try:
                return self._once(method, path, with_token=with_token)
            except FAULTS as error:
                if method != "GET" or not self._gate.was_dropped(error):
                    raise
            return self._once(method, path, with_token=with_token)
        except FAULTS as error:
            # Without its cause, whose text may hold the address of a proxy with its password.
            raise self._explained(path, error) from None

    def _once(self, method: Method, path: str, *, with_token: bool) -> Answer:
        with self._send(method, path, self._headers, with_token=with_token) as response:
            self._note_clock(response.headers)
            self._quota.note(response.headers, self.server_now())
            return Answer(path, response.status_code, response.headers, self._body(response, path))

    def _send(
        self, method: Method, path: str, headers: Mapping[str, str], *, with_token: bool = True
    ) -> requests.Response:
        token = {"Authorization": self._authorization} if with_token and self._authorization else {}
        return self._adapter.send(
            requests.Request(method, self._url + path, headers={**headers, **token}).prepare(),
            stream=True,
            timeout=(min(self._gate.left(), LONGEST_CONNECT), self._gate.left()),
            verify=str(self._ca_file) if self._ca_file else True,
            proxies=self._proxies,
        )

    def _body(self, response: requests.Response, path: str) -> bytes:
        packed = response.headers.get("Content-Encoding", "identity").strip().lower()
        if response.status_code not in DONE:
            return next(response.raw.stream(CHUNK, decode_content=False), b"")
        if packed not in {"identity", "gzip"}:
            raise self.fault("shape", path, "answered in an encoding that was not asked for", status=200)
        if (response.raw.length_remaining or 0) > LARGEST_BODY:
            raise self.fault("shape", path, TOO_LARGE, status=200)
        unpack = zlib.decompressobj(wbits=31) if packed == "gzip" else None
        parts: list[bytes] = []
        size = 0
        for chunk in response.raw.stream(CHUNK, decode_content=False):
            # Unpacked no further than to the limit, however much a few bytes stand for.
            part = unpack.decompress(chunk, LARGEST_BODY - size + 1) if unpack else chunk
            parts.append(part)
            if (size := size + len(part)) > LARGEST_BODY:
                raise self.fault("shape", path, TOO_LARGE, status=200)
        if unpack and not unpack.eof:
            raise self.fault("json", path, BROKEN_OFF, status=200)
        return b"".join(parts)

    def _note_clock(self, headers: Mapping[str, str]) -> None:
        if (date := unix_time(headers.get("Date", ""))) is not None:
            self.skew = date - self._clock()
            self.telemetry.clock_skew.labels(self.name).set(self.skew)

    def _explained(self, path: str, error: Exception) -> ServerError:
        if self._gate.closed.is_set():
            return self.fault("refused", path, "not asked any more, for the exporter stops reading it")
        if known := explanation(error, self._timeout):
            return self.fault(known[0], path, known[1])
        if self._ca_file and not self._ca_file.is_file():
            return self.fault("tls", path, "there is no file where `ca_file` says")
        return self.fault("refused", path, NO_WAY)
