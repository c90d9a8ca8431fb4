"""From what was recorded to incidents and messages, within the transaction that records it.

Either an end is recorded with all that is told of it, or it is read again: nothing is told twice, and
nothing is forgotten, whenever the exporter dies.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import inf
from threading import Event as Signal

from sqlalchemy import Connection

from exporter.incidents import State, What, advance, close, is_forgotten, wakes
from exporter.ledger import Ledger, Moment, Policy, Recorded, messages, states, store, watched
from exporter.ledger.messages import AGE, Row, UnreadableError
from exporter.ledger.schema import HELD, NEWEST, UNREAD, WAITING, WHOLE
from exporter.ledger.watched import RepoState
from exporter.model import Build, Status
from exporter.routes import CATCH_UP, STORM_WITHIN, Hold, Routes, Subject, fold
from exporter.telemetry import Telemetry
from exporter.verdicts import News, Verdicts, facts_of

PATIENCE = 600.0
"""Seconds after which a repo's ends are judged although its newest list page could not be read."""


class Bridge:
    """Judges what is recorded, for all servers."""

    def __init__(
        self, ledger: Ledger, routes: Routes, telemetry: Telemetry, clock: Callable[[], float]
    ) -> None:
        self.routes = routes
        self._telemetry = telemetry
        self.due = Signal()
        """Set when there is something to be sent."""
        self._ledger, self._clock = ledger, clock
        self._behind: set[str] = set()
        """Servers of which more is known to be unread than a look could read."""
        self._read: dict[str, float] = {}
        """When a look at a server ended that left nothing unread."""
        self._readable: set[int] = set()
        """Repos of which this process read the newest list page."""

    def judge(
        self,
        conn: Connection,
        repo: RepoState,
        policy: Policy,
        done: Recorded,
        builds: Sequence[Build],
        now: Moment,
    ) -> bool:
        """Takes in what `record` says of a repo; True when an incident is another one now."""
        known = Verdicts(conn, repo, now)
        apart = [(build, step) for build in builds for step in build.steps if step.apart]
        if repo.judged == UNREAD:
            if not self._is_to_begin(conn, repo, now, waited_for=bool(apart)):
                return False
            self._begin(known, policy)
        for end in done.ended:
            # What is read of history is computed as a whole once all of it is.
            counts = end.run.counted or repo.judged == WHOLE
            if counts and self._is_judged(repo, policy, end.run.event, end.run.branch):
                self._tell(known, known.advance(end.run, states.first_failed(end.steps)))
        for run in done.rewritten:
            if self._is_judged(repo, policy, run.event, run.branch):
                self._tell(known, known.restate(run))
        for build, step in apart:
            if not step.status.open and policy.counts(build.event, build.branch):
                self._tell(known, known.advance_apart(build, step))
        self._end_of_history(known)
        return known.write()

    def history_read(self, conn: Connection, repo: RepoState, policy: Policy, now: Moment) -> None:
        """A list page of a repo's history is recorded: from the first one on live ends are judged."""
        self._readable.add(repo.id)
        known = Verdicts(conn, repo, now)
        if repo.judged != UNREAD:
            self._end_of_history(known)
        elif self._is_to_begin(conn, repo, now):
            self._begin(known, policy)
        known.write()

    def gone(self, conn: Connection, repo: RepoState, now: Moment) -> None:
        """Closes the incidents of a repo that is not there any more."""
        self.close(conn, repo, states.red_states(conn, repo.id), now)

    def close(self, conn: Connection, repo: RepoState, red: Iterable[State], now: Moment) -> None:
        """Closes incidents of a repo without claiming that they are fixed."""
        known = Verdicts(conn, repo, now)
        for state in red:
            self._tell(known, known.take(close(known.load(state)), None))
        known.write()

    def settle(self, server: str, *, behind: bool) -> None:
        """A look at a server ended; `behind`: more is known to be unread than it could read."""
        if behind:
            self._behind.add(server)
            return
        self._behind.discard(server)
        self._read[server] = self._clock()
        with self._ledger.reading() as conn:
            waits = any(r.server == server and r.hold == Hold.UNREAD for r in messages.held(conn))
        if waits:
            self.release(lambda row: row.server == server and row.hold == Hold.UNREAD)

    def waits(self, server: str, opened: float, *, late: bool) -> bool:
        """True while an incident that was opened then may turn out to be over by what is still unread;
        `late`: it was seen long after its build ended."""
        unread = server in self._behind or (late and self._read.get(server, 0.0) < opened)
        return unread and self._clock() < opened + CATCH_UP

    def tick(self) -> set[int]:
        """Does what is due by time alone; the repos of which an incident is another one now, here or because
        somebody changed it beside us (`by_hand.touch`)."""
        now = self._clock()
        changed: set[int] = set()
        with self._ledger.reading() as conn:
            due = states.due_states(conn, now)
            waits = any(_is_ripe(row, now) for row in messages.held(conn))
        if due:
            with self._ledger.transaction() as conn:
                repos = watched.repos_by_id(conn, {repo_id for repo_id, _ in due})
                for repo_id, state in states.due_states(conn, now):
                    if is_forgotten(state, now):
                        states.drop_states(conn, repo_id, [state.ref_class])
                        continue
                    known = Verdicts(conn, repos[repo_id], Moment(now, now))
                    self._tell(known, known.take(advance(known.load(state), None, now), None))
                    if not known.write() and wakes(state) > now:
                        states.write_states(conn, repo_id, [state])
                    changed.add(repo_id)
        if waits:
            self.release(lambda row: _is_ripe(row, now))
        return changed

    def release(self, ripe: Callable[[Row], bool]) -> None:
        """Lets messages that were held go out, as the net of each thread and target; but not into a mute or
        quiet hours that began meanwhile."""
        now = self._clock()
        with self._ledger.transaction() as conn:
            by_target: dict[str, dict[int, Row]] = {}
            for row in messages.held(conn):
                if not ripe(row):
                    continue
                try:
                    still = self._still_held(conn, row, now)
                except UnreadableError as error:
                    messages.bury(conn, [error.row_id], now)
                    continue
                if still:
                    hold, due = still
                    messages.change(conn, [row.id], hold=hold, ready=due, due=due, expires=due + AGE)
                else:
                    by_target.setdefault(row.target, {})[row.id] = row
            for target, rows in by_target.items():
                folded = fold(messages.waiting_of(rows.values()), oldest=now - self.routes.max_age)
                messages.apply(conn, target, rows, folded, now)
                for row_id in folded.superseded:
                    self._telemetry.notified(target, rows[row_id].kind, "superseded")
        self.due.set()

    def _is_to_begin(
        self, conn: Connection, repo: RepoState, now: Moment, *, waited_for: bool = False
    ) -> bool:
        """True once history is to be taken in: all of it is read, or something waits for what it says.

        A live end does from the newest list page on, as what is `waited_for`; after 10 minutes everybody
        does.
        """
        if now.server - repo.horizon >= PATIENCE:
            return True
        if watched.imports(conn, repo.id) and repo.id not in self._readable:
            return False
        return waited_for or store.has_counted(conn, repo.id) or states.is_whole(conn, repo.id)

    def _begin(self, known: Verdicts, policy: Policy) -> None:
        """Takes a repo's history in silently, and judges what was recorded beside it."""
        repo = known.repo
        failed = states.failed_steps(known.conn, repo.id)
        runs = states.runs_of_repo(known.conn, repo.id)
        places = {(run.event, run.branch) for run in runs}
        judged = {place for place in places if self._is_judged(repo, policy, *place)}
        runs = [run for run in runs if (run.event, run.branch) in judged]
        for run, end in states.ends(repo, runs, failed, known.skew):
            state = known.states.get(run.ref_class, State(run.ref_class))
            step = advance(state, end, known.now.ours)
            self._tell(known, known.take(step, run, failed.get(run.key), late=known.is_late(end)))
        # What is green is computed from the ledger when it is needed.
        known.states = {name: s for name, s in known.states.items() if s.red or s.epoch}
        repo.judged = WHOLE if states.is_whole(known.conn, repo.id) else NEWEST
        watched.write_repos(known.conn, [repo])

    def _end_of_history(self, known: Verdicts) -> None:
        """Once all of a repo's history is read, "red since" and the counts may move back."""
        if known.repo.judged == NEWEST and states.is_whole(known.conn, known.repo.id):
            for news in known.restate_all():
                self._tell(known, news)
            known.repo.judged = WHOLE
            watched.write_repos(known.conn, [known.repo])

    def _is_judged(self, repo: RepoState, policy: Policy, event: str, branch: str) -> bool:
        subject = Subject(repo.server, repo.name, branch, event, "")
        return policy.counts(event, branch) and self.routes.watches(subject)

    def _tell(self, known: Verdicts, news: Iterable[News]) -> None:
        """Writes the messages of changes, and who was told into the state."""
        repo, conn, now = known.repo, known.conn, known.now.ours
        for each in news:
            state, change, run = each.state, each.change, each.run
            word = Status(state.status).word
            subject = Subject(repo.server, repo.name, run.branch, run.event, word)
            targets = self.routes.told(change, state, subject)
            if not targets:
                continue
            known.note_told(state.ref_class, targets)
            thread = messages.thread_of(repo.id, state.ref_class)
            facts = messages.encode(facts_of(repo, each, now))
            excerpt = None if change.what in (What.OPENED, What.CHANGED) else ""
            delay = self._delay(conn, repo, each, thread, now)
            rows = []
            for target in targets:
                hold, due = messages.joins(conn, target, thread) or delay
                if not hold and (quiet := self.routes.quiet_until(target, subject, now)):
                    hold, due = Hold.QUIET, quiet
                key = messages.message_key(thread, state.epoch, change.what, change.sequence, target)
                row = Row(0, key, target, thread, state.epoch, change.what, repo.server, repo.id, WAITING)
                row.hold, row.state = hold, HELD if hold else WAITING
                row.created, row.ready, row.due, row.expires = now, due, due, due + AGE
                row.facts, row.excerpt = facts, excerpt
                rows.append(row)
            messages.add(conn, rows)
            self.due.set()

    def _still_held(self, conn: Connection, row: Row, now: float) -> tuple[str, float] | None:
        """Why a message that was held is held on, and until when; None where it may go out."""
        told = row.told
        if muted := states.muted_until(conn, row.server, told.repo, now):
            return Hold.MUTED, muted
        subject = Subject(row.server, told.repo, told.branch, told.event, "")
        quiet = 0.0 if row.hold == Hold.QUIET else self.routes.quiet_until(row.target, subject, now)
        return (Hold.QUIET, quiet) if quiet else None

    def _delay(
        self, conn: Connection, repo: RepoState, news: News, thread: str, now: float
    ) -> tuple[str, float]:
        """Why all targets are told later, and when at the latest."""
        if muted := states.muted_until(conn, repo.server, repo.name, now):
            return Hold.MUTED, muted
        opening = news.change.what is What.OPENED
        if repo.server in self._behind or (opening and news.late):
            return Hold.UNREAD, now + CATCH_UP
        if opening and self.routes.storm:
            openings = messages.openings(conn, repo.server, thread, now - STORM_WITHIN)
            if openings >= self.routes.storm:
                return Hold.STORM, messages.storm_until(conn, repo.server) or now + STORM_WITHIN
        return Hold.NO, now


def _is_ripe(row: Row, now: float) -> bool:
    """True when a message was held for long enough, also where the clock was set back meanwhile."""
    longest = _LONGEST.get(row.hold, inf)
    return row.due <= now or row.due > now + longest


_LONGEST: Mapping[str, float] = {Hold.UNREAD: CATCH_UP, Hold.STORM: STORM_WITHIN}
