"""Reading the numbers that are known to exist and not read yet: history, and what a feed overran.

A gap shrinks from its top in the transaction that records what was read, so that a kill at any
moment costs one request and no build.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sqlalchemy import Connection

from exporter.http import ServerError
from exporter.intake import Intake
from exporter.ledger import watched
from exporter.ledger.watched import Gap, RepoState
from exporter.model import Build
from exporter.servers import Page, Server

ROWS_AT_ONCE = 2000
"""Rows that are read before they are recorded; a transaction costs a write to the disk."""


@dataclass(slots=True)
class Part:
    """What was read of a gap at a time: its builds, what is left of it, and rows that make no sense."""

    repo: RepoState
    rest: Gap
    builds: list[Build]
    unread: list[int]


class GapReader:
    """Reads gaps of one server's repos."""

    def __init__(self, server: Server, intake: Intake) -> None:
        self._server = server
        self._intake = intake

    def read(self, repo: RepoState, gap: Gap, cutoff: int) -> Part:
        """Reads the top of a gap: one list page, or one build where lists do not reach.

        History created before `cutoff` (Unix seconds) is left out. Raises `ServerError`.
        """
        part = Part(repo, replace(gap, failed=False), [], [])
        if self._beyond_lists(repo, gap) or gap.low == gap.high:
            rows = self._single(repo, part.rest)
        else:
            rows = self._page(repo, part.rest, part.unread)
        if gap.history:
            if rows and 0 < rows[-1].created < cutoff:
                part.rest.high = gap.low - 1
            rows = [b for b in rows if b.created >= cutoff or b.number == repo.highest or not b.ended]
        part.builds = rows
        return part

    def record(self, parts: Sequence[Part]) -> None:
        """Records what was read, with what is left of the gaps, in one transaction."""

        def write(conn: Connection) -> None:
            for part in parts:
                watched.write_gap(conn, part.rest)
                for number in part.unread:
                    watched.add_gap(conn, part.repo, number, number, history=False, failed=True)

        if parts:
            self._intake.take([build for part in parts for build in part.builds], write)

    def confirm_gone(self, repo: RepoState, number: int) -> Build | None:
        """The build's row in a list page that covers its number; None when it is not there any more.

        A refusal alone proves nothing: a source host that is down reads the same. Where lists do
        not reach that far (0.5), a list that answers while the number is refused does.
        """
        gap = Gap(0, repo.id, repo.generation, number, number, history=False, failed=False)
        if self._beyond_lists(repo, gap):
            self._server.builds(repo.name, 1)
            return None
        return next((b for b in self._page(repo, gap, []) if b.number == number), None)

    def _beyond_lists(self, repo: RepoState, gap: Gap) -> bool:
        limit = self._server.limits.history_limit
        return 0 < limit <= repo.highest - gap.high

    def _single(self, repo: RepoState, gap: Gap) -> list[Build]:
        number = gap.high
        try:
            found = [self._server.build(repo.name, number)]
        except ServerError as error:
            if not error.missing:
                raise
            row = self.confirm_gone(repo, number)
            found = [] if row is None else [row]
        gap.high = number - 1
        return found

    def _page(self, repo: RepoState, gap: Gap, unread: list[int]) -> list[Build]:
        """The rows of the page that holds the gap's top, or would; the gap shrinks by what it covers."""
        page = self._find_page(repo, gap)
        numbers = {build.number for build in page.builds}
        bottom = min(numbers, default=gap.low)
        if page.rows < self._server.limits.page_size:
            bottom = min(bottom, gap.low)
        elif bottom > gap.high:
            return self._single(repo, gap)
        covered = range(max(bottom, gap.low), gap.high + 1)
        if page.rows > len(page.builds) and not gap.history:
            unread += [n for n in covered if n not in numbers][: page.rows - len(page.builds)]
        gap.high = bottom - 1
        return [build for build in page.builds if build.number >= gap.low]

    def _find_page(self, repo: RepoState, gap: Gap) -> Page:
        """The first guess is off where builds were removed, or new ones came: look beside it."""
        limits = self._server.limits
        number = (repo.highest - gap.high) // limits.page_size + 1
        older: Page | None = None
        newer = False
        while True:
            page = self._server.builds(repo.name, number)
            numbers = [build.number for build in page.builds]
            if numbers and min(numbers) > gap.high and page.rows >= limits.page_size:
                if older is not None:
                    return older
                if limits.history_limit:
                    return page
                newer, number = True, number + 1
            elif number > 1 and not newer and max(numbers, default=0) < gap.high:
                older, number = page, number - 1
            else:
                return page
