"""`build-exporter builds`: look at builds where they are, on the server, and restart or cancel one."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import click
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from exporter.cli.builds_change import cancel, publish, reject, restart
from exporter.cli.builds_find import (
    BuildsGroup,
    Place,
    chosen,
    code_of,
    connect,
    find,
    with_build,
    with_repo,
    with_source,
)
from exporter.cli.builds_logs import logs
from exporter.cli.builds_text import (
    LONGEST_ERROR,
    moment_text,
    one_line,
    record,
    span_text,
    step_record,
    to_json,
)
from exporter.cli.common import GOOD, console, say, say_error
from exporter.fields import fits
from exporter.http import ServerError
from exporter.model import Build, Status, Step
from exporter.servers import Server

MOST_PAGES = 10
"""Pages of a repo's builds that are looked through for those which are wanted, beside the pages shown."""
MOST_LOOKS = 10
"""Looks at a feed that tells what is open some at a time (ABF)."""
STYLES = {
    Status.SUCCESS: "green",
    Status.FAILURE: "bold red",
    Status.ERROR: "bold red",
    Status.TIMEOUT: "bold red",
    Status.BLOCKED: "yellow",
    Status.PENDING: "cyan",
    Status.RUNNING: "bold cyan",
}
"""Of the statuses that are neither neutral nor unknown."""


@click.group(
    cls=BuildsGroup,
    short_help="Look at builds on their server; restart or cancel one.",
    epilog="Exit codes: 0 good; 1 not confirmed; 2 wrong use or configuration; 3 the server could not be "
    "reached or read; 4 no right to it; 5 not there; 6 the build's state does not allow it; 7 the server "
    "does not offer it.",
)
def builds() -> None:
    """Look at builds on their server, not in the ledger; restart or cancel one.

    REPO is owner/name. Which server it is on is found out where several are configured. Nothing is changed
    on a server without `allow_writes: true` in its configuration.
    """


@builds.command("list", short_help="The newest builds of a repo.")
@with_repo
@click.option("--branch", metavar="PATTERN", help="Only builds of branches that fit, like `release/*`.")
@click.option("--status", type=click.Choice([status.word for status in Status]), help="Only such builds.")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="Builds to show.")
def list_builds(
    config_path: Path,
    name: str | None,
    as_json: bool,
    repo: str,
    branch: str | None,
    status: str | None,
    limit: int,
) -> int:
    """List the newest builds of REPO.

    With --branch or --status, those that fit of the newest ten pages that the server has.
    """
    place = find(config_path, name, repo)
    found: list[Build] = []
    pages = MOST_PAGES + limit // place.server.limits.page_size
    for row in newest(place, repo, pages):
        if branch is not None and not fits(row.branch, (branch,)):
            continue
        build = place.explained(row)
        if status in {None, build.status.word}:
            found.append(build)
            if len(found) == limit:
                break
    show_builds([(place, build) for build in found], as_json, of_one_repo=True)
    return GOOD


def newest(place: Place, repo: str, pages: int) -> Iterator[Build]:
    """The builds on the first pages of a repo's list, newest first."""
    for page in range(1, pages + 1):
        answer = place.server.builds(repo, page)
        yield from answer.builds
        if answer.rows < place.server.limits.page_size:
            return


@builds.command(short_help="All builds that run or wait.")
@with_source
def running(config_path: Path, name: str | None, as_json: bool) -> int:
    """List all builds that run or wait, on every server or on one.

    Without an administrator's token: those among the newest of the server and of each repo.
    """
    config, servers = chosen(config_path, name)
    found: list[tuple[Place, Build]] = []
    code = GOOD
    for settings in servers:
        try:
            place = connect(config, settings)
            found += [(place, build) for build in open_builds(place)]
        except ServerError as error:
            say_error(one_line(error.message, LONGEST_ERROR))
            code = code_of(error)
    show_builds(found, as_json)
    return code


def open_builds(place: Place) -> list[Build]:
    """The builds that are open, the oldest first."""
    server = place.server
    rows: Iterable[Build] | None = server.open_builds() if server.limits.lists_repos else told(server)
    if rows is None:
        say_error(
            f"server {place.name}: this token gets no list of open builds: only the newest were looked at"
        )
        recent = [repo.newest for repo in server.repos(brief=True) if repo.newest]
        rows = {(row.repo, row.number): row for row in (*recent, *server.feed("")[0])}.values()
    found = [place.explained(row) for row in rows if row.status.open]
    return sorted((b for b in found if b.status.open), key=lambda b: b.started or b.created or b.run)


def told(server: Server) -> list[Build]:
    """What a feed without a beginning tells first: all that is open."""
    found: dict[int, Build] = {}
    cursor = ""
    for _ in range(MOST_LOOKS):
        rows, cursor = server.feed(cursor)
        found |= {row.number: row for row in rows}
        if not rows:
            break
    return list(found.values())


@builds.command(short_help="One build with its steps.")
@with_build
def show(config_path: Path, name: str | None, as_json: bool, repo: str, number: int) -> int:
    """Show build NUMBER of REPO, and its steps with durations and exit codes."""
    place = find(config_path, name, repo)
    build = place.build(repo, number)
    if as_json:
        steps = [step_record(step) for step in build.steps]
        say(to_json(record(place.name, build) | {"steps": steps}))
    else:
        console().print(tree(place, build))
    return GOOD


def show_builds(found: list[tuple[Place, Build]], as_json: bool, *, of_one_repo: bool = False) -> None:
    """A table of builds, or a list of them for scripts."""
    if as_json:
        say(to_json([record(place.name, build) for place, build in found]))
        return
    where = [] if of_one_repo else ["server", "repo"]
    columns = (*where, "number", "status", "event", "branch", "began", "took", "by", "title")
    table = Table(*columns, box=None, pad_edge=False)
    for column in table.columns:
        column.no_wrap, column.overflow = True, "ellipsis"
    for place, build in found:
        table.add_row(
            *(() if of_one_repo else (Text(place.name), Text(one_line(build.repo)))),
            str(build.number),
            status_text(build.status),
            build.event.value,
            Text(one_line(build.branch)),
            moment_text(build.started or build.created),
            span_text(time_of(place, build)),
            Text(one_line(build.author)),
            Text(one_line(build.title)),
        )
    console().print(table)


def status_text(status: Status) -> Text:
    return Text(status.word, STYLES.get(status, "dim"))


def time_of(place: Place, build: Build | Step) -> float | None:
    """How long it ran, or has run."""
    if build.status is Status.RUNNING and build.started:
        return max(0.0, place.server.session.server_now() - build.started)
    return build.duration


def tree(place: Place, build: Build) -> Tree:
    """A build as a tree: stages or legs where it has several, and steps."""
    root = Tree(Text("\n").join(_head(place, build)), guide_style="dim")
    width = max((len(_own_name(step)) for step in build.steps), default=0)
    branches = {"": root}
    for step in build.steps:
        above = one_line(step.name.rpartition("/")[0])
        if above not in branches:
            branches[above] = root.add(Text(above, "bold"))
        branches[above].add(_step_text(place, step, width))
    return root


def _head(place: Place, build: Build) -> Iterator[Text]:
    took = span_text(time_of(place, build))
    yield Text.assemble(
        (f"{one_line(build.repo)} {build.number}", "bold"), f" on {place.name}: ", status_text(build.status),
        f" ({took})" if took else "",
    )  # fmt: skip
    what = [build.event.value]
    what += [f"to {one_line(build.environment)}"] if build.environment else []
    what += [one_line(build.cron)] if build.cron else []
    what += [f"on {one_line(build.branch or build.ref)}", one_line(build.commit)[:8]]
    what += [f"by {one_line(build.author)}"] if build.author else []
    what += [f"restarted from {build.parent}"] if build.parent else []
    yield Text(" ".join(filter(None, what)))
    if build.title:
        yield Text(one_line(build.title), "italic")
    began, wait = moment_text(build.started), span_text(build.wait)
    if began:
        yield Text(f"began {began}" + (f" after a wait of {wait}" if wait else ""), "dim")
    if build.error:
        yield Text(one_line(build.error), "red")


def _own_name(step: Step) -> str:
    return one_line(step.name.rpartition("/")[2])


def _step_text(place: Place, step: Step, width: int) -> Text:
    text = Text.assemble(_own_name(step).ljust(width), "  ", status_text(step.status))
    text.append(f"{span_text(time_of(place, step)):>{11 + 7 - len(step.status.word)}}")
    text.append(f"  exit code {step.exit_code}" if step.exit_code else "", "red")
    text.append("  ignored" if step.ignored and step.status.bad else "", "dim")
    return text


for command in (logs, restart, cancel, publish, reject):
    builds.add_command(command)
