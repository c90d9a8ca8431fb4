"""The time of a simulated world, which tests set and step."""

import time
from collections.abc import Callable


class Clock:
    """A clock that stands still until told, or one that runs with an offset to another.

    `Clock(at)` stands at Unix time `at`; `Clock.real(offset)` runs with the machine's clock.
    """

    def __init__(self, at: float, tick: Callable[[], float] | None = None) -> None:
        self._offset = at
        self._tick = tick

    @classmethod
    def real(cls, offset: float = 0.0, tick: Callable[[], float] = time.time) -> "Clock":
        """A clock that runs, `offset` seconds ahead of `tick`."""
        return cls(offset, tick)

    def now(self) -> float:
        """Unix seconds."""
        return self._offset + (self._tick() if self._tick else 0.0)

    def advance(self, seconds: float) -> float:
        """Steps forward by `seconds` and answers the new time."""
        self._offset += seconds
        return self.now()

    def set(self, at: float) -> None:
        """Makes it Unix time `at`; a running clock runs on from there."""
        self._offset += at - self.now()
