"""The one interface through which builds are read, and what every dialect says of itself."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, runtime_checkable

from exporter.http import Session
from exporter.model import Build, Repo, Step, User


class Operation(StrEnum):
    """What a server's API may offer beyond reading builds."""

    LOG = "log"
    RESTART = "restart"
    CANCEL = "cancel"
    PUBLISH = "publish"
    REJECT = "reject"


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a repo's builds, newest first."""

    builds: list[Build]
    rows: int
    """Rows of the answer; more than `builds` where some could not be read."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a step's log."""

    text: str
    """As it was printed, colours and all, without its newline."""
    seconds: int = 0
    """When it was printed, counted from the beginning of its step."""
    step: str = ""
    """The step or file that it is of, where a log holds several (`Limits.job_logs`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """Where a server tells by itself that builds change: a reason to look, and no more than that.

    Not all changes are told, nor in their order, and what was missed is not told again.
    """

    path: str
    repo_of: Callable[[str], str]
    """From an event, the repo that it is of; empty where it makes no sense."""
    socket: bool = False
    """It is a WebSocket; else server-sent events."""
    silence: float = 90.0
    """Seconds without a byte after which it is dead: every server pings each 30 s (contracts)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a dialect can and cannot do, as data, so that nobody asks which dialect it is."""

    feed_rows: int
    """Rows of the change feed; more builds than that between two polls overrun it. 0: no limit."""
    page_size: int
    """Builds on one list page."""
    history_limit: int = 0
    """Newest builds of a repo that can be listed at all (0.5: 50); 0: every one."""
    restart_in_place: bool = False
    """A restart keeps the number: an ended build may turn open again."""
    open_rows: int = 0
    """Rows of the running list (1.x: 50); 0: no limit. A full list proves nothing of the rest."""
    open_blocked: bool = False
    """The running list also has builds that wait for approval."""
    listing_delay: int = 0
    """Seconds by which the server's list of repos may lag behind (0.8: 72 h, 0.5: 15 min)."""
    repos_limit: int = 0
    """Repos that a user can see at most (0.5 on SQLite: 999); 0: no limit."""
    lists_repos: bool = True
    """`repos()` tells all of them. Where not (ABF), it tells those that this process met: one that is not
    among them is not gone, and one that is new there may have been built before."""
    sparse_numbers: bool = False
    """Numbers are given out for the whole server (ABF): those between two of a repo are other repos', the
    pages of its list cannot be counted off by them, and one that is refused was looked for in the list."""
    reuses_numbers: bool = False
    """The number of a build that vanished is given out again, with a later `created` and a higher `id`
    (Woodpecker): that is no sign that the server was rebuilt."""
    job_logs: bool = False
    """A step's log is that of a whole job (0.5) or build (ABF), whose own steps or files its lines name."""
    late_logs: int = 0
    """Seconds after the end of a step in which its log may not be there yet (0.5: 30)."""
    late_lines: int = 0
    """Seconds after the end of a step in which lines of its log still come in (Woodpecker)."""
    operations: frozenset[Operation] = frozenset({Operation.LOG, Operation.RESTART, Operation.CANCEL})
    """What its API offers beyond reading builds."""
    stream: Stream | None = None
    """Its change stream, where it has one."""


def told_until(cursor: str) -> int:
    """The Unix time that a feed's cursor begins with (ABF): all that changed before was told; else 0."""
    at = cursor.partition(".")[0]
    return int(at) if at.isascii() and at.isdigit() and len(at) < 16 else 0


class Recall(Protocol):
    """What was recorded of a server's builds, for a dialect whose answers tell nothing of before (ABF)."""

    def newest(self, numbers: Collection[int]) -> Mapping[int, Build]:
        """By number the newest run of each of these that was recorded, with the steps that were."""
        ...

    def open(self) -> list[Build]:
        """All runs that are recorded as open."""
        ...

    def id_of(self, repo: str) -> str:
        """The server's own id of a recorded repo; empty where none is known."""
        ...


class NoRecall:
    """Nothing was recorded."""

    def newest(self, numbers: Collection[int]) -> Mapping[int, Build]:  # noqa: ARG002
        return {}

    def open(self) -> list[Build]:
        return []

    def id_of(self, repo: str) -> str:  # noqa: ARG002
        return ""


class Server(Protocol):
    """One CI server, read through its dialect; every method raises only `ServerError`."""

    name: str
    dialect: str
    limits: Limits
    session: Session

    @property
    def version(self) -> str:
        """What the server says of itself; empty before the first answer."""
        ...

    def whoami(self) -> User:
        """Whom the token belongs to; raises `ServerError("auth")` when it is nobody's.

        Comes first: elsewhere a wrong token is treated as none, and public repos still answer.
        """
        ...

    def repos(self, *, brief: bool = False) -> list[Repo]:
        """All repos that the token sees, with their newest build; `brief`: only what one request tells."""
        ...

    def feed(self, cursor: str) -> tuple[list[Build], str]:
        """What changed in all repos since `cursor` ("" at first), newest first, and the next cursor.

        The Drones have no cursor: they answer their newest builds, whatever was asked before. One that
        there is begins as `told_until` reads it.
        """
        ...

    def open_builds(self) -> list[Build] | None:
        """All builds known to be open, or None where the token or the edition has no such list."""
        ...

    def builds(self, repo: str, page: int) -> Page:
        """Page `page` (from 1) of a repo's builds, newest first; empty past the end."""
        ...

    def build(self, repo: str, number: int) -> Build:
        """The single build with its steps; `ServerError.missing` when the number is refused."""
        ...

    def log(self, repo: str, number: int, step: Step) -> list[Line]:
        """What a step of that build printed; `ServerError.missing` where there is no log (yet)."""
        ...

    def restart(self, repo: str, number: int) -> Build | None:
        """The build that now runs: of a new number, or of the same (`restart_in_place`).

        None where the server took the request and began nothing. `ServerError.unfit` where the build's
        state does not allow it.
        """
        ...

    def cancel(self, repo: str, number: int) -> None:
        """Ask the server to stop what runs; the build ends a moment later, or when its agent obeys.

        `ServerError.unfit` where nothing of it can be stopped.
        """
        ...


@runtime_checkable
class Publisher(Server, Protocol):
    """A server whose builds are packages, which somebody may have published (ABF)."""

    def publish(self, repo: str, number: int) -> None:
        """Ask the server to publish what was built; `ServerError.unfit` where there is nothing to publish."""
        ...

    def reject(self, repo: str, number: int) -> None:
        """Say that what was built is not to be published."""
        ...
