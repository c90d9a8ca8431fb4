"""What the commands of `builds` share: their options, which server a repo is on, and how they end."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from exporter.cli.builds_text import LONGEST_ERROR, Hide, hiding, one_line, without_secrets
from exporter.cli.common import SERVER, USAGE, StopError, load_config, say_error, with_config
from exporter.config import Config, ServerSettings
from exporter.http import ServerError
from exporter.model import Build, Word
from exporter.servers import Operation, Server
from exporter.servers.detect import open_server
from exporter.servers.wire import REPO_NAME
from exporter.telemetry import Telemetry

DENIED, MISSING, UNFIT, UNABLE = 4, 5, 6, 7
"""Exit codes of `builds` alone: no right; not there; its state does not allow it; not offered there."""

Command = TypeVar("Command", bound=Callable[..., Any])


class BuildsGroup(click.Group):
    """A group whose commands end with an exit code for each class of refusal."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ServerError as error:
            say_error(one_line(error.message, LONGEST_ERROR))
            return code_of(error)


def code_of(error: ServerError) -> int:
    """The exit code that a server's refusal stands for."""
    if error.unfit:
        return UNFIT
    if error.reason == "auth":
        return DENIED
    if error.missing or error.status == 404:
        return MISSING
    return UNABLE if error.status == 501 else SERVER


def _repo_name(_ctx: click.Context, _param: click.Parameter, value: str) -> str:
    if not REPO_NAME.fullmatch(value):
        raise click.BadParameter("must be owner/name")
    return value


def with_source(command: Command) -> Command:
    """The options `--config`, `--server` and `--json`."""
    server = click.option("--server", "name", metavar="NAME", help="The server, by its name in the file.")
    as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")
    return with_config(server(as_json(command)))


def with_repo(command: Command) -> Command:
    """The argument REPO, and the options of `with_source`."""
    return click.argument("repo", callback=_repo_name)(with_source(command))


def with_build(command: Command) -> Command:
    """The arguments REPO and NUMBER, and the options of `with_source`."""
    return with_repo(click.argument("number", type=click.IntRange(min=1))(command))


def with_build_of_server(command: Command) -> Command:
    """The arguments SERVER, REPO and NUMBER, and the option `--config`."""
    number = click.argument("number", type=click.IntRange(min=1))
    repo = click.argument("repo", callback=_repo_name)
    server = click.argument("name", metavar="SERVER")
    return server(repo(number(with_config(command))))


@dataclass(frozen=True, slots=True)
class Place:
    """A server to be asked, and how its answers are freed of the configuration's secrets."""

    settings: ServerSettings
    server: Server
    hide: Hide

    @property
    def name(self) -> str:
        return self.settings.name

    def build(self, repo: str, number: int) -> Build:
        """The single build."""
        return without_secrets(self.server.build(repo, number), self.hide)

    def explained(self, row: Build) -> Build:
        """What a row stands for, which some say only in the single build."""
        if row.word is Word.ROW:
            try:
                return self.build(row.repo, row.number)
            except ServerError as error:
                if not error.missing:
                    raise
        return without_secrets(row, self.hide)

    def offers(self, operation: Operation) -> None:
        """Raises `StopError` where the server's API has no such thing."""
        if operation not in self.server.limits.operations:
            raise self.lacks(operation)

    def lacks(self, operation: Operation) -> StopError:
        """Why a command ends that the server's API has nothing for."""
        what = f"server {self.name}: {self.server.dialect} offers no {operation} through its API"
        return StopError(UNABLE, what)


def chosen(config_path: Path, name: str | None) -> tuple[Config, list[ServerSettings]]:
    """The configuration, and of its servers the one of that name, or all."""
    config = load_config(config_path)
    found = [settings for settings in config.servers if name in {None, settings.name}]
    if not found:
        known = ", ".join(settings.name for settings in config.servers)
        raise StopError(USAGE, f"no server is called {one_line(str(name))}; known are {known}")
    return config, found


def connect(config: Config, settings: ServerSettings) -> Place:
    """The server, once it has told that the token is somebody's; closed when the command ends."""
    server = open_server(settings, Telemetry())
    click.get_current_context().call_on_close(server.session.close)
    server.whoami()
    return Place(settings, server, hiding(config.secrets))


def find(config_path: Path, name: str | None, repo: str) -> Place:
    """The server called `name`, else the only one that there is, else the only one that lists the repo."""
    config, servers = chosen(config_path, name)
    if len(servers) == 1:
        return connect(config, servers[0])
    listing = [place for settings in servers if (place := _listing(config, settings, repo))]
    if len(listing) > 1:
        names = " and ".join(place.name for place in listing)
        raise StopError(USAGE, f"{repo} is on {names}: say which one with --server")
    if not listing:
        raise StopError(
            MISSING, f"no server lists {repo}; if one has it all the same, name that with --server"
        )
    return listing[0]


def _listing(config: Config, settings: ServerSettings, repo: str) -> Place | None:
    try:
        place = connect(config, settings)
        return place if _lists(place.server, repo) else None
    except ServerError as error:
        what = f"{error.message}; so it is not known where {repo} is: say it with --server"
        raise StopError(code_of(error), what) from None


def _lists(server: Server, repo: str) -> bool:
    if server.limits.lists_repos:
        return any(row.name == repo for row in server.repos(brief=True))
    try:
        return bool(server.builds(repo, 1).builds)
    except ServerError as error:
        if error.status != 404:
            raise
        return False
