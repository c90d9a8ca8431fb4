"""Answers of one server into the ledger: each in one transaction, with all that belongs to it."""

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache

from sqlalchemy import Connection

from exporter.bridge import PATIENCE, Bridge
from exporter.config import ServerSettings
from exporter.ledger import Ended, Ledger, LedgerError, Moment, Policy, Recorded, record, store, watched
from exporter.ledger.schema import ENDING, OPEN, UNREAD
from exporter.ledger.watched import RepoState
from exporter.log import logger
from exporter.model import Build, Event, Repo
from exporter.numbers import Numbers
from exporter.roster import Roster
from exporter.telemetry import Telemetry

ROWS_AT_ONCE = 2000
"""Rows that are read before they are recorded; a transaction costs a write to the disk."""
REPOS_AT_ONCE = 500
"""Repos whose history is taken in at the end of a look although it is not read yet."""
PATTERNS_KEPT = 10_000
"""Branches whose match is remembered."""

log = logger(__name__)


def policy_of(settings: ServerSettings, series_retention: float) -> Policy:
    """What the configuration says of a server's builds; patterns are matched once a branch."""
    return Policy(
        names_branch=lru_cache(PATTERNS_KEPT)(settings.names_branch),
        counts=lru_cache(PATTERNS_KEPT)(lambda event, branch: settings.counts(Event(event), branch)),
        series_retention=series_retention,
    )


class Intake:
    """Writes builds of one server."""

    def __init__(
        self,
        ledger: Ledger,
        roster: Roster,
        settings: ServerSettings,
        telemetry: Telemetry,
        moment: Callable[[], Moment],
        series_retention: float,
        changed: Callable[[set[int]], None],
        bridge: Bridge,
    ) -> None:
        self._ledger, self._bridge = ledger, bridge
        self._roster = roster
        self._name = settings.name
        self._telemetry = telemetry
        self._moment = moment
        self._show = changed
        self.changed: set[int] = set()
        """Repos that read otherwise than they are shown."""
        self._since = moment().ours
        self.numbers = Numbers()
        """What the server's numbers tell, once it is known which server it is."""
        self.policy = policy_of(settings, series_retention)
        self.ended = self.counted = 0
        """Ends settled by this process, and those of them that moved counters."""

    def take(
        self,
        builds: Iterable[Build],
        within: Callable[[Connection], None] | None = None,
        anew: Sequence[tuple[RepoState, int]] = (),
    ) -> None:
        """Records builds of any repos; `within` writes what else belongs to the same answer.

        `anew`: repos whose numbers begin again, and after what time (`given_again`).
        Raises `LedgerError`; then nothing is written.
        """
        by_repo: dict[str, list[Build]] = {}
        for build in builds:
            by_repo.setdefault(build.repo, []).append(build)
        if not by_repo and not anew and within is None:
            return
        now = self._moment()
        changed: set[int] = set()
        ended: list[Ended] = []
        recorded: list[tuple[RepoState, Recorded, list[Build]]] = []
        try:
            with self._ledger.transaction() as conn:
                for state, since in anew:
                    self._begin_again(conn, state, since, now)
                    changed.add(state.id)
                for name, of_repo in by_repo.items():
                    repo = self._roster.watched(name)
                    if repo is None:
                        continue
                    self._renew(conn, repo, of_repo, now)
                    if repo.generation and not (of_repo := store.of_generation(conn, repo, of_repo)):
                        continue
                    top = max(of_repo, key=lambda build: build.number)
                    seen = {build.number for build in of_repo}
                    if self.numbers.advance(conn, repo, top.number, top.created, seen):
                        changed.add(repo.id)
                    done = record(conn, repo, self.policy, of_repo, now)
                    ended += done.ended
                    recorded.append((repo, done, of_repo))
                    if done.changed:
                        changed.add(repo.id)
                if within is not None:
                    within(conn)
                for repo, done, of_repo in recorded:
                    if self._bridge.judge(conn, repo, self.policy, done, of_repo, now):
                        changed.add(repo.id)
        except LedgerError:
            self._roster.stale = True
            raise
        self.changed |= changed
        self._observe(ended, now)

    def given_again(self, repo: RepoState, build: Build) -> int:
        """When the build that the ledger has of that number was created, if it is another one; else 0."""
        with self._ledger.reading() as conn:
            return self.numbers.given_before(conn, repo, build)

    def take_newest(self, newest: Iterable[Build | None]) -> None:
        """Takes in those newest builds of repos that read otherwise than what the ledger has.

        An end that is still to be imported is left to the import.
        """
        with self._ledger.reading() as conn:
            known = watched.newest_ended(conn, self._name)
            gaps = watched.gaps_of(conn, self._name)
        imports: dict[int, int] = {}
        for gap in gaps:
            if gap.history:
                imports[gap.repo_id] = max(gap.high, imports.get(gap.repo_id, 0))
        rows: list[Build] = []
        for row in newest:
            repo = self._roster.watched(row.repo) if row is not None else None
            if row is None or repo is None:
                continue
            same = known.get(row.repo) == (row.number, row.started, row.finished)
            if not row.ended or not (same or row.number <= imports.get(repo.id, 0)):
                rows.append(row)
        for at in range(0, len(rows), ROWS_AT_ONCE):
            self.take(rows[at : at + ROWS_AT_ONCE])

    def reach(self, listed: Iterable[Repo]) -> None:
        """Notes the numbers that were given out although no row shows their builds: they are to be read."""
        with self._ledger.transaction() as conn:
            for repo in listed:
                state = self._roster.watched(repo.name)
                if state is not None and repo.counter > state.highest:
                    self.numbers.advance(conn, state, repo.counter, 0, ())

    def history_read(self, conn: Connection, repos: Iterable[RepoState]) -> None:
        """Within the transaction that records list pages of these repos' history: they are judged by it."""
        for repo in repos:
            self._bridge.history_read(conn, repo, self.policy, self._moment())
            self.changed.add(repo.id)

    def gone(self, conn: Connection, repo_ids: Iterable[int]) -> None:
        """Closes the incidents of those of these repos that are not there any more."""
        for repo_id in repo_ids:
            repo = self._roster.by_id[repo_id]
            if repo.gone:
                self._bridge.gone(conn, repo, self._moment())

    def settle(self, *, behind: bool) -> None:
        """A look ended; `behind`: more is known to be unread than it could read."""
        waited_since = self._moment().server - PATIENCE
        late = [
            repo
            for repo in self._roster.repos.values()
            if repo.judged == UNREAD and repo.watched and repo.horizon <= waited_since
        ][:REPOS_AT_ONCE]
        if late:
            with self._ledger.transaction() as conn:
                self.history_read(conn, late)
        self._bridge.settle(self._name, behind=behind)

    def show(self) -> None:
        """Lets what changed be shown; what cannot be read for that now is shown later."""
        changed, self.changed = self.changed, set()
        if changed:
            self._show(changed)

    def _renew(self, conn: Connection, repo: RepoState, builds: Sequence[Build], now: Moment) -> None:
        """Begins a new generation where the server gives out numbers again that it gave before."""
        if self.numbers.given_again(conn, repo, builds):
            self._begin_again(conn, repo, repo.highest_created, now)

    def _begin_again(self, conn: Connection, repo: RepoState, since: int, now: Moment) -> None:
        """Begins a new generation with the builds that were created after `since` (Unix seconds)."""
        log.warning(
            "a repo's build numbers begin again: the server was rebuilt, or the repo was made anew; "
            "what was recorded stays, and the new builds count",
            server=self._name,
            repo=repo.name,
            known=repo.highest,
        )
        old = [run for run in store.unsettled(conn, self._name) if run.repo_id == repo.id]
        record(conn, repo, self.policy, [r.build(repo.name) for r in old if r.state == ENDING], now)
        for run in old:
            if run.state == OPEN and run.created <= since:
                store.drop_run(conn, run)
        watched.drop_gaps(conn, repo)
        moved = store.begin_generation(conn, repo, since)
        repo.generation += 1
        repo.highest = repo.highest_created = 0
        if moved:
            top = max(moved)
            self.numbers.advance(conn, repo, top, moved[top], moved)

    def _observe(self, ended: Sequence[Ended], now: Moment) -> None:
        self.ended += len(ended)
        self.counted += sum(end.run.counted for end in ended)
        began = self._since + (now.server - now.ours)
        for end in ended:
            if end.run.counted and end.run.finished >= began:
                self._telemetry.detection.labels(self._name).observe(max(0.0, now.server - end.run.finished))
