"""`build-exporter demo`: simulated servers, and the exporter on a ledger that is thrown away."""

import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import click
from pydantic import SecretStr

from exporter import log
from exporter.app import App
from exporter.cli.common import GOOD, USAGE, say, say_error, set_up_log, with_web
from exporter.cli.run import leave_soon
from exporter.cli.run import serve as serve_app
from exporter.config import Config
from exporter.demo.stage import Extent, play
from exporter.simulator import serve
from exporter.simulator.demo import demo_worlds
from exporter.simulator.history import DAY

POLL = 5.0
"""Seconds between two looks: something is to be seen soon."""


@click.command(short_help="Show it all on simulated servers.")
@with_web
@click.option(
    "--all", "everything", is_flag=True, help="Prometheus, Alertmanager and Grafana too, where installed."
)
@click.option(
    "--days",
    type=click.FloatRange(1, 60),
    default=14.0,
    show_default=True,
    help="How far the history of the simulated servers goes back.",
)
def demo(listen: str | None, web_config: Path | None, everything: bool, days: float) -> int:
    """Show the exporter on simulated servers, one of each kind.

    Needs no configuration; its ledger is thrown away in the end. With --all, Prometheus has the history and
    the alert rules, and a page shows the messages that Alertmanager sends.
    """
    if not everything:
        return _demo(listen, web_config, days)
    if listen or web_config:
        say_error("--all chooses addresses itself: leave out --web.listen-address and --web.config.file")
        return USAGE
    log.setup("warning", "logfmt", ())
    play(say, Extent(days=days))
    leave_soon()
    return GOOD


def _demo(listen: str | None, web_config: Path | None, days: float) -> int:
    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="build-exporter-demo-"))
        servers = []
        for name, dialect, world in demo_worlds(time.time(), past=days * DAY):
            running = stack.enter_context(serve(world))
            servers.append(
                {
                    "name": name,
                    "url": running.url,
                    "token": SecretStr(world.token),
                    "dialect": dialect,
                    "poll": POLL,
                    "import_rate": 0.0,
                }
            )
        config = Config.model_validate(
            {"servers": servers, "ledger": {"url": SecretStr(f"sqlite:///{directory}/demo.db")}}
        )
        set_up_log(config)
        app = App(config, listen=listen, web_config=web_config)
        scheme = "https" if app.tls else "http"
        say(f"build-exporter on simulated servers with {days:g} days of history; Ctrl-C ends it.")
        for server in config.servers:
            say(f"  {server.name:10} {server.url}  ({server.dialect})")
        serve_app(app, lambda address: say(f"  {'metrics':10} {scheme}://{address}/metrics"))
    leave_soon()
    return GOOD
