"""ROSA ABF and OpenMandriva's ABF on the wire: the search for build lists and its filters."""

import re
from collections.abc import Callable
from typing import TypeAlias

from exporter.simulator.abf import (
    API,
    arch_id,
    builder,
    code_of,
    day_or_second,
    forbidden,
    index_row,
    json,
    may_see,
    named_id,
    not_found,
    query_of,
    target_of,
)  # fmt: skip
from exporter.simulator.changes import Change
from exporter.simulator.repos import Repo, User
from exporter.simulator.wire import Answer, Ask
from exporter.simulator.world import World

PAGE_SIZE, MOST = 20, 100
HUGE = 10**15
Test: TypeAlias = Callable[[Change], bool]


class MalformedError(Exception):
    """A query that the application falls over: answered with 500."""


def search(world: World, ask: Ask) -> Answer:
    owned = "everything" if world.openmandriva and world.anonymous_access else "owned"
    return _search(world, ask, None, owned)


def project_search(world: World, ask: Ask) -> Answer:
    repo = world.by_id.get(int(ask.parts[0])) if ask.parts[0].isdecimal() else None
    if repo is None:
        return not_found(world, ask)
    return _search(world, ask, repo, "everything") if may_see(world, ask.user, repo) else forbidden()


def _search(world: World, ask: Ask, repo: Repo | None, ownership: str) -> Answer:
    page, size = page_of(ask)
    wanted = _wanted(world, ask, repo, ask.query.get("filter[ownership]", ownership))
    key = (ask.user, repo.id if repo else 0, *sorted(ask.query.items()))
    found = world.by_change(ask.now, key, wanted, (page - 1) * size, size)
    rows = [index_row(place, build, ask.now) for _, _, place, build in found]
    return json({"build_lists": rows, "url": f"{API}/build_lists{query_of(ask)}"})


def page_of(ask: Ask) -> tuple[int, int]:
    """(page, size), with 1 and 20 for what is no number; MalformedError for what no database takes."""
    page, size = ask.query.get("page", ""), ask.query.get("per_page", "")
    number = int(page) if re.fullmatch(r"-?\d+", page) else 1
    if not 0 <= number < HUGE:
        raise MalformedError
    rows = int(size) if size.isdecimal() and int(size) else PAGE_SIZE
    return max(1, number), min(rows, MOST)


def _wanted(world: World, ask: Ask, repo: Repo | None, ownership: str) -> Test:
    """What the filter leaves in."""
    if "filter" in ask.query or "filter[status][]" in ask.query:
        raise MalformedError
    asked = {key[7:-1]: value for key, value in ask.query.items() if key.startswith("filter[")}
    user, now = ask.user, ask.now
    if "id][" in asked:
        ids = {int(word) for word in asked["id]["].split(",") if word.isdecimal()}
        return lambda one: one[1] in ids
    tests: list[Test] = [_owned(world, user, ownership)]
    if repo is not None:
        tests.append(lambda one: one[2] is repo)
    if status := asked.get("status"):
        code = int(status) if status.isdecimal() else 0
        tests.append(lambda one: code_of(one[3], now) == code)
    if "arch_id" in asked:
        tests.append(lambda one: str(arch_id(target_of(one[3])[2])) == asked["arch_id"])
    keys = ("save_to_platform_id", "build_for_platform_id")
    tests += [_on_platform(asked[key]) for key in keys if key in asked]
    if "save_to_repository_id" in asked:
        saved = asked["save_to_repository_id"]
        tests.append(lambda one: str(named_id("/".join(target_of(one[3])[:2]))) == saved)
    if name := asked.get("project_name"):
        like = re.compile(re.escape(name).replace("%", ".*").replace("_", "."))
        tests.append(lambda one: like.search(one[2].name.partition("/")[2]) is not None)
    if mass := asked.get("mass_build_id"):
        tests.append(lambda one: mass == (str(named_id(one[3].cron)) if one[3].cron else "-1"))
    since, until = (day_or_second(asked.get(f"updated_at_{end}", "")) for end in ("start", "end"))
    if since is not None:
        tests.append(lambda one: one[0] >= since)
    if until is not None:
        tests.append(lambda one: one[0] <= until)
    return lambda one: all(test(one) for test in tests)


def _on_platform(wanted: str) -> Test:
    return lambda one: str(named_id(target_of(one[3])[0])) == wanted


def _owned(world: World, user: User | None, ownership: str) -> Test:
    if ownership in ("owned", "related") and user is None:
        return lambda _: False
    if ownership == "owned" and user is not None:
        return lambda one: builder(one[3]) == user.login and may_see(world, user, one[2])
    if ownership == "related" and user is not None:
        return lambda one: world.has_rights(user, one[2].name)
    return lambda one: may_see(world, user, one[2])
