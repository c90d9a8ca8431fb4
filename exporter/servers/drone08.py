"""Drone 0.8, and 0.6 and 0.7, which look like it but still restart in place."""

import msgspec

from exporter.http import Session
from exporter.model import Build, Status, Step, Word
from exporter.servers import Limits, Stream
from exporter.servers.drone0 import STEP_STATUSES, BuildRow, Drone0, Era, build_of, queued
from exporter.servers.wire import Code, Count, Reading, Shape, repo_told, span, text, title, variables

STATUSES = {
    "pending": Status.PENDING,
    "blocked": Status.BLOCKED,
    "declined": Status.DECLINED,
    "running": Status.RUNNING,
    "success": Status.SUCCESS,
    "failure": Status.FAILURE,
    "killed": Status.CANCELLED,
    "error": Status.ERROR,
}
STOPPED = "Cancelled"
"""The error of a leg that was stopped, by a person or by a time limit."""
STOPPED_BY_PERSON = 137
STOPPED_BY_LIMIT = 1


class Proc(msgspec.Struct):
    """A leg of the matrix (`ppid` 0), or a step below one."""

    state: str
    pid: Count
    ppid: Count = 0
    name: str = ""
    error: str = ""
    exit_code: Code = 0
    start_time: int = 0
    end_time: int = 0
    environ: dict[str, str] | None = None
    children: list["Proc"] | None = None


class SingleBuild(BuildRow, gc=True):
    """`GET /api/repos/O/N/builds/K`; `procs` is left out when there are none."""

    error: str = ""
    procs: list[Proc] | None = None


def parse_single(row: SingleBuild, repo: str, reading: Reading) -> Build:
    """The single build: its steps, and why it failed from its legs' errors."""
    procs = _procs(row)
    legs = [proc for proc in procs if not proc.ppid]
    status = reading.status(STATUSES, row.status)
    if row.status == "failure":
        status = _explain(legs)
    run = queued(row, reading)
    reviewed = reading.moment("reviewed", row.reviewed_at)
    started = reading.moment("started", row.started_at)
    finished = reading.moment("finished", row.finished_at)
    labels = {leg.pid: f"{variables(leg.environ) or leg.pid}/" if len(legs) > 1 else "" for leg in legs}
    return build_of(
        row,
        repo,
        reading,
        run=run,
        status=status,
        word=Word.FLEETING if row.status == "killed" else Word.FINAL,
        started=started,
        finished=finished,
        wait=span(max(run, reviewed), started) if run else None,
        duration=span(started, finished),
        error=title(row.error, *(leg.error for leg in legs)),
        steps=tuple(_parse_step(proc, labels.get(proc.ppid, ""), reading) for proc in procs if proc.ppid),
        detailed=True,
    )


def _parse_step(proc: Proc, leg: str, reading: Reading) -> Step:
    return Step(
        name=text(leg + proc.name),
        status=reading.status(STEP_STATUSES, proc.state, "step_status"),
        exit_code=proc.exit_code,
        started=reading.moment("started", proc.start_time),
        finished=reading.moment("finished", proc.end_time),
        log=str(proc.pid),
    )


def running_legs(row: SingleBuild) -> list[int]:
    return [proc.pid for proc in _procs(row) if not proc.ppid and proc.state == "running"]


def _procs(row: SingleBuild) -> list[Proc]:
    """Legs and steps, however deep the answer has them."""
    return [proc for parent in row.procs or [] for proc in (parent, *(parent.children or []))]


def _explain(legs: list[Proc]) -> Status:
    """What a `failure` is: a cancel and a time limit read so too."""
    codes = {leg.exit_code for leg in legs if leg.error == STOPPED}
    if STOPPED_BY_PERSON in codes:
        return Status.CANCELLED
    return Status.TIMEOUT if STOPPED_BY_LIMIT in codes else Status.FAILURE


def open_drone08(session: Session, public_url: str) -> Drone0:
    """A server of Drone 0.6, 0.7 or 0.8."""
    era = Era(
        dialect="drone-0.8",
        versions=("0.6", "0.7", "0.8"),
        limits=Limits(
            feed_rows=50,
            page_size=50,
            listing_delay=72 * 3600,
            stream=Stream(path="/stream/events", repo_of=repo_told),
        ),
        statuses=STATUSES,
        rows_tell_spans=True,
        single=Shape(SingleBuild),
        parse_single=parse_single,
        running=running_legs,
        stops_builds=True,
    )
    return Drone0(session, era, public_url)
