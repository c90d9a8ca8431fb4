"""What each recording was taken of, made anew in a simulated world."""

import base64
from collections.abc import Callable
from typing import Any

from exporter.simulator import Clock, Leg, StepPlan, World

HELLO = "octo/hello"
NOW = 1_800_000_000.0

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
NO_CLONE = (
    "setup clone step failed: could not get latest release: Get "
    '"https://api.github.com/repos/woodpecker-ci/plugin-git/releases/latest": dial tcp: '
    "lookup api.github.com on 192.0.2.53:53: no such host"
)
MODERN = (leg("build", "compile", "test"),)


def ended(
    outcome: str = "success", *, legs: tuple[Leg, ...] = (), after: float = 60.0, later: float = 5.0,
    error: str = "", overtaken_by: int = 0, **what: Any,
) -> Scene:  # fmt: skip
    """A build that ran for `after` seconds, some time ago."""

    def scene(world: World) -> int:
        number = started(legs=legs, **what)(world)
        world.clock.advance(after)
        world.finish(
            HELLO, number, outcome, legs=legs or None, error=error, overtaken_by=overtaken_by
        )  # fmt: skip
        world.clock.advance(later)
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


def world_for(system: str, name: str = "") -> World:
    """Repos and users as they were when the recordings were taken."""
    if system == "woodpecker":
        return forge()
    if system == "abf":
        return distro(name)
    modern = system == "drone-1.x"
    world = World(
        "drone-1" if modern else system, clock=Clock(NOW), default_branch="main" if modern else "master"
    )
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


def forge() -> World:
    world = World("woodpecker", clock=Clock(NOW))
    for name in ("octo/hello", "octo/gated"):
        world.add_repo(name, gated=name == "octo/gated")
    world.add_repo("secret/vault", private=True, builds=2)
    world.add_repo("octo/empty")
    world.add_repo("octo/many", builds=60)
    return world


def distro(name: str) -> World:
    """ROSA's, or OpenMandriva's, with a project of somebody else's that is hidden."""
    world = World("abf", clock=Clock(NOW))
    world.openmandriva = name.startswith("om-")
    world.anonymous_access = not (name.startswith("om-private") or name in PRIVATE)
    world.add_repo(HELLO)
    world.add_repo("octo/libgreet", builds=12)
    world.add_repo("lin/hidden", private=True, builds=1)
    world.add_user("ada", repos=[HELLO, "octo/libgreet"])
    world.add_user("bob", push=False, repos=[HELLO, "octo/libgreet"])
    return world


# Woodpecker's


def no_rights(world: World) -> int:
    world.set_user(admin=False, push=False)
    return 0


def filtered(world: World) -> int:
    ended("failure", error="a linter's warning")(world)
    world.filtered_push(HELLO)
    world.clock.advance(5)
    return 0


def pulls_and_tags(world: World) -> int:
    for what in (PULL, {"event": "tag"}, {}):
        ended(**what)(world)
    return 0


def mixed(world: World) -> int:
    ended("failure", error="a linter's warning")(world)
    world.start_build(HELLO, outcome="error")
    pulls_and_tags(world)
    cancelled()(world)
    cancelled(after=0)(world)
    return 0


# ABF's


def somebody_elses(world: World) -> int:
    return world.repos["lin/hidden"].counter


def owned(world: World) -> int:
    """Some builds of ada's, the last of them open."""
    for _ in range(8):
        ended(by="ada")(world)
    started(by="ada")(world)
    return 0


def asked_to_publish(world: World) -> int:
    number = ended()(world)
    world.publish(HELLO, number, begins=world.clock.now() + 3)
    return number


def published(*, failed: bool = False, ended_too: bool = True) -> Scene:
    def scene(world: World) -> int:
        number = ended()(world)
        world.publish(HELLO, number)
        world.clock.advance(30)
        if ended_too:
            world.published(HELLO, number, failed=failed)
        return number

    return scene


def rejected(world: World) -> int:
    number = ended()(world)
    world.reject(HELLO, number)
    return number


def packages_lost(world: World) -> int:
    number = ended()(world)
    world.lose_packages(HELLO, number)
    return number


def requeued(world: World) -> int:
    number = started(wait=12)(world)
    world.requeue(HELLO, number)
    return number


def running_again(world: World) -> int:
    number = restarted(ended("failure", legs=CLASSIC_FAILED))(world)
    world.run(HELLO, number)
    return number


def contained(world: World) -> int:
    number = ended(variables={"build_rpm": "--define with_tests=1"})(world)
    world.make_container(HELLO, number)
    world.clock.advance(60)
    return number


def limited(spent: int, scene: Scene = nothing) -> Scene:
    def within(world: World) -> int:
        number = scene(world)
        world.hourly_limit = 3000
        hour = int(world.clock.now()) // 3600
        world.spent.update({(hour, "ada"): spent, (hour, ""): spent})
        return number

    return within


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
SCENES["woodpecker"] = {
    "approve": blocked(), "decline": blocked(), "cancel": started(), "cancel-blocked": blocked(),
    "cancel-ended": ended(), "cancel-pending": started(running=False), "feed-empty": no_rights,
    "latest": ended(), "logs": ended(after=6, later=0), "logs-unknown-step": ended(), "open": some_open,
    "open-blocked": blocked(), "open-running": started(), "queue": some_open, "queue-running": started(),
    "pipeline-agent-lost": started(legs=(leg("", "x"),)),
    "pipeline-agent-lost-later": started(legs=(leg("", "x"),), wait=36),
    "pipeline-approved": blocked(approve=True), "pipeline-blocked": blocked(),
    "pipeline-blocked-cancelled": blocked(cancel=True),
    "pipeline-cancel-just-after": cancelled(after=0.5, later=0.0, legs=(leg("", "compile", "after"),)),
    "pipeline-cancelled": cancelled(after=0.5, legs=(leg("", "compile", "after"),)),
    "pipeline-cancelled-while-pending": cancelled(after=0),
    "pipeline-clone-failed": ended("failure", error="a linter's warning", legs=(
        leg("", StepPlan("clone", broken=NO_CLONE), "x"),
    )),
    "pipeline-cron": ended(event="cron", cron="nightly"), "pipeline-declined": blocked(decline=True),
    "pipeline-error-config": lambda world: world.start_build(HELLO, outcome="error"),
    "pipeline-failure": ended("failure", legs=(
        leg("", "compile", StepPlan("test", exit_code=3), "report", StepPlan("notify", always=True)),
    )),
    "pipeline-manual": ended(event="custom", by="adminuser", variables={"A": "1"}),
    "pipeline-pending": started(running=False), "pipeline-pull-request": ended(**PULL),
    "pipeline-pull-request-closed": ended(**PULL | {"event": "pull_request_closed"}),
    "pipeline-restarted": run_again(ended()),
    "pipeline-running": started(legs=(leg("", "compile", "after"),)),
    "pipeline-step-failure-ignored": ended(legs=(leg("", StepPlan("x", exit_code=1, ignored=True), "y"),)),
    "pipeline-success": ended(), "pipeline-superseded": ended("skipped", running=False, overtaken_by=15),
    "pipeline-tag": ended(event="tag"), "pipeline-timeout": ended("timeout", legs=(leg("", "x"),)),
    "pipelines-after-filtered": filtered, "pipelines-event": pulls_and_tags, "pipelines-mixed": mixed,
    "restart": ended(), "restart-blocked": blocked(), "restart-original-after": restarted(ended()),
    "user-repos-with-pipelines": mixed,
}  # fmt: skip
SCENES["abf"] = {
    "rosa-cancel": started(), "rosa-cancel-refused": ended(), "rosa-cancel-forbidden": started(),
    "rosa-create-container": ended(), "rosa-forbidden": somebody_elses, "rosa-index": owned,
    "rosa-index-by-ids": ended(), "rosa-index-filtered": owned, "rosa-index-page-2": owned,
    "rosa-index-updated-since": owned, "rosa-not-found-canceling-removed": cancelled(after=0, later=3601),
    "rosa-project-index": owned, "rosa-publish": ended(), "rosa-publish-refused": started(),
    "rosa-reject-publish": ended(), "rosa-reject-refused": started(), "rosa-rerun-tests": ended(),
    "rosa-show-after-publish-answer": asked_to_publish, "rosa-show-auto-publishing": ended(publish="default"),
    "rosa-show-build-error": ended("failure", legs=CLASSIC_FAILED), "rosa-show-canceled": cancelled(),
    "rosa-show-canceling": cancelled(reported=False),
    "rosa-show-canceling-never-started": cancelled(after=0), "rosa-show-success": ended(),
    "rosa-show-failed-publish": published(failed=True), "rosa-show-published": published(),
    "rosa-show-publishing": published(ended_too=False), "rosa-show-rejected": rejected,
    "rosa-show-mass-build": started(running=False, cron="12.Jan-rosa2023.1"),
    "rosa-show-packages-fail": packages_lost, "rosa-show-pending": started(running=False),
    "rosa-show-requeued": requeued, "rosa-show-restarted": running_again, "rosa-show-started": started(),
    "rosa-show-tests-failed": ended("failure", legs=(leg("", "build", StepPlan("tests", exit_code=1)),)),
    "rosa-show-unpermitted-arch": ended("error", after=9),
    "rosa-show-waiting": started(running=False, intake=60.0), "rosa-show-with-packages-and-logs": contained,
    "rosa-unauthorized-show": ended(),
    "om-cancel": started(), "om-cancel-refused": ended(), "om-forbidden": somebody_elses, "om-index": owned,
    "om-index-anonymous": owned, "om-index-signed-in": owned, "om-private-index": owned,
    "om-index-with-rate-limit-headers": limited(0, scene=owned), "om-rate-limited": limited(3000),
    "om-rate-limited-anonymous": limited(3000), "om-publish": ended(), "om-show-anonymous": ended(),
    "om-show-build-error": ended("failure", legs=CLASSIC_FAILED), "om-show-canceled": cancelled(),
    "om-show-canceling": cancelled(reported=False),
    "om-show-mass-build": started(running=False, cron="12.Jan-cooker"),
    "om-show-no-commit-yet": started(running=False), "om-show-published": published(),
    "om-show-publishing": published(ended_too=False), "om-show-requeued": requeued,
    "om-show-success": ended(), "om-show-with-packages-and-logs": contained,
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
    "woodpecker": {"stream": "a stream, compared in test_simulator_streams"},
    "abf": {"rosa-not-modified": "compared in test_simulator_abf, with a mark of its own"},
}  # fmt: skip
UNCOMPARED: dict[str, tuple[str, ...]] = {
    "drone-0.5": (), "drone-0.8": (), "drone-1.x": (),
    "woodpecker": ("error", "place"),
    "abf": ("package", "log", "other build", "dependent", "row"),
}  # fmt: skip
"""Objects of which an answer has any number: their shape is compared with all that were recorded."""


def basic(name: str, password: str = "") -> dict[str, str]:
    return {"authorization": f"Basic {base64.b64encode(f'{name}:{password}'.encode()).decode()}"}


ANONYMOUS = (
    "rosa-unauthorized", "rosa-unauthorized-show", "rosa-token-parameter", "om-index-anonymous",
    "om-show-anonymous", "om-unauthorized", "om-private-unauthorized", "om-rate-limited-anonymous",
)  # fmt: skip
PRIVATE = ("om-unauthorized", "om-index-signed-in")
"""Taken with anonymous access switched off."""
ASKERS: dict[str, dict[str, str]] = {
    "": basic("token-of-ada"), **{name: {} for name in ANONYMOUS},
    "rosa-unauthorized-bad-password": basic("ada", "wrong"), "rosa-unauthorized-bad-token": basic("nobody"),
    "rosa-cancel-forbidden": basic("token-of-bob"), "rosa-create-forbidden": basic("token-of-bob"),
}  # fmt: skip
"""Who asked an ABF; the recordings leave that out."""
