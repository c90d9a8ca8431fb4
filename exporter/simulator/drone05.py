"""Drone 0.5 on the wire: jobs, the newest 50 builds, restarts in place."""

from exporter.simulator.builds import BLOCKED, PENDING, RUNNING, Build, Outcome
from exporter.simulator.drone0 import (
    Dialect,
    Handlers,
    Row,
    avatar,
    base_repo,
    base_row,
    json,
    names,
    text,
    web_page,
)  # fmt: skip
from exporter.simulator.repos import Repo, User
from exporter.simulator.steps import LegState, legs_at
from exporter.simulator.wire import JSON, Answer, Ask, Routes, encode, find_user, log_lines
from exporter.simulator.world import World

VERSION = "0.5.0+dev"
STOPPED = {
    Outcome.CANCELLED: "termination request received, build cancelled",
    Outcome.TIMEOUT: "maximum time limit exceeded, build cancelled",
}


def build_row(world: World, repo: Repo, build: Build, now: float) -> Row:
    row = base_row(world, repo, build, now)
    if len(build.legs) > 1 and row["started_at"]:
        row["started_at"] = max(leg.started for leg in legs_at(build, now, in_turn=True))
    return row


def detail(_: World, __: Repo, build: Build, now: float) -> Row:
    legs = legs_at(build, now, in_turn=True)
    return {"jobs": [_job(build, i, leg, now) for i, leg in enumerate(legs, 1)]}


def _job(build: Build, number: int, leg: LegState, now: float) -> Row:
    status, code, error = str(leg.state), 0, ""
    if leg.state in STOPPED:
        status, code, error = "failure", 255, STOPPED[Outcome(leg.state)]
        if build.settling(now):
            status, code, error = "killed", 137, ""
    elif leg.state == Outcome.FAILURE:
        code = next((s.exit_code for s in leg.steps if s.plan.bad and s.exit_code), 1)
    elif leg.state == Outcome.KILLED:
        code = 137
    elif leg.state == Outcome.ERROR:
        code, error = 255, build.error
    elif leg.state == Outcome.LOST:
        status = "error"
    started = leg.started or (build.started_at(now) if leg.state == Outcome.LOST else 0)
    return {
        "id": build.id * 4 + number,
        "number": number,
        "error": error,
        "status": PENDING if status in ("waiting", BLOCKED) else status,
        "exit_code": code,
        "enqueued_at": int(build.queued),
        "started_at": started,
        "finished_at": leg.stopped,
        "environment": dict(leg.plan.environ),
    }


def repo_row(world: World, repo: Repo) -> Row:
    if not repo.active:
        row = names(repo) | {"avatar_url": avatar(repo.name.split("/")[0])}
    else:
        row = base_repo(world, repo)
    if repo.private:
        row["private"] = True
    on = repo.active
    return row | {
        "trusted": False, "allow_pr": on, "allow_push": on, "allow_deploys": on, "allow_tags": on,
    }  # fmt: skip


HANDLERS = Handlers(Dialect(build_row, detail, repo_row, refused=500))


def user(_world: World, _ask: Ask, who: User) -> Answer:
    row: Row = {
        "id": 1, "login": who.login, "email": f"{who.login}@example.com", "avatar_url": avatar(who.login),
        "active": True,
    }  # fmt: skip
    return json(row | {"admin": True} if who.admin else row)


def feed(world: World, ask: Ask, who: User) -> Answer:
    return _host_down() if world.source_host_down else HANDLERS.feed(world, ask, who)


def agents(_world: World, _ask: Ask) -> Answer:
    return json([])


def repos(world: World, ask: Ask, who: User) -> Answer:
    if world.source_host_down:
        return _host_down()
    everything = ask.query.get("all") == "true"
    listed = [world.repos[name] for name in world.names(who, ask.now)]
    rows = [repo_row(world, repo) for repo in listed if repo.active]
    if everything:
        rows += [repo_row(world, repo) for repo in listed if not repo.active]
    return json(rows or None)


def _host_down() -> Answer:
    words = b'Error fetching repository list. Get "http://git.example.com/api/v1/user/repos": dial tcp'
    return text(500, words + b" git.example.com: connect: connection refused")


def builds(world: World, ask: Ask, repo: Repo) -> Answer:
    return HANDLERS.builds(world, ask, repo)


def logs(_world: World, ask: Ask, _repo: Repo, build: Build) -> Answer:
    legs = legs_at(build, ask.now, in_turn=True)
    job = ask.parts[3]
    if not job.isdecimal() or not 1 <= int(job) <= len(legs):
        return Answer(404)
    leg = legs[int(job) - 1]
    if leg.state in (PENDING, RUNNING, Outcome.ERROR, Outcome.SKIPPED, Outcome.LOST):
        return Answer(404)
    lines: list[Row] = []
    for step in leg.steps:
        if step.state in (PENDING, Outcome.SKIPPED):
            continue
        for i, line in enumerate(log_lines(step.plan.name, step.state, step.exit_code)):
            row: Row = {"proc": step.plan.name, "time": i, "pos": i, "out": line}
            lines.append({k: v for k, v in row.items() if v or k in ("proc", "pos")})
        if step.state in (Outcome.SUCCESS, Outcome.FAILURE):
            lines.append({"proc": step.plan.name, "type": 2, "pos": 0, "out": str(step.exit_code)})
    return Answer(200, encode([*lines, {}]), JSON)


def restart(world: World, ask: Ask, repo: Repo, build: Build) -> Answer:
    if not build.ended(ask.now):
        return text(409, b"Cannot re-start a started build")
    number = world.restart(
        repo.name, build.number, by=ask.user.login if ask.user else "",
        fork=ask.query.get("fork") == "true", event=ask.query.get("event", ""),
        environment=ask.query.get("deploy_to", ""),
    )  # fmt: skip
    again = repo.get(number)
    return json(build_row(world, repo, again, ask.now) if again else None, 202)


def cancel(world: World, ask: Ask, repo: Repo, build: Build) -> Answer:
    legs = legs_at(build, ask.now, in_turn=True)
    job = ask.parts[3]
    if not job.isdecimal() or not 1 <= int(job) <= len(legs):
        return Answer(404)
    if legs[int(job) - 1].state != RUNNING:
        return text(400, b"Cannot cancel a non-running build")
    world.cancel(repo.name, build.number)
    return Answer(204, type="text/plain; charset=utf-8")


_REPO = "/api/repos/{}/{}"
ROUTES = Routes(
    (
        ("GET", "/api/user", HANDLERS.signed_in(user)),
        ("GET", "/api/user/feed", HANDLERS.signed_in(feed)),
        ("GET", "/api/user/repos", HANDLERS.signed_in(repos)),
        ("GET", "/api/builds", HANDLERS.admin(HANDLERS.running)),
        ("GET", "/api/agents", HANDLERS.admin(agents)),
        ("GET", _REPO, HANDLERS.on_repo(HANDLERS.repo)),
        ("GET", f"{_REPO}/builds", HANDLERS.on_repo(builds)),
        ("GET", f"{_REPO}/builds/latest", HANDLERS.on_repo(HANDLERS.latest_build)),
        ("GET", f"{_REPO}/builds/{{}}", HANDLERS.on_build(HANDLERS.build, missing=500)),
        ("POST", f"{_REPO}/builds/{{}}", HANDLERS.on_build(restart, missing=404, push=True)),
        ("DELETE", f"{_REPO}/builds/{{}}/{{}}", HANDLERS.on_build(cancel, missing=404, push=True)),
        ("GET", f"{_REPO}/logs/{{}}/{{}}", HANDLERS.on_build(logs, missing=404)),
        ("GET", "/api/badges/{}/{}/cc.xml", HANDLERS.on_repo(HANDLERS.cc_menu)),
    )
)


def answer(world: World, ask: Ask) -> Answer:
    """What a Drone 0.5 server answers; any path it does not know is its web page."""
    ask.user = find_user(world, ask, csrf=True)
    found = ROUTES.find(ask.method, ask.path)
    handler, route, ask.parts = found or (web_page, "*", ())
    made = handler(world, ask)
    made.route = route
    made.headers.append(("X-Drone-Version", VERSION))
    return made
