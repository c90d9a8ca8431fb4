"""`build-exporter builds logs`: what a step printed, as the server has it."""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import click

from exporter.cli.builds_find import MISSING, Place, find, with_build
from exporter.cli.builds_text import PLAIN, log_line, one_line, to_json
from exporter.cli.common import GOOD, USAGE, StopError, say, say_error
from exporter.model import Build, Status, Step
from exporter.servers import Line, Operation, Server

MOST_READINGS = 30
"""Readings of a log, a second apart, after the first."""


@click.command(short_help="What a step of a build printed.")
@with_build
@click.argument("step", required=False)
@click.option("--tail", type=click.IntRange(min=1), metavar="N", help="Only the last N lines.")
def logs(
    config_path: Path,
    name: str | None,
    as_json: bool,
    repo: str,
    number: int,
    step: str | None,
    tail: int | None,
) -> int:
    """Print the log of a step of build NUMBER of REPO: of the one that failed, or of STEP.

    STEP is a name that `show` shows, with or without its stage; on Drone 0.5 also that of a step within the
    job, on ABF that of a file. Colours are kept on a terminal alone.
    """
    place = find(config_path, name, repo)
    place.offers(Operation.LOG)
    build = place.build(repo, number)
    found, lines = _by_name(place, build, step) if step else _of_failure(place, build)
    lines = lines[-tail:] if tail else lines
    if as_json:
        told = [
            {
                "step": place.hide(line.step or found.name),
                "seconds": line.seconds,
                "text": place.hide(log_line(line, colours=False)),
            }
            for line in lines
        ]
        say(to_json({"server": place.name, "repo": repo, "number": number, "lines": told}))
        return GOOD
    colours = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    shown = [
        f"{one_line(line.step)} | " * bool(line.step) + log_line(line, colours=colours) for line in lines
    ]
    if shown:
        say(place.hide("\n".join(shown)) + PLAIN * colours)
    return GOOD


def _of_failure(place: Place, build: Build) -> tuple[Step, list[Line]]:
    """The log of the step that failed; what was chosen, and what was not, is told beside it."""
    steps = failing(build)
    if not steps:
        raise StopError(USAGE, f"no step of it failed: name one: {_names(build)}")
    first, others = steps[0], [one_line(step.name) for step in steps[1:]]
    code = f", exit code {first.exit_code}" if first.exit_code else ""
    also = f"; so did {', '.join(others)}" if others else ""
    lines = whole_log(place.server, build, first)
    say_error(f"log of {one_line(first.name)} ({first.status.word}{code}){also}")
    return first, lines


def whole_log(
    server: Server, build: Build, step: Step, sleep: Callable[[float], object] = time.sleep
) -> list[Line]:
    """The log of a step, read again just after its end until no more lines come, where they come late."""
    before = lines = server.log(build.repo, build.number, step)
    for _ in range(MOST_READINGS):
        late = server.session.server_now() - step.finished < server.limits.late_lines
        if not step.finished or (not late and lines == before):
            break
        sleep(1.0)
        before, lines = lines, server.log(build.repo, build.number, step)
    return lines


def failing(build: Build) -> list[Step]:
    """The steps that a look at the build's log is for: those that failed, else what was cut off."""
    bad = [step for step in build.steps if step.status.bad and not step.ignored]
    stopped = [step for step in build.steps if step.status is Status.CANCELLED]
    if bad or stopped:
        return bad or stopped
    if build.status.bad or build.status is Status.CANCELLED:
        return [step for step in build.steps if step.started][-1:]
    return list(build.steps) if len(build.steps) == 1 else []


def _by_name(place: Place, build: Build, wanted: str) -> tuple[Step, list[Line]]:
    """The log of the one step of that name, or its part of a job's log."""
    steps = named(build, wanted)
    if len(steps) > 1:
        names = ", ".join(one_line(step.name) for step in steps)
        raise StopError(USAGE, f"several steps are called {one_line(wanted)}: {names}")
    if steps:
        return steps[0], whole_log(place.server, build, steps[0])
    if place.server.limits.job_logs:
        job, _, inner = wanted.rpartition("/")
        for step in named(build, job) if job else failing(build) or build.steps:
            lines = whole_log(place.server, build, step)
            if part := [line for line in lines if line.step == inner]:
                return step, part
    raise StopError(MISSING, f"no step of it is called {one_line(wanted)}: it has {_names(build)}")


def named(build: Build, wanted: str) -> list[Step]:
    """The steps of that name: the whole one, else without the stage or leg."""
    whole = [step for step in build.steps if step.name == wanted]
    return whole or [step for step in build.steps if step.name.endswith(f"/{wanted}")]


def _names(build: Build) -> str:
    return ", ".join(one_line(step.name) for step in build.steps) or "none yet"
