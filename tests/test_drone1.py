"""Drone 1.x and 2.x as docs and recordings of a 1.10.1 server have it, read through a real session."""

from collections.abc import Iterator
from typing import Any

import pytest
from replay import NOW, TOKEN, Replay, build_in, differences, opened, recording, replaying

from exporter.http import ServerError
from exporter.model import Event, Status, User, Word
from exporter.servers import Page, Server
from exporter.telemetry import Telemetry

DAY = 24 * 3600


@pytest.fixture
def telemetry() -> Telemetry:
    return Telemetry()


@pytest.fixture
def replay() -> Iterator[Replay]:
    with replaying("drone-1.x", "user", "version") as replay:
        yield replay


@pytest.fixture
def server(replay: Replay, telemetry: Telemetry) -> Iterator[Server]:
    server = opened(replay, telemetry)
    yield server
    server.session.close()


NONE = {"wait": None, "duration": None}
SINGLE: dict[str, dict[str, Any]] = {
    "build-success": {
        "repo": "octo/hello", "number": 1, "id": 1, "run": 1795446620, "status": Status.SUCCESS,
        "word": Word.FINAL, "detailed": True, "event": Event.PUSH, "branch": "main", "ref": "refs/heads/main",
        "commit": "9d05ad78218cbb0d013359fd6888e52d96756b42", "created": 1795446620, "started": 1795446620,
        "finished": 1795446621, "wait": 0, "duration": 1, "parent": 0, "by_hand": False, "environment": "",
        "cron": "", "author": "ada", "title": "change the greeting",
        "steps": [("compile", "success", 0, 1), ("test", "success", 0, 0)],
    },
    "build-failure": {
        "status": Status.FAILURE, "word": Word.FINAL,
        "steps": [
            ("compile", "success", 0, 0), ("test", "failure", 3, 0), ("report", "skipped", 0, None),
            ("notify", "success", 0, 0),
        ],
    },
    "build-failure-stages": {
        "status": Status.FAILURE, "steps": [("lint/a", "success", 0, 1), ("unit/b", "failure", 1, 0)],
    },
    "build-step-failure-ignored": {
        "status": Status.SUCCESS, "steps": [("x", "failure", 1, 0), ("y", "success", 0, 0)],
    },
    "build-error-config": {
        "status": Status.ERROR, "word": Word.FINAL, "wait": 0, "duration": 0, "steps": [], "by_hand": False,
    },
    "build-pending": {"status": Status.PENDING, "word": Word.FINAL, "started": 0, "steps": [], **NONE},
    "build-pending-no-runner": {"status": Status.PENDING, "word": Word.FINAL, **NONE},
    "build-running": {
        "status": Status.RUNNING, "wait": 0, "duration": None,
        "steps": [("compile", "running", 0, None), ("after", "pending", 0, None)],
    },
    "build-runner-lost": {"status": Status.RUNNING, "ended": False, "steps": [("x", "running", 0, None)]},
    "build-waiting-on-dependencies": {"status": Status.RUNNING, "steps": [("first/a", "running", 0, None)]},
    "build-blocked": {"status": Status.BLOCKED, "word": Word.FINAL, "ended": False, **NONE},
    "build-approved": {"status": Status.SUCCESS, "wait": 0, "duration": 2},
    "build-declined": {
        "status": Status.DECLINED, "word": Word.FINAL, "started": 0, "finished": 0, "ended": True, **NONE,
    },
    "build-blocked-cancelled": {"status": Status.CANCELLED, "word": Word.FINAL, "steps": [], **NONE},
    "build-cancelled-while-pending": {
        "status": Status.CANCELLED, "word": Word.FINAL, "finished": 1795446711, **NONE,
    },
    "build-cancelled": {
        "status": Status.CANCELLED, "word": Word.FINAL, "wait": 0, "duration": 1,
        "steps": [("compile", "cancelled", 130, 1), ("after", "skipped", 130, None)],
    },
    "build-timeout": {
        "status": Status.TIMEOUT, "word": Word.FINAL, "wait": 0, "duration": 60,
        "steps": [("x", "timeout", 137, 60)],
    },
    "build-overtaken": {"status": Status.SKIPPED, "word": Word.FINAL, "finished": 1795446712, **NONE},
    "build-pull-request": {
        "event": Event.PULL_REQUEST, "branch": "main", "ref": "refs/pull/3/head", "ref_class": "pr:3",
    },
    "build-pull-request-synchronized": {"event": Event.PULL_REQUEST, "ref_class": "pr:3"},
    "build-tag": {
        "event": Event.TAG, "branch": "", "ref": "refs/tags/v1.0.0", "ref_class": "tag:v1.0.0",
        "title": "commit",
    },
    "build-cron": {
        "event": Event.CRON, "branch": "main", "cron": "nightly", "by_hand": False, "author": "Ada Lovelace",
        "ref_class": "cron:nightly:main",
    },
    "build-promote": {
        "event": Event.DEPLOYMENT, "environment": "production", "parent": 1, "by_hand": True,
        "ref_class": "deploy:production",
    },
    "build-rollback": {"event": Event.DEPLOYMENT, "environment": "production", "parent": 1},
    "build-custom": {"event": Event.MANUAL, "branch": "develop", "by_hand": True},
}  # fmt: skip


@pytest.mark.parametrize("name", SINGLE)
def test_single_builds(name: str, server: Server, replay: Replay) -> None:
    assert differences(build_in(server, replay, name), **SINGLE[name]) == {}


def test_an_ignored_failure_says_so(server: Server, replay: Replay) -> None:
    steps = build_in(server, replay, "build-step-failure-ignored").steps
    assert [(step.name, step.ignored) for step in steps] == [("x", True), ("y", False)]


def test_a_skipped_step_never_began(server: Server, replay: Replay) -> None:
    step = build_in(server, replay, "build-cancelled").steps[1]
    assert (step.status, step.started, step.finished) == (Status.SKIPPED, 0, 0)


def test_a_restart_is_a_new_number_by_hand_without_a_parent(server: Server, replay: Replay) -> None:
    before, after = build_in(server, replay, "build-success"), build_in(server, replay, "build-restarted")
    assert build_in(server, replay, "restart-original-after") == before
    assert after.number > before.number
    assert (after.commit, after.event, after.ref) == (before.commit, before.event, before.ref)
    assert (before.by_hand, after.by_hand, after.parent) == (False, True, 0)
    assert not server.limits.restart_in_place


def test_blocked_is_what_all_open_stages_are(server: Server, replay: Replay) -> None:
    body = recording("drone-1.x", "build-blocked")["body"]
    stage = body["stages"][0]
    for statuses, expected in (
        (["blocked", "blocked"], Status.BLOCKED),
        (["success", "blocked"], Status.BLOCKED),
        (["blocked", "pending"], Status.PENDING),
        (["blocked", "waiting_on_dependencies"], Status.PENDING),
        (["declined"], Status.PENDING),
        ([], Status.PENDING),
    ):
        body["stages"] = [stage | {"status": status} for status in statuses]
        replay.serve("/api/repos/octo/gated/builds/1", body)
        assert server.build("octo/gated", 1).status is expected, statuses


def test_killed_is_a_time_limit_by_137_or_by_its_age(server: Server, replay: Replay) -> None:
    body = recording("drone-1.x", "build-cancelled")["body"]
    step, created = body["stages"][0]["steps"][0], body["created"]

    def status(**changes: object) -> Status:
        replay.serve("/api/repos/octo/hello/builds/15", body | changes)
        return server.build("octo/hello", 15).status

    assert status(started=created, finished=created + DAY - 1) is Status.CANCELLED
    assert status(started=created, finished=created + DAY) is Status.TIMEOUT
    assert status(started=created + 3600, finished=created + DAY) is Status.CANCELLED
    assert status(started=created + DAY - 1, finished=created + DAY - 1) is Status.CANCELLED
    assert status(started=created + DAY, finished=created + DAY) is Status.TIMEOUT
    # The command of an earlier step may end with 137 by itself.
    step |= {"status": "failure", "exit_code": 137}
    assert status() is Status.CANCELLED
    step["status"] = "killed"
    assert status() is Status.TIMEOUT


def test_a_list(server: Server, replay: Replay) -> None:
    replay.play("builds-mixed", at="/api/repos/octo/hello/builds?page=1&per_page=100")
    page = server.builds("octo/hello", 1)
    assert page.rows == 19
    assert {build.number: build.status.word for build in page.builds} == {
        19: "pending", 18: "success", 17: "skipped", 16: "cancelled", 15: "cancelled", 14: "success",
        13: "success", 12: "success", 11: "success", 10: "success", 9: "success", 8: "success", 7: "success",
        6: "success", 5: "success", 4: "error", 3: "failure", 2: "failure", 1: "success",
    }  # fmt: skip
    by_number = {build.number: build for build in page.builds}
    assert {number for number, build in by_number.items() if build.word is Word.ROW} == {19, 16, 15}
    assert not any(build.detailed or build.steps for build in page.builds)
    assert {
        number: build.event.value for number, build in by_number.items() if build.event is not Event.PUSH
    } == {
        12: "manual", 10: "deployment", 9: "deployment", 8: "cron", 7: "tag", 6: "pull_request",
        5: "pull_request",
    }  # fmt: skip
    spans = {number: (build.wait, build.duration) for number, build in by_number.items()}
    assert {number: spans[number] for number in (19, 18, 17, 16, 15, 14, 4)} == {
        19: (None, None), 18: (1, 1), 17: (None, None), 16: (None, None), 15: (0, 1), 14: (0, 3), 4: (0, 0),
    }  # fmt: skip
    expected = {
        "id": 9, "run": 1795446629, "environment": "production", "parent": 1, "by_hand": True,
        "author": "ada",
    }  # fmt: skip
    assert differences(by_number[9], **expected) == {}


def test_pages(server: Server, replay: Replay) -> None:
    path = "/api/repos/octo/many/builds"
    for page in (2, 3, 4):
        replay.play(f"builds-page{page}", at=f"{path}?page={page}&per_page=100")
    pages = [server.builds("octo/many", page) for page in (2, 3, 4)]
    assert [[build.number for build in page.builds] for page in pages] == [[33, 32], [8, 7], []]
    assert server.limits.page_size == 100


def test_no_builds(server: Server, replay: Replay) -> None:
    for name in ("builds-empty", "builds-dormant"):
        replay.play(name, at="/api/repos/octo/empty/builds")
        assert server.builds("octo/empty", 1) == Page([], 0)
    replay.serve("/api/repos/octo/empty/builds", None)
    assert server.builds("octo/empty", 1) == Page([], 0)


def test_the_feed(server: Server, replay: Replay) -> None:
    replay.play("user-builds")
    builds, cursor = server.feed("")
    assert cursor == ""
    assert [(build.repo, build.number) for build in builds] == [("octo/many", 58), ("octo/many", 57)]
    expected = {
        "id": 82, "run": 1795446720, "status": Status.SUCCESS, "word": Word.FINAL, "wait": 3, "duration": 0,
        "branch": "main", "detailed": False,
    }  # fmt: skip
    assert differences(builds[0], **expected) == {}
    assert server.limits.feed_rows == recording("drone-1.x", "user-builds")["rows_in_answer"]


def test_repos(server: Server, replay: Replay) -> None:
    replay.play("user-repos-latest")
    repos = {repo.name: repo for repo in server.repos()}
    assert {name: (repo.active, repo.counter) for name, repo in repos.items()} == {
        "octo/dormant": (False, 0), "octo/empty": (True, 0), "octo/gated": (True, 3),
        "octo/hello": (True, 19), "octo/many": (True, 58), "secret/vault": (True, 2),
    }  # fmt: skip
    hello, empty, gated = repos["octo/hello"], repos["octo/empty"], repos["octo/gated"]
    assert (hello.id, hello.default_branch, hello.timeout) == ("1", "main", 3600)
    assert hello.build_url == "https://ci.example.com/octo/hello/"
    assert hello.newest is not None
    assert (hello.newest.number, hello.newest.status, hello.newest.word) == (19, Status.PENDING, Word.ROW)
    assert gated.newest is not None
    assert (gated.newest.status, gated.newest.word) == (Status.CANCELLED, Word.ROW)
    assert empty.newest is None
    assert server.repos(brief=True) == list(repos.values())
    assert set(replay.asked[1:]) == {"/api/user/repos?latest=true"}


def test_open_builds(server: Server, replay: Replay) -> None:
    replay.play("incomplete")
    builds = server.open_builds()
    assert builds is not None
    assert [(build.repo, build.number, build.status.word, build.word) for build in builds] == [
        ("octo/hello", 16, "pending", Word.ROW),
        ("secret/vault", 2, "running", Word.FINAL),
    ]
    replay.play("incomplete-none")
    assert server.open_builds() == []
    assert server.limits.open_rows == recording("drone-1.x", "incomplete-limit")["rows_in_answer"]
    # Builds that wait for approval are not in it.
    assert recording("drone-1.x", "incomplete-blocked")["body"] == []
    assert not server.limits.open_blocked


@pytest.mark.parametrize(("status", "message"), [(501, "Not Implemented"), (403, "Forbidden")])
def test_editions_and_users_without_open_builds_are_asked_once(
    status: int, message: str, server: Server, replay: Replay
) -> None:
    replay.serve("/api/builds/incomplete", {"message": message}, status)
    assert server.open_builds() is None
    assert server.open_builds() is None
    assert replay.asked.count("/api/builds/incomplete") == 1
    replay.play("incomplete")
    server.whoami()
    assert len(server.open_builds() or []) == 2


def test_a_fault_does_not_end_the_list_of_open_builds(server: Server, replay: Replay) -> None:
    replay.serve("/api/builds/incomplete", {"message": "no"}, 500)
    for _ in range(2):
        with pytest.raises(ServerError) as caught:
            server.open_builds()
        assert caught.value.status == 500


def test_whoami(server: Server, replay: Replay) -> None:
    assert server.whoami() == User(login="adminuser", admin=True)
    assert (server.dialect, server.version) == ("drone-1", "1.10.1")
    assert f"Bearer {TOKEN}" in replay.tokens


@pytest.mark.parametrize("name", ["auth-wrong-token", "auth-none", "auth-token-prefix"])
def test_a_wrong_token_is_told_though_public_repos_answer(name: str, server: Server, replay: Replay) -> None:
    replay.play(name, at="/api/user").play("auth-wrong-token-public-repo")
    replay.play("auth-wrong-token-private-repo", at="/api/repos/secret/vault/builds/1")
    assert build_in(server, replay, "build-success").number == 1
    for ask in (server.whoami, lambda: server.build("secret/vault", 1)):
        with pytest.raises(ServerError) as caught:
            ask()
        assert (caught.value.reason, caught.value.status) == ("auth", 401)


@pytest.mark.parametrize(
    ("name", "reason", "status", "missing"),
    [
        ("build-unknown", "status", 404, True),
        ("repo-unknown", "status", 404, True),
        ("repo-private-anonymous", "auth", 401, False),
        ("build-not-a-number", "status", 400, False),
        ("builds-empty", "shape", 200, False),
        ("build-failure", "shape", 200, False),
        ("healthz", "shape", 200, False),
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


def test_null_is_no_build(server: Server, replay: Replay) -> None:
    replay.serve("/api/repos/octo/hello/builds/1", None)
    with pytest.raises(ServerError) as caught:
        server.build("octo/hello", 1)
    assert caught.value.reason == "shape"


def test_no_commit_is_no_commit(server: Server, replay: Replay) -> None:
    body = recording("drone-1.x", "build-pull-request")["body"]
    replay.serve("/api/repos/octo/hello/builds/5", body | {"after": "", "title": "A request\nof two lines"})
    build = server.build("octo/hello", 5)
    assert (build.commit, build.title) == ("", "A request")


def test_unknown_values_are_kept_and_counted(server: Server, replay: Replay, telemetry: Telemetry) -> None:
    body = recording("drone-1.x", "build-success")["body"]
    body |= {"status": "waiting_on_dependencies", "event": "deployment", "finished": NOW + 301}
    body["stages"][0]["steps"][0] |= {"status": "odd", "started": 1}
    replay.serve("/api/repos/octo/hello/builds/1", body)
    build = server.build("octo/hello", 1)
    assert (build.status, build.event, build.finished, build.ended) == (
        Status.UNKNOWN,
        Event.MANUAL,
        0,
        False,
    )
    assert [(step.status, step.duration) for step in build.steps] == [
        (Status.UNKNOWN, None),
        (Status.SUCCESS, 0),
    ]
    assert {
        field: telemetry.registry.get_sample_value(
            "ci_unknown_values_total", {"server": "ci", "field": field}
        )
        for field in ("status", "event", "step_status", "started", "finished")
    } == {"status": 1, "event": 1, "step_status": 1, "started": 1, "finished": 1}
