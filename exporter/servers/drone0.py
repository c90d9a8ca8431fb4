"""What Drone 0.5 to 0.8 have in common: feeds, lists and rights; a dialect adds its single build."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import msgspec

from exporter.http import Answer, ServerError, Session
from exporter.model import Build, Event, Repo, Status, Step, User, Word, is_pull
from exporter.servers import Limits, Line, Page
from exporter.servers.operations import change, change_each, read_log
from exporter.servers.wire import (
    ACCOUNT,
    Count,
    Number,
    Reading,
    Shape,
    branch,
    build_path,
    is_no_list,
    read_build,
    repo_path,
    span,
    text,
    title,
)

EVENTS = {
    "push": Event.PUSH,
    "pull_request": Event.PULL_REQUEST,
    "tag": Event.TAG,
    "deployment": Event.DEPLOYMENT,
}
STEP_STATUSES = {
    "pending": Status.PENDING,
    "running": Status.RUNNING,
    "success": Status.SUCCESS,
    "failure": Status.FAILURE,
    "killed": Status.CANCELLED,
    "error": Status.ERROR,
    "skipped": Status.SKIPPED,
}
UNEXPLAINED = frozenset({"failure", "killed"})
"""What a row says of cancels and time limits too: only the single build tells them apart."""


class FeedRow(msgspec.Struct, gc=False):
    """A row of `/api/user/feed` and `/api/builds`; what is 0 or empty is left out.

    A repo without builds (`latest=true`) is its name alone.
    """

    full_name: str
    number: Count = 0
    event: str = ""
    status: str = ""
    created_at: int = 0
    started_at: int = 0
    finished_at: int = 0
    commit: str = ""
    branch: str = ""
    ref: str = ""
    title: str = ""
    message: str = ""
    author: str = ""


class BuildRow(msgspec.Struct, gc=False):
    """A row of a repo's list of builds; the single build has more."""

    number: Number
    status: str
    event: str
    id: Count = 0
    parent: Count = 0
    enqueued_at: int = 0
    created_at: int = 0
    started_at: int = 0
    finished_at: int = 0
    reviewed_at: int = 0
    deploy_to: str = ""
    commit: str = ""
    branch: str = ""
    ref: str = ""
    title: str = ""
    message: str = ""
    author: str = ""


class RepoRow(msgspec.Struct, gc=False):
    """A row of `/api/user/repos`; `active` and `last_build` from 0.8 on."""

    full_name: str
    id: Count = 0
    default_branch: str = ""
    timeout: Count = 0
    active: bool = True
    last_build: Count = 0


T = TypeVar("T")

FEED = Shape(FeedRow)
BUILDS = Shape(BuildRow)
REPOS = Shape(RepoRow)


@dataclass(frozen=True, slots=True, kw_only=True)
class Era:
    """What sets the servers of one dialect apart."""

    dialect: str
    versions: tuple[str, ...]
    """Beginnings of `X-Drone-Version` that are this dialect's."""
    limits: Limits
    statuses: Mapping[str, Status]
    rows_tell_spans: bool
    """A row's start is the build's (0.5: that of whichever job reported last)."""
    single: Shape[Any]
    parse_single: Callable[[Any, str, Reading], Build]
    """From the struct of `single`, the repo and the reading."""
    running: Callable[[Any], list[int]]
    """From the struct of `single`, the numbers of the jobs or legs that run."""
    stops_builds: bool
    """A build can be stopped as a whole, by an administrator of its repo."""


def build_of(
    row: BuildRow,
    repo: str,
    reading: Reading,
    *,
    run: int,
    status: Status,
    word: Word,
    started: int,
    finished: int,
    wait: int | None,
    duration: int | None,
    error: str = "",
    steps: tuple[Step, ...] = (),
    detailed: bool = False,
) -> Build:
    """The build of a row, with what the dialects find out each in its way."""
    event = reading.event(EVENTS, row.event)
    return Build(
        repo=repo,
        number=row.number,
        run=run,
        id=row.id,
        status=status,
        word=word,
        detailed=detailed,
        event=event,
        branch=branch(row.branch, row.ref),
        ref=text(row.ref),
        commit=text(row.commit),
        created=reading.moment("created", row.created_at),
        started=started,
        finished=finished,
        wait=wait,
        duration=duration,
        parent=row.parent,
        environment=text(row.deploy_to),
        author=text(row.author),
        title=title(row.title, row.message),
        error=error,
        steps=steps,
        foreign=is_pull(event, row.ref),
    )


def queued(row: BuildRow, reading: Reading) -> int:
    """When this run was queued: a restart in place moves `enqueued_at` alone."""
    return reading.moment("queued", row.enqueued_at or row.created_at)


def parse_row(row: BuildRow, repo: str, reading: Reading, era: Era) -> Build:
    """A row of a repo's list."""
    run = queued(row, reading)
    started = reading.moment("started", row.started_at)
    finished = reading.moment("finished", row.finished_at)
    reviewed = reading.moment("reviewed", row.reviewed_at)
    return build_of(
        row,
        repo,
        reading,
        run=run,
        status=reading.status(era.statuses, row.status),
        word=Word.ROW if row.status in UNEXPLAINED else Word.FINAL,
        started=started,
        finished=finished,
        wait=span(max(run, reviewed), started) if run and era.rows_tell_spans else None,
        duration=span(started, finished) if era.rows_tell_spans else None,
    )


def parse_feed_row(row: FeedRow, reading: Reading, era: Era, limits: Limits) -> Build:
    """A row of a feed that has a build; no wait, for it does not tell whether a review came first."""
    created = reading.moment("created", row.created_at)
    started = reading.moment("started", row.started_at)
    finished = reading.moment("finished", row.finished_at)
    event = reading.event(EVENTS, row.event)
    return Build(
        repo=row.full_name,
        number=row.number,
        run=0 if limits.restart_in_place else created,
        status=reading.status(era.statuses, row.status),
        word=Word.ROW if row.status in UNEXPLAINED else Word.FINAL,
        event=event,
        branch=branch(row.branch, row.ref),
        ref=text(row.ref),
        commit=text(row.commit),
        created=created,
        started=started,
        finished=finished,
        duration=span(started, finished) if era.rows_tell_spans else None,
        author=text(row.author),
        title=title(row.title, row.message),
        foreign=is_pull(event, row.ref),
    )


class Drone0:
    """A server of Drone before 1.0."""

    def __init__(self, session: Session, era: Era, public_url: str) -> None:
        self.name = session.name
        self.dialect = era.dialect
        self.limits = era.limits
        self.session = session
        self._era = era
        self._public_url = public_url.rstrip("/")
        self._version = ""
        self._lists_open = True

    @property
    def version(self) -> str:
        return self._version

    def whoami(self) -> User:
        answer = self.session.get("/api/user", "user")
        account = ACCOUNT.one(self.session, answer)
        self._version = text(answer.headers.get("X-Drone-Version", ""), 64)
        if self._version and not self._version.startswith(self._era.versions):
            what = f"is Drone {self._version}, which `dialect: {self.dialect}` does not read: set `auto`"
            raise self.session.fault("shape", answer.path, what, status=200)
        self.limits = self._era.limits
        if self._version.startswith(("0.6", "0.7")):
            # They look like 0.8, but still restart in place and know no pages.
            self.limits = replace(self._era.limits, restart_in_place=True, history_limit=50)
        self._lists_open = True
        return User(login=text(account.login), admin=account.admin)

    def repos(self, *, brief: bool = False) -> list[Repo]:
        known = {} if brief else {row.full_name: row for row in self._rows(REPOS, "/api/user/repos", "repos")}
        newest: dict[str, Build | None] = {}
        reading = Reading(self.session)
        for row in self._rows(FEED, "/api/user/feed?latest=true", "latest"):
            if reading.repo(row.full_name):
                build = parse_feed_row(row, reading, self._era, self.limits) if row.number else None
                newest[row.full_name] = build
        found = [self._repo(name, known.get(name), build) for name, build in newest.items()]
        unseen = [name for name in known if name not in newest and reading.repo(name)]
        return found + [replace(self._repo(name, known[name], None), unseen=True) for name in unseen]

    def feed(self, cursor: str) -> tuple[list[Build], str]:
        return self._builds_of_feed("/api/user/feed", "feed"), cursor

    def open_builds(self) -> list[Build] | None:
        if not self._lists_open:
            return None
        try:
            return self._builds_of_feed("/api/builds", "open")
        except ServerError as error:
            if not is_no_list(error):
                raise
            self._lists_open = False
            return None

    def builds(self, repo: str, page: int) -> Page:
        if self.limits.history_limit and page > 1:
            # Asked for any page, the server answers the first.
            return Page([], 0)
        answer = self.session.get(f"/api/repos/{repo_path(repo)}/builds?page={page}", "builds")
        rows, count = BUILDS.counted(self.session, answer)
        reading = Reading(self.session)
        return Page([parse_row(row, repo, reading, self._era) for row in rows], count)

    def build(self, repo: str, number: int) -> Build:
        return self._era.parse_single(self._single(repo, number), repo, Reading(self.session))

    def log(self, repo: str, number: int, step: Step) -> list[Line]:
        path = f"/api/repos/{repo_path(repo)}/logs/{number}/{step.log}"
        return read_log(self.session, path, step, of_job=self.limits.job_logs)

    def restart(self, repo: str, number: int) -> Build | None:
        answer = change(self.session, "POST", build_path(repo, number), "restart")
        return parse_row(BUILDS.one(self.session, answer), repo, Reading(self.session), self._era)

    def cancel(self, repo: str, number: int) -> None:
        path = build_path(repo, number)
        if self._era.stops_builds:
            try:
                change(self.session, "DELETE", path, "cancel")
            except ServerError as error:
                if error.status not in {200, 403}:  # 0.6 may not know it, and answer its web page
                    raise
            else:
                return
        running = self._era.running(self._single(repo, number))
        if not running:
            what = "nothing of it runs, and this server stops no build that waits"
            raise self.session.fault("status", path, what, unfit=True)
        change_each(self.session, "DELETE", [f"{path}/{leg}" for leg in running], "cancel")

    def _single(self, repo: str, number: int) -> Any:
        return read_build(self.session, self._era.single, repo, number, refused=_is_refused)

    def _rows(self, shape: Shape[T], path: str, operation: str) -> list[T]:
        return shape.rows(self.session, self.session.get(path, operation))

    def _builds_of_feed(self, path: str, operation: str) -> list[Build]:
        rows = self._rows(FEED, path, operation)
        reading = Reading(self.session)
        return [
            parse_feed_row(row, reading, self._era, self.limits)
            for row in rows
            if reading.repo(row.full_name) and row.number
        ]

    def _repo(self, name: str, row: RepoRow | None, newest: Build | None) -> Repo:
        number = newest.number if newest else 0
        return Repo(
            name=name,
            id=str(row.id) if row and row.id else "",
            default_branch=text(row.default_branch) if row else "",
            timeout=row.timeout * 60 if row else 0,
            active=row.active if row else True,
            counter=max(row.last_build, number) if row else number,
            newest=newest,
            build_url=f"{self._public_url}/{repo_path(name)}/",
        )


def _is_refused(answer: Answer) -> bool:
    """An unknown number is answered with 500 and nothing; so is a repo that the source host denies."""
    return answer.status == 404 or (answer.status == 500 and not answer.body)
