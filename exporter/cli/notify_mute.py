"""`build-exporter notify mute`: let the messages of a repo or a server wait for a time."""

import time
from pathlib import Path

import click
from rich.text import Text

from exporter.cli.builds_text import moment_text, one_line
from exporter.cli.common import (
    BAD,
    GOOD,
    USAGE,
    Command,
    StopError,
    console,
    load_config,
    open_ledger,
    plain_table,
    say,
    with_config,
)
from exporter.fields import seconds
from exporter.ledger import by_hand, messages, states


def _length(_ctx: click.Context, _param: click.Parameter, value: str) -> float:
    try:
        return seconds(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def with_place(command: Command) -> Command:
    """The arguments SERVER and REPO, and the option `--config`."""
    repo = click.argument("repo", required=False, default="")
    return with_config(click.argument("server")(repo(command)))


@click.command(short_help="Let messages of a repo or a server wait.")
@with_place
@click.option("--for", "length", callback=_length, default="1h", show_default=True, help="How long.")
def mute(config_path: Path, server: str, repo: str, length: float) -> int:
    """Let messages of REPO, or of all repos of SERVER, wait for a time; then they are told as their net."""
    config = load_config(config_path)
    if server not in (known := [settings.name for settings in config.servers]):
        raise StopError(USAGE, f"no server is called {one_line(server)}; known are {', '.join(known)}")
    until = time.time() + length
    ledger = open_ledger(config)
    with ledger.transaction() as conn:
        if repo and by_hand.repo_named(conn, server, repo) is None:
            raise StopError(BAD, f"{one_line(repo)}: server {server} has no such repo, or it is not watched")
        states.mute(conn, server, repo, until)
    say(f"{named(server, repo)}: muted until {moment_text(int(until))}")
    return GOOD


@click.command(short_help="End a mute; what waited is told.")
@with_place
def unmute(config_path: Path, server: str, repo: str) -> int:
    """End the mute of REPO, or of SERVER, before its time; what waited is told within seconds."""
    ledger, now = open_ledger(load_config(config_path)), time.time()
    with ledger.transaction() as conn:
        if messages.muted(conn).get((server, repo), 0.0) <= now:
            raise StopError(BAD, f"{one_line(named(server, repo))}: is not muted")
        states.mute(conn, server, repo, now)
        waiting = by_hand.end_mute(conn, server, repo, now)
    say(f"{named(server, repo)}: muted no more; {waiting} that waited will be told")
    return GOOD


@click.command(short_help="What is muted, and until when.")
@with_config
def muted(config_path: Path) -> int:
    """List what is muted."""
    ledger, now = open_ledger(load_config(config_path)), time.time()
    with ledger.reading() as conn:
        found = {place: until for place, until in messages.muted(conn).items() if until > now}
    if not found:
        say("Nothing is muted.")
        return GOOD
    table = plain_table("server", "repo", "until")
    for (server, repo), until in sorted(found.items()):
        table.add_row(Text(one_line(server)), Text(one_line(repo) or "all"), moment_text(int(until)))
    console().print(table)
    return GOOD


def named(server: str, repo: str) -> str:
    return f"{repo} on {server}" if repo else f"server {server}"
