"""Woodpecker 3.x: what is asked of it."""

import re

from exporter.http import Answer, ServerError, Session
from exporter.model import Build, Repo, Step, User
from exporter.servers import Limits, Line, Page, Stream
from exporter.servers.operations import change, lines, log_answer
from exporter.servers.wire import Reading, Shape, is_no_list, repo_path, repo_told, text
from exporter.servers.woodpecker_wire import (
    Account,
    FeedRow,
    LogRow,
    PipelineRow,
    Program,
    RepoRow,
    SinglePipeline,
    has_cancel_info,
    parse_feed_row,
    parse_row,
    parse_single,
)

PAGE_SIZE = 50
LATE_LINES = 5
"""Seconds after the end of a step in which lines of its log were seen to come in, and some more."""
OTHER_MAJORS = re.compile(r"[0-2]\.")

ACCOUNT = Shape(Account)
PROGRAM = Shape(Program)
FEED = Shape(FeedRow)
PIPELINES = Shape(PipelineRow)
PIPELINE = Shape(SinglePipeline)
REPOS = Shape(RepoRow, spare="last_pipeline")
"""A repo whose newest build makes no sense is a repo all the same."""
LOG = Shape(LogRow)


class Woodpecker:
    """A server of Woodpecker 3.x."""

    dialect = "woodpecker"

    def __init__(self, session: Session, public_url: str) -> None:
        self.name = session.name
        self.limits = Limits(
            feed_rows=50,
            page_size=PAGE_SIZE,
            reuses_numbers=True,
            late_lines=LATE_LINES,
            stream=Stream(path="/api/stream/events", repo_of=repo_told),
        )
        self.session = session
        self._public_url = public_url.rstrip("/")
        self._version = ""
        self._tells_cancels = True
        self._lists_open = True
        self._ids: dict[str, int] = {}
        """The server's ids of repos by name, as last told."""

    @property
    def version(self) -> str:
        return self._version

    def whoami(self) -> User:
        answer = self.session.get("/api/user", "user")
        account = ACCOUNT.one(self.session, answer)
        version = answer.headers.get("X-Woodpecker-Version", "")
        program = Program(version=version) if version else self._program(answer)
        self._version = text(program.version, 64)
        if OTHER_MAJORS.match(self._version):
            what = f"is Woodpecker {self._version}: only 3.x can be read"
            raise self.session.fault("shape", answer.path, what, status=200)
        self._tells_cancels = has_cancel_info(self._version)
        self._lists_open = True
        return User(login=text(account.login), admin=account.admin)

    def _program(self, answer: Answer) -> Program:
        """What the server is, where no header says it (a proxy may leave it out)."""
        if "X-Drone-Version" not in answer.headers:
            program = PROGRAM.one(self.session, self.session.get("/version", "version"))
            if "woodpecker" in program.source:
                return program
        what = "is no Woodpecker, which `dialect: woodpecker` reads: set `auto`"
        raise self.session.fault("shape", answer.path, what, status=200)

    def repos(self, *, brief: bool = False) -> list[Repo]:  # noqa: ARG002 - one request tells all
        rows = REPOS.rows(self.session, self.session.get("/api/user/repos", "latest"))
        reading = Reading(self.session)
        found = [row for row in rows if reading.repo(row.full_name)]
        self._ids = {row.full_name: row.id for row in found}
        return [self._repo(row, reading) for row in found]

    def feed(self, cursor: str) -> tuple[list[Build], str]:
        return self._builds_of_feed("/api/user/feed", "feed"), cursor

    def open_builds(self) -> list[Build] | None:
        if not self._lists_open:
            return None
        try:
            return self._builds_of_feed("/api/pipelines", "open")
        except ServerError as error:
            if not is_no_list(error):
                raise
            self._lists_open = False
            return None

    def builds(self, repo: str, page: int) -> Page:
        path = f"{self._path(repo)}?page={page}&perPage={PAGE_SIZE}"
        try:
            answer = self.session.get(path, "builds")
        except ServerError as error:
            self._forget(repo, error.status)
            raise
        rows, count = PIPELINES.counted(self.session, answer)
        reading = Reading(self.session)
        return Page([self._row(row, repo, reading) for row in rows], count)

    def build(self, repo: str, number: int) -> Build:
        answer = self.session.ask(f"{self._path(repo)}/{number}", "build")
        self._forget(repo, answer.status)
        if answer.status == 404:
            what = "answered 404: there is no such pipeline, or the token's user may not read it"
            raise self.session.fault("status", answer.path, what, status=404, missing=True)
        row = PIPELINE.one(self.session, self.session.check(answer))
        if row.number != number:
            raise self.session.fault("shape", answer.path, f"answered pipeline {row.number}", status=200)
        return parse_single(row, repo, Reading(self.session), tells_cancels=self._tells_cancels)

    def log(self, repo: str, number: int, step: Step) -> list[Line]:
        path = f"/api/repos/{self._id(repo)}/logs/{number}/{step.log}"
        rows = LOG.rows(self.session, log_answer(self.session, path, step))
        return [line for row in rows for line in lines(row.out, row.type, seconds=row.time)]

    def restart(self, repo: str, number: int) -> Build | None:
        answer = change(self.session, "POST", f"{self._path(repo)}/{number}", "restart")
        if answer.status == 204:
            return None
        return self._row(PIPELINES.one(self.session, answer), repo, Reading(self.session))

    def cancel(self, repo: str, number: int) -> None:
        change(self.session, "POST", f"{self._path(repo)}/{number}/cancel", "cancel")

    def _path(self, repo: str) -> str:
        """Where the pipelines of a repo are."""
        return f"/api/repos/{self._id(repo)}/pipelines"

    def _id(self, repo: str) -> int:
        if repo not in self._ids:
            path = f"/api/repos/lookup/{repo_path(repo)}"
            self._ids[repo] = REPOS.one(self.session, self.session.get(path, "lookup")).id
        return self._ids[repo]

    def _forget(self, repo: str, status: int) -> None:
        """A repo that was removed and added again has another id."""
        if status == 404:
            self._ids.pop(repo, None)

    def _row(self, row: PipelineRow, repo: str, reading: Reading) -> Build:
        return parse_row(row, repo, reading, tells_cancels=self._tells_cancels)

    def _builds_of_feed(self, path: str, operation: str) -> list[Build]:
        rows = FEED.rows(self.session, self.session.get(path, operation))
        reading = Reading(self.session)
        found = [row for row in rows if reading.repo(row.full_name)]
        self._ids |= {row.full_name: row.repo_id for row in found}
        return [parse_feed_row(row, reading) for row in found]

    def _repo(self, row: RepoRow, reading: Reading) -> Repo:
        newest = self._row(row.last_pipeline, row.full_name, reading) if row.last_pipeline else None
        return Repo(
            name=row.full_name,
            id=str(row.id),
            default_branch=text(row.default_branch),
            timeout=row.timeout * 60,
            active=row.active,
            counter=newest.number if newest else 0,
            newest=newest,
            build_url=f"{self._public_url}/repos/{row.id}/pipeline/",
        )
