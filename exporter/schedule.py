"""What happens when: one job a server, and the housekeeping."""

import logging
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler

from exporter.log import logger

SPREAD = 0.2
"""Seconds between the first looks at two servers."""

log = logger(__name__)


class Schedule:
    """Runs jobs in threads; a job that is late runs once, never twice at a time."""

    def __init__(self) -> None:
        self._jobs: list[tuple[str, float, Callable[[], None], float]] = []
        self._scheduler: BackgroundScheduler | None = None

    def every(self, seconds: float, job: Callable[[], None], *, name: str, after: float = 0.0) -> None:
        """Runs `job` every `seconds`, first `after` seconds from the start."""
        self._jobs.append((name, seconds, job, after))

    def watch(self, watches: Iterable[tuple[str, float, Callable[[], None]]]) -> None:
        """Runs the look at each server (name, seconds, job) one shortly after the other."""
        for place, (name, seconds, job) in enumerate(watches):
            self.every(seconds, job, name=name, after=place * min(SPREAD, seconds / 10))

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
        for name, seconds, job, after in self._jobs:
            scheduler.add_job(
                _logged(name, job),
                "interval",
                seconds=seconds,
                next_run_time=now + timedelta(seconds=after),
                name=name,
            )
        scheduler.start()
        self._scheduler = scheduler

    def stop(self) -> None:
        """Begins no job any more; those that run end by themselves."""
        if self._scheduler is not None:
            self._scheduler.shutdown(wait=False)
            self._scheduler = None


def _logged(name: str, job: Callable[[], None]) -> Callable[[], None]:
    def run() -> None:
        try:
            job()
        except Exception:
            log.exception("a job failed; it runs again when it is due", job=name)

    return run
