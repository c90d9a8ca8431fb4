"""kill -9 at any moment: no build is lost, none counts twice, and no counter falls."""

import json
import os
import random
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

import requests
from process import Exporter, configure, entry, exporter, first_look, happened, until

from exporter.simulator import Clock, World, serve

SEED = int(os.environ.get("KILL_SEED", "20260507"))
KILLS = 11
LONGEST_LIFE = 3.0
HISTORY = 60
"""Builds of each repo that ended before the exporter first saw it; of those 0.5 lists 50."""
LIVE = 30.0
"""Seconds in which builds come and go."""
WORLDS = {"legacy": "drone-0.5", "platform": "drone-0.8", "cloud": "drone-1"}
BRANCHES = ("master", "develop")
EVENTS = ("push", "pull_request", "deployment")
Key = tuple[str, int, int]
"""Repo, number and run."""
OUTCOMES = (*("success",) * 6, *("failure",) * 3, "error", "cancelled", "timeout", "killed")
OF_LOOKS = {"recorded", "seen_open", "row_started", "row_finished"}
"""Columns of builds that tell when a process looked, and what it saw then."""
OF_ANSWERS = {"id", "wait", "duration", "parent"}
"""Columns of history before 1.0, where a feed tells less than a list, and that less than the single build."""


def test_kills_change_nothing(tmp_path: Path) -> None:
    print(f"seed {SEED}")
    chance = random.Random(SEED)
    clock = Clock.real(-1000)
    worlds = {name: make_world(name, dialect, clock, chance) for name, dialect in WORLDS.items()}
    places = [tmp_path / "killed", tmp_path / "whole"]
    with ExitStack() as stack:
        servers = {name: stack.enter_context(serve(world)) for name, world in worlds.items()}
        for place in places:
            place.mkdir()
            configure(place, *(entry(place, *server, import_rate=12.0) for server in servers.items()))
        first_look(places[0], clock)
        (places[1] / "ledger.db").write_bytes((places[0] / "ledger.db").read_bytes())
        for world in worlds.values():
            plan(world, clock.now(), chance)
        over = clock.now() + LIVE

        whole = stack.enter_context(exporter(places[1]))
        killed = stack.enter_context(exporter(places[0]))
        scraper = stack.enter_context(Scraper(killed))
        left = list(kill_at_random_moments(killed, chance))
        until("the end of all builds", lambda: clock.now() > over, LIVE)
        for place in places:
            until("every end in the ledger", partial(is_complete, place, worlds.values()), 90)
        known = scraper.scrapes
        until("a scrape of the end", lambda: scraper.scrapes > known + 1)
        page = happened(killed.metrics())
        assert [one.stop() for one in (killed, whole)] == [0, 0]

    assert len({unread for unread in left if unread}) > 1, f"history left at each kill: {left}"
    assert scraper.scrapes > KILLS
    assert scraper.falls == []
    ledger, reference = (Contents(place / "ledger.db") for place in places)
    assert ledger.integrity == [("ok",)]
    assert ledger.gaps == reference.gaps == []
    assert ledger.horizons == reference.horizons
    assert ledger.builds == reference.builds
    assert ledger.steps == reference.steps
    assert ledger.totals == reference.totals
    assert ledger.heads == reference.heads
    assert set(ledger.builds) == {run for world in worlds.values() for run in runs_of(world)}
    ends = sum(map(ends_of, worlds.values()), Counter())
    assert ledger.ends == ends
    assert (
        sum(value for series, value in page.items() if series.startswith("ci_builds_total")) == ends.total()
    )


def test_kills_before_the_first_look_has_ended(tmp_path: Path) -> None:
    chance = random.Random(SEED)
    worlds = {name: World(dialect, clock=Clock.real()) for name, dialect in WORLDS.items()}
    for name, world in worlds.items():
        world.add_repo(f"{name}/api", builds=HISTORY, days=30)
        world.start_build(f"{name}/api", running=True)
    with ExitStack() as stack:
        servers = {name: stack.enter_context(serve(world)) for name, world in worlds.items()}
        configure(tmp_path, *(entry(tmp_path, *server) for server in servers.items()))
        process = stack.enter_context(exporter(tmp_path))
        for _ in range(4):
            process.started()
            time.sleep(chance.uniform(0, 0.4))
            process.kill()
            process.start()
        process.ready()
        for name, world in worlds.items():
            world.finish(f"{name}/api", HISTORY + 1)
        until("every end in the ledger", lambda: is_complete(tmp_path, worlds.values()))
        assert process.stop() == 0
    ledger = Contents(tmp_path / "ledger.db")
    assert ledger.integrity == [("ok",)]
    assert set(ledger.builds) == {run for world in worlds.values() for run in runs_of(world)}
    assert ledger.ends == {(f"{name}/api", "push", "success"): 1 for name in worlds}


def make_world(name: str, dialect: str, clock: Clock, chance: random.Random) -> World:
    """A server with history, and an open build of each branch and event that will be seen."""
    world = World(dialect, clock=clock, seed=chance.randrange(1 << 30))
    world.add_repos([f"{name}/{repo}" for repo in ("api", "docs", "web")], builds=HISTORY, days=30)
    for repo in world.repos:
        for branch in BRANCHES:
            for event in EVENTS:
                began = clock.now() + 1000 + chance.uniform(0, 3)
                end = began + chance.uniform(1, 5)
                world.start_build(
                    repo, event=event, branch=branch, environment=f"{event:.4}", started=began, finished=end
                )
    return world


def plan(world: World, now: float, chance: random.Random) -> None:
    """Builds of all kinds over the next seconds, a burst that overruns every feed, and restarts."""
    repos = list(world.repos)
    at = now
    while (at := at + chance.expovariate(1.0)) < now + LIVE - 6:
        outcome = chance.choice(OUTCOMES)
        if outcome in ("timeout", "killed") and world.traits.stages:
            outcome = "skipped"
        event = chance.choice(EVENTS)
        began = at + chance.uniform(0, 2)
        ran = 0.0 if outcome == "skipped" else chance.uniform(0.5, 4)
        start(
            world,
            at,
            repo=chance.choice(repos),
            event=event,
            branch=chance.choice(BRANCHES),
            environment=f"{event:.4}",
            outcome=outcome,
            started=began,
            finished=began + ran,
        )
    world.short_builds(60, repos[:2], over=1.0, start=now + 4)
    for turn in range(3):  # all later than the burst: 0.5 shows no restart of what a feed has lost
        fail_and_restart(world, repos[2], now + 6 + 3 * turn)


def start(world: World, at: float, **build: Any) -> None:
    world.at(at, lambda when: world.start_build(at=when, **build))


def fail_and_restart(world: World, repo: str, at: float) -> None:
    """A build fails; long after its end somebody starts it again, and it passes."""

    def fail(when: float) -> None:
        number = world.start_build(repo, started=when, finished=when + 1, outcome="failure", at=when)
        world.at(when + 20, lambda then: restart(number, then))

    def restart(number: int, when: float) -> None:
        new = world.restart(repo, number, at=when)
        world.run(repo, new, at=when)
        world.at(when + 2, lambda then: world.finish(repo, new, at=then))

    world.at(at, fail)


def kill_at_random_moments(process: Exporter, chance: random.Random) -> Iterator[int]:
    """Kills and starts the process again and again; how many builds of history were unread each time."""
    for turn in range(KILLS):
        if turn % 4 != 3:
            process.started()
        moment = chance.uniform(0, LONGEST_LIFE)
        time.sleep(moment)
        process.kill()
        with sqlite3.connect(process.directory / "ledger.db") as ledger:
            found = ledger.execute("SELECT sum(high - low + 1) FROM gaps WHERE history")
            left = found.fetchone()[0] or 0
        print(f"kill {turn + 1} after {moment:.2f} s: {left} builds of history left")
        yield left
        process.start()


class Scraper:
    """Scrapes a process all along, however often it is killed; `falls` are series that went down or away."""

    def __init__(self, process: Exporter) -> None:
        self.scrapes = 0
        self.falls: list[str] = []
        self._process = process
        self._seen: dict[str, float] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Scraper":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(0.2):
            with suppress(requests.RequestException):
                page = happened(self._process.metrics())
                self.falls += [
                    f"{series}: {value} -> {page.get(series)}"
                    for series, value in self._seen.items()
                    if page.get(series, -1.0) < value
                ]
                self._seen = page
                self.scrapes += 1


def runs_of(world: World) -> set[Key]:
    """All that the server ever ran."""
    return {(repo, build.number, int(build.queued)) for repo, build in world.runs(history=True)}


def ends_of(world: World) -> Counter[tuple[str, str, str]]:
    """What is to be counted: (repo, event, status) of everything that ended after the first look."""
    return Counter((repo, build.event, world.status(build).word) for repo, build in world.runs())


def is_complete(directory: Path, worlds: Iterable[World]) -> bool:
    """True once all that ran has an end in the ledger, and nothing is left to be read."""
    with sqlite3.connect(directory / "ledger.db") as ledger:
        settled, unsettled = ledger.execute("SELECT sum(state = 2), sum(state < 2) FROM builds").fetchone()
        (gaps,) = ledger.execute("SELECT count(*) FROM gaps").fetchone()
    return not gaps and not unsettled and settled == sum(len(w.runs(history=True)) for w in worlds)


class Contents:
    """What a ledger says, without the ids of rows and what depends on the moment of a look."""

    def __init__(self, path: Path) -> None:
        with sqlite3.connect(path) as self._ledger:
            self._ledger.row_factory = sqlite3.Row
            self._repos = {row["id"]: row for row in self._rows("repos")}
            self.integrity = [tuple(row) for row in self._ledger.execute("PRAGMA integrity_check")]
            self.gaps = [dict(row) for row in self._rows("gaps")]
            self.horizons = {row["name"]: row["horizon"] for row in self._rows("repos")}
            self._builds = {self._key(row): row for row in self._rows("builds")}
            self.builds = {key: self._build(key) for key in self._builds}
            self.steps = {
                (self._key(row), row["position"]): (*row,)[5:]
                for row in self._rows("steps")
                if self._builds[self._key(row)]["counted"]
            }
            self.totals = {
                (self._repo(row), row["family"], row["labels"]): (
                    row["value"],
                    row["counts"],
                    json.loads(row["exemplars"] or "{}"),
                )
                for row in self._rows("totals")
            }
            self.heads = {
                (self._repo(row), row["kind"], row["name"]): self._head(row) for row in self._rows("heads")
            }

    @property
    def ends(self) -> Counter[tuple[str, str, str]]:
        """What was counted: (repo, event, status)."""
        counted: Counter[tuple[str, str, str]] = Counter()
        for (repo, family, labels), (value, _, _) in self.totals.items():
            if family == "ci_builds_total":
                _, event, status = json.loads(labels)
                counted[repo, event, status] += int(value)
        return counted

    def _rows(self, table: str) -> Iterator[sqlite3.Row]:
        return self._ledger.execute(f"SELECT * FROM {table}")

    def _repo(self, row: sqlite3.Row) -> str:
        return self._repos[row["repo_id"]]["name"]

    def _key(self, row: sqlite3.Row) -> Key:
        return self._repo(row), row["number"], row["run"]

    def _build(self, key: Key) -> dict[str, object]:
        row = self._builds[key]
        poor = not row["counted"] and not key[0].startswith("cloud/")
        left_out = OF_LOOKS | (OF_ANSWERS if poor else set())
        return {column: row[column] for column in row.keys() if column not in left_out}  # noqa: SIM118

    def _head(self, row: sqlite3.Row) -> dict[str, Any]:
        """A head, without the time of an end for which the server gives none: it is that of the look."""
        head: dict[str, Any] = json.loads(row["state"])
        for point in (head.get("last"), head.get("good"), head.get("bad")):
            key = (self._repo(row), *point[0][1:]) if point else None
            if key and not self._builds[key]["finished"]:
                point[1] = 0
            if key and self._tells_no_spans(key):
                point[3] = None
        if "durations" in head:
            keys = ((self._repo(row), *of[0][1:]) for of in head["durations"])
            head["durations"] = [key for key in keys if not self._tells_no_spans(key)]
        return head

    def _tells_no_spans(self, key: Key) -> bool:
        return key[0].startswith("legacy/") and not self._builds[key]["counted"]
