"""The one interface through which builds are read, and what every dialect says of itself."""

from dataclasses import dataclass
from typing import Protocol

from exporter.http import Session
from exporter.model import Build, Repo, User


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a repo's builds, newest first."""

    builds: list[Build]
    rows: int
    """Rows of the answer; more than `builds` where some could not be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a dialect can and cannot do, as data, so that nobody asks which dialect it is."""

    feed_rows: int
    """Rows of the change feed; more builds than that between two polls overrun it."""
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

        The Drones have no cursor: they answer their newest builds, whatever was asked before.
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
