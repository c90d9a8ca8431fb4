"""What a build is, whatever server it ran on.

Times are Unix seconds and 0 means "has not happened"; durations are seconds and None means
"not known" or "not real". Nothing here does I/O or reads a clock.
"""

from dataclasses import dataclass
from enum import Enum, IntEnum, StrEnum


class Status(IntEnum):
    """The closed list of states; the number is the code shown in gauges (docs/metrics.md)."""

    UNKNOWN = 0
    SUCCESS = 1
    FAILURE = 2
    ERROR = 3
    TIMEOUT = 4
    CANCELLED = 5
    SKIPPED = 6
    DECLINED = 7
    BLOCKED = 8
    PENDING = 9
    RUNNING = 10

    @property
    def word(self) -> str:
        """The value of the label `status`."""
        return self.name.lower()

    @property
    def open(self) -> bool:
        """True while an end is still to come."""
        return self >= Status.BLOCKED

    @property
    def bad(self) -> bool:
        return Status.FAILURE <= self <= Status.TIMEOUT


FINISHED = tuple(s for s in Status if Status.SUCCESS <= s <= Status.DECLINED)
STEP_FINISHED = FINISHED[: FINISHED.index(Status.SKIPPED) + 1]


class Event(StrEnum):
    """What started a build."""

    PUSH = "push"
    PULL_REQUEST = "pull_request"
    TAG = "tag"
    CRON = "cron"
    DEPLOYMENT = "deployment"
    MANUAL = "manual"


class Word(Enum):
    """How far the status of an answer can be trusted."""

    FINAL = "final"
    """It is what the server will go on saying."""
    ROW = "row"
    """A list, feed or running row that only the single build explains (a cancel, a block)."""
    FLEETING = "fleeting"
    """The single build, in a state that may be overwritten within 2 s: to be read again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step (Drone 0.5: one job) of a build."""

    name: str
    """As labelled: `step`, or `stage/step` where the build has more than one stage."""
    status: Status
    exit_code: int = 0
    started: int = 0
    finished: int = 0
    ignored: bool = False
    """Its failure does not fail the build."""
    apart: bool = False
    """It speaks for itself: its failure is told, and does not fail the build (ABF's publishing)."""
    log: str = ""
    """What its server finds its log by; empty where it has none. It means something to the dialect alone."""

    @property
    def duration(self) -> int | None:
        return self.finished - self.started if 0 < self.started <= self.finished else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """One run of a build number, as one answer of the server told it."""

    repo: str
    number: int
    run: int
    """Unix time at which this run was queued; 0 where the answer does not tell (feeds of 0.5)."""
    id: int = 0
    """The server's own id of the build; 0 where the answer does not tell."""
    status: Status
    word: Word = Word.FINAL
    detailed: bool = False
    """True when this is the single build's answer: steps, wait and duration are known."""
    event: Event = Event.PUSH
    branch: str = ""
    ref: str = ""
    commit: str = ""
    created: int = 0
    started: int = 0
    finished: int = 0
    wait: int | None = None
    """Seconds from queued to started, where both are real."""
    duration: int | None = None
    """Seconds that it ran, where both ends are real."""
    parent: int = 0
    """The number it was started from, where the server says so."""
    by_hand: bool = False
    """A person, not a hook or timer, started it (Drone 1.x: `trigger` without `@`)."""
    environment: str = ""
    cron: str = ""
    author: str = ""
    title: str = ""
    """First line of the commit's message, or the pull request's title."""
    error: str = ""
    """Why it could not run or was stopped, in the first words of the server; only in the single build."""
    steps: tuple[Step, ...] = ()
    foreign: bool = False
    """Its code may be of somebody without rights on the repo: a pull request from a fork, and one of which
    the answer does not tell where it comes from (Drone 0.5, 0.8; a feed row of Woodpecker)."""

    @property
    def ended(self) -> bool:
        """True when it has ended; an unknown status has when it carries an end time."""
        return not self.status.open and (self.status is not Status.UNKNOWN or self.finished > 0)

    @property
    def ref_class(self) -> str:
        """What this build speaks for: builds of other classes neither break nor mend it."""
        match self.event:
            case Event.CRON:
                return f"cron:{self.cron}:{self.branch}"
            case Event.DEPLOYMENT:
                return f"deploy:{self.environment}"
            case Event.TAG:
                return f"tag:{self.ref.removeprefix('refs/tags/')}"
            case Event.PULL_REQUEST:
                return f"pr:{_pull_number(self.ref)}"
            case Event.MANUAL:
                return f"manual:{self.branch}"
            case _:
                return f"push:{self.branch}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Repo:
    """One repository that a server lists."""

    name: str
    """`owner/name`."""
    id: str = ""
    """The server's own lasting id; empty where the answer does not tell."""
    default_branch: str = ""
    timeout: int = 0
    """Seconds that a build may run; 0 where the server does not tell."""
    active: bool = True
    counter: int = 0
    """The highest build number given out, as far as the answer tells."""
    newest: Build | None = None
    unseen: bool = False
    """The list of newest builds does not reach to this repo (0.5 on SQLite, beyond 999 repos)."""
    build_url: str = ""
    """Followed by a build number, the address of that build's page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """Whom the token belongs to."""

    login: str
    admin: bool = False


def is_pull(event: Event, ref: str) -> bool:
    """True for a pull request, and for a deployment of one (contracts of Drone 0.5 to 1.x)."""
    return event is Event.PULL_REQUEST or ref.startswith(("refs/pull/", "refs/merge-requests/"))


def _pull_number(ref: str) -> str:
    """The number in `refs/pull/N/head`, `refs/pull/N/merge` or `refs/merge-requests/N/head`."""
    parts = ref.split("/")
    return parts[2] if len(parts) > 3 else ref
