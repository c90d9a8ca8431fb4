"""What the numbers of a server's builds tell: which others exist, and whether one was given out before."""

from collections.abc import Collection, Sequence

from sqlalchemy import Connection

from exporter.ledger import store, watched
from exporter.ledger.runs import Run
from exporter.ledger.watched import Gap, RepoState
from exporter.model import Build, Repo
from exporter.servers import Limits


class Numbers:
    """Each repo counts its builds, and gives out no number twice (the Drones)."""

    def advance(
        self, conn: Connection, repo: RepoState, top: int, created: int, seen: Collection[int]
    ) -> bool:
        """Moves the repo's highest number on to `top`; True when it moved.

        Numbers below it that were not seen become gaps to be read.
        """
        if top <= repo.highest:
            if top == repo.highest and created > repo.highest_created:
                repo.highest_created = created
                watched.write_repos(conn, [repo])
            return False
        self._leave_gaps(conn, repo, top, seen)
        repo.highest, repo.highest_created = top, created
        watched.write_repos(conn, [repo])
        return True

    def leave_to_import(self, conn: Connection, state: RepoState, repo: Repo, *, wanted: bool) -> None:
        """All that the repo built so far is history: to be read where that is `wanted`."""
        newest = repo.newest
        top = max(repo.counter, newest.number if newest else 0)
        if top <= state.highest:
            return
        if wanted:
            watched.add_gap(conn, state, state.highest + 1, top, history=True)
        state.highest = top
        state.highest_created = newest.created if newest and newest.number == top else 0
        watched.write_repos(conn, [state])

    def given_again(self, conn: Connection, repo: RepoState, builds: Sequence[Build]) -> bool:
        """True when one was created later than that of the highest number, and its number was handled: then
        the server was rebuilt from empty.
        """
        later = [b for b in builds if 0 < repo.highest_created < b.created and b.number <= repo.highest]
        later = self._of_another_server(conn, repo, later)
        if not later:
            return False
        known = store.runs_of(conn, repo, sorted(build.number for build in later))
        unread = watched.gaps_of_repo(conn, repo.id)
        return any(_is_given_again(build, known.get(build.number, ()), unread) for build in later)

    def given_before(self, conn: Connection, repo: RepoState, build: Build) -> int:
        """When the build that the ledger has of that number was created, if a server before this one had it.

        Unix seconds; 0 where it is the same build, or none is known.
        """
        known = store.runs_of(conn, repo, [build.number]).get(build.number, [])
        if not known or not _is_given_again(build, known, ()):
            return 0
        return max(run.created for run in known) if self._of_another_server(conn, repo, [build]) else 0

    def _leave_gaps(self, conn: Connection, repo: RepoState, top: int, seen: Collection[int]) -> None:
        low = repo.highest + 1
        for number in sorted(number for number in {*seen, top + 1} if number >= low):
            if number > low:
                watched.add_gap(conn, repo, low, number - 1, history=False)
            low = number + 1

    def _of_another_server(
        self,
        conn: Connection,  # noqa: ARG002
        repo: RepoState,  # noqa: ARG002
        builds: list[Build],
    ) -> list[Build]:
        """Those that may be of a server that was rebuilt."""
        return builds


class ReusedNumbers(Numbers):
    """Each repo counts its builds, and gives out the number of one that vanished again (Woodpecker).

    Only a server that was rebuilt gives out ids again.
    """

    def _of_another_server(self, conn: Connection, repo: RepoState, builds: list[Build]) -> list[Build]:
        top = store.highest_id(conn, repo) if builds else 0
        return [build for build in builds if 0 < build.id < top]


class ServerNumbers(Numbers):
    """The server counts the builds of all its repos (ABF): those between two of a repo are other repos'."""

    def leave_to_import(self, conn: Connection, state: RepoState, repo: Repo, *, wanted: bool) -> None:  # noqa: ARG002
        """One gap stands for all pages of the repo's list."""
        if wanted and not watched.gaps_of_repo(conn, state.id):
            watched.add_gap(conn, state, 1, 1, history=True)

    def _leave_gaps(self, conn: Connection, repo: RepoState, top: int, seen: Collection[int]) -> None:
        pass


def numbers_of(limits: Limits) -> Numbers:
    """What the numbers of a dialect tell."""
    if limits.sparse_numbers:
        return ServerNumbers()
    return ReusedNumbers() if limits.reuses_numbers else Numbers()


def _is_given_again(build: Build, known: Sequence[Run], unread: Sequence[Gap]) -> bool:
    """True when the number was handled, and not for this build."""
    if known:
        return all(0 < run.created < build.created for run in known)
    return not any(gap.low <= build.number <= gap.high for gap in unread)
