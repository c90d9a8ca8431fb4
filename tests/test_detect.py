"""Which server an address belongs to, found without sending the token."""

from collections.abc import Iterator

import pytest
from replay import Replay, opened, recording, replaying

from exporter.http import ServerError
from exporter.telemetry import Telemetry

JSON = {"Content-Type": "application/json; charset=utf-8"}
PAGE = {"Content-Type": "text/html; charset=utf-8"}


@pytest.fixture
def replay() -> Iterator[Replay]:
    with replaying("drone-1.x") as replay:
        yield replay


def answering(status: int, headers: dict[str, str], body: object) -> dict[str, object]:
    return {"status": status, "headers": headers, "body": body}


@pytest.mark.parametrize(
    ("system", "dialect"),
    [
        ("drone-0.5", "drone-0.5"),
        ("drone-0.8", "drone-0.8"),
        ("drone-1.x", "drone-1"),
        ("woodpecker", "woodpecker"),
    ],
)
def test_recorded_servers(system: str, dialect: str) -> None:
    with replaying(system, "version") as replay:
        server = opened(replay, Telemetry())
        assert server.dialect == dialect
        assert replay.asked == ["/version"]
        assert replay.tokens == [None]
        server.session.close()


@pytest.mark.parametrize(
    ("status", "headers", "body", "dialect"),
    [
        (200, PAGE | {"X-Drone-Version": "0.5.0+dev"}, "<!DOCTYPE html>", "drone-0.5"),
        (200, PAGE | {"X-Drone-Version": "0.6.0"}, "<!DOCTYPE html>", "drone-0.8"),
        (200, JSON | {"X-Drone-Version": "0.7.3"}, {"version": "0.7.3"}, "drone-0.8"),
        (200, JSON, {"source": "https://github.com/drone/drone", "version": "0.8.9"}, "drone-0.8"),
        (200, JSON, {"version": "1.0.0"}, "drone-1"),
        (
            200,
            JSON,
            {"source": "https://github.com/drone/drone", "commit": "ab", "version": "2.0.4"},
            "drone-1",
        ),
        (404, {"X-Drone-Version": "0.8.9"}, "", "drone-0.8"),
        (
            200,
            JSON,
            {"source": "https://github.com/woodpecker-ci/woodpecker", "version": "3.17.0"},
            "woodpecker",
        ),
        (200, JSON | {"X-Woodpecker-Version": "3.9.0"}, {"version": "3.9.0"}, "woodpecker"),
        (404, {"X-Woodpecker-Version": "3.9.0"}, "", "woodpecker"),
    ],
)
def test_versions(status: int, headers: dict[str, str], body: object, dialect: str, replay: Replay) -> None:
    replay.answers["/version"] = answering(status, headers, body)
    assert opened(replay, Telemetry()).dialect == dialect


@pytest.mark.parametrize("name", ["rosa-arches", "om-arches"])
@pytest.mark.parametrize(
    "version", [answering(404, {}, ""), answering(404, JSON, {"status": 404}), answering(200, PAGE, "<html>")]
)
def test_abf_is_known_by_its_architectures(name: str, version: dict[str, object]) -> None:
    with replaying("abf", name) as replay:
        replay.answers["/version"] = version
        server = opened(replay, Telemetry())
        assert server.dialect == "abf"
        assert replay.asked == ["/version", "/api/v1/arches.json"]
        assert replay.tokens == [None, None]
        server.session.close()


@pytest.mark.parametrize(
    ("status", "headers", "body", "reason"),
    [
        (200, PAGE, "<html>log in</html>", "shape"),
        (200, JSON, {"version": "17.2.1-ee", "revision": "abc"}, "shape"),
        (200, JSON, ["version"], "shape"),
        (404, {}, "", "shape"),
        (401, {}, "", "auth"),
        (429, {}, "", "limit"),
        (502, PAGE, "<html>", "status"),
        (302, {"Location": "https://sso.example.com/"}, "", "status"),
    ],
)
def test_what_is_no_known_server(
    status: int, headers: dict[str, str], body: object, reason: str, replay: Replay
) -> None:
    replay.answers["/version"] = answering(status, headers, body)
    with pytest.raises(ServerError) as caught:
        opened(replay, Telemetry())
    assert caught.value.reason == reason
    assert set(replay.tokens) == {None}


def test_a_set_dialect_is_not_looked_for(replay: Replay) -> None:
    for dialect in ("drone-0.5", "drone-0.8", "drone-1", "woodpecker", "abf"):
        assert opened(replay, Telemetry(), dialect).dialect == dialect
    assert replay.asked == []


@pytest.mark.parametrize(
    ("system", "dialect"),
    [
        ("drone-0.5", "drone-0.8"),
        ("drone-0.8", "drone-0.5"),
        ("drone-0.5", "drone-1"),
        ("drone-0.8", "drone-1"),
        ("drone-0.5", "woodpecker"),
        ("drone-1.x", "woodpecker"),
    ],
)
def test_a_wrong_dialect_is_told(system: str, dialect: str) -> None:
    with replaying(system, "user", "version") as replay:
        server = opened(replay, Telemetry(), dialect)
        with pytest.raises(ServerError, match=f"`dialect: {dialect}`") as caught:
            server.whoami()
        assert caught.value.reason == "shape"
        server.session.close()


def test_a_set_dialect_does_without_the_header_that_a_proxy_took(replay: Replay) -> None:
    replay.answers["/api/user"] = answering(200, JSON, recording("drone-0.8", "user")["body"])
    server = opened(replay, Telemetry(), "drone-0.8")
    assert server.whoami().login == "adminuser"
    assert server.version == ""
