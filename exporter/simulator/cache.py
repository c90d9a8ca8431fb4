"""Rendered answers, kept while they hold, within a bound of bytes."""

from collections import OrderedDict
from collections.abc import Hashable


class Cache:
    """Bodies by key, each with the state it was made from and the time until which it holds."""

    def __init__(self, limit: int = 64_000_000) -> None:
        self.limit = limit
        self.size = 0
        self._bodies: OrderedDict[Hashable, tuple[int, float, bytes]] = OrderedDict()

    def clear(self) -> None:
        self._bodies.clear()
        self.size = 0

    def get(self, key: Hashable, edits: int, now: float) -> bytes | None:
        """The body, if nothing changed since (`edits`) and its time is not up."""
        kept = self._bodies.get(key)
        if kept is None or kept[0] != edits or now >= kept[1]:
            return None
        self._bodies.move_to_end(key)
        return kept[2]

    def put(self, key: Hashable, edits: int, until: float, body: bytes) -> bytes:
        """Keeps the body, dropping what was not asked for longest, and answers it."""
        old = self._bodies.pop(key, None)
        self.size += len(body) - (len(old[2]) if old else 0)
        self._bodies[key] = (edits, until, body)
        while self.size > self.limit and len(self._bodies) > 1:
            self.size -= len(self._bodies.popitem(last=False)[1][2])
        return body
