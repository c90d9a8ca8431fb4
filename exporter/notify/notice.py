"""What one message says, as facts: the rows of the outbox hold it, the text is made when it is sent."""

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What happened to the branch that is told about."""

    OPENED = "opened"
    CHANGED = "changed"
    """Still red, and something about it is new; or its target was not told yet."""
    RESOLVED = "resolved"
    FLAPPING = "flapping"
    STALE = "stale"
    """Closed without a good build: the branch is gone, or nothing was built for long."""
    DIGEST = "digest"
    REMINDER = "reminder"
    ALERT = "alert"
    """Alerts of Prometheus's that are passed on: the first of `lines` is the title, `failures` are those
    that fire; with none of them it is the all-clear."""
    TEST = "test"


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildFacts:
    """One build as it is told to people; every text in it is untrusted."""

    number: int
    url: str
    commit: str
    author: str
    title: str
    """The first line of the commit's message."""
    status: str
    step: str
    """The step that failed; empty where none is known."""
    exit_code: int | None
    duration: float | None
    """Seconds."""
    finished: int
    """Unix seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """The facts of one row of the outbox; every text in it but `key` and `thread` is untrusted."""

    key: str
    """The idempotency key: the same for every attempt."""
    thread: str
    """The same for all that is told of one incident, and of that alone."""
    kind: Kind
    server: str
    repo: str
    branch: str
    event: str
    ref: str
    """What was built beside a branch, in words: `tag v1.2`; may be empty."""
    build: BuildFacts | None
    since: int
    """Unix seconds: red since."""
    failures: int
    first_number: int
    """The number of the build that turned the branch red."""
    flaky: bool
    excerpt: str
    """Lines of the failing step's log, redacted; may be empty."""
    excerpt_note: str
    """Why there is no excerpt: `log unavailable (404)`; may be empty."""
    lines: tuple[str, ...]
    """Of a digest: a line for each thing that happened. Of an alert: its title, and a line for each fact."""
    mention: tuple[str, ...]
    """Handles at this target of those who are to be called."""
    at: int
    """Unix seconds: when it happened."""
    url: str = ""
    """Of an alert: where its reader goes on, its runbook or where it was made."""
