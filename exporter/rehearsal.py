"""What would be told of builds that the ledger knows: the bridge itself, on a ledger that no file keeps.

Nothing is sent, and the real ledger is only read. Times are Unix seconds by our clock.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf

from sqlalchemy import Connection

from exporter.bridge import Bridge
from exporter.incidents import State, advance
from exporter.ledger import (
    Ended,
    Ledger,
    Moment,
    Policy,
    Recorded,
    by_hand,
    messages,
    outbox,
    states,
    store,
    watched,
)
from exporter.ledger.heads import Key
from exporter.ledger.messages import Row
from exporter.ledger.runs import Run
from exporter.ledger.schema import DELIVERED, WHOLE
from exporter.ledger.states import FailedStep
from exporter.ledger.watched import RepoState, ServerState
from exporter.model import Status, Step
from exporter.routes import Routes
from exporter.telemetry import Telemetry


@dataclass(frozen=True, slots=True)
class Part:
    """A repo with the runs of it that are told of, oldest first, and all before them, which are not."""

    server: ServerState
    repo: RepoState
    policy: Policy
    before: Sequence[Run]
    live: Sequence[Run]
    failed: Mapping[Key, FailedStep]

    def at(self, run: Run) -> float:
        """When a run ended."""
        return run.when_ended - self.server.skew


class Rehearsal:
    """Ends of these repos, taken in as if each were seen at once; `close` it."""

    def __init__(self, routes: Routes, parts: Iterable[Part]) -> None:
        self._ledger = Ledger("sqlite://")
        self._now = 0.0
        self._release = inf
        self._bridge = Bridge(self._ledger, routes, Telemetry(), lambda: self._now)
        self._parts = list(parts)
        with self._ledger.transaction() as conn:
            by_hand.create(conn)
            for part in self._parts:
                watched.write_server(conn, part.server)
                by_hand.adopt(conn, replace(part.repo, judged=WHOLE))
                known = _history(part)
                states.write_states(conn, part.repo.id, known.values())
                # Whom a message calls is said of the build, which is looked up.
                newest = {state.handled for state in known.values()}
                store.write_runs(conn, [run for run in part.before if run.key in newest], part.repo.id)

    def perform(self, until: float) -> int:
        """Tells of all ends in the order of their time, then waits until then; how many ends there were."""
        ends = [(part.at(run), run.key, part, run) for part in self._parts for run in part.live]
        ends.sort(key=lambda end: end[:2])
        for at, _, part, run in ends:
            self._wait(at)
            self.take(part, run)
        self._wait(until)
        return len(ends)

    def messages(self) -> list[Row]:
        """What would have been sent by then, and what would still be held, in the order of sending."""
        with self._ledger.reading() as conn:
            rows = by_hand.listed(conn, ("held", "delivered"))
        return sorted((row for row in rows if not row.into_id), key=lambda row: (row.ready, row.id))

    def lines(self, row: Row) -> list[Row]:
        """The messages that a digest tells."""
        with self._ledger.reading() as conn:
            return outbox.lines_of(conn, row)

    def state(self, part: Part, ref_class: str) -> State:
        """What is known of a ref class then."""
        with self._ledger.reading() as conn:
            return states.states_of(conn, part.repo.id, [ref_class]).get(ref_class, State(ref_class))

    def close(self) -> None:
        self._ledger.close()

    def take(self, part: Part, run: Run) -> None:
        """Tells of one end, as if it were seen at once or just now."""
        self._now = max(self._now, part.at(run))
        now = Moment(self._now, self._now + part.server.skew)
        counted = replace(run, counted=True)
        done = Recorded([Ended(counted, _steps(part, run))])
        with self._ledger.transaction() as conn:
            store.write_runs(conn, [counted], part.repo.id)
            self._bridge.judge(conn, replace(part.repo, judged=WHOLE), part.policy, done, [], now)
        self._deliver()

    def _wait(self, until: float) -> None:
        """Lets time pass, with all that it changes by itself."""
        while (at := self._next()) <= until:
            self._now = max(self._now, at)
            self._bridge.tick()
            self._deliver()
        self._now = max(self._now, until)

    def _deliver(self) -> None:
        """Every target takes every message at once."""
        if self._bridge.due.is_set():
            self._bridge.due.clear()
            with self._ledger.transaction() as conn:
                by_hand.deliver(conn)
                self._release = min((row.due for row in messages.held(conn)), default=inf)

    def _next(self) -> float:
        with self._ledger.reading() as conn:
            return min(by_hand.next_waking(conn), self._release)


def read(conn: Connection, repo: RepoState, server: ServerState, policy: Policy, since: float) -> Part:
    """A repo of the real ledger, with what ended from `since` on as what is told of."""
    runs = states.runs_of_repo(conn, repo.id)
    old = [run for run in runs if run.when_ended - server.skew < since]
    new = [run for run in runs if run.when_ended - server.skew >= since]
    return Part(server, repo, policy, old, new, states.failed_steps(conn, repo.id) if new else {})


def is_sent(row: Row) -> bool:
    """False of a message that would still be held."""
    return row.state == DELIVERED


def _history(part: Part) -> dict[str, State]:
    """The states of all ref classes before anything is told."""
    known: dict[str, State] = {}
    for run in part.before:
        state = known.get(run.ref_class, State(run.ref_class))
        name = part.failed.get(run.key, ("", 0))[0]
        end = states.to_end(run, history=True, at=part.at(run), step=name)
        known[run.ref_class], _ = advance(state, end, end.at)
    return known


def _steps(part: Part, run: Run) -> tuple[Step, ...]:
    name, exit_code = part.failed.get(run.key, ("", 0))
    return (Step(name=name, status=Status.FAILURE, exit_code=exit_code),) if name else ()
