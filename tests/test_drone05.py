"""Drone 0.5 as docs and recordings of a 0.5.0 server have it, read through a real session."""

from collections.abc import Iterator
from typing import Any

import pytest
from replay import NOW, TOKEN, Replay, build_in, differences, opened, recording, replaying

from exporter.http import ServerError
from exporter.model import Event, Status, User, Word
from exporter.servers import Page, Server
from exporter.telemetry import Telemetry


@pytest.fixture
def telemetry() -> Telemetry:
    return Telemetry()


@pytest.fixture
def replay() -> Iterator[Replay]:
    with replaying("drone-0.5", "user", "version") as replay:
        yield replay


@pytest.fixture
def server(replay: Replay, telemetry: Telemetry) -> Iterator[Server]:
    server = opened(replay, telemetry)
    yield server
    server.session.close()


def unknown(telemetry: Telemetry, field: str) -> float | None:
    return telemetry.registry.get_sample_value("ci_unknown_values_total", {"server": "ci", "field": field})


JOB = "job"
SINGLE: dict[str, dict[str, Any]] = {
    "build": {
        "repo": "octo/hello", "number": 1, "id": 4, "run": 1749960000, "status": Status.SUCCESS,
        "word": Word.FINAL, "event": Event.PUSH, "branch": "master", "ref": "refs/heads/master",
        "parent": 0, "environment": "", "commit": "6c307511b2b9437a28df6ec4ce4a2bbdc241330b",
        "created": 1749960000, "author": "adminuser", "title": "通过update更新", "by_hand": False,
        "cron": "", "detailed": True,
    },
    "build-pending": {
        "status": Status.PENDING, "word": Word.FINAL, "started": 0, "finished": 0, "wait": None,
        "duration": None, "steps": [(JOB, "pending", 0, None)],
    },
    "build-running": {
        "status": Status.RUNNING, "started": 1749999895, "finished": 0, "wait": 15, "duration": None,
        "steps": [(JOB, "running", 0, None)],
    },
    "build-ran-failure": {
        "status": Status.FAILURE, "word": Word.FINAL, "wait": 0, "duration": 7, "created": 1749960000,
        "run": 1795294520, "steps": [(JOB, "failure", 1, 7)],
    },
    "build-matrix": {
        "status": Status.FAILURE, "wait": 30, "duration": 95,
        "steps": [("GO_VERSION=1.7", "success", 0, 95), ("GO_VERSION=1.8", "failure", 1, 95)],
    },
    "build-ran-matrix": {
        "status": Status.FAILURE, "run": 1795294570, "started": 1795294570, "finished": 1795294584, "wait": 0,
        "duration": 14, "steps": [("GO_VERSION=1.7", "failure", 1, 7), ("GO_VERSION=1.8", "failure", 1, 7)],
    },
    "build-cancelled": {"status": Status.CANCELLED, "word": Word.FINAL, "wait": 3, "duration": 40},
    "cancel-after": {"status": Status.FAILURE, "word": Word.FLEETING, "finished": 1795295279},
    "build-ran-cancel": {
        "status": Status.CANCELLED, "word": Word.FINAL, "wait": 0, "duration": 1,
        "steps": [(JOB, "failure", 255, 1)],
    },
    "build-killed": {
        "status": Status.FAILURE, "word": Word.FLEETING, "wait": 4, "duration": 50,
        "steps": [(JOB, "cancelled", 137, 50)],
    },
    "build-error-prepare": {
        "status": Status.ERROR, "wait": 2, "duration": 0, "steps": [(JOB, "error", 255, 0)],
    },
    "build-error-server-restart-was-pending": {
        "status": Status.ERROR, "word": Word.FINAL, "started": 0, "finished": 0, "wait": None,
        "duration": None, "ended": True, "steps": [(JOB, "error", 0, None)],
    },
    "build-error-server-restart-was-running": {
        "status": Status.ERROR, "started": 1749999895, "finished": 0, "wait": 15, "duration": None,
        "ended": True,
    },
    "build-skipped": {"status": Status.UNKNOWN, "word": Word.FINAL, "ended": False},
    "build-pull-request": {
        "event": Event.PULL_REQUEST, "branch": "master", "ref": "refs/pull/86/head", "ref_class": "pr:86",
        "title": "修复登录页面的空指针异常", "wait": 9, "duration": 80,
    },
    "build-tag": {"event": Event.TAG, "branch": "", "ref": "refs/tags/v1.4.0", "ref_class": "tag:v1.4.0"},
    "build-deployment": {
        "event": Event.DEPLOYMENT, "branch": "master", "environment": "production", "parent": 1,
        "ref_class": "deploy:production",
    },
    "build-parent": {"event": Event.PUSH, "parent": 2, "number": 13, "status": Status.SUCCESS},
}  # fmt: skip


@pytest.mark.parametrize("name", SINGLE)
def test_single_builds(name: str, server: Server, replay: Replay) -> None:
    assert differences(build_in(server, replay, name), **SINGLE[name]) == {}


@pytest.mark.parametrize(
    ("error", "status"),
    [
        ("maximum time limit exceeded, build cancelled", Status.TIMEOUT),
        ("terminal inactive for 15m0s, build cancelled", Status.TIMEOUT),
        ("termination request received, build cancelled", Status.CANCELLED),
        ("Insufficient privileges to use volumes", Status.FAILURE),
    ],
)
def test_what_stopped_a_failure(error: str, status: Status, server: Server, replay: Replay) -> None:
    body = recording("drone-0.5", "build-ran-matrix")["body"]
    body["jobs"][1]["error"] = error
    replay.serve("/api/repos/octo/hello/builds/2", body)
    assert server.build("octo/hello", 2).status is status


def test_a_matrix_that_a_server_restart_cut_has_no_duration(server: Server, replay: Replay) -> None:
    body = recording("drone-0.5", "build-ran-matrix")["body"]
    body["status"] = body["jobs"][1]["status"] = "error"
    body["finished_at"] = body["jobs"][1]["finished_at"] = 0
    replay.serve("/api/repos/octo/hello/builds/2", body)
    build = server.build("octo/hello", 2)
    assert (build.ended, build.wait, build.duration, build.finished) == (True, 0, None, 0)


def test_a_restart_in_place_is_a_new_run(server: Server, replay: Replay) -> None:
    before = build_in(server, replay, "restart-before")
    after = build_in(server, replay, "restart-after-original")
    assert (before.id, before.number, before.created) == (after.id, after.number, after.created)
    assert (before.run, before.status, before.ended) == (1749963000, Status.FAILURE, True)
    assert (after.run, after.status, after.ended) == (1795295278, Status.PENDING, False)
    assert (after.started, after.finished, after.wait) == (0, 0, None)
    assert server.limits.restart_in_place


def test_a_fork_names_its_parent(server: Server, replay: Replay) -> None:
    replay.serve("/api/repos/octo/hello/builds/16", recording("drone-0.5", "restart-deploy")["body"])
    build = server.build("octo/hello", 16)
    assert differences(build, parent=1, event=Event.DEPLOYMENT, environment="staging", run=1795295279) == {}


def test_a_list(server: Server, replay: Replay, telemetry: Telemetry) -> None:
    replay.play("builds")
    page = server.builds("octo/hello", 1)
    assert page.rows == 14
    assert [build.number for build in page.builds] == list(range(14, 0, -1))
    assert {build.number: build.status.word for build in page.builds} == {
        14: "failure", 13: "success", 12: "pending", 11: "running", 10: "failure", 9: "error", 8: "error",
        7: "unknown", 6: "success", 5: "success", 4: "success", 3: "failure", 2: "failure", 1: "success",
    }  # fmt: skip
    assert {build.number for build in page.builds if build.word is Word.ROW} == {14, 10, 3, 2}
    assert {build.word for build in page.builds} == {Word.ROW, Word.FINAL}
    # A row's start is that of whichever job reported last.
    assert {(build.wait, build.duration, build.detailed) for build in page.builds} == {(None, None, False)}
    expected = {
        "repo": "octo/hello", "id": 9, "run": 1749967000, "created": 1749967000, "started": 1749967002,
        "finished": 1749967035, "environment": "production", "parent": 1, "event": Event.DEPLOYMENT,
    }  # fmt: skip
    assert differences(next(build for build in page.builds if build.number == 6), **expected) == {}
    assert unknown(telemetry, "status") == 1


def test_only_the_newest_50_builds_can_be_listed(server: Server, replay: Replay) -> None:
    assert (server.limits.history_limit, server.limits.page_size) == (50, 50)
    assert (recording("drone-0.5", "builds-page2")["body"]) == recording("drone-0.5", "builds-page1")["body"]
    asked = list(replay.asked)
    assert server.builds("octo/many", 2) == Page([], 0)
    assert replay.asked == asked


@pytest.mark.parametrize("name", ["builds-empty", "user-repos-outsider"])
def test_no_builds(name: str, server: Server, replay: Replay) -> None:
    replay.play(name, at="/api/repos/octo/empty/builds")
    assert server.builds("octo/empty", 1) == Page([], 0)


def test_the_feed(server: Server, replay: Replay) -> None:
    replay.play("user-feed")
    builds, cursor = server.feed("")
    assert cursor == ""
    assert [(build.repo, build.number) for build in builds] == [
        ("load/r0002", 30), ("load/r0001", 30), ("load/r0000", 30), ("load/r0001", 29),
    ]  # fmt: skip
    expected = {
        "run": 0, "id": 0, "status": Status.SUCCESS, "word": Word.FINAL, "detailed": False,
        "event": Event.PUSH, "branch": "master", "ref": "refs/heads/master",
        "commit": "f166cdcf762cdfbcba2aa7baf3f81c3106e3f949",
        "created": 1749999806, "started": 1749999811, "finished": 1749999870, "wait": None, "duration": None,
        "author": "grace", "title": "升级依赖 📦 v2.0",
    }  # fmt: skip
    assert differences(builds[0], **expected) == {}
    replay.play("user-feed-outsider")
    assert server.feed("")[0] == []


def test_repos(server: Server, replay: Replay) -> None:
    replay.play("user-repos", "user-feed-latest")
    repos = {repo.name: repo for repo in server.repos()}
    assert list(repos) == [row["full_name"] for row in recording("drone-0.5", "user-feed-latest")["body"]]
    demo, empty, load = repos["adminuser/demo"], repos["octo/empty"], repos["load/r0000"]
    assert (demo.id, demo.default_branch, demo.timeout, demo.active) == ("1", "master", 3600, True)
    assert demo.build_url == "https://ci.example.com/adminuser/demo/"
    assert demo.newest is not None
    assert (demo.counter, demo.newest.number, demo.newest.run) == (3, 3, 0)
    assert (empty.id, empty.counter, empty.newest) == ("4", 0, None)
    assert (load.id, load.default_branch, load.timeout, load.counter) == ("", "", 0, 30)
    asked = len(replay.asked)
    assert [repo.name for repo in server.repos(brief=True)] == list(repos)
    assert replay.asked[asked:] == ["/api/user/feed?latest=true"]


def test_a_user_without_repos(server: Server, replay: Replay) -> None:
    replay.play("user-repos-outsider").play("user-feed-outsider", at="/api/user/feed?latest=true")
    assert server.repos() == []


def test_open_builds(server: Server, replay: Replay) -> None:
    replay.play("queue")
    builds = server.open_builds()
    assert builds is not None
    assert [(build.number, build.status, build.word, build.run) for build in builds] == [
        (12, Status.PENDING, Word.FINAL, 0),
        (11, Status.RUNNING, Word.FINAL, 0),
    ]
    replay.play("queue-after")
    assert [build.number for build in server.open_builds() or []] == [2, 12, 15, 16]


def test_without_admin_rights_open_builds_are_asked_for_once(server: Server, replay: Replay) -> None:
    replay.play("queue-not-admin")
    assert server.open_builds() is None
    assert server.open_builds() is None
    assert replay.asked.count("/api/builds") == 1
    replay.play("queue")
    server.whoami()
    assert len(server.open_builds() or []) == 2


def test_whoami(server: Server, replay: Replay) -> None:
    assert server.whoami() == User(login="adminuser", admin=True)
    assert (server.dialect, server.version) == ("drone-0.5", "0.5.0+dev")
    assert replay.asked == ["/version", "/api/user"]
    assert replay.tokens == [None, f"Bearer {TOKEN}"]
    body = recording("drone-0.5", "user")["body"]
    del body["admin"]
    replay.serve("/api/user", body)
    assert server.whoami() == User(login="adminuser", admin=False)


@pytest.mark.parametrize("name", ["auth-wrong-token", "auth-none", "auth-basic", "auth-token-prefix"])
def test_a_wrong_token_is_told_though_public_repos_answer(name: str, server: Server, replay: Replay) -> None:
    replay.play(name, "auth-wrong-token-public-repo")
    assert build_in(server, replay, "auth-wrong-token-public-repo").number == 1
    with pytest.raises(
        ServerError, match=r"^server ci: /api/user: answered 401: the token was not acc"
    ) as caught:
        server.whoami()
    assert (caught.value.reason, caught.value.status) == ("auth", 401)


@pytest.mark.parametrize(
    ("name", "reason", "status", "missing"),
    [
        ("build-unknown", "status", 500, True),
        ("repo-no-permission", "status", 500, True),
        ("repo-unknown", "status", 404, True),
        ("repo-anonymous-private", "auth", 401, False),
        ("user-feed-source-host-down", "status", 500, False),
        ("version", "shape", 200, False),
        ("metrics", "shape", 200, False),
        ("build-not-a-number", "status", 400, False),
        ("builds-empty", "shape", 200, False),
        ("user-repos-outsider", "shape", 200, False),
        ("build-matrix", "shape", 200, False),
    ],
)
def test_builds_that_cannot_be_had(
    name: str, reason: str, status: int, missing: bool, server: Server, replay: Replay
) -> None:
    replay.play(name, at="/api/repos/octo/hello/builds/1")
    with pytest.raises(ServerError) as caught:
        server.build("octo/hello", 1)
    error = caught.value
    assert (error.reason, error.status, error.missing) == (reason, status, missing)
    assert str(error).startswith("server ci: /api/repos/octo/hello/builds/1: ")


@pytest.mark.parametrize(
    ("name", "reason", "status"),
    [
        ("builds-unknown-repo", "status", 404),
        ("builds-dormant", "status", 404),
        ("repo-no-permission", "status", 500),
        ("repo-unknown-anonymous", "auth", 401),
        ("info", "shape", 200),
    ],
)
def test_lists_that_cannot_be_had(
    name: str, reason: str, status: int, server: Server, replay: Replay
) -> None:
    replay.play(name, at="/api/repos/octo/hello/builds")
    with pytest.raises(ServerError) as caught:
        server.builds("octo/hello", 1)
    assert (caught.value.reason, caught.value.status, caught.value.missing) == (reason, status, False)


def test_a_source_host_that_is_down(server: Server, replay: Replay) -> None:
    replay.play("user-feed-source-host-down").play("user-repos-source-host-down", at="/api/user/repos")
    for ask in (lambda: server.feed(""), lambda: server.repos()):
        with pytest.raises(ServerError) as caught:
            ask()
        assert (caught.value.reason, caught.value.status) == ("status", 500)


def test_unknown_values_are_kept_and_counted(server: Server, replay: Replay, telemetry: Telemetry) -> None:
    body = recording("drone-0.5", "builds")["body"][-3:]
    body[0] |= {"status": "paused", "event": "comment"}
    body[1] |= {"started_at": -5, "finished_at": 915_148_800, "created_at": NOW + 301}
    body[2] |= {"started_at": NOW + 300, "finished_at": 1 << 60, "enqueued_at": 1}
    replay.serve("/api/repos/octo/hello/builds", body)
    odd, past, future = server.builds("octo/hello", 1).builds
    assert (odd.status, odd.event, odd.ended) == (Status.UNKNOWN, Event.MANUAL, True)
    assert (past.started, past.finished, past.created) == (0, 0, 0)
    assert (future.started, future.finished, future.run) == (NOW + 300, 0, 0)
    counted = {
        field: unknown(telemetry, field)
        for field in ("status", "event", "started", "finished", "created", "queued")
    }
    assert counted == {"status": 1, "event": 1, "started": 1, "finished": 2, "created": 1, "queued": 1}
