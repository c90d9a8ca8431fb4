"""What a backfill needs and the ledger has not read yet: older history, and the steps of its builds.

Where `run` is on the ledger, history is left to that, which notices what is asked for; else it is read here,
as `run` reads it.
"""

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace

from exporter.backfill import DAY, BackfillError
from exporter.bridge import Bridge
from exporter.config import Config, ServerSettings
from exporter.http import ServerError
from exporter.intake import Intake
from exporter.ledger import Ledger, LedgerInUseError, Moment, history, watched
from exporter.ledger.recall import Recalled
from exporter.log import logger
from exporter.model import Build, Word
from exporter.numbers import numbers_of
from exporter.roster import Roster
from exporter.servers import Server
from exporter.servers.detect import open_server
from exporter.telemetry import Telemetry
from exporter.watch import Watch

SPARE = DAY
"""History is read by when builds were created, and written by when they ended."""
PATIENCE = 120.0
"""Seconds without any progress after which history that cannot be read is done without."""
LOOK = 1.0
BUILDS_AT_ONCE = 20

Progress = Callable[[str, int, int], None]
"""Is told what is read of which server, how much of it, and how much there is."""

log = logger(__name__)


class UnreachableError(BackfillError):
    """A server refused, or could not be reached."""


class Fetcher:
    """Completes one ledger for a backfill of these servers since a time (our clock)."""

    def __init__(
        self,
        ledger: Ledger,
        config: Config,
        servers: Sequence[ServerSettings],
        since: float,
        progress: Progress,
    ) -> None:
        self._ledger, self._config, self._servers = ledger, config, servers
        self._since, self._progress = since, progress
        self._stop = threading.Event()

    def read_history(self) -> None:
        """Sees to it that all history since then is in the ledger.

        Raises `UnreachableError`, and `BackfillError` where a `run` on the ledger reads no further back.
        """
        with ExitStack() as stack:
            owner = Ledger(self._config.ledger.url.get_secret_value())
            stack.callback(owner.close)
            try:
                owner.lock()
            except LedgerInUseError:
                for settings in self._servers:
                    self._leave_to_run(settings)
                return
            owner.migrate()
            for settings in self._servers:
                if self._ask(settings) or not self._is_known(settings):
                    self._read(owner, settings)

    def read_steps(self, until: float) -> None:
        """Reads every build of history since then singly, unless its steps are known.

        Raises `UnreachableError`.
        """
        for settings in self._servers:
            wanted: list[history.Undetailed] = []
            for facts in self._ledger.facts(server=settings.name):
                repo = facts.repo
                if not repo.gone:
                    window = self._since + repo.horizon_skew, until + repo.horizon_skew
                    with self._ledger.reading() as conn:
                        wanted += history.undetailed(conn, repo, *window)
            if wanted:
                self._read_singly(settings, wanted)

    def _unread(self, settings: ServerSettings) -> int:
        with self._ledger.reading() as conn:
            return history.unread(conn, settings.name)

    def _is_known(self, settings: ServerSettings) -> bool:
        """True once the server was looked at."""
        with self._ledger.reading() as conn:
            return watched.server_state(conn, settings.name) is not None

    def _ask(self, settings: ServerSettings) -> int:
        """Notes what is missing of the history of known repos; how much is to be read."""
        numbered = settings.dialect != "abf" and settings.login is None
        with self._ledger.transaction() as conn:
            for repo in watched.repo_states(conn, settings.name):
                if repo.watched:
                    since = self._since + repo.horizon_skew
                    history.ask_for_older(conn, repo, since, numbered=numbered)
        return self._unread(settings)

    def _leave_to_run(self, settings: ServerSettings) -> None:
        if self._since < time.time() - settings.import_ - SPARE:
            raise BackfillError(
                f"server {settings.name}: the `run` that is on this ledger reads history no further back "
                "than its setting `import`: raise that to what --since says and let `run` load it (SIGHUP), "
                "or stop `run` until this is done"
            )
        total = left = self._ask(settings)
        while left:
            self._progress(f"history of {settings.name} (read by `run`)", total - left, total)
            self._stop.wait(LOOK)
            left = self._unread(settings)
            total = max(total, left)

    def _read(self, owner: Ledger, settings: ServerSettings) -> None:
        reach = time.time() - self._since + SPARE
        settings = settings.model_copy(update={"import_": max(settings.import_, reach)})
        telemetry = Telemetry()
        watch = Watch(
            settings,
            lambda: open_server(settings, telemetry, recall=Recalled(owner, settings.name)),
            owner,
            telemetry,
            retention=self._config.ledger.retention,
            series_retention=self._config.ledger.series_retention,
            changed=lambda _: None,
            bridge=Bridge(owner, self._config.notify.rules, telemetry, time.time),
            stop=self._stop,
        )
        watch.load()
        total, best, moved = 0, float("inf"), time.monotonic()
        try:
            while True:
                watch.cycle()
                if watch.fault:
                    raise UnreachableError(watch.fault)
                left = self._unread(settings)
                total = max(total, left)
                self._progress(f"history of {settings.name}", total - left, total)
                if not left:
                    return
                if left < best:
                    best, moved = left, time.monotonic()
                elif time.monotonic() - moved > PATIENCE:
                    log.warning(
                        "some history cannot be read: it is done without", server=watch.name, left=left
                    )
                    return
                else:
                    self._stop.wait(LOOK)
        finally:
            watch.close()
            self._stop.clear()

    def _read_singly(self, settings: ServerSettings, wanted: Sequence[history.Undetailed]) -> None:
        telemetry = Telemetry()
        telemetry.add(settings.name)
        roster = Roster(self._ledger, settings)
        roster.load()
        try:
            server = open_server(settings, telemetry, recall=Recalled(self._ledger, settings.name))
            with ExitStack() as stack:
                stack.callback(server.session.close)
                server.whoami()
                intake = self._intake(settings, roster, telemetry, server)
                stack.enter_context(
                    server.session.paced(1 / settings.import_rate if settings.import_rate else 0.0)
                )
                for at in range(0, len(wanted), BUILDS_AT_ONCE):
                    intake.take(self._singly(server, wanted[at : at + BUILDS_AT_ONCE]))
                    done = min(at + BUILDS_AT_ONCE, len(wanted))
                    self._progress(f"builds of {settings.name}", done, len(wanted))
        except ServerError as error:
            raise UnreachableError(error.message) from error

    def _singly(self, server: Server, wanted: Sequence[history.Undetailed]) -> list[Build]:
        found = []
        for each in wanted:
            try:
                build = server.build(each.repo, each.number)
            except ServerError as error:
                if not error.missing:
                    raise
                log.warning(
                    "a build is not there any more",
                    server=server.session.name,
                    repo=each.repo,
                    number=each.number,
                )
                continue
            # What ended before there was anybody to see it has long said its last word.
            found.append(replace(build, word=Word.FINAL) if build.word is Word.FLEETING else build)
        return found

    def _intake(
        self, settings: ServerSettings, roster: Roster, telemetry: Telemetry, server: Server
    ) -> Intake:
        def moment() -> Moment:
            now = time.time()
            return Moment(now, now + server.session.skew)

        retention = self._config.ledger.series_retention
        bridge = Bridge(self._ledger, self._config.notify.rules, telemetry, time.time)
        intake = Intake(self._ledger, roster, settings, telemetry, moment, retention, lambda _: None, bridge)
        intake.numbers = numbers_of(server.limits)
        return intake
