"""What happens to a build beside its run: it is taken back, published, tested again, or it vanishes."""

from dataclasses import replace

from exporter.simulator.builds import RUNNING, After, Build, Later, Outcome
from exporter.simulator.invention import unbroken
from exporter.simulator.operators import Operators
from exporter.simulator.repos import Repo


class Publishing(Operators):
    """The acts that come beside and after a run; `World` has all acts."""

    # Before its end

    def requeue(self, repo: str, number: int, *, at: float | None = None) -> None:
        """ABF: the first report of a failure puts a running build back into the queue, as the same run.

        OpenMandriva's does not move the time of the last change.
        """
        with self.moment(at) as now:
            place, build = self.find(repo, number)
            self.need(self.traits.publishes, "puts no build back")
            self.expect(build, now, RUNNING)
            build.touched = build.changed_at(now) if self.openmandriva else now
            build.started = None
            self.changed(place, build)

    def touch_build(self, repo: str, number: int, *, at: float | None = None) -> None:
        """Its row is written again, with nothing to be seen but the time (ABF: a worker takes the job)."""
        with self.moment(at) as now:
            place, build = self.find(repo, number)
            build.touched = now
            self.changed(place, build)

    def vanish(
        self, repo: str, number: int, *, after: float = 0.0, reuse: bool = False, at: float | None = None
    ) -> None:
        """The server deletes the build by itself, `after` seconds; `reuse`: gives its number out again."""
        with self.moment(at) as now:
            place, build = self.find(repo, number)

            def act(_: float) -> None:
                if place.live.get(number, build).id == build.id:
                    self.take_out(place, number, reuse=reuse)

            if after:
                self.at(now + after, act)
            else:
                act(now)

    def unconfirmed_until(self, place: Repo, build: Build, when: float) -> None:
        """Plans the end of a cancel that no agent confirms: the build is deleted."""

        def act(_: float) -> None:
            if place.live.get(build.number) is build and build.unconfirmed(when):
                build.removed = True
                place.overwritten.append((build.number, build))
                self.take_out(place, build.number)

        self.at(when, act)

    # After its end

    def publish(
        self,
        repo: str,
        number: int,
        *,
        testing: bool = False,
        begins: float | None = None,
        ends: float | None = None,
        failed: bool = False,
        at: float | None = None,
    ) -> None:
        """Publishing begins, at once or at `begins`; it goes on until `published`, or until `ends`."""
        with self.moment(at) as now:
            state = After.TESTING if testing else After.PUBLISHING
            self._later(repo, number, Later(now if begins is None else begins, state))
            if ends is not None:
                self._later(repo, number, Later(ends, _published(testing=testing, failed=failed)))

    def published(self, repo: str, number: int, *, failed: bool = False, at: float | None = None) -> None:
        """Publishing has ended."""
        with self.moment(at) as now:
            _, build = self.find(repo, number)
            states = [later.state for later in build.after(now) if later.state != After.CONTAINER]
            if not states or states[-1] not in (After.PUBLISHING, After.TESTING):
                raise ValueError(f"build {number} is not being published")
            state = _published(testing=states[-1] == After.TESTING, failed=failed)
            self._later(repo, number, Later(now, state))

    def reject(self, repo: str, number: int, *, at: float | None = None) -> None:
        """Somebody decides that it is not published."""
        with self.moment(at) as now:
            self._later(repo, number, Later(now, After.REJECTED))

    def make_container(self, repo: str, number: int, *, at: float | None = None) -> None:
        """A container is made of it."""
        with self.moment(at) as now:
            self._later(repo, number, Later(now, After.CONTAINER))

    def lose_packages(self, repo: str, number: int, *, at: float | None = None) -> None:
        """What it built is found missing: told in no time of a change."""
        with self.moment(at) as now:
            self._later(repo, number, Later(now, After.PACKAGES_LOST, quiet=True))

    def report_late(self, repo: str, number: int, outcome: Outcome | str, *, at: float | None = None) -> None:
        """A worker that did not hear of the cancel reports how the build ended all the same."""
        with self.moment(at) as now:
            self._later(repo, number, Later(now, Outcome(outcome)))

    def rerun_tests(self, repo: str, number: int, *, at: float | None = None) -> None:
        """The tests of what was built run again, as a new run of the number: `run` and `finish` it."""
        with self.moment(at) as now:
            place, old = self.find(repo, number)
            self.need(self.traits.publishes, "has no tests beside its builds")
            self.expect(old, now, Outcome.SUCCESS, Outcome.FAILURE)
            place.overwritten.append((number, replace(old)))
            begin = old.first_started if old.first_started is not None else old.started
            new = replace(
                old, queued=now, started=None, finished=None, outcome=Outcome.SUCCESS, later=(),
                first_started=begin, kept_seconds=old.seconds(now), edits=old.edits + 1,
                legs=unbroken(old.legs),
            )  # fmt: skip
            self.put(place, new, number=number)

    # How

    def need(self, possible: bool, words: str) -> None:
        """ValueError where the dialect has no such act."""
        if not possible:
            raise ValueError(f"{self.dialect} {words}")

    def expect(self, build: Build, now: float, *phases: str) -> None:
        """ValueError where the build is in none of these phases."""
        if build.phase(now) not in phases:
            raise ValueError(f"build {build.number} is {build.phase(now)}")

    def _later(self, repo: str, number: int, later: Later) -> None:
        self.need(self.traits.publishes, "publishes nothing")
        place, build = self.find(repo, number)
        if not build.ended(later.at):
            raise ValueError(f"build {number} has not ended")
        build.later = tuple(sorted((*build.later, later), key=lambda one: one.at))
        self.changed(place, build)


def _published(*, testing: bool, failed: bool) -> After:
    """How publishing ends."""
    if testing:
        return After.TESTING_FAILED if failed else After.TESTED
    return After.PUBLISH_FAILED if failed else After.PUBLISHED
