"""Woodpecker 3.x on the wire: feeds, lists and the queue."""

import math
from collections.abc import Callable, Iterator
from datetime import datetime
from itertools import islice

from exporter.simulator.builds import PENDING, RUNNING, WAITING, Build
from exporter.simulator.repos import Repo
from exporter.simulator.steps import legs_at
from exporter.simulator.wire import JSON_UTF8, Answer, Ask, encode
from exporter.simulator.woodpecker import Row, feed_row, json, pipeline_row, repo_row
from exporter.simulator.world import World

PAGE_SIZE = 50


def _own(world: World, ask: Ask) -> list[Repo]:
    """The active repos on which the user has push or admin right, by full name."""
    if ask.user is None or not (ask.user.push or ask.user.admin):
        return []
    repos = (world.repos[name] for name in world.names(ask.user, ask.now))
    return [repo for repo in repos if repo.active]


def _kept(
    world: World, ask: Ask, kind: str, row: Callable[[World, Repo, Build | None, float], Row]
) -> Answer:
    """One row for each of the user's repos, rendered while it holds."""
    key = (kind, ask.user.login if ask.user else "")
    body = world.cache.get(key, world.edits, ask.now)
    if body is None:
        rows, until = [], world.names_until(ask.now)
        for repo in _own(world, ask):
            kept = repo.rows.get(kind)
            if kept is None or ask.now >= kept[0]:
                build = repo.newest()
                holds = build.stable_until(ask.now) if build else math.inf
                kept = repo.rows[kind] = (holds, encode(row(world, repo, build, ask.now)))
            rows.append(kept[1])
            until = min(until, kept[0])
        body = world.cache.put(key, world.edits, until, b"[" + b",".join(rows) + b"]")
    return Answer(200, body, JSON_UTF8)


def user_repos(world: World, ask: Ask) -> Answer:
    def row(world: World, repo: Repo, build: Build | None, now: float) -> Row:
        newest = {"last_pipeline": pipeline_row(world, repo, build, now)} if build else {}
        return repo_row(world, repo) | newest

    return _kept(world, ask, "repos", row)


def feed(world: World, ask: Ask) -> Answer:
    if ask.query.get("latest") == "true":
        return _kept(world, ask, "latest", lambda _, repo, build, now: feed_row(repo, build, now))
    key = ("feed", ask.user.login if ask.user else "")
    body = world.cache.get(key, world.edits, ask.now)
    if body is None:
        wanted = {repo.id for repo in _own(world, ask)}
        newest = world.newest(lambda repo: repo.id in wanted) if wanted else iter(())
        rows, until = [], world.names_until(ask.now)
        for repo, build in islice(newest, world.traits.feed_rows):
            rows.append(feed_row(repo, build, ask.now))
            until = min(until, build.stable_until(ask.now))
        body = world.cache.put(key, world.edits, until, encode(rows or None))
    return Answer(200, body, JSON_UTF8)


def all_repos(world: World, ask: Ask) -> Answer:
    page, size = _page(ask)
    active = ask.query.get("active") == "true"
    names = sorted(name for name, repo in world.repos.items() if repo.active or not active)
    return json([repo_row(world, world.repos[name]) for name in names[(page - 1) * size : page * size]])


def open_pipelines(world: World, ask: Ask) -> Answer:
    return json([
        feed_row(repo, build, ask.now)
        for repo, build in world.open_builds(ask.now)
        if build.phase(ask.now) in (PENDING, RUNNING)
    ])  # fmt: skip


def queue(world: World, ask: Ask) -> Answer:
    tasks: dict[str, list[Row]] = {PENDING: [], "waiting_on_deps": [], RUNNING: []}
    for repo, build in world.open_builds(ask.now):
        if build.phase(ask.now) not in (PENDING, RUNNING):
            continue
        for i, leg in enumerate(legs_at(build, ask.now), 1):
            kind = "waiting_on_deps" if leg.plan.after else str(leg.state)
            if leg.state not in (PENDING, WAITING, RUNNING):
                continue
            tasks[kind].append({
                "id": str(build.id * 8 + i), "pid": i, "name": leg.plan.name or "woodpecker",
                "labels": _labels(repo, build), "dependencies": list(leg.plan.after) or None,
                "run_on": None, "dep_status": {}, "agent_id": 1 if kind == RUNNING else 0,
                "pipeline_id": build.id, "repo_id": repo.id, "concurrency_limit": 0, "concurrency_group": "",
                "created": int(build.created), "pipeline_number": build.number,
                "agent_name": "agent-1" if kind == RUNNING else "",
            })  # fmt: skip
    stats = {"worker_count": 1} | {f"{kind}_count": len(found) for kind, found in tasks.items()}
    return json(tasks | {"stats": stats, "paused": False})


def _labels(repo: Repo, build: Build) -> Row:
    own = {
        "branch": build.branch, "commit-branch": build.branch, "event": build.event, "forge-id": "gitea",
        "org-id": "2", "repo-forge-id": str(repo.id), "repo-full-name": repo.name, "repo-id": str(repo.id),
        "repo-name": repo.name.partition("/")[2],
    }  # fmt: skip
    return {"org-id": "2", "repo": repo.name} | {f"woodpecker-ci.org/{k}": v for k, v in own.items()}


# Of one repo


def pipelines(world: World, ask: Ask, place: Repo) -> Answer:
    page, size = _page(ask)
    try:
        wanted = _filter(ask)
    except ValueError:
        return Answer(400)
    first = (page - 1) * size
    if wanted is not None:
        found = islice(builds_of(place, wanted, ask.now), first, first + size)
        return json([pipeline_row(world, place, build, ask.now) for build in found])
    key = ("pipelines", place.id, page, size)
    body = world.cache.get(key, place.edits, ask.now)
    if body is None:
        builds = place.page(first, size)
        until = min((build.stable_until(ask.now) for build in builds), default=math.inf)
        rows = [pipeline_row(world, place, build, ask.now) for build in builds]
        body = world.cache.put(key, place.edits, until, encode(rows))
    return Answer(200, body, JSON_UTF8)


def _page(ask: Ask) -> tuple[int, int]:
    """(page, size), with 1 and 50 for what makes no sense."""
    page, size = ask.query.get("page", ""), ask.query.get("perPage", "")
    number = int(page) if page.isdecimal() else 1
    rows = int(size) if size.isdecimal() else PAGE_SIZE
    return max(1, number), rows if 1 <= rows <= PAGE_SIZE else PAGE_SIZE


Wanted = Callable[[Build, float], bool]


def _filter(ask: Ask) -> Wanted | None:
    """What the query leaves in, or None where it leaves in everything; ValueError for a bad time."""
    query = ask.query
    after, before = (_time(query.get(key, "")) for key in ("after", "before"))
    events = [word for word in query.get("event", "").split(",") if word]
    branch, status, ref = (query.get(key, "") for key in ("branch", "status", "ref"))
    if not (events or branch or status or ref or after is not None or before is not None):
        return None

    def wanted(build: Build, now: float) -> bool:
        row = feed_row(Repo(0, "", 0.0), build, now)
        return (
            (not events or row["event"] in events)
            and (not branch or row.get("branch") == branch)
            and (not status or row["status"] == status)
            and ref in row.get("ref", "")
            and (after is None or build.created > after)
            and (before is None or build.created < before)
        )

    return wanted


def _time(word: str) -> float | None:
    return datetime.fromisoformat(word).timestamp() if word else None


def builds_of(place: Repo, wanted: Wanted | None, now: float) -> Iterator[Build]:
    """The pipelines of a repo that are wanted, newest first."""
    for number in place.numbers():
        build = place.get(number)
        if build is not None and (wanted is None or wanted(build, now)):
            yield build
