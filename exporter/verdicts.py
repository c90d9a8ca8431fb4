"""The states of one repo's ref classes within a transaction: loaded, advanced, written back."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from msgspec.structs import replace as changed
from sqlalchemy import Connection

from exporter.incidents import Change, End, State, advance, restate
from exporter.ledger import Moment, states
from exporter.ledger.messages import Facts
from exporter.ledger.runs import Run, new_run
from exporter.ledger.states import FailedStep
from exporter.ledger.watched import RepoState
from exporter.model import Build, Event, Status, Step
from exporter.routes import LATE


@dataclass(frozen=True, slots=True)
class News:
    """One change, with the build that made it."""

    change: Change
    state: State
    run: Run
    failed: FailedStep
    late: bool


class Verdicts:
    """What is known of a repo's ref classes, and what one more end makes of it."""

    def __init__(self, conn: Connection, repo: RepoState, now: Moment) -> None:
        self.conn, self.repo, self.now = conn, repo, now
        self.skew = now.server - now.ours
        self.states: dict[str, State] = {}
        self._before: dict[str, State] = {}

    def load(self, state: State) -> State:
        """A state that was read already."""
        self.states[state.ref_class] = self._before[state.ref_class] = state
        return state

    def advance(self, run: Run, failed: FailedStep) -> list[News]:
        """One more settled end."""
        end = self._end(run, failed)
        state = self._state(run.ref_class, but=run)
        return self.take(advance(state, end, self.now.ours), run, failed, late=self.is_late(end))

    def is_late(self, end: End) -> bool:
        """True of an end that happened while nobody looked."""
        return not end.history and self.now.ours - end.at > LATE

    def advance_apart(self, build: Build, step: Step) -> list[News]:
        """A step that speaks for itself: what it publishes is broken, though the build is good."""
        run = states.run_at(self.conn, self.repo.id, (self.repo.generation, build.number, build.run))
        if run is None:
            return []
        at = (step.finished or self.now.server) - self.skew
        history = 0 < step.finished <= self.repo.horizon or (not step.finished and not run.counted)
        end = replace(
            states.to_end(run, history=history, at=at, step=step.name), status=step.status, commit=""
        )
        state = self._state(f"{step.name}:{run.branch}")
        return self.take(advance(state, end, self.now.ours), run, (step.name, step.exit_code))

    def restate(self, run: Run) -> list[News]:
        """A settled end that reads otherwise now."""
        state = self._state(run.ref_class, but=run)
        if state.handled is not None and run.key < state.handled:
            return []
        return self._restate(state, states.runs_of_class(self.conn, self.repo.id, run.ref_class))

    def restate_all(self) -> Iterable[list[News]]:
        """The same of all that is kept."""
        kept = states.all_states(self.conn, self.repo.id) | self.states
        of_class: dict[str, list[Run]] = {}
        for run in states.runs_of_repo(self.conn, self.repo.id) if kept else ():
            of_class.setdefault(run.ref_class, []).append(run)
        for ref_class, runs in of_class.items():
            if ref_class in kept:
                yield self._restate(self._state(ref_class), runs)

    def take(
        self,
        step: tuple[State, tuple[Change, ...]],
        run: Run | None,
        failed: FailedStep | None = None,
        *,
        late: bool = False,
    ) -> list[News]:
        """Notes a new state; its changes, each with the build that made it."""
        state, changes = step
        self.states[state.ref_class] = state
        if not changes:
            return []
        if run is None and state.handled is not None:
            run = states.run_at(self.conn, self.repo.id, state.handled) or _as_remembered(self.repo, state)
        if run is None:
            return []
        failed = states.failed_step(self.conn, run) if failed is None else failed
        return [News(change, state, run, failed, late) for change in changes]

    def note_told(self, ref_class: str, targets: Iterable[str]) -> None:
        """Remembers who was told of an incident."""
        state = self.states[ref_class]
        told = tuple(dict.fromkeys((*state.told, *targets)))
        self.states[ref_class] = changed(state, told=told)

    def write(self) -> bool:
        """Stores the states that are new."""
        new = [state for name, state in self.states.items() if self._before.get(name) != state]
        states.write_states(self.conn, self.repo.id, new)
        return bool(new)

    def _state(self, ref_class: str, but: Run | None = None) -> State:
        """The state of a class; where none is kept, as the ledger has it without the run `but`."""
        if ref_class not in self.states:
            stored = states.states_of(self.conn, self.repo.id, [ref_class]).get(ref_class)
            self._before[ref_class] = stored or State(ref_class)
            self.states[ref_class] = stored or self._computed(ref_class, but)
        return self.states[ref_class]

    def _computed(self, ref_class: str, but: Run | None) -> State:
        state = State(ref_class)
        if but is None:
            return state
        runs = states.runs_of_class(self.conn, self.repo.id, ref_class)
        older = [run for run in runs if run.key < but.key]
        for _, end in states.ends(self.repo, older, {}, self.skew):
            state, _ = advance(state, replace(end, history=True), self.now.ours)
        return state

    def _restate(self, state: State, runs: Sequence[Run]) -> list[News]:
        newest_bad = next((run for run in reversed(runs) if run.bad), None)
        failed = {newest_bad.key: states.failed_step(self.conn, newest_bad)} if newest_bad else {}
        all_ends = [end for _, end in states.ends(self.repo, runs, failed, self.skew)]
        return self.take(restate(state, all_ends, self.now.ours), None)

    def _end(self, run: Run, failed: FailedStep) -> End:
        at = (run.finished or (self.now.server if run.counted else run.when_ended)) - self.skew
        return states.to_end(run, history=not run.counted, at=at, step=failed[0])


def _as_remembered(repo: RepoState, state: State) -> Run:
    """The newest run of a ref class, where the ledger keeps builds for a shorter time than it is red."""
    rest = state.ref_class.partition(":")[2]
    bad = state.last_was_bad
    run = new_run(
        repo.id,
        repo.generation,
        Build(
            repo=repo.name,
            number=state.handled[1] if state.handled else 0,
            run=state.handled[2] if state.handled else 0,
            status=Status(state.status) if bad else Status.SUCCESS,
            event=Event(state.event),
            branch=state.branch,
            commit=state.commit if bad else "",
            finished=int(state.at),
            environment=rest if state.event == Event.DEPLOYMENT else "",
            cron=rest.removesuffix(f":{state.branch}") if state.event == Event.CRON else "",
            author=state.authors[-1] if bad and state.authors else "",
        ),
    )
    return replace(run, ref_class=state.ref_class)


def facts_of(repo: RepoState, news: News, now: float) -> Facts:
    """What a message of this change says."""
    state, run = news.state, news.run
    name, exit_code = news.failed
    return Facts(
        repo=repo.name,
        branch=run.branch,
        event=run.event,
        ref=_ref(run),
        since=state.since,
        failures=state.failures,
        first=state.first,
        flaky=news.change.flaky,
        at=now,
        number=run.number,
        run=run.run,
        url=f"{repo.build_url}{run.number}" if repo.build_url else "",
        commit=run.commit,
        author=run.author,
        title=run.title,
        status=Status(run.status).word,
        step=name,
        exit_code=exit_code,
        duration=run.duration,
        finished=run.finished,
    )


def _ref(run: Run) -> str:
    rest = run.ref_class.partition(":")[2]
    match run.event:
        case Event.TAG:
            return f"tag {rest}"
        case Event.PULL_REQUEST:
            return f"pull request {rest}"
        case Event.DEPLOYMENT:
            return f"deployment to {run.environment}"
        case Event.CRON:
            return f"cron {run.cron}"
        case _:
            return ""
