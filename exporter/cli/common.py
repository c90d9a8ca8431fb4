"""What the commands share: exit codes, options and how errors are said."""

import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.table import Table

from exporter import log
from exporter.config import Config, ConfigError, load
from exporter.ledger import Ledger

GOOD, BAD, USAGE, SERVER = 0, 1, 2, 3
"""Exit codes; the README says what they mean."""
WIDE = 160
"""Columns of a table that is not written to a terminal."""

Command = TypeVar("Command", bound=Callable[..., Any])


class StopError(Exception):
    """Why a command ends here: one sentence for a user, and the exit code."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


def with_config(command: Command) -> Command:
    """The option `--config`."""
    return click.option(
        "--config",
        "config_path",
        type=click.Path(path_type=Path, dir_okay=False),
        default=Path("config.yaml"),
        show_default=True,
        help="The configuration file.",
    )(command)


def with_web(command: Command) -> Command:
    """The options `--web.listen-address` and `--web.config.file`, as other exporters have them."""
    listen = click.option(
        "--web.listen-address", "listen", metavar="HOST:PORT", help="Answer here instead of at web.listen."
    )
    web_config = click.option(
        "--web.config.file",
        "web_config",
        type=click.Path(path_type=Path, dir_okay=False),
        help="TLS, client certificates and users; see docs/opening.md.",
    )
    return listen(web_config(command))


def load_config(path: Path) -> Config:
    """The configuration, by which logging is set up too; raises `ConfigError`."""
    if not path.exists():
        raise ConfigError(
            [
                f"{path}: there is no such file: copy config.example.yaml to it and name your servers, "
                "or name another file with --config; `build-exporter demo` needs none"
            ]
        )
    config = load(path)
    set_up_log(config)
    return config


def open_ledger(config: Config) -> Ledger:
    """The ledger, to look at beside a `run` that may be under way, and to change it in short transactions.

    Raises `LedgerError`, and `StopError` where there is none.
    """
    ledger = Ledger(config.ledger.url.get_secret_value())
    click.get_current_context().call_on_close(ledger.close)
    if not ledger.exists():
        raise StopError(BAD, f"{ledger.place}: there is no ledger yet: start `build-exporter run` first")
    return ledger


def set_up_log(config: Config) -> None:
    """Logs as the configuration says."""
    log.setup(config.log.level, config.log.format, config.secrets)


def say(text: str = "") -> None:
    """A line to standard output."""
    click.echo(text)


def say_error(text: str) -> None:
    """A line to standard error."""
    click.echo(f"build-exporter: {text}", err=True)


def plain_table(*columns: str, wraps: Collection[str] = ()) -> Table:
    """A table without lines, of which only the columns that may wrap give way where it is narrow."""
    table = Table(box=None, pad_edge=False)
    for name in columns:
        table.add_column(name, no_wrap=name not in wraps, overflow="ellipsis")
    return table


def console() -> Console:
    """Standard output for tables: as wide as the terminal, or wide enough for a file."""
    return Console() if sys.stdout.isatty() else Console(width=WIDE)
