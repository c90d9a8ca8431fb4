"""What one target of the type `alertmanager` is to be told now, kept in the ledger.

All of it is a function of the incidents and the clock, but for what only this can know: what was told as
open, so that it is told to be over too, and which Alertmanager took that.
"""

import json
import queue
import threading
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Protocol, TypeAlias

from sqlalchemy import Connection

from exporter.incidents import Change, State, What
from exporter.ledger import Ledger, LedgerError, messages, states, watched
from exporter.ledger.alerts import Alert, alerts_of, decode, drop_alerts, stirring, write_alerts
from exporter.ledger.messages import Row
from exporter.ledger.schema import WAITING
from exporter.ledger.watched import RepoState
from exporter.log import logger
from exporter.model import Status
from exporter.notify.alerts import annotations_of, labels_of
from exporter.notify.facts import notice_of
from exporter.notify.outbox import Build, Excerpt
from exporter.routes import LATE, Routes, Subject
from exporter.verdicts import News, facts_of

INTERVAL = 60.0
"""Seconds after which everything is looked at, and told, although nothing happened."""
AGAIN = 5.0
"""The same while something that is red is not to be told yet."""
KEPT = 1800.0
"""Seconds for which a resolve is told after every Alertmanager of the target took it."""
GIVEN_UP = 30 * 86_400.0
"""Seconds after which it is told no more although one never did."""
READERS = 4

Key: TypeAlias = tuple[int, str]
"""Repo and ref class."""

log = logger(__name__)


class Waits(Protocol):
    """Whether an incident may turn out to be over by what is still unread (`Bridge.waits`)."""

    def __call__(self, server: str, opened: float, *, late: bool) -> bool: ...


class AlertBook:
    """What is told to one target, whichever of its Alertmanagers asks. Threads may share it."""

    def __init__(
        self,
        target: str,
        peers: Collection[str],
        ledger: Ledger,
        routes: Routes,
        servers: Collection[str],
        waits: Waits,
        *,
        excerpt: Callable[[Row], Excerpt] | None = None,
        interval: float = INTERVAL,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`servers` are the configured ones: of others nothing is open. `excerpt` as for the outbox."""
        self._target, self._peers, self._routes = target, frozenset(peers), routes
        self._ledger, self._servers, self._waits = ledger, frozenset(servers), waits
        self._excerpt, self.interval, self._clock = excerpt, interval, clock
        self._alerts: dict[str, Alert] | None = None
        self._version = 0
        self._seen: list[tuple[int, str]] = []
        self._made: dict[Key, tuple[str, Excerpt | None]] = {}
        """Of which state and which log an alert tells."""
        self._due = 0.0
        self._put_off = False
        """Something that is red is not to be told yet."""
        self._failing = False
        self._logs: dict[Build, Excerpt | None] = {}
        """Logs of what is open; None: being read."""
        self._read: queue.SimpleQueue[tuple[Build, Excerpt]] = queue.SimpleQueue()
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix=f"logs-for-{target}")
        self._lock = threading.Lock()

    def close(self) -> None:
        """Begins to read no more logs."""
        self._readers.shutdown(wait=False, cancel_futures=True)

    def look(self) -> tuple[int, Sequence[Alert]] | None:
        """All that is to be told, with a number that is another one when something else is.

        Where the ledger cannot be read or written it is what was told before, None without one.
        """
        with self._lock:
            try:
                self._look()
                self._failing = False
            except LedgerError as error:
                if not self._failing:
                    log.warning(
                        "new alerts wait until the ledger can be read and written",
                        target=self._target,
                        error=error,
                    )
                self._failing = True
            return None if self._alerts is None else (self._version, tuple(self._alerts.values()))

    def took(self, peer: str, told: Iterable[Alert]) -> None:
        """Notes that an Alertmanager took these resolves; raises `LedgerError`."""
        now = self._clock()
        with self._lock:
            known = self._alerts or {}
            noted: dict[str, Alert] = {}
            for alert in told:
                stands = known.get(alert.labels)
                if stands is None or stands.resolved != alert.resolved:
                    continue
                taken = json.loads(stands.taken)
                if peer not in taken:
                    noted[alert.labels] = replace(stands, taken=json.dumps(taken | {peer: now}))
            if noted:
                with self._ledger.transaction() as conn:
                    write_alerts(conn, noted.values())
                known |= noted

    def _look(self) -> None:
        with self._ledger.reading() as conn:
            if self._alerts is None:
                self._alerts = {alert.labels: alert for alert in alerts_of(conn, self._target)}
            seen = stirring(conn, self._target)
            if seen == self._seen and time.monotonic() < self._due and self._read.empty():
                return
            while not self._read.empty():
                build, excerpt = self._read.get()
                self._logs[build] = excerpt
            self._put_off = False
            told = self._renewed(conn, seen)
        changed = [alert for labels, alert in told.items() if self._alerts.get(labels) != alert]
        gone = [alert for labels, alert in self._alerts.items() if labels not in told]
        if changed or gone:
            with self._ledger.transaction() as conn:
                drop_alerts(conn, gone)
                write_alerts(conn, changed)
            self._version += 1
        self._alerts, self._seen = told, seen
        self._due = time.monotonic() + (min(AGAIN, self.interval) if self._put_off else self.interval)

    def _renewed(self, conn: Connection, seen: Sequence[tuple[int, str]]) -> dict[str, Alert]:
        """All alerts as they are to be told now, by their labels."""
        before, now = self._alerts or {}, self._clock()
        repos = watched.repos_by_id(conn, {repo_id for repo_id, _ in seen})
        open_before = {(a.repo_id, a.ref_class): a for a in before.values() if not a.resolved}
        told: dict[str, Alert] = {}
        made: dict[Key, tuple[str, Excerpt | None]] = {}
        builds: set[Build] = set()
        for repo_id, text in seen:
            state, repo = decode(text), repos.get(repo_id)
            if not (state.red or state.flapping) or state.silent:
                continue
            if repo is None or not repo.watched or repo.server not in self._servers:
                continue
            key = (repo_id, state.ref_class)
            build = (repo_id, *(state.bad or (0, 0, 0))[1:])
            alert = open_before.get(key)
            if alert is not None and alert.epoch != state.epoch and not state.flapping:
                alert = None
            if alert is None or self._made.get(key) != (text, self._logs.get(build)):
                alert = self._opened(conn, repo, state, alert, now)
            if alert is not None:
                told[alert.labels], made[key] = alert, (text, self._logs.get(build))
                builds.add(build)
        self._made = made
        self._logs = {build: excerpt for build, excerpt in self._logs.items() if build in builds}
        for alert in before.values():
            if alert.labels not in told and not self._is_over(alert, now):
                told[alert.labels] = alert if alert.resolved else self._resolved(conn, alert, now)
        return dict(sorted(told.items()))

    def _begins(self, conn: Connection, repo: RepoState, state: State, now: float) -> bool:
        """True when an incident that was not told before is to be told now."""
        subject = Subject(repo.server, repo.name, state.branch, state.event, Status(state.status).word)
        if self._target not in self._routes.targets_for(subject):
            return False
        put_off = (
            self._routes.quiet_until(self._target, subject, now) > now
            or states.muted_until(conn, repo.server, repo.name, now) > now
            or self._waits(repo.server, state.opened, late=state.opened - state.since > LATE)
        )
        self._put_off |= put_off
        return not put_off

    def _opened(
        self, conn: Connection, repo: RepoState, state: State, alert: Alert | None, now: float
    ) -> Alert | None:
        """The alert of what is red or flaps; None where it is not to be told, or not yet."""
        if alert is None and not self._begins(conn, repo, state, now):
            return None
        what = What.FLAPPING if state.flapping else What.OPENED if state.failures == 1 else What.CHANGED
        row = self._row(conn, repo, state, what, now)
        if row is None:
            return alert
        row.excerpt, row.excerpt_note = self._log_of(row, alert)
        annotations, url = annotations_of(notice_of(row))
        if alert is not None:
            return replace(alert, epoch=state.epoch, annotations=annotations, url=url)
        return Alert(
            target=self._target,
            labels=labels_of(repo, state),
            repo_id=repo.id,
            ref_class=state.ref_class,
            epoch=state.epoch,
            opened=state.opened,
            resolved=0.0,
            annotations=annotations,
            url=url,
            taken="{}",
        )

    def _resolved(self, conn: Connection, alert: Alert, now: float) -> Alert:
        """The alert of what is over."""
        alert = replace(alert, resolved=now)
        state = states.states_of(conn, alert.repo_id, [alert.ref_class]).get(alert.ref_class)
        repo = watched.repos_by_id(conn, {alert.repo_id}).get(alert.repo_id)
        if state is None or repo is None or state.red or state.epoch != alert.epoch:
            return alert
        row = self._row(conn, repo, state, What.STALE if state.last_was_bad else What.RESOLVED, now)
        if row is None:
            return alert
        annotations, url = annotations_of(notice_of(row))
        return replace(alert, annotations=annotations, url=url)

    def _is_over(self, alert: Alert, now: float) -> bool:
        """True when every Alertmanager of the target surely knows that an alert is over."""
        taken = json.loads(alert.taken)
        last = max(taken.get(peer, float("inf")) for peer in self._peers)
        return alert.resolved > 0.0 and (now >= last + KEPT or now >= alert.resolved + GIVEN_UP)

    def _row(self, conn: Connection, repo: RepoState, state: State, what: What, now: float) -> Row | None:
        """What is to be said of an incident; None where its build is not kept any more."""
        over = what in (What.RESOLVED, What.STALE)
        key = state.handled if over else state.bad
        run = states.run_at(conn, repo.id, key) if key else None
        if run is None:
            return None
        step, exit_code = states.failed_step(conn, run)
        failed = ("", 0) if over else (state.step, exit_code if step == state.step else 0)
        flaky = run.good and run.commit == state.commit != ""
        news = News(Change(what, state.sequence, flaky=flaky), state, run, failed, late=False)
        facts = messages.encode(facts_of(repo, news, now))
        about = (self._target, state.ref_class, state.epoch, what, repo.server, repo.id)
        return Row(0, "", *about, WAITING, facts=facts)

    def _log_of(self, row: Row, alert: Alert | None) -> Excerpt:
        """The log of the build that a row is about, as far as it is known; where it is not, it is read."""
        if self._excerpt is None or row.repo_id is None:
            return "", ""
        build = (row.repo_id, row.told.number, row.told.run)
        if build not in self._logs:
            told = json.loads(alert.annotations) if alert else {}
            is_same = (
                told.get("build") == str(row.told.number) and (row.repo_id, row.thread) not in self._made
            )
            self._logs[build] = (told["log"], "") if is_same and "log" in told else None
            if self._logs[build] is None:
                self._readers.submit(self._read_log, self._excerpt, build, row)
        return self._logs[build] or ("", "")

    def _read_log(self, excerpt: Callable[[Row], Excerpt], build: Build, row: Row) -> None:
        try:
            found = excerpt(row)
        except Exception:
            log.exception("a log could not be read", server=row.server, repo=row.told.repo)
            found = ("", "log unavailable")
        self._read.put((build, found))
