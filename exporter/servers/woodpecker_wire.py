"""What Woodpecker 3.x answers, and what it means: no I/O."""

import base64
import binascii
import re
from collections import Counter
from typing import Any

import msgspec

from exporter.model import Build, Event, Status, Step, Word, is_pull
from exporter.servers.wire import (
    Code,
    Count,
    Number,
    Reading,
    branch,
    span,
    text,
    title,
    variables,
)

STATUSES = {
    "created": Status.PENDING,
    "pending": Status.PENDING,
    "running": Status.RUNNING,
    "success": Status.SUCCESS,
    "failure": Status.FAILURE,
    "killed": Status.CANCELLED,
    "canceled": Status.CANCELLED,
    "error": Status.ERROR,
    "blocked": Status.BLOCKED,
    "declined": Status.DECLINED,
    "skipped": Status.SKIPPED,
}
EVENTS = {
    "push": Event.PUSH,
    "pull_request": Event.PULL_REQUEST,
    "pull_request_closed": Event.PULL_REQUEST,
    "pull_request_metadata": Event.PULL_REQUEST,
    "tag": Event.TAG,
    "release": Event.TAG,
    "deployment": Event.DEPLOYMENT,
    "cron": Event.CRON,
    "manual": Event.MANUAL,
}
LIMIT_REACHED = "context deadline exceeded"
"""What the error of a step says that its time limit stopped."""
OLDER = re.compile(r"3\.(\d|1[0-3])\.")
"""Versions before `cancel_info`: a `killed` of theirs is a time limit only where a step says so."""


class Account(msgspec.Struct, gc=False):
    """`GET /api/user`."""

    login: str
    admin: bool = False


class Program(msgspec.Struct, gc=False):
    """`GET /version`."""

    source: str = ""
    version: str = ""


class FeedRow(msgspec.Struct, gc=False):
    """A row of `/api/user/feed` and `/api/pipelines`; what is 0 or empty is left out."""

    repo_id: Number
    full_name: str
    number: Number
    status: str
    event: str
    id: Count = 0
    created: int = 0
    started: int = 0
    finished: int = 0
    commit: str = ""
    branch: str = ""
    ref: str = ""
    title: str = ""
    message: str = ""
    author: str = ""


class Fault(msgspec.Struct, gc=False):
    """Something that is wrong with a pipeline's file."""

    message: str = ""
    is_warning: bool = False


class PipelineRow(msgspec.Struct):
    """A pipeline in a list, or a repo's newest; the single pipeline has more."""

    number: Number
    status: str
    event: str
    id: Count = 0
    parent: Count = 0
    created: int = 0
    started: int = 0
    finished: int = 0
    reviewed: int = 0
    cancel_info: dict[str, Any] | None = None
    from_fork: bool = False
    deploy_to: str = ""
    cron: str = ""
    commit: str = ""
    branch: str = ""
    ref: str = ""
    title: str = ""
    message: str = ""
    author: str = ""


class StepRow(msgspec.Struct, gc=False):
    name: str
    state: str
    id: Count = 0
    error: str = ""
    exit_code: Code = 0
    started: int = 0
    finished: int = 0


class Workflow(msgspec.Struct):
    name: str
    state: str
    pid: Count = 0
    error: str = ""
    environ: dict[str, str] | None = None
    children: list[StepRow] | None = None


class SinglePipeline(PipelineRow):
    """`GET /api/repos/ID/pipelines/N`; `workflows` is left out when there are none."""

    errors: list[Fault] | None = None
    workflows: list[Workflow] | None = None


class RepoRow(msgspec.Struct):
    """A repo, with its newest pipeline where it has one."""

    id: Number
    full_name: str
    default_branch: str = ""
    timeout: Count = 0
    active: bool = True
    last_pipeline: PipelineRow | None = None


class LogRow(msgspec.Struct, gc=False):
    """An entry of a log; `data` is the line's bytes in base64."""

    data: str | None = None
    time: int = 0
    type: int = 0

    @property
    def out(self) -> str:
        """The line as it was printed."""
        try:
            return base64.b64decode(self.data or "", validate=True).decode("utf-8", "replace")
        except (binascii.Error, ValueError):
            return self.data or ""


def has_cancel_info(version: str) -> bool:
    """True where a pipeline that was cancelled says by whom."""
    return OLDER.match(version) is None


def parse_feed_row(row: FeedRow, reading: Reading) -> Build:
    """A row of a feed or of the running list: it tells neither who cancelled nor whether a review came."""
    created = reading.moment("created", row.created)
    started = reading.moment("started", row.started)
    finished = reading.moment("finished", row.finished)
    event = reading.event(EVENTS, row.event)
    return Build(
        repo=row.full_name,
        number=row.number,
        run=created,
        id=row.id,
        status=reading.status(STATUSES, row.status),
        word=Word.ROW if row.status == "killed" else Word.FINAL,
        event=event,
        branch=branch(row.branch, row.ref),
        ref=text(row.ref),
        commit=text(row.commit),
        created=created,
        started=started,
        finished=finished,
        duration=span(started, finished),
        # The row has no field for the name of the cron job, which is the message of all that it starts.
        cron=text(row.message) if event is Event.CRON else "",
        author=text(row.author),
        title=title(row.title, row.message),
        foreign=is_pull(event, row.ref),
    )


def parse_row(row: PipelineRow, repo: str, reading: Reading, *, tells_cancels: bool = True) -> Build:
    """A pipeline of a list, or a repo's newest; `tells_cancels`: the server's version has `cancel_info`."""
    status = reading.status(STATUSES, row.status)
    unexplained = row.status == "killed" and row.cancel_info is None
    if unexplained and tells_cancels:
        status = Status.TIMEOUT
    word = Word.ROW if unexplained and not tells_cancels else Word.FINAL
    return _parse(row, repo, reading, status=status, word=word)


def parse_single(row: SinglePipeline, repo: str, reading: Reading, *, tells_cancels: bool = True) -> Build:
    """The single pipeline, with the steps of its workflows."""
    workflows = row.workflows or []
    children = [step for workflow in workflows for step in workflow.children or []]
    status = reading.status(STATUSES, row.status)
    if row.status == "killed" and row.cancel_info is None:
        by_limit = tells_cancels or any(LIMIT_REACHED in step.error for step in children)
        status = Status.TIMEOUT if by_limit else Status.CANCELLED
    names = Counter(workflow.name for workflow in workflows)
    return _parse(
        row,
        repo,
        reading,
        status=status,
        error=title(
            *(fault.message for fault in row.errors or [] if not fault.is_warning),
            *(step.error for step in children),
            *(workflow.error for workflow in workflows),
        ),
        steps=tuple(
            _parse_step(step, workflow, _prefix(workflow, names), reading)
            for workflow in workflows
            for step in workflow.children or []
        ),
        detailed=True,
    )


def _parse(
    row: PipelineRow,
    repo: str,
    reading: Reading,
    *,
    status: Status,
    word: Word = Word.FINAL,
    error: str = "",
    steps: tuple[Step, ...] = (),
    detailed: bool = False,
) -> Build:
    created = reading.moment("created", row.created)
    started = reading.moment("started", row.started)
    finished = reading.moment("finished", row.finished)
    reviewed = reading.moment("reviewed", row.reviewed)
    # With a file that cannot be read, a pipeline "starts" when that is found.
    waited = created > 0 and status is not Status.ERROR
    return Build(
        repo=repo,
        number=row.number,
        run=created,
        id=row.id,
        status=status,
        word=word,
        detailed=detailed,
        event=reading.event(EVENTS, row.event),
        branch=branch(row.branch, row.ref),
        ref=text(row.ref),
        commit=text(row.commit),
        created=created,
        started=started,
        finished=finished,
        wait=span(max(created, reviewed), started) if waited else None,
        duration=span(started, finished),
        parent=row.parent,
        environment=text(row.deploy_to),
        cron=text(row.cron),
        author=text(row.author),
        title=title(row.title, row.message),
        error=error,
        steps=steps,
        foreign=row.from_fork,
    )


def _parse_step(step: StepRow, workflow: Workflow, prefix: str, reading: Reading) -> Step:
    status = reading.status(STATUSES, step.state, "step_status")
    if status is Status.FAILURE and LIMIT_REACHED in step.error:
        status = Status.TIMEOUT
    return Step(
        name=text(prefix + step.name),
        status=status,
        exit_code=step.exit_code,
        started=reading.moment("started", step.started),
        finished=reading.moment("finished", step.finished),
        ignored=status.bad and workflow.state == "success",
        log=str(step.id),
    )


def _prefix(workflow: Workflow, names: Counter[str]) -> str:
    """What stands before a step's name: the workflow where there are several, with its leg of a matrix."""
    if names.total() == 1:
        return ""
    leg = f" {variables(workflow.environ) or workflow.pid}" if names[workflow.name] > 1 else ""
    return f"{workflow.name}{leg}/"
