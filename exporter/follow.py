"""The builds of one server that are open, and those whose end is to be read singly."""

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from exporter.faults import TRIED_FOR, Faults
from exporter.gaps import GapReader
from exporter.http import ServerError
from exporter.intake import Intake
from exporter.ledger import Ledger, Moment, is_live, store
from exporter.ledger.runs import Run
from exporter.ledger.schema import DOUBTED, ENDING, OPEN
from exporter.ledger.watched import RepoState
from exporter.log import logger
from exporter.model import Build, Status, Word
from exporter.roster import Roster
from exporter.servers import Server

TRIES = 3
"""After so many tries, or 10 minutes, without its single build an end's row is its last word."""
FLEETING = 2.0
"""Seconds after which a `killed` that still reads so is final (contracts of Drone 0.5 and 0.8)."""
LOOK_AGAIN = 60.0
"""Seconds between two looks at a build that waits: only the single build tells that it is blocked."""
OLD, ASKED_AT_LEAST = 86_400.0, 3_600.0
"""A build open for longer than a day is asked about less and less, at last once an hour."""
SINGLES_AT_ONCE = 20
"""Single builds that are read before they are recorded: each is news, so they are few."""
log = logger(__name__)


class Follower:
    """Reads builds singly until they have ended."""

    def __init__(
        self,
        server: Server,
        gaps: GapReader,
        faults: Faults,
        intake: Intake,
        roster: Roster,
        ledger: Ledger,
        *,
        poll: float,
        moment: Callable[[], Moment],
        monotonic: Callable[[], float],
        stop: threading.Event,
    ) -> None:
        self._server, self._gaps, self._faults = server, gaps, faults
        self._intake, self._roster, self._ledger = intake, roster, ledger
        self._poll, self._moment, self._monotonic, self._stop = poll, moment, monotonic, stop

    def follow(self, rows: Iterable[Build]) -> None:
        """Asks about open builds that the feed `rows` do not show, or do not explain."""
        shown = {(row.repo, row.number): row for row in rows}
        open_runs = list(self._unsettled(OPEN))
        if any((repo.name, run.number) not in shown for repo, run in open_runs):
            listed = self._server.open_builds()
            if listed is not None:
                self._intake.take(listed)
                shown = {(row.repo, row.number): row for row in listed} | shown
        asked: list[tuple[RepoState, int, float]] = []
        for repo, run in open_runs:
            row = shown.get((repo.name, run.number))
            if row is None:
                asked.append((repo, run.number, self._patience(run)))
            elif row.word is Word.ROW and not row.ended:
                asked.append((repo, run.number, LOOK_AGAIN))
        for _ in self._read(asked):
            pass

    def read_ends(self, *, history: bool, go_on: Callable[[], bool]) -> int:
        """Reads singly what a row said has ended, the newest first: live ends, or those of history.

        Returns how many were read.
        """
        numbers = {
            (repo.id, run.number)
            for repo, run in self._unsettled(ENDING, DOUBTED)
            if (is_live(repo, run) or run.state == DOUBTED) is not history
        }
        asked = (
            (self._roster.by_id[repo_id], number, 0.0)
            for repo_id, number in sorted(numbers, reverse=True)
            if go_on()
        )
        read = 0
        fleeting: list[tuple[RepoState, int, float]] = []
        for repo, build in self._read(asked):
            read += 1
            if build.word is Word.FLEETING:
                fleeting.append((repo, build.number, self._monotonic() + FLEETING))
        for repo, number, at in fleeting:
            self._stop.wait(max(0.0, at - self._monotonic()))
            for _ in self._read([(repo, number, 0.0)], last_word=True):
                pass
        return read

    @property
    def open(self) -> int:
        """Builds that are known to be open."""
        return sum(1 for _ in self._unsettled(OPEN))

    def repos_with_history(self) -> set[int]:
        """The repos that have ends of history to be read."""
        return {repo.id for repo, run in self._unsettled(ENDING) if not is_live(repo, run)}

    def _unsettled(self, *states: int) -> Iterator[tuple[RepoState, Run]]:
        with self._ledger.reading() as conn:
            runs = store.unsettled(conn, self._roster.name)
        for run in runs:
            repo = self._roster.by_id.get(run.repo_id)
            if run.state in states and repo is not None and run.generation == repo.generation:
                yield repo, run

    def _patience(self, run: Run) -> float:
        """Seconds until an open build is asked about again: the older it is, the longer."""
        if run.status == Status.BLOCKED:
            return LOOK_AGAIN
        age = self._moment().server - (run.started or run.run or run.created)
        return 0.0 if age < OLD else min(ASKED_AT_LEAST, self._poll + (age - OLD) / 24)

    def _read(
        self, asked: Iterable[tuple[RepoState, int, float]], *, last_word: bool = False
    ) -> Iterator[tuple[RepoState, Build]]:
        """Reads those single builds that are due, and records some at a time.

        Asked for are repo, number, and the seconds after which one that is still open is due again.
        """
        read: list[Build] = []
        try:
            for repo, number, again in asked:
                key = (repo.id, number)
                if not self._faults.due(key, look=again > 0):
                    continue
                try:
                    build = self._server.build(repo.name, number)
                except ServerError as error:
                    self._refused(repo, number, error)
                    continue
                self._faults.good(key, repo)
                if again and not build.ended:
                    self._faults.later(key, again)
                if last_word and build.word is Word.FLEETING:
                    build = replace(build, word=Word.FINAL)
                read.append(build)
                if len(read) >= SINGLES_AT_ONCE:
                    self._intake.take(read)
                    read = []
                yield repo, build
        finally:
            self._intake.take(read)

    def _refused(self, repo: RepoState, number: int, error: ServerError) -> None:
        """A build that cannot be had is gone, ended by its row's own word, or asked for again."""
        tries = self._faults.bad((repo.id, number), repo, error)
        with self._ledger.reading() as conn:
            runs = store.runs_of(conn, repo, [number]).get(number, [])
        ending = [run for run in runs if run.state == ENDING]
        if ending and (tries.count >= TRIES or self._monotonic() - tries.first >= TRIED_FOR):
            self._intake.take(run.build(repo.name) for run in ending)
        if not error.missing or not any(run.state == OPEN for run in runs):
            return
        try:
            row = self._gaps.confirm_gone(repo, number)
        except ServerError as refused:
            self._faults.bad((repo.id, number), repo, refused)
            return
        if row is not None:
            self._intake.take([row])
            return
        with self._ledger.transaction() as conn:
            for run in runs:
                if run.state == OPEN:
                    store.drop_run(conn, run)
        self._intake.changed.add(repo.id)
        log.info("a build is not there any more", server=self._roster.name, repo=repo.name, number=number)
