"""The simulator says what the real servers said: same request, same status, headers, shape and signs."""

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from scenes import ASKERS, LEFT_OUT, SCENES, UNCOMPARED, nothing, world_for

from exporter.simulator import World
from exporter.simulator.server import ANSWER
from exporter.simulator.wire import Answer, Ask, read_query
from exporter.simulator.woodpecker import STEP_IDS

RECORDINGS = Path(__file__).parent / "data" / "recordings"
DRONE_ROLES = (
    ("visibility", "repo"), ("trusted", "repo"), ("full_name", "feed row"), ("step_id", "step"),
    ("kind", "stage"), ("trigger", "build"), ("environment", "job"), ("enqueued_at", "build"),
    ("pid", "proc"), ("pos", "line"),
)  # fmt: skip
ROLES = {
    "drone-0.5": DRONE_ROLES, "drone-0.8": DRONE_ROLES, "drone-1.x": DRONE_ROLES,
    "woodpecker": (
        ("clone_url", "repo"), ("login", "user"), ("event_reason", "build"), ("uuid", "step"),
        ("pipeline_number", "task"), ("pipeline_id", "stage"), ("full_name", "feed row"), ("line", "line"),
        ("is_warning", "error"), ("field", "place"), ("worker_count", "stats"), ("last_contact", "agent"),
    ),
    "abf": (
        ("build_log_url", "build"), ("container_path", "other build"), ("project_id", "row"),
        ("owner", "listed"), ("dependent_packages", "dependent"), ("git_url", "project"),
        ("platform_type", "platform"), ("platform", "repository"), ("email", "keeper"), ("uname", "user"),
        ("epoch", "package"), ("file_name", "log"),
    ),
}  # fmt: skip
"""What an object is in the contract's words, by the first of these keys that it has."""
HEADERS = (
    "Content-Type", "X-Drone-Version", "X-Woodpecker-Version", "X-RateLimit-Limit", "X-RateLimit-Remaining",
    "WWW-Authenticate", "Location", "Cache-Control",
)  # fmt: skip


def compared() -> Iterator[tuple[str, str]]:
    for system in ROLES:
        for path in sorted((RECORDINGS / system).glob("*.json")):
            if path.stem not in LEFT_OUT[system] and not path.stem.startswith("webhook"):
                yield system, path.stem


@cache
def load(system: str, name: str) -> Any:
    return json.loads((RECORDINGS / system / f"{name}.json").read_text(encoding="utf-8"))


def ask(world: World, system: str, name: str, number: int) -> Answer:
    """The answer to the recorded request, asked about build `number` of octo/hello."""
    request = load(system, name)["request"]
    path, _, query = request["path"].partition("?")
    headers = {key.lower(): token_in(value) for key, value in request.get("headers", {}).items()}
    if system == "abf":
        headers |= ASKERS.get(name, ASKERS[""])
    if number:
        path, query = REWRITE[system](world, path, number), query_about(query, number)
    body = json.dumps(request.get("body", "")).encode()
    asked = Ask(request["method"], path, read_query(token_in(query).encode()), headers, body=body)
    with world.moment() as now:
        asked.now = now
        return ANSWER[world.dialect](world, asked)


def drone_path(world: World, path: str, number: int) -> str:
    path = re.sub(r"^/api/(repos|badges)/[^/]+/[^/]+", r"/api/\1/octo/hello", path)
    words = "builds" if world.traits.stages else "builds|logs"
    return re.sub(rf"/({words})/(?!9999)\d+", rf"/\1/{number}", path)


def woodpecker_path(world: World, path: str, number: int) -> str:
    repo, build = world.find("octo/hello", number)
    path = re.sub(r"^/api/repos/\d+", f"/api/repos/{repo.id}", path)
    path = re.sub(r"/(logs/\d+)/(?!9999)\d+", rf"/\1/{build.id * STEP_IDS + 2}", path)
    return re.sub(r"/(pipelines|logs)/(?!9999)\d+", rf"/\1/{number}", path)


def abf_path(_: World, path: str, number: int) -> str:
    return re.sub(r"/build_lists/(?!9999)\d+", f"/build_lists/{number}", path)


REWRITE = {
    "drone-0.5": drone_path, "drone-0.8": drone_path, "drone-1.x": drone_path,
    "woodpecker": woodpecker_path, "abf": abf_path,
}  # fmt: skip


def query_about(query: str, number: int) -> str:
    """The query with the ids of builds that it names replaced by that of the scene's build."""
    return re.sub(r"filter\[id\]\[\]=\d+", f"filter[id][]={number}", query)


def token_in(text: str) -> str:
    return re.sub(r"<TOKEN of (\w+)>", r"token-of-\1", text)


def role(system: str, row: dict[str, Any]) -> str:
    """Which of the contract's objects this is; empty: none of them."""
    return next((name for key, name in ROLES[system] if key in row), "")


def objects(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, list):
        for one in value:
            yield from objects(one)
    elif isinstance(value, dict):
        yield value
        for one in value.values():
            yield from objects(one)


@cache
def learned(system: str) -> dict[str, tuple[set[str], dict[str, set[type]]]]:
    """role → (keys that are always there, types of every key), in all recordings of a system."""
    found: dict[str, tuple[set[str], dict[str, set[type]]]] = {}
    if system not in ("drone-1.x", "abf"):
        # Of a pull request: in the contract's list of a feed row's keys, but in no recorded row.
        always = {"repo_id"} if system == "woodpecker" else {"owner", "name"}
        found["feed row"] = (always | {"full_name"}, {"title": {str}, "refspec": {str}})
    for path in (RECORDINGS / system).glob("*.json"):
        for row in objects(load(system, path.stem).get("body")):
            always, types = found.setdefault(role(system, row), (set(row), {}))
            if row:
                always &= set(row)
            for key, value in row.items():
                types.setdefault(key, set()).add(type(value))
    return found


def signs(system: str, value: Any) -> list[tuple[Any, ...]]:
    """What tells how a build and its parts ended, without how many there were of each."""
    told = {
        (role(system, row), row.get("status", row.get("state")), row.get("exit_code"), error_of(row))
        for row in objects(value)
        if role(system, row) in ("build", "job", "proc", "stage", "step")
    }
    return sorted(told, key=repr)


def error_of(row: dict[str, Any]) -> str:
    """The text of an error, where it is the server's and not a pipeline file's."""
    text = str(row.get("error", ""))
    return "yaml" if text.startswith("yaml") else text


def keys(system: str, value: Any) -> set[tuple[str, frozenset[str]]]:
    """The shapes of all objects, but of those of which it is chance how many an answer has."""
    found = {(role(system, row), frozenset(row)) for row in objects(value) if not by_id(row)}
    return {(name, shape) for name, shape in found if name not in ("line", *UNCOMPARED[system])}


def by_id(row: dict[str, Any]) -> bool:
    """True for an object that is a table with ids for keys."""
    return all(key.isdecimal() for key in row)


@pytest.mark.parametrize(("system", "name"), list(compared()))
def test_answers_as_recorded(system: str, name: str) -> None:
    wanted = load(system, name)
    world = world_for(system, name)
    number = SCENES[system].get(name, nothing)(world)
    got = ask(world, system, name, number)
    assert got.status == wanted["status"]
    headers = {"Content-Type": got.type, **dict(got.headers)}
    for header in HEADERS:
        recorded = wanted["headers"].get(header, "")
        if recorded or header in HEADERS[:3]:
            assert headers.get(header, "").lower() == recorded.lower(), header
    body = wanted["body"]
    if not got.type.startswith("application/json"):
        if isinstance(body, str) and len(body) < 100 and "xml" not in got.type and "<!DOCTYPE" not in body:
            assert got.body.decode() == body
        return
    made = json.loads(got.body)
    assert type(made) is type(body)
    for row in objects(made):
        always, types = learned(system)[role(system, row)]
        if role(system, row):
            assert always <= set(row) <= set(types), role(system, row)
        for key, value in row.items():
            assert type(value) in types[key], f"{role(system, row)}.{key} is {value!r}"
    if isinstance(body, list):
        assert bool(made) == bool(body)
        if number == 0:
            assert len(made) == wanted.get("rows_in_answer", len(made))
    elif body is not None:
        assert keys(system, made) == keys(system, body)
        assert signs(system, made) == signs(system, body)


def test_everything_recorded_is_compared_or_named() -> None:
    for system, names in LEFT_OUT.items():
        assert not {name for name in names if not (RECORDINGS / system / f"{name}.json").exists()}
        assert not {name for name in SCENES[system] if not (RECORDINGS / system / f"{name}.json").exists()}
    assert len(list(compared())) > 400
