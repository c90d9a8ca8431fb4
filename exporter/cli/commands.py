"""The command line: all commands, and how their errors are said."""

import os
import sys
from pathlib import Path

import click

from exporter import __version__
from exporter.cli.backfill import backfill
from exporter.cli.builds import builds
from exporter.cli.builds_text import LONGEST_ERROR, one_line
from exporter.cli.check import check
from exporter.cli.common import BAD, GOOD, SERVER, USAGE, StopError, say_error
from exporter.cli.demo import demo
from exporter.cli.explain import explain
from exporter.cli.incidents import incidents
from exporter.cli.notify import notify
from exporter.cli.outbox import outbox
from exporter.cli.replay import replay
from exporter.cli.rules import rules
from exporter.cli.run import run
from exporter.config import ConfigError
from exporter.http import ServerError
from exporter.ledger import LedgerError
from exporter.listener import ListenError
from exporter.web_config import WebConfigError


@click.group(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 good; 1 what was asked about is bad; 2 wrong use or configuration; 3 a server "
    "refused or could not be reached.",
)
@click.version_option(__version__, prog_name="build-exporter")
def commands() -> None:
    """Every build of every Drone-style CI server as correct Prometheus metrics.

    To look around: `build-exporter demo`. To read servers of your own: copy config.example.yaml to
    config.yaml, name them there, try it with `check`, then `run`.
    """


for command in (run, check, explain, builds, incidents, outbox, notify, replay, rules, backfill, demo):
    commands.add_command(command)


def perform() -> int:
    """Runs the command line and returns its exit code; no error of a user's leaves a traceback."""
    try:
        return int(commands(prog_name="build-exporter", standalone_mode=False))
    except (ConfigError, WebConfigError) as error:
        for message in error.messages:
            say_error(message)
        return USAGE
    except (LedgerError, ListenError) as error:
        say_error(str(error))
        return USAGE
    except StopError as stop:
        say_error(one_line(str(stop), LONGEST_ERROR))
        return stop.code
    except ServerError as error:
        say_error(one_line(str(error), LONGEST_ERROR))
        return SERVER
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except BrokenPipeError:
        # Who reads has seen enough (`| head`); nothing is left to be written at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return GOOD
    except click.Abort:
        return BAD
    except Exception as error:
        frame = error.__traceback__
        while frame is not None and frame.tb_next is not None:
            frame = frame.tb_next
        place = f"{Path(frame.tb_frame.f_code.co_filename).name}:{frame.tb_lineno}" if frame else "?"
        say_error(f"this is a fault of the program: {type(error).__name__} at {place}: please report it")
        return BAD
