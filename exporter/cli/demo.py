"""`build-exporter demo`: simulated servers, and the exporter on a ledger that is thrown away."""

import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import click
from pydantic import SecretStr

from exporter.app import App
from exporter.cli.common import GOOD, say, set_up_log, with_web
from exporter.cli.run import leave_soon
from exporter.cli.run import serve as serve_app
from exporter.config import Config
from exporter.simulator import serve
from exporter.simulator.demo import demo_worlds

POLL = 5.0
"""Seconds between two looks: something is to be seen soon."""


@click.command(short_help="Show it all on simulated servers.")
@with_web
def demo(listen: str | None, web_config: Path | None) -> int:
    """Show the exporter on simulated servers, one of each kind.

    Needs no configuration; its ledger is thrown away in the end.
    """
    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="build-exporter-demo-"))
        servers = []
        for name, dialect, world in demo_worlds(time.time()):
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
        say("build-exporter on simulated servers with two weeks of history; Ctrl-C ends it.")
        for server in config.servers:
            say(f"  {server.name:10} {server.url}  ({server.dialect})")
        serve_app(app, lambda address: say(f"  {'metrics':10} {scheme}://{address}/metrics"))
    leave_soon()
    return GOOD
