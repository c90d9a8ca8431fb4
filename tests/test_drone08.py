"""Drone 0.8 as docs and recordings of a 0.8.10 server have it, read through a real session."""

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
    with replaying("drone-0.8", "user", "version") as replay:
        yield replay


@pytest.fixture
def server(replay: Replay, telemetry: Telemetry) -> Iterator[Server]:
    server = opened(replay, telemetry)
    yield server
    server.session.close()


SINGLE: dict[str, dict[str, Any]] = {
    "build": {
        "repo": "octo/hello", "number": 1, "id": 4, "run": 1749960000, "status": Status.SUCCESS,
        "word": Word.FINAL, "event": Event.PUSH, "branch": "master", "ref": "refs/heads/master", "parent": 0,
        "environment": "", "commit": "6c307511b2b9437a28df6ec4ce4a2bbdc241330b", "created": 1749960000,
        "author": "adminuser", "title": "通过update更新", "by_hand": False, "cron": "", "detailed": True,
    },
    "build-pending": {
        "status": Status.PENDING, "word": Word.FINAL, "started": 0, "finished": 0, "wait": None,
        "duration": None,
        "steps": [(name, "pending", 0, None) for name in ("clone", "build", "test")],
    },
    "build-running": {
        "status": Status.RUNNING, "started": 1749999895, "finished": 0, "wait": 15, "duration": None,
        "steps": [("clone", "success", 0, 35), ("build", "running", 0, None), ("test", "pending", 0, None)],
    },
    "build-ran-failure": {
        "status": Status.FAILURE, "word": Word.FINAL, "parent": 1, "run": 1795294389, "wait": 0,
        "duration": 7,
        "steps": [
            ("clone", "success", 0, 0), ("build", "success", 0, 3), ("test", "failure", 1, 2),
            ("deploy", "skipped", 0, None), ("notify", "success", 0, 2),
        ],
    },
    "build-matrix": {
        "status": Status.FAILURE, "wait": 30, "duration": 95,
        "steps": [
            ("GO_VERSION=1.7/clone", "success", 0, 31), ("GO_VERSION=1.7/build", "success", 0, 32),
            ("GO_VERSION=1.7/test", "success", 0, 32), ("GO_VERSION=1.8/clone", "success", 0, 31),
            ("GO_VERSION=1.8/build", "failure", 1, 64), ("GO_VERSION=1.8/test", "skipped", 0, None),
        ],
    },
    "build-blocked": {
        "status": Status.BLOCKED, "word": Word.FINAL, "event": Event.PULL_REQUEST, "started": 0,
        "finished": 0, "wait": None, "duration": None, "steps": [], "ended": False,
    },
    "build-declined": {
        "status": Status.DECLINED, "word": Word.FINAL, "started": 0, "finished": 0, "wait": None,
        "duration": None, "ended": True,
    },
    "build-error-config": {
        "status": Status.ERROR, "word": Word.FINAL, "wait": 0, "duration": 0, "steps": [],
    },
    "build-failure-no-engine": {
        "status": Status.FAILURE, "wait": 6, "duration": 0,
        "steps": [("clone", "success", 0, 0), ("build", "failure", 1, 0), ("test", "skipped", 0, None)],
    },
    "build-cancelled": {"status": Status.CANCELLED, "word": Word.FINAL, "wait": 3, "duration": 40},
    "build-ran-step-cancel": {
        "status": Status.CANCELLED, "word": Word.FINAL, "wait": 0, "duration": 3,
        "steps": [("clone", "success", 0, 0), ("build", "success", 0, 3), ("test", "skipped", 0, None)],
    },
    "build-ran-timeout": {
        "status": Status.TIMEOUT, "word": Word.FINAL, "wait": 0, "duration": 60,
        "steps": [("clone", "success", 0, 0), ("build", "success", 0, 60), ("test", "skipped", 0, None)],
    },
    "cancel-after": {"status": Status.RUNNING, "word": Word.FINAL, "finished": 0, "duration": None},
    "kill-after": {"status": Status.CANCELLED, "word": Word.FLEETING, "finished": 1795295279},
    "build-ran-whole-build-kill": {"status": Status.CANCELLED, "word": Word.FINAL, "duration": 3},
    "build-killed": {
        "status": Status.CANCELLED, "word": Word.FLEETING, "wait": 4, "duration": 50,
        "steps": [("clone", "success", 0, 16), ("build", "cancelled", 137, 34), ("test", "skipped", 0, None)],
    },
    "build-skipped": {"status": Status.UNKNOWN, "word": Word.FINAL, "ended": False},
    "build-pull-request": {
        "event": Event.PULL_REQUEST, "branch": "master", "ref": "refs/pull/86/head", "ref_class": "pr:86",
        "title": "修复登录页面的空指针异常", "wait": 9, "duration": 80,
    },
    "build-tag": {"event": Event.TAG, "branch": "", "ref": "refs/tags/v1.4.0", "ref_class": "tag:v1.4.0"},
    "build-deployment": {
        "event": Event.DEPLOYMENT, "branch": "master", "environment": "production", "parent": 1,
    },
    "build-parent": {"event": Event.PUSH, "parent": 2, "number": 15, "status": Status.SUCCESS},
    "restart-bad-config-after": {
        "status": Status.PENDING, "parent": 120, "run": 1795295121, "ended": False, "steps": [],
    },
}  # fmt: skip


@pytest.mark.parametrize("name", SINGLE)
def test_single_builds(name: str, server: Server, replay: Replay) -> None:
    assert differences(build_in(server, replay, name), **SINGLE[name]) == {}


@pytest.mark.parametrize(
    ("error", "code", "status"),
    [
        ("Cancelled", 137, Status.CANCELLED),
        ("Cancelled", 1, Status.TIMEOUT),
        ("Cancelled", 2, Status.FAILURE),
        ("", 137, Status.FAILURE),
        ("Cannot connect to the Docker daemon. Is the docker daemon running?", 1, Status.FAILURE),
    ],
)
def test_what_stopped_a_failure(
    error: str, code: int, status: Status, server: Server, replay: Replay
) -> None:
    body = recording("drone-0.8", "build-matrix")["body"]
    body["procs"][1] |= {"error": error, "exit_code": code}
    replay.serve("/api/repos/octo/hello/builds/2", body)
    assert server.build("octo/hello", 2).status is status


def test_a_restart_is_a_new_number_and_its_answer_is_flat(server: Server, replay: Replay) -> None:
    """The answer to the restart lists legs and steps side by side; they are read like nested ones."""
    flat = recording("drone-0.8", "restart")["body"]
    assert all("children" not in proc for proc in flat["procs"])
    replay.serve(f"/api/repos/octo/hello/builds/{flat['number']}", flat)
    build = server.build("octo/hello", flat["number"])
    before = build_in(server, replay, "restart-before")
    after = build_in(server, replay, "restart-after-original")
    assert before == after
    assert differences(build, parent=before.number, status=Status.PENDING, commit=before.commit) == {}
    assert build.number > before.number
    assert build.run == build.created > before.run
    assert [step.name for step in build.steps] == ["clone", "build", "test"]
    assert not server.limits.restart_in_place


def test_legs_without_variables_go_by_their_number(server: Server, replay: Replay) -> None:
    body = recording("drone-0.8", "build-matrix")["body"]
    for leg in body["procs"]:
        del leg["environ"]
    replay.serve("/api/repos/octo/hello/builds/2", body)
    assert [step.name for step in server.build("octo/hello", 2).steps][2:4] == ["1/test", "2/clone"]


def test_a_review_is_no_wait_for_a_runner(server: Server, replay: Replay) -> None:
    body = recording("drone-0.8", "build")["body"]
    began = body["started_at"]
    body |= {"reviewed_at": began - 1, "enqueued_at": began - 100, "created_at": began - 100}
    replay.serve("/api/repos/octo/hello/builds/1", body).serve("/api/repos/octo/hello/builds", [body])
    assert server.build("octo/hello", 1).wait == 1
    assert server.builds("octo/hello", 1).builds[0].wait == 1


def test_a_list(server: Server, replay: Replay, telemetry: Telemetry) -> None:
    replay.play("builds")
    page = server.builds("octo/hello", 1)
    assert replay.asked[-1] == "/api/repos/octo/hello/builds?page=1"
    assert page.rows == 16
    assert {build.number: build.status.word for build in page.builds} == {
        16: "failure", 15: "success", 14: "pending", 13: "running", 12: "failure", 11: "failure",
        10: "declined", 9: "blocked", 8: "error", 7: "unknown", 6: "success", 5: "success", 4: "success",
        3: "cancelled", 2: "failure", 1: "success",
    }  # fmt: skip
    assert {build.number for build in page.builds if build.word is Word.ROW} == {16, 12, 11, 3, 2}
    by_number = {build.number: build for build in page.builds}
    spans = {number: (build.wait, build.duration) for number, build in by_number.items()}
    assert {number: spans[number] for number in (14, 13, 10, 9, 8, 6, 2)} == {
        14: (None, None), 13: (15, None), 10: (None, None), 9: (None, None), 8: (0, 0), 6: (2, 33),
        2: (30, 95),
    }  # fmt: skip
    expected = {
        "id": 9, "run": 1749967000, "created": 1749967000, "started": 1749967002, "finished": 1749967035,
        "environment": "production", "parent": 1, "event": Event.DEPLOYMENT, "detailed": False,
    }  # fmt: skip
    assert differences(by_number[6], **expected) == {}
    unknown = {"server": "ci", "field": "status"}
    assert telemetry.registry.get_sample_value("ci_unknown_values_total", unknown) == 1


def test_pages(server: Server, replay: Replay) -> None:
    replay.play("builds-page1", "builds-page2", "builds-page3", "builds-page4")
    pages = [server.builds("octo/many", page) for page in (1, 2, 3, 4)]
    assert [[build.number for build in page.builds] for page in pages] == [[120, 119], [70, 69], [20, 19], []]
    assert [page.rows for page in pages] == [2, 2, 2, 0]
    assert replay.asked[-1] == "/api/repos/octo/many/builds?page=4"
    assert (server.limits.page_size, server.limits.history_limit) == (50, 0)
    assert recording("drone-0.8", "builds-page1")["rows_in_answer"] == 50


def test_the_feed(server: Server, replay: Replay) -> None:
    replay.play("user-feed")
    builds, cursor = server.feed("")
    assert cursor == ""
    assert [(build.repo, build.number) for build in builds] == [
        ("load/r0002", 30), ("load/r0000", 30), ("load/r0001", 30), ("load/r0000", 29),
    ]  # fmt: skip
    expected = {
        "run": 1749998436, "id": 0, "status": Status.SUCCESS, "word": Word.FINAL, "detailed": False,
        "event": Event.PUSH, "branch": "master", "created": 1749998436, "started": 1749998441,
        "finished": 1749998500, "wait": None, "duration": 59, "author": "grace",
        "commit": "f166cdcf762cdfbcba2aa7baf3f81c3106e3f949", "title": "升级依赖 📦 v2.0",
    }  # fmt: skip
    assert differences(builds[0], **expected) == {}
    replay.play("user-feed-outsider")
    assert server.feed("")[0] == []


def test_repos(server: Server, replay: Replay) -> None:
    replay.play("user-repos", "user-feed-latest")
    repos = {repo.name: repo for repo in server.repos()}
    demo, empty, many = repos["adminuser/demo"], repos["octo/empty"], repos["octo/many"]
    assert (demo.id, demo.default_branch, demo.timeout, demo.active, demo.counter) == (
        "1", "master", 3600, True, 3,
    )  # fmt: skip
    assert demo.build_url == "https://ci.example.com/adminuser/demo/"
    assert demo.newest is not None
    assert (demo.newest.run, demo.newest.duration) == (1749913900, 600)
    assert (empty.counter, empty.newest) == (0, None)
    assert many.newest is not None
    assert (many.newest.status, many.newest.word) == (Status.CANCELLED, Word.ROW)
    replay.play("user-repos-all", at="/api/user/repos")
    assert any(not repo.active for repo in server.repos())


def test_a_repo_whose_newest_builds_are_gone_keeps_its_counter(server: Server, replay: Replay) -> None:
    row = recording("drone-0.8", "user-repos")["body"][0] | {"last_build": 9}
    replay.serve("/api/user/repos", [row]).play("user-feed-latest")
    assert {repo.name: repo.counter for repo in server.repos()}["adminuser/demo"] == 9


def test_a_user_without_repos(server: Server, replay: Replay) -> None:
    replay.play("user-repos-outsider").play("user-feed-outsider", at="/api/user/feed?latest=true")
    assert server.repos() == []


def test_open_builds(server: Server, replay: Replay) -> None:
    replay.play("queue-one-running-one-pending")
    builds = server.open_builds()
    assert builds is not None
    assert [(build.repo, build.number, build.status.word, build.run) for build in builds] == [
        ("octo/hello", 14, "pending", 1749999960),
        ("octo/hello", 21, "pending", 1795295021),
        ("octo/hello", 13, "running", 1749999880),
        ("adminuser/demo", 4, "running", 1795295020),
    ]
    assert not server.limits.open_blocked
    replay.play("queue-none")
    with pytest.raises(ServerError) as caught:
        server.open_builds()
    assert caught.value.reason == "auth"


def test_without_admin_rights_open_builds_are_asked_for_once(server: Server, replay: Replay) -> None:
    replay.play("queue-not-admin")
    assert server.open_builds() is None
    assert server.open_builds() is None
    assert replay.asked.count("/api/builds") == 1


def test_whoami(server: Server, replay: Replay) -> None:
    assert server.whoami() == User(login="adminuser", admin=True)
    assert (server.dialect, server.version) == ("drone-0.8", "0.8.9")
    assert replay.tokens == [None, f"Bearer {TOKEN}"]


@pytest.mark.parametrize("name", ["auth-wrong-token", "auth-none", "auth-basic", "auth-token-prefix"])
def test_a_wrong_token_is_told_though_public_repos_answer(name: str, server: Server, replay: Replay) -> None:
    replay.play(name, "auth-wrong-token-public-repo")
    assert build_in(server, replay, "auth-wrong-token-public-repo").number == 1
    with pytest.raises(ServerError) as caught:
        server.whoami()
    assert (caught.value.reason, caught.value.status) == ("auth", 401)


@pytest.mark.parametrize("version", ["0.6.0", "0.7.3"])
def test_0_6_and_0_7_restart_in_place_and_know_no_pages(version: str, server: Server, replay: Replay) -> None:
    replay.play("user-feed")
    replay.answers["/api/user"]["headers"]["X-Drone-Version"] = version
    server.whoami()
    assert (server.limits.restart_in_place, server.limits.history_limit) == (True, 50)
    assert server.builds("octo/hello", 2) == Page([], 0)
    assert {build.run for build in server.feed("")[0]} == {0}
    body = recording("drone-0.8", "build")["body"]
    body["enqueued_at"] = body["started_at"] - 2
    replay.serve("/api/repos/octo/hello/builds/1", body)
    build = server.build("octo/hello", 1)
    assert (build.run, build.wait, build.created) == (body["enqueued_at"], 2, body["created_at"])
    assert [step.name for step in build.steps] == ["clone", "build", "test"]


@pytest.mark.parametrize(
    ("name", "reason", "status", "missing"),
    [
        ("build-unknown", "status", 500, True),
        ("repo-no-permission", "status", 404, True),
        ("repo-anonymous-private", "auth", 401, False),
        ("build-latest-none", "status", 500, False),
        ("info", "shape", 200, False),
        ("build-not-a-number", "status", 400, False),
        ("kill-not-admin", "auth", 403, False),
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


@pytest.mark.parametrize(
    ("name", "reason", "status"),
    [
        ("builds-unknown-repo", "status", 404),
        ("builds-page-text", "status", 400),
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


@pytest.mark.parametrize("name", ["builds-empty", "builds-dormant"])
def test_no_builds(name: str, server: Server, replay: Replay) -> None:
    replay.play(name, at="/api/repos/octo/empty/builds")
    assert server.builds("octo/empty", 1) == Page([], 0)


def test_a_cut_title_is_kept(server: Server, replay: Replay) -> None:
    """The server cuts titles mid-character."""
    body = recording("drone-0.8", "build-pull-request")["body"]
    body |= {"title": "x" * 199 + "\ufffd" + "y" * 800, "branch": "b" * 300, "created_at": NOW}
    replay.serve("/api/repos/octo/hello/builds/5", body)
    build = server.build("octo/hello", 5)
    assert build.title == "x" * 199 + "\ufffd"
    assert build.branch == "b" * 255
