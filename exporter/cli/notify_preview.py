"""`build-exporter notify preview`: exactly what would be sent of one build, sent to nobody."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import click

from exporter import rehearsal
from exporter.cli.builds_find import Place, chosen, connect, with_build_of_server
from exporter.cli.builds_text import LONGEST_ERROR, hiding, lines_text, one_line
from exporter.cli.common import BAD, GOOD, USAGE, StopError, say, say_error
from exporter.config import Config, ServerSettings
from exporter.config_notify import ChannelSettings
from exporter.http import ServerError
from exporter.incidents import STABLE, WITHIN
from exporter.intake import policy_of
from exporter.ledger import Ledger, Policy, by_hand
from exporter.ledger.messages import Row
from exporter.ledger.runs import Run, hear, new_run
from exporter.ledger.schema import SETTLED
from exporter.ledger.states import first_failed
from exporter.ledger.watched import RepoState, ServerState
from exporter.model import Event, Status
from exporter.notify.channels import open_target
from exporter.notify.facts import notice_of
from exporter.notify.logs import excerpts, log_reader
from exporter.rehearsal import Part, Rehearsal
from exporter.routes import Routes, Subject

EARLIER = WITHIN + STABLE
"""Seconds before a build from which on what was told may say how it is told."""


@dataclass(slots=True)
class Source:
    """The server of a build, which is asked only where the ledger does not know enough."""

    config: Config
    settings: ServerSettings
    _place: Place | None = None

    @property
    def place(self) -> Place:
        if self._place is None:
            self._place = connect(self.config, self.settings)
        return self._place

    def excerpt(self, row: Row) -> tuple[str, str]:
        """Lines of the log that a message is about, and why there are none."""
        reader = log_reader(self.config, threading.Event())
        server = None
        try:
            server = self.place.server
        except ServerError as error:
            say_error(one_line(error.message, LONGEST_ERROR))
        return excerpts(reader, lambda _name: server)(row)


@click.command(short_help="Print what would be sent of a build.")
@with_build_of_server
@click.option("--target", "only", metavar="NAME", help="Print only what it would be sent.")
def preview(config_path: Path, name: str, repo: str, number: int, only: str | None) -> int:
    """Print exactly what would be sent of build NUMBER of REPO on SERVER to each target; nothing is sent.

    What happened before it is taken from the ledger, where there is one; the build and its log are read
    from the server where the ledger does not have them. Quiet hours, mutes and storms are not looked at:
    they delay a message or make it a line of a digest. Keys are those of a dry run.
    """
    config, (settings,) = chosen(config_path, name)
    if only is not None:
        target_named(config, only)
    source = Source(config, settings)
    part = part_of(source, repo, number)
    routes = replace(config.notify.rules, quiet=(), storm=0)
    rows, why = rehearsed(part, routes)
    rows = [row for row in rows if only in {None, row.target}]
    if not rows:
        raise StopError(BAD, f"{repo} {number}: nothing would be sent{f' to {only}' if only else ''}: {why}")
    excerpt = ("", "")
    if rows[0].excerpt is None:
        excerpt = source.excerpt(rows[0])
    clean = terminal_text(config)
    for place, row in enumerate(rows):
        row.excerpt, row.excerpt_note = excerpt
        target = open_target(target_named(config, row.target))
        try:
            shown = target.preview(notice_of(row, routes.mention))
        finally:
            target.close()
        if only is None:
            say(f"{chr(10) * (place > 0)}── {row.target}: {row.kind}")
        say(clean(shown))
    return GOOD


def part_of(source: Source, repo: str, number: int) -> Part:
    """What is known of the build's ref class, up to the newest run of the build.

    Raises `StopError` where the build has not ended, `ServerError` where it can be read nowhere.
    """
    settings = source.settings
    policy = policy_of(settings, source.config.ledger.series_retention)
    part = _recorded(source.config, settings, policy, repo)
    found = [run for run in part.live if run.number == number]
    if not found or found[-1].generation != part.repo.generation or found[-1].state != SETTLED:
        build = source.place.build(repo, number)
        if build.status.open:
            raise StopError(BAD, f"{repo} {number}: is {build.status.word}: its end is what is told of")
        if not part.repo.build_url:
            part = replace(part, repo=replace(part.repo, build_url=_build_url(source.place, repo)))
        run = new_run(part.repo.id, part.repo.generation, build)
        hear(run, build)
        failed = first_failed(build.steps)
        part = replace(
            part,
            live=[*(r for r in part.live if r.key != run.key), run],
            failed={**part.failed, run.key: failed} if failed[0] else part.failed,
        )
        found = [run]
    last = found[-1]
    of_class = [r for r in part.live if r.ref_class == last.ref_class and r.key <= last.key]
    of_class.sort(key=lambda run: run.key)
    return _split(part, of_class)


def _recorded(config: Config, settings: ServerSettings, policy: Policy, repo: str) -> Part:
    """All that the ledger has of a repo, which may be nothing."""
    ledger = Ledger(config.ledger.url.get_secret_value())
    try:
        if ledger.exists():
            with ledger.reading() as conn:
                known = by_hand.repo_named(conn, settings.name, repo)
                if known is not None:
                    server = by_hand.all_servers(conn)[settings.name]
                    return rehearsal.read(conn, known, server, policy, 0.0)
    finally:
        ledger.close()
    return _unrecorded(settings.name, policy, repo)


def _unrecorded(server: str, policy: Policy, repo: str) -> Part:
    """A repo of which nothing is known."""
    unknown = RepoState(id=1, server=server, name=repo)
    return Part(ServerState(server), unknown, policy, [], [], {})


def _build_url(place: Place, repo: str) -> str:
    """What the links of a repo begin with that the ledger does not know."""
    return next((row.build_url for row in place.server.repos(brief=True) if row.name == repo), "")


def _split(part: Part, runs: list[Run]) -> Part:
    """The runs of one class: what cannot matter any more for the last of them is history."""
    end = part.at(runs[-1]) - EARLIER
    old = [place for place, run in enumerate(runs[:-1]) if run.good and part.at(run) < end]
    cut = old[-1] + 1 if old else 0
    return replace(part, before=runs[:cut], live=runs[cut:])


def rehearsed(part: Part, routes: Routes) -> tuple[list[Row], str]:
    """The messages that the last of the runs makes; why there are none."""
    last = part.live[-1]
    *earlier, _ = part.live
    subject = Subject(part.server.name, part.repo.name, last.branch, last.event, Status(last.status).word)
    performed = Rehearsal(routes, [replace(part, live=earlier)])
    try:
        performed.perform(max([part.at(last), *map(part.at, earlier)]))
        told = {row.id for row in performed.messages()}
        before = performed.state(part, last.ref_class)
        performed.take(part, last)
        rows = [row for row in performed.messages() if row.id not in told]
    finally:
        performed.close()
    if rows:
        return rows, "it is told to others"
    if not routes.targets:
        return [], "`notify.targets` names no target"
    if not part.policy.counts(last.event, last.branch):
        return [], "`only` leaves it out"
    if not routes.watches(subject):
        return [], "no route names pull_request"
    if not (last.good or last.bad):
        return [], f"it is {subject.failure}, which says nothing of {_what(last)}"
    if last.good:
        known = "told nowhere" if before.red else "not red before"
        return [], f"it is good, and {_what(last)} was {known}"
    if before.flapping:
        return [], f"{_what(last)} keeps turning red and green, and is told of once it is stable"
    if not routes.targets_for(subject):
        return [], "no route fits it"
    return [], f"{_what(last)} is still red since #{before.first}, with nothing new"


def _what(run: Run) -> str:
    return run.ref_class if run.event != Event.PUSH else run.branch


def terminal_text(config: Config) -> Callable[[str], str]:
    """Makes a text of several lines fit for where it is printed, whatever a build put into it."""
    hide = hiding(config.secrets)
    return lambda text: hide(lines_text(text))


def target_named(config: Config, name: str) -> ChannelSettings:
    """The target of that name; raises `StopError`."""
    targets = config.notify.targets
    if not targets:
        raise StopError(USAGE, "`notify.targets` names no target: docs/targets.md shows how to add one")
    if any(target.name == name for target in config.notify.alertmanagers):
        raise StopError(
            USAGE, f"{name} is an Alertmanager, which is told states and not messages: see `incidents list`"
        )
    found = next((target for target in config.notify.channels if target.name == name), None)
    if found is None:
        known = ", ".join(target.name for target in targets)
        raise StopError(USAGE, f"no target is called {one_line(name)}; known are {known}")
    return found
