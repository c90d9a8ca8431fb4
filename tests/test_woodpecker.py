"""Woodpecker 3.x as recordings of a 3.17.0 server have it, read through a real session."""

from collections.abc import Iterator
from typing import Any

import pytest
from replay import NOW, TOKEN, Replay, differences, opened, recording, recordings, replaying

from exporter.http import ServerError
from exporter.model import Build, Event, Status, Step, User, Word
from exporter.servers import Line, Page, Server
from exporter.telemetry import Telemetry

HELLO = "/api/repos/1/pipelines"
NAMES = {"1": "octo/hello", "2": "octo/gated", "3": "secret/vault", "4": "octo/empty", "5": "octo/many"}


@pytest.fixture
def telemetry() -> Telemetry:
    return Telemetry()


@pytest.fixture
def replay() -> Iterator[Replay]:
    with replaying("woodpecker", "user", "version", "repo-lookup", "user-repos-with-pipelines") as replay:
        yield replay


@pytest.fixture
def server(replay: Replay, telemetry: Telemetry) -> Iterator[Server]:
    server = opened(replay, telemetry, allow_writes=True)
    server.repos()
    yield server
    server.session.close()


def build_in(server: Server, replay: Replay, name: str) -> Build:
    _, _, _, repo, _, number = replay.play(name).asked_by(name).split("/")
    return server.build(NAMES[repo], int(number))


NONE = {"wait": None, "duration": None}
SINGLE: dict[str, dict[str, Any]] = {
    "pipeline-success": {
        "repo": "octo/hello", "number": 1, "id": 1, "run": 1795446246, "status": Status.SUCCESS,
        "word": Word.FINAL, "detailed": True, "event": Event.PUSH, "branch": "main", "ref": "refs/heads/main",
        "created": 1795446246, "started": 1795446246, "finished": 1795446248, "wait": 0, "duration": 2,
        "parent": 0, "by_hand": False, "environment": "", "cron": "", "author": "ada",
        "title": "change the greeting", "error": "",
        "steps": [("compile", "success", 0, 1), ("test", "success", 0, 0)],
    },
    "pipeline-failure": {
        "status": Status.FAILURE, "error": "",
        "steps": [
            ("compile", "success", 0, 0), ("test", "failure", 3, 0), ("report", "skipped", 0, None),
            ("notify", "success", 0, 0),
        ],
    },
    "pipeline-clone-failed": {
        "status": Status.FAILURE, "steps": [("clone", "failure", 0, 0), ("x", "skipped", 0, None)],
    },
    "pipeline-step-failure-ignored": {
        "status": Status.SUCCESS, "steps": [("x", "failure", 1, 0), ("y", "success", 0, 0)],
    },
    "pipeline-error-config": {
        "status": Status.ERROR, "ended": True, "wait": None, "duration": 0, "steps": [],
        "error": "go-yaml load error in parser (while parsing a flow node) at L2.C1: did not find expected "
        "node content",
    },
    "pipeline-pending": {
        "status": Status.PENDING, "ended": False, "started": 0, **NONE,
        "steps": [("compile", "pending", 0, None), ("test", "pending", 0, None)],
    },
    "pipeline-running": {
        "status": Status.RUNNING, "wait": 1, "duration": None,
        "steps": [("compile", "running", 0, None), ("after", "pending", 0, None)],
    },
    "pipeline-agent-lost": {"status": Status.RUNNING, "ended": False, "steps": [("x", "running", 0, None)]},
    "pipeline-agent-lost-later": {"status": Status.RUNNING, "ended": False},
    "pipeline-blocked": {
        "status": Status.BLOCKED, "ended": False, **NONE,
        "steps": [("compile", "blocked", 0, None), ("test", "blocked", 0, None)],
    },
    "pipeline-approved": {"status": Status.SUCCESS, "run": 1795446268, "wait": 0, "duration": 1},
    "pipeline-declined": {
        "status": Status.DECLINED, "ended": True, "started": 0, "finished": 0, **NONE,
        "steps": [("compile", "declined", 0, None), ("test", "declined", 0, None)],
    },
    "pipeline-blocked-cancelled": {
        "status": Status.CANCELLED, "ended": True, "finished": 1795446276, **NONE,
        "steps": [("compile", "blocked", 0, None), ("test", "blocked", 0, None)],
    },
    "pipeline-cancelled-while-pending": {
        "status": Status.CANCELLED, "finished": 1795446343, **NONE,
        "steps": [("compile", "cancelled", 0, None), ("test", "cancelled", 0, None)],
    },
    "pipeline-superseded": {"status": Status.CANCELLED, "finished": 1795446346, **NONE},
    "pipeline-cancel-just-after": {
        "status": Status.CANCELLED, "ended": True, "wait": 1, "duration": 1,
        "steps": [("compile", "cancelled", 0, 1), ("after", "cancelled", 0, None)],
    },
    "pipeline-cancelled": {
        "status": Status.CANCELLED, "wait": 1, "duration": 1, "error": "Canceled",
        "steps": [("compile", "cancelled", 0, 1), ("after", "cancelled", 0, None)],
    },
    "pipeline-timeout": {
        "repo": "secret/vault", "status": Status.TIMEOUT, "wait": 0, "duration": 60,
        "error": "context deadline exceeded", "steps": [("x", "timeout", 0, 59)],
    },
    "pipeline-pull-request": {
        "event": Event.PULL_REQUEST, "branch": "main", "ref_class": "pr:3", "title": "add a feature",
    },
    "pipeline-pull-request-closed": {"event": Event.PULL_REQUEST, "branch": "main", "ref_class": "pr:3"},
    "pipeline-tag": {
        "event": Event.TAG, "branch": "", "ref": "refs/tags/v1.0.0", "ref_class": "tag:v1.0.0",
        "title": "created tag v1.0.0",
    },
    "pipeline-cron": {
        "event": Event.CRON, "branch": "main", "cron": "nightly", "author": "", "created": 1795446260,
        "ref_class": "cron:nightly:main",
    },
    "pipeline-manual": {
        "event": Event.MANUAL, "branch": "main", "ref": "main", "author": "adminuser",
        "ref_class": "manual:main",
    },
    "pipeline-restarted": {"event": Event.PUSH, "parent": 1, "run": 1795446258},
}  # fmt: skip


@pytest.mark.parametrize("name", SINGLE)
def test_single_pipelines(name: str, server: Server, replay: Replay) -> None:
    build = build_in(server, replay, name)
    assert differences(build, **{"word": Word.FINAL, "detailed": True} | SINGLE[name]) == {}


def test_every_recorded_pipeline_is_in_the_table() -> None:
    named = {name for name in recordings("woodpecker") if name.startswith("pipeline-")}
    assert named - SINGLE.keys() == {"pipeline-unknown", "pipeline-not-a-number"}


def test_an_ignored_failure_is_one_of_a_workflow_that_succeeded(server: Server, replay: Replay) -> None:
    steps = build_in(server, replay, "pipeline-step-failure-ignored").steps
    assert [(step.name, step.ignored) for step in steps] == [("x", True), ("y", False)]
    assert not any(step.ignored for step in build_in(server, replay, "pipeline-failure").steps)


def test_a_restart_is_a_new_number_with_a_parent(server: Server, replay: Replay) -> None:
    before, after = (
        build_in(server, replay, "pipeline-success"),
        build_in(server, replay, "pipeline-restarted"),
    )
    assert build_in(server, replay, "restart-original-after") == before
    assert (after.number > before.number, after.parent, after.commit) == (True, before.number, before.commit)
    assert not server.limits.restart_in_place


def changed(server: Server, replay: Replay, name: str, **changes: object) -> Build:
    """The single pipeline of a recording with some fields changed."""
    body = recording("woodpecker", name)["body"] | changes
    replay.serve(f"{HELLO}/{body['number']}", body)
    return server.build("octo/hello", body["number"])


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("created", "pending"), ("pending", "pending"), ("running", "running"), ("success", "success"),
        ("failure", "failure"), ("killed", "timeout"), ("canceled", "cancelled"), ("error", "error"),
        ("blocked", "blocked"), ("declined", "declined"), ("skipped", "skipped"), ("odd", "unknown"),
    ],
)  # fmt: skip
def test_statuses(value: str, expected: str, server: Server, replay: Replay) -> None:
    assert changed(server, replay, "pipeline-success", status=value).status.word == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("push", "push"), ("pull_request", "pull_request"), ("pull_request_closed", "pull_request"),
        ("pull_request_metadata", "pull_request"), ("tag", "tag"), ("release", "tag"), ("cron", "cron"),
        ("deployment", "deployment"), ("manual", "manual"), ("odd", "manual"),
    ],
)  # fmt: skip
def test_events(value: str, expected: str, server: Server, replay: Replay, telemetry: Telemetry) -> None:
    assert changed(server, replay, "pipeline-success", event=value).event.value == expected
    assert unknown(telemetry, "event") == (value == "odd")


def test_a_deployment_names_its_environment(server: Server, replay: Replay) -> None:
    build = changed(server, replay, "pipeline-success", event="deployment", deploy_to="production", parent=3)
    assert (build.environment, build.ref_class, build.parent) == ("production", "deploy:production", 3)


@pytest.mark.parametrize(
    "info", [{"canceled_by_user": "ada"}, {"superseded_by": 15}, {"canceled_by_step": "x"}]
)
def test_killed_says_who_cancelled_or_hit_its_limit(info: object, server: Server, replay: Replay) -> None:
    assert changed(server, replay, "pipeline-cancelled", cancel_info=info).status is Status.CANCELLED
    assert changed(server, replay, "pipeline-cancelled", cancel_info=None).status is Status.TIMEOUT
    body = recording("woodpecker", "pipeline-cancelled")["body"]
    del body["cancel_info"]
    replay.serve(f"{HELLO}/12", body)
    assert server.build("octo/hello", 12).status is Status.TIMEOUT


@pytest.mark.parametrize(
    ("version", "without_info"),
    [("3.0.1", Status.CANCELLED), ("3.9.0", Status.CANCELLED), ("3.13.2", Status.CANCELLED),
     ("3.14.0", Status.TIMEOUT), ("3.17.0", Status.TIMEOUT), ("next-7ab3c2", Status.TIMEOUT)],
)  # fmt: skip
def test_versions_that_do_not_say_who_cancelled(
    version: str, without_info: Status, server: Server, replay: Replay
) -> None:
    replay.answers["/api/user"] = recording("woodpecker", "user")
    replay.answers["/api/user"]["headers"]["X-Woodpecker-Version"] = version
    server.whoami()
    assert server.version == version
    assert changed(server, replay, "pipeline-cancelled", cancel_info=None).status is without_info
    assert build_in(server, replay, "pipeline-cancelled").status is Status.CANCELLED
    assert build_in(server, replay, "pipeline-timeout").status is Status.TIMEOUT
    replay.serve(HELLO, [recording("woodpecker", "pipeline-timeout")["body"]])
    (row,) = server.builds("octo/hello", 1).builds
    # Without its steps a row of these versions explains nothing.
    told = without_info is Status.TIMEOUT
    assert (row.status, row.word) == (without_info, Word.FINAL if told else Word.ROW)


def test_waits_count_from_the_review(server: Server, replay: Replay) -> None:
    created = recording("woodpecker", "pipeline-approved")["body"]["created"]
    for reviewed, started, wait in ((0, 9, 9), (4, 9, 5), (9, 9, 0), (12, 9, None), (4, 0, None)):
        build = changed(
            server,
            replay,
            "pipeline-approved",
            reviewed=created + reviewed if reviewed else 0,
            started=created + started if started else 0,
        )
        assert build.wait == wait


def test_steps_are_named_by_their_workflow_where_there_are_more(server: Server, replay: Replay) -> None:
    (workflow,) = recording("woodpecker", "pipeline-success")["body"]["workflows"]
    lint = workflow | {"name": "lint", "children": workflow["children"][:1]}

    def names(*workflows: object) -> list[str]:
        return [step.name for step in changed(server, replay, "pipeline-success", workflows=workflows).steps]

    assert names(lint) == ["compile"]
    assert names(lint, workflow) == ["lint/compile", "woodpecker/compile", "woodpecker/test"]
    legs = (lint | {"pid": 1, "environ": {"GO": "1.25", "DB": "pg"}}, lint | {"pid": 4})
    assert names(*legs) == ["lint GO=1.25,DB=pg/compile", "lint 4/compile"]
    assert names(workflow | {"children": None}) == []


def test_the_same_step_state_may_be_a_time_limit(server: Server, replay: Replay) -> None:
    (workflow,) = recording("woodpecker", "pipeline-timeout")["body"]["workflows"]
    (step,) = workflow["children"]
    for change, status in (
        ({}, Status.TIMEOUT),
        ({"error": "waiting: context deadline exceeded (Client.Timeout)"}, Status.TIMEOUT),
        ({"error": "context canceled"}, Status.FAILURE),
        ({"state": "killed"}, Status.CANCELLED),
        ({"state": "created"}, Status.PENDING),
        ({"state": "error"}, Status.ERROR),
    ):
        workflows = [workflow | {"children": [step | change]}]
        (read,) = changed(server, replay, "pipeline-success", workflows=workflows).steps
        assert read.status is status, change


def test_a_list(server: Server, replay: Replay) -> None:
    replay.play("pipelines-mixed", at=f"{HELLO}?page=1&perPage=50")
    page = server.builds("octo/hello", 1)
    assert page.rows == 15
    assert {build.number: build.status.word for build in page.builds} == {
        15: "success", 14: "cancelled", 13: "cancelled", 12: "cancelled", 11: "success", 10: "success",
        9: "success", 8: "success", 7: "success", 6: "success", 5: "success", 4: "failure", 3: "error",
        2: "failure", 1: "success",
    }  # fmt: skip
    by_number = {build.number: build for build in page.builds}
    assert {build.word for build in page.builds} == {Word.FINAL}
    assert not any(build.detailed or build.steps for build in page.builds)
    assert {
        number: build.event.value for number, build in by_number.items() if build.event is not Event.PUSH
    } == {10: "cron", 8: "manual", 7: "tag", 6: "pull_request", 5: "pull_request"}
    spans = {number: (build.wait, build.duration) for number, build in by_number.items()}
    assert {number: spans[number] for number in (15, 14, 13, 12, 10, 3)} == {
        15: (2, 1), 14: (None, None), 13: (None, None), 12: (1, 1), 10: (0, 2), 3: (None, 0),
    }  # fmt: skip
    assert (by_number[9].parent, by_number[10].cron) == (1, "nightly")


def test_pages(server: Server, replay: Replay) -> None:
    for page, name in enumerate(("pipelines", "pipelines-page2", "pipelines-page3"), start=1):
        replay.play(name, at=f"/api/repos/5/pipelines?page={page}&perPage=50")
    pages = [server.builds("octo/many", page) for page in (1, 2, 3)]
    assert [[build.number for build in page.builds] for page in pages] == [[60, 59], [10, 9], []]
    # What is not a number from 1 to 50, or is written `per_page`, is 50.
    for name in ("pipelines", "pipelines-per-page-51", "pipelines-snake-per-page", "pipelines-page-text"):
        assert recording("woodpecker", name)["rows_in_answer"] == server.limits.page_size
    replay.play("pipelines-empty")
    assert server.builds("octo/empty", 1) == Page([], 0)
    replay.serve("/api/repos/4/pipelines", None)
    assert server.builds("octo/empty", 1) == Page([], 0)


def test_the_feed(server: Server, replay: Replay) -> None:
    replay.play("feed")
    builds, cursor = server.feed("")
    assert cursor == ""
    assert [(build.repo, build.number) for build in builds] == [("octo/many", 60), ("octo/many", 59)]
    expected = {
        "id": 80, "run": 1795446375, "status": Status.SUCCESS, "word": Word.FINAL, "wait": None,
        "duration": 0, "branch": "main", "detailed": False, "author": "ada",
    }  # fmt: skip
    assert differences(builds[1], **expected) == {}
    assert server.limits.feed_rows == recording("woodpecker", "feed")["rows_in_answer"]


def test_a_feed_does_not_tell_who_cancelled(server: Server, replay: Replay) -> None:
    rows = [row for row in recording("woodpecker", "feed-latest")["body"] if "number" in row]
    replay.serve("/api/user/feed", rows)
    assert {(build.repo, build.status, build.word) for build in server.feed("")[0]} == {
        ("octo/gated", Status.CANCELLED, Word.ROW),
        ("octo/hello", Status.SUCCESS, Word.FINAL),
        ("octo/many", Status.RUNNING, Word.FINAL),
        ("secret/vault", Status.RUNNING, Word.FINAL),
    }


def test_a_feed_names_a_cron_job_by_its_message(server: Server, replay: Replay) -> None:
    cron = recording("woodpecker", "pipeline-cron")["body"]
    row = recording("woodpecker", "feed")["body"][0]
    replay.serve(
        "/api/user/feed", [row | {key: cron[key] for key in ("number", "event", "title", "message")}]
    )
    assert [(build.event, build.cron) for build in server.feed("")[0]] == [("cron", "nightly")]


def test_an_empty_feed_is_null(server: Server, replay: Replay) -> None:
    replay.play("feed-empty")
    assert server.feed("") == ([], "")
    replay.serve("/api/user/feed", [])
    assert server.feed("") == ([], "")


def test_repos(server: Server, replay: Replay) -> None:
    repos = {repo.name: repo for repo in server.repos()}
    assert {name: (repo.active, repo.counter) for name, repo in repos.items()} == {
        "octo/empty": (True, 0), "octo/gated": (True, 3), "octo/hello": (True, 15), "octo/many": (True, 60),
        "secret/vault": (True, 2),
    }  # fmt: skip
    hello, empty, gated = repos["octo/hello"], repos["octo/empty"], repos["octo/gated"]
    assert (hello.id, hello.default_branch, hello.timeout) == ("1", "main", 3600)
    assert hello.build_url == "https://ci.example.com/repos/1/pipeline/"
    assert hello.newest is not None
    assert gated.newest is not None
    assert (gated.newest.status, gated.newest.word) == (Status.CANCELLED, Word.FINAL)
    assert empty.newest is None
    asked = len(replay.asked)
    assert server.repos(brief=True) == list(repos.values())
    assert replay.asked[asked:] == ["/api/user/repos"]


def test_repos_are_addressed_by_id(replay: Replay, telemetry: Telemetry) -> None:
    server = opened(replay, telemetry, "woodpecker")
    build_in(server, replay, "pipeline-success")
    assert replay.asked == ["/api/repos/lookup/octo/hello", f"{HELLO}/1"]
    server.repos()
    build_in(server, replay, "pipeline-timeout")
    # Feeds and the running list name repos that are not listed yet.
    for path, repo_id, read in (("/api/user/feed", 71, lambda: server.feed("")),
                                ("/api/pipelines", 72, server.open_builds)):  # fmt: skip
        row = recording("woodpecker", "feed")["body"][0]
        replay.serve(path, [row | {"repo_id": repo_id, "full_name": f"new/r{repo_id}"}])
        read()
        replay.serve(f"/api/repos/{repo_id}/pipelines", [])
        assert server.builds(f"new/r{repo_id}", 1).rows == 0
    assert not any("lookup" in path for path in replay.asked[2:])
    server.session.close()


def test_a_repo_that_was_made_anew_is_looked_up_again(server: Server, replay: Replay) -> None:
    replay.serve("/api/repos/lookup/octo/hello", {"id": 9, "full_name": "octo/hello"})
    replay.serve("/api/repos/9/pipelines", [])
    for ask, missing in ((lambda: server.builds("octo/hello", 1), False),
                         (lambda: server.build("octo/hello", 7), True)):  # fmt: skip
        with pytest.raises(ServerError) as caught:
            ask()
        assert (caught.value.status, caught.value.missing) == (404, missing)
        assert server.builds("octo/hello", 1).rows == 0
        server.repos()


def test_a_repo_that_nobody_knows(server: Server, replay: Replay) -> None:
    replay.play("repo-lookup-unknown", at="/api/repos/lookup/octo/nope")
    for ask in (lambda: server.build("octo/nope", 1), lambda: server.builds("octo/nope", 1)):
        with pytest.raises(ServerError) as caught:
            ask()
        error = caught.value
        assert (error.reason, error.status, error.missing) == ("status", 404, False)


def test_a_number_that_was_given_out_again_has_another_run_and_id(server: Server, replay: Replay) -> None:
    first = changed(server, replay, "pipeline-pull-request", status="created", id=5, created=1795446250)
    again = build_in(server, replay, "pipeline-pull-request")
    assert (first.number, first.status) == (again.number, Status.PENDING)
    assert first.run < again.run
    assert first.id < again.id
    assert server.limits.reuses_numbers


def test_open_builds(server: Server, replay: Replay) -> None:
    replay.play("open")
    builds = server.open_builds()
    assert builds is not None
    assert [(build.repo, build.number, build.status.word, build.word) for build in builds] == [
        ("octo/hello", 13, "pending", Word.FINAL),
        ("secret/vault", 2, "running", Word.FINAL),
    ]
    replay.play("open-running")
    assert [build.number for build in server.open_builds() or []] == [12]
    replay.play("open-none")
    assert server.open_builds() == []
    # Pipelines that wait for approval are not in it.
    assert recording("woodpecker", "open-blocked")["body"] == []
    assert (server.limits.open_rows, server.limits.open_blocked) == (0, False)


def test_who_is_no_administrator_is_asked_for_open_builds_once(server: Server, replay: Replay) -> None:
    refusal = recording("woodpecker", "auth-none") | {"status": 403}
    replay.answers["/api/pipelines"] = refusal
    assert server.open_builds() is None
    assert server.open_builds() is None
    assert replay.asked.count("/api/pipelines") == 1
    replay.play("open")
    server.whoami()
    assert len(server.open_builds() or []) == 2


@pytest.mark.parametrize(("status", "reason"), [(401, "auth"), (500, "status")])
def test_a_fault_does_not_end_the_list_of_open_builds(
    status: int, reason: str, server: Server, replay: Replay
) -> None:
    replay.answers["/api/pipelines"] = recording("woodpecker", "open-anonymous") | {"status": status}
    for _ in range(2):
        with pytest.raises(ServerError) as caught:
            server.open_builds()
        assert caught.value.reason == reason


def test_whoami(server: Server, replay: Replay) -> None:
    assert server.whoami() == User(login="adminuser", admin=True)
    assert (server.dialect, server.version) == ("woodpecker", "3.17.0")
    assert f"Bearer {TOKEN}" in replay.tokens


def test_a_proxy_may_take_the_header_with_the_version(server: Server, replay: Replay) -> None:
    del replay.answers["/api/user"]["headers"]["X-Woodpecker-Version"]
    server.whoami()
    assert server.version == "3.17.0"
    replay.serve("/version", {"source": "https://github.com/drone/drone", "version": "2.0.4"})
    with pytest.raises(ServerError, match="`dialect: woodpecker`") as caught:
        server.whoami()
    assert caught.value.reason == "shape"


@pytest.mark.parametrize("version", ["0.15.6", "1.0.3", "2.8.3"])
def test_older_versions_are_refused(version: str, server: Server, replay: Replay) -> None:
    replay.answers["/api/user"]["headers"]["X-Woodpecker-Version"] = version
    with pytest.raises(ServerError, match=f"Woodpecker {version}: only 3.x") as caught:
        server.whoami()
    assert caught.value.reason == "shape"


@pytest.mark.parametrize("name", ["auth-wrong-token", "auth-none", "auth-plain"])
def test_a_wrong_token_is_told_though_public_repos_answer(name: str, server: Server, replay: Replay) -> None:
    replay.play(name, at="/api/user").play("auth-wrong-token-private-repo")
    assert build_in(server, replay, "pipeline-success").number == 1
    for ask in (server.whoami, lambda: server.builds("secret/vault", 1)):
        with pytest.raises(ServerError) as caught:
            ask()
        assert (caught.value.reason, caught.value.status) == ("auth", 401)


@pytest.mark.parametrize(
    ("name", "reason", "status", "missing"),
    [
        ("pipeline-unknown", "status", 404, True),
        ("repo-unknown", "status", 404, True),
        ("pipeline-not-a-number", "status", 400, False),
        ("auth-wrong-token-private-repo", "auth", 401, False),
        ("pipelines-empty", "shape", 200, False),
        ("pipeline-failure", "shape", 200, False),
        ("api-unknown", "shape", 200, False),
        ("healthz", "status", 204, False),
    ],
)
def test_pipelines_that_cannot_be_had(
    name: str, reason: str, status: int, missing: bool, server: Server, replay: Replay
) -> None:
    replay.play(name, at=f"{HELLO}/1")
    with pytest.raises(ServerError) as caught:
        server.build("octo/hello", 1)
    error = caught.value
    assert (error.reason, error.status, error.missing) == (reason, status, missing)


def unknown(telemetry: Telemetry, field: str) -> float:
    labels = {"server": "ci", "field": field}
    return telemetry.registry.get_sample_value("ci_unknown_values_total", labels) or 0


def test_unknown_values_are_kept_and_counted(server: Server, replay: Replay, telemetry: Telemetry) -> None:
    (workflow,) = recording("woodpecker", "pipeline-success")["body"]["workflows"]
    workflow["children"][0] |= {"state": "odd", "started": 1}
    build = changed(
        server,
        replay,
        "pipeline-success",
        status="waiting",
        event="poll",
        finished=NOW + 301,
        reviewed=7,
        workflows=[workflow],
    )
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
    fields = ("status", "event", "step_status", "started", "finished", "reviewed")
    assert {field: unknown(telemetry, field) for field in fields} == dict.fromkeys(fields, 1)


def step_of(build: Build, name: str) -> Step:
    return next(step for step in build.steps if step.name == name)


def test_a_log(server: Server, replay: Replay) -> None:
    step = step_of(build_in(server, replay, "pipeline-success"), "compile")
    replay.play("logs")
    assert server.log("octo/hello", 1, step) == [
        Line("+ echo compiling", 0), Line("compiling", 0), Line("+ sleep 1", 0),
    ]  # fmt: skip
    replay.serve(
        "/api/repos/1/logs/1/1",
        [
            {"time": 3, "line": 0, "data": "G1szMW1yZWQbWzBt/w==", "type": 1},
            {"time": 4, "line": 1, "data": None},
            {"time": 5, "line": 2, "data": "MQ==", "type": 2},
            {"time": 5, "line": 3, "data": "e30=", "type": 3},
            {"time": 6, "line": 4, "data": "no base64", "type": 0},
        ],
    )
    assert server.log("octo/hello", 1, step) == [
        Line("\x1b[31mred\x1b[0m\ufffd", 3), Line("", 4), Line("exit code 1", 5), Line("no base64", 6),
    ]  # fmt: skip


def test_a_log_that_is_not_there(server: Server, replay: Replay) -> None:
    step = step_of(build_in(server, replay, "pipeline-failure"), "report")
    replay.play("logs-unknown-step", at=f"/api/repos/1/logs/2/{step.log}")
    with pytest.raises(ServerError, match="step report: it never ran") as caught:
        server.log("octo/hello", 2, step)
    assert caught.value.missing


def test_a_restart(server: Server, replay: Replay) -> None:
    replay.play("restart")
    build = server.restart("octo/hello", 1)
    assert build is not None
    assert (build.number, build.parent, build.status) == (9, 1, Status.PENDING)
    assert replay.asked[-1] == f"POST {HELLO}/1"
    # Filtered out: the server took it and began nothing.
    replay.play("cancel", at=f"POST {HELLO}/1")
    assert server.restart("octo/hello", 1) is None


@pytest.mark.parametrize(
    ("name", "repo", "number"),
    [("cancel", "octo/hello", 12), ("cancel-pending", "octo/hello", 13), ("cancel-blocked", "octo/gated", 3)],
)
def test_a_cancel(name: str, repo: str, number: int, server: Server, replay: Replay) -> None:
    replay.play(name)
    server.cancel(repo, number)
    assert replay.asked[-1].startswith("POST ")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("restart-blocked", "cannot restart a pipeline with status blocked"),
        ("cancel-ended", "Cannot cancel a non-"),
    ],
)
def test_what_a_state_does_not_allow(name: str, said: str, server: Server, replay: Replay) -> None:
    replay.play(name)
    act = server.restart if name == "restart-blocked" else server.cancel
    repo, number = ("octo/gated", 1) if name == "restart-blocked" else ("octo/hello", 1)
    with pytest.raises(ServerError, match=said) as caught:
        act(repo, number)
    assert (caught.value.unfit, caught.value.status) == (True, 400)
