"""The builds of one server that are open, and those whose end is to be read singly."""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

from exporter.faults import Faults
from exporter.gaps import GapReader
from exporter.http import ServerError
from exporter.intake import Intake
from exporter.ledger import Ledger, Moment, is_live, store
from exporter.ledger.runs import Run
from exporter.ledger.schema import DOUBTED, ENDING, OPEN, SETTLED
from exporter.ledger.watched import RepoState
from exporter.log import logger
from exporter.model import Build, Status, Word
from exporter.roster import Roster
from exporter.servers import Server

LIST = "the list of open builds"
FLEETING = 2.0
"""Seconds after which a `killed` that still reads so is final (contracts of Drone 0.5 and 0.8)."""
LOOK_AGAIN = 60.0
"""Seconds between two looks at a build that waits: only the single build tells that it is blocked."""
OLD, ASKED_AT_LEAST = 86_400.0, 3_600.0
"""A build open for longer than a day is asked about less and less, at last once an hour."""
SINGLES_AT_ONCE = 20
"""Single builds that are read before they are recorded: each is news, so they are few."""

log = logger(__name__)
Place: TypeAlias = tuple[int, int]
"""A repo's id in the ledger and the number of one of its builds."""


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
        self._looks: dict[Place, float] = {}
        """When the open builds that are asked about are to be asked about again (monotonic seconds)."""

    def follow(self, rows: Iterable[Build], go_on: Callable[[], bool]) -> None:
        """Asks about open builds that neither the feed `rows` nor the list of open builds explain.

        Those that there is no time for have their turn at the next look.
        """
        shown = {(row.repo, row.number): row for row in rows}
        listed = self._listed()
        self._intake.take(listed)
        shown |= {(row.repo, row.number): row for row in listed}
        now = self._monotonic()
        looks: dict[Place, float] = {}
        patience: dict[Place, float] = {}
        for repo, run in self._unsettled(OPEN):
            row = shown.get((repo.name, run.number))
            if row is None or (row.word is Word.ROW and not row.ended):
                place = (repo.id, run.number)
                looks[place] = self._looks.get(place, now)
                patience[place] = self._patience(run, shown=row is not None)
        self._looks = looks

        def asked() -> Iterator[Place]:
            for place in sorted(looks, key=looks.__getitem__):
                if looks[place] > now or not go_on():
                    return
                looks[place] = now + patience[place]
                yield place

        self._read(asked(), OPEN)

    def _listed(self) -> Sequence[Build]:
        """The server's own list of open builds, which a look does without where it fails."""
        if not self._faults.due(LIST):
            return ()
        try:
            listed = self._server.open_builds() or ()
        except ServerError as error:
            self._faults.bad(LIST, LIST, error)
            return ()
        self._faults.good(LIST, LIST)
        return listed

    def read_ends(self, *, history: bool, go_on: Callable[[], bool]) -> int:
        """Reads singly what a row said has ended: live ends as they came, history by each repo's newest.

        Returns how many were read.
        """
        unread: dict[int, dict[int, int]] = {}
        for repo, run in self._unsettled(ENDING, DOUBTED):
            if (is_live(repo, run) or run.state == DOUBTED) is not history:
                unread.setdefault(repo.id, {})[run.number] = run.when_ended
        turns = [
            (turn if history else ends[number], repo_id, number)
            for repo_id, ends in unread.items()
            for turn, number in enumerate(sorted(ends, reverse=True))
        ]
        places = ((repo_id, number) for _, repo_id, number in sorted(turns) if go_on())
        # What ended before there was anybody to see it has long said its last word.
        told = self._read(places, ENDING, last_word=history)
        fleeting = [place for place, build in told.items() if build.word is Word.FLEETING]
        if fleeting and not self._stop.wait(FLEETING):
            told |= self._read(fleeting, ENDING, last_word=True)
        self._give_up_overwritten(told)
        return len(told)

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

    def _patience(self, run: Run, *, shown: bool) -> float:
        """Seconds until an open build is asked about again: the older it is, the longer."""
        waits = shown or run.status == Status.BLOCKED
        age = self._moment().server - (run.started or run.run or run.created)
        slowly = min(ASKED_AT_LEAST, self._poll + (age - OLD) / 24) if age >= OLD else 0.0
        return max(slowly, LOOK_AGAIN if waits else 0.0)

    def _read(self, places: Iterable[Place], state: int, *, last_word: bool = False) -> dict[Place, Build]:
        """Reads and records those single builds that are due; they are thought to be in `state`."""
        told: dict[Place, Build] = {}
        unrecorded: list[Build] = []
        try:
            for place in places:
                repo, number = self._roster.by_id[place[0]], place[1]
                if not self._faults.due((state, place)):
                    continue
                try:
                    build = self._server.build(repo.name, number)
                except ServerError as error:
                    self._refused(repo, number, state, error)
                    continue
                self._faults.good((state, place), repo.name)
                if state == ENDING and not build.ended:
                    self._faults.later((state, place), self._poll / 2)
                if last_word and build.word is Word.FLEETING:
                    build = replace(build, word=Word.FINAL)
                told[place] = replace(build, steps=())
                unrecorded.append(build)
                if len(unrecorded) >= SINGLES_AT_ONCE:
                    self._intake.take(unrecorded)
                    unrecorded = []
        finally:
            self._intake.take(unrecorded)
        return told

    def _give_up_overwritten(self, told: Mapping[Place, Build]) -> None:
        """Where the single build is a later run by now, the row of the one before was its last word."""
        if told:
            self._intake.take(
                run.build(repo.name)
                for repo, run in self._unsettled(ENDING)
                if (build := told.get((repo.id, run.number))) and run.run < build.run
            )

    def _refused(self, repo: RepoState, number: int, state: int, error: ServerError) -> None:
        """A build that cannot be had is gone, ended by its row's own word, or asked for again."""
        key = (state, (repo.id, number))
        give_up = self._faults.bad(key, repo.name, error)
        with self._ledger.reading() as conn:
            runs = store.runs_of(conn, repo, [number]).get(number, [])
        ending = [run.build(repo.name) for run in runs if run.state == ENDING]
        if ending and give_up:
            self._faults.forget(key)
            self._intake.take(ending)
        puzzling = [run for run in runs if run.state in (OPEN, DOUBTED)]
        if not puzzling or not (error.missing or give_up):
            return
        lists = ("lists", repo.id)
        if not self._faults.due(lists):
            return
        try:
            row = self._gaps.find_row(repo, number)
        except ServerError as refused:
            self._faults.bad(lists, repo.name, refused)
            return
        self._faults.good(lists, repo.name)
        if row is not None:
            self._intake.take([row])
        elif error.missing:
            self._faults.forget(key)
            self._drop(repo, puzzling)

    def _drop(self, repo: RepoState, runs: Iterable[Run]) -> None:
        """Forgets the runs of a build that is not there any more, but for ends that are known."""
        with self._ledger.transaction() as conn:
            for run in runs:
                if run.state == DOUBTED:
                    store.write_runs(conn, [replace(run, state=SETTLED)], repo.id)
                else:
                    store.drop_run(conn, run)
                    log.info(
                        "a build is not there any more",
                        server=self._roster.name,
                        repo=repo.name,
                        number=run.number,
                    )
        self._intake.changed.add(repo.id)
