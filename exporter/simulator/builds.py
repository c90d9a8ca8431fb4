"""One run of a build in a simulated world, and what can be seen of it at a moment.

A run carries the times at which things happen to it, past and to come; its visible state is a
function of them and of the clock. Times are Unix seconds, None where nothing is planned.
"""

import math
from dataclasses import dataclass
from enum import StrEnum

SETTLING = 1.0
"""Seconds for which a cancelled build reads `killed` before its agent's report comes in."""


class Outcome(StrEnum):
    """How a run ends, in words of no dialect."""

    SUCCESS = "success"
    FAILURE = "failure"
    ERROR = "error"
    """The pipeline file is bad, (0.5) the agent could not prepare the job, (ABF) no such architecture."""
    CANCELLED = "cancelled"
    TIMEOUT = "timeout"
    KILLED = "killed"
    """Out of memory or a signal (0.5 says `killed`, others `failure`); 1.x: the clean-up after 24 hours."""
    DECLINED = "declined"
    SKIPPED = "skipped"
    """Overtaken by a newer build while pending (1.x, Woodpecker)."""
    LOST = "lost"
    """In flight when the server was restarted (0.5): `error` without an end time."""


class After(StrEnum):
    """What becomes of a run after its end, where there is more to come (ABF)."""

    PUBLISHING = "publishing"
    PUBLISHED = "published"
    PUBLISH_FAILED = "publish failed"
    REJECTED = "rejected"
    TESTING = "publishing into testing"
    TESTED = "published into testing"
    TESTING_FAILED = "publish into testing failed"
    PACKAGES_LOST = "packages lost"
    CONTAINER = "container"
    """A container is made of it; changes nothing else."""


INTERRUPTED = frozenset({Outcome.CANCELLED, Outcome.TIMEOUT, Outcome.KILLED, Outcome.LOST})
NEW, BLOCKED, PENDING, RUNNING, WAITING = "created", "blocked", "pending", "running", "waiting"


@dataclass(frozen=True, slots=True)
class Person:
    """Who committed or started something."""

    login: str
    name: str
    email: str


@dataclass(frozen=True, slots=True)
class StepPlan:
    """One step as it will go: `weight` is its share of its leg's time."""

    name: str
    weight: float = 1.0
    exit_code: int = 0
    ignored: bool = False
    """Its failure does not fail the build (1.x)."""
    always: bool = False
    """It runs after a failure too."""
    broken: str = ""
    """Why it could not even begin: a failure without an exit code (Woodpecker)."""

    @property
    def bad(self) -> bool:
        return (self.exit_code != 0 or self.broken != "") and not self.ignored


@dataclass(frozen=True, slots=True)
class Leg:
    """A matrix leg (0.5, 0.8), a stage (1.x) or a workflow (Woodpecker)."""

    name: str
    steps: tuple[StepPlan, ...]
    environ: tuple[tuple[str, str], ...] = ()
    after: tuple[str, ...] = ()
    """Names of the legs that must succeed first."""

    @property
    def bad(self) -> bool:
        return any(step.bad for step in self.steps)


@dataclass(frozen=True, slots=True)
class Later:
    """Something that happens to a run after its end: `state` is an `After`, or the outcome it turns into."""

    at: float
    state: str
    quiet: bool = False
    """It leaves no trace in the time of the last change."""


@dataclass(slots=True, kw_only=True)
class Build:
    """One run of a build number, with all that will happen to it."""

    id: int
    number: int
    created: float
    queued: float
    """When this run was queued: `created`, until it is restarted in place."""
    legs: tuple[Leg, ...]
    person: Person
    outcome: Outcome = Outcome.SUCCESS
    started: float | None = None
    finished: float | None = None
    accepted: float | None = None
    """When the server has taken it in, where that takes a while: it is `created` until then."""
    gated: bool = False
    reviewed: float | None = None
    """When a gated build was approved or declined."""
    reviewer: str = ""
    parent: int = 0
    restarts: int = 0
    """How often it was started again, its ancestors included."""
    event: str = "push"
    """push, pull_request, tag, cron, deployment, rollback or custom (and as Woodpecker names them)."""
    branch: str = ""
    """The branch it belongs to: a pull request's target, a tag's base."""
    source: str = ""
    """A pull request's own branch."""
    ref: str = ""
    commit: str = ""
    before: str = ""
    title: str = ""
    message: str = ""
    environment: str = ""
    cron: str = ""
    """Name of the timer's job, or of the mass build (ABF)."""
    variables: tuple[tuple[str, str], ...] = ()
    """Given by the person who started it."""
    action: str = ""
    by: str = ""
    """Login of the person who started it by hand; empty for a hook or timer."""
    error: str = ""
    """Why it is an `error`; of another outcome a warning about the pipeline file."""
    stopper: str = ""
    """Login of the person who cancelled it."""
    overtaken_by: int = 0
    """Number of the newer build that took its place."""
    whole: bool = False
    """It was cancelled as a whole, not by its leg (0.8)."""
    reported: bool = True
    """Its agent tells the server how a cancelled leg ended."""
    auto_publish: str = "none"
    """What becomes of a good end: none, default or testing (ABF)."""
    later: tuple[Later, ...] = ()
    """What happens after its end, by time."""
    touched: float = 0.0
    """When it was last changed in a way that none of its times tells."""
    first_started: float | None = None
    """A rerun of its tests: when the build itself had begun."""
    kept_seconds: int | None = None
    """How long the run before took, told until this one has ended (ABF)."""
    removed: bool = False
    """The server has deleted it by itself, as the end of a cancel that no agent confirmed (ABF)."""
    edits: int = 0
    """Grows with every change, so that rendered rows can be kept."""

    def phase(self, now: float) -> str:
        """`created`, `blocked`, `pending`, `running`, or the outcome."""
        if self.finished is not None and now >= self.finished:
            return self.outcome
        if self.started is not None and now >= self.started:
            return RUNNING
        if self.accepted is not None and now < self.accepted:
            return NEW
        if self.gated and (self.reviewed is None or now < self.reviewed):
            return BLOCKED
        return PENDING

    def ended(self, now: float) -> bool:
        return self.finished is not None and now >= self.finished

    @property
    def begun(self) -> bool:
        """True when an agent takes it, sooner or later, before it ends."""
        return self.started is not None and (self.finished is None or self.started < self.finished)

    @property
    def unreviewed(self) -> bool:
        """True when it ends, or stays, without the approval it waits for."""
        return self.gated and (
            self.reviewed is None or (self.finished is not None and self.finished < self.reviewed)
        )

    def unconfirmed(self, now: float) -> bool:
        """True when it was cancelled and no agent has said so yet, or none ever had it."""
        cancelled = self.outcome is Outcome.CANCELLED and self.ended(now)
        return cancelled and (not self.begun or self.settling(now))

    def seconds(self, now: float) -> int | None:
        """How long it ran from when it first began; until it has ended, what is known of the run before."""
        if not self.ended(now) or not self.begun or self.outcome is Outcome.ERROR:
            return self.kept_seconds
        begin, end = self.first_started or self.started or 0.0, self.finished or 0.0
        confirmed = self.outcome is Outcome.CANCELLED and not self.settling(now)
        return int(end + SETTLING * confirmed - begin)

    def after(self, now: float) -> list[Later]:
        """What has happened since its end, by time."""
        return [later for later in self.later if later.at <= now]

    def changed_at(self, now: float) -> float:
        """When it last changed, in Unix seconds with their fraction."""
        times = [self.accepted, self.reviewed, self.started, self.finished]
        times += [later.at for later in self.later if not later.quiet]
        if self.outcome is Outcome.CANCELLED and self.begun and self.reported and self.finished is not None:
            times.append(self.finished + SETTLING)
        return max(self.queued, self.touched, *(t for t in times if t is not None and t <= now))

    def settling(self, now: float) -> bool:
        """True while the report of a cancelled build's agent has not come in."""
        return (
            self.outcome is Outcome.CANCELLED
            and self.finished is not None
            and self.started is not None
            and self.started < self.finished <= now
            and (not self.reported or now < self.finished + SETTLING)
        )

    def started_at(self, now: float) -> int:
        """Whole Unix seconds; 0 when it has not happened."""
        return int(self.started) if self.started is not None and now >= self.started else 0

    def finished_at(self, now: float) -> int:
        """Whole Unix seconds; 0 when it has not happened, or was forgotten in a server's restart."""
        if self.outcome is Outcome.LOST:
            return 0
        return int(self.finished) if self.finished is not None and now >= self.finished else 0

    def stable_until(self, now: float) -> float:
        """When its row next changes by itself; infinity when it does not."""
        planned = (self.accepted, self.reviewed, self.started, self.finished)
        times = [t for t in planned if t is not None and t > now]
        times += [later.at for later in self.later if later.at > now]
        if self.finished is not None and now < self.finished + SETTLING:
            times.append(self.finished + SETTLING)
        if times and self.started is not None and now >= self.started and len(self.legs) > 1:
            times.append(math.floor(now) + 1)
        return min(times, default=math.inf)
