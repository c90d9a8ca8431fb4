"""Drone 0.8 on the wire: procs, pages of 50, approvals, restarts with a new number."""

from exporter.simulator.builds import BLOCKED, PENDING, RUNNING, Build, Outcome
from exporter.simulator.drone0 import (
    Dialect,
    Handlers,
    Row,
    avatar,
    base_repo,
    base_row,
    json,
    text,
    web_page,
)  # fmt: skip
from exporter.simulator.repos import Repo, User
from exporter.simulator.steps import LegState, StepState, legs_at
from exporter.simulator.wire import JSON, TEXT, Answer, Ask, Routes, encode, find_user, log_lines
from exporter.simulator.world import World

VERSION = "0.8.9"
ENTRY_KEYS = ("error", "start_time", "end_time", "machine", "platform", "environ", "children")
"""Keys of a proc that are left out when empty."""


def build_row(world: World, repo: Repo, build: Build, now: float) -> Row:
    row = base_row(world, repo, build, now)
    status = {"status": row["status"], "error": build.error if row["status"] == "error" else ""}
    head = {k: row.pop(k) for k in ("id", "number", "parent", "event")}
    reviewed = build.reviewed is not None and now >= build.reviewed
    row.pop("status")
    return (
        head
        | status
        | row
        | {
            "sender": build.by or build.person.login,
            "verified": True,
            "reviewed_by": build.reviewer if reviewed else "",
            "reviewed_at": int(build.reviewed or 0) if reviewed else 0,
        }
    )


def detail(_: World, __: Repo, build: Build, now: float) -> Row:
    procs = _procs(build, now)
    return {"procs": procs} if procs else {}


def _procs(build: Build, now: float) -> list[Row]:
    if build.phase(now) in (BLOCKED, Outcome.DECLINED, Outcome.ERROR):
        return []
    procs = []
    pid = len(build.legs)
    for i, leg in enumerate(legs_at(build, now), 1):
        children = []
        for step in leg.steps:
            pid += 1
            children.append(_step(build, pid, i, step, now))
        procs.append(_leg(build, i, leg, now) | ({"children": children} if children else {}))
    return procs


def _proc(build: Build, pid: int, ppid: int, name: str, state: str, code: int, **more: object) -> Row:
    row: Row = {
        "id": build.id * 20 + pid, "build_id": build.id, "pid": pid, "ppid": ppid, "pgid": pid, "name": name,
        "state": state, "exit_code": code, **more,
    }  # fmt: skip
    return {key: value for key, value in row.items() if value or key not in ENTRY_KEYS}


def _leg(build: Build, pid: int, leg: LegState, now: float) -> Row:
    state, code, error = str(leg.state), 0, ""
    if leg.state in (Outcome.CANCELLED, Outcome.TIMEOUT):
        state, code, error = "failure", 137 if leg.state == Outcome.CANCELLED else 1, "Cancelled"
        if build.settling(now):
            state, error = "killed", ""
    elif leg.state == Outcome.FAILURE:
        code = next((s.exit_code for s in leg.steps if s.plan.bad and s.exit_code), 1)
    elif leg.state == Outcome.KILLED:
        state, code = "failure", 137
    return _proc(
        build, pid, 0, "", state, code, error=error, start_time=leg.started, end_time=leg.stopped,
        machine="agent-1" if leg.started else "", environ=dict(leg.plan.environ),
    )  # fmt: skip


def _step(build: Build, pid: int, ppid: int, step: StepState, now: float) -> Row:
    state, code, started, stopped = str(step.state), step.exit_code, step.started, step.stopped
    if step.state in (Outcome.CANCELLED, Outcome.TIMEOUT):
        state = "success"
        if build.settling(now):
            state, code, stopped = ("killed", 137, stopped) if build.whole else (RUNNING, 0, 0)
    elif step.state == Outcome.KILLED:
        code = 137
    elif step.state == Outcome.SKIPPED and build.whole:
        state, code, started = "killed", 137, build.finished_at(now)
        stopped = started
    elif step.state == Outcome.SKIPPED and build.settling(now):
        state = PENDING
    return _proc(
        build, pid, ppid, step.plan.name, state, code, start_time=started, end_time=stopped,
        machine="agent-1" if started and not (build.whole and state == "killed") else "",
    )  # fmt: skip


def repo_row(world: World, repo: Repo) -> Row:
    return base_repo(world, repo) | {
        "visibility": "private" if repo.private else "public", "private": repo.private, "trusted": False,
        "gated": repo.gated, "active": repo.active, "allow_pr": True, "allow_push": True,
        "allow_deploys": True, "allow_tags": True, "last_build": repo.counter, "config_file": ".drone.yml",
    }  # fmt: skip


HANDLERS = Handlers(Dialect(build_row, detail, repo_row, refused=404))


def user(_world: World, ask: Ask, who: User) -> Answer:
    row: Row = {
        "id": 1, "login": who.login, "email": f"{who.login}@example.com", "avatar_url": avatar(who.login),
        "active": True, "synced": int(ask.now) - 60,
    }  # fmt: skip
    return json(row | {"admin": True} if who.admin else row)


def repos(world: World, ask: Ask, who: User) -> Answer:
    everything = ask.query.get("all") == "true"
    rows = []
    for name in world.names(who, ask.now):
        repo = world.repos[name]
        if repo.active or everything:
            kept = repo.rows.get("repo")
            if kept is None:
                kept = repo.rows["repo"] = (0.0, encode(repo_row(world, repo)))
            rows.append(kept[1])
    return Answer(200, b"[" + b",".join(rows) + b"]", "application/json; charset=utf-8")


def builds(world: World, ask: Ask, repo: Repo) -> Answer:
    page = ask.query.get("page", "")
    if page and not page.lstrip("-").isdecimal():
        return Answer(400)
    if not repo.active:
        return json([])
    return HANDLERS.builds(world, ask, repo, int(page or 1))


def logs(_world: World, ask: Ask, _repo: Repo, build: Build) -> Answer:
    pid = ask.parts[3]
    name = ask.parts[4] if len(ask.parts) > 4 else ""
    at = len(build.legs)
    for i, leg in enumerate(legs_at(build, ask.now), 1):
        for step in leg.steps:
            at += 1
            wanted = (pid == str(i) and name == step.plan.name) if name else pid == str(at)
            if wanted and step.state not in (PENDING, RUNNING, Outcome.SKIPPED):
                return Answer(200, encode(_lines(step)), JSON)
    return Answer(404)


def _lines(step: StepState) -> list[Row]:
    rows: list[Row] = []
    for i, line in enumerate(log_lines(step.plan.name, step.state, step.exit_code)):
        row: Row = {"proc": step.plan.name, "pos": i, "out": line + "\n"}
        rows.append(row | {"time": i} if i else row)
    return rows


def restart(world: World, ask: Ask, repo: Repo, build: Build) -> Answer:
    phase = build.phase(ask.now)
    if phase in (BLOCKED, Outcome.DECLINED):
        return text(500, f"cannot restart a build with status {phase}".encode())
    number = world.restart(
        repo.name, build.number, by=ask.user.login if ask.user else "",
        event=ask.query.get("event", ""), environment=ask.query.get("deploy_to", ""),
    )  # fmt: skip
    again = repo.get(number)
    if again is None:
        return Answer(404)
    flat: list[Row] = []
    for leg in _procs(again, ask.now):
        flat += [leg, *leg.pop("children", [])]
    flat.sort(key=lambda proc: int(proc["pid"]))
    return json(build_row(world, repo, again, ask.now) | {"procs": flat}, 202)


def cancel(world: World, ask: Ask, repo: Repo, build: Build) -> Answer:
    legs = legs_at(build, ask.now)
    pid = ask.parts[3]
    if not pid.isdecimal() or not 1 <= int(pid) <= len(legs) + sum(len(leg.steps) for leg in legs):
        return Answer(404)
    if int(pid) > len(legs) or legs[int(pid) - 1].state != RUNNING:
        return text(400, b"Cannot cancel a non-running build")
    world.cancel(repo.name, build.number)
    return Answer(204, type=TEXT)


def kill(world: World, ask: Ask, repo: Repo, build: Build) -> Answer:
    if ask.user is None or not ask.user.admin:
        return text(403, b"User not authorized")
    if build.phase(ask.now) != RUNNING:
        return text(400, b"Cannot force cancel a non-running build")
    world.cancel(repo.name, build.number, whole=True)
    return Answer(204, type=TEXT)


def review(world: World, ask: Ask, repo: Repo, build: Build) -> Answer:
    verb = ask.path.rsplit("/", 1)[1]
    phase = build.phase(ask.now)
    if phase != BLOCKED:
        return text(500, f"cannot {verb} a build with status {phase}".encode())
    login = ask.user.login if ask.user else ""
    (world.approve if verb == "approve" else world.decline)(repo.name, build.number, by=login)
    again = repo.get(build.number) or build
    return json(build_row(world, repo, again, ask.now))


def queue_info(world: World, ask: Ask) -> Answer:
    tasks: dict[str, list[Row]] = {PENDING: [], RUNNING: []}
    for _, build in world.open_builds(ask.now):
        phase = build.phase(ask.now)
        if phase in tasks:
            labels = {"platform": "linux/amd64"}
            tasks[phase].append({"id": str(build.id * 20 + 1), "data": "e30=", "labels": labels})
    stats = {
        "worker_count": 0, "pending_count": len(tasks[PENDING]), "running_count": len(tasks[RUNNING]),
        "completed_count": 0,
    }  # fmt: skip
    return json({"pending": tasks[PENDING] or None, "running": tasks[RUNNING] or None, "stats": stats})


def version(_: World, __: Ask) -> Answer:
    return json({"source": "https://github.com/drone/drone", "version": VERSION})


def health(_: World, __: Ask) -> Answer:
    return Answer(200, type=TEXT)


def metrics(_: World, __: Ask) -> Answer:
    figures = b"# HELP go_goroutines Number of goroutines.\n# TYPE go_goroutines gauge\ngo_goroutines 8\n"
    return Answer(200, figures, "text/plain; version=0.0.4")


_REPO = "/api/repos/{}/{}"
_BUILD = f"{_REPO}/builds/{{}}"
ROUTES = Routes(
    (
        ("GET", "/version", version),
        ("GET", "/healthz", health),
        ("GET", "/metrics", metrics),
        ("GET", "/api/user", HANDLERS.signed_in(user)),
        ("GET", "/api/user/feed", HANDLERS.signed_in(HANDLERS.feed)),
        ("GET", "/api/user/repos", HANDLERS.signed_in(repos)),
        ("GET", "/api/builds", HANDLERS.admin(HANDLERS.running)),
        ("GET", "/api/info/queue", HANDLERS.admin(queue_info)),
        ("GET", _REPO, HANDLERS.on_repo(HANDLERS.repo)),
        ("GET", f"{_REPO}/builds", HANDLERS.on_repo(builds)),
        ("GET", f"{_REPO}/builds/latest", HANDLERS.on_repo(HANDLERS.latest_build)),
        ("GET", _BUILD, HANDLERS.on_build(HANDLERS.build, missing=500)),
        ("POST", _BUILD, HANDLERS.on_build(restart, missing=404, push=True)),
        ("POST", f"{_BUILD}/approve", HANDLERS.on_build(review, missing=404, push=True)),
        ("POST", f"{_BUILD}/decline", HANDLERS.on_build(review, missing=404, push=True)),
        ("DELETE", _BUILD, HANDLERS.on_build(kill, missing=404)),
        ("DELETE", f"{_BUILD}/{{}}", HANDLERS.on_build(cancel, missing=404, push=True)),
        ("GET", f"{_REPO}/logs/{{}}/{{}}", HANDLERS.on_build(logs, missing=404)),
        ("GET", f"{_REPO}/logs/{{}}/{{}}/{{}}", HANDLERS.on_build(logs, missing=404)),
        ("GET", "/api/badges/{}/{}/cc.xml", HANDLERS.on_repo(HANDLERS.cc_menu)),
    )
)


def answer(world: World, ask: Ask) -> Answer:
    """What a Drone 0.8 server answers; any path it does not know is its web page."""
    ask.user = find_user(world, ask, csrf=True)
    found = ROUTES.find(ask.method, ask.path)
    handler, route, ask.parts = found or (web_page, "*", ())
    made = handler(world, ask)
    made.route = route
    made.headers.append(("X-Drone-Version", VERSION))
    return made
