"""`build-exporter run`: the exporter itself, until a signal ends it."""

import logging
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from exporter.app import App
from exporter.cli.common import GOOD, SERVER, console, load_config, set_up_log, with_config, with_web
from exporter.config import load
from exporter.listener import ListenError

LAST_RESORT = 1.0
"""Seconds after an orderly end in which threads that still wait for a server are left behind."""
REDRAW = 0.5


@click.command(short_help="Read the servers and answer Prometheus.")
@with_config
@with_web
@click.option("--once", is_flag=True, help="Look at every server once, print what was found, and end.")
def run(config_path: Path, listen: str | None, web_config: Path | None, once: bool) -> int:
    """Read the servers and answer Prometheus, until SIGTERM or Ctrl-C.

    SIGHUP loads the configuration anew; a file with an error changes nothing.
    """
    config = load_config(config_path)
    app = App(config, load=lambda: load(config_path), listen=listen, web_config=web_config)
    if once:
        return _look_once(app)
    serve(app)
    leave_soon()
    return GOOD


def serve(app: App, started: Callable[[str], None] = lambda _address: None) -> None:
    """Runs the exporter until SIGTERM or SIGINT; SIGHUP loads the configuration anew.

    `started` is told the address once it answers there. Raises `ListenError`.
    """
    signals: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda got, _frame: signals.put(got))
    try:
        app.start()
    except ListenError:
        app.stop()
        raise
    started(app.listener.address)
    with _progress(app):
        while signals.get() == signal.SIGHUP:
            app.reload()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)  # who asks twice does not want to wait
    app.stop()


def leave_soon() -> None:
    """Sees to it that the process ends, although a thread may wait for a server that does not answer.

    Everything is committed by now, and the ledger is closed: there is nothing left to lose.
    """

    def leave() -> None:
        logging.shutdown()
        os._exit(GOOD)

    last_resort = threading.Timer(LAST_RESORT, leave)
    last_resort.daemon = True
    last_resort.start()


def _look_once(app: App) -> int:
    watches = app.work.watches
    table = Table("server", "repos", "builds open", "ends recorded", "of them counted", "fault")
    for watch in watches:
        watch.cycle(history=False)
        ended, counted = watch.ended
        table.add_row(
            watch.name,
            str(sum(repo.watched and not repo.gone for repo in watch.roster.repos.values())),
            str(watch.open),
            str(ended),
            str(counted),
            watch.fault or "none",
        )
    app.stop()
    console().print(table)
    return SERVER if any(watch.fault for watch in watches) else GOOD


@contextmanager
def _progress(app: App) -> Iterator[None]:
    """Bars for the import of history, on a terminal; log lines are written above them."""
    if not sys.stderr.isatty():
        yield
        return
    ended = threading.Event()
    thread = threading.Thread(target=_draw, args=(app, ended), name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _draw(app: App, ended: threading.Event) -> None:
    bars = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    tasks: dict[str, tuple[TaskID, int]] = {}
    while not ended.wait(REDRAW):
        left = {watch.name: watch.history_left for watch in app.work.watches}
        for name, unread in left.items():
            if unread and name not in tasks:
                tasks[name] = bars.add_task(f"history of {name}", total=unread), unread
        for name, (task, total) in tasks.items():
            bars.update(task, completed=total - left.get(name, 0), visible=left.get(name, 0) > 0)
        if any(left.values()) is not bars.live.is_started:
            switch = bars.stop if bars.live.is_started else bars.start
            switch()
            set_up_log(app.work.config)  # onto the stream that knows of the bars, and off it again
    bars.stop()
    set_up_log(app.work.config)
