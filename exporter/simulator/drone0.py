"""What Drone 0.5 and 0.8 say alike: access, feeds, lists, errors."""

import hashlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from exporter.simulator.builds import PENDING, RUNNING, Build, Outcome
from exporter.simulator.repos import Repo, User
from exporter.simulator.wire import HTML, JSON_UTF8, PAGE, TEXT, Answer, Ask, encode
from exporter.simulator.world import World

Row = dict[str, Any]
DENIED = b"User not authorized"
FEED_KEYS = (
    "number", "event", "status", "created_at", "started_at", "finished_at", "commit", "branch", "ref",
    "refspec", "remote", "title", "message", "author", "author_avatar", "author_email",
)  # fmt: skip
"""Keys of a build that a feed row has too, each left out when 0 or empty."""
PAGE_SIZE = 50


@dataclass(frozen=True, slots=True)
class Dialect:
    """Where the two differ."""

    row: Callable[[World, Repo, Build, float], Row]
    """A build as it stands in a list."""
    detail: Callable[[World, Repo, Build, float], Row]
    """What the single build has beside the row."""
    repo: Callable[[World, Repo], Row]
    refused: int
    """The status for a repo that the source host denies to the user."""


def json(value: object, status: int = 200) -> Answer:
    return Answer(status, encode(value), JSON_UTF8)


def text(status: int, words: bytes) -> Answer:
    return Answer(status, words, TEXT)


def web_page(_: World, __: Ask) -> Answer:
    """The answer to any path that is not known."""
    return Answer(200, PAGE, HTML)


@lru_cache(maxsize=1024)
def avatar(who: str) -> str:
    return (
        f"https://secure.gravatar.com/avatar/{hashlib.md5(who.encode(), usedforsecurity=False).hexdigest()}"
    )


def status_of(world: World, build: Build, now: float) -> str:
    """The word for a build; a cancel and a time limit read `failure`, with more in the single build."""
    phase = build.phase(now)
    if build.settling(now):
        return "killed" if build.whole or not world.traits.gates else RUNNING
    if phase in (Outcome.CANCELLED, Outcome.TIMEOUT) or (phase == Outcome.KILLED and world.traits.gates):
        return "failure"
    return "error" if phase == Outcome.LOST else str(phase)


def finished_at(build: Build, status: str, now: float) -> int:
    return 0 if status == RUNNING else build.finished_at(now)


def base_row(world: World, repo: Repo, build: Build, now: float) -> Row:
    """The keys that a build has in both, in the order of 0.5."""
    status = status_of(world, build, now)
    host = f"{world.source_host}/{repo.name}"
    pull = build.event == "pull_request"
    if build.event == "tag":
        link = f"{host}/src/{build.ref.removeprefix('refs/tags/')}"
    else:
        link = f"{host}/pulls/{build.ref.split('/')[2]}" if pull else f"{host}/compare/{build.commit}"
    return {
        "id": build.id,
        "number": build.number,
        "parent": build.parent,
        "event": "deployment" if build.event == "rollback" else build.event,
        "status": status,
        "enqueued_at": int(build.queued),
        "created_at": int(build.created),
        "started_at": 0 if build.outcome is Outcome.DECLINED else build.started_at(now),
        "finished_at": 0 if build.outcome is Outcome.DECLINED else finished_at(build, status, now),
        "deploy_to": build.environment,
        "commit": build.commit,
        "branch": build.ref if build.event == "tag" else build.branch,
        "ref": build.ref,
        "refspec": f"{build.source}:{build.branch}" if pull else "",
        "remote": "",
        "title": build.title,
        "message": build.message,
        "timestamp": int(build.created),
        "author": build.person.login,
        "author_avatar": avatar(build.person.email),
        "author_email": build.person.email,
        "link_url": link,
        "signed": False,
        "verified": False,
    }


def names(repo: Repo) -> Row:
    owner, _, name = repo.name.partition("/")
    return {"owner": owner, "name": name, "full_name": repo.name}


def base_repo(world: World, repo: Repo) -> Row:
    """The keys that a repo begins with in both."""
    host = f"{world.source_host}/{repo.name}"
    return {
        "id": repo.id,
        **names(repo),
        "avatar_url": avatar(repo.name.split("/")[0]),
        "link_url": host,
        "scm": "git",
        "clone_url": f"{host}.git",
        "default_branch": repo.default_branch,
        "timeout": repo.timeout,
    }


class Handlers:
    """The answers of one of the two dialects."""

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect

    # Who may

    def signed_in(self, handler: Callable[[World, Ask, User], Answer]) -> Callable[[World, Ask], Answer]:
        def guarded(world: World, ask: Ask) -> Answer:
            return handler(world, ask, ask.user) if ask.user else text(401, DENIED)

        return guarded

    def admin(self, handler: Callable[[World, Ask], Answer]) -> Callable[[World, Ask], Answer]:
        def guarded(world: World, ask: Ask) -> Answer:
            if not ask.user:
                return text(401, DENIED)
            return handler(world, ask) if ask.user.admin else text(413, DENIED)

        return guarded

    def on_repo(
        self, handler: Callable[[World, Ask, Repo], Answer], *, push: bool = False
    ) -> Callable[[World, Ask], Answer]:
        """Finds the repo of the path and refuses who may not read (or push to) it."""

        def guarded(world: World, ask: Ask) -> Answer:
            repo = world.repos.get("/".join(ask.parts[:2]))
            user = ask.user
            known = repo is not None and (repo.active or world.traits.gates)
            if user is None:
                open_ = known and repo is not None and not repo.private and not push
                return handler(world, ask, repo) if open_ and repo else Answer(401)
            if repo is None or not known:
                return Answer(404)
            own = world.has_rights(user, repo.name) and not world.source_host_down
            if not user.admin and not own and (repo.private or world.denied.get(repo.name) or push):
                return Answer(404 if push else self.dialect.refused)
            if not user.admin and world.source_host_down:
                return Answer(self.dialect.refused)
            if push and not (user.push or user.admin):
                return Answer(404)
            return handler(world, ask, repo)

        return guarded

    def on_build(
        self, handler: Callable[[World, Ask, Repo, Build], Answer], *, missing: int, push: bool = False
    ) -> Callable[[World, Ask], Answer]:
        """Finds the build of the path; `missing` is the status where there is none."""

        def guarded(world: World, ask: Ask, repo: Repo) -> Answer:
            number = ask.parts[2]
            if not number.isdecimal():
                return Answer(400)
            build = repo.get(int(number))
            return Answer(missing) if build is None else handler(world, ask, repo, build)

        return self.on_repo(guarded, push=push)

    # Lists, kept while they hold

    def feed_row(self, world: World, repo: Repo, build: Build | None, now: float) -> bytes:
        row = names(repo)
        if build is not None:
            full = self.dialect.row(world, repo, build, now)
            row.update((key, full[key]) for key in FEED_KEYS if full[key])
        return encode(row)

    def feed(self, world: World, ask: Ask, user: User) -> Answer:
        if ask.query.get("latest") == "true":
            return self._latest(world, ask, user)
        key = ("feed", user.login)
        body = world.cache.get(key, world.edits, ask.now)
        if body is None:
            rows, until = [], world.names_until(ask.now)
            for repo, build in self._newest(world, user, ask.now):
                rows.append(self.feed_row(world, repo, build, ask.now))
                until = min(until, build.stable_until(ask.now))
                if len(rows) == world.traits.feed_rows:
                    break
            body = world.cache.put(key, world.edits, until, b"[" + b",".join(rows) + b"]")
        return Answer(200, body, JSON_UTF8)

    def _newest(self, world: World, user: User, now: float) -> Iterator[tuple[Repo, Build]]:
        allowed = self.own(world, user, now)
        if len(allowed) == len(world.repos):
            return world.newest(lambda repo: repo.active)
        wanted = set(allowed)
        return world.newest(lambda repo: repo.active and repo.name in wanted)

    def own(self, world: World, user: User, now: float) -> list[str]:
        return world.names(user, now)[: world.feed_repos]

    def _latest(self, world: World, ask: Ask, user: User) -> Answer:
        key = ("latest", user.login)
        body = world.cache.get(key, world.edits, ask.now)
        if body is None:
            rows, until = [], world.names_until(ask.now)
            for name in self.own(world, user, ask.now):
                repo = world.repos[name]
                kept = repo.rows.get("latest")
                if kept is None or ask.now >= kept[0]:
                    build = repo.newest()
                    holds = build.stable_until(ask.now) if build else math.inf
                    kept = repo.rows["latest"] = (holds, self.feed_row(world, repo, build, ask.now))
                if repo.active:
                    rows.append(kept[1])
                    until = min(until, kept[0])
            body = world.cache.put(key, world.edits, until, b"[" + b",".join(rows) + b"]")
        return Answer(200, body, JSON_UTF8)

    def running(self, world: World, ask: Ask) -> Answer:
        rows = [
            self.feed_row(world, repo, build, ask.now)
            for repo, build in world.open_builds(ask.now)
            if status_of(world, build, ask.now) in (PENDING, RUNNING)
        ]
        return Answer(200, b"[" + b",".join(rows) + b"]", JSON_UTF8)

    def builds(self, world: World, ask: Ask, repo: Repo, page: int = 1) -> Answer:
        key = ("builds", repo.id, page)
        body = world.cache.get(key, repo.edits, ask.now)
        if body is None:
            rows, until = [], math.inf
            for build in repo.page((max(page, 1) - 1) * PAGE_SIZE, PAGE_SIZE):
                rows.append(encode(self.dialect.row(world, repo, build, ask.now)))
                until = min(until, build.stable_until(ask.now))
            body = world.cache.put(key, repo.edits, until, b"[" + b",".join(rows) + b"]")
        return Answer(200, body, JSON_UTF8)

    # One of them

    def build(self, world: World, ask: Ask, repo: Repo, build: Build) -> Answer:
        row = self.dialect.row(world, repo, build, ask.now)
        return json(row | self.dialect.detail(world, repo, build, ask.now))

    def latest_build(self, world: World, ask: Ask, repo: Repo) -> Answer:
        branch = ask.query.get("branch") or repo.default_branch
        for number in repo.numbers():
            build = repo.get(number)
            if build is not None and build.event == "push" and build.branch == branch:
                return self.build(world, ask, repo, build)
        return text(500, b"sql: no rows in result set")

    def repo(self, world: World, _: Ask, repo: Repo) -> Answer:
        return json(self.dialect.repo(world, repo))

    def cc_menu(self, world: World, ask: Ask, repo: Repo) -> Answer:
        build = repo.newest()
        if build is None:
            return Answer(404)
        status = status_of(world, build, ask.now)
        busy = "Building" if status in (PENDING, RUNNING) else "Sleeping"
        last = {"success": "Success", "failure": "Failure", "killed": "Failure"}.get(status, "Unknown")
        when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(build.started_at(ask.now)))
        body = (
            f'<Projects><Project name="{repo.name}" activity="{busy}" lastBuildStatus="{last}" '
            f'lastBuildLabel="{build.number}" lastBuildTime="{when}" '
            f'webUrl="http://drone.example.com/{repo.name}/{build.number}"></Project></Projects>'
        )
        return Answer(200, body.encode(), "application/xml; charset=utf-8")
