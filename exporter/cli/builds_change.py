"""`build-exporter builds restart` and `cancel`: what changes something, and what became of it."""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click

from exporter.cli.builds_find import UNFIT, Command, Place, StopError, find, with_build
from exporter.cli.builds_text import one_line, record, to_json
from exporter.cli.common import GOOD, USAGE, say
from exporter.model import Build, Status, Word
from exporter.servers import Operation

LOOKS = (0.0, 1.0, 1.0, 1.0, 2.0)
"""Seconds before each look at a build that was told to stop: its agent reports a moment later."""


def with_yes(command: Command) -> Command:
    """The arguments and options of `with_build`, and `--yes`."""
    return with_build(click.option("--yes", is_flag=True, help="Do not ask.")(command))


@click.command(short_help="Run a build once more.")
@with_yes
def restart(
    config_path: Path, name: str | None, as_json: bool, repo: str, number: int, yes: bool
) -> int:
    """Run build NUMBER of REPO once more, and say which number that has.

    Drone before 0.8 keeps the number: the new run takes the place of the old one.
    """
    place = find(config_path, name, repo)
    in_place = place.server.limits.restart_in_place
    agree(place, repo, number, Operation.RESTART, yes, "its result and logs are overwritten" if in_place else "")
    build = place.restarted(repo, number)
    if build is None:
        raise StopError(
            UNFIT,
            f"{repo} {number}: the server began nothing: no pipeline of it fits any more, "
            "or its message says that it is to be skipped",
        )
    same = build.number == number
    what = "runs again under the same number" if same else f"was restarted as {build.number}"
    report(place, build, as_json, "restarted", f"{repo} {number} on {place.name} {what} (now {build.status.word})")
    return GOOD
