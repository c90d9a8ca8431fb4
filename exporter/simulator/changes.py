"""The builds of a simulated server by the time of their last change, newest first."""

import heapq
import math
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TypeAlias

from exporter.simulator.builds import Build
from exporter.simulator.history import History
from exporter.simulator.repos import Repo

LASTING = 6000.0
"""Seconds from a build's creation to its last change, at most, in a history."""
KEPT = 20
"""Lists that are kept while nothing changes."""
Change: TypeAlias = tuple[float, int, Repo, Build]
"""(when it last changed, id, repo, build)."""
Histories: TypeAlias = Sequence[tuple[History, list[Repo]]]


class Lazy:
    """A list that is made only as far as anybody has read it."""

    def __init__(self, rest: Iterator[Change]) -> None:
        self._known: list[Change] = []
        self._rest = rest

    def part(self, first: int, size: int) -> list[Change]:
        """`size` of them from the place `first` on."""
        self._known += islice(self._rest, max(0, first + size - len(self._known)))
        return self._known[first : first + size]

    def __iter__(self) -> Iterator[Change]:
        at = 0
        while chunk := self.part(at, 100):
            yield from chunk
            at += len(chunk)


class Changes:
    """All builds of one world; histories are sorted while they are read."""

    def __init__(self) -> None:
        self._pasts: list[tuple[History, Lazy]] = []
        self._lists: dict[Hashable, Lazy] = {}
        self._holds = (-1, 0.0, 0.0)
        """Number of edits, from when and until when the lists hold."""

    def select(
        self, repos: Mapping[str, Repo], histories: Histories, edits: int, now: float,
        key: Hashable, wanted: Callable[[Change], bool],
    ) -> Lazy:  # fmt: skip
        """The wanted builds; `key` tells this list from others, `edits` grows with every change."""
        before, since, until = self._holds
        if before != edits or not since <= now < until or len(self._lists) > KEPT:
            self._lists.clear()
            live = (build for repo in repos.values() for build in repo.live.values())
            self._holds = (edits, now, min((build.stable_until(now) for build in live), default=math.inf))
        if key not in self._lists:
            self._lists[key] = Lazy(filter(wanted, self._all(repos, histories, now)))
        return self._lists[key]

    def _all(self, repos: Mapping[str, Repo], histories: Histories, now: float) -> Iterator[Change]:
        live = [
            (build.changed_at(now), build.id, repo, build)
            for repo in repos.values()
            for build in repo.live.values()
        ]
        live.sort(key=lambda one: one[:2], reverse=True)
        pasts = [filter(_is_there(repos), self._past(*history)) for history in histories]
        return heapq.merge(live, *pasts, key=lambda one: one[:2], reverse=True)

    def _past(self, history: History, repos: Sequence[Repo]) -> Lazy:
        for known, past in self._pasts:
            if known is history:
                return past
        past = Lazy(_by_change(history, repos))
        self._pasts.append((history, past))
        return past


def _is_there(repos: Mapping[str, Repo]) -> Callable[[Change], bool]:
    """Leaves out what was changed or deleted since a history was made."""

    def there(one: Change) -> bool:
        _, _, repo, build = one
        untouched = build.number not in repo.live and build.number not in repo.holes
        return untouched and repos.get(repo.name) is repo

    return there


def _by_change(history: History, repos: Sequence[Repo]) -> Iterator[Change]:
    """A history, sorted while it is read: what is not read yet was created before, and changed soon after."""
    waiting: list[tuple[float, int, Repo, Build]] = []
    for build_id, place, number in history.newest():
        build = history.build(place, number)
        while waiting and -waiting[0][0] >= build.created + LASTING:
            yield _popped(waiting)
        heapq.heappush(waiting, (-build.changed_at(math.inf), -build_id, repos[place], build))
    while waiting:
        yield _popped(waiting)


def _popped(waiting: list[tuple[float, int, Repo, Build]]) -> Change:
    changed, build_id, repo, build = heapq.heappop(waiting)
    return -changed, -build_id, repo, build
