"""Builds that ended before a world began: computed from their number, never stored."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from exporter.simulator.builds import After, Build, Later, Outcome
from exporter.simulator.invention import CONFIG_ERROR, Traits, dice, invent

DAY = 86_400.0


@dataclass(frozen=True, slots=True)
class History:
    """The same number of builds for each of some repos, spread evenly over a time.

    Builds come in rounds: in each, every repo gets one, in another order each time. `id`s rise
    with `created`, so the newest of all repos are known without looking at any other.
    """

    seed: int
    repos: Sequence[str]
    default_branch: str
    builds: int
    first_id: int
    since: float
    until: float
    traits: Traits

    @property
    def total(self) -> int:
        return len(self.repos) * self.builds

    def rank(self, place: int, turn: int) -> int:
        """Which of all, from 0 for the oldest, this repo's build of this round is."""
        size = len(self.repos)
        return (turn - 1) * size + (place * self._stride() + turn * 7) % size

    def at(self, rank: int) -> tuple[int, int]:
        """The place of the repo and the round, from 1, of the build at this rank."""
        size = len(self.repos)
        turn = rank // size + 1
        return (rank % size - turn * 7) * pow(self._stride(), -1, size) % size, turn

    def number(self, place: int, turn: int) -> int:
        """The number of this repo's build of this round."""
        return self.first_id + self.rank(place, turn) if self.traits.numbers_are_ids else turn

    def turn(self, place: int, number: int) -> int:
        """The round of the build of this number, or 0 where it is not one of this repo's."""
        if not self.traits.numbers_are_ids:
            return number if 0 < number <= self.builds else 0
        rank = number - self.first_id
        where, turn = self.at(rank) if 0 <= rank < self.total else (-1, 0)
        return turn if where == place else 0

    def numbers(self, place: int) -> Iterator[int]:
        """Of all builds of the repo at `place`."""
        return (self.number(place, turn) for turn in range(1, self.builds + 1))

    def build(self, place: int, number: int) -> Build:
        """Build `number` of the repo at `place`, ended."""
        name, turn = self.repos[place], self.turn(place, number)
        rank = self.rank(place, turn)
        build = invent(
            self.seed, name, self.default_branch, turn, self.traits, temper=self._temper(name, turn)
        )
        roll = dice(self.seed, name, turn)
        spacing = (self.until - self.since) / self.total
        build.number, build.id = number, self.first_id + rank
        build.created = build.queued = self.since + (rank + roll[10] / 256) * spacing
        schedule(build, build.created + roll[13] / 256 * 40, tempo(self.seed, name) * (0.7 + roll[14] / 360))
        if self.traits.publishes:
            publish_by(build, roll)
        return build

    def newest(self) -> Iterator[tuple[int, int, int]]:
        """(id, place of the repo, number) of every build, newest first."""
        for rank in range(self.total - 1, -1, -1):
            place, turn = self.at(rank)
            yield self.first_id + rank, place, self.number(place, turn)

    def _stride(self) -> int:
        """A step that visits every repo once."""
        size = len(self.repos)
        stride = max(1, size * 5 // 8)
        while math.gcd(stride, size) != 1:
            stride += 1
        return stride

    def _temper(self, name: str, turn: int) -> int:
        """Now and then a repo is red for some builds in a row."""
        return 170 if dice(self.seed, name, -(turn // 4))[0] < 30 else 0


def tempo(seed: int, repo: str) -> float:
    """Seconds that a build of this repo takes, more or less."""
    return 20.0 + dice(seed, repo, 0)[0] ** 2 / 80


def schedule(build: Build, start: float, seconds: float, limit: float = 3600.0) -> None:
    """Plans when `build` starts and ends, as fits its outcome; `limit`: the repo's, in seconds."""
    match build.outcome:
        case Outcome.DECLINED:
            build.reviewed = build.finished = start
        case Outcome.SKIPPED:
            build.started = build.finished = start
        case Outcome.ERROR:
            build.started = build.finished = start if build.error != CONFIG_ERROR else build.created
        case Outcome.CANCELLED:
            build.started, build.finished = start, start + seconds * 0.4
        case Outcome.TIMEOUT:
            build.started, build.finished = start, start + limit
        case _:
            build.started, build.finished = start, start + seconds


def publish_by(build: Build, roll: bytes) -> None:
    """Plans what becomes of a good end, as these dice say: most are published, some refused or left."""
    if build.outcome is not Outcome.SUCCESS or build.finished is None or roll[17] < 24:
        return
    build.auto_publish = "default" if roll[17] < 160 else "none"
    begin = build.finished + (0 if build.auto_publish == "default" else 2 * roll[18])
    end = begin + 5 + roll[19] / 4
    fate = roll[16]
    if fate < 12:
        build.later = (Later(begin + 30, After.REJECTED),)
        build.auto_publish = "none"
    elif fate < 24:
        build.later = (Later(begin, After.PUBLISHING), Later(end, After.PUBLISH_FAILED))
    elif fate < 40:
        build.auto_publish = "testing"
        build.later = (Later(begin, After.TESTING), Later(end, After.TESTED))
    else:
        build.later = (Later(begin, After.PUBLISHING), Later(end, After.PUBLISHED))
