"""Reading the numbers that are known to exist and not read yet: history, and what a feed overran.

A gap shrinks from its top in the transaction that records what was read, so that a kill at any
moment costs one request and no build.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from typing import Self

from sqlalchemy import Connection

from exporter.http import ServerError
from exporter.intake import ROWS_AT_ONCE, Intake
from exporter.ledger import watched
from exporter.ledger.watched import Gap, RepoState
from exporter.model import Build
from exporter.servers import Page, Server


@dataclass(slots=True)
class Part:
    """What was read of a gap at a time: its builds, what is left of it, and numbers that were not told."""

    repo: RepoState
    rest: Gap
    builds: list[Build]
    unread: list[int]
    below: Build | None = None
    """The build below a gap that ends, which was handled, where the server has it still."""


class Recording:
    """Parts on their way into the ledger: the server answers the next question while the last one is written.

    What was added is recorded when it ends, however it ends; it raises `LedgerError` then or before.
    """

    def __init__(self, record: Callable[[Sequence[Part]], None]) -> None:
        self._record = record
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="record")
        self._parts: list[Part] = []
        self._written: Future[None] | None = None

    def add(self, part: Part) -> None:
        """Takes in one more part."""
        self._parts.append(part)
        if sum(len(each.builds) for each in self._parts) >= ROWS_AT_ONCE:
            self._write()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._write()
            self._wait()
        finally:
            self._writer.shutdown()

    def _write(self) -> None:
        """One transaction at a time, so that nothing is ahead of what was read before it."""
        self._wait()
        parts, self._parts = self._parts, []
        if parts:
            self._written = self._writer.submit(self._record, parts)

    def _wait(self) -> None:
        written, self._written = self._written, None
        if written is not None:
            written.result()


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
        rows = self._single(part) if self._is_single(repo, gap) else self._page(part)
        if gap.history:
            if self._is_too_old(rows, cutoff):
                part.rest.high = gap.low - 1
            rows = [b for b in rows if b.created >= cutoff or b.number == repo.highest or not b.ended]
        part.builds = rows
        return part

    def failed(self, repo: RepoState, gap: Gap, *, given_up: bool) -> Part:
        """What is left of a gap whose top could not be read.

        `given_up`: it was tried often enough, so that a build which cannot be read alone no longer
        keeps those below it from being read; one of history is done without.
        """
        part = Part(repo, replace(gap, failed=True), [], [])
        if given_up and self._is_single(repo, gap) and (gap.history or gap.low < gap.high):
            part.rest.high = gap.high - 1
            part.rest.failed = False
            part.unread = [] if gap.history else [gap.high]
        return part

    def recording(self) -> "Recording":
        """Within it parts are recorded, some at a time, while the next ones are read."""
        return Recording(self._record)

    def _record(self, parts: Sequence[Part]) -> None:
        """Records what was read, with what is left of the gaps, in one transaction."""

        def write(conn: Connection) -> None:
            for part in parts:
                if part.rest.generation != part.repo.generation:
                    continue  # what was to be read is of a server that is no more
                watched.write_gap(conn, part.rest)
                for number in part.unread:
                    watched.add_gap(conn, part.repo, number, number, history=False, failed=True)
            read = (part.repo for part in parts if part.rest.history and not part.rest.failed)
            self._intake.history_read(conn, read)

        anew = [
            (part.repo, since)
            for part in parts
            if part.below and (since := self._intake.given_again(part.repo, part.below))
        ]
        self._intake.take([build for part in parts for build in part.builds], write, anew)

    def find_row(self, repo: RepoState, number: int) -> Build | None:
        """The build's row in a list page that covers its number; None when it is not there any more.

        A refusal of the build alone proves nothing: a source host that is down reads the same. Where
        lists do not reach that far (0.5), a list that answers while the number is refused does.
        """
        page = self._find_page(repo, number)
        return next((build for build in page.builds if build.number == number), None)

    def _is_too_old(self, rows: Sequence[Build], cutoff: int) -> bool:
        """True when nothing that is to be read comes after these rows."""
        return len(rows) > 0 and 0 < rows[-1].created < cutoff

    def _is_single(self, repo: RepoState, gap: Gap) -> bool:
        limit = self._server.limits.history_limit
        return gap.low == gap.high or 0 < limit <= repo.highest - gap.high

    def _single(self, part: Part) -> list[Build]:
        number = part.rest.high
        try:
            found: Build | None = self._server.build(part.repo.name, number)
        except ServerError as error:
            if not error.missing:
                raise
            found = self.find_row(part.repo, number)
        part.rest.high = number - 1
        limit, low = self._server.limits.history_limit, part.rest.low
        if number == low and not part.rest.history and 0 < limit <= part.repo.highest - low:
            self._read_below(part)
        return [found] if found else []

    def _page(self, part: Part) -> list[Build]:
        """The rows of the page that holds the gap's top, or would; the gap shrinks by what it covers."""
        gap = part.rest
        page = self._find_page(part.repo, gap.high)
        numbers = {build.number for build in page.builds}
        if not gap.history and max(numbers, default=0) < gap.high and page.rows == len(page.builds):
            return self._single(part)  # a list may be older than the answer that told of the number
        bottom = gap.low
        if page.rows >= self._server.limits.page_size:
            if not numbers:
                raise self._makes_no_sense(part.repo, "no row of a list of builds can be read")
            bottom = min(numbers)
            if bottom > gap.high:
                return self._single(part)
        if page.rows > len(page.builds) and not gap.history:
            # Looked for beside the rows that can be read: a number may be out of all reason.
            near = min(numbers, default=gap.low) - self._server.limits.page_size
            covered = range(max(bottom, gap.low, near), gap.high + 1)
            unseen = (number for number in covered if number not in numbers)
            part.unread = list(islice(unseen, 2 * self._server.limits.page_size))
        gap.high = bottom - 1
        if gap.high < gap.low and not gap.history:
            part.below = next((build for build in page.builds if build.number == gap.low - 1), None)
            if page.rows >= self._server.limits.page_size and bottom == gap.low:
                self._read_below(part)
        return [build for build in page.builds if build.number >= gap.low]

    def _read_below(self, part: Part) -> None:
        """Where the build below a gap is another one than the one handled, the server was rebuilt."""
        with suppress(ServerError):
            part.below = self._server.build(part.repo.name, part.rest.low - 1) if part.rest.low > 1 else None

    def _find_page(self, repo: RepoState, number: int) -> Page:
        """The first page that reaches down to a number; on 0.5 the only one there is.

        The first guess is off where builds were removed, or new ones came: from there the steps are
        doubled until the page is passed, and then halved.
        """
        limits = self._server.limits
        guess = max(0, repo.highest - number) // limits.page_size + 1
        pages: dict[int, Page] = {}

        def reaches(at: int) -> bool:
            page = pages[at] = self._server.builds(repo.name, at)
            return page.rows < limits.page_size or _bottom(page) <= number

        if limits.history_limit:
            return self._server.builds(repo.name, 1)
        above, at, step = 0, guess, 1
        while not reaches(at):
            if above and _bottom(pages[at]) >= _bottom(pages[above]):
                raise self._makes_no_sense(repo, "every page of its list of builds is the same")
            above, at, step = at, at + step, 2 * step
        step = 1
        while at - above > 1:
            middle = max(above + 1, at - step) if above == 0 else (above + at) // 2
            if reaches(middle):
                at, step = middle, 2 * step
            else:
                above = middle
        return pages[at]

    def _makes_no_sense(self, repo: RepoState, what: str) -> ServerError:
        return self._server.session.fault("shape", repo.name, what, status=200)


class PageReader(GapReader):
    """Reads history page by page where numbers do not tell what is on a page: the last changed come first.

    One gap stands for all pages; another process begins with the first one again, and nothing counts twice.
    """

    def __init__(self, server: Server, intake: Intake) -> None:
        super().__init__(server, intake)
        self._pages: dict[tuple[int, int], tuple[int, set[int]]] = {}
        """The page that was read last, by repo and gap, and the numbers on it."""

    def read(self, repo: RepoState, gap: Gap, cutoff: int) -> Part:
        part = super().read(repo, gap, cutoff)
        if part.rest.low > part.rest.high:
            self._pages.pop((repo.id, gap.id), None)
        return part

    def find_row(self, repo: RepoState, number: int) -> Build | None:  # noqa: ARG002
        """None: the server's refusal of a single build proves that it is gone."""
        return None

    def _is_too_old(self, rows: Sequence[Build], cutoff: int) -> bool:
        return 0 < max((build.created for build in rows), default=0) < cutoff

    def _is_single(self, repo: RepoState, gap: Gap) -> bool:  # noqa: ARG002
        return False

    def _page(self, part: Part) -> list[Build]:
        place = part.repo.id, part.rest.id
        at, before = self._pages.get(place, (0, set()))
        page = self._server.builds(part.repo.name, at + 1)
        numbers = {build.number for build in page.builds}
        # Noted first: should so many builds have changed meanwhile, the next one is another.
        self._pages[place] = at + 1, numbers
        if page.rows < self._server.limits.page_size:
            part.rest.high = part.rest.low - 1
        elif numbers and numbers == before:
            raise self._makes_no_sense(part.repo, "two pages of its list of builds are the same")
        return page.builds


def gap_reader(server: Server, intake: Intake) -> GapReader:
    """What reads the gaps of a server, as its numbers allow."""
    return (PageReader if server.limits.sparse_numbers else GapReader)(server, intake)


def _bottom(page: Page) -> int:
    return min((build.number for build in page.builds), default=0)
