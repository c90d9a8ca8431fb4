"""Whom a simulated server knows, and the repos it has."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

from exporter.simulator.builds import Build
from exporter.simulator.history import History


@dataclass(frozen=True, slots=True)
class User:
    """Whom a token belongs to."""

    login: str
    admin: bool = False
    push: bool = True
    repos: frozenset[str] | None = None
    """The repos on which the user has rights; None: all."""


@dataclass(slots=True, eq=False)
class Repo:
    """One repository; `live` holds what is known beside its `history`."""

    id: int
    name: str
    """`owner/name`."""
    added: float
    default_branch: str = "master"
    private: bool = False
    active: bool = True
    gated: bool = False
    timeout: int = 60
    """Minutes."""
    counter: int = 0
    """The highest number given out."""
    sparse: bool = False
    """Numbers are ids of the whole server (ABF), not 1, 2, 3 … of the repo."""
    history: History | None = field(default=None, repr=False)
    place: int = 0
    live: dict[int, Build] = field(default_factory=dict, repr=False)
    holes: set[int] = field(default_factory=set, repr=False)
    overwritten: list[tuple[int, Build]] = field(default_factory=list, repr=False)
    """Runs that a restart in place replaced or the server deleted, with their number."""
    edits: int = 0
    rows: dict[str, tuple[float, bytes]] = field(default_factory=dict, repr=False)
    """Rendered rows, each with the time until which it holds; emptied by every change."""

    def get(self, number: int) -> Build | None:
        """The build of this number as it is planned, or None where there is none."""
        if number in self.holes:
            return None
        build = self.live.get(number)
        if build is None and self.history and self.history.turn(self.place, number):
            return self.history.build(self.place, number)
        return build

    def numbers(self) -> Iterator[int]:
        """Every number that has a build, newest first."""
        known: Iterable[int] = range(self.counter, 0, -1)
        if self.sparse:
            past = self.history.numbers(self.place) if self.history else ()
            known = sorted({*self.live, *past}, reverse=True)
        return (n for n in known if n not in self.holes)

    def page(self, first: int, size: int) -> list[Build]:
        """`size` builds from the place `first`, counted from 0 for the newest."""
        if self.holes or self.sparse:
            numbers: Iterable[int] = islice(self.numbers(), first, first + size)
        else:
            numbers = range(self.counter - first, max(0, self.counter - first - size), -1)
        return [build for number in numbers if (build := self.get(number)) is not None]

    def newest(self) -> Build | None:
        number = next(self.numbers(), 0)
        return self.get(number) if number else None
