"""The excerpt of a failing step's log, read from its server as far as time allows; it never fails."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain, repeat

from exporter.config_excerpt import ExcerptSettings
from exporter.http import ServerError
from exporter.log import logger
from exporter.model import Build, Step
from exporter.notify.excerpt import excerpt
from exporter.notify.redact import SlowPatternError
from exporter.servers import Line, Server

WAIT = 10.0
"""Seconds that a message waits for its excerpt."""
LATE_WAIT = 45.0
"""The same where logs themselves come late (Drone 0.5)."""
PAUSES = (0.5, 1.0, 1.5, 2.0, 3.0)
"""Seconds between two readings; the last again and again."""

log = logger(__name__)


@dataclass(frozen=True, slots=True)
class Excerpt:
    """The lines of a log that a message shows, or why there are none."""

    text: str = ""
    """At most 15 lines without secrets."""
    note: str = ""
    """Like `log unavailable (404)`; empty where there is text."""


class LogReader:
    """Reads excerpts of logs; threads may share it, and a server with whoever else reads that.

    `hide` is what secrets are left out by (`Redactor`); `stop` ends every wait.
    """

    def __init__(
        self,
        hide: Callable[[str], str],
        settings: ExcerptSettings,
        stop: threading.Event,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._hide, self._settings, self._stop, self._clock = hide, settings, stop, clock

    def read(self, server: Server, build: Build, step: str) -> Excerpt:
        """The excerpt of the log of a step (or of a Drone 0.5 job) of a build that failed.

        It takes 10 s at most (45 s where logs come late), next to none when the step ended long ago. A build
        that was not read as a single one is read again first: the ledger keeps neither where a log is nor
        whether a fork's pull request wrote it. Nothing is asked of the log of one that may have.
        """
        wait = LATE_WAIT if server.limits.late_logs else WAIT
        try:
            with server.session.within(wait):
                return self._read(server, build, step, self._clock() + wait)
        except ServerError as error:
            return Excerpt(note=_unavailable(error))
        except SlowPatternError as error:
            return Excerpt(note=f"log not shown: {error}")
        except Exception as error:
            # A message without its excerpt is worth more than none.
            log.exception("no excerpt of a log", server=server.name, repo=build.repo, number=build.number)
            return Excerpt(note=f"log not shown: {type(error).__name__}")

    def _read(self, server: Server, build: Build, name: str, end: float) -> Excerpt:
        if not build.detailed or not any(step.log for step in build.steps):
            known, build = build, server.build(build.repo, build.number)
            if known.run and build.run and known.run != build.run:
                return Excerpt(note="log gone: the build was started again")
        if build.foreign:
            return Excerpt(note="log not shown: the pull request may come from a fork")
        step = next((step for step in build.steps if step.name == name), None)
        if step is None:
            return Excerpt(note="log unavailable: the build has no such step any more")
        lines = self._settled(server, build, step, end)
        text = excerpt(lines, self._hide, exit_code=step.exit_code, patterns=self._settings.of(build.repo))
        return Excerpt(text) if text else Excerpt(note="the log is empty")

    def _settled(self, server: Server, build: Build, step: Step, end: float) -> list[Line]:
        """The log once it is whole, or what there is of it when the time is up; else the last error."""
        before: list[Line] | None = None
        for pause in chain(PAUSES, repeat(PAUSES[-1])):
            ago = server.session.server_now() - step.finished if step.finished else 0.0
            try:
                lines = server.log(build.repo, build.number, step)
            except ServerError as error:
                if before is not None:
                    return before
                longest = max(server.limits.late_logs, server.limits.late_lines, WAIT)
                if not _passes(error) or ago > longest or not self._waits(pause, end):
                    raise
                continue
            whole = ago >= server.limits.late_lines and (not server.limits.late_lines or lines == before)
            if whole or ago > WAIT or not self._waits(pause, end):
                return lines
            before = lines
        raise AssertionError("pauses have no end")

    def _waits(self, pause: float, end: float) -> bool:
        """True after the pause; False where the time would be up."""
        return self._clock() + pause < end and not self._stop.wait(pause)


def _passes(error: ServerError) -> bool:
    """True for what another try may mend."""
    return error.missing or error.status >= 500 or (not error.status and error.reason != "auth")


def _unavailable(error: ServerError) -> str:
    """`log unavailable (404)`: the status, else what kind of trouble it is."""
    refused = error.status if error.status >= 300 else 0
    return f"log unavailable ({refused or error.reason})"
