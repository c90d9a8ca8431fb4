"""Drone 0.5: jobs instead of steps, 50 builds of history, and restarts that keep the number."""

import msgspec

from exporter.http import Session
from exporter.model import Build, Status, Step, Word
from exporter.servers import Limits, Stream
from exporter.servers.drone0 import STEP_STATUSES, BuildRow, Drone0, Era, build_of, queued
from exporter.servers.wire import Code, Count, Reading, Shape, repo_told, span, text, title, variables

STATUSES = {
    "pending": Status.PENDING,
    "running": Status.RUNNING,
    "success": Status.SUCCESS,
    "failure": Status.FAILURE,
    "killed": Status.FAILURE,
    "error": Status.ERROR,
}
CANCELLED = "termination request received"
OUT_OF_TIME = ("maximum time limit", "terminal inactive")


class Job(msgspec.Struct, gc=False):
    """One leg of the matrix."""

    status: str
    number: Count = 0
    error: str = ""
    exit_code: Code = 0
    started_at: int = 0
    finished_at: int = 0
    environment: dict[str, str] | None = None


class SingleBuild(BuildRow, gc=True):
    """`GET /api/repos/O/N/builds/K`."""

    jobs: list[Job] | None = None


def parse_single(row: SingleBuild, repo: str, reading: Reading) -> Build:
    """The single build: times from its jobs, and why it failed from their errors."""
    jobs = row.jobs or []
    steps = tuple(_parse_job(job, reading) for job in jobs)
    status = reading.status(STATUSES, row.status)
    if row.status == "failure":
        status = _explain(jobs)
    run = queued(row, reading)
    own_start = reading.moment("started", row.started_at)
    finished = reading.moment("finished", row.finished_at)
    # The build's own start is that of whichever job reported last.
    started = min((step.started for step in steps if step.started), default=own_start)
    if finished and steps:
        finished = max(step.finished for step in steps) or finished
    return build_of(
        row,
        repo,
        reading,
        run=run,
        status=status,
        word=Word.FLEETING if row.status == "killed" else Word.FINAL,
        started=started,
        finished=finished,
        wait=span(run, started),
        duration=span(started, finished),
        error=title(*(job.error for job in jobs)),
        steps=steps,
        detailed=True,
    )


def _parse_job(job: Job, reading: Reading) -> Step:
    return Step(
        name=text(variables(job.environment)) or "job",
        status=reading.status(STEP_STATUSES, job.status, "step_status"),
        exit_code=job.exit_code,
        started=reading.moment("started", job.started_at),
        finished=reading.moment("finished", job.finished_at),
        log=str(job.number),
    )


def running_jobs(row: SingleBuild) -> list[int]:
    return [job.number for job in row.jobs or [] if job.status == "running"]


def _explain(jobs: list[Job]) -> Status:
    """What a `failure` is: a cancel and a time limit read so too."""
    if any(CANCELLED in job.error for job in jobs):
        return Status.CANCELLED
    if any(limit in job.error for job in jobs for limit in OUT_OF_TIME):
        return Status.TIMEOUT
    return Status.FAILURE


def open_drone05(session: Session, public_url: str) -> Drone0:
    """A server of Drone 0.5."""
    era = Era(
        dialect="drone-0.5",
        versions=("0.5",),
        limits=Limits(
            feed_rows=50,
            page_size=50,
            history_limit=50,
            restart_in_place=True,
            listing_delay=15 * 60,
            repos_limit=999,
            job_logs=True,
            stream=Stream(path="/ws/feed", socket=True, repo_of=repo_told),
            late_logs=30,
        ),
        statuses=STATUSES,
        rows_tell_spans=False,
        single=Shape(SingleBuild),
        parse_single=parse_single,
        running=running_jobs,
        stops_builds=False,
    )
    return Drone0(session, era, public_url)
