"""ROSA ABF and OpenMandriva's ABF on the wire: what each path answers."""

import re
from collections.abc import Callable

import msgspec

from exporter.simulator.abf import (
    API,
    ARCHES,
    CANCELLING,
    LOG_FILES,
    SIGN_IN,
    Plain,
    Row,
    broken,
    code_of,
    container_of,
    forbidden,
    json,
    may_see,
    may_write,
    named_id,
    not_found,
    overspent,
    platform_row,
    project_row,
    show_row,
    unauthorized,
    user_id,
    user_row,
    who,
    with_etag,
)  # fmt: skip
from exporter.simulator.abf_search import MalformedError, page_of, project_search, search
from exporter.simulator.builds import RUNNING, Build
from exporter.simulator.invention import PEOPLE
from exporter.simulator.repos import Repo
from exporter.simulator.wire import HTML, TEXT, Answer, Ask, Routes, log_lines
from exporter.simulator.world import World

PUBLISH_DELAY, PUBLISH_TIME = 3.0, 60.0
"""Seconds until ROSA begins to publish what it was asked to, and until publishing has ended."""
CHAIN_TIME = 60.0
"""Seconds for which a build of a later level of a chain waits."""
PUBLISHABLE = frozenset({0, 8000, 11000, 14000, 12000})
Acts = Callable[[World, Ask, Repo, Build], Answer]


# Who may


def signed_in(handler: Plain) -> Plain:
    def guarded(world: World, ask: Ask) -> Answer:
        if ask.user is not None:
            return handler(world, ask)
        if not world.openmandriva and "token" in ask.query:
            to = "https://abf.example.com/users/sign_in"
            page = f'<html><body>You are being <a href="{to}">redirected</a>.</body></html>'
            return Answer(302, page.encode(), HTML, [("Location", to)])
        return unauthorized(world, who(world, ask)[1] or SIGN_IN)

    return guarded


def readable(handler: Plain) -> Plain:
    """Needs a sign-in, but for OpenMandriva's as shipped, where everybody is anonymous."""

    def guarded(world: World, ask: Ask) -> Answer:
        if world.openmandriva and world.anonymous_access:
            ask.user = None
            return handler(world, ask)
        return signed_in(handler)(world, ask)

    return guarded


def on_build(handler: Acts) -> Plain:
    """Finds the build list of the path."""

    def guarded(world: World, ask: Ask) -> Answer:
        digits = re.match(r"\d+", ask.parts[0])
        found = world.of_id(int(digits[0])) if digits else None
        if found is None:
            return not_found(world, ask)
        return handler(world, ask, *found) if may_see(world, ask.user, found[0]) else forbidden()

    return guarded


# One build list


def show(world: World, ask: Ask, repo: Repo, build: Build) -> Answer:
    return json({"build_list": show_row(world, repo, build, ask)})


def _refused(words: str) -> Answer:
    return json({"build_list": {"id": None, "message": words}}, 422)


def _done(build: Build, words: str) -> Answer:
    return json({"build_list": {"id": build.number, "message": words}})


def cancel(world: World, ask: Ask, repo: Repo, build: Build) -> Answer:
    if not may_write(world, ask.user, repo):
        return forbidden()
    if code_of(build, ask.now) not in (2000, 3000):
        return _refused("Errors during build cancelation!")
    world.cancel(repo.name, build.number, by=ask.user.login if ask.user else "")
    return _done(build, "Build canceled")


def publish(world: World, ask: Ask, repo: Repo, build: Build) -> Answer:
    testing = ask.path.split("/")[-1].startswith("publish_into_testing")
    code = code_of(build, ask.now)
    if not may_write(world, ask.user, repo) or (code not in PUBLISHABLE and (testing or code != 6000)):
        return forbidden()
    begin = ask.now + (0.0 if world.openmandriva else PUBLISH_DELAY)
    world.publish(repo.name, build.number, testing=testing, begins=begin, ends=begin + PUBLISH_TIME)
    return _done(build, "Build is queued for publishing")


def reject(world: World, ask: Ask, repo: Repo, build: Build) -> Answer:
    if not may_write(world, ask.user, repo):
        return forbidden()
    if code_of(build, ask.now) not in PUBLISHABLE:
        return _refused("Rejecting publishing failed")
    world.reject(repo.name, build.number)
    return _done(build, "Publishing rejected")


def rerun_tests(world: World, ask: Ask, repo: Repo, build: Build) -> Answer:
    if not may_write(world, ask.user, repo):
        return forbidden()
    if code_of(build, ask.now) not in (0, 11000):
        return _refused("Errors during rerun tests!")
    world.rerun_tests(repo.name, build.number)
    return _done(build, "Build is queued for rerun tests")


def create_container(world: World, ask: Ask, repo: Repo, build: Build) -> Answer:
    if not may_write(world, ask.user, repo):
        return forbidden()
    built = build.ended(ask.now) and code_of(build, ask.now) not in (666, 777, 5000, 15000, CANCELLING)
    if not built or container_of(build, ask.now) == 7000:
        return _refused("Container creation failed")
    world.make_container(repo.name, build.number)
    return _done(build, "Container is queued for creating")


def create(world: World, ask: Ask) -> Answer:
    try:
        wanted = msgspec.json.decode(ask.body, type=dict[str, dict[str, object]]).get("build_list", {})
    except msgspec.DecodeError:
        return broken(world)
    number = wanted.get("project_id")
    repo = world.by_id.get(number) if isinstance(number, int) else None
    if repo is None or not may_write(world, ask.user, repo):
        return forbidden()
    if not wanted.get("include_repos"):
        return _refused("BuildList has not been created. Included repositories can't be blank")
    platform, repository, _ = repo.default_branch.split("/")
    which = wanted.get("arch_id")
    arch = ARCHES[which - 1] if isinstance(which, int) and 0 < which <= len(ARCHES) else "x86_64"
    chain = wanted.get("chain_config")
    build_id = world.start_build(
        repo.name, branch=f"{platform}/{repository}/{arch}", commit=str(wanted.get("commit_hash") or ""),
        by=ask.user.login if ask.user else "", publish=str(wanted.get("auto_publish_status") or "none"),
        intake=CHAIN_TIME if chain else 0.0,
    )  # fmt: skip
    made: Row = (
        {"id": build_id, "chain_build_id": 1} if chain and not world.openmandriva else {"id": build_id}
    )
    return json({"build_list": made | {"message": "BuildList has been created successfully"}})


# Files


def live_log(_world: World, ask: Ask, _: Repo, build: Build) -> Answer:
    building = build.phase(ask.now) == RUNNING
    return json({"log": "+ rpmbuild -ba\n" if building else "Log not available yet.", "building": building})


def stored(world: World, ask: Ask) -> Answer:
    """A file of the file store, found by the digest that is its name."""
    name = ask.parts[0]
    found = world.of_id(int(name[:32], 16)) if re.fullmatch(r"[0-9a-f]{40}", name) else None
    if found is None:
        return not_found(world, ask)
    which = int(name[32:], 16)
    file = LOG_FILES[which] if which < len(LOG_FILES) else "package"
    bad = any(leg.bad for leg in found[1].legs)
    lines = log_lines(file.removesuffix(".log"), "failure" if bad and file == LOG_FILES[0] else "", 1)
    return Answer(200, "\n".join([*lines, ""]).encode(), TEXT)


# What else there is


def arches(_: World, __: Ask) -> Answer:
    return json({"architectures": [{"id": i, "name": name} for i, name in enumerate(ARCHES, 1)]})


def user(_: World, ask: Ask) -> Answer:
    login = ask.user.login if ask.user else ""
    row = user_row(login)
    at = int(ask.now) - 86_400
    return json({"user": {
        "id": row["id"], "name": row["name"], "email": f"{login}@example.com", "uname": login,
        "language": "en", "own_projects_count": 0, "professional_experience": None, "site": None,
        "company": None, "location": None, "build_priority": 50, "created_at": at, "updated_at": at,
        "avatar_url": f"https://abf.example.com/avatars/{user_id(login)}.png",
        "url": f"{row['url']}.json", "html_url": f"/{login}",
    }})  # fmt: skip


def projects(world: World, ask: Ask) -> Answer:
    page, size = page_of(ask)
    user = ask.user
    own = [repo for repo in world.repos.values() if user is not None and world.has_rights(user, repo.name)]
    rows = [_listed_project(world, repo, ask) for repo in own[(page - 1) * size : page * size]]
    return json({"projects": rows, "url": f"{API}/projects"})


def _listed_project(world: World, repo: Repo, ask: Ask) -> Row:
    row = project_row(world, repo, ask.user.login if ask.user else "")
    row |= {} if world.openmandriva else {"description": "", "has_issues": True}
    added = int(repo.added)
    return row | {
        "ancestry": None, "default_branch": repo.default_branch.split("/")[0], "is_package": True,
        "publish_i686_into_x86_64": False, "created_at": added, "updated_at": added,
        "owner": _group(repo.name.partition("/")[0]),
    }  # fmt: skip


def _group(name: str) -> Row:
    number = user_id(name)
    return {"id": number, "name": name, "uname": name, "type": "Group", "url": f"{API}/groups/{number}"}


def platforms(world: World, ask: Ask) -> Answer:
    _, size = page_of(ask)
    branches = {repo.default_branch for repo in world.repos.values()} | set(world.traits.branches)
    names = sorted({branch.split("/")[0] for branch in branches})
    rows = []
    for name in names[:size]:
        inside = sorted({branch.split("/")[1] for branch in branches if branch.startswith(f"{name}/")})
        repositories = [
            {"id": named_id(f"{name}/{one}"), "name": one,
             "url": f"{API}/repositories/{named_id(f'{name}/{one}')}"}
            for one in inside
        ]  # fmt: skip
        rows.append(platform_row(name) | {"owner": user_row(PEOPLE[0].login), "repositories": repositories})
    return json({"platforms": rows, "url": f"{API}/platforms"})


_BUILD = f"{API}/build_lists/{{}}"
_ACTIONS: dict[str, Acts] = {
    "cancel": cancel, "publish": publish, "publish_into_testing": publish, "reject_publish": reject,
    "rerun_tests": rerun_tests, "create_container": create_container,
}  # fmt: skip
ROUTES = Routes(
    (
        ("GET", f"{API}/arches", arches),
        ("GET", f"{API}/user", signed_in(user)),
        ("GET", f"{API}/projects", signed_in(projects)),
        ("GET", f"{API}/platforms", signed_in(platforms)),
        ("GET", f"{API}/build_lists", readable(search)),
        ("POST", f"{API}/build_lists", signed_in(create)),
        ("GET", f"{API}/projects/{{}}/build_lists", readable(project_search)),
        ("GET", _BUILD, readable(on_build(show))),
        *(("PUT", f"{_BUILD}/{name}", signed_in(on_build(act))) for name, act in _ACTIONS.items()),
        ("GET", "/build_lists/{}/log", readable(on_build(live_log))),
        ("GET", f"{API}/file_stores/{{}}", stored),
    )
)


def answer(world: World, ask: Ask) -> Answer:
    """What an ABF answers; `.json` at the end of a path changes nothing."""
    found = ROUTES.find(ask.method, ask.path.removesuffix(".json"))
    handler, route, ask.parts = found or (not_found, "*", ())
    ask.user, _ = who(world, ask)
    too_many, headers = overspent(world, ask)
    if too_many:
        made = json({"message": "403 Forbidden | Rate Limit Exceeded"}, 403)
    else:
        try:
            made = with_etag(ask, handler(world, ask))
        except MalformedError:
            made = broken(world)
    made.route = route
    made.headers += headers
    return made
