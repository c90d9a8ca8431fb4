"""What happens when: one job a server, and the housekeeping."""

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from apscheduler.events import EVENT_JOB_EXECUTED, JobExecutionEvent
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.jobstores.base import JobLookupError
from apscheduler.schedulers.background import BackgroundScheduler

from exporter.log import logger

SPREAD = 0.2
"""Seconds between the first looks at two servers."""

log = logger(__name__)


@dataclass(slots=True)
class Job:
    """What runs every `seconds`, first `after` seconds from the start."""

    name: str
    seconds: float
    run: Callable[[], None]
    after: float
    rest: Callable[[], float]
    """Seconds until it may be hurried."""
    hurried: bool = False

    def __call__(self) -> None:
        self.hurried = False
        try:
            self.run()
        except Exception:
            log.exception("a job failed; it runs again when it is due", job=self.name)


class Schedule:
    """Runs jobs in threads; a job that is late runs once, never twice at a time."""

    def __init__(self) -> None:
        self._jobs: list[Job] = []
        self._scheduler: BackgroundScheduler | None = None

    def every(
        self,
        seconds: float,
        job: Callable[[], None],
        *,
        name: str,
        after: float = 0.0,
        rest: Callable[[], float] = lambda: 0.0,
    ) -> Callable[[], None]:
        """Runs `job` every `seconds`, first `after` seconds from the start.

        What is returned makes it run as soon as `rest()` seconds from then have passed, once more where it
        runs just then; any thread may call it, as often as it likes.
        """
        place = len(self._jobs)
        self._jobs.append(Job(name, seconds, job, after, rest))
        return lambda: self._hurry(place)

    def watch(
        self, name: str, seconds: float, look: Callable[[], None], rest: Callable[[], float]
    ) -> Callable[[], None]:
        """Runs the look at a server shortly after that at the one before; returns what makes it hurry."""
        after = len(self._jobs) * min(SPREAD, seconds / 10)
        return self.every(seconds, look, name=name, after=after, rest=rest)

    def start(self) -> None:
        """Begins; jobs of which no run must be lost are those that catch up by themselves."""
        scheduler = BackgroundScheduler(
            timezone=UTC,
            executors={"default": ThreadPoolExecutor(max(1, len(self._jobs)))},
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
        )
        # That a look took longer than its interval is no news: the next one comes when it is due.
        logging.getLogger("apscheduler.scheduler").setLevel(logging.ERROR)
        now = datetime.now(UTC)
        for place, job in enumerate(self._jobs):
            scheduler.add_job(
                job,
                "interval",
                seconds=job.seconds,
                next_run_time=now + timedelta(seconds=job.after),
                id=str(place),
                name=job.name,
            )
        scheduler.add_listener(self._ended, EVENT_JOB_EXECUTED)
        scheduler.start()
        self._scheduler = scheduler

    def stop(self) -> None:
        """Begins no job any more; those that run end by themselves."""
        if self._scheduler is not None:
            self._scheduler.shutdown(wait=False)
            self._scheduler = None

    def _hurry(self, place: int) -> None:
        job, scheduler = self._jobs[place], self._scheduler
        job.hurried = True
        if scheduler is None:
            return
        due = datetime.now(UTC) + timedelta(seconds=job.rest())
        with suppress(JobLookupError):  # it is being stopped
            known = scheduler.get_job(str(place))
            if known is not None and known.next_run_time > due:
                scheduler.modify_job(str(place), next_run_time=due)

    def _ended(self, event: JobExecutionEvent) -> None:
        """A job that was hurried while it ran runs once more: the scheduler let it pass by."""
        if self._jobs[int(event.job_id)].hurried:
            self._hurry(int(event.job_id))
