"""The change streams of the dialects that have one: what a listener is told, and what not."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from exporter.simulator import drone05, drone08, drone1, woodpecker
from exporter.simulator.builds import BLOCKED, INTERRUPTED, NEW, PENDING, RUNNING, WAITING, Build, Outcome
from exporter.simulator.repos import Repo, User
from exporter.simulator.steps import LegState, change_times, legs_at
from exporter.simulator.wire import Ask, encode, find_user
from exporter.simulator.world import World

PING = 30.0
"""Seconds between two pings."""
OPEN = (NEW, BLOCKED, PENDING, RUNNING)
Told = Callable[[World, Repo, Build, float, str, int], dict[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """The stream of one dialect."""

    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    socket: bool = False
    """It is a WebSocket (0.5), not server-sent events."""
    bare: bool = True
    """A token without `Bearer` counts too."""
    news: frozenset[str]
    """The changes that it tells of, in the words of `changes`."""
    told: Told
    """(world, repo, build, when, change, which leg) → the event."""
    tells_cancels: bool = True
    """It tells what a person's cancel does to a build."""
    settles: bool = False
    """A cancelled build changes only when its agent has reported (0.5, 0.8)."""
    backlog: float = math.inf
    """How many events a listener may be behind before the rest is lost."""
    patience: float = math.inf
    """Seconds of silence after which the server ends it."""


def _told_05(world: World, repo: Repo, build: Build, at: float, change: str, leg: int) -> dict[str, Any]:
    zero = {
        "id": 0, "number": 0, "error": "", "status": "", "exit_code": 0, "enqueued_at": 0, "started_at": 0,
        "finished_at": 0, "environment": None,
    }  # fmt: skip
    kind = {"queued": "enqueued", "leg begun": "started"}.get(change, "finished")
    job = zero if leg < 0 else drone05.detail(world, repo, build, at)["jobs"][leg]
    row = drone05.build_row(world, repo, build, at)
    return {"type": kind, "repo": drone05.repo_row(world, repo), "build": row, "job": job}


def _told_08(world: World, repo: Repo, build: Build, at: float, change: str, _: int) -> dict[str, Any]:
    zero = {
        "id": 0, "build_id": 0, "pid": 0, "ppid": 0, "pgid": 0, "name": "", "state": "", "exit_code": 0,
    }  # fmt: skip
    row = drone08.build_row(world, repo, build, at) | drone08.detail(world, repo, build, at)
    kind = "enqueued" if change == "queued" else ""
    return {"type": kind, "repo": drone08.repo_row(world, repo), "build": row, "proc": zero}


def _told_1(world: World, repo: Repo, build: Build, at: float, _: str, __: int) -> dict[str, Any]:
    return drone1.repo_row(world, repo) | {"build": drone1.with_stages(world, repo, build, at)}


def _told_woodpecker(world: World, repo: Repo, build: Build, at: float, _: str, __: int) -> dict[str, Any]:
    row = woodpecker.with_workflows(world, repo, build, at)
    return {"repo": woodpecker.repo_row(world, repo), "pipeline": row}


UNBUFFERED = {"X-Accel-Buffering": "no"}
KINDS = {
    "drone-0.5": Kind(
        path="/ws/feed", socket=True, settles=True, told=_told_05,
        news=frozenset({"queued", "leg begun", "leg ended", "leg refused"}),
    ),
    "drone-0.8": Kind(
        path="/stream/events", headers=UNBUFFERED | {"X-Drone-Version": drone08.VERSION}, told=_told_08,
        settles=True, news=frozenset({"queued", "leg begun", "step", "leg ended"}),
    ),
    "drone-1": Kind(
        path="/api/stream", headers=UNBUFFERED | {"Cache-Control": "no-cache"}, told=_told_1, backlog=100,
        patience=3600.0, tells_cancels=False, news=frozenset({"leg begun", "step", "ended", "overtaken"}),
    ),
    "woodpecker": Kind(
        path="/api/stream/events", bare=False, told=_told_woodpecker,
        headers=UNBUFFERED | {"Cache-Control": "no-store", "X-Woodpecker-Version": woodpecker.VERSION},
        news=frozenset({
            "created", "blocked", "queued", "leg begun", "step", "leg ended", "cancelled", "overtaken",
            "refused",
        }),
    ),
}  # fmt: skip
"""ABF has none."""


@dataclass(slots=True)
class Seen:
    """A build as a listener last saw it."""

    repo: Repo
    build: Build
    edits: int
    until: float
    """When it next changes by itself."""
    queued: float
    phase: str
    legs: tuple[LegState, ...]


class Listener:
    """One listener and what is known of what it knows; `look` as often as you like."""

    def __init__(self, world: World, kind: Kind, ask: Ask, now: float) -> None:
        self._world = world
        self._kind = kind
        self._user: User | None = find_user(world, ask, csrf=True, bare=kind.bare)
        own = world.names(self._user, now) if self._user else []
        self._private = {world.repos[name].id for name in own if world.repos[name].private}
        self._at = self._pinged = self._spoke = now
        self._seen: dict[int, Seen] = {}
        self._last: dict[int, bytes] = {}
        """What was last told of a build that runs; now and then told once more after its end."""
        for repo, build in world.open_builds(now):
            self._keep(repo, build, now)
        newest = world.put_in_since(0)
        self._newest = newest[0][1].id if newest else 0

    def look(self, now: float) -> list[bytes]:
        """The events since the last look, as JSON, more or less in their order."""
        events = list(self._events(now))
        self._at = now
        if events:
            self._spoke = now
        return events[: int(min(self._kind.backlog, len(events)))]

    def ping_is_due(self, now: float) -> bool:
        """True once every 30 seconds."""
        due = now >= self._pinged + PING
        self._pinged = now if due else self._pinged
        return due

    def over(self, now: float) -> bool:
        """True when the server ends it because it was silent for too long."""
        return now >= self._spoke + self._kind.patience

    def _events(self, now: float) -> Iterator[bytes]:
        new = self._world.put_in_since(self._newest)
        self._newest = max((build.id for _, build in new), default=self._newest)
        pairs = {build.id: (repo, build) for repo, build in self._world.open_builds(now)}
        pairs |= {build.id: (repo, build) for repo, build in new}
        for build_id, seen in list(self._seen.items()):
            build = seen.repo.live.get(seen.build.number)
            gone = self._world.by_id.get(seen.repo.id) is not seen.repo
            if build is None or build.id != build_id or gone:
                del self._seen[build_id]
            else:
                pairs.setdefault(build_id, (seen.repo, build))
        for _, (repo, build) in sorted(pairs.items()):
            before = self._seen.get(build.id)
            unchanged = before is not None and before.build is build and before.edits == build.edits
            if not (unchanged and before is not None and now < before.until):
                yield from self._story(repo, build, now)

    def _story(self, repo: Repo, build: Build, now: float) -> Iterator[bytes]:
        """What happened to one build, step by step, up to now."""
        before = self._seen.get(build.id)
        begin, first = self._at, list[float]()
        if (before is None or before.queued != build.queued) and build.queued >= self._at:
            begin, first = build.queued, [build.queued]
        times = change_times(build, begin, now, in_turn=self._world.traits.legs_in_turn)
        for at in [*first, *(t for t in times if t < now), now]:
            before = self._seen.get(build.id)
            known = None if before is None or before.queued != build.queued else before
            seen = self._keep(repo, build, at)
            for change, leg in changes(known, seen):
                if change not in self._kind.news or not self._may_see(repo) or self._untold(build, at):
                    continue
                event = encode(self._kind.told(self._world, repo, build, at, change, leg))
                if seen.phase == RUNNING:
                    self._last[build.id] = event
                yield event
        if build.ended(now) and not build.settling(now):
            del self._seen[build.id]
            stale = self._last.pop(build.id, None)
            if stale and (build.outcome is Outcome.CANCELLED or build.id % 5 == 0):
                yield stale

    def _untold(self, build: Build, at: float) -> bool:
        """True for what a person's cancel did, where that is not told."""
        cancelled = build.outcome is Outcome.CANCELLED and not build.overtaken_by and build.ended(at)
        return cancelled and not self._kind.tells_cancels

    def _keep(self, repo: Repo, build: Build, at: float) -> Seen:
        in_turn = self._world.traits.legs_in_turn
        times = change_times(build, at, math.inf, in_turn=in_turn)
        settling, phase = build.settling(at), build.phase(at)
        if settling and self._kind.settles and build.finished is not None:
            phase, legs = RUNNING, legs_at(build, math.nextafter(build.finished, 0), in_turn=in_turn)
        else:
            legs = legs_at(build, at, in_turn=in_turn)
        if settling:
            legs = tuple(replace(leg, state=RUNNING) if leg.state in INTERRUPTED else leg for leg in legs)
        seen = Seen(repo, build, build.edits, times[0] if times else math.inf, build.queued, phase, legs)
        self._seen[build.id] = seen
        return seen

    def _may_see(self, repo: Repo) -> bool:
        return not repo.private or repo.id in self._private


def changes(before: Seen | None, after: Seen) -> Iterator[tuple[str, int]]:
    """What happened between two looks at a build: (change, which leg, or -1).

    The changes: created, blocked, queued, leg begun, step, leg ended, leg refused, ended, cancelled,
    overtaken, refused.
    """
    phase = after.phase
    if before is None or before.phase != phase:
        was = before.phase if before else ""
        if phase in (NEW, BLOCKED):
            yield ("created" if phase == NEW else "blocked"), -1
        elif phase == PENDING or (phase == RUNNING and was in ("", NEW)):
            yield "queued", -1
    for i, leg in enumerate(after.legs):
        old = before.legs[i] if before and i < len(before.legs) else None
        if leg.state == RUNNING and (old is None or old.state != RUNNING):
            yield "leg begun", i
        yield from (("step", i) for _ in range(_moved(old, leg)))
        over = leg.started and leg.state not in (*OPEN, WAITING, Outcome.SKIPPED)
        if over and (old is None or old.state != leg.state):
            yield ("leg refused" if leg.state == Outcome.ERROR else "leg ended"), i
    if phase in OPEN or (before is not None and before.phase == phase):
        return
    match phase:
        case Outcome.CANCELLED:
            yield ("overtaken" if after.build.overtaken_by else "cancelled"), -1
        case Outcome.SKIPPED:
            yield "overtaken", -1
        case Outcome.ERROR:
            yield "refused", -1
        case Outcome.DECLINED:
            return
        case _:
            yield "ended", -1


def _moved(old: LegState | None, new: LegState) -> int:
    """How many steps are in another state than before."""
    before = {step.plan.name: step.state for step in old.steps} if old else {}
    return sum(before.get(step.plan.name, PENDING) != step.state for step in new.steps)
