"""What a server's headers tell is believed within reason, and its limit of requests is never reached."""

import base64
from collections.abc import Callable, Iterator
from email.utils import formatdate

import pytest
from raw import always, response, serving

from exporter.headers import LONGEST_PAUSE, RESERVE, Quota
from exporter.http import ServerError, Session
from exporter.telemetry import Telemetry

HOUR = 3600
START = 1_795_600_800
"""A full hour."""
TOKEN = "t0p-s3cr3t-t0k3n"
Make = Callable[..., Session]


@pytest.fixture
def session() -> Iterator[Make]:
    made: list[Session] = []

    def make(url: str, **options: object) -> Session:
        made.append(
            Session(**{"name": "abf", "url": url, "token": TOKEN, "telemetry": Telemetry()} | options)
        )
        return made[-1]

    yield make
    for one in made:
        one.close()


def quota(remaining: object, at: float = START, limit: object = 3000) -> Quota:
    made = Quota()
    made.note({"X-RateLimit-Limit": str(limit), "X-RateLimit-Remaining": str(remaining)}, at)
    return made


@pytest.mark.parametrize(
    ("remaining", "left", "pause"),
    [
        (2999, 3600, 0),
        (1500, 3600, 0),  # half may be made at once
        (1499, 3600, 3600 / 1494),
        (1499, 1798, 0),  # fewer than its share of the hour were made
        (1000, 1500, 1500 / 995),
        (1000, 1200, 0),
        (10, 3000, LONGEST_PAUSE),
        (6, 20, LONGEST_PAUSE),
        (6, 5, 0),
    ],
)
def test_the_second_half_is_spread_over_the_hour(remaining: int, left: int, pause: float) -> None:
    now = START + HOUR - left
    assert quota(remaining, now).pause(now) == pytest.approx(pause)
    assert not quota(remaining, now).exhausted(now)


def test_an_hour_that_turned_is_a_new_one() -> None:
    spent = quota(0, START)
    assert spent.exhausted(START + HOUR - 1)
    assert not spent.exhausted(START + HOUR)
    assert quota(7, START).pause(START + HOUR) == 0


def test_some_requests_are_left_to_others() -> None:
    assert quota(RESERVE).exhausted(START)
    assert not quota(RESERVE + 1).exhausted(START)
    assert not quota(3, limit=6).pause(START)
    assert quota(3, limit=6).exhausted(START)
    assert not quota(4, limit=6).exhausted(START)


@pytest.mark.parametrize(
    ("limit", "remaining"), [("", ""), ("3000", "-1"), ("many", "0"), ("²", "0"), ("", "0")]
)
def test_headers_that_say_nothing_limit_nothing(limit: str, remaining: str) -> None:
    odd = quota(remaining, limit=limit)
    assert not odd.exhausted(START)
    assert odd.pause(START) == 0


def test_a_session_never_reaches_the_limit(session: Make) -> None:
    now, slept = [float(START)], []
    left = 100

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    def behaviour(connection: object, *_: object) -> None:
        nonlocal left
        left -= 1
        connection.sendall(  # type: ignore[attr-defined]
            response(
                Date=formatdate(now[0], usegmt=True),
                X_RateLimit_Limit="100",
                X_RateLimit_Remaining=str(left),
            )
        )

    with serving(behaviour) as server:
        one = session(server.url, clock=lambda: now[0], sleep=sleep)
        for _ in range(51):
            one.get("/", "feed")
        assert slept == []
        while left > RESERVE:
            one.get("/", "feed")
        with pytest.raises(ServerError) as caught:
            one.get("/", "feed")
    assert (caught.value.reason, left) == ("limit", RESERVE)
    assert max(slept) <= 1
    assert caught.value.retry_after == pytest.approx(HOUR - (now[0] - START), abs=2)
    assert (
        one.telemetry.registry.get_sample_value(
            "ci_server_requests_total", {"server": "abf", "operation": "feed", "code": "200"}
        )
        == 100 - RESERVE
    )


def test_closing_ends_a_pause(session: Make) -> None:
    headers = {"X_RateLimit_Limit": "1000", "X_RateLimit_Remaining": "20"}
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        one.close()

    with serving(always(response(**headers))) as server:
        one = session(server.url, clock=lambda: START, sleep=sleep)
        one.get("/", "feed")
        with pytest.raises(ServerError):
            one.get("/", "feed")
    assert slept == [1.0]


@pytest.mark.parametrize(
    ("body", "headers", "reason", "retry_after"),
    [
        (b'{"message":"403 Forbidden | Rate Limit Exceeded"}', {}, "limit", HOUR - 100),
        (b'{"message":"no"}', {"X_RateLimit_Remaining": "0"}, "limit", HOUR - 100),
        (b'{"message":"Access violation to this page!"}', {"X_RateLimit_Remaining": "10"}, "auth", None),
    ],
)
def test_a_403_may_be_the_limit(
    body: bytes, headers: dict[str, str], reason: str, retry_after: float | None, session: Make
) -> None:
    with serving(always(response(403, body, **headers))) as server, pytest.raises(ServerError) as caught:
        session(server.url, clock=lambda: START + 100).get("/", "feed")
    error = caught.value
    assert (error.reason, error.status, error.retry_after) == (reason, 403, retry_after)


@pytest.mark.parametrize(
    ("arguments", "token", "sent"),
    [
        ((), TOKEN, f"{TOKEN}:"),
        (("ada", "pass:word é"), "", "ada:pass:word é"),
    ],
)
def test_basic_credentials(arguments: tuple[str, ...], token: str, sent: str, session: Make) -> None:
    with serving(always(response())) as server:
        one = session(server.url, token=token)
        one.use_basic(*arguments)
        one.get("/", "user")
        one.ask("/", "version", with_token=False)
    signed, unsigned = server.requests
    line = b"Authorization: Basic " + base64.b64encode(sent.encode()) + b"\r\n"
    assert line in signed
    assert b"Authorization" not in unsigned


def test_credentials_that_are_refused_are_named_but_not_told(session: Make) -> None:
    with serving(always(response(401, b"HTTP Basic: Access denied."))) as server:
        one = session(server.url, token="")
        for arguments, said in (((), "there is no token"), (("ada", "hunter2"), "`login` and its password")):
            one.use_basic(*arguments)
            with pytest.raises(ServerError, match=said) as caught:
                one.get("/", "user")
            assert caught.value.reason == "auth"
            assert "hunter2" not in str(caught.value) + repr(one)
        assert one.without_token("it was hunter2, by ada") == "it was <secret>, by ada"
