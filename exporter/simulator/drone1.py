"""Drone 1.x and 2.x on the wire: rows of builds and repos, and who may ask for them."""

from collections.abc import Callable
from typing import Any

from exporter.simulator.builds import BLOCKED, PENDING, RUNNING, WAITING, Build, Outcome
from exporter.simulator.repos import Repo
from exporter.simulator.steps import LegState, StepState, legs_at
from exporter.simulator.wire import JSON, TEXT, Answer, Ask, encode
from exporter.simulator.world import World

Row = dict[str, Any]
VERSION = "1.10.1"
UNAUTHORIZED = "Unauthorized"
NO_ROWS = "sql: no rows in result set"


def json(value: object, status: int = 200) -> Answer:
    return Answer(status, encode(value), JSON)


def error(status: int, message: str) -> Answer:
    return json({"message": message}, status)


def not_found(_: World, ask: Ask) -> Answer:
    """The answer to a path that is not known: under /api after the group's own check."""
    if ask.path.startswith("/api/"):
        return Answer(404, b"404 page not found\n", TEXT)
    return Answer(200, b"<!DOCTYPE html>\n<html><body></body></html>\n", "text/html; charset=utf-8")


def status_of(build: Build, now: float) -> str:
    phase = build.phase(now)
    if phase == BLOCKED:
        return PENDING
    if phase in (Outcome.CANCELLED, Outcome.TIMEOUT, Outcome.KILLED):
        return "killed"
    return str(phase)


def build_row(world: World, repo: Repo, build: Build, now: float) -> Row:
    """A build as it stands in a list."""
    pull, tag, cron = build.event == "pull_request", build.event == "tag", build.event == "cron"
    custom = build.event == "custom"
    declined = build.outcome is Outcome.DECLINED
    started, finished = build.started_at(now), build.finished_at(now)
    status = status_of(build, now)
    plain = build.phase(now) == Outcome.ERROR and started == finished
    host = f"{world.source_host}/{repo.name}"
    row: Row = {
        "id": build.id,
        "repo_id": repo.id,
        "trigger": "" if plain else build.by or ("@cron" if cron else "@hook"),
        "number": build.number,
    }
    if build.parent:
        row["parent"] = build.parent
    row["status"] = status
    if build.error and status == "error":
        row["error"] = build.error
    if pull:
        link = f"{host}/pulls/{build.ref.split('/')[2]}"
    else:
        link = "" if tag or cron or custom else f"{host}/compare/{build.before}...{build.commit}"
    row |= {
        "event": "promote" if build.event == "deployment" else build.event,
        "action": build.action,
        "link": link,
        "timestamp": 0,
    }
    if build.title:
        row["title"] = build.title
    name = build.ref.removeprefix("refs/tags/") if tag else build.branch
    row |= {
        "message": build.message,
        "before": "" if pull or tag or cron else build.commit if custom else build.before,
        "after": build.commit,
        "ref": build.ref,
        "source_repo": repo.name if pull else "",
        "source": build.source if pull else "" if cron else name,
        "target": name,
        "author_login": "" if cron or custom else build.person.login,
        "author_name": build.person.name,
        "author_email": build.person.email,
        "author_avatar": "",
        "sender": build.by if custom else "" if cron else build.person.login,
    }
    if build.cron:
        row["cron"] = build.cron
    if build.environment:
        row["deploy_to"] = build.environment
    over = build.ended(now)
    version = 1 if plain or not (started or over) else 2
    return row | {
        "started": 0 if declined else started,
        "finished": 0 if declined else finished,
        "created": int(build.created),
        "updated": started if started and not (over and started == finished) else int(build.created),
        "version": version + 1 if over and started < finished else version,
    }


def with_stages(world: World, repo: Repo, build: Build, now: float) -> Row:
    """The single build."""
    row = build_row(world, repo, build, now)
    if build.phase(now) == Outcome.ERROR and row["started"] == row["finished"]:
        return row
    stages = [stage_row(repo, build, i, leg, now) for i, leg in enumerate(legs_at(build, now), 1)]
    return row | {"stages": stages}


def stage_row(repo: Repo, build: Build, number: int, leg: LegState, now: float, *, steps: bool = True) -> Row:
    """One stage; steps appear once an agent has taken it."""
    begun = leg.started > 0 and leg.state != Outcome.SKIPPED
    killed = leg.state in (Outcome.CANCELLED, Outcome.TIMEOUT, Outcome.KILLED)
    state = {WAITING: "waiting_on_dependencies"}.get(leg.state, "killed" if killed else str(leg.state))
    stage = build.id * 8 + number
    row: Row = {
        "id": stage, "repo_id": repo.id, "build_id": build.id, "number": number, "name": leg.plan.name,
        "kind": "pipeline", "type": "docker", "status": state,
    }  # fmt: skip
    if leg.state == Outcome.ERROR:
        row["error"] = build.error
    row |= {"errignore": False, "exit_code": 137 if leg.state == Outcome.TIMEOUT else 0}
    if begun:
        row["machine"] = "runner-1"
    version = 1 if leg.state in (PENDING, WAITING, BLOCKED) else 3 if leg.state == RUNNING else 4
    row |= {
        "os": "linux", "arch": "amd64", "started": leg.started, "stopped": leg.stopped,
        "created": int(build.created), "updated": leg.started or int(build.created),
        "version": version if begun or version == 1 else 2, "on_success": True, "on_failure": False,
    }  # fmt: skip
    if leg.plan.after:
        row["depends_on"] = list(leg.plan.after)
    if begun and steps and leg.steps:
        row["steps"] = [_step(build, stage, i, step, leg, now) for i, step in enumerate(leg.steps, 1)]
    return row


def _step(build: Build, stage: int, number: int, step: StepState, leg: LegState, now: float) -> Row:
    state, code, started, stopped = str(step.state), step.exit_code, step.started, step.stopped
    if step.state in (Outcome.CANCELLED, Outcome.TIMEOUT, Outcome.KILLED):
        state = "killed"
        code = {Outcome.CANCELLED: 130, Outcome.TIMEOUT: 137}.get(Outcome(step.state), 0)
    elif step.state == Outcome.SKIPPED:
        code = 130 if leg.state == Outcome.CANCELLED else 0
        started = stopped = build.finished_at(now) or leg.stopped
    row: Row = {"id": stage * 16 + number, "step_id": stage, "number": number, "name": step.plan.name}
    row["status"] = state
    if step.plan.ignored:
        row["errignore"] = True
    row["exit_code"] = code
    if started:
        row["started"] = started
    if stopped:
        row["stopped"] = stopped
    return row | {"version": 1 if state == PENDING else 2 if state == RUNNING else 4}


def repo_row(world: World, repo: Repo) -> Row:
    """A repo without its newest build."""
    owner, _, name = repo.name.partition("/")
    host = f"{world.source_host}/{repo.name}"
    added = int(repo.added)
    return {
        "id": repo.id, "uid": str(repo.id), "user_id": 1 if repo.active else 0, "namespace": owner,
        "name": name, "slug": repo.name, "scm": "", "git_http_url": f"{host}.git",
        "git_ssh_url": f"git@git.example.com:{repo.name}.git", "link": host,
        "default_branch": repo.default_branch, "private": repo.private,
        "visibility": "private" if repo.private else "public", "active": repo.active,
        "config_path": ".drone.yml" if repo.active else "", "trusted": False, "protected": repo.gated,
        "ignore_forks": False, "ignore_pull_requests": False, "auto_cancel_pull_requests": False,
        "auto_cancel_pushes": False, "timeout": repo.timeout if repo.active else 0, "counter": repo.counter,
        "synced": added, "created": added, "updated": added, "version": 1 + repo.edits,
    }  # fmt: skip


# Who may

Plain = Callable[[World, Ask], Answer]


def signed_in(handler: Plain) -> Plain:
    def guarded(world: World, ask: Ask) -> Answer:
        return handler(world, ask) if ask.user else error(401, UNAUTHORIZED)

    return guarded


def admin(handler: Plain) -> Plain:
    def guarded(world: World, ask: Ask) -> Answer:
        if not ask.user:
            return error(401, UNAUTHORIZED)
        return handler(world, ask) if ask.user.admin else error(403, "Forbidden")

    return guarded


def licensed(handler: Plain) -> Plain:
    """Answers 501 in a community build."""

    def guarded(world: World, ask: Ask) -> Answer:
        return error(501, "Not Implemented") if world.community else handler(world, ask)

    return guarded


def on_repo(handler: Callable[[World, Ask, Repo], Answer], *, write: bool = False) -> Plain:
    """Finds the repo of the path and refuses who may not read (or write) it."""

    def guarded(world: World, ask: Ask) -> Answer:
        repo = world.repos.get("/".join(ask.parts[:2]))
        user = ask.user
        if user is None:
            readable = repo is not None and not repo.private and not write
            return handler(world, ask, repo) if readable and repo else error(401, UNAUTHORIZED)
        if repo is None:
            return error(404, "Not Found")
        if not user.admin:
            refused = repo.name in world.denied and user.login in world.denied[repo.name]
            own = world.has_rights(user, repo.name)
            if world.source_host_down or refused or (not own and (repo.private or write)):
                return error(404, "Not Found")
            if write and not user.push:
                return error(403, "Forbidden")
        return handler(world, ask, repo)

    return guarded


def on_build(handler: Callable[[World, Ask, Repo, Build], Answer], *, write: bool = False) -> Plain:
    """Finds the build of the path."""

    def guarded(world: World, ask: Ask, repo: Repo) -> Answer:
        number = ask.parts[2]
        if not number.isdecimal():
            return error(400, f'strconv.ParseInt: parsing "{number}": invalid syntax')
        build = repo.get(int(number))
        return error(404, NO_ROWS) if build is None else handler(world, ask, repo, build)

    return on_repo(guarded, write=write)
