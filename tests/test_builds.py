"""`build-exporter builds` as a user or a script runs it, against simulated servers."""

import json
import os
import pty
import re
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from process import COMMAND, command, configure, entry, expect_clean
from replay import TOKEN, recording, replaying

from exporter.cli.builds_find import DENIED, MISSING, UNABLE, UNFIT
from exporter.cli.builds_text import log_line, one_line, span_text
from exporter.cli.commands import perform
from exporter.cli.common import BAD, GOOD, SERVER, USAGE
from exporter.servers import Limits, Line, Operation
from exporter.simulator import Clock, Leg, Running, StepPlan, World, serve

DIALECTS = ("drone-0.5", "drone-0.8", "drone-1", "woodpecker")
REPO = "octo/hello"
OPERATIONS = Path(__file__).parent.parent / "docs/operations.md"
LEG = Leg("linux", (StepPlan("clone"), StepPlan("test", exit_code=3), StepPlan("notify", always=True)))


@dataclass
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def error(self) -> str:
        """The only line on standard error."""
        assert self.err.count("\n") == 1, self.err
        return self.err.removeprefix("build-exporter: ").rstrip()


Builds = Callable[..., Done]


@pytest.fixture
def builds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Builds:
    """`build-exporter builds …` in the test's directory, without a process of its own."""

    def run(*arguments: str) -> Done:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["build-exporter", "builds", *arguments])
        code = perform()
        out, err = capsys.readouterr()
        # The simulated server runs in this process, and logs what it had to do to its connections.
        err = "".join(line for line in err.splitlines(True) if "logger=uvicorn" not in line)
        expect_clean(tmp_path, out + err)
        return Done(code, out, err)

    return run


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Starts a server of a dialect with one repo; all that were started stand in the configuration."""
    entries: list[dict[str, object]] = []
    with ExitStack() as stack:

        def begin(
            dialect: str = "drone-1", name: str = "ci", repo: str = REPO, **settings: object
        ) -> Running:
            world = World(dialect, clock=Clock.real(), default_branch="main")
            world.add_repo(repo)
            running = stack.enter_context(serve(world))
            entries.append(entry(tmp_path, name, running, **{"allow_writes": True} | settings))
            configure(tmp_path, *entries)
            return running

        yield begin


def failed(ci: Running, **what: Any) -> int:
    """A build that failed in its step `test`."""
    now = ci.world.clock.now()
    what = {
        "started": now - 90,
        "finished": now - 30,
        "at": now - 100,
        "outcome": "failure",
        "legs": [LEG],
    } | what
    return ci.world.start_build(REPO, **what)


def changes(ci: Running) -> list[tuple[str, str]]:
    """Requests that were not GET."""
    return [request for request in ci.requests if request[0] != "GET"]


# Reading


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_failure_from_the_list_to_its_log(dialect: str, builds: Builds, start: Any) -> None:
    ci = start(dialect)
    number = failed(ci, message="Mend the greeting\n\nfor good")
    listed = builds("list", REPO)
    assert listed.code == GOOD
    head, row = listed.out.splitlines()
    assert head.split() == ["number", "status", "event", "branch", "began", "took", "by", "title"]
    assert re.match(rf"{number} +failure +push +main +\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d +", row)
    assert row.rstrip().endswith("Mend the greeting")
    shown = builds("show", REPO, str(number))
    assert shown.code == GOOD
    lines = shown.out.splitlines()
    assert lines[0] == f"{REPO} {number} on ci: failure (1m00s)"
    assert lines[1].startswith("push on main ")
    assert lines[2:3] == ["Mend the greeting"]
    assert lines[3].endswith("after a wait of 10s")
    tree = [line.split() for line in lines[4:]]
    if dialect == "drone-0.5":
        assert tree == [["└──", "job", "failure", "1m00s", "exit", "code", "3"]]
    else:
        assert tree == [
            ["├──", "clone", "success", "20s"],
            ["├──", "test", "failure", "20s", "exit", "code", "3"],
            ["└──", "notify", "success", "20s"],
        ]
    log = builds("logs", REPO, str(number))
    assert log.code == GOOD
    step = "job" if dialect == "drone-0.5" else "test"
    assert log.error == f"log of {step} (failure, exit code 3)"
    end = ["+ make test", "test: 3 of 3", "make: *** [test] Error 3"]
    if dialect == "drone-0.5":
        assert "clone | + git init" in log.out.splitlines()
        assert "test | exit code 3" in log.out.splitlines()
        log = builds("logs", REPO, str(number), "test", "--tail", "4")
        assert log.out.splitlines() == [f"test | {line}" for line in [*end, "exit code 3"]]
    else:
        assert log.out.splitlines() == end
        assert builds("logs", REPO, str(number), "notify", "--tail", "1").out == "notify: 3 of 3\n"


@pytest.mark.parametrize("dialect", DIALECTS)
def test_json_is_what_the_documentation_says(dialect: str, builds: Builds, start: Any) -> None:
    ci = start(dialect)
    number = failed(ci, message="“Mend” it\n")
    paragraphs = OPERATIONS.read_text(encoding="utf-8").split("\n\n")
    (told,) = [i for i, paragraph in enumerate(paragraphs) if paragraph.endswith("A build has")]
    build_keys = re.findall(r"`(\w+)`", paragraphs[told + 1])
    step_keys = re.findall(r"`(\w+)`", paragraphs[told + 2].partition(";")[0])
    (listed,) = builds("list", REPO, "--json").json
    assert list(listed) == build_keys
    shown = builds("show", REPO, str(number), "--json").json
    assert list(shown) == [*build_keys, "steps"]
    assert [list(step) for step in shown["steps"]] == [step_keys] * len(shown["steps"])
    expected = {"server": "ci", "repo": REPO, "number": number, "status": "failure", "title": "“Mend” it"}
    assert shown | expected | {"duration": 60, "parent": None} == shown
    log = builds("logs", REPO, str(number), "--tail", "2", "--json").json
    assert list(log) == ["server", "repo", "number", "lines"]
    assert [list(line) for line in log["lines"]] == [["step", "seconds", "text"]] * 2
    (open_one,) = [ci.world.start_build(REPO, running=True)]
    (running,) = builds("running", "--json").json
    assert (list(running), running["number"], running["finished"]) == (build_keys, open_one, None)


def test_the_list_is_filtered_by_what_builds_really_are(builds: Builds, start: Any) -> None:
    """The rows of 0.8 call a cancel and a time limit a failure."""
    ci = start("drone-0.8")
    first = failed(ci)
    second = failed(ci, outcome="cancelled", branch="release/1")
    third = failed(ci, outcome="timeout")
    fourth = failed(ci, branch="release/2")
    numbers = lambda *options: [b["number"] for b in builds("list", REPO, "--json", *options).json]  # noqa: E731
    assert numbers() == [fourth, third, second, first]
    assert numbers("--status", "failure") == [fourth, first]
    assert numbers("--status", "cancelled") == [second]
    assert numbers("--status", "timeout") == [third]
    assert numbers("--branch", "release/*") == [fourth, second]
    assert numbers("--limit", "3") == [fourth, third, second]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_list_goes_on_over_pages_as_far_as_the_server_has_them(
    dialect: str, builds: Builds, start: Any
) -> None:
    ci = start(dialect)
    ci.world.add_repo("octo/old", builds=1500)
    found = builds("list", "octo/old", "--limit", "120", "--json").json
    newest = {"drone-0.5": 50}.get(dialect, 120)
    assert [build["number"] for build in found] == list(range(1500, 1500 - newest, -1))
    ci.requests.clear()
    assert builds("list", "octo/old", "--status", "blocked", "--json").json == []
    lists = {"/api/repos/{}/{}/builds", "/api/repos/{}/pipelines"}
    pages = sum(count for (_, route), count in ci.requests.items() if route in lists)
    assert pages == {"drone-0.5": 1}.get(dialect, 10)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_what_runs_on_every_server(dialect: str, builds: Builds, start: Any) -> None:
    ci, other = start(dialect), start("drone-1", "other", "acme/app")
    failed(ci)
    mine = ci.world.start_build(REPO, running=True, at=ci.world.clock.now() - 75)
    waits = ci.world.start_build(REPO)
    theirs = other.world.start_build("acme/app", running=True)
    done = builds("running", "--json")
    assert [(b["server"], b["number"], b["status"]) for b in done.json] == [
        ("ci", mine, "running"), ("ci", waits, "pending"), ("other", theirs, "running"),
    ]  # fmt: skip
    (row,) = [
        line for line in builds("running").out.splitlines() if line.startswith(f"ci      {REPO}  {mine} ")
    ]
    assert "1m1" in row
    only = builds("running", "--server", "other", "--json")
    assert [b["number"] for b in only.json] == [theirs]
    ci.world.set_user(admin=False)
    plain = builds("running", "--server", "ci", "--json")
    assert [b["number"] for b in plain.json] == [mine, waits]
    assert plain.error == "server ci: this token gets no list of open builds: only the newest were looked at"
    ci.stop()
    half = builds("running", "--json")
    assert half.code == SERVER
    assert [b["number"] for b in half.json] == [theirs]
    assert half.error.startswith("server ci: ")


def test_what_waits_for_approval_is_told_apart(builds: Builds, start: Any) -> None:
    """The rows of 1.x call it pending."""
    ci = start("drone-1")
    number = ci.world.block(REPO)
    (blocked,) = builds("list", REPO, "--json").json
    assert (blocked["number"], blocked["status"]) == (number, "blocked")


def test_stages_are_branches_of_the_tree(builds: Builds, start: Any) -> None:
    ci = start("drone-1")
    fine = Leg("linux", (StepPlan("clone"), StepPlan("test")))
    ignored = StepPlan("lint", exit_code=1, ignored=True)
    arm = Leg("arm", (StepPlan("clone"), ignored, StepPlan("test", exit_code=1)))
    number = failed(ci, legs=[fine, arm])
    tree = builds("show", REPO, str(number)).out.splitlines()[4:]
    assert [found[0] for line in tree if (found := re.match(r"\W+\w+", line))] == [
        "├── linux", "│   ├── clone", "│   └── test",
        "└── arm", "    ├── clone", "    ├── lint", "    └── test",
    ]  # fmt: skip
    assert tree[5].split()[2:] == ["failure", "20s", "exit", "code", "1", "ignored"]
    default = builds("logs", REPO, str(number))
    assert default.error == "log of arm/test (failure, exit code 1)", (
        "not of the step whose failure is ignored"
    )
    assert builds("logs", REPO, str(number), "linux/test").out.splitlines()[0] == "+ make test"
    assert builds("logs", REPO, str(number), "lint").out.splitlines()[0] == "+ make lint"
    several = builds("logs", REPO, str(number), "test")
    assert (several.code, several.error) == (USAGE, "several steps are called test: linux/test, arm/test")


def test_logs_of_steps_that_have_none(builds: Builds, start: Any) -> None:
    ci = start("drone-1")
    skips = Leg("linux", (StepPlan("clone"), StepPlan("test", exit_code=1), StepPlan("deploy")))
    number = failed(ci, legs=[skips])
    done = builds("logs", REPO, str(number), "deploy")
    assert done.code == MISSING
    assert done.error.endswith("step deploy: it never ran, so it has no log")
    unknown = builds("logs", REPO, str(number), "build")
    assert (unknown.code, unknown.error) == (
        MISSING,
        "no step of it is called build: it has clone, test, deploy",
    )
    good = failed(ci, outcome="success", legs=[Leg("linux", (StepPlan("clone"), StepPlan("test")))])
    done = builds("logs", REPO, str(good))
    assert (done.code, done.error) == (USAGE, "no step of it failed: name one: clone, test")
    running = ci.world.start_build(REPO, running=True)
    done = builds("logs", REPO, str(running), "clone")
    assert (done.code, done.error.partition("step ")[2]) == (
        MISSING, "clone: it has not ended, and the server shows its log only then",
    )  # fmt: skip


def test_of_a_build_that_was_cut_off_the_log_is_of_the_step_that_ran(builds: Builds, start: Any) -> None:
    ci = start("drone-0.8")
    number = failed(ci, outcome="timeout", legs=[Leg("", (StepPlan("clone"), StepPlan("test")))])
    assert builds("logs", REPO, str(number)).error == "log of test (success)"
    ci = start("drone-1", "other", "acme/app")
    now = ci.world.clock.now()
    number = ci.world.start_build("acme/app", started=now - 90, finished=now - 10, outcome="cancelled")
    assert builds("logs", "acme/app", str(number), "--server", "other").error.endswith(
        "(cancelled, exit code 130)"
    )


def test_a_step_within_the_job_of_0_5(builds: Builds, start: Any) -> None:
    ci = start("drone-0.5")
    legs = [Leg("", (StepPlan("clone"), StepPlan("test", exit_code=n)), (("GO", f"1.{n}"),)) for n in (7, 8)]
    number = failed(ci, legs=legs)
    first = builds("logs", REPO, str(number))
    assert first.error == "log of GO=1.7 (failure, exit code 7); so did GO=1.8"
    end = lambda *step: builds("logs", REPO, str(number), *step, "--tail", "1").out  # noqa: E731
    assert end("test") == "test | exit code 7\n"
    assert end("GO=1.8/test") == "test | exit code 8\n"
    assert end("GO=1.8/clone") == "clone | exit code 0\n"
    assert end("GO=1.8") == "test | exit code 8\n"
    missing = builds("logs", REPO, str(number), "deploy")
    assert (missing.code, missing.error) == (MISSING, "no step of it is called deploy: it has GO=1.7, GO=1.8")


def test_lines_that_come_late_are_waited_for(
    builds: Builds, start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exporter.servers.woodpecker.LATE_LINES", 2)
    ci = start("woodpecker")
    ci.world.log_delay = 1.5
    now = ci.world.clock.now()
    number = failed(
        ci, started=now - 60, finished=now, at=now - 61, legs=[Leg("w", (StepPlan("test", exit_code=1),))]
    )
    assert builds("logs", REPO, str(number)).out.splitlines()[-1] == "make: *** [test] Error 1"
    read = ("GET", "/api/repos/{}/logs/{}/{}")
    assert ci.requests[read] in {3, 4}
    ci.requests.clear()
    old = failed(ci)
    assert builds("logs", REPO, str(old)).code == GOOD
    assert ci.requests[read] == 1, "what ended long ago is read once"


# ABF

ABF_REPO = "import/hello"
BUILT = Leg("", (StepPlan("chroot"), StepPlan("build"), StepPlan("tests")))
BROKEN = Leg("", (StepPlan("chroot"), StepPlan("build", exit_code=1), StepPlan("tests")))


def packaged(abf: Running, outcome: str = "success", leg: Leg = BUILT) -> int:
    """A build list that has ended."""
    now = abf.world.clock.now()
    return abf.world.start_build(
        ABF_REPO, started=now - 600, finished=now - 400, at=now - 700, outcome=outcome, legs=[leg]
    )


@pytest.mark.parametrize("several", [False, True])
def test_reading_abf(several: bool, builds: Builds, start: Any) -> None:
    if several:
        start("drone-1", "drone")
    abf = start("abf", "abf", ABF_REPO)
    good, bad = packaged(abf), packaged(abf, "failure", BROKEN)
    runs = abf.world.start_build(ABF_REPO, running=True, at=abf.world.clock.now() - 900)
    waits = abf.world.start_build(ABF_REPO)
    listed = builds("list", ABF_REPO, "--json").json
    assert [(b["number"], b["status"]) for b in listed] == [
        (waits, "pending"), (runs, "running"), (bad, "failure"), (good, "success"),
    ]  # fmt: skip
    assert [b["number"] for b in builds("list", ABF_REPO, "--json", "--status", "failure").json] == [bad]
    assert {b["number"] for b in builds("running", "--json").json} == {runs, waits}
    shown = builds("show", ABF_REPO, str(bad)).out.splitlines()
    assert shown[0] == f"{ABF_REPO} {bad} on abf: failure (3m20s)"
    assert shown[-1].split() == ["└──", "build", "failure"]
    log = builds("logs", ABF_REPO, str(bad))
    assert log.error == "log of build (failure)"
    assert {line.split(" | ")[0] for line in log.out.splitlines()} == {"build.log", "root.log"}
    one = builds("logs", ABF_REPO, str(good), "root.log").out.splitlines()
    assert {line.split(" | ")[0] for line in one} == {"root.log"}
    assert builds("logs", ABF_REPO, str(runs)).out.splitlines() == ["+ rpmbuild -ba"]
    assert builds("show", ABF_REPO, "99").code == MISSING
    assert builds("show", "import/other", str(good)).code == MISSING
    assert builds("list", "import/other").code == MISSING


def test_changing_abf(builds: Builds, start: Any) -> None:
    abf = start("abf", "ci", ABF_REPO)
    abf.world.openmandriva = True  # which publishes at once
    abf.world.anonymous_access = False
    first, second, broken = packaged(abf), packaged(abf), packaged(abf, "failure", BROKEN)
    done = builds("publish", ABF_REPO, str(first), "--yes")
    assert (done.code, done.err) == (GOOD, "")
    assert done.out == f"server ci: {ABF_REPO} {first}: the server took it; publishing is running\n"
    done = builds("reject", ABF_REPO, str(second), "--yes", "--json")
    assert done.json["outcome"] == "asked"
    assert builds("show", ABF_REPO, str(second), "--json").json["steps"][-1]["status"] == "cancelled"
    done = builds("reject", ABF_REPO, str(broken), "--yes")
    assert (done.code, done.error.partition("answered ")[2]) == (
        UNFIT,
        "422: there is nothing of it to reject",
    )
    done = builds("publish", ABF_REPO, str(broken), "--yes")
    assert done.code == DENIED
    assert done.error.endswith("the token's user may not do that, or there is nothing of it to publish")
    runs = abf.world.start_build(ABF_REPO, running=True, at=abf.world.clock.now() - 900)
    done = builds("cancel", ABF_REPO, str(runs), "--yes", "--json")
    assert done.json["outcome"] in {"asked", "cancelled"}
    done = builds("restart", ABF_REPO, str(broken), "--yes")
    assert (done.code, done.error) == (UNABLE, "server ci: abf offers no restart through its API")
    drone = start("drone-1", "drone")
    done = builds("publish", REPO, str(failed(drone)), "--yes")
    assert (done.code, done.error) == (UNABLE, "server drone: drone-1 offers no publish through its API")


# Which server


def test_which_server_a_repo_is_on(builds: Builds, start: Any) -> None:
    ci, other = start("drone-0.5", "old"), start("drone-1", "new", "acme/app")
    number = failed(ci)
    assert builds("show", REPO, str(number), "--json").json["server"] == "old"
    other.world.add_repo(REPO)
    both = builds("show", REPO, str(number))
    assert (both.code, both.error) == (USAGE, f"{REPO} is on old and new: say which one with --server")
    assert builds("show", REPO, str(number), "--server", "old", "--json").json["server"] == "old"
    none = builds("show", "no/where", "1")
    assert none.code == MISSING
    assert none.error == "no server lists no/where; if one has it all the same, name that with --server"
    wrong = builds("show", REPO, "1", "--server", "odl")
    assert (wrong.code, wrong.error) == (USAGE, "no server is called odl; known are old, new")
    other.stop()
    down = builds("show", REPO, str(number))
    assert down.code == SERVER
    assert down.error.startswith("server new: ")
    assert down.error.endswith(f"so it is not known where {REPO} is: say it with --server")


@pytest.mark.parametrize("repo", ["hello", "a/b/c", "../..", "a/..", "octo/", "octo/he llo", "octo/\x1b"])
def test_what_is_no_repo_is_refused(repo: str, builds: Builds, start: Any) -> None:
    start()
    done = builds("list", repo)
    assert done.code == USAGE
    assert "must be owner/name" in done.err


# Changing


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_restart(dialect: str, builds: Builds, start: Any) -> None:
    ci = start(dialect)
    number = failed(ci)
    done = builds("restart", REPO, str(number), "--yes")
    assert (done.code, done.err) == (GOOD, "")
    if dialect == "drone-0.5":
        assert done.out == f"server ci: {REPO} {number} runs again under its number, now pending\n"
        again = builds("restart", REPO, str(number), "--yes")
        assert (again.code, again.out) == (UNFIT, "")
        assert again.error.endswith("answered 409: Cannot re-start a started build")
    else:
        assert done.out == f"server ci: {REPO} {number} was restarted as {number + 1}, now pending\n"
        again = builds("restart", REPO, str(number), "--yes", "--json").json
        assert (again["outcome"], again["build"]["number"]) == ("restarted", number + 2)
    assert builds("show", REPO, str(number + (dialect != "drone-0.5")), "--json").json["status"] == "pending"


def test_a_restart_of_which_nothing_comes(builds: Builds, start: Any) -> None:
    ci = start("drone-1")
    number = failed(ci, message="[ci skip] not this\n")
    done = builds("restart", REPO, str(number), "--yes")
    assert (done.code, done.out) == (UNFIT, "")
    assert "the server began nothing: no pipeline of it fits any more" in done.error


@pytest.mark.parametrize("dialect", ["drone-0.8", "drone-1"])
def test_a_build_that_waits_for_approval_is_not_restarted(dialect: str, builds: Builds, start: Any) -> None:
    ci = start(dialect)
    number = ci.world.block(REPO)
    done = builds("restart", REPO, str(number), "--yes")
    assert done.code == UNFIT
    assert done.error.endswith("a build with status blocked" if dialect == "drone-0.8" else "a blocked build")


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("admin", [True, False])
def test_a_cancel(dialect: str, admin: bool, builds: Builds, start: Any) -> None:
    ci = start(dialect)
    ci.world.set_user(admin=admin)
    number = ci.world.start_build(REPO, running=True, legs=[LEG], at=ci.world.clock.now() - 60)
    done = builds("cancel", REPO, str(number), "--yes")
    assert (done.code, done.out, done.err) == (GOOD, f"server ci: {REPO} {number} was cancelled\n", "")
    assert builds("show", REPO, str(number), "--json").json["status"] == "cancelled"
    again = builds("cancel", REPO, str(number), "--yes")
    assert (again.code, again.error) == (UNFIT, f"server ci: {REPO} {number} has ended already: cancelled")
    whole = ("DELETE", "/api/repos/{}/{}/builds/{}") in ci.requests
    leg = ("DELETE", "/api/repos/{}/{}/builds/{}/{}") in ci.requests
    assert (whole, leg) == {
        "drone-0.5": (False, True), "drone-0.8": (True, not admin), "drone-1": (True, False),
    }.get(dialect, (False, False))  # fmt: skip


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_cancel_of_what_waits(dialect: str, builds: Builds, start: Any) -> None:
    ci = start(dialect)
    number = ci.world.start_build(REPO)
    done = builds("cancel", REPO, str(number), "--yes", "--json")
    if dialect in {"drone-1", "woodpecker"}:
        assert done.json["outcome"] == "cancelled"
        assert done.json["build"]["status"] == "cancelled"
    else:
        assert done.code == UNFIT
        assert re.search("stops no build that waits|Cannot force cancel a non-running build", done.error)


@pytest.mark.parametrize(
    ("dialect", "admin", "outcome", "status"),
    [
        ("drone-0.5", True, "cancelled", "failure"),
        ("drone-0.8", True, "cancelled", "cancelled"),
        ("drone-0.8", False, "asked", "running"),
    ],
)
def test_a_cancel_that_no_agent_confirms(
    dialect: str,
    admin: bool,
    outcome: str,
    status: str,
    builds: Builds,
    start: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("exporter.cli.builds_change.LOOKS", 1)
    ci = start(dialect)
    ci.world.set_user(admin=admin)
    monkeypatch.setattr(ci.world, "cancel", partial(ci.world.cancel, reported=False))
    number = ci.world.start_build(REPO, running=True, legs=[LEG], at=ci.world.clock.now() - 60)
    done = builds("cancel", REPO, str(number), "--yes", "--json")
    assert done.code == GOOD
    assert (done.json["outcome"], done.json["build"]["status"]) == (outcome, status)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_build_that_ends_before_it_is_stopped(
    dialect: str, builds: Builds, start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ci = start(dialect)
    monkeypatch.setattr(ci.world, "cancel", lambda repo, number, **_: ci.world.finish(repo, number))
    number = ci.world.start_build(REPO, running=True, legs=[LEG], at=ci.world.clock.now() - 60)
    done = builds("cancel", REPO, str(number), "--yes")
    assert (done.code, done.out) == (UNFIT, "")
    assert done.error.endswith(f"{REPO} {number} ended by itself before it could be stopped: success")


@pytest.mark.parametrize("operation", ["restart", "cancel"])
def test_a_server_is_only_read_unless_it_says_otherwise(operation: str, builds: Builds, start: Any) -> None:
    ci = start(allow_writes=False)
    number = ci.world.start_build(REPO, running=True)
    done = builds(operation, REPO, str(number), "--yes")
    assert done.code == USAGE
    assert done.error == f"server ci is only read: to {operation} builds, set `allow_writes: true` for it"
    assert changes(ci) == []


@pytest.mark.parametrize("operation", ["restart", "cancel"])
def test_where_nobody_can_be_asked_nothing_is_changed(operation: str, builds: Builds, start: Any) -> None:
    ci = start()
    number = ci.world.start_build(REPO, running=True)
    done = builds(operation, REPO, str(number))
    assert (done.code, done.error) == (USAGE, f"nobody can be asked here: say --yes to {operation} it")
    assert changes(ci) == []


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_user_who_may_only_read(dialect: str, builds: Builds, start: Any) -> None:
    ci = start(dialect)
    ci.world.set_user(admin=False, push=False)
    number = ci.world.start_build(REPO, running=True, legs=[LEG])
    for operation in ("restart", "cancel"):
        done = builds(operation, REPO, str(number), "--yes")
        assert done.code == DENIED
        assert "no right" in done.error
    assert builds("show", REPO, str(number), "--json").json["status"] == "running"


def test_an_operation_that_a_dialect_lacks(
    builds: Builds, start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ci = start("drone-1")
    number = failed(ci)
    limits = replace(Limits(feed_rows=25, page_size=100), operations=frozenset({Operation.CANCEL}))
    monkeypatch.setattr("exporter.servers.drone1.Limits", lambda **_: limits)
    for command_line in (("restart", "--yes"), ("logs",)):
        name, *options = command_line
        done = builds(name, REPO, str(number), *options)
        operation = {"logs": "log"}.get(name, name)
        assert (done.code, done.error) == (
            UNABLE,
            f"server ci: drone-1 offers no {operation} through its API",
        )


# What goes wrong


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    ("fault", "options", "code", "words"),
    [
        ("not_admin", {}, DENIED, "the token's user has no right to read it"),
        ("status", {"status": 401}, DENIED, "the token was not accepted"),
        ("status", {"status": 403}, DENIED, "the token's user has no right to read it"),
        ("not_found", {}, MISSING, ", or the token's user may not read it"),
        ("community", {}, UNABLE, "this edition of the server does not have it"),
        ("limit", {}, SERVER, "wants fewer requests"),
        ("status", {"status": 500}, SERVER, "look at the log of the server"),
        ("status", {"status": 502}, SERVER, "look at the log of the server"),
        ("html", {}, SERVER, "answered something else than JSON (a web page?)"),
        ("truncated", {}, SERVER, "no whole JSON"),
        ("wrong_types", {}, SERVER, "answered something else than is known of this server"),
        ("redirect", {}, SERVER, "a redirect to http://elsewhere.invalid, which is not followed"),
        ("reset", {}, SERVER, "the connection was refused or cut"),
        ("cut", {}, SERVER, "the answer broke off"),
    ],
)
def test_faults_are_one_sentence_and_a_code_of_their_class(
    dialect: str, fault: Any, options: dict[str, Any], code: int, words: str, builds: Builds, start: Any
) -> None:
    ci = start(dialect)
    number = failed(ci)
    ci.world.faults.add(fault, f"/(builds|pipelines)/{number}$", **options)
    done = builds("show", REPO, str(number))
    assert (done.code, done.out) == (code, "")
    assert words in done.error
    assert re.match(f"server ci: /api/repos/({REPO}/builds|1/pipelines)/{number}: ", done.error)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_builds_and_repos_that_are_not_there(dialect: str, builds: Builds, start: Any) -> None:
    start(dialect)
    done = builds("show", REPO, "99")
    assert done.code == MISSING
    assert re.search("there is no such (build|pipeline)", done.error)
    unknown = builds("list", "octo/other")
    assert (unknown.code, unknown.out) == (MISSING, "")
    assert "not there, or the token's user may not read it" in unknown.error


def test_a_wrong_token_is_told_though_the_repo_is_public(builds: Builds, start: Any) -> None:
    ci = start()
    number = failed(ci)
    ci.world.revoke(ci.world.token)
    done = builds("show", REPO, str(number))
    assert done.code == DENIED
    assert "/api/user: answered 401: the token was not accepted" in done.error


def test_a_log_that_cannot_be_read(builds: Builds, start: Any) -> None:
    ci = start()
    number = failed(ci)
    ci.world.faults.add("status", "/logs/", status=504)
    done = builds("logs", REPO, str(number))
    assert (done.code, done.out) == (SERVER, "")
    assert "answered 504" in done.error


# Text from elsewhere

HOSTILE = f"\x1b]0;owned\x07[bold red]x[/]\x1b[2J\n\u202e \x9b31m:warning: {TOKEN}"


@pytest.fixture
def hostile(tmp_path: Path) -> Iterator[str]:
    """A recorded build in which every text is hostile and holds the token; its number."""
    with replaying("drone-1.x", "user", "version", "logs") as replay:
        build = recording("drone-1.x", "build-step-failure-ignored")["body"]
        texts = ("title", "message", "author_login", "after", "error", "deploy_to", "cron")
        build |= dict.fromkeys(texts, HOSTILE)
        build |= {"target": f"b{HOSTILE}", "status": "failure", "number": 7, "event": "push"}
        build["stages"][0]["steps"][0] |= {
            "name": HOSTILE,
            "status": "failure",
            "number": 1,
            "errignore": False,
        }
        build["stages"][0]["number"] = 1
        replay.serve("/api/repos/octo/hello/builds", [build]).serve("/api/repos/octo/hello/builds/7", build)
        lines = [f"{HOSTILE}\n", "10%\r 20%\r 30%\r\n", "\x1b[1;32mok\x1b[0m\x1b[1A\x1b[8;5;1t\x1bc\tdone\n"]
        path = "/api/repos/octo/hello/builds/7/logs/1/1"
        replay.serve(path, [{"pos": n, "out": line, "time": n} for n, line in enumerate(lines)])
        configure(tmp_path, entry(tmp_path, "ci", replay.url))
        (tmp_path / "ci.token").write_text(TOKEN)
        yield "7"


def test_hostile_text_does_nothing_to_a_file(hostile: str, builds: Builds) -> None:
    for arguments in (("list", REPO), ("show", REPO, hostile), ("logs", REPO, hostile)):
        done = builds(*arguments)
        assert done.code == GOOD
        assert not re.search("[\0-\x08\x0b-\x1f\x7f-\x9f\u202e]", done.out + done.err)
        assert "[bold red]x[/]" in done.out.replace("…", "x[/]"), "rich takes nothing for markup"
    assert done.out.splitlines() == [
        "[bold red]x[/]", "\ufffd :warning: <secret>", " 30%", "ok\tdone",
    ]  # fmt: skip


def test_hostile_text_in_json_is_ascii(hostile: str, builds: Builds) -> None:
    for arguments in (("list", REPO), ("show", REPO, hostile), ("logs", REPO, hostile)):
        done = builds(*arguments, "--json")
        assert done.code == GOOD
        assert done.out.isascii()
        assert done.out.replace("\n", "").isprintable()
        assert TOKEN not in json.dumps(done.json)
        assert "<secret>" in done.out


@pytest.mark.parametrize(
    ("text", "plain", "coloured"),
    [
        ("\x1b[31mred\x1b[0m", "red", "\x1b[31mred\x1b[0m"),
        ("\x1b[38;2;1;2;3mx", "x", "\x1b[38;2;1;2;3mx"),
        ("a\x1b]8;;http://x\x1b\\b\x1b]8;;\x07c", "abc", "abc"),
        ("a\x1b]52;c;never ended", "a", "a"),
        ("a\x1bPq#0\x1b\\b\x1b(0c\x1b7d\x1b", "abcd", "abcd"),
        ("\x9b2Ja\x9d0;t\x9cb\x85c", "ab\ufffdc", "ab\ufffdc"),
        ("1%\r2%\r", "2%", "2%"),
        ("tab\there \b\0 \u2066x", "tab\there \ufffd\ufffd \ufffdx", "tab\there \ufffd\ufffd \ufffdx"),
        ("👩‍💻 编译", "👩‍💻 编译", "👩‍💻 编译"),
        ("x" * 3000, "x" * 3000, "x" * 2000 + "\x1b[0m… (3000 characters)"),
    ],
)
def test_lines_of_logs(text: str, plain: str, coloured: str) -> None:
    assert log_line(Line(text), colours=False) == plain
    assert log_line(Line(text), colours=True) == coloured


def test_short_texts() -> None:
    assert one_line("a\r\n\tb \x1b[1mc\x1b[0m\u2028d") == "a b c d"
    assert one_line("x" * 300, 10) == "xxxxxxxxx…"
    spans = [None, 0, 59.9, 60, 3599, 3600, 86399, 86400 * 3 + 3600 * 4]
    assert [span_text(span) for span in spans] == [
        "",
        "0s",
        "59s",
        "1m00s",
        "59m59s",
        "1h00m",
        "23h59m",
        "3d04h",
    ]


# As a process


def on_terminal(directory: Path, *arguments: str, answer: str = "", columns: int = 80) -> tuple[int, str]:
    """Runs `builds …` with a terminal on every side; exit code and what was shown."""
    terminal, end = pty.openpty()
    environ = {**os.environ, "TERM": "xterm-256color", "COLUMNS": str(columns)}
    environ.pop("NO_COLOR", None)
    process = subprocess.Popen(
        [COMMAND, "builds", *arguments], cwd=directory, stdin=end, stdout=end, stderr=end, env=environ
    )
    os.close(end)
    shown = b""
    try:
        while select.select([terminal], [], [], 20)[0]:
            try:
                piece = os.read(terminal, 65536)
            except OSError:  # the last of its other ends is closed
                break
            if not piece:
                break
            shown += piece
            if answer and b"[y/N]: " in shown:
                os.write(terminal, f"{answer}\n".encode())
                answer = ""
        code = process.wait(20)
    finally:
        process.kill()
        process.wait()
        os.close(terminal)
    expect_clean(directory, shown.decode())
    return code, shown.decode().replace("\r\n", "\n")


def test_on_a_terminal_colours_stay_and_nothing_else_does(hostile: str, tmp_path: Path) -> None:
    code, shown = on_terminal(tmp_path, "logs", REPO, hostile)
    assert code == GOOD
    assert shown.splitlines()[-1] == "\x1b[1;32mok\x1b[0m\tdone\x1b[0m"
    for arguments in (("list", REPO), ("show", REPO, hostile), ("logs", REPO, hostile)):
        code, shown = on_terminal(tmp_path, *arguments)
        assert code == GOOD
        assert "\x1b[" in shown
        assert not re.search("[\0-\x08\x0b-\x1f\x7f-\x9f\u202e]", re.sub("\x1b\\[[0-9;]*m", "", shown))
        assert all(
            len(re.sub("\x1b\\[[0-9;]*m", "", line)) <= 80
            for line in shown.splitlines()
            if "log of" not in line
        )


def test_who_is_at_a_terminal_is_asked(start: Any, tmp_path: Path) -> None:
    ci = start("drone-0.5")
    number = failed(ci, message="Mend the greeting\n")
    code, shown = on_terminal(tmp_path, "restart", REPO, str(number), answer="n", columns=200)
    what = f"{REPO} {number} on ci (failure, push, “Mend the greeting”)"
    assert shown.startswith(f"Restart {what}, and lose its result and log? [y/N]: ")
    assert code == BAD
    assert changes(ci) == []
    code, shown = on_terminal(tmp_path, "restart", REPO, str(number), answer="y", columns=200)
    assert code == GOOD
    assert shown.endswith(f"\nserver ci: {REPO} {number} runs again under its number, now pending\n")


def test_exit_codes_are_those_of_the_process(start: Any, tmp_path: Path) -> None:
    ci = start()
    number = failed(ci)
    done = command(tmp_path, "builds", "show", REPO, "99")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (MISSING, "", 1)
    latin = command(tmp_path, "builds", "logs", REPO, str(number), "clone", PYTHONIOENCODING="latin-1")
    assert latin.returncode == GOOD


def test_a_reader_who_has_seen_enough(start: Any, tmp_path: Path) -> None:
    ci = start()
    ci.world.add_repo("octo/old", builds=1000)
    line = f"{COMMAND} builds list octo/old --limit 1000 --json | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", line], cwd=tmp_path, capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout.split() == ["[", "0"]
    assert done.stderr == ""
