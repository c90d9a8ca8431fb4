"""Drone 1.x and 2.x."""

import msgspec

from exporter.http import ServerError, Session
from exporter.model import Build, Event, Repo, Status, Step, User, Word, is_pull
from exporter.servers import Limits, Line, Page, Stream
from exporter.servers.operations import change, read_log
from exporter.servers.wire import (
    ACCOUNT,
    Code,
    Count,
    Number,
    Reading,
    Shape,
    branch,
    build_path,
    is_no_list,
    read_build,
    repo_path,
    repo_reader,
    span,
    text,
    title,
)

STATUSES = {
    "pending": Status.PENDING,
    "declined": Status.DECLINED,
    "running": Status.RUNNING,
    "success": Status.SUCCESS,
    "failure": Status.FAILURE,
    "killed": Status.CANCELLED,
    "skipped": Status.SKIPPED,
    "error": Status.ERROR,
}
STEP_STATUSES = {
    "pending": Status.PENDING,
    "waiting_on_dependencies": Status.PENDING,
    "blocked": Status.BLOCKED,
    "declined": Status.DECLINED,
    "running": Status.RUNNING,
    "success": Status.SUCCESS,
    "failure": Status.FAILURE,
    "killed": Status.CANCELLED,
    "skipped": Status.SKIPPED,
    "error": Status.ERROR,
}
EVENTS = {
    "push": Event.PUSH,
    "pull_request": Event.PULL_REQUEST,
    "tag": Event.TAG,
    "cron": Event.CRON,
    "promote": Event.DEPLOYMENT,
    "rollback": Event.DEPLOYMENT,
    "custom": Event.MANUAL,
}
UNEXPLAINED = frozenset({"killed", "pending"})
"""What a row says of time limits and blocked builds too: only the stages tell them apart."""
OPEN_STAGES = frozenset({"pending", "waiting_on_dependencies", "running", "blocked"})
STOPPED_BY_LIMIT = 137
CLEANED_UP_AFTER = 24 * 3600
"""Seconds after which the server's own clean-up ends a build."""
PAGE_SIZE = 100


class Program(msgspec.Struct, gc=False):
    """`GET /version`."""

    version: str = ""


class BuildRow(msgspec.Struct, gc=False):
    """A build in a list or a feed; the single build has more."""

    number: Number
    status: str
    event: str
    id: Count = 0
    parent: Count = 0
    trigger: str = ""
    title: str = ""
    message: str = ""
    after: str = ""
    ref: str = ""
    source_repo: str = ""
    target: str = ""
    author_login: str = ""
    author_name: str = ""
    cron: str = ""
    deploy_to: str = ""
    started: int = 0
    finished: int = 0
    created: int = 0


class StepRow(msgspec.Struct, gc=False):
    name: str
    status: str
    number: Count = 0
    errignore: bool = False
    exit_code: Code = 0
    started: int = 0
    stopped: int = 0


class Stage(msgspec.Struct):
    name: str
    status: str
    number: Count = 0
    error: str = ""
    exit_code: Code = 0
    steps: list[StepRow] | None = None


class SingleBuild(BuildRow, gc=True):
    """`GET /api/repos/O/N/builds/K`; `stages` is left out when there are none."""

    error: str = ""
    stages: list[Stage] | None = None


class RepoRow(msgspec.Struct):
    """A repo, in feeds and lists with one of its builds."""

    slug: str
    id: Count = 0
    default_branch: str = ""
    active: bool = False
    timeout: Count = 0
    counter: Count = 0
    build: BuildRow | None = None


class Told(msgspec.Struct, gc=False):
    """An event of the change stream: a repo, whose build is of no interest."""

    slug: str


STREAM = Stream(path="/api/stream", repo_of=repo_reader(Told, lambda event: event.slug))
PROGRAM = Shape(Program)
BUILDS = Shape(BuildRow)
BUILD = Shape(SingleBuild)
REPOS = Shape(RepoRow, spare="build")
"""A repo whose newest build makes no sense is a repo all the same."""


def parse_row(row: BuildRow, repo: str, reading: Reading) -> Build:
    """A build of a list or a feed."""
    word = Word.ROW if row.status in UNEXPLAINED else Word.FINAL
    return _parse(row, repo, reading, [], word=word)


def parse_single(row: SingleBuild, repo: str, reading: Reading) -> Build:
    """The single build: its steps, and what its stages tell of a `killed` or `pending`."""
    stages = row.stages or []
    steps = tuple(
        _parse_step(step, stage, f"{stage.name}/" if len(stages) > 1 else "", reading)
        for stage in stages
        for step in stage.steps or []
    )
    error = title(row.error, *(stage.error for stage in stages))
    return _parse(row, repo, reading, stages, word=Word.FINAL, error=error, steps=steps, detailed=True)


def _parse(
    row: BuildRow,
    repo: str,
    reading: Reading,
    stages: list[Stage],
    *,
    word: Word,
    error: str = "",
    steps: tuple[Step, ...] = (),
    detailed: bool = False,
) -> Build:
    created = reading.moment("created", row.created)
    started = reading.moment("started", row.started)
    finished = reading.moment("finished", row.finished)
    status = reading.status(STATUSES, row.status)
    event = reading.event(EVENTS, row.event)
    ran = started < finished
    if row.status == "killed":
        began = started if ran else created
        if _hit_limit(stages) or (0 < began <= finished - CLEANED_UP_AFTER):
            status = Status.TIMEOUT
    elif row.status == "pending" and _is_blocked(stages):
        status = Status.BLOCKED
    # A build that was stopped before it began carries the time of that as its start and its end.
    real = row.status != "skipped" and (row.status != "killed" or ran)
    return Build(
        repo=repo,
        number=row.number,
        run=created,
        id=row.id,
        status=status,
        word=word,
        detailed=detailed,
        event=event,
        branch=branch(row.target, row.ref),
        ref=text(row.ref),
        commit=text(row.after),
        created=created,
        started=started,
        finished=finished,
        wait=span(created, started) if real else None,
        duration=span(started, finished) if real else None,
        parent=row.parent,
        by_hand=bool(row.trigger) and not row.trigger.startswith("@"),
        environment=text(row.deploy_to),
        cron=text(row.cron),
        author=text(row.author_login or row.author_name),
        title=title(row.title, row.message),
        error=error,
        steps=steps,
        foreign=(row.source_repo != repo) if row.source_repo else is_pull(event, row.ref),
    )


def _parse_step(step: StepRow, stage: Stage, prefix: str, reading: Reading) -> Step:
    status = reading.status(STEP_STATUSES, step.status, "step_status")
    if step.status == "killed" and step.exit_code == STOPPED_BY_LIMIT:
        status = Status.TIMEOUT
    # A step that never began carries the time at which that was settled.
    began = status is not Status.SKIPPED
    return Step(
        name=text(prefix + step.name),
        status=status,
        exit_code=step.exit_code,
        started=reading.moment("started", step.started) if began else 0,
        finished=reading.moment("finished", step.stopped) if began else 0,
        ignored=step.errignore,
        log=f"{stage.number}/{step.number}",
    )


def _hit_limit(stages: list[Stage]) -> bool:
    parts: list[Stage | StepRow] = [*stages]
    for stage in stages:
        parts += stage.steps or []
    return any(part.status == "killed" and part.exit_code == STOPPED_BY_LIMIT for part in parts)


def _is_blocked(stages: list[Stage]) -> bool:
    """True when all that is left to do waits for approval."""
    return {stage.status for stage in stages} & OPEN_STAGES == {"blocked"}


class Drone1:
    """A server of Drone 1.x or 2.x."""

    dialect = "drone-1"

    def __init__(self, session: Session, public_url: str) -> None:
        self.name = session.name
        self.limits = Limits(feed_rows=25, page_size=PAGE_SIZE, open_rows=50, stream=STREAM)
        self.session = session
        self._public_url = public_url.rstrip("/")
        self._version = ""
        self._lists_open = True

    @property
    def version(self) -> str:
        return self._version

    def whoami(self) -> User:
        answer = self.session.get("/api/user", "user")
        account = ACCOUNT.one(self.session, answer)
        if old := answer.headers.get("X-Drone-Version"):
            what = f"is Drone {text(old, 64)}, which `dialect: drone-1` does not read: set `auto`"
            raise self.session.fault("shape", answer.path, what, status=200)
        program = PROGRAM.one(self.session, self.session.get("/version", "version"))
        self._version = text(program.version, 64)
        self._lists_open = True
        return User(login=text(account.login), admin=account.admin)

    def repos(self, *, brief: bool = False) -> list[Repo]:  # noqa: ARG002 - one request tells all
        reading = Reading(self.session)
        return [
            self._repo(row, reading)
            for row in self._repo_rows("/api/user/repos?latest=true", "latest")
            if reading.repo(row.slug)
        ]

    def feed(self, cursor: str) -> tuple[list[Build], str]:
        return self._builds_of_repos("/api/user/builds", "feed"), cursor

    def open_builds(self) -> list[Build] | None:
        if not self._lists_open:
            return None
        try:
            return self._builds_of_repos("/api/builds/incomplete", "open")
        except ServerError as error:
            if not is_no_list(error):
                raise
            self._lists_open = False
            return None

    def builds(self, repo: str, page: int) -> Page:
        path = f"/api/repos/{repo_path(repo)}/builds?page={page}&per_page={PAGE_SIZE}"
        rows, count = BUILDS.counted(self.session, self.session.get(path, "builds"))
        reading = Reading(self.session)
        return Page([parse_row(row, repo, reading) for row in rows], count)

    def build(self, repo: str, number: int) -> Build:
        row = read_build(self.session, BUILD, repo, number, refused=lambda answer: answer.status == 404)
        return parse_single(row, repo, Reading(self.session))

    def log(self, repo: str, number: int, step: Step) -> list[Line]:
        return read_log(self.session, f"{build_path(repo, number)}/logs/{step.log}", step)

    def restart(self, repo: str, number: int) -> Build | None:
        answer = change(self.session, "POST", build_path(repo, number), "restart")
        if answer.body.strip() == b"null":
            return None
        return parse_row(BUILDS.one(self.session, answer), repo, Reading(self.session))

    def cancel(self, repo: str, number: int) -> None:
        path = build_path(repo, number)
        answer = change(self.session, "DELETE", path, "cancel")
        build = parse_row(BUILDS.one(self.session, answer), repo, Reading(self.session))
        if build.ended and build.status is not Status.CANCELLED:
            what = f"it had ended before ({build.status.word}), and the server changed nothing"
            raise self.session.fault("status", path, what, status=200, unfit=True)

    def _repo_rows(self, path: str, operation: str) -> list[RepoRow]:
        return REPOS.rows(self.session, self.session.get(path, operation))

    def _builds_of_repos(self, path: str, operation: str) -> list[Build]:
        rows = self._repo_rows(path, operation)
        reading = Reading(self.session)
        return [
            parse_row(row.build, row.slug, reading) for row in rows if row.build and reading.repo(row.slug)
        ]

    def _repo(self, row: RepoRow, reading: Reading) -> Repo:
        newest = parse_row(row.build, row.slug, reading) if row.build else None
        return Repo(
            name=row.slug,
            id=str(row.id) if row.id else "",
            default_branch=text(row.default_branch),
            timeout=row.timeout * 60,
            active=row.active,
            counter=max(row.counter, newest.number if newest else 0),
            newest=newest,
            build_url=f"{self._public_url}/{repo_path(row.slug)}/",
        )
