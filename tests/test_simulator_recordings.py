"""The simulator says what the real servers said: same request, same status, type, shape and signs."""

import json
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from exporter.simulator import Clock, Leg, StepPlan, World
from exporter.simulator.server import ANSWER
from exporter.simulator.wire import Answer, Ask, read_query

RECORDINGS = Path(__file__).parent / "data" / "recordings"
SYSTEMS = {"drone-0.5": "drone-0.5", "drone-0.8": "drone-0.8", "drone-1.x": "drone-1"}
NOW = 1_800_000_000.0
HELLO = "octo/hello"

Scene = Callable[[World], int]
"""Makes what a recording was taken of and answers the build's number."""


def leg(name: str, *steps: StepPlan | str, after: tuple[str, ...] = (), **environ: str) -> Leg:
    plans = tuple(StepPlan(step) if isinstance(step, str) else step for step in steps)
    return Leg(name, plans, tuple(environ.items()), after)


CLASSIC = (leg("", "clone", "build", "test"),)
MATRIX = (
    leg("", "clone", "build", "test", GO_VERSION="1.7"),
    leg("", "clone", StepPlan("build", exit_code=1), "test", GO_VERSION="1.8"),
)
CLASSIC_FAILED = (leg("", "clone", StepPlan("build", exit_code=1), "test"),)
MODERN = (leg("build", "compile", "test"),)


def ended(outcome: str = "success", *, legs: tuple[Leg, ...] = (), after: float = 60.0, **what: Any) -> Scene:
    """A build that ran for `after` seconds, some time ago."""

    def scene(world: World) -> int:
        number = started(legs=legs, **what)(world)
        world.clock.advance(after)
        world.finish(HELLO, number, outcome, legs=legs or None)
        world.clock.advance(5)
        return number

    return scene


def started(*, legs: tuple[Leg, ...] = (), running: bool = True, wait: float = 0, **what: Any) -> Scene:
    """A build that has been running, or waiting, for `wait` seconds."""

    def scene(world: World) -> int:
        default = MODERN if world.traits.stages else CLASSIC
        number = world.start_build(HELLO, running=running, legs=legs or default, **what)
        world.clock.advance(wait)
        return number

    return scene


def cancelled(*, after: float = 10.0, later: float = 5.0, legs: tuple[Leg, ...] = (), **how: Any) -> Scene:
    def scene(world: World) -> int:
        number = started(legs=legs, running=after > 0)(world)
        world.clock.advance(after or 1)
        world.cancel(HELLO, number, **how)
        world.clock.advance(later)
        return number

    return scene


def server_restarted(*, running: bool) -> Scene:
    def scene(world: World) -> int:
        number = started(running=running)(world)
        world.clock.advance(20)
        world.server_restart()
        return number

    return scene


def restarted(scene: Scene, *, back: bool = True, **how: Any) -> Scene:
    """The build of `scene`, started again; `back`: the number is the first run's."""

    def again(world: World) -> int:
        number = scene(world)
        new = world.restart(HELLO, number, **how)
        return number if back else new

    return again


def run_again(scene: Scene, **how: Any) -> Scene:
    def again(world: World) -> int:
        number = restarted(scene, back=False, **how)(world)
        world.run(HELLO, number)
        world.clock.advance(20)
        world.finish(HELLO, number, legs=MODERN if world.traits.stages else CLASSIC)
        world.clock.advance(5)
        return number

    return again


def blocked(*, decline: bool = False, approve: bool = False, cancel: bool = False, **what: Any) -> Scene:
    def scene(world: World) -> int:
        number = started(running=False, gated=True, **what)(world)
        world.clock.advance(10)
        if decline:
            world.decline(HELLO, number)
        if cancel:
            world.cancel(HELLO, number)
        if approve:
            world.approve(HELLO, number)
            world.run(HELLO, number)
            world.clock.advance(10)
            world.finish(HELLO, number, legs=MODERN)
        world.clock.advance(5)
        return number

    return scene


def some_open(world: World) -> int:
    started()(world)
    return started(running=False)(world)


def source_host_down(world: World) -> int:
    world.source_host_down = True
    return 0


def nothing(_: World) -> int:
    return 0


PULL = {"event": "pull_request", "pull": 86, "source": "feature-86"}
OLD: dict[str, Scene] = {
    "build": ended(), "build-latest": cancelled(),
    "build-latest-branch": ended("failure", branch="develop", legs=CLASSIC_FAILED),
    "build-matrix": ended("failure", legs=MATRIX), "build-killed": ended("killed"),
    "build-cancelled": cancelled(), "build-pull-request": ended(**PULL), "build-tag": ended(event="tag"),
    "build-deployment": run_again(ended(), fork=True, event="deployment", environment="production"),
    "build-parent": run_again(ended(), fork=True), "build-pending": started(running=False),
    "build-running": started(wait=10), "auth-wrong-token-public-repo": ended(), "builds": ended(),
    "restart-before": ended("failure", legs=MATRIX), "restart": ended("failure"),
    "restart-fork": ended(), "restart-deploy": ended(), "restart-running": started(),
    "restart-no-push": ended(), "restart-anonymous": ended(), "restart-session-no-csrf": ended(),
    "restart-after-list": restarted(ended()), "cancel": started(), "cancel-no-push": started(),
    "cancel-finished": ended(), "cancel-pending": started(running=False), "cancel-unknown-step": started(),
    "queue": some_open, "queue-after": some_open, "user-feed": some_open, "user-feed-latest": some_open,
    "logs": ended(), "logs-anonymous-public": ended(), "logs-unknown-step": ended(), "ccmenu": ended(),
    "build-ran-failure": ended("failure", legs=(leg("", "clone", "build", StepPlan("test", exit_code=1)),)),
}  # fmt: skip
SCENES: dict[str, dict[str, Scene]] = {
    "drone-0.5": OLD | {
        "build-ran-cancel": cancelled(), "cancel-after": cancelled(reported=False),
        "build-ran-matrix": ended("failure", legs=(MATRIX[1], MATRIX[1])),
        "build-error-prepare": ended("error", after=0),
        "build-error-server-restart-was-pending": server_restarted(running=False),
        "build-error-server-restart-was-running": server_restarted(running=True),
        "restart-after-original": restarted(ended("failure", legs=MATRIX)), "logs-ran": ended("failure"),
        "user-feed-source-host-down": source_host_down, "user-repos-source-host-down": source_host_down,
    },
    "drone-0.8": OLD | {
        "build-ran-failure": ended("failure", legs=(leg(
            "", "clone", "build", StepPlan("test", exit_code=1), "deploy", StepPlan("notify", always=True)
        ),)),
        "build-ran-step-cancel": cancelled(), "build-ran-timeout": ended("timeout"),
        "build-ran-whole-build-kill": cancelled(whole=True), "cancel-after": cancelled(reported=False),
        "kill-after": cancelled(whole=True, reported=False), "build-blocked": blocked(**PULL),
        "build-declined": blocked(decline=True, **PULL), "build-error-config": ended("error", after=0),
        "restart-after-original": restarted(ended("failure", legs=MATRIX)), "restart-blocked": blocked(),
        "restart-declined": blocked(decline=True), "decline": blocked(**PULL),
        "decline-again": blocked(decline=True), "kill": started(), "kill-not-admin": started(),
        "kill-finished": ended(), "kill-pending": started(running=False), "logs-ran": ended(),
        "logs-unicode": ended(), "logs-by-name": ended(), "logs-parent-proc": ended(),
        "logs-skipped-step": ended("failure", legs=(leg(
            "", "clone", "build", StepPlan("test", exit_code=1), "deploy", StepPlan("notify", always=True)
        ),)),
        "queue-info": some_open, "queue-one-running-one-pending": some_open,
    },
    "drone-1.x": {
        "build-success": ended(), "latest": started(running=False), "latest-branch": ended(
            event="custom", branch="develop", by="adminuser"
        ),
        "auth-wrong-token-public-repo": started(running=False),
        "build-failure": ended("failure", legs=(leg(
            "build", "compile", StepPlan("test", exit_code=3), "report", StepPlan("notify", always=True)
        ),)),
        "build-failure-stages": ended("failure", legs=(
            leg("lint", "a"), leg("unit", StepPlan("b", exit_code=1)),
            leg("deploy", "c", after=("lint", "unit")),
        )),
        "build-error-config": lambda world: world.start_build(HELLO, outcome="error"),
        "build-pull-request": ended(event="pull_request", pull=3, commit=""),
        "build-tag": ended(event="tag"), "build-cron": ended(event="cron", cron="nightly"),
        "build-promote": run_again(ended(), event="promote", environment="production"),
        "build-rollback": run_again(ended(), event="rollback", environment="production"),
        "build-restarted": run_again(ended()), "restart-original-after": restarted(ended()),
        "build-custom": ended(event="custom", branch="develop", by="adminuser"),
        "build-step-failure-ignored": ended(
            legs=(leg("a", StepPlan("x", exit_code=1, ignored=True), "y"),)
        ),
        "build-waiting-on-dependencies": started(
            legs=(leg("first", "a"), leg("second", "b", after=("first",)))
        ),
        "build-running": started(legs=(leg("build", "compile", "after"),)),
        "build-cancelled": cancelled(after=0.5, legs=(leg("build", "compile", "after"),)),
        "build-cancelled-while-pending": cancelled(after=0),
        "build-overtaken": ended("skipped", running=False),
        "build-blocked": blocked(), "build-declined": blocked(decline=True),
        "build-approved": blocked(approve=True), "build-blocked-cancelled": blocked(cancel=True),
        "build-timeout": ended("timeout", after=3600, legs=(leg("build", "x"),)),
        "build-runner-lost": started(legs=(leg("build", "x"),)), "build-pending": started(running=False),
        "build-pending-no-runner": started(running=False, legs=(leg("arm", "x"),)),
        "builds-branch": ended(branch="develop"), "builds-mixed": some_open, "user-builds": some_open,
        "user-repos-latest": some_open, "incomplete": some_open, "incomplete-running": started(),
        "incomplete-blocked": blocked(), "queue": some_open, "queue-running": started(), "logs": ended(),
        "logs-unknown-step": ended(), "restart": ended(), "restart-anonymous": ended(), "promote": ended(),
        "promote-no-target": ended(), "rollback": ended(),
        "cancel": started(wait=0.5, legs=(leg("build", "compile", "after"),)),
        "cancel-pending": started(running=False), "cancel-ended": ended(), "cancel-blocked": blocked(),
        "restart-declined": blocked(decline=True), "approve": blocked(), "decline": blocked(),
        "latest-none": ended(), "incomplete-limit": started(), "queue-many": started(), "stats": started(),
    },
}  # fmt: skip
"""What a recording was taken of, where it was taken of a build."""

LEFT_OUT = {
    "drone-0.5": {
        "badge": "no picture", "ws-feed": "a stream", "build-skipped": "a status that 0.5 never writes",
        "logs-missing": "no log is ever lost", "cancel-whole-build": "compared as `info`: any unknown path",
    },
    "drone-0.8": {
        "badge": "no picture", "build-skipped": "a status that 0.8 never writes",
        "build-killed": "a status that 0.8 writes only as in kill-after",
        "logs-missing": "no log is ever lost", "stream-admin": "a stream", "stream-anonymous": "a stream",
        "restart-bad-config": "no pipeline file is kept", "build-failure-no-engine": "engines are always up",
        "restart-bad-config-after": "no pipeline file is kept",
    },
    "drone-1.x": {"stream": "a stream", "build-pull-request-synchronized": "of build-pull-request"},
}  # fmt: skip


def compared() -> Iterator[tuple[str, str]]:
    for system in SYSTEMS:
        for path in sorted((RECORDINGS / system).glob("*.json")):
            if path.stem not in LEFT_OUT[system] and not path.stem.startswith("webhook"):
                yield system, path.stem


@cache
def load(system: str, name: str) -> Any:
    return json.loads((RECORDINGS / system / f"{name}.json").read_text(encoding="utf-8"))


def world_for(system: str) -> World:
    """Repos and users as they were when the recordings were taken."""
    modern = system == "drone-1.x"
    world = World(SYSTEMS[system], clock=Clock(NOW), default_branch="main" if modern else "master")
    world.add_repo("octo/many", builds=58 if modern else 120)
    world.add_repo(HELLO)
    world.add_repo("octo/empty")
    world.add_repo("octo/dormant", active=False)
    if modern:
        world.add_repo("octo/gated", gated=True)
    else:
        world.add_repos(["load/r0000", "load/r0001", "load/r0002"], builds=30)
    world.add_repo("secret/vault", private=True, builds=2)
    world.add_repo("adminuser/demo", private=True, builds=3)
    world.add_user("writer")
    world.add_user("reader", push=False)
    world.add_user("outsider", repos=[])
    world.deny("secret/vault", "reader")
    return world


def ask(world: World, request: dict[str, Any], number: int) -> Answer:
    """The answer to the recorded request, asked about build `number` of octo/hello."""
    path, _, query = request["path"].partition("?")
    if number:
        path = re.sub(r"^/api/(repos|badges)/[^/]+/[^/]+", rf"/api/\1/{HELLO}", path)
        words = "builds" if world.traits.stages else "builds|logs"
        path = re.sub(rf"/({words})/(?!9999)\d+", rf"/\1/{number}", path)
    headers = {key.lower(): token_in(value) for key, value in request.get("headers", {}).items()}
    asked = Ask(request["method"], path, read_query(token_in(query).encode()), headers)
    with world.moment() as now:
        asked.now = now
        return ANSWER[world.dialect](world, asked)


def token_in(text: str) -> str:
    return re.sub(r"<TOKEN of (\w+)>", r"token-of-\1", text)


def role(row: dict[str, Any]) -> str:
    """Which of the contract's objects this is, by a key that no other has; empty: none of them."""
    for key, name in (
        ("visibility", "repo"), ("trusted", "repo"), ("full_name", "feed row"), ("step_id", "step"),
        ("kind", "stage"), ("trigger", "build"), ("enqueued_at", "build"), ("pid", "proc"), ("pos", "line"),
    ):  # fmt: skip
        if key in row:
            return "job" if "environment" in row else name
    return ""


def objects(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, list):
        for one in value:
            yield from objects(one)
    elif isinstance(value, dict):
        yield value
        for one in value.values():
            yield from objects(one)


@cache
def learned(system: str) -> dict[str, tuple[set[str], dict[str, set[type]]]]:
    """role → (keys that are always there, types of every key), in all recordings of a system."""
    found: dict[str, tuple[set[str], dict[str, set[type]]]] = {}
    if system != "drone-1.x":
        # Of a pull request: in the contract's list of a feed row's keys, but in no recorded row.
        found["feed row"] = ({"owner", "name", "full_name"}, {"title": {str}, "refspec": {str}})
    for path in (RECORDINGS / system).glob("*.json"):
        for row in objects(load(system, path.stem).get("body")):
            always, types = found.setdefault(role(row), (set(row), {}))
            if row:
                always &= set(row)
            for key, value in row.items():
                types.setdefault(key, set()).add(type(value))
    return found


def signs(value: Any) -> list[tuple[Any, ...]]:
    """What tells how a build and its parts ended, without how many there were of each."""
    told = {
        (role(row), row.get("status", row.get("state")), row.get("exit_code"), error_of(row))
        for row in objects(value)
        if role(row) in ("build", "job", "proc", "stage", "step")
    }
    return sorted(told, key=repr)


def error_of(row: dict[str, Any]) -> str:
    """The text of an error, where it is the server's and not a pipeline file's."""
    text = str(row.get("error", ""))
    return "yaml" if text.startswith("yaml") else text


def keys(value: Any) -> set[tuple[str, frozenset[str]]]:
    return {(role(row), frozenset(row)) for row in objects(value) if role(row) != "line" and not by_id(row)}


def by_id(row: dict[str, Any]) -> bool:
    """True for an object that is a table with ids for keys."""
    return all(key.isdecimal() for key in row)


@pytest.mark.parametrize(("system", "name"), list(compared()))
def test_answers_as_recorded(system: str, name: str) -> None:
    wanted = load(system, name)
    world = world_for(system)
    number = SCENES[system].get(name, nothing)(world)
    got = ask(world, wanted["request"], number)
    assert got.status == wanted["status"]
    assert got.type.lower() == wanted["headers"].get("Content-Type", "").lower()
    version = wanted["headers"].get("X-Drone-Version")
    assert dict(got.headers).get("X-Drone-Version") == version
    body = wanted["body"]
    if not got.type.startswith("application/json"):
        if isinstance(body, str) and len(body) < 100 and "xml" not in got.type and "<!DOCTYPE" not in body:
            assert got.body.decode() == body
        return
    made = json.loads(got.body)
    assert type(made) is type(body)
    for row in objects(made):
        always, types = learned(system)[role(row)]
        if role(row):
            assert always <= set(row) <= set(types), role(row)
        for key, value in row.items():
            assert type(value) in types[key], f"{role(row)}.{key} is {value!r}"
    if isinstance(body, list):
        assert bool(made) == bool(body)
        if number == 0:
            assert len(made) == wanted.get("rows_in_answer", len(made))
    else:
        assert keys(made) == keys(body)
        assert signs(made) == signs(body)


def test_everything_recorded_is_compared_or_named() -> None:
    for system, names in LEFT_OUT.items():
        assert not {name for name in names if not (RECORDINGS / system / f"{name}.json").exists()}
    assert len(list(compared())) > 250
