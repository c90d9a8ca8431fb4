"""Sends what stands in the outbox: in order for each thread, at least once, whatever dies on the way.

One thread leases messages and notes what became of them, many of both in one transaction; each target
has threads of its own, so that one that hangs stops nobody else.
"""

import queue
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TypeAlias, TypeVar

from sqlalchemy import Connection

from exporter.ledger import Ledger, LedgerError, messages, outbox
from exporter.ledger.messages import Row, UnreadableError
from exporter.ledger.outbox import Mark
from exporter.ledger.schema import DEAD, DELIVERED, SENDING
from exporter.log import logger
from exporter.notify.facts import digest_lines, notice_of
from exporter.notify.lane import Lane, Sent
from exporter.notify.notice import Kind, Notice
from exporter.notify.targets import Outcome, Result, Target
from exporter.routes import Routes, fold
from exporter.telemetry import Telemetry

LEASE = 60.0
"""Seconds in which a message that is being sent belongs to its thread."""
OUTAGE = 120.0
"""Seconds for which a message waits before those of its target are told together."""
LOOK = 1.0
"""Seconds after which the outbox is looked at although nobody said that there is something."""
CARE, CLEAN = 5.0, 3600.0
"""Seconds between two looks for leases that ended, and for what is not kept any more."""
LAST_ANSWERS, LAST_WORDS = 1.0, 0.5
"""Seconds at the end in which attempts may end by themselves, and then once they were cut off."""
BACK = 1.0
"""Seconds that the clock may lose between two looks before it counts as set back."""
READERS = 8
"""Logs of one server that are read at a time: one that hangs stops no other."""
CACHED = 256

Excerpt: TypeAlias = tuple[str, str]
"""Lines of the failing step's log, and why there are none."""
Build: TypeAlias = tuple[int, int, int]
"""A repo's id, number and run."""

T = TypeVar("T")

log = logger(__name__)


class Outbox:
    """The outbox's threads: `start` them, then `stop` them once."""

    def __init__(
        self,
        ledger: Ledger,
        targets: Iterable[Target],
        routes: Routes,
        telemetry: Telemetry,
        due: threading.Event,
        *,
        excerpt: Callable[[Row], Excerpt] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`due` is set by whoever writes messages. `excerpt` reads the log that a message is about: it
        raises nothing, and ends by itself."""
        self._ledger, self._routes, self._telemetry = ledger, routes, telemetry
        self._due, self._clock, self._excerpt = due, clock, excerpt
        self._sent: queue.SimpleQueue[Sent] = queue.SimpleQueue()
        self._read: queue.SimpleQueue[tuple[Build, Excerpt]] = queue.SimpleQueue()
        self._lanes = {target.name: Lane(target, self._heard, clock) for target in targets}
        self._reading: dict[Build, set[int]] = {}
        self._excerpts: OrderedDict[Build, Excerpt] = OrderedDict()
        self._readers: dict[str, ThreadPoolExecutor] = {}
        self._stop = threading.Event()
        self._failing = False
        self._unreadable: list[int] = []
        self._care_due = self._seen = 0.0
        self._clean_due = clock() + CLEAN
        self._thread = threading.Thread(target=self._run, name="outbox", daemon=True)
        for name in self._lanes:
            telemetry.add_target(name)

    def start(self) -> None:
        """Begins to send."""
        self._thread.start()

    def stop(self, grace: float) -> None:
        """Ends within `grace` seconds; what is on its way then is sent again after its lease."""
        self._stop.set()
        self._due.set()
        if self._thread.is_alive():
            self._thread.join(grace)
        else:
            for lane in self._lanes.values():
                lane.close()
        for readers in tuple(self._readers.values()):
            readers.shutdown(wait=False, cancel_futures=True)

    def _run(self) -> None:
        while not self._stop.is_set():
            self._due.clear()
            wait = LOOK
            try:
                self._care()
                wait = self.turn()
                self._failing = False
            except LedgerError as error:
                if not self._failing:
                    log.warning("messages wait until the ledger can be read and written", error=error)
                self._failing = True
            except UnreadableError as error:
                log.warning("a message is given up", error=error)
                self._unreadable.append(error.row_id)
                wait = 0.0
            except Exception:
                log.exception("sending messages failed; it goes on")
            self._due.wait(wait)
        self._leave()

    def turn(self) -> float:
        """Notes what was sent, and sends what is due; seconds until there may be more to do."""
        now = self._clock()
        sent, read = _drain(self._sent), _drain(self._read)
        if not sent and not read:
            lanes = [(lane, takes) for lane in self._lanes.values() if (takes := lane.takes(now))]
            with self._ledger.reading() as conn:
                # As many as it takes, though one is enough: their logs are read at the same time.
                if not any(self._due_rows(conn, lane, takes, now) for lane, takes in lanes):
                    return self._next(now)
        try:
            with self._ledger.transaction() as conn:
                for build, excerpt in read:
                    messages.write_excerpt(conn, sorted(self._reading[build]), *excerpt)
                self._note(conn, sent, now)
                leased = [each for lane in self._lanes.values() for each in self._lease(conn, lane, now)]
        except Exception:
            for told in sent:
                self._sent.put(told)
            for known in read:
                self._read.put(known)
            raise
        for build, excerpt in read:
            del self._reading[build]
            self._excerpts[build] = excerpt
            while len(self._excerpts) > CACHED:
                self._excerpts.popitem(last=False)
        for lane, row, notice, reference in leased:
            lane.send(row, notice, reference, now, now + LEASE)
        return self._next(now)

    def _next(self, now: float) -> float:
        frees = [at - now for lane in self._lanes.values() if (at := lane.frees(now)) > now]
        return min([LOOK, *frees])

    def _note(self, conn: Connection, sent: Sequence[Sent], now: float) -> None:
        """Writes what became of attempts, and what follows from it for their targets."""
        marks: list[Mark] = []
        for each in sent:
            row, lane = each.row, self._lanes[each.row.target]
            was_failing = lane.failing
            mark = lane.hear(each, now)
            marks.append(mark)
            if each.outcome is None:
                continue
            self._telemetry.attempted(row.target, _COUNTED[each.outcome.result])
            if mark.state > SENDING:
                self._telemetry.notified(row.target, row.kind, _WORDS[mark.state])
            if row.kind == Kind.DIGEST and mark.state > SENDING:
                for kind in outbox.close_lines(conn, row.id, now):
                    self._telemetry.notified(row.target, kind, "superseded")
            if was_failing is not lane.failing:
                self._say(lane, row, each.outcome)
            if was_failing and not lane.failing:
                outbox.hurry(conn, row.target, now)
        outbox.mark(conn, marks, now)
        for target in {
            each.row.target for each in sent if each.outcome and each.outcome.result is Result.PAUSE
        }:
            outbox.do_not_age(conn, target, now)

    def _say(self, lane: Lane, row: Row, outcome: Outcome) -> None:
        """One line when a target begins to fail, and one when it takes messages again."""
        if lane.failing:
            log.warning(
                "a target does not take messages; they wait",
                target=row.target,
                result=outcome.result,
                said=outcome.detail,
            )
        else:
            log.info("a target takes messages again", target=row.target)

    def _lease(self, conn: Connection, lane: Lane, now: float) -> Iterator[tuple[Lane, Row, Notice, str]]:
        """Takes messages of a target to be sent, after what waited for too long was put together."""
        takes = lane.takes(now)
        rows = self._due_rows(conn, lane, takes, now) if takes else []
        if not lane.failing and any(_waited(row, now) for row in rows):
            self._put_together(conn, lane, now)
            rows = self._due_rows(conn, lane, takes, now)
        outbox.lease(conn, [row.id for row in rows], now + LEASE)
        for row in rows:
            lines = digest_lines(outbox.lines_of(conn, row)) if row.kind == Kind.DIGEST else ()
            yield lane, row, notice_of(row, self._routes.mention, lines), outbox.reference_of(conn, row)

    def _put_together(self, conn: Connection, lane: Lane, now: float) -> None:
        """After an outage: what went red and green meanwhile is one message, many are a digest."""
        rows = {row.id: row for row in outbox.waiting(conn, lane.target.name) if row.kind in _FOLDED}
        folded = fold(messages.waiting_of(rows.values()), oldest=0.0, held=False)
        messages.apply(conn, lane.target.name, rows, folded, now, held=False)
        for row_id in folded.superseded:
            self._telemetry.notified(lane.target.name, rows[row_id].kind, "superseded")

    def _due_rows(self, conn: Connection, lane: Lane, most: int, now: float) -> list[Row]:
        """Messages of a target that may be sent now; of others the log is read first."""
        rows = outbox.due(conn, lane.target.name, now, most + len(self._reading))
        return [row for row in rows if self._has_excerpt(row)][:most]

    def _has_excerpt(self, row: Row) -> bool:
        """True when the log that a message is about was read, or is not to be."""
        if row.excerpt is not None or self._excerpt is None or row.repo_id is None:
            return True
        build = (row.repo_id, row.told.number, row.told.run)
        if build in self._excerpts:
            row.excerpt, row.excerpt_note = self._excerpts[build]
            return True
        if build not in self._reading:
            self._reading[build] = set()
            if row.server not in self._readers:
                self._readers[row.server] = ThreadPoolExecutor(READERS, f"excerpt-{row.server}")
            self._readers[row.server].submit(self._read_log, build, row)
        self._reading[build].add(row.id)
        return False

    def _read_log(self, build: Build, row: Row) -> None:
        try:
            excerpt = self._excerpt(row) if self._excerpt else ("", "")
        except Exception:
            log.exception("a log could not be read", server=row.server, repo=row.told.repo)
            excerpt = ("", "log unavailable")
        self._read.put((build, excerpt))
        self._due.set()

    def _heard(self, sent: Sent) -> None:
        self._sent.put(sent)
        self._due.set()

    def _care(self) -> None:
        """Every few seconds: leases that ended, messages that are too old or that somebody asked for, and
        the gauges."""
        if (now := self._clock()) < self._seen - BACK:
            self._set_back(now)
        self._seen = now
        if self._unreadable:
            with self._ledger.transaction() as conn:
                messages.bury(conn, self._unreadable, now)
            self._unreadable = []
        if now < self._care_due:
            return
        self._care_due = now + CARE
        with self._ledger.reading() as conn:
            needed, asked = outbox.needs_care(conn, now), outbox.asked(conn)
        if needed or asked:
            with self._ledger.transaction() as conn:
                outbox.free(conn, now)
                outbox.heard(conn, now)
                for target, kind in outbox.expire(conn, now):
                    self._telemetry.notified(target, kind, "expired")
            for lane in self._lanes.values():
                lane.forget_expired(now)
                if lane.target.name in asked:
                    lane.resume()
        if now >= self._clean_due:
            self._clean_due = now + CLEAN
            with self._ledger.transaction() as conn:
                outbox.forget(conn, now - outbox.KEPT)
        self.measure()

    def _set_back(self, now: float) -> None:
        """What was to be done by the clock as it was would wait until it is so late again."""
        back = round(self._seen - now)
        log.warning("the clock was set back; messages that waited are tried now", seconds=back)
        with self._ledger.transaction() as conn:
            outbox.set_back(conn, now, LEASE)
        for lane in self._lanes.values():
            lane.set_back(now + LEASE)
        self._care_due, self._clean_due = now, min(self._clean_due, now + CLEAN)

    def measure(self) -> None:
        """Renews the gauges of what waits."""
        with self._ledger.reading() as conn:
            backlogs = outbox.backlogs(conn)
        for name in self._lanes:
            left = backlogs.get(name, outbox.Backlog(0, 0, None))
            self._telemetry.waiting(name, left.pending, left.dead, left.oldest)

    def _leave(self) -> None:
        """Lets go of what was not begun, and notes what still comes of the rest."""
        free = [row_id for lane in self._lanes.values() for row_id in lane.let_go()]
        sent = self._wait_for(LAST_ANSWERS, _drain(self._sent))
        for lane in self._lanes.values():
            lane.close()
        sent = self._wait_for(LAST_WORDS, sent)
        try:
            with self._ledger.transaction() as conn:
                outbox.let_go(conn, free)
                self._note(conn, sent, self._clock())
        except LedgerError as error:
            log.warning("what was sent last could not be noted: it is sent again", error=error)

    def _wait_for(self, seconds: float, sent: list[Sent]) -> list[Sent]:
        """What was sent, and what of the rest has an answer in that time."""
        until = time.monotonic() + seconds
        left = {row_id for lane in self._lanes.values() for row_id in lane.leased}
        left -= {each.row.id for each in sent}
        with suppress(queue.Empty):
            while left:
                sent.append(self._sent.get(timeout=max(0.0, until - time.monotonic())))
                left.discard(sent[-1].row.id)
        return sent


_FOLDED = frozenset({Kind.OPENED, Kind.CHANGED, Kind.RESOLVED, Kind.FLAPPING, Kind.STALE, Kind.DIGEST})
_WORDS = {DELIVERED: "delivered", DEAD: "dead"}
_COUNTED = {
    Result.OK: "ok",
    Result.RETRY: "retry",
    Result.PAUSE: "retry",
    Result.TOO_LARGE: "permanent",
    Result.PERMANENT: "permanent",
    Result.AMBIGUOUS: "ambiguous",
}


def _waited(row: Row, now: float) -> bool:
    """True of a message that could not go out for a while, because its target took none or not enough."""
    return now - row.ready > OUTAGE and (row.attempts > 0 or now - row.due > OUTAGE)


def _drain(told: "queue.SimpleQueue[T]") -> list[T]:
    found: list[T] = []
    with suppress(queue.Empty):
        while True:
            found.append(told.get_nowait())
    return found
