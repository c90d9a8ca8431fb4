"""One stored run of a build, and what one more answer of the server makes of it. No I/O."""

from dataclasses import dataclass, fields

from exporter.ledger.heads import Key, Point
from exporter.ledger.schema import DOUBTED, ENDING, OPEN
from exporter.model import Build, Event, Status, Word


@dataclass(slots=True)
class Run:
    """A row of the table `builds`; fields in the order of its columns."""

    repo_id: int
    generation: int
    number: int
    run: int
    state: int
    counted: bool
    id: int
    status: int
    event: str
    branch: str
    ref: str
    ref_class: str
    commit: str
    created: int
    started: int
    finished: int
    wait: int | None
    duration: int | None
    parent: int
    by_hand: bool
    environment: str
    cron: str
    author: str
    title: str
    seen_open: int = 0
    recorded: float = 0.0
    row_started: int = 0
    row_finished: int = 0

    @property
    def key(self) -> Key:
        return self.generation, self.number, self.run

    @property
    def good(self) -> bool:
        return self.status == Status.SUCCESS

    @property
    def bad(self) -> bool:
        return Status.FAILURE <= self.status <= Status.TIMEOUT

    @property
    def restarted(self) -> bool:
        """A restart that its own fields tell: in place (0.5), or made from another number."""
        return self.run > self.created > 0 or (self.parent > 0 and self.event != Event.DEPLOYMENT)

    @property
    def when_ended(self) -> int:
        """When it ended; where the server gives no such time, when it was queued."""
        return self.finished or self.run or self.created

    def point(self) -> Point:
        """Its end as the heads know it; an end without a time was when it was recorded."""
        return Point(self.key, self.finished or int(self.recorded), self.status, self.duration)

    def build(self, repo: str) -> Build:
        """The stored facts as a last word, for an end whose single build cannot be had."""
        return Build(
            repo=repo,
            number=self.number,
            run=self.run,
            id=self.id,
            status=Status(self.status),
            detailed=True,
            event=Event(self.event),
            branch=self.branch,
            ref=self.ref,
            commit=self.commit,
            created=self.created,
            started=self.started,
            finished=self.finished,
            wait=self.wait,
            duration=self.duration,
            parent=self.parent,
            by_hand=self.by_hand,
            environment=self.environment,
            cron=self.cron,
            author=self.author,
            title=self.title,
        )


COLUMNS = tuple(f.name for f in fields(Run))


def new_run(repo_id: int, generation: int, build: Build) -> Run:
    """An open run of which `build` is the first that is known; taken to be queued when it was created."""
    return Run(
        repo_id,
        generation,
        build.number,
        build.run or build.created,
        OPEN,
        False,
        build.id,
        build.status,
        build.event,
        build.branch,
        build.ref,
        build.ref_class,
        build.commit,
        build.created,
        build.started,
        build.finished,
        build.wait,
        build.duration,
        build.parent,
        build.by_hand,
        build.environment,
        build.cron,
        build.author,
        build.title,
        0,
        0.0,
        *_row(build),
    )


def match(runs: list[Run], build: Build) -> Run | None:
    """The run that `build` speaks of, among all known of its number, oldest first; None: an unknown one.

    Feeds of 0.5 to 0.7 do not tell when a run was queued: such a row speaks of the newest run, or of
    the one before where it ended before that was queued. What they began may in truth have been queued
    later, and a run that was restarted before its end was seen has none of its own any more: both
    become the run that an answer tells.
    """
    if build.run == 0:
        return next((run for run in reversed(runs) if not 0 < build.finished < run.run), None)
    for run in reversed(runs):
        if run.run == build.run:
            return run
    for run in reversed(runs):
        if run.run < build.run and _was_queued_later(run, build):
            return run
    return None


def is_overtaken(runs: list[Run], build: Build) -> bool:
    """True when `build` is open although a later one of `runs` is known: its end cannot come."""
    return not build.ended and 0 < build.run < runs[-1].run


def hear(run: Run, build: Build) -> bool:
    """Writes into `run` what `build` tells: it moves on, never back. True when its state or end was told."""
    run.run = build.run or run.run
    fits = build.run > 0 or build.detailed or _fits(run, build)
    if build.run == 0 and build.ended and run.state != ENDING:
        run.row_started, run.row_finished = _row(build)
    if run.state == OPEN:
        told = not (
            build.word is Word.ROW and build.status == Status.PENDING and run.status == Status.BLOCKED
        )
    elif run.state == ENDING:
        told = build.ended and fits
    else:
        told = build.ended and build.detailed and build.word is Word.FINAL
        run.state = run.state if fits else DOUBTED
    if told:
        _take(run, build)
    return told


def _take(run: Run, build: Build) -> None:
    """What a poorer answer leaves out stays as it was."""
    run.id = build.id or run.id
    run.status = build.status
    run.event = build.event
    run.branch = build.branch
    run.ref = build.ref
    run.commit = build.commit
    run.created = build.created or run.created
    run.started = build.started
    run.finished = build.finished
    run.wait = build.wait if build.wait is not None or build.detailed else run.wait
    run.duration = build.duration if build.duration is not None or build.detailed else run.duration
    run.parent = build.parent or run.parent
    run.by_hand = build.by_hand or run.by_hand
    run.environment = build.environment or run.environment
    run.cron = build.cron or run.cron
    run.author = build.author or run.author
    run.title = build.title or run.title
    # A feed's row does not name the environment that a deployment's class is made of.
    if (run.environment, run.cron) == (build.environment, build.cron):
        run.ref_class = build.ref_class


def _row(build: Build) -> tuple[int, int]:
    """What is kept of a row that does not tell its run, so that another run's row is known from it."""
    return (build.started, build.finished) if build.run == 0 and build.ended else (0, 0)


def _was_queued_later(run: Run, build: Build) -> bool:
    if run.state == OPEN or run.run == 0:
        return True
    ran_until = max(run.started, run.finished)
    if run.state == ENDING and ran_until >= build.run:
        return True
    return ran_until > 0 and _same_end(run, build)


def _same_end(run: Run, build: Build) -> bool:
    """True when `build` ended as `run` did; where it started, single builds know better than rows."""
    return (
        build.ended
        and build.finished == run.finished
        and (build.finished > 0 or build.started == run.started)
    )


def _fits(run: Run, build: Build) -> bool:
    """True when a row is what the last one was; where there was none yet, when it ended as `run` did."""
    if run.row_started or run.row_finished:
        return build.ended and (build.started, build.finished) == (run.row_started, run.row_finished)
    return _same_end(run, build)
