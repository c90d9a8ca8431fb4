"""One stored run of a build, and what one more answer of the server makes of it. No I/O."""

from dataclasses import dataclass, fields

from exporter.ledger.heads import Key, Point
from exporter.ledger.schema import ENDING, OPEN, SETTLED
from exporter.model import Build, Event, Status, Word


@dataclass(slots=True)
class Run:
    """A row of the table `builds`; fields in the order of its columns."""

    repo_id: int
    generation: int
    number: int
    run: int
    guessed: bool
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
    """A run of which `build` is the first that is known."""
    return Run(
        repo_id,
        generation,
        build.number,
        build.run or build.created,
        build.run == 0,
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
    )


def take(run: Run, build: Build) -> None:
    """Writes what `build` tells into `run`; what a poorer answer leaves out stays as it was."""
    run.id = build.id or run.id
    run.status = build.status
    run.event = build.event
    run.branch = build.branch
    run.ref = build.ref
    run.ref_class = build.ref_class
    run.commit = build.commit
    run.created = build.created or run.created
    run.started = build.started
    run.finished = build.finished
    run.wait = build.wait if build.wait is not None else run.wait
    run.duration = build.duration if build.duration is not None or build.detailed else run.duration
    run.parent = build.parent or run.parent
    run.by_hand = build.by_hand or run.by_hand
    run.environment = build.environment or run.environment
    run.cron = build.cron or run.cron
    run.author = build.author or run.author
    run.title = build.title or run.title


def match(runs: list[Run], build: Build) -> Run | None:
    """The run of its number that `build` speaks of, None for one that is not known yet.

    `runs` are all known runs of the number, oldest first. A row that does not tell when it was
    queued (feeds of 0.5 to 0.7) speaks of the newest. A run that such a row began is only
    guessed to have been queued when its number was created: while it is not settled, the first
    answer that tells corrects it.
    """
    if not runs:
        return None
    if build.run == 0:
        return runs[-1]
    for run in runs:
        if run.run == build.run:
            return run
        if run.guessed and (run.state != SETTLED or _same_end(run, build)):
            run.run, run.guessed = build.run, False
            return run
    return None


def contradicts(run: Run, build: Build) -> bool:
    """True when a row without a queue time does not fit the ended run: it may be another run."""
    return build.run == 0 and run.state != OPEN and not _same_end(run, build)


def is_news(run: Run, build: Build) -> bool:
    """True when `build` says more of `run` than is stored: it moves on, never back."""
    if run.state == OPEN:
        hides = build.word is Word.ROW and build.status is Status.PENDING and run.status == Status.BLOCKED
        return not hides
    if not build.ended:
        return False
    return run.state == ENDING or (build.detailed and build.word is Word.FINAL and run.status != build.status)


def _same_end(run: Run, build: Build) -> bool:
    return build.ended and (build.started, build.finished) == (run.started, run.finished)
