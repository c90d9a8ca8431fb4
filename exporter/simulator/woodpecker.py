"""Woodpecker 3.x on the wire: rows of pipelines and repos, and who may ask for them."""

import hashlib
from collections.abc import Callable
from typing import Any

from exporter.simulator.builds import BLOCKED, NEW, PENDING, RUNNING, WAITING, Build, Outcome
from exporter.simulator.history import DAY
from exporter.simulator.repos import Repo
from exporter.simulator.steps import LegState, StepState, legs_at
from exporter.simulator.wire import JSON_UTF8, TEXT, Answer, Ask, encode
from exporter.simulator.world import World

Row = dict[str, Any]
Plain = Callable[[World, Ask], Answer]
VERSION = "3.17.0"
DENIED = b"User not authorized"
EVENTS = {"custom": "manual", "rollback": "deployment"}
OPTIONAL = frozenset({
    "cancel_info", "workflows", "changed_files", "variables", "cron", "tag_title", "error", "agent_id",
})  # fmt: skip
"""Keys that are left out when empty."""
STEP_IDS = 64
"""Ids of a pipeline's steps: its own times this, plus the step's pid."""


def json(value: object, status: int = 200) -> Answer:
    return Answer(status, encode(value), JSON_UTF8)


def text(status: int, words: bytes) -> Answer:
    return Answer(status, words, TEXT)


def status_of(build: Build, now: float) -> str:
    """The word for a pipeline; a cancel and a time limit both read `killed`."""
    phase = build.phase(now)
    match phase:
        case Outcome.CANCELLED:
            return "killed" if build.begun or build.unreviewed else "canceled"
        case Outcome.SKIPPED:
            return "canceled"
        case Outcome.TIMEOUT:
            return "killed"
        case Outcome.KILLED:
            return "failure"
        case _:
            return str(phase)


def times_of(build: Build, now: float) -> tuple[int, int]:
    """(started, finished), each 0 when it has not happened or the server never says."""
    if build.outcome is Outcome.DECLINED:
        return 0, 0
    never = build.outcome in (Outcome.CANCELLED, Outcome.SKIPPED) and not build.begun
    return 0 if never else build.started_at(now), build.finished_at(now)


def cancel_info(build: Build, now: float) -> Row:
    """Who or what ended it; empty after a time limit."""
    if not build.ended(now) or build.outcome not in (Outcome.CANCELLED, Outcome.SKIPPED):
        return {}
    if build.overtaken_by or build.outcome is Outcome.SKIPPED:
        return {"superseded_by": build.overtaken_by or build.number + 1}
    return {"canceled_by_user": build.stopper or "adminuser"}


def errors_of(build: Build, now: float) -> list[Row] | None:
    """What is wrong with the pipeline file, or a warning about it."""
    if not build.error:
        return None
    if build.phase(now) == Outcome.ERROR:
        return [{"type": "compiler", "message": build.error, "is_warning": False, "data": None}]
    data = {"docs": "https://woodpecker-ci.org/docs/usage/linter", "field": "steps.x", "file": "woodpecker"}
    return [{"type": "bad_habit", "message": build.error, "is_warning": True, "data": data}]


def _names(build: Build) -> Row:
    """What a feed row has of a pipeline's commit too."""
    pull, cron, manual = (
        build.event.startswith("pull_request"),
        build.event == "cron",
        build.event == "custom",
    )
    login = "" if cron else build.by if manual else build.person.login
    email = f"{login}@example.com" if manual else build.person.email
    return {
        "event": EVENTS.get(build.event, build.event),
        "commit": build.commit,
        "branch": "" if build.event in ("tag", "release") else build.branch,
        "ref": build.branch if manual else build.ref,
        "refspec": f"{build.source}:{build.branch}" if pull else "",
        "title": build.title,
        "author": login,
        "author_avatar": f"https://git.example.com/avatars/{login}" if login else "",
        "author_email": "" if cron else email,
        "message": f"MANUAL PIPELINE @ {build.branch}" if manual else build.cron if cron else build.message,
    }


def pipeline_row(world: World, repo: Repo, build: Build, now: float) -> Row:
    """A pipeline as it stands in a list."""
    started, finished = times_of(build, now)
    names = _names(build)
    pull, tag = names["refspec"] != "", build.event in ("tag", "release")
    by_hand = build.event in ("cron", "custom")
    host = f"{world.source_host}/{repo.name}"
    if pull:
        link = f"{host}/pulls/{build.ref.split('/')[2]}"
    else:
        link = f"{host}/src/tag/{_tag(build)}" if tag else f"{host}/commit/{build.commit}"
    reviewed = build.reviewed is not None and now >= build.reviewed
    stamp = 0 if pull else int(build.created) + (int(DAY) if build.event == "cron" else 0)
    changed = min(build.changed_at(now), build.finished or now)
    row = {
        "id": build.id, "number": build.number, "author": names["author"], "parent": build.parent,
        "event": names["event"], "event_reason": None, "status": status_of(build, now),
        "errors": errors_of(build, now), "created": int(build.created), "updated": int(changed),
        "started": started, "finished": finished, "deploy_to": build.environment, "deploy_task": "",
        "commit": build.commit, "branch": names["branch"], "rerun_count": build.restarts,
        "ref": names["ref"], "refspec": names["refspec"], "author_avatar": names["author_avatar"],
        "forge_url": link, "reviewed_by": build.reviewer if reviewed else "",
        "reviewed": int(build.reviewed or 0) if reviewed else 0, "cancel_info": cancel_info(build, now),
        "changed_files": [] if tag or by_hand else ["README.md"], "variables": dict(build.variables),
        "cron": build.cron, "version": VERSION, "tag_title": _tag(build) if tag else "",
        "title": build.title, "message": names["message"], "timestamp": stamp,
        "sender": build.cron if build.event == "cron" else "" if by_hand else build.person.login,
        "author_email": names["author_email"],
    }  # fmt: skip
    return _without_empty(row)


def _tag(build: Build) -> str:
    return build.ref.removeprefix("refs/tags/")


def _without_empty(row: Row) -> Row:
    return {key: value for key, value in row.items() if value or key not in OPTIONAL}


def with_workflows(world: World, repo: Repo, build: Build, now: float) -> Row:
    """The single pipeline."""
    row = pipeline_row(world, repo, build, now)
    workflows = workflow_rows(build, now)
    return row | {"workflows": workflows} if workflows else row


def workflow_rows(build: Build, now: float) -> list[Row]:
    """Every workflow with its steps; none where the pipeline file is bad."""
    if build.phase(now) == Outcome.ERROR:
        return []
    rows = []
    pid = len(build.legs)
    for i, leg in enumerate(legs_at(build, now), 1):
        steps = leg.steps or tuple(StepState(step, leg.state) for step in leg.plan.steps)
        children = [_step(build, leg, step, pid + j, i, now) for j, step in enumerate(steps, 1)]
        pid += len(steps)
        rows.append(_workflow(build, leg, i, now) | {"children": children})
    return rows


def _workflow(build: Build, leg: LegState, pid: int, now: float) -> Row:
    started, finished, error = leg.started, leg.stopped, ""
    state = PENDING if leg.state in (NEW, WAITING) else str(leg.state)
    match leg.state:
        case Outcome.SKIPPED:
            started = finished = 0
            state = BLOCKED if build.unreviewed else state
        case Outcome.CANCELLED | Outcome.TIMEOUT:
            state, error = "killed", "Canceled"
            if build.settling(now):
                state, finished, error = RUNNING, 0, ""
        case Outcome.KILLED:
            state = "failure"
        case Outcome.FAILURE:
            error = next((step.plan.broken for step in leg.steps if step.plan.broken), "")
    row = {
        "id": build.id * 8 + pid, "pipeline_id": build.id, "pid": pid, "name": leg.plan.name or "woodpecker",
        "state": state, "error": error,
    }  # fmt: skip
    row |= {key: value for key, value in (("started", started), ("finished", finished)) if value}
    row["agent_id"] = 1 if started else 0
    return _without_empty(row)


def _step(build: Build, leg: LegState, step: StepState, pid: int, ppid: int, now: float) -> Row:
    code, error = step.exit_code, step.plan.broken if step.state == Outcome.FAILURE else ""
    state = str(leg.state if leg.state in (BLOCKED, Outcome.DECLINED) else step.state)
    cancelled = build.ended(now) and build.outcome in (Outcome.CANCELLED, Outcome.SKIPPED)
    match step.state:
        case Outcome.CANCELLED:
            state, error = "killed", "Canceled"
        case Outcome.TIMEOUT:
            state, error = "failure", "context deadline exceeded"
        case Outcome.KILLED:
            state, code = "failure", 137
        case Outcome.SKIPPED if cancelled:
            state = BLOCKED if build.unreviewed else "canceled"
    number = build.id * STEP_IDS + pid
    row: Row = {
        "id": number, "uuid": _uuid(number), "pipeline_id": build.id, "pid": pid, "ppid": ppid,
        "name": step.plan.name, "state": state, "error": error, "exit_code": code,
    }  # fmt: skip
    row |= {key: value for key, value in (("started", step.started), ("finished", step.stopped)) if value}
    row["type"] = "clone" if step.plan.name == "clone" else "commands"
    return _without_empty(row)


def _uuid(number: int) -> str:
    """26 characters that belong to this step."""
    return f"01{hashlib.md5(str(number).encode(), usedforsecurity=False).hexdigest()[:24]}".upper()


def feed_row(repo: Repo, build: Build | None, now: float) -> Row:
    """A repo with one pipeline of it, everything left out that is empty."""
    row: Row = {"repo_id": repo.id, "full_name": repo.name}
    if build is not None:
        started, finished = times_of(build, now)
        names = _names(build)
        row |= {
            "id": build.id, "number": build.number, "event": names.pop("event"),
            "status": status_of(build, now), "created": int(build.created), "started": started,
            "finished": finished, **names,
        }  # fmt: skip
    return {key: value for key, value in row.items() if value or key == "repo_id"}


def repo_row(world: World, repo: Repo) -> Row:
    """A repo without its newest pipeline."""
    owner, _, name = repo.name.partition("/")
    host = f"{world.source_host}/{repo.name}"
    return {
        "id": repo.id, "forge_id": 1, "forge_remote_id": str(repo.id), "org_id": 2, "owner": owner,
        "name": name, "full_name": repo.name, "avatar_url": f"https://git.example.com/avatars/{repo.id}",
        "forge_url": host, "clone_url": f"{host}.git",
        "clone_url_ssh": f"git@git.example.com:{repo.name}.git", "default_branch": repo.default_branch,
        "pr_enabled": True, "timeout": repo.timeout, "visibility": "private" if repo.private else "public",
        "private": repo.private, "trusted": {"network": False, "volumes": False, "security": False},
        "require_approval": "all_events" if repo.gated else "forks", "approval_allowed_users": None,
        "active": repo.active, "allow_pr": True, "allow_deploy": False, "config_file": "",
        "cancel_previous_pipeline_events": ["push", "pull_request"], "netrc_trusted": None,
        "config_extension_endpoint": "", "config_extension_exclusive": False,
        "config_extension_netrc": False, "registry_extension_endpoint": "",
        "registry_extension_netrc": False, "secret_extension_endpoint": "", "secret_extension_netrc": False,
    }  # fmt: skip


# Who may


def signed_in(handler: Plain) -> Plain:
    def guarded(world: World, ask: Ask) -> Answer:
        return handler(world, ask) if ask.user else text(401, DENIED)

    return guarded


def admin(handler: Plain) -> Plain:
    def guarded(world: World, ask: Ask) -> Answer:
        if not ask.user:
            return text(401, DENIED)
        return handler(world, ask) if ask.user.admin else text(403, DENIED)

    return guarded


def on_repo(handler: Callable[[World, Ask, Repo], Answer], *, push: bool = False) -> Plain:
    """Finds the repo of the path, by its id or by its name, and refuses who may not read (or push to) it."""

    def guarded(world: World, ask: Ask) -> Answer:
        if ask.path.startswith("/api/repos/lookup/"):
            repo = world.repos.get("/".join(ask.parts[:2]))
        elif not ask.parts[0].isdecimal():
            return Answer(400)
        else:
            repo = world.by_id.get(int(ask.parts[0]))
        user = ask.user
        if user is None:
            readable = repo is not None and not repo.private and not push
            return handler(world, ask, repo) if readable and repo else Answer(401)
        if repo is None:
            return Answer(404)
        if not user.admin:
            own = world.has_rights(user, repo.name) and not world.source_host_down
            refused = repo.name in world.denied and user.login in world.denied[repo.name]
            if world.source_host_down or refused or (not own and (repo.private or push)):
                return Answer(404)
            if push and not user.push:
                return Answer(404)
        return handler(world, ask, repo)

    return guarded


def on_pipeline(handler: Callable[[World, Ask, Repo, Build], Answer], *, push: bool = False) -> Plain:
    """Finds the pipeline of the path."""

    def guarded(world: World, ask: Ask, repo: Repo) -> Answer:
        number = ask.parts[1]
        if not number.isdecimal():
            return Answer(400)
        build = repo.get(int(number))
        return Answer(404) if build is None else handler(world, ask, repo, build)

    return on_repo(guarded, push=push)
