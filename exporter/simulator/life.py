"""A life of its own for a simulated world: builds come, wait, run, fail, are restarted, deployed.

What happens depends on the seed and on the clock alone, not on when anybody looks: everything is a
plan of the world, carried out at its own time when the world is next looked at.
"""

import heapq
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from exporter.simulator.builds import PENDING, RUNNING, Build, Outcome
from exporter.simulator.history import publish_by, schedule
from exporter.simulator.invention import PEOPLE, dice, failing, invent, refusal, unbroken
from exporter.simulator.repos import Repo
from exporter.simulator.world import World

SHOWCASE = (
    Outcome.SUCCESS, Outcome.FAILURE, Outcome.CANCELLED, Outcome.SUCCESS, Outcome.ERROR, Outcome.TIMEOUT,
    Outcome.KILLED, Outcome.SUCCESS, Outcome.DECLINED, Outcome.SKIPPED,
)  # fmt: skip
"""How the first builds of the lively time end, where the dialect has such an end."""


@dataclass(slots=True, kw_only=True)
class Life:
    """What goes on in a world; `begin` starts it.

    From `since` to `lively` (Unix seconds) a build comes every `quiet` seconds of working hours,
    from then on every `every` seconds, day and night.
    """

    world: World
    repos: Sequence[str]
    since: float
    lively: float
    quiet: float = 900.0
    every: float = 5.0
    agents: int = 6
    crons: Mapping[str, tuple[str, float]] = field(default_factory=dict)
    """repo → (name, seconds between two), where the dialect has crons."""
    _chance: random.Random = field(init=False)
    _free: list[float] = field(init=False)
    _shown: int = 0

    def __post_init__(self) -> None:
        self._chance = random.Random(self.world.seed)
        self._free = [self.since] * self.agents

    def begin(self) -> None:
        """Plans the first of everything; what lies in the past happens at once."""
        self.world.at(self.since, self._commit)
        if self.world.traits.crons:
            for repo, (name, seconds) in self.crons.items():
                self.world.at((self.since // seconds + 1) * seconds, self._cron_job(repo, name, seconds))
        with self.world.moment():
            return

    # What happens

    def _commit(self, at: float) -> None:
        self.world.at(at + self._gap(at), self._commit)
        weights = [1 / (1 + i) for i in range(len(self.repos))]
        name = self._chance.choices(self.repos, weights)[0]
        place = self.world.repos.get(name)
        if place is None or not place.active:
            return
        traits = self.world.traits
        if traits.hooks and self._chance.random() < 0.06 and self._deploy(at, place):
            return
        if traits.intake and traits.hooks and self._chance.random() < 0.03:
            self.world.filtered_push(name, seconds=self._chance.uniform(0.2, 2), at=at)
            return
        build = invent(
            self.world.seed, name, place.default_branch, place.counter + 1, self.world.traits,
            temper=self._temper(name, at), restarts=False,
        )  # fmt: skip
        if build.event in ("cron", "deployment", "rollback"):
            build.event, build.cron, build.environment, build.by, build.parent = "push", "", "", "", 0
        self._overtake(at, place, build)
        self._take_in(at, place, build)

    def _cron_job(self, repo: str, name: str, seconds: float) -> Callable[[float], None]:
        def act(at: float) -> None:
            self.world.at(at + seconds, act)
            place = self.world.repos.get(repo)
            if place is not None:
                number = self.world.start_build(repo, event="cron", cron=name, at=at, message="commit")
                self._plan(at, place, number, good=0.9)

        return act

    def _deploy(self, at: float, place: Repo) -> bool:
        """Sends the newest good push out; False when there is none."""
        for number in sorted(place.live, reverse=True)[:20]:
            build = place.live[number]
            good = build.phase(at) == Outcome.SUCCESS and build.event == "push"
            if good and build.branch == place.default_branch:
                environment = self._chance.choice(("staging", "production"))
                by = self._chance.choice(PEOPLE).login
                new = self.world.restart(
                    place.name, number, by=by, fork=True, event="deployment", environment=environment, at=at
                )
                self._plan(at, place, new, good=0.92)
                return True
        return False

    def _overtake(self, at: float, place: Repo, new: Build) -> None:
        """A push takes the place of those on the same branch that still wait."""
        if not self.world.traits.overtakes or new.event != "push":
            return
        for repo, build in self.world.open_builds(at):
            waits = build.phase(at) == PENDING and build.event == "push"
            if repo is place and waits and build.ref == new.ref:
                by = place.counter + 1
                self.world.finish(place.name, build.number, Outcome.SKIPPED, overtaken_by=by, at=at)

    def _restart(self, repo: str, number: int, at: float) -> None:
        place = self.world.repos.get(repo)
        build = place.get(number) if place else None
        if place is None or build is None or build.phase(at) != Outcome.FAILURE:
            return
        new = self.world.restart(repo, number, by=self._chance.choice(PEOPLE).login, at=at)
        self._plan(at, place, new, good=0.7)

    # How it goes on

    def _plan(self, at: float, place: Repo, number: int, *, good: float) -> None:
        """Plans the run of a build that is there already."""
        build = place.live[number]
        if self._chance.random() >= good:
            build.outcome = Outcome.FAILURE
            build.legs = failing(build.legs, number)
        self._run(at, place, build)
        self.world.touch(place)

    def _take_in(self, at: float, place: Repo, build: Build) -> None:
        build.created = build.queued = at
        if at >= self.lively and self._shown < len(SHOWCASE):
            self._show(build, SHOWCASE[self._shown])
            self._shown += 1
        review = (
            place.gated
            and self.world.traits.gates
            and build.event == "pull_request"
            and build.outcome is not Outcome.ERROR
        )
        build.gated = build.gated or review
        self.world.put(place, build)
        begin = at
        if self.world.traits.intake and build.outcome is not Outcome.ERROR:
            begin = build.accepted = at + self._chance.uniform(0.1, 1)
        if build.gated:
            begin = build.reviewed = begin + self._chance.uniform(20, 90)
            build.reviewer = self._chance.choice(PEOPLE).login
        if build.outcome is Outcome.TIMEOUT and place.timeout > 2 and at > self.lively - 7200:
            build.outcome, build.legs = Outcome.FAILURE, failing(build.legs, build.number)
        self._run(begin, place, build)
        self.world.touch(place)

    def _run(self, at: float, place: Repo, build: Build) -> None:
        """Gives the build its times: an agent takes it when one is free."""
        seconds = (8 + dice(self.world.seed, place.name, 0)[1] / 5) * self._chance.uniform(0.7, 1.4)
        start = max(at + self._chance.uniform(0.5, 3), self._free[0])
        if build.outcome is Outcome.DECLINED:
            schedule(build, at, seconds)
            return
        schedule(build, start, seconds, place.timeout * 60.0)
        if build.finished is not None and build.outcome not in (Outcome.ERROR, Outcome.SKIPPED):
            heapq.heapreplace(self._free, build.finished)
        if build.outcome is Outcome.FAILURE and build.finished is not None and self._chance.random() < 0.4:
            later = build.finished + self._chance.uniform(15, 240)
            name, number = place.name, build.number
            self.world.at(later, lambda then: self._restart(name, number, then))
        if self.world.traits.publishes:
            publish_by(build, dice(self.world.seed, place.name, build.number))
            if build.outcome is Outcome.FAILURE and self._chance.random() < 0.2:
                self._requeue(start, place.name, build)

    def _requeue(self, start: float, repo: str, build: Build) -> None:
        """The first report of its failure puts the build back for some seconds."""

        def back(when: float) -> None:
            if repo in self.world.repos and build.phase(when) == RUNNING:
                self.world.requeue(repo, build.number, at=when)
                self.world.at(when + 3, again)

        def again(when: float) -> None:
            if repo in self.world.repos and build.phase(when) == PENDING:
                self.world.run(repo, build.number, at=when)

        self.world.at(start + 3, back)

    def _show(self, build: Build, outcome: Outcome) -> None:
        traits = self.world.traits
        possible = {Outcome.DECLINED: traits.gates, Outcome.SKIPPED: traits.overtakes}
        if possible.get(outcome, True):
            build.outcome, build.gated = outcome, outcome is Outcome.DECLINED
            build.legs, build.error = unbroken(build.legs), ""
        if outcome is Outcome.FAILURE:
            build.legs = failing(build.legs, build.number)
        elif outcome is Outcome.ERROR:
            build.error = refusal(traits)

    def _gap(self, at: float) -> float:
        if at >= self.lively:
            return self._chance.expovariate(1 / self.every)
        day = time.gmtime(at)
        slow = 1.0 if day.tm_wday < 5 and 7 <= day.tm_hour < 18 else 4.0
        return min(self._chance.expovariate(1 / (self.quiet * slow)), max(1.0, self.lively - at))

    def _temper(self, repo: str, at: float) -> int:
        """A repo is red for some hours, now and then."""
        return 180 if dice(self.world.seed, repo, -int(at // 10_000))[0] < 36 else 0
