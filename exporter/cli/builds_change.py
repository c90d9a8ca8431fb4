"""`build-exporter builds restart` and `cancel`: what changes something, and what became of it."""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import click

from exporter.cli.builds_find import UNFIT, Command, Place, find, with_build
from exporter.cli.builds_text import one_line, record, to_json, without_secrets
from exporter.cli.common import GOOD, USAGE, StopError, say
from exporter.model import Build, Status, Word
from exporter.servers import Operation, Publisher

LOOKS = 5
"""Looks, a second apart, at a build that was told to stop: its agent reports a moment later."""


def with_yes(command: Command) -> Command:
    """The arguments and options of `with_build`, and `--yes`."""
    return with_build(click.option("--yes", is_flag=True, help="Do not ask.")(command))


@click.command(short_help="Run a build once more.")
@with_yes
def restart(config_path: Path, name: str | None, as_json: bool, repo: str, number: int, yes: bool) -> int:
    """Run build NUMBER of REPO once more, and say under which number.

    Drone before 0.8 keeps the number: the new run takes the place of the old one, and of its log.
    """
    place = find(config_path, name, repo)
    agreed_on(place, Operation.RESTART, repo, number, yes)
    answer = place.server.restart(repo, number)
    if answer is None:
        what = "no pipeline of it fits any more, or its message says that it is to be skipped"
        raise StopError(UNFIT, f"server {place.name}: {repo} {number}: the server began nothing: {what}")
    build = without_secrets(answer, place.hide)
    again = "runs again under its number" if build.number == number else f"was restarted as {build.number}"
    report(place, build, "restarted", f"{repo} {number} {again}, now {build.status.word}", as_json)
    return GOOD


@click.command(short_help="Stop a build.")
@with_yes
def cancel(config_path: Path, name: str | None, as_json: bool, repo: str, number: int, yes: bool) -> int:
    """Stop build NUMBER of REPO, and say how it ended."""
    place = find(config_path, name, repo)
    before = agreed_on(place, Operation.CANCEL, repo, number, yes)
    if before.ended:
        what = f"has ended already: {before.status.word}"
        raise StopError(UNFIT, f"server {place.name}: {repo} {number} {what}")
    place.server.cancel(repo, number)
    build = settled(place, repo, number)
    if not build.ended:
        what = f"the server was told to stop it; it is {build.status.word} until its agent obeys"
        report(place, build, "asked", f"{repo} {number}: {what}", as_json)
    elif build.status is Status.CANCELLED or build.word is not Word.FINAL:
        report(place, build, "cancelled", f"{repo} {number} was cancelled", as_json)
    else:
        what = f"ended by itself before it could be stopped: {build.status.word}"
        raise StopError(UNFIT, f"server {place.name}: {repo} {number} {what}")
    return GOOD


@click.command(short_help="Publish what a build made (ABF).")
@with_yes
def publish(config_path: Path, name: str | None, as_json: bool, repo: str, number: int, yes: bool) -> int:
    """Have the packages of build NUMBER of REPO published (ABF)."""
    place = find(config_path, name, repo)
    server = publisher(place, Operation.PUBLISH)
    agreed_on(place, Operation.PUBLISH, repo, number, yes)
    server.publish(repo, number)
    return decided(place, repo, number, as_json)


@click.command(short_help="Refuse to publish what a build made (ABF).")
@with_yes
def reject(config_path: Path, name: str | None, as_json: bool, repo: str, number: int, yes: bool) -> int:
    """Say that the packages of build NUMBER of REPO are not to be published (ABF)."""
    place = find(config_path, name, repo)
    server = publisher(place, Operation.REJECT)
    agreed_on(place, Operation.REJECT, repo, number, yes)
    server.reject(repo, number)
    return decided(place, repo, number, as_json)


def publisher(place: Place, operation: Operation) -> Publisher:
    """The server; raises `StopError` where it publishes nothing."""
    if not isinstance(place.server, Publisher):
        raise place.lacks(operation)
    return place.server


def decided(place: Place, repo: str, number: int, as_json: bool) -> int:
    """Says what the server has made of a decision so far."""
    build = place.build(repo, number)
    steps = [step.status.word for step in build.steps if step.name == "publish"]
    now = f"publishing is {steps[-1]}" if steps else "publishing has not begun"
    report(place, build, "asked", f"{repo} {number}: the server took it; {now}", as_json)
    return GOOD


def agreed_on(place: Place, operation: Operation, repo: str, number: int, yes: bool) -> Build:
    """The build, once the server offers the operation, the configuration allows it, and the user wants it."""
    place.offers(operation)
    if not place.settings.allow_writes:
        what = f"server {place.name} is only read: to {operation} builds, set `allow_writes: true` for it"
        raise StopError(USAGE, what)
    build = place.build(repo, number)
    if yes or (operation is Operation.CANCEL and build.ended):
        return build
    if not sys.stdin.isatty():
        raise StopError(USAGE, f"nobody can be asked here: say --yes to {operation} it")
    loss = ", and lose its result and log" if place.server.limits.restart_in_place else ""
    loss = loss if operation is Operation.RESTART else ""
    title = f", “{one_line(build.title, 60)}”" if build.title else ""
    what = f"{repo} {number} on {place.name} ({build.status.word}, {build.event.value}{title})"
    click.confirm(f"{operation.value.capitalize()} {what}{loss}?", abort=True, err=True)
    return build


def settled(place: Place, repo: str, number: int, sleep: Callable[[float], object] = time.sleep) -> Build:
    """The build as it reads once its end is final, or when it was looked at often enough."""
    build = place.build(repo, number)
    for _ in range(LOOKS):
        if build.ended and build.word is Word.FINAL:
            break
        sleep(1.0)
        build = place.build(repo, number)
    return build


def report(place: Place, build: Build, outcome: str, sentence: str, as_json: bool) -> None:
    """Says what became of a build, in a sentence or as JSON."""
    if as_json:
        say(to_json({"outcome": outcome, "build": record(place.name, build)}))
    else:
        say(f"server {place.name}: {sentence}")
