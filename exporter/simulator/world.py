"""The acts that change a simulated world: what hooks, agents, people and operators do."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from exporter.model import Status
from exporter.simulator.builds import BLOCKED, NEW, PENDING, After, Build, Later, Leg, Outcome, Person
from exporter.simulator.invention import PEOPLE, dice, failing, invent, refusal, sha, unbroken
from exporter.simulator.publishing import Publishing
from exporter.simulator.repos import Repo
from exporter.simulator.verdict import verdict


class World(Publishing):
    """A CI server's contents and all that can happen to them; every act takes effect at once.

    Names of repos are `owner/name`, times Unix seconds; `at` is the clock's time unless told.
    """

    # What hooks and timers do

    def start_build(
        self,
        repo: str,
        *,
        event: str = "push",
        branch: str = "",
        commit: str = "",
        running: bool = False,
        started: float | None = None,
        finished: float | None = None,
        outcome: Outcome | str = Outcome.SUCCESS,
        message: str = "change the greeting\n",
        title: str = "",
        author: Person | None = None,
        by: str = "",
        tag: str = "",
        pull: int = 1,
        source: str = "feature",
        environment: str = "",
        cron: str = "",
        parent: int = 0,
        legs: Sequence[Leg] | None = None,
        gated: bool | None = None,
        intake: float = 0.0,
        variables: Mapping[str, str] | None = None,
        publish: str = "none",
        at: float | None = None,
    ) -> int:
        """Makes a build and answers its number: pending, `running`, or with its times planned.

        `event`: push, pull_request, tag, cron, deployment, rollback or custom (ABF: always custom).
        `started` and `finished` may lie ahead: the build moves by itself as the clock passes them. A bad
        pipeline file is `outcome="error"` without times: the build has ended when it is made. `intake`:
        seconds before it is queued; `publish`: what becomes of a good end (ABF: none, default, testing).
        """
        self.need(self.traits.intake or not intake, "queues at once")
        self.need(self.traits.publishes or publish == "none", "publishes nothing")
        event = event if self.traits.hooks else "custom"
        with self.moment(at) as now:
            place = self.repos[repo]
            branch = branch or place.default_branch
            roll = dice(self.seed, repo, place.counter + 1)
            build = invent(self.seed, repo, place.default_branch, place.counter + 1, self.traits)
            build = Build(
                id=0, number=0, created=now, queued=now, legs=tuple(legs) if legs else unbroken(build.legs),
                person=author or PEOPLE[roll[3] % len(PEOPLE)], event=event, branch=branch,
                ref=f"refs/heads/{branch}", commit=commit or sha(roll), before=build.before, message=message,
                title=title, by=by, environment=environment, cron=cron, parent=parent,
                gated=place.gated and self.traits.gates if gated is None else gated,
                accepted=now + intake if intake else None, auto_publish=publish,
                variables=tuple((variables or {}).items()),
            )  # fmt: skip
            if event.startswith("pull_request"):
                build.ref, build.source, build.action = f"refs/pull/{pull}/head", source, "opened"
                build.title = title or message.splitlines()[0]
            elif event in ("tag", "release"):
                build.ref, build.action = f"refs/tags/{tag or 'v1.0.0'}", "create"
            if running and started is None:
                started = now
            self.put(place, build)
            build.started = started
            if Outcome(outcome) is Outcome.ERROR and started is None and self.traits.gates:
                started = finished = now
            if finished is not None:
                self._end(place, build, Outcome(outcome), finished, start=started)
            return build.number

    def block(self, repo: str, **what: str) -> int:
        """Makes a build that waits for approval; `what` as for `start_build`."""
        if not self.traits.gates:
            raise ValueError(f"{self.dialect} has no approvals")
        return self.start_build(repo, gated=True, **what)  # type: ignore[arg-type]

    def filtered_push(self, repo: str, *, seconds: float = 0.5, at: float | None = None) -> int:
        """A push that comes to nothing: its build is seen for a moment, then gone, and so is its number."""
        with self.moment(at) as now:
            number = self.start_build(repo, intake=math.inf, at=now)
            self.vanish(repo, number, after=seconds, reuse=True, at=now)
            return number

    def short_builds(
        self,
        count: int,
        repos: Sequence[str],
        *,
        over: float,
        seconds: float = 1.0,
        start: float | None = None,
    ) -> None:
        """Plans `count` builds over the next `over` seconds, in turn over `repos`, each of `seconds`.

        They are made as the clock passes their time; every tenth fails.
        """
        with self.moment() as now:
            begin = now if start is None else start
            names = list(repos)
            gap = over / count

            def act(i: int, when: float) -> None:
                if names[i % len(names)] in self.repos:
                    self.start_build(
                        names[i % len(names)], started=when, finished=when + seconds, at=when,
                        outcome=Outcome.FAILURE if i % 10 == 9 else Outcome.SUCCESS,
                    )  # fmt: skip
                if i + 1 < count:
                    self.at(begin + (i + 1) * gap, lambda then: act(i + 1, then))

            self.at(begin, lambda when: act(0, when))

    # What agents do

    def run(self, repo: str, number: int, *, at: float | None = None) -> None:
        """An agent takes the build."""
        with self.moment(at) as now:
            place, build = self.find(repo, number)
            self.expect(build, now, NEW, PENDING)
            build.started = now
            self.changed(place, build)

    def finish(
        self,
        repo: str,
        number: int,
        outcome: Outcome | str = Outcome.SUCCESS,
        *,
        legs: Sequence[Leg] | None = None,
        failed: str = "",
        exit_code: int = 1,
        error: str = "",
        overtaken_by: int = 0,
        at: float | None = None,
    ) -> None:
        """The build ends; a pending one begins in the same moment.

        A `failure` is that of the step `failed` (else of one chosen by the world), with `exit_code`;
        `legs` says what every step did instead. `error`: why, or a warning about the pipeline file;
        `overtaken_by`: the number of the newer build that ends it (`skipped`, `cancelled`).
        """
        with self.moment(at) as now:
            place, build = self.find(repo, number)
            if legs:
                build.legs = tuple(legs)
            elif failed:
                build.legs = tuple(_fail(leg, failed, exit_code) for leg in build.legs)
            elif Outcome(outcome) is Outcome.FAILURE and not any(leg.bad for leg in build.legs):
                build.legs = failing(build.legs, number, exit_code)
            build.error, build.overtaken_by = error, overtaken_by
            self._end(place, build, Outcome(outcome), now)

    # What people do

    def cancel(
        self,
        repo: str,
        number: int,
        *,
        whole: bool = False,
        reported: bool = True,
        by: str = "adminuser",
        at: float | None = None,
    ) -> None:
        """Somebody stops the build (0.8: its leg, or it as a `whole`).

        0.5 and 0.8 show `killed`, and ABF that it is being cancelled, until the agent reports a second
        later; where it is never `reported`, for ever (ABF: for an hour, then the build is deleted).
        """
        with self.moment(at) as now:
            place, build = self.find(repo, number)
            build.whole, build.reported, build.stopper = whole, reported, by
            self._end(place, build, Outcome.CANCELLED, now)
            if self.traits.cancel_lasts and not (build.begun and reported):
                self.unconfirmed_until(place, build, now + self.traits.cancel_lasts)

    def approve(self, repo: str, number: int, *, by: str = "adminuser", at: float | None = None) -> None:
        """The build may run."""
        self._review(repo, number, by, at, declined=False)

    def decline(self, repo: str, number: int, *, by: str = "adminuser", at: float | None = None) -> None:
        """The build will never run."""
        self._review(repo, number, by, at, declined=True)

    def restart(
        self,
        repo: str,
        number: int,
        *,
        by: str = "adminuser",
        fork: bool = False,
        event: str = "",
        environment: str = "",
        at: float | None = None,
    ) -> int:
        """Runs the build once more and answers the number: on 0.5 (unless `fork`) and ABF the same."""
        with self.moment(at) as now:
            place, old = self.find(repo, number)
            new = replace(
                old, queued=now, started=None, finished=None, outcome=Outcome.SUCCESS,
                legs=unbroken(old.legs), error="", reviewed=None, reviewer="", gated=False, whole=False,
                reported=True, accepted=None, stopper="", overtaken_by=0, later=(), first_started=None,
                touched=0.0, kept_seconds=old.seconds(now), restarts=old.restarts + 1, edits=old.edits + 1,
            )  # fmt: skip
            if self.traits.restart_in_place and not fork:
                self.expect(old, now, *Outcome)
                place.overwritten.append((number, replace(old)))
                self.put(place, new, number=number)
                return number
            deployed = event in ("deployment", "promote", "rollback")
            new.created, new.by, new.edits = now, by, 0
            new.event = {"promote": "deployment"}.get(event, event) or old.event
            new.environment = environment or old.environment
            new.parent = number if deployed or fork or self.traits.restart_sets_parent else 0
            return self.put(place, new).number

    # What really happened, for tests to compare with

    def runs(self, *, history: bool = False) -> list[tuple[str, Build]]:
        """(repo, run) of every run made by an act, those overwritten in place too; `history`: all."""
        with self.moment():
            found = []
            for name, repo in self.repos.items():
                found += [(name, build) for _, build in repo.overwritten]
                numbers = repo.numbers() if history else sorted(repo.live)
                found += [(name, build) for n in numbers if (build := repo.get(n)) is not None]
            return found

    def status(self, build: Build) -> Status:
        """What the exporter has to call this run now, once it has read it alone."""
        with self.moment() as now:
            return verdict(self.dialect, build, now)

    # How

    def _review(self, repo: str, number: int, by: str, at: float | None, *, declined: bool) -> None:
        with self.moment(at) as now:
            place, build = self.find(repo, number)
            self.expect(build, now, BLOCKED)
            build.reviewed, build.reviewer = now, by
            if declined:
                build.outcome, build.finished = Outcome.DECLINED, now
            self.changed(place, build)

    def _end(
        self, repo: Repo, build: Build, outcome: Outcome, when: float, start: float | None = None
    ) -> None:
        begun = build.started is not None and build.started <= when
        if outcome in (Outcome.CANCELLED, Outcome.TIMEOUT) and not begun and not self.traits.pending_cancels:
            raise ValueError(f"{self.dialect} cannot stop a build that waits")
        if outcome is Outcome.SKIPPED and not self.traits.overtakes:
            raise ValueError(f"{self.dialect} skips no builds")
        if outcome is Outcome.DECLINED:
            raise ValueError("decline() a build that is blocked")
        if not begun:
            build.started = when if start is None else start
        build.outcome, build.finished = outcome, when
        if outcome is Outcome.ERROR:
            build.error = build.error or refusal(self.traits)
        elif outcome is Outcome.FAILURE and not any(leg.bad for leg in build.legs):
            build.legs = failing(build.legs, build.number)
        elif outcome is Outcome.SUCCESS and build.auto_publish != "none":
            testing = build.auto_publish == "testing"
            build.later = (Later(when, After.TESTING if testing else After.PUBLISHING),)
        self.changed(repo, build)


def _fail(leg: Leg, name: str, exit_code: int) -> Leg:
    return replace(
        leg, steps=tuple(replace(s, exit_code=exit_code) if s.name == name else s for s in leg.steps)
    )
