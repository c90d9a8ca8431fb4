"""ROSA's and OpenMandriva's ABF as recordings of both have it, and its moves on a farm that answers alike."""

import base64
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import pytest
from farm import JSON, Farm
from hypothesis import given
from hypothesis import strategies as st
from odd import HOSTILE, ODD_VALUES, is_sane, places, replaced
from replay import TOKEN, Replay, differences, opened, recording, recordings, replaying

from exporter.http import ServerError
from exporter.model import Build, Event, Status, User, Word
from exporter.servers import Operation, Server, told_until
from exporter.servers.abf import FRESH, LOST_EVERY, MOST_SHOWN, OPEN_EVERY, OVERLAP, TRIES
from exporter.servers.abf_wire import PUBLISHING, STATUSES
from exporter.telemetry import Telemetry

REPO = "import/hello"
MINUTE = 60


class Records:
    """What a ledger would have of the builds that were told: the newest run of each number."""

    def __init__(self) -> None:
        self.builds: dict[int, Build] = {}

    def take(self, builds: Collection[Build]) -> None:
        for build in builds:
            known = self.builds.get(build.number)
            if known is None or build.run >= known.run:
                self.builds[build.number] = build

    def newest(self, numbers: Collection[int]) -> Mapping[int, Build]:
        return {number: self.builds[number] for number in numbers if number in self.builds}

    def open(self) -> list[Build]:
        return [build for build in self.builds.values() if not build.ended]

    def id_of(self, repo: str) -> str:  # noqa: ARG002
        return ""


class Reader:
    """One process that reads a farm, and records what it is told."""

    def __init__(self, replay: Replay, telemetry: Telemetry, records: Records, cursor: str = "") -> None:
        self.server = opened(replay, telemetry, "abf", recall=records, allow_writes=True)
        self.records, self.cursor = records, cursor

    def look(self) -> list[Build]:
        """One look at the feed, recorded."""
        builds, self.cursor = self.server.feed(self.cursor)
        self.records.take(builds)
        return builds

    def look_at_open(self) -> list[Build]:
        builds = self.server.open_builds() or []
        self.records.take(builds)
        return builds


@pytest.fixture
def telemetry() -> Telemetry:
    return Telemetry()


@pytest.fixture
def replay() -> Iterator[Replay]:
    with replaying("abf", "rosa-arches", "rosa-platforms") as replay:
        yield replay


@pytest.fixture
def farm(replay: Replay) -> Farm:
    return Farm(replay)


@pytest.fixture
def reader(farm: Farm, replay: Replay, telemetry: Telemetry) -> Iterator[Reader]:
    reader = Reader(replay, telemetry, Records())
    reader.server.whoami()
    yield reader
    reader.server.session.close()


@pytest.fixture
def server(reader: Reader) -> Server:
    return reader.server


def steps(build: Build) -> list[str]:
    return [f"{step.name} {step.status.word}" for step in build.steps]


def unknown(telemetry: Telemetry, field: str) -> float:
    labels = {"server": "ci", "field": field}
    return telemetry.registry.get_sample_value("ci_unknown_values_total", labels) or 0


BUILT = ["build success", "tests success"]
TIMELESS = {"started": 0, "finished": 0, "wait": None}
SHOWN: dict[str, tuple[str, int | None, list[str]]] = {
    "om-show-anonymous": ("success", 212, BUILT),
    "om-show-build-error": ("failure", 47, ["build failure"]),
    "om-show-canceled": ("cancelled", 65, ["build cancelled"]),
    "om-show-canceling": ("running", None, ["build running"]),
    "om-show-mass-build": ("pending", None, ["build pending"]),
    "om-show-no-commit-yet": ("pending", None, ["build pending"]),
    "om-show-published": ("success", 180, [*BUILT, "publish success"]),
    "om-show-publishing": ("success", 180, [*BUILT, "publish running"]),
    "om-show-requeued": ("pending", None, ["build pending"]),
    "om-show-success": ("success", 212, BUILT),
    "om-show-with-packages-and-logs": ("success", 311, BUILT),
    "rosa-show-after-publish-answer": ("success", 180, BUILT),
    "rosa-show-auto-publishing": ("success", 118, [*BUILT, "publish running"]),
    "rosa-show-build-error": ("failure", 47, ["build failure"]),
    "rosa-show-canceled": ("cancelled", 65, ["build cancelled"]),
    "rosa-show-canceling-never-started": ("running", None, ["build running"]),
    "rosa-show-canceling": ("running", None, ["build running"]),
    "rosa-show-failed-publish": ("success", 95, [*BUILT, "publish error"]),
    "rosa-show-mass-build": ("pending", None, ["build pending"]),
    "rosa-show-packages-fail": ("failure", 90, ["build failure"]),
    "rosa-show-pending": ("pending", None, ["build pending"]),
    "rosa-show-published": ("success", 180, [*BUILT, "publish success"]),
    "rosa-show-publishing": ("success", 180, [*BUILT, "publish running"]),
    "rosa-show-rejected": ("success", 95, [*BUILT, "publish cancelled"]),
    "rosa-show-requeued": ("pending", None, ["build pending"]),
    "rosa-show-restarted": ("running", None, ["build running"]),
    "rosa-show-started": ("running", None, ["build running"]),
    "rosa-show-success": ("success", 212, BUILT),
    "rosa-show-tests-failed": ("failure", 190, ["build success", "tests failure"]),
    "rosa-show-unpermitted-arch": ("error", None, ["build error"]),
    "rosa-show-waiting": ("pending", None, ["build pending"]),
    "rosa-show-with-packages-and-logs": ("success", 311, BUILT),
}


def shown(server: Server, replay: Replay, name: str) -> Build:
    body = recording("abf", name)["body"]["build_list"]
    replay.play(name)
    return server.build(body["project"]["fullname"], body["id"])


@pytest.mark.parametrize("name", SHOWN)
def test_single_build_lists(name: str, server: Server, replay: Replay) -> None:
    build = shown(server, replay, name)
    status, duration, expected = SHOWN[name]
    assert (build.status.word, build.duration, steps(build)) == (status, duration, expected)
    assert (build.word, build.detailed, build.event) == (Word.FINAL, True, Event.MANUAL)
    assert (build.wait, build.finished, build.run) == (None, 0, build.created)
    assert build.ended is (not build.status.open)


def test_every_recorded_build_list_is_in_the_table() -> None:
    named = {
        name for name in recordings("abf") if "-show-" in name and not name.endswith("unauthorized-show")
    }
    assert named == SHOWN.keys()


def test_what_a_build_list_is(server: Server, replay: Replay) -> None:
    expected = {
        "repo": REPO, "number": 5, "id": 5, "run": 1768209300, "created": 1768209300, "parent": 0,
        "branch": "rosa2023.1/main/x86_64", "ref": "", "ref_class": "manual:rosa2023.1/main/x86_64",
        "commit": "3f786850e387550fdab836ed7e6dc881de23001b", "by_hand": False, "environment": "", "cron": "",
        "author": "ada", "title": "", "error": "",
    }  # fmt: skip
    assert differences(shown(server, replay, "rosa-show-success"), **expected) == {}
    assert server.version == "ROSA"
    mass = shown(server, replay, "om-show-mass-build")
    assert (mass.branch, mass.title, mass.commit) == ("cooker/main/x86_64", "12.Jan-cooker", "")
    assert server.version == "OpenMandriva"
    (repo,) = server.repos()
    assert (repo.name, repo.id, repo.build_url) == (REPO, "1", "https://ci.example.com/build_lists/")
    assert (repo.counter, repo.newest) == (0, None), "its builds are told by the feed alone"
    assert server.repos(brief=True) == [repo]


def test_what_it_cannot_do_is_data(server: Server) -> None:
    limits = server.limits
    assert (limits.restart_in_place, limits.lists_repos, limits.sparse_numbers) == (True, False, True)
    assert limits.operations == frozenset(Operation) - {Operation.RESTART}


CODES = {
    4000: "pending", 2000: "pending", 2500: "pending", 16000: "pending", 3000: "running", 10000: "running",
    2550: "running", 0: "success", 6000: "success", 7000: "success", 8000: "success", 9000: "success",
    12000: "success", 13000: "success", 14000: "success", 5000: "cancelled", 666: "failure",
    11000: "failure", 777: "failure", 15000: "error",
}  # fmt: skip


@pytest.mark.parametrize("code", CODES)
def test_codes(code: int, farm: Farm, server: Server, telemetry: Telemetry) -> None:
    farm.put(7, code)
    build = server.build(REPO, 7)
    assert build.status.word == CODES[code]
    assert unknown(telemetry, "status") == 0
    assert CODES.keys() == STATUSES.keys()


def test_unknown_codes_are_kept_and_counted(farm: Farm, reader: Reader, telemetry: Telemetry) -> None:
    farm.put(6, 1)
    farm.put(7, 2000)
    builds = {build.number: build for build in reader.look()}
    assert (builds[6].status, builds[6].ended, steps(builds[6])) == (Status.UNKNOWN, False, ["build unknown"])
    assert builds[7].status is Status.PENDING
    assert unknown(telemetry, "status") == 1
    farm.put(6, 0)
    assert [build.status for build in reader.look()] == [Status.SUCCESS]


def test_odd_values_become_harmless(farm: Farm, server: Server, telemetry: Telemetry) -> None:
    farm.put(7, 0, duration=-5, commit_hash=None, user=None, mass_build=None)
    farm.lists[7] |= {"created_at": 7, "updated_at": 1 << 60}
    build = server.build(REPO, 7)
    assert differences(build, created=0, run=0, duration=None, commit="", author="", **TIMELESS) == {}
    assert (unknown(telemetry, "created"), unknown(telemetry, "finished")) == (1, 1)
    farm.put(8, 0, duration=1 << 40)
    assert server.build(REPO, 8).duration is None


# Moves: a build list goes through codes, one look at each; what each look tells.


def walk(farm: Farm, reader: Reader, *codes: int, number: int = 7, every: float = 15) -> list[Build]:
    """What is told of a build list at each of its codes, `every` seconds apart."""
    told = []
    for code in codes:
        farm.replay.now += every
        began = farm.lists.get(number, {}).get("began", 0)
        changes: dict[str, object] = {"began": farm.replay.now} if code == 3000 else {}
        if code in {0, 666, 5000, 10000, 11000} and began:
            changes["duration"] = int(farm.replay.now) - int(began)
        farm.put(number, code, **changes)
        (build,) = reader.look()
        told.append(build)
    return told


@pytest.mark.parametrize(
    ("codes", "runs", "statuses"),
    [
        ((4000, 2000, 3000, 0), 1, "pending pending running success"),
        ((2000, 3000, 666), 1, "pending running failure"),
        ((2000, 3000, 11000), 1, "pending running failure"),
        ((2000, 3000, 15000), 1, "pending running error"),
        ((2000, 3000, 10000, 5000), 1, "pending running running cancelled"),
        ((2000, 3000, 10000, 0), 1, "pending running running success"),
        ((2000, 10000, 5000), 1, "pending running cancelled"),
        ((2000, 0), 1, "pending success"),
        # Put back by the first failure.
        ((2000, 3000, 2000, 3000, 666), 1, "pending running pending running failure"),
        # A late worker.
        ((3000, 5000, 0), 1, "running cancelled success"),
        ((3000, 5000, 666), 1, "running cancelled failure"),
        ((3000, 5000, 11000), 1, "running cancelled failure"),
        ((3000, 5000, 15000), 1, "running cancelled error"),
        ((3000, 5000, 7000), 1, "running cancelled success"),
        # Publishing.
        ((3000, 0, 7000, 6000), 1, "running success success success"),
        ((3000, 7000, 6000), 1, "running success success"),
        ((3000, 0, 7000, 8000, 7000, 6000), 1, "running success success success success success"),
        ((3000, 0, 9000), 1, "running success success"),
        ((3000, 0, 13000, 12000, 7000, 6000), 1, "running success success success success success"),
        ((3000, 0, 13000, 14000), 1, "running success success success"),
        ((3000, 11000, 7000, 6000), 1, "running failure failure failure"),
        ((3000, 11000, 6000), 1, "running failure failure"),
        # A test rerun, seen and not seen.
        ((3000, 0, 2500, 2550, 0), 2, "running success pending running success"),
        ((3000, 11000, 2500, 2550, 11000), 2, "running failure pending running failure"),
        ((3000, 11000, 2550, 0, 7000, 6000), 2, "running failure running success success success"),
        ((3000, 0, 11000), 2, "running success failure"),
        ((3000, 11000, 0), 2, "running failure success"),
        # A restart, seen and not seen.
        ((3000, 666, 2000, 3000, 0), 2, "running failure pending running success"),
        ((3000, 0, 7000, 6000, 2000, 3000, 666), 2,
         "running success success success pending running failure"),
        ((3000, 5000, 4000, 2000), 2, "running cancelled pending pending"),
        ((3000, 666, 16000, 2000), 2, "running failure pending pending"),
        ((3000, 666, 3000, 666), 2, "running failure running failure"),
        ((3000, 666, 0), 2, "running failure success"),
        ((3000, 666, 7000), 2, "running failure success"),
        ((3000, 666, 5000), 2, "running failure cancelled"),
        ((3000, 666, 11000), 2, "running failure failure"),
        ((3000, 0, 666), 2, "running success failure"),
        ((3000, 6000, 0), 2, "running success success"),
        ((15000, 0), 2, "error success"),
        ((3000, 0, 15000), 2, "running success error"),
        ((3000, 0, 5000), 2, "running success cancelled"),
        # Packages that were lost.
        ((3000, 0, 777), 1, "running success failure"),
        ((3000, 777), 1, "running failure"),
        ((777, 2000, 0), 2, "failure pending success"),
        ((777, 0), 2, "failure success"),
        # A code that nobody knows is no move.
        ((3000, 4711, 0), 1, "running unknown success"),
        ((3000, 0, 4711, 0), 1, "running success unknown success"),
    ],
)  # fmt: skip
def test_moves(codes: tuple[int, ...], runs: int, statuses: str, farm: Farm, reader: Reader) -> None:
    reader.look()
    told = walk(farm, reader, *codes)
    assert [build.status.word for build in told] == statuses.split()
    found = list(dict.fromkeys(build.run for build in told))
    assert len(found) == runs
    assert found[0] == told[0].created
    assert found == sorted(found)
    # What is recorded is enough to go on with, for another process too.
    again = Reader(farm.replay, Telemetry(), reader.records, reader.cursor)
    (same,) = again.look()
    assert differences(
        same, run=told[-1].run, status=told[-1].status, started=told[-1].started, finished=told[-1].finished
    ) == {}  # fmt: skip
    assert steps(same) == steps(told[-1])
    again.server.session.close()


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ((3000, 0), BUILT),
        ((3000, 666), ["build failure"]),
        ((3000, 11000), ["build success", "tests failure"]),
        ((2000, 5000), ["build cancelled"]),
        ((3000, 0, 7000), [*BUILT, "publish running"]),
        ((3000, 0, 7000, 8000), [*BUILT, "publish error"]),
        ((3000, 0, 13000, 14000), [*BUILT, "publish error"]),
        ((3000, 0, 12000), [*BUILT, "publish success"]),
        ((3000, 0, 9000), [*BUILT, "publish cancelled"]),
        ((3000, 11000, 6000), ["build success", "tests failure", "publish success"]),
        ((3000, 0, 2500), ["tests pending"]),
        ((3000, 0, 2500, 2550), ["tests running"]),
        ((3000, 0, 2500, 2550, 11000), ["tests failure"]),
        ((3000, 11000, 0, 6000), ["tests success", "publish success"]),
        ((3000, 0, 2550, 2000, 3000, 0), BUILT),
    ],
)
def test_steps(codes: tuple[int, ...], expected: list[str], farm: Farm, reader: Reader) -> None:
    reader.look()
    assert steps(walk(farm, reader, *codes)[-1]) == expected


def test_the_step_publish_has_the_times_that_were_seen(farm: Farm, reader: Reader) -> None:
    reader.look()
    for codes, spans in (
        ((0, 7000, 6000), [None, 15]),
        ((7000, 8000, 7000, 6000), [None, 15, None, 15]),
        ((13000, 7000, 6000), [None, None, 30]),
        ((0, 6000), [None]),
    ):
        told = walk(farm, reader, *codes, number=sum(codes))
        found = [step.duration for build in told for step in build.steps if step.name == "publish"]
        assert found == spans


def test_durations(farm: Farm, reader: Reader) -> None:
    reader.look()
    told = walk(farm, reader, 2000, 3000, 0, 2500, 2550, 0)
    # After a rerun of the tests the server counts from the build's own start.
    assert farm.lists[7]["duration"] == 60
    assert [build.duration for build in told] == [None, None, 15, None, None, None]
    told = walk(farm, reader, 3000, 666, 2000, 3000, 666, number=8)
    assert [build.duration for build in told] == [None, 15, None, None, 15]
    # A restarted build that never began keeps the duration of the run before.
    farm.put(9, 666, duration=400)
    reader.look()
    told = walk(farm, reader, 2000, 5000, number=9)
    assert farm.lists[9]["duration"] == 400
    assert [build.duration for build in told] == [None, None]
    farm.put(10, 15000, duration=47)
    assert [build.duration for build in reader.look()] == [None]


def test_times_of_changes_that_were_seen_as_they_came(farm: Farm, reader: Reader) -> None:
    reader.look()
    pending, running, ended = walk(farm, reader, 2000, 3000, 0)
    created = pending.created
    assert differences(running, started=created + 15, finished=0, wait=None) == {}
    assert differences(ended, started=created + 15, finished=created + 30, wait=15, duration=15) == {}
    # What comes later moves `updated_at`, and no time of the build.
    for build in walk(farm, reader, 7000, 6000):
        assert differences(build, started=created + 15, finished=created + 30, wait=15, duration=15) == {}
    (short,) = walk(farm, reader, 0, number=8)
    assert (short.finished, short.wait) == (short.created, None)


def test_a_short_build_tells_its_times_at_once(farm: Farm, reader: Reader) -> None:
    reader.look()
    farm.replay.now += 15
    created = int(farm.replay.now) - 12
    farm.put(7, 666, created_at=created, duration=7)
    (build,) = reader.look()
    assert differences(build, started=created + 5, finished=created + 12, wait=5, duration=7) == {}


def test_a_build_that_was_put_back_tells_no_wait(farm: Farm, reader: Reader) -> None:
    reader.look()
    ended = walk(farm, reader, 2000, 3000, 2000, 3000, 0)[-1]
    assert (ended.started, ended.wait, ended.duration) == (ended.created + 45, None, 15)


def test_a_restart_tells_no_wait(farm: Farm, reader: Reader) -> None:
    reader.look()
    ended = walk(farm, reader, 3000, 666, 2000, 3000, 0)[-1]
    assert (ended.started, ended.finished, ended.wait) == (ended.run + 15, ended.run + 30, None)


def test_changes_that_are_older_than_the_last_look_tell_less(farm: Farm, reader: Reader) -> None:
    reader.look()
    walk(farm, reader, 2000)
    walk(farm, reader, 2000, 3000, number=8)
    farm.replay.now += 60
    farm.put(7, 0, duration=30)
    farm.put(8, 0, duration=40)
    farm.replay.now += FRESH
    builds = {build.number: build for build in reader.look()}
    # When it ended is not known: something may have moved `updated_at` since.
    assert differences(builds[7], **TIMELESS, duration=30) == {}
    # Where it was seen to start, its duration tells.
    began = builds[8].created + 15
    assert differences(builds[8], started=began, finished=began + 40, wait=15, duration=40) == {}


def test_history_tells_no_times(farm: Farm, reader: Reader) -> None:
    farm.put(7, 6000, duration=30)
    farm.replay.now += MINUTE
    reader.look()
    assert differences(reader.server.build(REPO, 7), **TIMELESS, duration=30) == {}


# The window.


def since(farm: Farm) -> list[float]:
    found = [search.get("filter[updated_at_start]") for search in farm.searches]
    return [float(value[0]) for value in found if value]


def test_a_quiet_server_costs_one_page(farm: Farm, reader: Reader, replay: Replay) -> None:
    farm.put(7, 0)
    reader.look()
    farm.replay.now += MINUTE
    reader.look()
    for _ in range(3):
        farm.replay.now += 15
        asked, start = len(replay.asked), since(farm)[-1]
        assert reader.look() == []
        assert len(replay.asked) == asked + 1
        assert since(farm)[-1] == start


def test_the_window_begins_a_minute_before_the_newest_change(farm: Farm, reader: Reader) -> None:
    reader.look()
    farm.replay.now += 100
    farm.put(7, 2000)
    changed = farm.replay.now
    farm.replay.now += 10
    reader.look()
    farm.replay.now += 1000
    reader.look()
    assert since(farm)[-1] == changed - OVERLAP
    assert told_until(reader.cursor) == pytest.approx(farm.replay.now - OVERLAP, abs=3)
    (search,) = farm.searches[-1:]
    assert search["filter[ownership]"] == ["everything"]
    assert search["per_page"] == ["100"]


def test_no_window_begins_after_the_one_before_did(farm: Farm, reader: Reader) -> None:
    """A row that moves while pages are fetched is found by the next window."""
    reader.look()
    farm.replay.now += 100
    began = farm.replay.now
    farm.put(7, 2000)
    original = farm.replay.live

    def moving(line: str) -> Any:
        answer = original(line) if original else None
        if "updated_at_start" in line and not farm.lists.get(9):
            farm.replay.now += 200
            farm.put(8, 2000, at=began + 1)
            farm.put(9, 2000, at=began + 200)
        return answer

    farm.replay.live = moving
    assert [build.number for build in reader.look()] == [7]
    farm.put(7, 3000)
    assert {build.number for build in reader.look()} == {7, 8, 9}
    assert since(farm)[-1] <= began


def test_pages_until_a_short_one(farm: Farm, reader: Reader) -> None:
    reader.look()
    farm.replay.now += 15
    for number in range(1, 251):
        farm.put(number, 2000, at=farm.replay.now - 10 + number / 100)
    farm.searches.clear()
    told = [build.number for build in reader.look()]
    assert [search["page"] for search in farm.searches] == [["1"], ["2"], ["3"]]
    # The oldest come first, some with each look.
    assert told == list(range(MOST_SHOWN, 0, -1))
    while builds := reader.look():
        told += [build.number for build in builds]
    assert sorted(told) == list(range(1, 251))


def test_full_pages_end_by_an_empty_one(farm: Farm, reader: Reader) -> None:
    reader.look()
    farm.replay.now += 15
    for number in range(1, 101):
        farm.put(number, 2000)
    farm.searches.clear()
    assert len(reader.look()) == 100
    assert [search["page"] for search in farm.searches] == [["1"], ["2"]]


def test_what_is_left_of_a_look_survives_a_restart(farm: Farm, reader: Reader, replay: Replay) -> None:
    reader.look()
    farm.replay.now += 1000
    for number in range(1, 251):
        farm.put(number, 0, at=farm.replay.now - 900 + number)
    farm.replay.now += 15
    reader.look()
    again = Reader(replay, Telemetry(), reader.records, reader.cursor)
    farm.shown.clear()
    while again.look():
        farm.replay.now += 15
    assert set(again.records.builds) == set(range(1, 251))
    assert len(farm.shown) <= 150 + OVERLAP + 1
    again.server.session.close()


def test_what_was_not_recorded_is_told_again(farm: Farm, reader: Reader) -> None:
    farm.put(7, 2000)
    reader.look()
    for code in (3000, 0):
        farm.replay.now += 15
        farm.put(7, code, duration=5)
        lost, _ = reader.server.feed(reader.cursor)
        (told,) = reader.look()
        assert told.status is lost[0].status
        assert told.run == told.created
    assert reader.look() == []


def test_builds_of_the_same_second_are_told_again_too(farm: Farm, reader: Reader) -> None:
    """The cursor is another after each answer, though no time went by."""
    farm.put(7, 2000)
    farm.put(8, 2000)
    reader.look()
    first = reader.cursor
    farm.put(7, 3000)
    reader.look()
    assert reader.cursor != first
    farm.put(8, 3000)
    reader.server.feed(reader.cursor)
    assert 8 in {build.number for build in reader.look()}


@pytest.mark.parametrize("cursor", ["x", "-5", "1e9", "99999999999999999999.1", ".", "²"])
def test_a_cursor_that_is_none_begins_anew(
    cursor: str, farm: Farm, replay: Replay, telemetry: Telemetry
) -> None:
    farm.put(7, 2000, at=replay.now - 86_400)
    reader = Reader(replay, telemetry, Records(), cursor)
    assert [build.number for build in reader.look()] == [7]
    reader.server.session.close()


def test_first_contact_reads_what_is_open(farm: Farm, reader: Reader) -> None:
    farm.replay.now += 10 * 86_400
    for number, code in enumerate(sorted(CODES), start=1):
        farm.put(number, code, at=farm.replay.now - 86_400 - number)
    told = {build.number: build for build in reader.look()}
    codes = {farm.lists[number]["status"] for number in told}
    assert codes == {code for code in CODES if CODES[code] in {"pending", "running"}} | {7000, 13000}
    assert told_until(reader.cursor) > 0
    assert reader.look() == []
    assert since(farm)[-1] == int(farm.replay.now) - OVERLAP


def test_first_contact_goes_on_where_it_was_cut_off(farm: Farm, reader: Reader, replay: Replay) -> None:
    for number in range(1, 251):
        farm.put(number, 2000, at=replay.now - 9000 + number)
    assert [build.number for build in reader.look()] == list(range(100, 0, -1))
    assert reader.cursor.startswith("0.")
    # What changes meanwhile comes first.
    farm.replay.now += 15
    farm.put(300, 2000)
    assert reader.look()[-1].number == 300
    again = Reader(replay, Telemetry(), reader.records, reader.cursor)
    while again.cursor.startswith("0."):
        farm.replay.now += 15
        again.look()
    assert set(again.records.builds) == {*range(1, 251), 300}
    assert [float(x) for x in since(farm)[:2]] == [farm.order[1] + 8999 - OVERLAP] * 2
    again.server.session.close()


def test_a_downtime_is_covered_by_the_cursor(farm: Farm, reader: Reader, replay: Replay) -> None:
    farm.put(7, 2000)
    reader.look()
    for number, hours in ((7, 1), (8, 2), (9, 3)):
        farm.put(number, 0, at=replay.now + hours * 3600, duration=9)
    farm.replay.now += 5 * 3600
    again = Reader(replay, Telemetry(), reader.records, reader.cursor)
    assert [build.number for build in again.look()] == [9, 8, 7]
    again.server.session.close()


# What cannot be read.


def answering(status: int, body: object, **headers: str) -> dict[str, object]:
    return {"status": status, "headers": JSON | headers, "body": body}


def test_a_hidden_build_list_is_passed_over_until_it_changes(
    farm: Farm, reader: Reader, telemetry: Telemetry
) -> None:
    reader.look()
    farm.replay.now += 15
    farm.put(7, 2000)
    farm.put(8, 2000)
    farm.broken[7] = recording("abf", "rosa-forbidden")
    assert [build.number for build in reader.look()] == [8]
    assert reader.look() == []
    assert farm.shown.count(7) == 1
    labels = {"server": "ci", "reason": "auth"}
    assert telemetry.registry.get_sample_value("ci_server_poll_failures_total", labels) == 1
    farm.broken.clear()
    farm.put(7, 3000)
    assert [build.number for build in reader.look()] == [7]


@pytest.mark.parametrize(
    "answer",
    [
        recording("abf", "rosa-server-error"),
        answering(200, {"build_list": {"id": 7}}),
        answering(200, b'{"build_list": '),
        recording("abf", "rosa-show-success"),
        answering(200, None),
    ],
)
def test_a_build_list_that_cannot_be_read_is_tried_again(answer: object, farm: Farm, reader: Reader) -> None:
    reader.look()
    farm.replay.now += 15
    farm.put(7, 0)
    farm.put(8, 0)
    farm.broken[7] = answer
    told = []
    for _ in range(3):
        told += [build.number for build in reader.look()]
        farm.replay.now += 200
    assert told == [8]
    farm.broken.clear()
    assert [build.number for build in reader.look()] == [7]
    farm.put(9, 0)
    farm.broken[9] = answer
    for _ in range(TRIES + 5):
        reader.look()
    assert farm.shown.count(9) == TRIES
    farm.broken.clear()
    farm.put(9, 7000)
    assert [build.number for build in reader.look()] == [9]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (recording("abf", "om-rate-limited"), "limit"),
        (recording("abf", "rosa-unauthorized"), "auth"),
        ({"status": 503, "headers": {"Content-Type": "text/html"}, "body": "<html>"}, "status"),
        ({"status": 502, "headers": {}, "body": ""}, "status"),
    ],
)
def test_a_server_that_fails_midway_costs_nothing_that_was_read(
    answer: object, reason: str, farm: Farm, reader: Reader
) -> None:
    reader.look()
    farm.replay.now += 15
    for number in (7, 8, 9):
        farm.put(number, 0, at=farm.replay.now - 10 + number)
    farm.broken[8] = answer
    assert [build.number for build in reader.look()] == [7]
    # An hour later the limit of requests is a new one.
    farm.replay.now += 3600
    cursor = reader.cursor
    with pytest.raises(ServerError) as caught:
        reader.look()
    assert caught.value.reason == reason
    assert reader.cursor == cursor
    farm.broken.clear()
    farm.replay.now += 3600
    assert [build.number for build in reader.look()] == [9, 8]


@pytest.mark.parametrize("fullname", ["hello", "a/b/c", "", "import/he\nllo"])
def test_projects_without_a_proper_name_are_passed_over(
    fullname: str, farm: Farm, reader: Reader, telemetry: Telemetry
) -> None:
    farm.put(7, 2000, project=fullname)
    farm.put(8, 2000)
    assert [build.number for build in reader.look()] == [8]
    assert [repo.name for repo in reader.server.repos()] == [REPO]
    assert unknown(telemetry, "row") == 1
    farm.replay.now += 15
    assert reader.look() == []


def test_what_is_known_has_an_end(farm: Farm, reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exporter.servers.abf.MOST_KNOWN", 3)
    for number in range(1, 9):
        farm.put(number, 2000)
    farm.broken |= dict.fromkeys((1, 2, 3, 4), recording("abf", "rosa-forbidden"))
    assert len(reader.look()) == 4
    first, refused = farm.shown[0], next(number for number in farm.shown if number < 5)
    farm.shown.clear()
    # The first of each are forgotten, and asked for again.
    assert [build.number for build in reader.look()] == [first]
    assert set(farm.shown) == {first, refused}


# Packages that were lost.


def test_packages_that_were_found_missing(farm: Farm, reader: Reader, replay: Replay) -> None:
    reader.look()
    (told, _) = walk(farm, reader, 0, 6000)
    walk(farm, reader, 0, number=8)
    walk(farm, reader, 666, number=9)
    walk(farm, reader, 2000, 3000, number=10, every=200)  # the window is past them
    farm.put(5, 777, at=replay.now - 86_400)
    for number in (7, 8, 9):
        farm.put(number, 777, quietly=True)
    farm.replay.now += LOST_EVERY - 500
    assert reader.look() == []
    farm.replay.now += 500
    # Not those that failed before, nor those that nobody had told of.
    found = {build.number: build for build in reader.look()}
    assert {number: (build.run, build.status) for number, build in found.items()} == {
        7: (told.run, Status.FAILURE), 8: (farm.lists[8]["created_at"], Status.FAILURE),
    }  # fmt: skip
    farm.replay.now += LOST_EVERY
    assert reader.look() == []
    # Another process knows it from what was recorded.
    again = Reader(replay, Telemetry(), reader.records, reader.cursor)
    farm.shown.clear()
    farm.replay.now += LOST_EVERY
    assert 7 not in {build.number for build in again.look()}
    assert sum(search.get("filter[status]") == ["777"] for search in farm.searches) == 4
    again.server.session.close()


# Open builds.


def test_open_builds_are_looked_at_by_their_ids(farm: Farm, reader: Reader) -> None:
    for number in (7, 8, 9):
        farm.put(number, 3000)
    reader.look()
    farm.searches.clear()
    farm.shown.clear()
    assert {build.number for build in reader.look_at_open()} == {7, 8, 9}
    (search,) = farm.searches
    assert (search["filter[id][]"], search["per_page"]) == (["7", "8", "9"], ["100"])
    assert farm.shown == []


def test_nothing_is_asked_where_nothing_is_open(farm: Farm, reader: Reader, replay: Replay) -> None:
    farm.put(7, 0)
    reader.look()
    asked = len(replay.asked)
    assert reader.server.open_builds() == []
    assert len(replay.asked) == asked


def test_a_build_that_was_put_back_without_a_trace(farm: Farm, reader: Reader) -> None:
    reader.look()
    pending, running = walk(farm, reader, 2000, 3000)
    walk(farm, reader, 2000, 0, number=9, every=200)  # the window is past it
    farm.put(7, 2000, quietly=True)
    farm.replay.now += 15
    assert reader.look() == []
    (build,) = reader.look_at_open()
    assert (build.status, build.run) == (Status.PENDING, pending.run)
    farm.replay.now += 15
    (ended,) = walk(farm, reader, 0)
    assert (ended.run, ended.wait) == (running.run, None)


def test_open_builds_are_looked_at_once_a_minute(farm: Farm, reader: Reader) -> None:
    farm.put(7, 3000)
    reader.look()
    reader.look_at_open()
    farm.searches.clear()
    farm.put(7, 2000, quietly=True)
    farm.replay.now += OPEN_EVERY - 1
    assert [build.status for build in reader.look_at_open()] == [Status.RUNNING]
    assert farm.searches == []
    farm.replay.now += 1
    assert [build.status for build in reader.look_at_open()] == [Status.PENDING]


def test_many_open_builds_are_looked_at_less_often(farm: Farm, reader: Reader) -> None:
    for number in range(1, 1001):
        farm.put(number, 2000)
    while reader.cursor.startswith("0.") or not reader.cursor:
        reader.look()
    assert len(reader.look_at_open()) == 1000
    farm.searches.clear()
    farm.replay.now += 2 * OPEN_EVERY - 1
    assert len(reader.look_at_open()) == 1000
    assert farm.searches == []
    farm.replay.now += 1
    assert len(reader.look_at_open()) == 1000
    assert len(farm.searches) == 10


@pytest.mark.parametrize(
    ("codes", "fresh_process", "status"),
    [
        ((2000, 10000), False, Status.CANCELLED),
        ((3000, 10000), False, Status.CANCELLED),
        ((3000,), False, None),
        ((2000,), False, None),
        # Which of the running codes it had is not recorded: cancelled ones are those that are deleted.
        ((3000, 10000), True, Status.CANCELLED),
        ((3000,), True, Status.CANCELLED),
        ((2000,), True, None),
    ],
)
def test_builds_that_vanish(
    codes: tuple[int, ...],
    fresh_process: bool,
    status: Status | None,
    farm: Farm,
    reader: Reader,
    replay: Replay,
) -> None:
    reader.look()
    walk(farm, reader, 3000, number=8)
    last = walk(farm, reader, *codes)[-1]
    del farm.lists[7]
    if fresh_process:
        reader = Reader(replay, Telemetry(), reader.records, reader.cursor)
    farm.replay.now += 3600
    builds = {build.number: build for build in reader.look_at_open()}
    assert builds[8].status is Status.RUNNING
    if status is None:
        assert 7 not in builds
        with pytest.raises(ServerError) as caught:
            reader.server.build(REPO, 7)
        assert caught.value.missing
    else:
        assert differences(builds[7], run=last.run, status=status, ended=True, duration=None) == {}
        assert steps(builds[7]) == ["build cancelled"]
        assert 7 not in {build.number for build in reader.look_at_open()}


def test_an_answer_that_leaves_out_open_builds_proves_nothing(farm: Farm, reader: Reader) -> None:
    """So it is where a server cuts it, or a row of it is broken: the build list itself is asked for."""
    walk(farm, reader, 3000, number=8)
    walk(farm, reader, 3000)
    original = farm.replay.live

    def cutting(line: str) -> Any:
        answer = original(line) if original else None
        if "filter%5Bid%5D" in line:
            answer["body"]["build_lists"] = [{"id": 8, "status": "odd"}]
        return answer

    farm.replay.live = cutting
    assert {build.number: build.status for build in reader.look_at_open()} == {
        7: Status.RUNNING, 8: Status.RUNNING
    }  # fmt: skip


def test_hidden_open_builds_stay_as_they_were(farm: Farm, reader: Reader) -> None:
    walk(farm, reader, 3000)
    farm.hidden.add(7)
    farm.put(7, 0)
    farm.replay.now += 15
    assert reader.look() == []
    assert [build.status for build in reader.look_at_open()] == [Status.RUNNING]


def test_what_ended_while_nobody_looked_is_read_by_its_id(farm: Farm, reader: Reader, replay: Replay) -> None:
    walk(farm, reader, 3000)
    farm.put(7, 0, duration=33)
    again = Reader(replay, Telemetry(), reader.records)
    (build,) = again.look_at_open()
    assert (build.status, build.duration) == (Status.SUCCESS, 33)
    again.server.session.close()


# Single builds and lists of a repo.


def test_a_build_of_another_project_is_not_this_ones(farm: Farm, server: Server) -> None:
    farm.put(7, 0, project="import/other")
    with pytest.raises(ServerError, match="is a build list of import/other") as caught:
        server.build(REPO, 7)
    assert caught.value.missing


def test_a_404_alone_does_not_prove_that_a_build_is_gone(farm: Farm, server: Server) -> None:
    farm.put(7, 0)
    farm.broken[7] = recording("abf", "rosa-not-found")
    with pytest.raises(ServerError) as caught:
        server.build(REPO, 7)
    assert (caught.value.status, caught.value.missing) == (404, False)
    del farm.lists[7]
    with pytest.raises(ServerError) as caught:
        server.build(REPO, 7)
    assert (caught.value.status, caught.value.missing) == (404, True)


@pytest.mark.parametrize(
    ("name", "reason", "status"),
    [
        ("rosa-forbidden", "auth", 403),
        ("om-forbidden", "auth", 403),
        ("om-rate-limited-anonymous", "limit", 403),
        ("rosa-unauthorized-show", "auth", 401),
        ("om-private-unauthorized", "auth", 401),
        ("rosa-server-error", "status", 500),
        ("om-server-error", "status", 500),
        ("rosa-token-parameter", "status", 302),
        ("rosa-not-modified", "status", 304),
        ("rosa-index", "shape", 200),
        ("rosa-show-success", "shape", 200),
    ],
)
def test_build_lists_that_cannot_be_had(
    name: str, reason: str, status: int, server: Server, replay: Replay
) -> None:
    replay.play(name, at="/api/v1/build_lists/7.json")
    with pytest.raises(ServerError) as caught:
        server.build(REPO, 7)
    assert (caught.value.reason, caught.value.status, caught.value.missing) == (reason, status, False)
    assert TOKEN not in str(caught.value)


@pytest.mark.parametrize("name", ["rosa-not-found", "om-not-found", "rosa-not-found-canceling-removed"])
def test_build_lists_that_are_not_there(name: str, server: Server, replay: Replay) -> None:
    replay.play(name, at="/api/v1/build_lists/7.json")
    with pytest.raises(ServerError) as caught:
        server.build(REPO, 7)
    assert caught.value.missing


def test_a_page_of_a_repo(farm: Farm, reader: Reader) -> None:
    for number in range(1, 26):
        farm.put(number, 0, at=farm.replay.now - number)
        farm.put(number + 100, 0, project="import/libgreet")
    farm.put(3, 666)
    reader.server.build(REPO, 3)
    first, second, third = (reader.server.builds(REPO, page) for page in (1, 2, 3))
    assert (first.rows, second.rows, third.rows) == (20, 5, 0)
    assert [build.number for build in first.builds] == list(range(20, 0, -1))
    assert [build.number for build in second.builds] == list(range(25, 20, -1))
    assert {build.repo for build in first.builds} == {REPO}
    assert reader.server.limits.page_size == 20
    # Reading history is no reason to pass over what the feed has to tell.
    assert {build.number for build in reader.look()} > {3}


def test_a_repo_is_found_by_its_name(farm: Farm, replay: Replay, telemetry: Telemetry) -> None:
    farm.put(5, 0, project="other/hello-world")
    farm.put(6, 0, project="mine/hello")
    farm.put(7, 0)
    server = Reader(replay, telemetry, Records()).server
    assert [build.number for build in server.builds(REPO, 1).builds] == [7]
    with pytest.raises(ServerError) as caught:
        server.builds("nobody/hello", 1)
    assert (caught.value.status, caught.value.missing) == (404, False)
    server.session.close()


def test_a_page_with_a_hidden_row(farm: Farm, server: Server) -> None:
    farm.put(7, 0)
    farm.put(8, 0)
    farm.broken[8] = recording("abf", "om-forbidden")
    page = server.builds(REPO, 1)
    assert (page.rows, [build.number for build in page.builds]) == (2, [7])


def test_a_page_that_breaks_off_is_no_page(farm: Farm, server: Server) -> None:
    farm.put(7, 0)
    farm.put(8, 0)
    server.build(REPO, 7)
    farm.broken[7] = answering(502, "")
    with pytest.raises(ServerError):
        server.builds(REPO, 1)


def test_a_page_reads_runs_as_they_are_recorded(farm: Farm, reader: Reader) -> None:
    reader.look()
    ended = walk(farm, reader, 3000, 666, 2000, 3000, 0)[-1]
    (build,) = reader.server.builds(REPO, 1).builds
    assert (build.run, build.status) == (ended.run, Status.SUCCESS)


# Lists as they were recorded.


def test_recorded_lists(reader: Reader, replay: Replay, farm: Farm) -> None:
    replay.play("rosa-index-updated-since", at="/api/v1/build_lists.json")
    for row in recording("abf", "rosa-index-updated-since")["body"]["build_lists"]:
        farm.put(row["id"], row["status"])
    assert sorted(build.number for build in reader.look()) == [12, 13, 14, 15, 17]
    replay.play("rosa-index-empty", at="/api/v1/build_lists.json")
    assert reader.look() == []


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("om-rate-limited", "limit"),
        ("om-private-unauthorized", "auth"),
        ("rosa-unauthorized", "auth"),
        ("rosa-token-parameter", "status"),
        ("om-server-error", "status"),
        ("rosa-show-success", "shape"),
    ],
)
def test_lists_that_cannot_be_had(name: str, reason: str, reader: Reader, replay: Replay) -> None:
    replay.play(name, at="/api/v1/build_lists.json")
    with pytest.raises(ServerError) as caught:
        reader.look()
    assert caught.value.reason == reason


def test_the_limit_of_requests_is_kept(reader: Reader, replay: Replay, farm: Farm) -> None:
    answer = recording("abf", "om-index-with-rate-limit-headers")
    answer["headers"]["X-RateLimit-Remaining"] = "3"
    replay.answers["/api/v1/build_lists.json"] = answer
    with pytest.raises(ServerError) as caught:
        reader.look()
    assert caught.value.reason == "limit"
    assert caught.value.retry_after == pytest.approx(3600 - replay.now % 3600, abs=2)


# Accounts and filters.


def test_whoami(server: Server, replay: Replay) -> None:
    assert server.whoami() == User(login="ada", admin=False)
    assert server.dialect == "abf"
    line = f"Basic {base64.b64encode(f'{TOKEN}:'.encode()).decode()}"
    assert set(replay.tokens) == {line}


def test_a_login_with_its_password(farm: Farm, replay: Replay, telemetry: Telemetry) -> None:
    server = opened(replay, telemetry, "abf", token=None, login="ada", password="hunter2")
    server.whoami()
    assert replay.tokens == [f"Basic {base64.b64encode(b'ada:hunter2').decode()}"]
    assert "hunter2" not in repr(server.session)
    server.session.close()


@pytest.mark.parametrize("name", ["rosa-unauthorized-bad-token", "rosa-unauthorized-bad-password"])
def test_an_account_that_is_none(name: str, server: Server, replay: Replay) -> None:
    replay.play(name, at="/api/v1/user.json")
    with pytest.raises(ServerError) as caught:
        server.whoami()
    assert (caught.value.reason, caught.value.status) == ("auth", 401)


def test_filters(farm: Farm, replay: Replay, telemetry: Telemetry) -> None:
    wanted = {"ownership": "related", "project": "hel", "platform": "rosa2023.1", "arch": "x86_64"}
    reader = Reader.__new__(Reader)
    reader.server = opened(replay, telemetry, "abf", abf=wanted)
    reader.records, reader.cursor = Records(), ""
    farm.put(7, 2000)
    reader.server.whoami()
    reader.server.whoami()
    assert [line.partition("?")[0] for line in replay.asked].count("/api/v1/platforms.json") == 1
    assert [build.number for build in reader.look()] == [7]
    filters = {
        "filter[ownership]": ["related"], "filter[project_name]": ["hel"], "filter[arch_id]": ["2"],
        "filter[save_to_platform_id]": ["5"],
    }  # fmt: skip
    assert all(filters.items() <= search.items() for search in farm.searches)
    reader.server.builds(REPO, 1)
    assert "filter[project_name]" not in farm.searches[-1]
    assert farm.searches[-1]["filter[arch_id]"] == ["2"]
    reader.server.session.close()


@pytest.mark.parametrize(
    ("wanted", "said"),
    [({"arch": "z80"}, "no z80; it has aarch64, i686, x86_64"), ({"platform": "x"}, "no x; it")],
)
def test_a_filter_that_names_nothing(
    wanted: object, said: str, farm: Farm, replay: Replay, telemetry: Telemetry
) -> None:
    server = opened(replay, telemetry, "abf", abf=wanted)
    with pytest.raises(ServerError, match=said):
        server.whoami()
    server.session.close()


# What it offers beyond.


def test_a_cancel(server: Server, replay: Replay) -> None:
    replay.play("rosa-cancel")
    server.cancel(REPO, 7)
    assert replay.asked[-1] == "PUT /api/v1/build_lists/7/cancel.json"
    replay.play("rosa-cancel-refused")
    with pytest.raises(ServerError, match="neither waits nor runs") as caught:
        server.cancel(REPO, 7)
    assert (caught.value.unfit, caught.value.status) == (True, 422)
    replay.play("rosa-cancel-forbidden")
    with pytest.raises(ServerError) as caught:
        server.cancel(REPO, 12)
    assert (caught.value.reason, caught.value.unfit) == ("auth", False)


def test_what_it_does_not_offer(server: Server) -> None:
    with pytest.raises(ServerError, match="page alone"):
        server.restart(REPO, 7)


# Answers with anything in them.


def test_any_value_in_a_build_list(farm: Farm, server: Server, replay: Replay) -> None:
    body = recording("abf", "rosa-show-success")["body"]

    @HOSTILE
    @given(st.sampled_from(list(places(body))), ODD_VALUES)
    def check(place: tuple[Any, ...], odd: object) -> None:
        farm.broken[5] = answering(200, replaced(body, place, odd))
        try:
            sane = is_sane(server.build(REPO, 5))
        except ServerError as error:
            sane = error.reason == "shape"
        assert sane

    check()


def test_any_value_in_a_search(farm: Farm, reader: Reader, replay: Replay) -> None:
    body = recording("abf", "rosa-index-updated-since")["body"]
    for row in body["build_lists"]:
        farm.put(row["id"], row["status"])
    reader.look()
    numbers = {row["id"] for row in body["build_lists"]}

    @HOSTILE
    @given(st.sampled_from(list(places(body))), ODD_VALUES)
    def check(place: tuple[Any, ...], odd: object) -> None:
        changed = replaced(body, place, odd)
        replay.answers["/api/v1/build_lists.json"] = answering(200, changed)
        again = Reader(replay, Telemetry(), Records(), "1768210800.1")
        try:
            told = {build.number for build in again.look()}
        except ServerError as error:
            assert error.reason == "shape"  # noqa: PT017
            assert place == ("build_lists",)
        else:
            # A row that cannot be read costs itself alone.
            assert len(numbers - told) <= (5 if place == ("build_lists",) else 1)
        again.server.session.close()

    check()


def test_any_value_in_an_account(server: Server, replay: Replay) -> None:
    @HOSTILE
    @given(ODD_VALUES)
    def check(odd: object) -> None:
        for body in ({"user": odd}, {"user": {"uname": odd}}, odd):
            replay.answers["/api/v1/user.json"] = answering(200, body)
            try:
                assert len(server.whoami().login) <= 255
            except ServerError as error:
                assert error.reason == "shape"  # noqa: PT017

    check()


def test_publishing_codes_end_well() -> None:
    assert {STATUSES[code] for code in PUBLISHING} == {Status.SUCCESS}
