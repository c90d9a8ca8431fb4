"""The simulated Woodpecker: its pipelines from birth to end, its lists, its rights."""

import base64
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from reader import Reader, reading

from exporter.model import Status
from exporter.simulator import Clock, Leg, Outcome, StepPlan, World
from exporter.simulator.history import DAY

NOW = 1_800_000_000.0
HELLO = "octo/hello"
PIPELINES = "/api/repos/1/pipelines"
WORKFLOWS = (
    Leg("lint", (StepPlan("clone"), StepPlan("vet"))),
    Leg("deploy", (StepPlan("push"),), after=("lint",)),
)


class Forge(Reader):
    def row(self, number: int) -> dict[str, Any]:
        row: dict[str, Any] = self.get(f"{PIPELINES}/{number}")
        return row

    def states(self, number: int) -> list[tuple[str, list[str]]]:
        """Of every workflow its state and those of its steps."""
        return [
            (workflow["state"], [step["state"] for step in workflow["children"]])
            for workflow in self.row(number)["workflows"]
        ]

    def says(self, number: int) -> str:
        """The status, which every list and feed has to tell alike."""
        row = self.row(number)
        listed = {row["number"]: row["status"] for row in self.get(PIPELINES)}
        fed = {row["number"]: row["status"] for row in self.get("/api/user/feed")}
        assert row["status"] == listed[number] == fed[number]
        return str(row["status"])

    def post(self, what: str) -> int:
        return self.send("POST", f"{PIPELINES}/{what}").status_code


@pytest.fixture
def forge() -> Iterator[Forge]:
    world = World("woodpecker", clock=Clock(NOW))
    world.add_repo(HELLO)
    yield from reading(world, Forge)


# One pipeline


def test_a_pipeline_from_birth_to_end(forge: Forge) -> None:
    number = forge.world.start_build(
        HELLO, started=NOW + 10, finished=NOW + 110, legs=WORKFLOWS, intake=2, at=NOW
    )

    def look() -> tuple[str, int, int, int, list[tuple[str, list[str]]]]:
        row = forge.row(number)
        times = (row[key] - int(NOW) if row[key] else 0 for key in ("updated", "started", "finished"))
        return forge.says(number), *times, forge.states(number)  # type: ignore[return-value]

    waiting = [("pending", ["pending", "pending"]), ("pending", ["pending"])]
    assert look() == ("created", 0, 0, 0, waiting)
    assert forge.get("/api/pipelines") == [], "a created one is in no list of open ones"
    forge.world.clock.advance(2)
    assert look() == ("pending", 2, 0, 0, waiting)
    assert [row["number"] for row in forge.get("/api/pipelines")] == [number]
    queue = forge.get("/api/queue/info")
    assert [len(queue[kind]) for kind in ("pending", "waiting_on_deps", "running")] == [1, 1, 0]
    forge.world.clock.advance(8)
    assert look()[:4] == ("running", 10, 10, 0)
    assert forge.states(number) == [("running", ["running", "pending"]), ("pending", ["pending"])]
    assert forge.get("/api/queue/info")["stats"]["running_count"] == 1
    forge.world.clock.advance(70)
    assert forge.states(number) == [("success", ["success", "success"]), ("running", ["running"])]
    forge.world.clock.advance(30)
    assert look() == (
        "success", 110, 10, 110, [("success", ["success", "success"]), ("success", ["success"])],
    )  # fmt: skip
    assert forge.get("/api/pipelines") == []


def test_ids_of_workflows_and_steps_are_like_no_others(forge: Forge) -> None:
    numbers = [forge.world.start_build(HELLO, legs=WORKFLOWS) for _ in range(30)]
    workflows = [workflow for n in numbers for workflow in forge.row(n)["workflows"]]
    steps = [step for workflow in workflows for step in workflow["children"]]
    assert len({workflow["id"] for workflow in workflows}) == 60
    assert len({step["id"] for step in steps}) == len({step["uuid"] for step in steps}) == 90
    assert [(step["pid"], step["ppid"]) for step in steps[:3]] == [(3, 1), (4, 1), (5, 2)]


@pytest.mark.parametrize("agent", [True, False])
def test_a_cancel_is_final_at_once_and_its_workflow_follows(forge: Forge, agent: bool) -> None:
    number = forge.world.start_build(HELLO, running=True)
    forge.world.clock.advance(30)
    if agent:
        assert forge.post(f"{number}/cancel") == 204
    else:
        forge.world.cancel(HELLO, number, reported=False)
    assert forge.says(number) == "killed"
    assert forge.row(number)["cancel_info"] == {"canceled_by_user": "adminuser"}
    assert forge.states(number)[0][0] == "running"
    assert set(forge.states(number)[0][1]) >= {"killed", "canceled"}
    forge.world.clock.advance(1)
    assert forge.states(number)[0][0] == ("killed" if agent else "running")
    assert forge.post(f"{number}/cancel") == 400
    [(_, run)] = forge.world.runs()
    assert forge.world.status(run) is Status.CANCELLED


def test_a_time_limit_leaves_no_word_of_a_cancel(forge: Forge) -> None:
    number = forge.world.start_build(HELLO, running=True)
    forge.world.clock.advance(60)
    forge.world.finish(HELLO, number, "timeout")
    row = forge.row(number)
    assert (row["status"], "cancel_info" in row) == ("killed", False)
    steps = row["workflows"][0]["children"]
    assert ("failure", "context deadline exceeded", 0) in {
        (step["state"], step.get("error"), step["exit_code"]) for step in steps
    }
    [(_, run)] = forge.world.runs()
    assert forge.world.status(run) is Status.TIMEOUT


@pytest.mark.parametrize(
    ("act", "status", "info"),
    [
        ("cancel", "canceled", {"canceled_by_user": "adminuser"}),
        ("overtake", "canceled", {"superseded_by": 2}),
        ("overtake running", "killed", {"superseded_by": 2}),
    ],
)
def test_ends_that_need_no_agent(forge: Forge, act: str, status: str, info: dict[str, object]) -> None:
    number = forge.world.start_build(HELLO, running=act.endswith("running"))
    forge.world.clock.advance(5)
    match act:
        case "cancel":
            forge.world.cancel(HELLO, number)
        case "overtake":
            forge.world.finish(HELLO, number, "skipped", overtaken_by=2)
        case _:
            forge.world.finish(HELLO, number, "cancelled", overtaken_by=2)
    row = forge.row(number)
    assert (row["status"], row["cancel_info"]) == (status, info)
    assert (row["started"] > 0, row["finished"]) == (status == "killed", int(NOW) + 5)
    [(_, run)] = forge.world.runs()
    assert forge.world.status(run) is Status.CANCELLED


def test_out_of_memory_is_the_failure_of_a_step(forge: Forge) -> None:
    number = forge.world.start_build(HELLO, running=True)
    forge.world.clock.advance(60)
    forge.world.finish(HELLO, number, "killed")
    assert forge.says(number) == "failure"
    assert 137 in {step["exit_code"] for step in forge.row(number)["workflows"][0]["children"]}


def test_a_bad_file_and_a_warning_about_one(forge: Forge) -> None:
    bad = forge.world.start_build(HELLO, outcome="error")
    row = forge.row(bad)
    assert (row["status"], row["started"], row["finished"]) == ("error", int(NOW), int(NOW))
    assert [error["is_warning"] for error in row["errors"]] == [False]
    assert "workflows" not in row
    fine = forge.world.start_build(HELLO, running=True)
    forge.world.finish(HELLO, fine, error="a bad habit")
    assert [error["is_warning"] for error in forge.row(fine)["errors"]] == [True]
    assert forge.says(fine) == "success"


def test_a_step_that_could_not_begin_fails_without_an_exit_code(forge: Forge) -> None:
    legs = (Leg("", (StepPlan("clone", broken="no such host"), StepPlan("test"))),)
    number = forge.world.start_build(HELLO, running=True, legs=legs)
    forge.world.clock.advance(2)
    forge.world.finish(HELLO, number, "failure")
    [workflow] = forge.row(number)["workflows"]
    assert (workflow["state"], workflow["error"]) == ("failure", "no such host")
    first, second = workflow["children"]
    assert (first["state"], first["exit_code"], first["error"]) == ("failure", 0, "no such host")
    assert (second["state"], "started" in second) == ("skipped", False)


def test_approvals(forge: Forge) -> None:
    good, bad, ugly = (forge.world.block(HELLO) for _ in range(3))
    assert forge.says(good) == "blocked"
    assert forge.get("/api/pipelines") == []
    forge.world.clock.advance(10)
    assert [forge.post(f"{good}/approve"), forge.post(f"{bad}/decline")] == [200, 200]
    assert forge.post(f"{ugly}/cancel") == 204
    assert [forge.says(n) for n in (good, bad, ugly)] == ["pending", "declined", "killed"]
    row = forge.row(good)
    assert (row["reviewed_by"], row["reviewed"]) == ("adminuser", int(NOW) + 10)
    assert forge.states(ugly)[0][0] == "blocked", "whose workflows nobody touches"
    assert forge.row(ugly)["started"] == 0
    assert [forge.post(f"{n}/approve") for n in (good, bad, ugly)] == [400, 400, 400]
    assert forge.post(str(bad)) == 400


def test_a_restart_has_a_new_number_and_a_parent(forge: Forge) -> None:
    number = forge.world.start_build(HELLO, running=True)
    forge.world.clock.advance(60)
    forge.world.finish(HELLO, number, "failure")
    again = forge.send("POST", f"{PIPELINES}/{number}").json()
    third = forge.send("POST", f"{PIPELINES}/{again['number']}").json()
    rows = [(row["number"], row["parent"], row["rerun_count"], row["commit"]) for row in (again, third)]
    commit = forge.row(number)["commit"]
    assert rows == [(2, 1, 1, commit), (3, 2, 2, commit)]
    assert forge.says(number) == "failure"


def test_started_by_hand(forge: Forge) -> None:
    wanted = {"branch": "develop", "variables": {"A": "1"}}
    row = forge.send("POST", PIPELINES, json=wanted).json()
    told = [row[key] for key in ("event", "branch", "ref", "author", "sender", "variables", "status")]
    assert told == ["manual", "develop", "develop", "adminuser", "", {"A": "1"}, "pending"]
    assert forge.send("POST", PIPELINES, data="no json").status_code == 400


def test_a_push_that_comes_to_nothing_gives_its_number_out_again(forge: Forge) -> None:
    first = forge.world.start_build(HELLO, running=True)
    forge.world.clock.advance(10)
    number = forge.world.filtered_push(HELLO, seconds=0.5)
    seen = forge.row(number)
    assert (number, seen["status"], forge.says(number)) == (first + 1, "created", "created")
    forge.world.clock.advance(0.5)
    assert forge.ask(f"{PIPELINES}/{number}").status_code == 404
    assert [row["number"] for row in forge.get(PIPELINES)] == [first]
    assert [row["number"] for row in forge.get("/api/user/feed")] == [first]
    forge.world.clock.advance(10)
    assert forge.world.start_build(HELLO) == number
    now = forge.row(number)
    assert now["id"] > seen["id"]
    assert now["created"] > seen["created"]


def test_what_vanishes_under_another_leaves_a_hole(forge: Forge) -> None:
    number = forge.world.filtered_push(HELLO, seconds=2)
    forge.world.clock.advance(1)
    later = forge.world.start_build(HELLO)
    forge.world.clock.advance(1)
    assert forge.ask(f"{PIPELINES}/{number}").status_code == 404
    assert [row["number"] for row in forge.get(PIPELINES)] == [later]


def test_deleting(forge: Forge) -> None:
    number = forge.world.start_build(HELLO, running=True)
    path = f"{PIPELINES}/{number}"
    assert forge.send("DELETE", path).status_code == 422
    forge.world.finish(HELLO, number)
    assert forge.send("DELETE", path).status_code == 204
    assert forge.ask(path).status_code == 404


# Logs


def test_the_last_lines_of_a_log_come_late(forge: Forge) -> None:
    legs = (Leg("", (StepPlan("test", exit_code=2),)),)
    number = forge.world.start_build(HELLO, running=True, legs=legs)
    [step] = forge.row(number)["workflows"][0]["children"]
    path = f"/api/repos/1/logs/{number}/{step['id']}"

    def lines() -> list[str]:
        rows = forge.get(path)
        assert [row["line"] for row in rows] == list(range(len(rows)))
        return [base64.b64decode(row["data"]).decode() for row in rows]

    assert lines() == ["+ make test"]
    forge.world.clock.advance(60)
    forge.world.finish(HELLO, number, legs=legs, outcome="failure")
    assert lines() == ["+ make test"]
    forge.world.clock.advance(forge.world.log_delay)
    assert lines() == ["+ make test", "test: 3 of 3", "make: *** [test] Error 2"]
    assert forge.ask(f"/api/repos/1/logs/{number}/1").status_code == 404


# Lists


def test_pages_and_filters(forge: Forge) -> None:
    for i in range(60):
        what = {"event": "tag"} if i == 3 else {"branch": "develop"} if i % 2 else {}
        number = forge.world.start_build(HELLO, running=True, **what)  # type: ignore[arg-type]
        forge.world.clock.advance(1)
        if i < 58:
            forge.world.finish(HELLO, number, Outcome.FAILURE if i % 10 == 9 else Outcome.SUCCESS)

    def numbers(query: str) -> list[int]:
        return [row["number"] for row in forge.get(f"{PIPELINES}?{query}")]

    assert numbers("") == list(range(60, 10, -1))
    assert numbers("page=2") == list(range(10, 0, -1))
    assert numbers("perPage=7&page=3") == list(range(46, 39, -1))
    for odd in ("perPage=51", "perPage=x", "per_page=3", "page=x", "page=0"):
        assert numbers(odd) == list(range(60, 10, -1)), odd
    assert numbers("event=tag,cron") == [4]
    assert numbers("status=running") == [60, 59]
    assert numbers("status=failure&perPage=2&page=2") == [30, 20]
    assert numbers("ref=tags") == [4]
    assert numbers("branch=develop&perPage=2") == [60, 58]
    assert numbers("before=2027-01-15T08:00:03Z") == [3, 2, 1]
    assert numbers("after=2027-01-15T08:00:57Z") == [60, 59]
    assert forge.ask(f"{PIPELINES}?before=yesterday").status_code == 400
    assert forge.get(f"{PIPELINES}/latest?branch=develop")["number"] == 60
    assert forge.get(f"{PIPELINES}/latest")["number"] == 59
    assert forge.ask(f"{PIPELINES}/latest?branch=nope").status_code == 404
    assert len(forge.get("/api/user/feed")) == 50


def test_a_large_world_is_there_at_once() -> None:
    world = World("woodpecker", clock=Clock(NOW))
    world.add_repos([f"load/r{i:05d}" for i in range(10_000)], builds=100)
    for forge in reading(world, Forge):
        latest = forge.get("/api/user/feed?latest=true")
        repos = forge.get("/api/user/repos")
        feed = forge.get("/api/user/feed")
        page = forge.get("/api/repos/10000/pipelines?page=2")
    assert len(latest) == len(repos) == 10_000
    assert [row["full_name"] for row in repos] == [row["full_name"] for row in latest]
    assert {row["number"] for row in latest} == {row["last_pipeline"]["number"] for row in repos} == {100}
    assert [len(feed), len(page)] == [50, 50]
    assert [row["id"] for row in feed] == sorted((row["id"] for row in feed), reverse=True)


def test_a_repo_is_found_by_its_name_and_listed_with_its_newest(forge: Forge) -> None:
    forge.world.add_repo("octo/quiet")
    forge.world.add_repo("octo/off", active=False)
    forge.world.start_build(HELLO)
    assert forge.get("/api/repos/lookup/octo/hello")["id"] == 1
    assert forge.ask("/api/repos/lookup/octo/nope").status_code == 404
    mine = {
        row["full_name"]: row.get("last_pipeline", {}).get("number") for row in forge.get("/api/user/repos")
    }
    assert mine == {HELLO: 1, "octo/quiet": None}
    assert [row["full_name"] for row in forge.get("/api/repos")] == [HELLO, "octo/off", "octo/quiet"]
    assert [row["full_name"] for row in forge.get("/api/repos?active=true&perPage=1&page=2")] == [
        "octo/quiet"
    ]
    forge.world.delete_repo(HELLO)
    assert forge.ask("/api/repos/1").status_code == 404
    assert forge.get("/api/user/feed") is None


def test_short_builds(forge: Forge) -> None:
    forge.world.short_builds(40, [HELLO], over=4, seconds=0.5)
    forge.world.clock.advance(10)
    assert Counter(row["status"] for row in forge.get("/api/user/feed")) == {"success": 36, "failure": 4}
    assert forge.get("/api/pipelines") == []


def test_a_rebuilt_server_begins_at_1(forge: Forge) -> None:
    forge.world.add_repo("octo/old", builds=30)
    forge.world.replace_by_empty()
    assert forge.get("/api/user/feed") is None
    number = forge.world.start_build("octo/old")
    assert [(row["full_name"], row["number"], row["id"]) for row in forge.get("/api/user/feed")] == [
        ("octo/old", number, 1)
    ]


# Who may


def test_only_a_bearer_is_somebody(forge: Forge) -> None:
    token = forge.world.token
    for header in ({"Authorization": token}, {"Authorization": "Bearer nobody"}, {"Authorization": ""}):
        answer = forge.ask("/api/user", headers=header)
        assert (answer.status_code, answer.text) == (401, "User not authorized")
        assert forge.ask("/api/repos/1", headers=header).status_code == 200, "open repos still answer"
    assert forge.get(f"/api/user?access_token={token}", headers={"Authorization": ""})["admin"] is True
    assert forge.send("POST", PIPELINES, headers={"Authorization": ""}).status_code == 401


def test_rights_come_and_go(forge: Forge) -> None:
    world = forge.world
    world.start_build(HELLO)
    world.set_user(admin=False)
    for path in ("/api/pipelines", "/api/queue/info", "/api/repos"):
        answer = forge.ask(path)
        assert (answer.status_code, answer.text) == (403, "User not authorized")
    assert len(forge.get("/api/user/feed")) == 1
    world.set_user(push=False)
    assert forge.get("/api/user/feed") is None, "a reader has no feed"
    assert forge.get("/api/user/repos") == []
    assert forge.ask(PIPELINES).status_code == 200
    assert forge.post("1/cancel") == 404
    world.make_private(HELLO)
    world.set_user(repos=[])
    assert forge.ask(PIPELINES).status_code == 404
    world.set_user(admin=True)
    assert forge.ask(PIPELINES).status_code == 200
    world.revoke(world.token)
    assert forge.ask(PIPELINES).status_code == 401


def test_a_source_host_that_denies(forge: Forge) -> None:
    forge.world.set_user(admin=False)
    forge.world.deny(HELLO)
    assert forge.ask(PIPELINES).status_code == 404
    forge.world.allow(HELLO)
    forge.world.source_host_down = True
    assert forge.ask(PIPELINES).status_code == 404


def test_numbers_that_are_none(forge: Forge) -> None:
    for path, status in (
        ("/api/repos/x", 400), ("/api/repos/7", 404), (f"{PIPELINES}/x", 400), (f"{PIPELINES}/7", 404)
    ):  # fmt: skip
        answer = forge.ask(path)
        assert (answer.status_code, answer.text) == (status, "")


def test_the_server_names_itself(forge: Forge) -> None:
    for path in ("/version", "/healthz", "/api/user", "/api/repos/7", "/what/ever"):
        assert forge.ask(path).headers["X-Woodpecker-Version"] == "3.17.0"
    assert forge.ask("/healthz").status_code == 204
    assert forge.ask("/what/ever").headers["Content-Type"] == "text/html; charset=UTF-8"


# Faults


def test_faults_speak_as_this_server_does(forge: Forge) -> None:
    forge.world.start_build(HELLO)
    right = forge.get("/api/user/repos")
    faults = forge.world.faults
    faults.add("unknown_status", "/api/user/repos", times=1)
    assert forge.get("/api/user/repos")[0]["last_pipeline"]["status"] == "exploded"
    faults.add("times", "/api/user/repos", times=1, value="1999")
    assert forge.get("/api/user/repos")[0]["last_pipeline"]["created"] == 915_148_800
    faults.add("wrong_types", PIPELINES, times=1)
    assert isinstance(forge.get(PIPELINES)[0]["number"], str)
    assert forge.get("/api/user/repos") == right
    faults.add("not_admin", "/api/pipelines", times=1)
    answer = forge.ask("/api/pipelines")
    assert (answer.status_code, answer.text) == (403, "User not authorized")
    faults.add("not_found", "/api/repos", times=1)
    answer = forge.ask("/api/repos/1")
    assert (answer.status_code, answer.text, answer.headers["X-Woodpecker-Version"]) == (404, "", "3.17.0")
    faults.add("limit", "/api/repos", times=1, retry_after="7")
    answer = forge.ask("/api/repos/1")
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "7")


def test_history_is_there_with_its_details() -> None:
    world = World("woodpecker", clock=Clock(NOW))
    world.add_repo(HELLO, builds=300)
    for forge in reading(world, Forge):
        rows = [row for page in range(1, 8) for row in forge.get(f"{PIPELINES}?page={page}")]
        assert [row["number"] for row in rows] == list(range(300, 0, -1))
        assert {row["status"] for row in rows} == {
            "success", "failure", "killed", "error", "declined", "canceled",
        }  # fmt: skip
        assert {row["event"] for row in rows} == {"push", "pull_request", "tag", "cron", "deployment"}
        assert any(row["errors"] and row["errors"][0]["is_warning"] for row in rows)
        assert all(row["created"] > NOW - 91 * DAY for row in rows)
        for row in rows[:40]:
            single = forge.row(row["number"])
            assert {key: single[key] for key in row} == row
