"""Woodpecker 3.x on the wire: what each path answers."""

import base64

import msgspec

from exporter.simulator.builds import BLOCKED, PENDING, RUNNING, Build, Outcome
from exporter.simulator.repos import Repo
from exporter.simulator.wire import HTML, Answer, Ask, Routes, find_user, log_lines
from exporter.simulator.woodpecker import (
    VERSION,
    admin,
    json,
    on_pipeline,
    on_repo,
    repo_row,
    signed_in,
    status_of,
    text,
    with_workflows,
    workflow_rows,
)  # fmt: skip
from exporter.simulator.woodpecker_lists import (
    all_repos,
    builds_of,
    feed,
    open_pipelines,
    pipelines,
    queue,
    user_repos,
)  # fmt: skip
from exporter.simulator.world import World

LATE_LINES = 2
"""So many of a log's last lines come after the step's end."""
NO_STORE = "no-cache, no-store, max-age=0, must-revalidate, value"
PAGE = (
    b"<!DOCTYPE html>\n<html><head><title>Woodpecker</title></head><body><div id=app></div></body></html>\n"
)


def web_page(_: World, __: Ask) -> Answer:
    """The answer to any path that is not known."""
    return Answer(200, PAGE, HTML.replace("utf-8", "UTF-8"))


def user(_: World, ask: Ask) -> Answer:
    login = ask.user.login if ask.user else ""
    return json({
        "id": 1, "forge_id": 1, "forge_remote_id": "1", "login": login, "email": f"{login}@example.com",
        "avatar_url": f"https://git.example.com/avatars/{login}",
        "admin": bool(ask.user and ask.user.admin), "org_id": 1,
    })  # fmt: skip


def agents(_: World, ask: Ask) -> Answer:
    at = int(ask.now)
    return json([{
        "id": 1, "created": at - 3600, "updated": at, "name": "agent-1", "owner_id": -1, "token": "unread",
        "last_contact": at, "last_work": at, "platform": "linux/amd64", "backend": "local", "capacity": 2,
        "version": VERSION, "no_schedule": False, "custom_labels": None, "org_id": -1,
    }])  # fmt: skip


# One repo


def repo(world: World, _: Ask, place: Repo) -> Answer:
    return json(repo_row(world, place))


def latest(world: World, ask: Ask, place: Repo) -> Answer:
    branch = ask.query.get("branch") or place.default_branch
    for build in builds_of(place, None, ask.now):
        if build.event == "push" and build.branch == branch:
            return pipeline(world, ask, place, build)
    return Answer(404)


def create(world: World, ask: Ask, place: Repo) -> Answer:
    try:
        wanted = msgspec.json.decode(ask.body or b"{}", type=dict[str, object])
    except msgspec.DecodeError:
        return Answer(400)
    variables = wanted.get("variables")
    number = world.start_build(
        place.name, event="custom", branch=str(wanted.get("branch") or ""),
        by=ask.user.login if ask.user else "",
        variables=variables if isinstance(variables, dict) else None,
    )  # fmt: skip
    return pipeline(world, ask, *world.find(place.name, number))


# One pipeline


def pipeline(world: World, ask: Ask, place: Repo, build: Build) -> Answer:
    return json(with_workflows(world, place, build, ask.now))


def logs(world: World, ask: Ask, _: Repo, build: Build) -> Answer:
    """The lines of a step so far: one while it runs, all but the last ones just after its end."""
    plans = {
        str(step["id"]): step
        for workflow in workflow_rows(build, ask.now)
        for step in workflow["children"]
    }  # fmt: skip
    step = plans.get(ask.parts[2])
    if step is None:
        return Answer(404)
    lines = log_lines(step["name"], step["state"], step["exit_code"]) if step.get("started") else []
    if step["state"] == RUNNING:
        lines = lines[:1]
    elif ask.now < step.get("finished", 0) + world.log_delay:
        lines = lines[:-LATE_LINES]
    return json([
        {"id": step["id"] * 100 + i, "step_id": step["id"], "time": i, "line": i,
         "data": base64.b64encode(line.encode()).decode(), "type": 0}
        for i, line in enumerate(lines)
    ])  # fmt: skip


def restart(world: World, ask: Ask, place: Repo, build: Build) -> Answer:
    phase = build.phase(ask.now)
    if phase in (BLOCKED, Outcome.DECLINED):
        return text(400, f"cannot restart a pipeline with status {phase}".encode())
    number = world.restart(place.name, build.number)
    return pipeline(world, ask, *world.find(place.name, number))


def cancel(world: World, ask: Ask, place: Repo, build: Build) -> Answer:
    if build.phase(ask.now) not in (PENDING, RUNNING, BLOCKED):
        return text(400, b"Cannot cancel a non-running or non-pending or non-blocked pipeline")
    world.cancel(place.name, build.number, by=ask.user.login if ask.user else "")
    return Answer(204)


def review(world: World, ask: Ask, place: Repo, build: Build) -> Answer:
    verb = ask.path.rsplit("/", 1)[1]
    if build.phase(ask.now) != BLOCKED:
        return text(400, f"cannot {verb} a pipeline with status {status_of(build, ask.now)}".encode())
    login = ask.user.login if ask.user else ""
    (world.approve if verb == "approve" else world.decline)(place.name, build.number, by=login)
    return pipeline(world, ask, *world.find(place.name, build.number))


def delete(world: World, ask: Ask, place: Repo, build: Build) -> Answer:
    if ask.user is None or not ask.user.admin:
        return Answer(404)
    if not build.ended(ask.now):
        return text(422, b"Cannot delete pipeline with status pending or running")
    world.remove_build(place.name, build.number)
    return Answer(204)


# The server


def version(_: World, __: Ask) -> Answer:
    return json({"source": "https://github.com/woodpecker-ci/woodpecker", "version": VERSION})


def health(_: World, __: Ask) -> Answer:
    return Answer(204)


def metrics(_: World, __: Ask) -> Answer:
    return text(401, b"invalid or missing token")


_REPO = "/api/repos/{}"
_PIPELINE = f"{_REPO}/pipelines/{{}}"
ROUTES = Routes(
    (
        ("GET", "/version", version),
        ("GET", "/healthz", health),
        ("GET", "/metrics", metrics),
        ("GET", "/api/user", signed_in(user)),
        ("GET", "/api/user/repos", signed_in(user_repos)),
        ("GET", "/api/user/feed", signed_in(feed)),
        ("GET", "/api/repos", admin(all_repos)),
        ("GET", "/api/pipelines", admin(open_pipelines)),
        ("GET", "/api/queue/info", admin(queue)),
        ("GET", "/api/agents", admin(agents)),
        ("GET", "/api/repos/lookup/{}/{}", on_repo(repo)),
        ("GET", _REPO, on_repo(repo)),
        ("GET", f"{_REPO}/pipelines", on_repo(pipelines)),
        ("POST", f"{_REPO}/pipelines", on_repo(create, push=True)),
        ("GET", f"{_REPO}/pipelines/latest", on_repo(latest)),
        ("GET", _PIPELINE, on_pipeline(pipeline)),
        ("POST", _PIPELINE, on_pipeline(restart, push=True)),
        ("DELETE", _PIPELINE, on_pipeline(delete, push=True)),
        ("POST", f"{_PIPELINE}/cancel", on_pipeline(cancel, push=True)),
        ("POST", f"{_PIPELINE}/approve", on_pipeline(review, push=True)),
        ("POST", f"{_PIPELINE}/decline", on_pipeline(review, push=True)),
        ("GET", f"{_REPO}/logs/{{}}/{{}}", on_pipeline(logs)),
    )
)


def answer(world: World, ask: Ask) -> Answer:
    """What a Woodpecker server answers; any path it does not know is its web page."""
    ask.user = find_user(world, ask, csrf=True, bare=False)
    found = ROUTES.find(ask.method, ask.path)
    handler, route, ask.parts = found or (web_page, "*", ())
    made = handler(world, ask)
    made.route = route
    made.headers += [("Cache-Control", NO_STORE if found else "no-cache"), ("X-Woodpecker-Version", VERSION)]
    return made
