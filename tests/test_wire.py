"""Rows with anything in them: one that cannot be read costs itself alone, and no answer surprises."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from odd import HOSTILE, ODD_VALUES, is_sane, places, replaced
from replay import Replay, opened, recording, replaying

from exporter.http import ServerError
from exporter.model import Build
from exporter.servers import Server
from exporter.servers.wire import MOST_VALUES
from exporter.telemetry import Telemetry

LISTS = {
    "drone-0.5": "builds",
    "drone-0.8": "builds",
    "drone-1.x": "builds-mixed",
    "woodpecker": "pipelines-mixed",
}
BUILDS = dict.fromkeys(LISTS, "/api/repos/octo/hello/builds") | {"woodpecker": "/api/repos/1/pipelines"}
FEEDS = {
    "drone-0.5": ("user-feed", "/api/user/feed"),
    "drone-0.8": ("user-feed", "/api/user/feed"),
    "drone-1.x": ("user-repos-latest", "/api/user/builds"),
    "woodpecker": ("feed-latest", "/api/user/feed"),
}
REPOS = {
    "drone-0.5": ("user-repos", "/api/user/repos"),
    "drone-0.8": ("user-repos", "/api/user/repos"),
    "drone-1.x": ("user-repos-latest", "/api/user/repos?latest=true"),
    "woodpecker": ("user-repos-with-pipelines", "/api/user/repos"),
}
SINGLES = {
    "drone-0.5": "build-ran-matrix",
    "drone-0.8": "build-matrix",
    "drone-1.x": "build-failure-stages",
    "woodpecker": "pipeline-clone-failed",
}


@pytest.fixture
def telemetry() -> Telemetry:
    return Telemetry()


@pytest.fixture(params=LISTS)
def replay(request: pytest.FixtureRequest) -> Iterator[Replay]:
    with replaying(request.param, "user", "version") as replay:
        if request.param == "woodpecker":
            replay.play("repo-lookup")
        yield replay


@pytest.fixture
def server(replay: Replay, telemetry: Telemetry) -> Iterator[Server]:
    server = opened(replay, telemetry)
    yield server
    server.session.close()


def count(telemetry: Telemetry, name: str, **labels: str) -> float:
    return telemetry.registry.get_sample_value(name, {"server": "ci", **labels}) or 0.0


def rows(replay: Replay) -> list[dict[str, Any]]:
    body: list[dict[str, Any]] = recording(replay.system, LISTS[replay.system])["body"]
    return body


def listed(server: Server, replay: Replay, body: object) -> list[Build]:
    replay.serve(BUILDS[replay.system], body)
    return server.builds("octo/hello", 1).builds


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("number", "7"),
        ("number", 0),
        ("number", -1),
        ("number", 7.5),
        ("number", None),
        ("number", True),
        ("number", 1 << 80),
        ("number", [7]),
        ("id", 1 << 63),
        ("status", 1),
        ("event", {"name": "push"}),
        ("ref", None),
    ],
)
def test_a_row_of_wrong_types_is_skipped_alone(
    field: str, value: object, server: Server, replay: Replay, telemetry: Telemetry
) -> None:
    body = rows(replay)
    before = listed(server, replay, body)
    assert count(telemetry, "ci_unknown_values_total", field="row") == 0
    body[1][field] = value
    replay.serve(BUILDS[replay.system], body)
    page = server.builds("octo/hello", 1)
    assert page.builds == [before[0], *before[2:]]
    assert page.rows == len(before)
    assert count(telemetry, "ci_unknown_values_total", field="row") == 1
    assert count(telemetry, "ci_server_poll_failures_total", reason="shape") == 1


def test_rows_that_are_no_rows(server: Server, replay: Replay, telemetry: Telemetry) -> None:
    body: list[object] = [*rows(replay)[:2], None, 7, "x", [], {}, [[[]]]]
    assert [build.number for build in listed(server, replay, body)] == [
        row["number"] for row in rows(replay)[:2]
    ]
    assert count(telemetry, "ci_unknown_values_total", field="row") == 6


@pytest.mark.parametrize("body", [{}, {"message": "x"}, 7, "x", True])
def test_no_list(body: object, server: Server, replay: Replay) -> None:
    with pytest.raises(ServerError) as caught:
        listed(server, replay, body)
    assert (caught.value.reason, caught.value.status) == ("shape", 200)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[", b'[{"number": 1, "status"', b"[1,]", b"{]", b"nul", b"\x00", b"[1] [2]",
        b"[" * 100_000, b"[" * 100_000 + b"]" * 100_000, b'{"a":' * 100_000,
    ],
    ids=range(11),
)  # fmt: skip
def test_no_json(body: bytes, server: Server, replay: Replay) -> None:
    with pytest.raises(ServerError) as caught:
        listed(server, replay, body)
    assert (caught.value.reason, caught.value.status) == ("json", 200)
    replay.serve(f"{BUILDS[replay.system]}/1", body)
    with pytest.raises(ServerError) as caught:
        server.build("octo/hello", 1)
    assert (caught.value.reason, caught.value.status) == ("json", 200)


def test_numbers_that_are_none(server: Server, replay: Replay, telemetry: Telemetry) -> None:
    row = json.dumps(rows(replay)[0])
    for odd in ("NaN", "Infinity", "-1e999", "1e400", "9" * 9999):
        assert listed(server, replay, f'[{row}, {row[:-1]}, "id": {odd}}}]'.encode()) == listed(
            server, replay, f"[{row}]".encode()
        )
    assert count(telemetry, "ci_unknown_values_total", field="row") == 5


def test_text_that_cannot_be_kept(server: Server, replay: Replay, telemetry: Telemetry) -> None:
    good = listed(server, replay, rows(replay)[:1])[0]
    body = json.dumps(rows(replay)[:1])
    for odd in (r"a\u0000b", r"a\ud800b", "a\udcffb"):
        text = body.replace(json.dumps(rows(replay)[0]["message"]), f'"{odd}"').encode(
            "utf-8", "surrogateescape"
        )
        (build,) = listed(server, replay, text)
        assert build.title == "a\ufffdb"
        assert (build.number, build.status, build.commit) == (good.number, good.status, good.commit)
    assert count(telemetry, "ci_unknown_values_total", field="row") == 0


def test_an_answer_of_too_many_values(server: Server, replay: Replay) -> None:
    with pytest.raises(ServerError) as caught:
        listed(server, replay, b"[" + b"0," * (MOST_VALUES + 1) + b"0]")
    assert caught.value.reason == "shape"


@pytest.mark.parametrize(
    "name",
    ["", "octo", "/hello", "octo/", "octo/hello/more", "oc to/hello", "../hello", "octo/..", "./hello",
     "octo/.", "octo/he\nllo", "octo/\x7f", "octo/" + "x" * 300, "octo/he\u0000llo"],
)  # fmt: skip
def test_names_that_no_repo_has(name: str, server: Server, replay: Replay, telemetry: Telemetry) -> None:
    recorded, path = REPOS[replay.system]
    body = recording(replay.system, recorded)["body"]
    body[0] |= {"full_name": name, "slug": name}
    replay.serve(path, body).serve("/api/user/feed?latest=true", [{"full_name": name, "number": 1}])
    assert len(server.repos()) == len(body) - 1
    assert count(telemetry, "ci_unknown_values_total", field="row") >= 1
    assert "he\nllo" not in "".join(replay.asked)


def test_names_are_quoted_in_paths(server: Server, replay: Replay) -> None:
    replay.serve("/api/repos/octo/a%3Fb%23c%25d/builds", []).serve("/api/repos/7/pipelines", [])
    replay.serve("/api/repos/lookup/octo/a%3Fb%23c%25d", {"id": 7, "full_name": "octo/a?b#c%d"})
    assert server.builds("octo/a?b#c%d", 1).rows == 0


def test_any_value_in_a_list(server: Server, replay: Replay) -> None:
    body = rows(replay)[:4]
    good = listed(server, replay, body)

    @HOSTILE
    @given(st.sampled_from(list(places(body[1]))), ODD_VALUES)
    def check(path: tuple[Any, ...], odd: object) -> None:
        changed = [body[0], replaced(body[1], path, odd), *body[2:]]
        builds = listed(server, replay, changed)
        others = [build for build in builds if build in (good[0], *good[2:])]
        assert others == [good[0], *good[2:]]
        assert len(builds) - len(others) <= 1
        assert all(is_sane(build) for build in builds)

    check()


def test_any_value_in_a_feed(server: Server, replay: Replay) -> None:
    recorded, path = FEEDS[replay.system]
    body = [row for row in recording(replay.system, recorded)["body"] if "build" in row or "number" in row][
        :3
    ]
    replay.serve(path, body)
    good, _ = server.feed("")
    assert len(good) == 3

    @HOSTILE
    @given(st.sampled_from(list(places(body[1]))), ODD_VALUES)
    def check(place: tuple[Any, ...], odd: object) -> None:
        replay.serve(path, [body[0], replaced(body[1], place, odd), body[2]])
        builds, _ = server.feed("")
        assert [builds[0], builds[-1]] == [good[0], good[2]]
        assert len(builds) <= 3
        assert all(is_sane(build) and build.repo.count("/") == 1 for build in builds)

    check()


def test_any_value_in_a_list_of_repos(server: Server, replay: Replay) -> None:
    recorded, path = REPOS[replay.system]
    body = recording(replay.system, recorded)["body"][-3:]
    replay.serve(path, body).serve("/api/user/feed?latest=true", [])
    good = server.repos()

    @HOSTILE
    @given(st.sampled_from(list(places(body[1]))), ODD_VALUES)
    def check(place: tuple[Any, ...], odd: object) -> None:
        replay.serve(path, [body[0], replaced(body[1], place, odd), body[2]])
        repos = server.repos()
        assert [repos[0], repos[-1]] == [good[0], good[2]]
        assert all(0 <= repo.timeout < 2**63 and 0 <= repo.counter <= 2**53 for repo in repos)
        assert all(repo.newest is None or is_sane(repo.newest) for repo in repos)

    check()


def test_any_value_in_a_single_build(server: Server, replay: Replay) -> None:
    body = recording(replay.system, SINGLES[replay.system])["body"]
    path = f"{BUILDS[replay.system]}/{body['number']}"

    @HOSTILE
    @given(st.sampled_from(list(places(body))), ODD_VALUES)
    def check(place: tuple[Any, ...], odd: object) -> None:
        replay.serve(path, replaced(body, place, odd))
        try:
            sane = is_sane(server.build("octo/hello", body["number"]))
        except ServerError as error:
            sane = error.reason == "shape"
        assert sane

    check()
