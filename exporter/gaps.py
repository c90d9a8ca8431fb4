"""Reading the numbers that are known to exist and not read yet: history, and what a feed overran.

A gap shrinks from its top in the transaction that records what was read, so that a kill at any
moment costs one request and no build.
"""

from collections.abc import Callable
from dataclasses import replace

from sqlalchemy import Connection

from exporter.http import ServerError
from exporter.intake import Intake
from exporter.ledger import watched
from exporter.ledger.watched import Gap, RepoState
from exporter.model import Build
from exporter.servers import Page, Server

ROWS_AT_ONCE = 400
"""Rows that are read before they are recorded; a transaction costs a write to the disk."""


class GapReader:
    """Reads gaps of one server's repos."""

    def __init__(self, server: Server, intake: Intake) -> None:
        self._server = server
        self._intake = intake

    def read(self, repo: RepoState, gap: Gap, cutoff: int, go_on: Callable[[], bool]) -> Gap:
        """Reads a part of a gap and returns what is left of it (`low` > `high`: nothing).

        History created before `cutoff` (Unix seconds) is left out. Raises `ServerError`.
        """
        rest = replace(gap)
        rows: list[Build] = []
        unread: list[int] = []
        while rest.low <= rest.high and len(rows) < ROWS_AT_ONCE and (not rows or go_on()):
            if self._beyond_lists(repo, rest) or gap.low == gap.high:
                rows += self._single(repo, rest)
            else:
                rows += self._page(repo, rest, unread)
            if rest.history and rows and 0 < min(b.created or cutoff for b in rows) < cutoff:
                rest.high = rest.low - 1
        if rest.history:
            rows = [b for b in rows if b.created >= cutoff or b.number == repo.highest or not b.ended]
        rest.failed = False

        def write(conn: Connection) -> None:
            watched.write_gap(conn, rest)
            for number in unread:
                watched.add_gap(conn, repo, number, number, history=False, failed=True)

        self._intake.take(rows, write)
        return rest

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
