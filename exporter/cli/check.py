"""`build-exporter check`: is the configuration right, and what would be watched?"""

from dataclasses import dataclass, field
from pathlib import Path

import click
from rich.table import Table
from rich.text import Text

from exporter.channel import Channel
from exporter.cli import check_repos
from exporter.cli.builds_text import LONGEST_LINE, one_line
from exporter.cli.common import BAD, GOOD, SERVER, console, load_config, say, with_config
from exporter.config import ServerSettings
from exporter.http import ServerError
from exporter.model import Repo
from exporter.servers import Server
from exporter.servers.detect import open_server
from exporter.telemetry import Telemetry

FIRST_SIGN = 5.0
"""Seconds within which a change stream says its first word, unless a proxy in between holds it back."""
LARGEST_SKEW = 60.0
"""Seconds by which a server's clock may be off before it is worth a word."""


@dataclass(slots=True)
class Report:
    """What one server said; `bad` is what has to be mended, `notes` what is good to know."""

    dialect: str = ""
    version: str = ""
    user: str = ""
    rights: str = ""
    repos: str = ""
    bad: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    listed: list[Repo] = field(default_factory=list)
    refused: bool = False


@click.command(short_help="Try the configuration and every server in it.")
@with_config
@click.option("--repos", "every", is_flag=True, help="Show every repo, and what becomes of it.")
def check(config_path: Path, *, every: bool) -> int:
    """Try the configuration, and ask every server in it.

    Shows each server's version, the token's user and rights, which repos are watched, what leaves out the
    others, and what to fix. Nothing is written.
    """
    config = load_config(config_path)
    telemetry = Telemetry()
    reports = [(settings, look(settings, telemetry)) for settings in config.servers]
    table = Table(
        "server", "dialect", "version", "user", "rights", "repos watched", "to fix", show_lines=True
    )
    for settings, report in reports:
        bad = "\n".join(one_line(line, LONGEST_LINE) for line in report.bad)
        fix = Text(bad or "nothing", style="red" if bad else "green")
        cells = (report.dialect, report.version, report.user, report.rights, report.repos)
        table.add_row(Text(settings.name), *(Text(one_line(cell)) for cell in cells), fix)
    console().print(table)
    for settings, report in reports:
        for note in report.notes:
            say(f"{settings.name}: {one_line(note, LONGEST_LINE)}")
        if every and report.listed:
            console().print(check_repos.table(settings, report.listed))
    if any(report.refused for _, report in reports):
        return SERVER
    return BAD if any(report.bad for _, report in reports) else GOOD


def look(settings: ServerSettings, telemetry: Telemetry) -> Report:
    """Asks one server everything that a first poll would ask."""
    report = Report(dialect=settings.dialect)
    try:
        server = open_server(settings, telemetry)
        user = server.whoami()
        report.dialect, report.version = server.dialect, server.version
        report.user, report.rights = user.login, "administrator" if user.admin else "user"
        if user.admin and server.open_builds() is None:
            report.notes.append("this edition has no list of running builds: they are asked about singly")
        _repos(settings, server, report)
        _stream(settings, server, report)
    except ServerError as error:
        report.refused = True
        report.bad.append(error.message)
        return report
    skew = server.session.skew
    if abs(skew) > LARGEST_SKEW:
        report.notes.append(f"its clock is {skew:+.0f} s off ours: times are taken by its own clock")
    return report


def _repos(settings: ServerSettings, server: Server, report: Report) -> None:
    server.feed("")
    repos = report.listed = server.repos()
    seen = [repo for repo in repos if repo.active or not settings.repos.active_only]
    watched = [repo for repo in seen if settings.watches(repo.name, active=repo.active)]
    all_known = server.limits.lists_repos
    report.repos = f"{len(watched)} of {len(seen)}{'' if all_known else ' met'}"
    report.notes += check_repos.summary(settings, repos, all_known=all_known)
    if not all_known:
        report.notes.append("it has no list of repos: one is met when a build of it changes")
    elif not seen:
        report.bad.append("the token's user sees no repo: give it the right to read some, or sign in once")
    elif not watched:
        report.bad.append("`repos:` leaves out every repo that the token's user sees")
    limit = server.limits.repos_limit
    if limit and len(repos) >= limit:
        report.notes.append(
            f"the server lists {limit} repos at most where its database is SQLite: others are not seen"
        )


def _stream(settings: ServerSettings, server: Server, report: Report) -> None:
    """Opens the change stream for a moment; nothing that is needed goes missing without it."""
    stream = server.limits.stream
    if stream is None or settings.stream == "off":
        return
    channel = Channel.beside(server.session)
    try:
        next(channel.listen(stream.path, socket=stream.socket, silence=FIRST_SIGN), None)
    except ServerError as error:
        report.notes.append(f"no change stream, so changes are seen at the next poll: {error.message}")
    finally:
        channel.close()
