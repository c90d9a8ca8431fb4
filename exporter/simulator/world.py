"""The acts that change a simulated world: what hooks, agents, people and operators do."""

from collections.abc import Sequence
from dataclasses import replace

from exporter.model import Status
from exporter.simulator.builds import BLOCKED, PENDING, RUNNING, Build, Leg, Outcome, Person
from exporter.simulator.history import DAY
from exporter.simulator.invention import (
    PEOPLE,
    dice,
    failing,
    invent,
    refusal,
    sha,
    unbroken,
)  # fmt: skip
from exporter.simulator.state import Repo, State


class World(State):
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
        at: float | None = None,
    ) -> int:
        """Makes a build and answers its number: pending, `running`, or with its times planned.

        `event`: push, pull_request, tag, cron, deployment, rollback or custom. `started` and
        `finished` may lie ahead: the build moves by itself as the clock passes them. A bad
        pipeline file is `outcome="error"` without times: the build has ended when it is made.
        """
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
            )  # fmt: skip
            if event == "pull_request":
                build.ref, build.source, build.action = f"refs/pull/{pull}/head", source, "opened"
                build.title = title or message.splitlines()[0]
            elif event == "tag":
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
            place, build = self._find(repo, number)
            self._expect(build, now, PENDING)
            build.started = now
            self._changed(place, build)

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
        at: float | None = None,
    ) -> None:
        """The build ends; a pending one begins in the same moment.

        A `failure` is that of the step `failed` (else of one chosen by the world), with
        `exit_code`; `legs` says what every step did instead.
        """
        with self.moment(at) as now:
            place, build = self._find(repo, number)
            if legs:
                build.legs = tuple(legs)
            elif failed:
                build.legs = tuple(_fail(leg, failed, exit_code) for leg in build.legs)
            elif Outcome(outcome) is Outcome.FAILURE and not any(leg.bad for leg in build.legs):
                build.legs = failing(build.legs, number, exit_code)
            build.error = error
            self._end(place, build, Outcome(outcome), now)

    # What people do

    def cancel(
        self,
        repo: str,
        number: int,
        *,
        whole: bool = False,
        reported: bool = True,
        at: float | None = None,
    ) -> None:
        """Somebody stops the build (0.8: its leg, or it as a `whole`).

        0.5 and 0.8 show `killed` until the agent reports a second later, or for ever when it is
        never `reported`.
        """
        with self.moment(at) as now:
            place, build = self._find(repo, number)
            build.whole, build.reported = whole, reported
            self._end(place, build, Outcome.CANCELLED, now)

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
        """Runs the build once more and answers the number: the same on 0.5 unless `fork`, else a new one."""
        with self.moment(at) as now:
            place, old = self._find(repo, number)
            new = replace(
                old, queued=now, started=None, finished=None, outcome=Outcome.SUCCESS,
                legs=unbroken(old.legs), error="", reviewed=None, reviewer="", gated=False, whole=False,
                reported=True, edits=old.edits + 1,
            )  # fmt: skip
            if self.traits.restart_in_place and not fork:
                self._expect(old, now, *Outcome)
                place.overwritten.append((number, replace(old)))
                self.put(place, new, number=number)
                return number
            deployed = event in ("deployment", "promote", "rollback")
            new.created, new.by, new.edits = now, by, 0
            new.event = {"promote": "deployment"}.get(event, event) or old.event
            new.environment = environment or old.environment
            new.parent = number if deployed or fork or self.traits.restart_sets_parent else 0
            return self.put(place, new).number

    # What operators do

    def delete_repo(self, name: str) -> None:
        """The repo and its builds are gone."""
        self.drop_repo(name)

    def make_private(self, name: str, *, private: bool = True) -> None:
        """Only users with rights on it may read it from now on."""
        with self.moment():
            self.repos[name].private = private
            self.touch(self.repos[name])

    def deny(self, name: str, login: str = "adminuser") -> None:
        """The source host refuses the repo to this user (an admin can still read it by name)."""
        with self.moment():
            self.denied.setdefault(name, set()).add(login)
            self.edits += 1

    def allow(self, name: str, login: str = "adminuser") -> None:
        """Takes `deny` back."""
        with self.moment():
            logins = self.denied.get(name, set())
            logins.discard(login)
            if not logins:
                self.denied.pop(name, None)
            self.edits += 1

    def remove_build(self, repo: str, number: int) -> None:
        """The build's row is removed from the database; its number stays a hole."""
        with self.moment():
            self.take_out(self.repos[repo], number)

    def replace_by_empty(self) -> None:
        """The server is rebuilt with the same repos and no builds: numbers and ids begin at 1 again."""
        self.clear()

    def server_restart(self) -> None:
        """0.5: open builds become `error` without an end; 0.8: running ones stay so for ever."""
        with self.moment() as now:
            for place, build in self.open_builds(now):
                waits = build.started is None or now < build.started
                if self.traits.restart_in_place:
                    build.outcome, build.finished = Outcome.LOST, now
                    build.started = None if waits else build.started
                elif not self.traits.stages and not waits:
                    build.finished = None
                self._changed(place, build)

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
            phase = build.phase(now)
            if phase in (BLOCKED, PENDING, RUNNING):
                return Status[phase.upper()]
            if build.settling(now) and not self.traits.stages:
                if self.traits.gates:
                    return Status.CANCELLED if build.whole else Status.RUNNING
                return Status.CANCELLED if build.reported else Status.FAILURE
            if phase == Outcome.KILLED and self.traits.stages:
                seconds = build.finished_at(now) - build.started_at(now)
                return Status.TIMEOUT if seconds >= DAY else Status.CANCELLED
            translated = {Outcome.KILLED: Outcome.FAILURE, Outcome.LOST: Outcome.ERROR}
            return Status[translated.get(Outcome(phase), phase).upper()]

    # How

    def _find(self, repo: str, number: int) -> tuple[Repo, Build]:
        place = self.repos[repo]
        build = place.get(number)
        if build is None:
            raise LookupError(f"{repo} has no build {number}")
        return place, build

    def _expect(self, build: Build, now: float, *phases: str) -> None:
        if build.phase(now) not in phases:
            raise ValueError(f"build {build.number} is {build.phase(now)}")

    def _changed(self, repo: Repo, build: Build) -> None:
        build.edits += 1
        repo.live[build.number] = build
        self.touch(repo)

    def _review(self, repo: str, number: int, by: str, at: float | None, *, declined: bool) -> None:
        with self.moment(at) as now:
            place, build = self._find(repo, number)
            self._expect(build, now, BLOCKED)
            build.reviewed, build.reviewer = now, by
            if declined:
                build.outcome, build.finished = Outcome.DECLINED, now
            self._changed(place, build)

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
        self._changed(repo, build)


def _fail(leg: Leg, name: str, exit_code: int) -> Leg:
    return replace(
        leg, steps=tuple(replace(s, exit_code=exit_code) if s.name == name else s for s in leg.steps)
    )
