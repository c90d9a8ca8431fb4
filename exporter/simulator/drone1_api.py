"""Drone 1.x and 2.x on the wire: what each path answers."""

import math
from itertools import islice

from exporter.simulator.builds import BLOCKED, PENDING, RUNNING, Build, Outcome
from exporter.simulator.drone1 import (
    NO_ROWS,
    VERSION,
    Row,
    admin,
    build_row,
    error,
    json,
    licensed,
    not_found,
    on_build,
    on_repo,
    repo_row,
    signed_in,
    stage_row,
    status_of,
    with_stages,
)  # fmt: skip
from exporter.simulator.repos import Repo
from exporter.simulator.steps import legs_at
from exporter.simulator.wire import JSON, TEXT, Answer, Ask, Routes, encode, find_user, log_lines
from exporter.simulator.world import World

OPEN_ROWS = 50
FIGURES = "text/plain; version=0.0.4; charset=utf-8"


def user(_: World, ask: Ask) -> Answer:
    at = int(ask.now) - 3600
    return json({
        "id": 1, "login": ask.user.login if ask.user else "", "email": "", "machine": False,
        "admin": bool(ask.user and ask.user.admin), "active": True, "avatar": "", "syncing": False,
        "synced": at, "created": at, "updated": at, "last_login": 0,
    })  # fmt: skip


def user_repos(world: World, ask: Ask) -> Answer:
    if ask.user is None:
        return error(401, "Unauthorized")
    latest = ask.query.get("latest") == "true"
    key = ("repos", ask.user.login, latest)
    body = world.cache.get(key, world.edits, ask.now)
    if body is None:
        rows, until = [], world.names_until(ask.now)
        for name in world.names(ask.user, ask.now):
            kept = _repo_bytes(world, world.repos[name], ask.now, latest=latest)
            rows.append(kept[1])
            until = min(until, kept[0])
        body = world.cache.put(key, world.edits, until, b"[" + b",".join(rows) + b"]")
    return Answer(200, body, JSON)


def _repo_bytes(world: World, repo: Repo, now: float, *, latest: bool) -> tuple[float, bytes]:
    """(how long it holds, a repo with or without its newest build)."""
    key = "latest" if latest else "repo"
    kept = repo.rows.get(key)
    if kept is not None and now < kept[0]:
        return kept
    row, until = repo_row(world, repo), math.inf
    build = repo.newest() if latest else None
    if build is not None:
        row["build"] = build_row(world, repo, build, now)
        until = build.stable_until(now)
    repo.rows[key] = (until, encode(row))
    return repo.rows[key]


def user_builds(world: World, ask: Ask) -> Answer:
    if ask.user is None:
        return error(401, "Unauthorized")
    key = ("feed", ask.user.login)
    body = world.cache.get(key, world.edits, ask.now)
    if body is None:
        names = world.names(ask.user, ask.now)
        wanted = None if len(names) == len(world.repos) else set(names)
        newest = world.newest(lambda repo: wanted is None or repo.name in wanted)
        rows, until = [], world.names_until(ask.now)
        for repo, build in islice(newest, world.traits.feed_rows):
            rows.append(repo_row(world, repo) | {"build": build_row(world, repo, build, ask.now)})
            until = min(until, build.stable_until(ask.now))
        body = world.cache.put(key, world.edits, until, encode(rows))
    return Answer(200, body, JSON)


def all_repos(world: World, ask: Ask) -> Answer:
    page, size = _page(ask, limit=math.inf)
    rows = [repo_row(world, repo) for repo in world.repos.values() if repo.active]
    return json(rows[(page - 1) * size : page * size])


def incomplete(world: World, ask: Ask) -> Answer:
    rows = [
        repo_row(world, repo) | {"build": build_row(world, repo, build, ask.now)}
        for repo, build in reversed(world.open_builds(ask.now))
        if build.phase(ask.now) in (PENDING, RUNNING)
    ]
    return json(rows[:OPEN_ROWS])


def queue(world: World, ask: Ask) -> Answer:
    return json([
        stage_row(repo, build, i, leg, ask.now, steps=False)
        for repo, build in world.open_builds(ask.now)
        for i, leg in enumerate(legs_at(build, ask.now), 1)
        if leg.state in (PENDING, RUNNING)
    ])  # fmt: skip


def stats(world: World, ask: Ask) -> Answer:
    phases = [build.phase(ask.now) for _, build in world.open_builds(ask.now)]
    counts = {"pending": phases.count(PENDING), "running": phases.count(RUNNING)}
    platform = {"subscribers": 0, "os": "linux", "arch": "amd64", "variant": "", "kernel": ""} | counts
    return json({
        "users": {"total": len(world.users)},
        "repos": {"active": sum(repo.active for repo in world.repos.values())},
        "builds": {**counts, "total": sum(repo.counter for repo in world.repos.values())},
        "pipelines": [platform], "events": {"subscribers": 1}, "streams": {}, "watchers": None,
    })  # fmt: skip


def repo(world: World, ask: Ask, place: Repo) -> Answer:
    row = repo_row(world, place)
    if ask.user:
        push = ask.user.push or ask.user.admin
        row["permissions"] = {"read": True, "write": push, "admin": ask.user.admin}
    return json(row)


def builds(world: World, ask: Ask, place: Repo) -> Answer:
    page, size = _page(ask)
    branch = ask.query.get("branch", "")
    key = ("builds", place.id, page, size, branch)
    body = world.cache.get(key, place.edits, ask.now)
    if body is None:
        rows, until = [], math.inf
        for build in _pick(place, page, size, branch):
            rows.append(build_row(world, place, build, ask.now))
            until = min(until, build.stable_until(ask.now))
        body = world.cache.put(key, place.edits, until, encode(rows))
    return Answer(200, body, JSON)


def _pick(place: Repo, page: int, size: int, branch: str) -> list[Build]:
    first = (page - 1) * size
    if branch:
        ref = f"refs/heads/{branch}"
        found = (b for n in place.numbers() if (b := place.get(n)) is not None and b.ref == ref)
        return list(islice(found, first, first + size))
    return place.page(first, size)


def _page(ask: Ask, limit: float = 100) -> tuple[int, int]:
    """(page, size), with 1 and 25 for what makes no sense."""
    page = ask.query.get("page", "")
    size = ask.query.get("per_page", "")
    number = int(page) if page.isdecimal() else 1
    rows = int(size) if size.isdecimal() else 25
    return max(1, number), rows if 1 <= rows <= limit else 25


def build(world: World, ask: Ask, place: Repo, one: Build) -> Answer:
    return json(with_stages(world, place, one, ask.now))


def latest(world: World, ask: Ask, place: Repo) -> Answer:
    ref = ask.query.get("ref") or f"refs/heads/{ask.query.get('branch') or place.default_branch}"
    for number in place.numbers():
        one = place.get(number)
        if one is not None and one.ref == ref:
            return build(world, ask, place, one)
    return error(404, NO_ROWS)


def logs(_: World, ask: Ask, __: Repo, one: Build) -> Answer:
    for i, leg in enumerate(legs_at(one, ask.now), 1):
        for j, step in enumerate(leg.steps, 1):
            if ask.parts[3:] == (str(i), str(j)) and step.state not in (PENDING, RUNNING, Outcome.SKIPPED):
                lines = log_lines(step.plan.name, step.state, step.exit_code)
                return json(
                    [
                        {"pos": n, "out": f"{line}\n" if line else "", "time": n}
                        for n, line in enumerate(lines)
                    ]
                )
    return error(404, NO_ROWS)


def create(world: World, ask: Ask, place: Repo) -> Answer:
    login = ask.user.login if ask.user else ""
    number = world.start_build(
        place.name, event="custom", branch=ask.query.get("branch", ""), by=login, message="commit",
        commit=ask.query.get("commit", ""),
    )  # fmt: skip
    made = place.get(number)
    return json(build_row(world, place, made, ask.now) if made else None)


def restart(world: World, ask: Ask, place: Repo, one: Build) -> Answer:
    phase = one.phase(ask.now)
    if phase in (BLOCKED, Outcome.DECLINED):
        return error(400, f"cannot start a {phase} build")
    if "[ci skip]" in one.message:
        return json(None)
    number = world.restart(place.name, one.number, by=ask.user.login if ask.user else "")
    made = place.get(number)
    return json(build_row(world, place, made, ask.now) if made else None)


def deploy(world: World, ask: Ask, place: Repo, one: Build) -> Answer:
    target = ask.query.get("target", "")
    if not target:
        return error(400, "Missing target environment")
    number = world.restart(
        place.name, one.number, by=ask.user.login if ask.user else "",
        event=ask.path.rsplit("/", 1)[1], environment=target,
    )  # fmt: skip
    made = place.get(number)
    return json(build_row(world, place, made, ask.now) if made else None)


def cancel(world: World, ask: Ask, place: Repo, one: Build) -> Answer:
    if not one.ended(ask.now):
        world.cancel(place.name, one.number)
    again = place.get(one.number)
    return json(with_stages(world, place, again, ask.now) if again else None)


def review(world: World, ask: Ask, place: Repo, one: Build) -> Answer:
    if one.phase(ask.now) != BLOCKED:
        return error(400, f"cannot review a {status_of(one, ask.now)} build")
    verb = ask.path.split("/")[-2]
    login = ask.user.login if ask.user else ""
    (world.approve if verb == "approve" else world.decline)(place.name, one.number, by=login)
    return Answer(204)


def version(_: World, __: Ask) -> Answer:
    return json({"version": VERSION})


def health(_: World, __: Ask) -> Answer:
    return Answer(200, b"OK", TEXT)


def varz(world: World, _: Ask) -> Answer:
    rate = {"limit": 0, "remaining": 0, "reset": 0}
    kind = "foss" if world.community else "free"
    licence: Row = {"kind": kind, "seats": 0, "repos": 0, "expire_at": "0001-01-01T00:00:00Z"}
    return json({"scm": {"url": f"{world.source_host}/", "rate": rate}, "license": licence})


def metrics(world: World, ask: Ask) -> Answer:
    if ask.user is None or not ask.user.admin:
        return Answer(401 if ask.user is None else 403, b"Invalid or missing prometheus token\n", TEXT)
    if world.community:
        return Answer(200, b"", FIGURES)
    total = sum(repo.counter for repo in world.repos.values())
    head = "# HELP drone_build_count Total number of builds.\n# TYPE drone_build_count gauge\n"
    return Answer(200, f"{head}drone_build_count {total}\n".encode(), FIGURES)


_REPO = "/api/repos/{}/{}"
_BUILD = f"{_REPO}/builds/{{}}"
ROUTES = Routes(
    (
        ("GET", "/version", version),
        ("GET", "/healthz", health),
        ("GET", "/varz", varz),
        ("GET", "/metrics", metrics),
        ("GET", "/api/user", signed_in(user)),
        ("GET", "/api/user/repos", signed_in(user_repos)),
        ("GET", "/api/user/builds", signed_in(user_builds)),
        ("GET", "/api/repos", admin(all_repos)),
        ("GET", "/api/builds/incomplete", admin(licensed(incomplete))),
        ("GET", "/api/queue", admin(licensed(queue))),
        ("GET", "/api/system/stats", admin(licensed(stats))),
        ("GET", _REPO, on_repo(repo)),
        ("GET", f"{_REPO}/builds", on_repo(builds)),
        ("GET", f"{_REPO}/builds/latest", on_repo(latest)),
        ("GET", _BUILD, on_build(build)),
        ("POST", f"{_REPO}/builds", on_repo(create, write=True)),
        ("POST", _BUILD, on_build(restart, write=True)),
        ("DELETE", _BUILD, on_build(cancel, write=True)),
        ("POST", f"{_BUILD}/promote", licensed(on_build(deploy, write=True))),
        ("POST", f"{_BUILD}/rollback", licensed(on_build(deploy, write=True))),
        ("POST", f"{_BUILD}/approve/{{}}", on_build(review, write=True)),
        ("POST", f"{_BUILD}/decline/{{}}", on_build(review, write=True)),
        ("GET", f"{_BUILD}/logs/{{}}/{{}}", on_build(logs)),
    )
)


def answer(world: World, ask: Ask) -> Answer:
    """What a Drone 1.x server answers."""
    ask.user = find_user(world, ask, csrf=False)
    found = ROUTES.find(ask.method, ask.path)
    handler, route, ask.parts = found or (not_found, "*", ())
    made = handler(world, ask)
    made.route = route
    return made
