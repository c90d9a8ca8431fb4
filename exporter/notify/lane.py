"""One target as the outbox sees it: what is on its way to it, how fast it may go on, and whether it answers.

It knows no ledger: the outbox asks it how many messages it takes, and tells it what became of them.
"""

import random
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from exporter.ledger.messages import Row
from exporter.ledger.outbox import Mark
from exporter.ledger.schema import DEAD, DELIVERED, WAITING
from exporter.notify.notice import Notice
from exporter.notify.targets import Outcome, Result, Target

THREADS = 8
"""Messages that are on their way to one target at a time."""
AHEAD = 4 * THREADS
"""Messages that are leased for it at a time, so that a thread need not wait for the ledger."""
FIRST_WAIT, LONGEST_WAIT = 5.0, 900.0
"""Seconds between two attempts: a random part of what doubles from the one to the other."""
PAUSE = 900.0
"""Seconds between two attempts at a target that takes nothing until somebody changes something."""
PATIENCE = 3
"""Failures in a row from which on the whole target is left alone for a while."""
LEAST_LEASE = 30.0
"""Seconds of a message's lease that are left when it is begun."""
LONGEST_REQUEST = 3600.0
"""Seconds for which a target may ask to be left alone."""


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of one attempt."""

    row: Row
    outcome: Outcome | None
    """None: it was not begun, for its lease is about to end."""


def backoff(attempts: int) -> float:
    """Seconds until the next attempt, after so many."""
    longest = min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** min(attempts, 20))
    return random.uniform(0.0, longest)  # noqa: S311  # it only spreads


class Lane:
    """The way to one target; used by the outbox's thread alone, but for what sends."""

    def __init__(self, target: Target, done: Callable[[Sent], None], clock: Callable[[], float]) -> None:
        self.target = target
        self.leased: dict[int, tuple[float, Future[None]]] = {}
        """Until when a message is leased, and its attempt."""
        self.failing = False
        """The last attempt failed: one message at a time."""
        self.not_before = 0.0
        """Until when it is left alone (our clock)."""
        self._done, self._clock = done, clock
        self._streak = 0
        self._starts: deque[float] = deque()
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix=f"to-{target.name}")

    def takes(self, now: float) -> int:
        """How many more messages may be leased for it now."""
        if now < self.not_before:
            return 0
        room = (1 if self.failing else AHEAD) - len(self.leased)
        for rate in self.target.rate:
            room = min(room, rate.count - sum(1 for at in self._starts if at > now - rate.seconds))
        return max(room, 0)

    def frees(self, now: float) -> float:
        """When it takes messages again; now, where only an answer is waited for."""
        moments = [self.not_before]
        for rate in self.target.rate:
            within = [at for at in self._starts if at > now - rate.seconds]
            if len(within) >= rate.count:
                moments.append(within[-rate.count] + rate.seconds)
        return max(moments)

    def send(self, row: Row, notice: Notice, reference: str, now: float, until: float) -> None:
        """Sends a message that is leased until then by one of its threads."""
        if self.target.rate:
            self._starts.append(now)
            longest = max(rate.seconds for rate in self.target.rate)
            while self._starts and self._starts[0] <= now - longest:
                self._starts.popleft()

        def attempt() -> None:
            in_time = self._clock() < until - LEAST_LEASE
            outcome = self.target.send(notice, short=row.short, reference=reference) if in_time else None
            self._done(Sent(row, outcome))

        self.leased[row.id] = until, self._pool.submit(attempt)

    def hear(self, sent: Sent, now: float) -> Mark:
        """What an attempt's outcome makes of the message, and of the target."""
        row, outcome = sent.row, sent.outcome
        self.leased.pop(row.id, None)
        if outcome is None:
            return Mark(row.id, WAITING, now, 0, row.short, row.answer, row.reference)
        state, due, tried, short = WAITING, now, 1, row.short
        match outcome.result:
            case Result.OK:
                state = DELIVERED
            case Result.PERMANENT:
                state = DEAD
            case Result.TOO_LARGE:
                state, short = (DEAD, short) if row.short else (WAITING, True)
            case Result.PAUSE:
                due, tried = now + PAUSE, 0
                self.not_before = due
            case _:
                due = now + self._wait(row, outcome, now)
        if outcome.result in (Result.RETRY, Result.AMBIGUOUS, Result.PAUSE):
            self.failing, self._streak = True, self._streak + 1
            if outcome.result is not Result.PAUSE and self._streak > PATIENCE:
                self.not_before = max(self.not_before, now + backoff(self._streak - PATIENCE))
        else:
            self.failing, self._streak = False, 0
        return Mark(row.id, state, due, tried, short, outcome.detail, outcome.reference or row.reference)

    def _wait(self, row: Row, outcome: Outcome, now: float) -> float:
        if outcome.retry_after is None:
            return backoff(row.attempts)
        wait = min(max(outcome.retry_after, 0.0), LONGEST_REQUEST)
        self.not_before = max(self.not_before, now + wait)
        return wait

    def resume(self) -> None:
        """Tries it again at once: somebody says that it takes messages."""
        self.not_before = 0.0

    def set_back(self, until: float) -> None:
        """The clock was set back: what it said before holds no more, and leases end then at the latest."""
        self._starts.clear()
        self.not_before = 0.0
        self.leased = {row_id: (min(at, until), future) for row_id, (at, future) in self.leased.items()}

    def let_go(self) -> list[int]:
        """Takes back what no thread has begun to send: the ids of those messages."""
        waiting = [
            row_id for row_id, (_, future) in self.leased.items() if future.cancelled() or future.cancel()
        ]
        for row_id in waiting:
            del self.leased[row_id]
        return waiting

    def forget_expired(self, now: float) -> None:
        """Counts no more on attempts whose lease ended: their messages are sent again."""
        self.leased = {row_id: of for row_id, of in self.leased.items() if of[0] >= now}

    def close(self) -> None:
        """Ends attempts that wait for an answer."""
        self.target.close()
        self._pool.shutdown(wait=False, cancel_futures=True)
