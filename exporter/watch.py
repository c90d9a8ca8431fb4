"""One server, watched: what a look at it costs does not grow with its repos or its history.

A cycle reads the change feed, follows the builds that are open, and reads singly those that ended;
a sweep compares every repo's newest build from time to time. Time that is left of a cycle goes
to history. How each dialect is asked is in `exporter.servers`; its limits come from there as data.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import count
from typing import Literal

from exporter.bridge import Bridge
from exporter.config import ServerSettings
from exporter.faults import Faults
from exporter.follow import Follower
from exporter.gaps import GapReader, gap_reader
from exporter.http import ServerError, Session
from exporter.intake import Intake
from exporter.ledger import Ledger, LedgerError, Moment, Policy, watched
from exporter.ledger.prune import prune
from exporter.model import User
from exporter.numbers import numbers_of
from exporter.roster import Roster
from exporter.servers import Server, told_until
from exporter.streams import Hints
from exporter.sweep import Sweeper
from exporter.telemetry import Telemetry

Task = Literal["watch", "sweep", "import"]

PRUNE = 3600.0
"""Seconds between two looks for what is too old to be kept."""
IMPORT_SHARE = 0.9
"""Of the time between two looks, so that the next one is never late."""


@dataclass(slots=True)
class Connected:
    """A server that answered, and what reads it."""

    server: Server
    gaps: GapReader
    follower: Follower
    sweeper: Sweeper


class Watch:
    """Watches one server: `cycle` is called every `poll` seconds and raises nothing."""

    def __init__(
        self,
        settings: ServerSettings,
        open_server: Callable[[], Server],
        ledger: Ledger,
        telemetry: Telemetry,
        *,
        retention: float,
        series_retention: float,
        changed: Callable[[set[int]], None],
        bridge: Bridge,
        stop: threading.Event,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings, self.name = settings, settings.name
        self.roster = Roster(ledger, settings)
        self.user: User | None = None
        self.history_left = 0
        """Build numbers of history that are still to be read."""
        self.tried = False
        """True once a first look ended, well or not."""
        self.idle = threading.Event()
        """Set while no cycle runs."""
        self.idle.set()
        self.hints = Hints(monotonic)
        """Given to it, they make the next look come sooner."""
        self.met: Callable[[Server], None] = lambda _: None
        """Is told the server each time that it was found to answer anew."""
        self._open_server = open_server
        self._session: Session | None = None
        self._connected: Connected | None = None
        self._ledger, self._telemetry = ledger, telemetry
        self._clock, self._monotonic, self._stop = clock, monotonic, stop
        self._intake = Intake(
            ledger, self.roster, settings, telemetry, self._moment, series_retention, changed, bridge
        )
        self._faults = Faults(self.name, telemetry, settings.poll, monotonic, stop)
        self._retention, self._series_retention = retention, series_retention
        self._swept, self._pruned, self._import_due = -float("inf"), monotonic(), 0.0
        self._feed: set[tuple[str, int]] | None = None
        self._cursor = ""
        self._unsure: set[str] = set()
        """Repos of the last feed of which a sweep alone tells what they are."""
        self._last_gap = 0
        """Of history the gap that was read last: the others have their turn first."""
        telemetry.add(self.name)

    @property
    def policy(self) -> Policy:
        """What the configuration says of this server's builds."""
        return self._intake.policy

    @property
    def fault(self) -> str:
        """Why the last look failed; empty while all is well."""
        return self._faults.server

    @property
    def ended(self) -> tuple[int, int]:
        """Ends that this watch recorded, and how many of them moved counters."""
        return self._intake.ended, self._intake.counted

    @property
    def server(self) -> Server | None:
        """The server, once it answered."""
        return self._connected.server if self._connected else None

    def cycle(self, *, history: bool = True) -> None:
        """Looks once at the server, then reads history until the next look is due, by time or by a hint."""
        began = self._monotonic()
        self.hints.begin()
        if not self._faults.server_due() or self._stop.is_set():
            return
        self.idle.clear()
        try:
            self._touch()
            connected = self._connect()
            self.look(connected)
            self.hints.end()
            self._faults.server_good()
            if history:
                until = began + self.settings.poll * IMPORT_SHARE
                self._timed("import", lambda: self._import(connected, until))
                self._prune()
        except ServerError as error:
            self._connected = None  # by the next look it may be another server
            if not self._stop.is_set():
                self._faults.server_bad(error)
        except LedgerError as error:
            self.roster.stale = True
            self._faults.stopped(f"polling stops until it can be written: {error}")
        except Exception:
            self.roster.stale = True
            self._faults.stopped("a look failed by a fault of the program; the next line says where")
            raise
        finally:
            self.tried = True
            self.idle.set()

    @property
    def open(self) -> int:
        """Builds that are known to be open."""
        return self._connected.follower.open if self._connected else 0

    def skew(self) -> float:
        """The server's clock minus ours in seconds, as last known."""
        if self._connected is not None:
            return self._connected.server.session.skew
        return self.roster.server.skew if self.roster.server else 0.0

    def last_poll(self) -> float:
        """When it was last looked at with success, by this process or one before (our clock)."""
        return self.roster.server.last_poll if self.roster.server else 0.0

    def load(self) -> None:
        """Reads what the ledger has of the server; raises `LedgerError`."""
        self.roster.load()
        self._cursor = self.roster.server.cursor if self.roster.server else ""
        if self.last_poll():
            self._telemetry.last_poll.labels(self.name, "watch").set(self.last_poll())

    def close(self) -> None:
        """Lets a request in flight fail at once, so that a cycle ends by itself."""
        self._stop.set()
        if self._session is not None:
            self._session.close()

    def look(self, connected: Connected) -> None:
        """A sweep where one is due, then the feed and what follows from it."""
        if self._monotonic() - self._swept >= self.settings.sweep:
            self._timed("sweep", lambda: self._sweep(connected))
        self._timed("watch", lambda: self._poll(connected))
        session = connected.server.session
        with self._ledger.transaction() as conn:
            known = self.roster.greet(conn, self._moment())
            known.last_poll, known.skew, known.cursor = self._clock(), session.skew, self._cursor
            watched.write_server(conn, known)
        self._intake.show()
        self._telemetry.clock_skew.labels(self.name).set(session.skew)
        self._telemetry.identify(self.name, connected.server.dialect, connected.server.version)

    def _touch(self) -> None:
        """Writes before it asks: while the ledger cannot be written, the server is left alone."""
        if self.roster.stale:
            self.load()
        if self.roster.server is not None:
            with self._ledger.transaction() as conn:
                # SQLite writes nothing where nothing changes.
                watched.write_server(conn, replace(self.roster.server, last_poll=-1.0))
                watched.write_server(conn, self.roster.server)

    def _connect(self) -> Connected:
        if self._connected is None:
            if self._session is not None:
                self._session.close()
            server = self._open_server()
            self._session = server.session
            self.user = server.whoami()
            self._intake.numbers = numbers_of(server.limits)
            gaps = gap_reader(server, self._intake)
            follower = Follower(
                server,
                gaps,
                self._faults,
                self._intake,
                self.roster,
                self._ledger,
                poll=self.settings.poll,
                moment=self._moment,
                monotonic=self._monotonic,
                stop=self._stop,
            )
            sweeper = Sweeper(
                server, gaps, self._faults, self._intake, self.roster, self._ledger, self._moment
            )
            self._connected = Connected(server, gaps, follower, sweeper)
            self.met(server)
        return self._connected

    def _moment(self) -> Moment:
        ours = self._clock()
        return Moment(ours, ours + self.skew())

    def _sweep(self, connected: Connected) -> None:
        self.user = connected.server.whoami()
        connected.sweeper.sweep()
        self._swept = self._monotonic()

    def _poll(self, connected: Connected) -> None:
        server = connected.server
        rows, cursor = server.feed(self._cursor)
        self._faults.answered()
        shown = {(row.repo, row.number) for row in rows}
        unsure = {row.repo for row in rows if self.roster.is_unsure(row)}
        if unsure - self._unsure:
            self._intake.take([row for row in rows if row.repo not in unsure])
            self._timed("sweep", lambda: self._sweep(connected))
        self._unsure = unsure
        self._intake.take(rows)
        if server.limits.feed_rows and shown and self._feed is not None and not shown & self._feed:
            self._intake.take_newest(repo.newest for repo in server.repos(brief=True))
        self._feed, self._cursor = shown, cursor
        self.roster.told_until = told_until(cursor)
        connected.follower.follow(rows, self._for_a_while(self.settings.poll))
        self._read_gaps(connected, history=False, go_on=self._for_a_while(self.settings.poll))
        connected.follower.read_ends(history=False, go_on=self._for_a_while(self.settings.poll))
        self._intake.settle(behind=self._tell_remaining(connected))

    def _for_a_while(self, seconds: float) -> Callable[[], bool]:
        """True until so much time has passed, or the exporter stops: much to read keeps no feed waiting."""
        until = self._monotonic() + seconds
        return lambda: not self._stop.is_set() and self._monotonic() < until

    def _read_gaps(self, connected: Connected, *, history: bool, go_on: Callable[[], bool]) -> int:
        """Reads on in every gap that is due: live ones to their end, of history one part each.

        Returns how many parts were read.
        """
        with self._ledger.reading() as conn:
            gaps = [gap for gap in watched.gaps_of(conn, self.name) if gap.history is history]
        cutoff = int(self._moment().server - self.settings.import_)
        read = 0
        if history:
            gaps.sort(key=lambda gap: gap.id <= self._last_gap)
        with connected.gaps.recording() as recording:
            for gap in gaps:
                repo, left = self.roster.by_id[gap.repo_id], gap
                while go_on() and left.low <= left.high and self._faults.due(gap.id):
                    self._last_gap = gap.id
                    try:
                        part = connected.gaps.read(repo, left, cutoff)
                    except ServerError as error:
                        given_up = self._faults.bad(gap.id, repo.name, error)
                        recording.add(connected.gaps.failed(repo, left, given_up=given_up))
                        break
                    self._faults.good(gap.id, repo.name)
                    recording.add(part)
                    left = part.rest
                    read += 1
                    if history:
                        break
        return read

    def _import(self, connected: Connected, until: float) -> None:
        """Reads history, the newest of every repo first, until the next look is due."""
        rate = self.settings.import_rate
        interval = 1 / rate if rate else 0.0
        asked = count()

        def go_on() -> bool:
            """False as well where the next request would have to wait for longer than there is time."""
            now = self._monotonic()
            in_time = now + interval < until if next(asked) else self._import_due <= now < until
            return in_time and not self.hints.due and not self._stop.is_set()

        parts = 1
        with connected.server.session.paced(interval):
            while parts:
                parts = connected.follower.read_ends(history=True, go_on=go_on)
                parts += self._read_gaps(connected, history=True, go_on=go_on)
                if parts:
                    self._import_due = self._monotonic() + interval
                    self._tell_remaining(connected)
                    self._intake.show()

    def _prune(self) -> None:
        if self._monotonic() - self._pruned < PRUNE:
            return
        self._pruned, now = self._monotonic(), self._moment().server
        self._intake.changed |= prune(
            self._ledger,
            self.roster.repos.values(),
            builds_before=int(now - self._retention),
            names_before=int(now - self._series_retention),
        )
        self._intake.show()

    def _tell_remaining(self, connected: Connected) -> bool:
        """Says what is still to be read; True where that is more than history."""
        with self._ledger.reading() as conn:
            gaps = watched.gaps_of(conn, self.name)
        history = {gap.repo_id for gap in gaps if gap.history} | connected.follower.repos_with_history()
        missing = sum(gap.high - gap.low + 1 for gap in gaps if gap.failed and not gap.history)
        self.history_left = sum(gap.high - gap.low + 1 for gap in gaps if gap.history)
        self._telemetry.import_remaining.labels(self.name).set(len(history))
        self._telemetry.missing.labels(self.name).set(missing)
        return any(not gap.history and not gap.failed for gap in gaps)

    def _timed(self, task: Task, work: Callable[[], None]) -> None:
        began = self._monotonic()
        work()
        self._telemetry.poll_duration.labels(self.name, task).observe(self._monotonic() - began)
        self._telemetry.last_poll.labels(self.name, task).set(self._clock())
