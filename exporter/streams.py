"""Listening to a server's change stream, which makes the next look come sooner and decides nothing.

A stream that is silent, refuses, breaks or lies costs the speed-up alone: looks come every `poll` as they
did, and what they find is all that counts.
"""

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from exporter.channel import Channel
from exporter.config import ServerSettings
from exporter.http import ServerError
from exporter.log import logger
from exporter.roster import Roster
from exporter.servers import Server, Stream

REST = 1.0
"""Seconds without a look that follow each one, however many hints come; longer where a look takes longer."""
MOST_STRANGERS = 1000
"""Repos which no list has shown so far, of which one event each is heeded."""

log = logger(__name__)


class Hints:
    """When a look may come sooner: at once for the first hint, then with rests between the looks."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._given = False
        self._began = self._rests_until = -float("inf")

    def give(self) -> None:
        """Something changed."""
        self._given = True

    def begin(self) -> None:
        """A look begins: what was hinted at until now, it sees."""
        self._given = False
        self._began = self._monotonic()
        self._rests_until = self._began + REST

    def end(self) -> None:
        """The look has ended."""
        now = self._monotonic()
        self._rests_until = now + max(REST, now - self._began)

    def wait(self) -> float:
        """Seconds until a look may follow a hint."""
        return max(0.0, self._rests_until - self._monotonic())

    @property
    def due(self) -> bool:
        """True when a look is to come now."""
        return self._given and not self.wait()


@dataclass(frozen=True, slots=True)
class Pace:
    """How soon a stream that ended is opened again, in seconds."""

    first: float = 1.0
    """The first pause; each further one is twice as long, less a random part of up to one half."""
    longest: float = 300.0
    proven: float = 60.0
    """A stream that lived so long is well: the pauses begin anew. One that is away for so long is lost."""


class Subscription:
    """Listens to one server in a thread of its own, from `start` to `close`.

    `hint` is called on every event of a repo of `roster`, and whenever the stream was opened.
    """

    def __init__(
        self, settings: ServerSettings, roster: Roster, hint: Callable[[], None], pace: Pace | None = None
    ) -> None:
        self._name, self._settings = settings.name, settings
        self._roster, self._hint = roster, hint
        self._pace = pace or Pace()
        self._server: Server | None = None
        self._channel: Channel | None = None
        self._news = threading.Event()
        """Set when there is a reason to wait no longer: the server was met anew, or the end."""
        self._closed = False
        self._lost = False
        self._missed_since: float | None = None
        self._strangers: set[str] = set()
        self._thread = threading.Thread(target=self._run, name=f"stream of {settings.name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def meet(self, server: Server) -> None:
        """The server answers: its stream is opened, unless one is open."""
        self._server = server
        self._news.set()

    def close(self) -> None:
        """Ends the stream and the thread, which wakes up at once and hints no more."""
        self._closed = True
        self._news.set()
        if self._channel is not None:
            self._channel.close()

    def _run(self) -> None:
        failures = 0
        while True:
            self._news.clear()
            if self._closed:  # not before: the word that it ends could be cleared away unread
                return
            server = self._server
            stream = server.limits.stream if server else None
            if server is None or stream is None:
                self._news.wait()
                continue
            pause = min(self._pace.longest, self._pace.first * 2 ** min(failures, 20))
            failures += 1
            try:
                if self._listen(Channel.beside(server.session), stream):
                    failures, pause = 0, self._pace.first
            except ServerError as error:
                self._miss(error.message)
                pause = max(pause, error.retry_after or 0.0)
            except Exception:
                if not self._lost:
                    self._lost = True
                    log.exception("a fault of the program ended the change stream", server=self._name)
            # Spreads load, guards nothing.
            if self._news.wait(pause * random.uniform(0.5, 1.0)):  # noqa: S311
                failures = 0

    def _listen(self, channel: Channel, stream: Stream) -> bool:
        """Hears one stream to its end; True when it was well. Raises `ServerError`."""
        self._channel = channel
        if self._closed:  # the end came before there was this channel to close
            channel.close()
        self._strangers.clear()
        opened, proven = None, False
        try:
            for event in channel.listen(stream.path, socket=stream.socket, silence=stream.silence):
                if self._closed:
                    break
                now = time.monotonic()
                if opened is None:
                    opened = now
                    self._hint()  # what happened before is told to nobody
                elif event and self._concerns(stream.repo_of(event)):
                    self._hint()
                if now - opened >= self._pace.proven and not proven:
                    proven = True
                    self._regain()
        except ServerError:
            if not proven:
                raise
        finally:
            channel.close()
        if not proven:
            self._miss(f"server {self._name}: {stream.path}: the change stream ended")
        return proven

    def _concerns(self, repo: str) -> bool:
        """True of a repo that is watched, and once of one that may be new."""
        known = self._roster.repos.get(repo)
        if known is not None:
            return known.watched
        if not repo or repo in self._strangers or len(self._strangers) >= MOST_STRANGERS:
            return False
        self._strangers.add(repo)
        return self._settings.watches(repo)

    def _miss(self, why: str) -> None:
        """Says so once that lasts: while the server itself is away for a moment, its own fault is told."""
        now = time.monotonic()
        if self._missed_since is None:
            self._missed_since = now
        if now - self._missed_since >= self._pace.proven and not self._lost and not self._closed:
            self._lost = True
            log.info(f"{why}; changes are seen at the next poll", server=self._name)

    def _regain(self) -> None:
        self._missed_since = None
        if self._lost:
            self._lost = False
            log.info("the change stream is heard again", server=self._name)
