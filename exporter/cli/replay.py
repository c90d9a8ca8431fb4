"""`build-exporter replay`: what would have been sent, under the configuration as it is now."""

import time
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import click
from rich.table import Table
from rich.text import Text

from exporter import rehearsal
from exporter.cli.builds_text import hiding, moment_text, one_line, to_json
from exporter.cli.common import (
    GOOD,
    USAGE,
    StopError,
    console,
    load_config,
    open_ledger,
    plain_table,
    say,
    with_config,
)
from exporter.config import Config
from exporter.intake import policy_of
from exporter.ledger import Ledger, by_hand, watched
from exporter.ledger.messages import Row
from exporter.notify.facts import digest_lines, notice_of
from exporter.notify.message import compose
from exporter.notify.notice import Kind
from exporter.rehearsal import Part, Rehearsal

DAY = 86_400.0
EPOCH = 1970
FORMATS = ["%Y-%m-%d", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"]


@dataclass(frozen=True, slots=True)
class Told:
    """One message that would have been sent, or would be held still."""

    row: Row
    title: str
    lines: tuple[str, ...]

    @property
    def held(self) -> bool:
        return not rehearsal.is_sent(self.row)


@click.command(short_help="What would have been sent since a day, as things are configured now.")
@with_config
@click.option(
    "--since",
    type=click.DateTime(FORMATS),
    required=True,
    help="The day (or time, of this machine's zone) at which telling begins.",
)
@click.option("--target", "targets", metavar="NAME", multiple=True, help="Only to it; may be repeated.")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="Messages to show.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts: all messages.")
def replay(config_path: Path, since: datetime, targets: tuple[str, ...], limit: int, *, as_json: bool) -> int:
    """Show what would have been sent of the builds in the ledger, had the configuration been as it is now.

    A dry run: nothing is sent and nothing is written. It is as if the exporter had begun to tell at --since,
    had seen every end at once, and every target had taken every message: what was red before is known, and
    told again only as "still red".
    """
    config = load_config(config_path)
    known = {target.name for target in config.notify.targets}
    if not known:
        raise StopError(USAGE, "`notify.targets` names no target: nobody would have been told anything")
    if unknown := sorted(set(targets) - known):
        what = f"--target: no target is called {one_line(unknown[0])}; known are {', '.join(sorted(known))}"
        raise StopError(USAGE, what)
    begin, now = _unix(since), time.time()
    if begin > now:
        raise StopError(USAGE, "--since: must be in the past")
    ends, told = rehearse(config, open_ledger(config), begin, now)
    told = [each for each in told if not targets or each.row.target in targets]
    counts = {name: Counter[str]() for name in sorted(targets or known)}
    for each in told:
        counts[each.row.target][each.row.kind] += 1
    if as_json:
        say(to_json(_record(begin, now, ends, told, counts)))
        return GOOD
    if told:
        console().print(_table(told[-limit:]))
    if len(told) > limit:
        say(f"… and {len(told) - limit} older ones (--limit)")
    say(
        f"{ends} ends of builds since {moment_text(int(begin))} would have been told in {len(told)} messages:"
    )
    for name, kinds in counts.items():
        days = max((now - begin) / DAY, 1.0)
        parts = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
        total = sum(kinds.values())
        say(f"  {name}: {total}" + (f" ({parts}), {total / days:.1f} a day" if total else ""))
    return GOOD


def _unix(moment: datetime) -> float:
    """Unix seconds; of a day before all builds 0, for not every zone has a time for those."""
    return moment.timestamp() if moment.year >= EPOCH else 0.0


def rehearse(config: Config, ledger: Ledger, since: float, until: float) -> tuple[int, list[Told]]:
    """How many ends there were, and all that would have been sent of them, in its order."""
    parts: list[Part] = []
    with ledger.reading() as conn:
        servers = by_hand.all_servers(conn)
        for settings in config.servers:
            policy = policy_of(settings, config.ledger.series_retention)
            for repo in watched.repo_states(conn, settings.name):
                if repo.watched and not repo.gone:
                    part = rehearsal.read(conn, repo, servers[settings.name], policy, since)
                    parts += [part] if part.live else []
    routes, hide = config.notify.rules, hiding(config.secrets)
    performed = Rehearsal(routes, parts)
    try:
        ends = performed.perform(until)
        told = []
        for row in performed.messages():
            lines = digest_lines(performed.lines(row)) if row.kind == Kind.DIGEST else []
            title = compose(notice_of(row, routes.mention, lines)).title
            told.append(Told(row, hide(title), tuple(map(hide, lines))))
        return ends, told
    finally:
        performed.close()


def _table(told: list[Told]) -> Table:
    table = plain_table("when", "target", "what", "message", wraps=("message",))
    for each in told:
        row = each.row
        held = f" (held: {row.hold})" if each.held else ""
        table.add_row(
            moment_text(int(row.ready)), row.target, f"{row.kind}{held}", Text(one_line(each.title))
        )
        for line in each.lines:
            table.add_row("", "", "", Text(f"  {one_line(line)}", "dim"))
    return table


def _record(
    since: float, until: float, ends: int, told: list[Told], counts: dict[str, Counter[str]]
) -> dict[str, object]:
    """The dry run for scripts: times are Unix seconds."""
    messages = [
        {
            "at": int(each.row.ready),
            "target": each.row.target,
            "kind": each.row.kind,
            "held": each.row.hold if each.held else None,
            "title": each.title,
            "lines": list(each.lines),
            "server": each.row.server,
            "repo": each.row.told.repo,
            "branch": each.row.told.branch,
            "number": each.row.told.number or None,
        }
        for each in told
    ]
    return {
        "since": int(since),
        "until": int(until),
        "ends": ends,
        "counts": {name: dict(kinds) for name, kinds in counts.items()},
        "messages": messages,
    }
