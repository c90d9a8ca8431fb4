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
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from exporter import log
from exporter.app import App
from exporter.cli.common import GOOD, SERVER, console, with_config, with_web
from exporter.config import Config, load
from exporter.listener import ListenError

LAST_RESORT = 1.0
"""Seconds after an orderly end in which threads that still wait for a server are left behind."""
REDRAW = 1.0


@click.command()
@with_config
@with_web
@click.option("--once", is_flag=True, help="Look once at every server, say what was found, and end.")
def run(config_path: Path, listen: str | None, web_config: Path | None, once: bool) -> int:
    """Watch the configured servers and answer Prometheus."""
    config = load(config_path)
    set_up_log(config)
    app = App(config, load=lambda: load(config_path), listen=listen, web_config=web_config)
    if once:
        return _look_once(app)
    serve(app)
    return GOOD


def set_up_log(config: Config) -> None:
    """Logs as the configuration says."""
    log.setup(config.log.level, config.log.format, config.secrets)


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
            set_up_log(app.work.config)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    app.stop()
    last_resort = threading.Timer(LAST_RESORT, _leave)
    last_resort.daemon = True
    last_resort.start()


def _leave() -> None:
    """Ends the process although a thread waits for a server that does not answer.

    Everything is committed by now, and the ledger is closed: there is nothing left to lose.
    """
    logging.shutdown()
    os._exit(GOOD)


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
            watch.fault,
        )
    app.stop()
    console().print(table)
    return SERVER if any(watch.fault for watch in watches) else GOOD


@contextmanager
def _progress(app: App) -> Iterator[None]:
    """Bars for the import of history, on a terminal."""
    if not sys.stderr.isatty():
        yield
        return
    ended = threading.Event()
    bars = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )

    def draw() -> None:
        tasks = {}
        while not ended.wait(REDRAW):
            for watch in app.work.watches:
                left = watch.history_left
                if left and watch.name not in tasks:
                    tasks[watch.name] = (bars.add_task(f"history of {watch.name}", total=left), left)
                if watch.name in tasks:
                    task, total = tasks[watch.name]
                    bars.update(task, completed=max(0, total - left), visible=left > 0)

    with bars:
        thread = threading.Thread(target=draw, name="progress", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
