"""The path by which benchmarks steer a simulated server that runs in a process of its own."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec

from exporter.simulator.builds import Outcome
from exporter.simulator.wire import JSON, Answer, Ask, encode
from exporter.simulator.world import World

Act = Callable[[World, dict[str, Any]], object]


def act(world: World, counts: Counter[tuple[str, str]], ask: Ask, body: bytes) -> Answer:
    """Answers `/_sim/...`; a body is a JSON object with the arguments.

    `GET requests` counts by "METHOD route", `DELETE requests` begins anew; `POST advance {seconds}`;
    `POST burst {count, repos, over, seconds}` plans short builds; `POST start {repo, …}` and
    `POST finish {repo, number, outcome}`; `GET ended` tells the runs that have ended;
    `POST faults {kind, path, times, …}`, `DELETE faults`.
    """
    what = (ask.method, ask.path.removeprefix("/_sim/"))
    match what:
        case ("GET", "requests"):
            return _json({f"{method} {route}": n for (method, route), n in sorted(counts.items())})
        case ("DELETE", "requests"):
            counts.clear()
            return _json({})
        case ("DELETE", "faults"):
            world.faults.clear()
            return _json({})
        case ("GET", "ended"):
            return _json(_ended(world))
    if what[0] != "POST" or what[1] not in _ACTS:
        return Answer(404)
    arguments = msgspec.json.decode(body or b"{}", type=dict[str, Any])
    return _json(_ACTS[what[1]](world, arguments))


def _json(value: object) -> Answer:
    return Answer(200, encode(value), JSON)


def _advance(world: World, arguments: dict[str, Any]) -> object:
    return {"now": world.clock.advance(float(arguments["seconds"]))}


def _burst(world: World, arguments: dict[str, Any]) -> object:
    names = list(world.repos)[: int(arguments.get("repos", len(world.repos)))]
    seconds = float(arguments.get("seconds", 1.0))
    world.short_builds(int(arguments["count"]), names, over=float(arguments["over"]), seconds=seconds)
    return {}


def _start(world: World, arguments: dict[str, Any]) -> object:
    return {"number": world.start_build(**arguments)}


def _finish(world: World, arguments: dict[str, Any]) -> object:
    world.finish(arguments["repo"], int(arguments["number"]), Outcome(arguments.get("outcome", "success")))
    return {}


def _faults(world: World, arguments: dict[str, Any]) -> object:
    world.faults.add(**arguments)
    return {}


def _ended(world: World) -> list[dict[str, object]]:
    with world.moment() as now:
        return [
            {"repo": repo, "number": b.number, "run": int(b.queued), "status": world.status(b).word,
             "finished": b.finished_at(now)}
            for repo, b in world.runs()
            if b.ended(now)
        ]  # fmt: skip


_ACTS: dict[str, Act] = {
    "advance": _advance,
    "burst": _burst,
    "start": _start,
    "finish": _finish,
    "faults": _faults,
}
