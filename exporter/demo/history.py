"""The time before a demo begins: history, and hours that the exporter lives through in seconds.

The exporter sees its servers for the first time some hours ago, by the clock of the simulated world. That
clock is stepped up to now, and what a Prometheus would have scraped meanwhile becomes blocks of its TSDB.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

from exporter.app import App
from exporter.config import Config
from exporter.config_notify import NotifySettings
from exporter.simulator import Clock

HOUR = 3600.0
STEP = 300.0
"""Seconds between two pages: as far as an instant query of Prometheus looks back."""


def live_through(
    config: Config, clock: Clock, check: Callable[[], None], step: float = STEP
) -> Iterator[tuple[int, bytes]]:
    """Reads all history, then looks every `step` seconds until it is now: time and page of each look.

    `clock` is that of the simulated servers; afterwards it shows the real time. `check` is called often, and
    what it raises ends all.
    """
    eager = [settings.model_copy(update={"sweep": 1.0}) for settings in config.servers]
    silent = {"servers": tuple(eager), "notify": NotifySettings()}  # nobody is told of what is over
    app = App(config.model_copy(update=silent), clock=clock.now)

    def look() -> None:
        for watch in app.work.watches:
            check()
            watch.cycle()

    with ExitStack() as stack:
        stack.callback(app.stop)
        look()
        while any(watch.history_left for watch in app.work.watches):
            look()
        while clock.now() + step < time.time():
            clock.advance(step)
            look()
            app.work.refresher.tick()
            app.work.refresher.measure()
            yield int(clock.now()), b"".join(app.work.page.render(False, False))
    clock.set(time.time())


class Pages:
    """A file of pages in OpenMetrics, as a Prometheus has them that scraped `instance`."""

    def __init__(self, file: BinaryIO, job: str, instance: str) -> None:
        self._file = file
        self._target = f'job="{job}",instance="{instance}"'.encode()

    def add(self, at: int, page: bytes) -> None:
        """Takes in the page of this Unix time, which is later than the one before."""
        end = f" {at}\n".encode()
        shown = (line for line in page.splitlines() if line and not line.startswith(b"#"))
        self._file.writelines(self._scraped(line) + end for line in (b"up 1", *shown))

    def close(self) -> None:
        """Ends it as OpenMetrics ends."""
        self._file.write(b"# EOF\n")

    def _scraped(self, line: bytes) -> bytes:
        """A line of the page with the labels that Prometheus adds."""
        name, brace, rest = line.partition(b"{")
        if brace:
            return b"%b{%b,%b" % (name, self._target, rest)
        name, _, value = line.partition(b" ")
        return b"%b{%b} %b" % (name, self._target, value)


def blocks_of(promtool: str, pages: Path, tsdb: Path) -> list[str]:
    """The command that makes blocks of a file of pages."""
    return [promtool, "tsdb", "create-blocks-from", "openmetrics", str(pages), str(tsdb)]
