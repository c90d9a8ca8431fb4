"""Builds that ended before a world began: computed from their number, never stored."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from exporter.simulator.builds import Build, Outcome
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

    def rank(self, place: int, number: int) -> int:
        """Which of all, from 0 for the oldest, this repo's build is."""
        size = len(self.repos)
        return (number - 1) * size + (place * self._stride() + number * 7) % size

    def at(self, rank: int) -> tuple[int, int]:
        """The place of the repo and the number of the build at this rank."""
        size = len(self.repos)
        number = rank // size + 1
        return (rank % size - number * 7) * pow(self._stride(), -1, size) % size, number

    def build(self, place: int, number: int) -> Build:
        """Build `number` of the repo at `place`, ended."""
        name = self.repos[place]
        rank = self.rank(place, number)
        build = invent(
            self.seed, name, self.default_branch, number, self.traits, temper=self._temper(name, number)
        )
        roll = dice(self.seed, name, number)
        spacing = (self.until - self.since) / self.total
        build.id = self.first_id + rank
        build.created = build.queued = self.since + (rank + roll[10] / 256) * spacing
        schedule(build, build.created + roll[13] / 256 * 40, tempo(self.seed, name) * (0.7 + roll[14] / 360))
        return build

    def newest(self) -> Iterator[tuple[int, int, int]]:
        """(id, place of the repo, number) of every build, newest first."""
        for rank in range(self.total - 1, -1, -1):
            place, number = self.at(rank)
            yield self.first_id + rank, place, number

    def _stride(self) -> int:
        """A step that visits every repo once."""
        size = len(self.repos)
        stride = max(1, size * 5 // 8)
        while math.gcd(stride, size) != 1:
            stride += 1
        return stride

    def _temper(self, name: str, number: int) -> int:
        """Now and then a repo is red for some builds in a row."""
        return 170 if dice(self.seed, name, -(number // 4))[0] < 30 else 0


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
