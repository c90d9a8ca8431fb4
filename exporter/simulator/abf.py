"""ROSA ABF and OpenMandriva's ABF on the wire: rows, codes, and who may ask for them."""

import base64
import binascii
import hashlib
import time
import zlib
from calendar import timegm
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from exporter.simulator.builds import NEW, PENDING, RUNNING, After, Build, Outcome
from exporter.simulator.invention import PEOPLE
from exporter.simulator.repos import Repo, User
from exporter.simulator.wire import HTML, JSON_UTF8, Answer, Ask, encode
from exporter.simulator.world import World

Row = dict[str, Any]
Plain = Callable[[World, Ask], Answer]
API = "/api/v1"
ARCHES = ("i686", "x86_64", "aarch64")
NEW_CODES = {NEW: 4000, PENDING: 2000, RUNNING: 3000}
RERUN_CODES = {NEW: 2500, PENDING: 2500, RUNNING: 2550}
END_CODES = {
    Outcome.SUCCESS: 0, Outcome.FAILURE: 666, Outcome.KILLED: 666, Outcome.ERROR: 15000,
    Outcome.CANCELLED: 5000, Outcome.TIMEOUT: 5000,
}  # fmt: skip
AFTER_CODES = {
    After.PUBLISHING: 7000, After.PUBLISHED: 6000, After.PUBLISH_FAILED: 8000, After.REJECTED: 9000,
    After.TESTING: 13000, After.TESTED: 12000, After.TESTING_FAILED: 14000, After.PACKAGES_LOST: 777,
}  # fmt: skip
TESTS_FAILED, CANCELLING = 11000, 10000
CONTAINER_TIME = 30.0
"""Seconds that making a container takes."""
FORBIDDEN = "Access violation to this page!"
SIGN_IN = "You need to sign in or sign up before continuing."


def json(value: object, status: int = 200) -> Answer:
    return Answer(status, encode(value), JSON_UTF8)


def forbidden() -> Answer:
    return json({"message": FORBIDDEN}, 403)


def not_found(world: World, _: Ask) -> Answer:
    words = "translation missing: en.flash.404_message"
    message = words if world.openmandriva else "Error 404. Resource not found!"
    return json({"status": 404, "message": message}, 404)


def broken(world: World) -> Answer:
    words = "translation missing: en.flash.500_message"
    message = words if world.openmandriva else "Error 500. Something went wrong."
    return json({"status": 500, "message": message}, 500)


# Codes and times


def code_of(build: Build, now: float) -> int:
    """The status of a build list."""
    phase = build.phase(now)
    if phase in NEW_CODES:
        return (RERUN_CODES if build.first_started is not None else NEW_CODES)[phase]
    if build.unconfirmed(now):
        return CANCELLING
    outcome = build.outcome
    for later in reversed(build.after(now)):
        if later.state in AFTER_CODES:
            return AFTER_CODES[After(later.state)]
        if later.state in END_CODES:
            outcome = Outcome(later.state)
            break
    tests = any(step.bad and step.name == "tests" for leg in build.legs for step in leg.steps)
    return TESTS_FAILED if outcome is Outcome.FAILURE and tests else END_CODES[outcome]


def container_of(build: Build, now: float) -> int:
    """The state of the container that is made of it."""
    asked = [later.at for later in build.after(now) if later.state == After.CONTAINER]
    return 4000 if not asked else 7000 if now < asked[-1] + CONTAINER_TIME else 6000


# Rows


def user_row(login: str) -> Row:
    """Whoever has this login; an id that never changes is made of it."""
    name = next((person.name for person in PEOPLE if person.login == login), login.title())
    number = user_id(login)
    return {"id": number, "name": name, "uname": login, "type": "User", "url": f"{API}/users/{number}"}


def user_id(login: str) -> int:
    return zlib.crc32(login.encode()) % 100_000 + 1


def builder(build: Build) -> str:
    """Login of the person who started it."""
    return build.by or build.person.login


def named_id(name: str) -> int:
    """The id of the platform or repository of this name."""
    return zlib.crc32(name.encode()) % 9000 + 5


def platform_row(name: str) -> Row:
    number = named_id(name)
    return {
        "id": number, "name": name, "visibility": "open", "platform_type": "main",
        "url": f"{API}/platforms/{number}",
    }  # fmt: skip


def repository_row(platform: str, name: str) -> Row:
    number = named_id(f"{platform}/{name}")
    row = {"id": number, "name": name, "url": f"{API}/repositories/{number}"}
    return row | {"platform": platform_row(platform)}


def target_of(build: Build) -> tuple[str, str, str]:
    """(platform, repository, arch): the parts of its branch."""
    platform, repository, arch = (*build.branch.split("/"), "main", "x86_64")[:3]
    return platform, repository, arch


def arch_id(arch: str) -> int:
    return ARCHES.index(arch) + 1 if arch in ARCHES else named_id(arch)


def project_row(world: World, repo: Repo, login: str) -> Row:
    """A project as it stands in a build list."""
    if world.openmandriva:
        git = f"git://github.com/OpenMandrivaAssociation/{repo.name.split('/')[1]}.git"
    else:
        git = f"https://{login}@abf.example.com/{repo.name}.git"
    person = PEOPLE[repo.id % len(PEOPLE)]
    number = user_id(person.login)
    keeper = {
        "id": number, "uname": person.login, "name": person.name, "email": person.email,
        "url": f"{API}/users/{number}",
    }  # fmt: skip
    return {
        "id": repo.id, "name": repo.name.partition("/")[2],
        "visibility": "hidden" if repo.private else "open", "fullname": repo.name,
        "url": f"{API}/projects/{repo.id}", "git_url": git, "maintainer": keeper,
    }  # fmt: skip


def index_row(repo: Repo, build: Build, now: float) -> Row:
    return {
        "id": build.id, "status": code_of(build, now), "project_id": repo.id,
        "url": f"{API}/build_lists/{build.id}",
    }  # fmt: skip


def show_row(world: World, repo: Repo, build: Build, ask: Ask) -> Row:
    """The single build list."""
    now, host = ask.now, ask.headers.get("host", "")
    rosa = not world.openmandriva
    code = code_of(build, now)
    platform, repository, arch = target_of(build)
    saved = repository_row(platform, repository)
    states = [later.state for later in build.after(now)]
    published = After.PUBLISHED in states or After.TESTED in states
    told = build.commit if rosa or build.started_at(now) else None
    row: Row = {"id": build.id, "container_status": container_of(build, now), "status": code}
    row["duration"] = build.seconds(now)
    row |= {"update_type": "bugfix"} if rosa else {}
    row |= {"priority": 0 if build.cron else 100}
    row |= {"new_core": True} if rosa else {}
    path = f"https://abf-downloads.example.com/{platform}/container/{build.id}/{arch}/{repository}/release/"
    row |= {
        "auto_publish_status": build.auto_publish,
        "package_version": f"{platform}-2.12-3" if published and rosa else None,
        "commit_hash": told or None, "last_published_commit_hash": build.before or None,
        "auto_create_container": False, "use_cached_chroot": False, "use_extra_tests": True,
        "build_log_url": f"/build_lists/{build.id}/log",
        "container_path": path if row["container_status"] == 6000 else "",
        "arch": {"id": arch_id(arch), "name": arch}, "created_at": int(build.created),
        "updated_at": int(build.changed_at(now)),
        "project": project_row(world, repo, ask.user.login if ask.user else ""),
        "save_to_repository": saved, "build_for_platform": platform_row(platform),
        "user": user_row(builder(build)),
    }  # fmt: skip
    if any(state in AFTER_CODES and state != After.PACKAGES_LOST for state in states):
        row["publisher"] = user_row(builder(build))
    begun, over = build.begun and build.started_at(now) > 0, build.ended(now)
    files = begun and over and code != CANCELLING
    made = over and code not in (666, 5000, CANCELLING, 15000)
    return row | {
        "include_repos": [saved], "extra_repositories": [], "extra_build_lists": [],
        "extra_params": dict(build.variables),
        "mass_build": {"id": named_id(build.cron), "name": build.cron} if build.cron else None,
        "logs": _logs(build, host) if files else [],
        "packages": [_package(repo, build, i, host) for i in range(2)] if made else [],
        "url": f"{API}/build_lists/{build.id}",
    }  # fmt: skip


LOG_FILES = ("build.log", "root.log")


def _logs(build: Build, host: str) -> list[Row]:
    """Files on the file store; a size is a number or a text."""
    return [
        {"file_name": name, "size": 2893 if build.id % 2 else "0.183", "url": _stored(build.id, i, host)}
        for i, name in enumerate(LOG_FILES)
    ]  # fmt: skip


def _package(repo: Repo, build: Build, which: int, host: str) -> Row:
    return {
        "id": build.id * 2 + which, "name": repo.name.partition("/")[2], "version": "2.12", "release": "3",
        "epoch": 1 if which else None, "type": ("source", "binary")[which],
        "updated_at": int(build.finished or 0), "url": _stored(build.id, 8 + which, host),
        "dependent_projects": [],
    }  # fmt: skip


def _stored(build_id: int, which: int, host: str) -> str:
    """The address of a file of a build; the simulated server is its own file store."""
    base = f"http://{host}" if host else "https://file-store.example.com"
    return f"{base}{API}/file_stores/{build_id:032x}{which:08x}"


# Who may


def password_of(login: str) -> str:
    """The password with which a user signs in instead of the token."""
    return f"password-of-{login}"


def who(world: World, ask: Ask) -> tuple[User | None, str]:
    """(whose token or password it is, what is wrong with it)."""
    header = ask.headers.get("authorization", "")
    if not header.startswith("Basic "):
        token = "" if world.openmandriva else ask.query.get("authentication_token", "")
        return world.users.get(token), SIGN_IN
    try:
        name, _, password = base64.b64decode(header.removeprefix("Basic ")).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None, SIGN_IN
    if name in world.users and (world.openmandriva or not password):
        return world.users[name], ""
    known = next((user for user in world.users.values() if user.login == name), None)
    if known is None:
        return None, "Invalid Nickname or Email or password."
    return known if password == password_of(name) else None, "Invalid email or password."


def unauthorized(world: World, words: str) -> Answer:
    realm = [("WWW-Authenticate", 'Basic realm="Application"')]
    if world.openmandriva:
        return Answer(401, b"HTTP Basic: Access denied.\n", HTML, realm)
    made = json({"error": words}, 401)
    made.headers += realm
    return made


def may_see(world: World, user: User | None, repo: Repo) -> bool:
    """Open projects are everybody's; hidden ones their members' and administrators'."""
    if user is None:
        return not repo.private
    own = world.has_rights(user, repo.name)
    refused = user.login in world.denied.get(repo.name, ())
    return user.admin or (own if repo.private else not refused)


def may_write(world: World, user: User | None, repo: Repo) -> bool:
    return user is not None and (user.admin or (user.push and world.has_rights(user, repo.name)))


def with_etag(ask: Ask, made: Answer) -> Answer:
    """A good answer to GET carries a mark of its body; who shows the mark is spared the body."""
    if ask.method != "GET" or made.status != 200:
        return made
    digest = hashlib.md5(made.body, usedforsecurity=False).hexdigest()
    marks = [("ETag", f'W/"{digest}"'), ("Cache-Control", "max-age=0, private, must-revalidate")]
    if ask.headers.get("if-none-match") == marks[0][1]:
        return Answer(304, headers=marks)
    made.headers += marks
    return made


def overspent(world: World, ask: Ask) -> tuple[bool, list[tuple[str, str]]]:
    """(whether the user has used up this hour's requests, the headers that say what is left)."""
    if not world.hourly_limit:
        return False, []
    hour = int(ask.now) // 3600, ask.user.login if ask.user else ""
    world.spent[hour] += 1
    left = max(0, world.hourly_limit - world.spent[hour])
    limit = str(world.hourly_limit)
    headers = [("X-RateLimit-Limit", limit), ("X-RateLimit-Remaining", str(left))]
    return world.spent[hour] > world.hourly_limit, headers


def query_of(ask: Ask) -> str:
    """The filter as an answer repeats it, sorted and quoted."""
    pairs = []
    for key, value in sorted(ask.query.items()):
        if key.startswith("filter["):
            values = value.split(",") if key.endswith("[]") else [value]
            pairs += [f"{quote(key, safe='')}={quote(one, safe='')}" for one in values]
    return f"?{'&'.join(pairs)}" if pairs else ""


def day_or_second(word: str) -> float | None:
    """Unix seconds, also of a `DD/MM/YYYY`; None for anything else."""
    if word.isdecimal():
        return float(word)
    try:
        return float(timegm(time.strptime(word, "%d/%m/%Y")))
    except ValueError:
        return None
