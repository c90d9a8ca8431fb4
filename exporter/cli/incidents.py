"""`build-exporter incidents`: which branches are red, who takes one over, and what nobody will mend."""

import getpass
import re
import time
from pathlib import Path

import click
from rich.text import Text
from sqlalchemy import Connection

from exporter.bridge import Bridge
from exporter.cli.builds_text import moment_text, one_line, span_text, to_json
from exporter.cli.common import (
    BAD,
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
from exporter.cli.outbox import message_record, message_table
from exporter.fields import fits
from exporter.incidents import BRIEF, acknowledge
from exporter.ledger import Moment, by_hand
from exporter.ledger.by_hand import Incident
from exporter.model import Status
from exporter.telemetry import Telemetry

ID = 7
"""Characters of an incident's id that are shown."""
NAMES = 3
"""Authors that a table shows."""


@click.group(short_help="Look at what is red; take an incident over, or close it.")
def incidents() -> None:
    """Look at incidents: branches (and tags, deployments, cron jobs …) that are red, as the ledger has them.

    ID is the beginning of an incident's id, as `list` shows it. `run` may be under way: it goes by what is
    changed here from its next look on.
    """


@incidents.command("list", short_help="What is red now.")
@with_config
@click.option("--all", "closed", is_flag=True, help="Also the last incident of what is green again.")
@click.option("--server", "server", metavar="NAME", help="Only of this server.")
@click.option("--repo", "repo", metavar="PATTERN", help="Only of repos that fit, like `acme/*`.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")
def list_incidents(
    config_path: Path, server: str | None, repo: str | None, *, closed: bool, as_json: bool
) -> int:
    """List what is red, by server and repo."""
    ledger = open_ledger(load_config(config_path))
    with ledger.reading() as conn:
        found = [
            incident
            for incident in by_hand.incidents_of(conn, closed=closed)
            if server in {None, incident.repo.server} and (repo is None or fits(incident.repo.name, (repo,)))
        ]
    if as_json:
        say(to_json([record(incident) for incident in found]))
        return GOOD
    if not found:
        say("Nothing is red." if not closed else "No incident is known.")
        return GOOD
    columns = ("id", "server", "repo", "what", "red since", "for", "failures", "step", "by", "told", "note")
    table = plain_table(*columns, wraps=("step", "by", "told", "note"))
    now = time.time()
    for incident in found:
        state = incident.state
        authors = ", ".join(list(filter(None, state.authors))[:NAMES])
        table.add_row(
            incident.id[:ID],
            *(Text(one_line(text)) for text in (incident.repo.server, incident.repo.name, state.ref_class)),
            moment_text(int(state.since)),
            span_text((now if state.red else state.at) - state.since),
            str(state.failures),
            *(Text(one_line(text)) for text in (state.step, authors, ", ".join(state.told))),
            Text(note(incident, now), "" if state.red else "green"),
        )
    console().print(table)
    return GOOD


@incidents.command(short_help="One incident, and what was told of it.")
@with_config
@click.argument("incident_id", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")
def show(config_path: Path, incident_id: str, *, as_json: bool) -> int:
    """Show an incident, and each message of it with what became of that."""
    ledger = open_ledger(load_config(config_path))
    with ledger.reading() as conn:
        incident = find(conn, incident_id)
        rows = by_hand.messages_of(conn, incident)
        if as_json:
            told = [message_record(conn, row) for row in rows]
            say(to_json(record(incident) | {"messages": told}))
            return GOOD
        for label, value in described(incident):
            say(f"{label:<10}{value}")
        if rows:
            say()
            console().print(message_table(conn, rows))
        else:
            say("no message of it stands in the outbox")
    return GOOD


@incidents.command(short_help="Take an incident over.")
@with_config
@click.argument("incident_id", metavar="ID")
@click.option("--by", metavar="NAME", help="Who takes it over.  [default: your login name]")
def ack(config_path: Path, incident_id: str, by: str | None) -> int:
    """Take an incident over: nobody is told more of it for 24 hours, until it is green again.

    The all-clear is told all the same.
    """
    ledger = open_ledger(load_config(config_path))
    name, now = one_line(by or login_name()), time.time()
    with ledger.transaction() as conn:
        incident = find(conn, incident_id, still_open=True)
        by_hand.touch(conn, incident.repo.id, acknowledge(incident.state, now, name))
    say(
        f"{named(incident)}: taken over by {name} until {moment_text(int(now + BRIEF))}, or until it is green"
    )
    return GOOD


@incidents.command("close", short_help="Close an incident that nobody will mend.")
@with_config
@click.argument("incident_id", metavar="ID")
def close_incident(config_path: Path, incident_id: str) -> int:
    """Close an incident without claiming that it is mended; who was told of it is told this.

    The next failure there opens a new one.
    """
    config = load_config(config_path)
    ledger = open_ledger(config)
    bridge = Bridge(ledger, config.notify.rules, Telemetry(), time.time)
    now = time.time()
    with ledger.transaction() as conn:
        incident = find(conn, incident_id, still_open=True)
        skew = by_hand.all_servers(conn)[incident.repo.server].skew
        bridge.close(conn, incident.repo, [incident.state], Moment(now, now + skew))
        closed = next(i for i in by_hand.incidents_of(conn, closed=True) if i.id == incident.id)
        by_hand.touch(conn, incident.repo.id, closed.state)
        told = [row.target for row in by_hand.messages_of(conn, incident) if row.kind == "stale"]
    say(f"{named(incident)}: closed; {', '.join(told) or 'nobody'} will be told")
    return GOOD


def find(conn: Connection, text: str, *, still_open: bool = False) -> Incident:
    """The one incident whose id begins so; raises `StopError`."""
    wanted = text.lower()
    if not re.fullmatch(r"[0-9a-f]{4,32}", wanted):
        what = f"{one_line(text)}: ids are 4 to 32 of 0-9 and a-f, as `build-exporter incidents list` shows"
        raise StopError(USAGE, what)
    found = [i for i in by_hand.incidents_of(conn, closed=True) if i.id.startswith(wanted)]
    if not found:
        raise StopError(
            BAD, f"{wanted}: no incident is called so; `build-exporter incidents list --all` shows all"
        )
    if len(found) > 1:
        ids = " and ".join(f"{incident.id[: ID + 5]} ({named(incident)})" for incident in found)
        raise StopError(USAGE, f"{wanted} may be {ids}: give more of it")
    if still_open and not found[0].state.red:
        raise StopError(BAD, f"{named(found[0])}: is closed already")
    return found[0]


def login_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "somebody"


def named(incident: Incident) -> str:
    state = incident.state
    return one_line(f"{incident.repo.name} {state.ref_class}, red since #{state.first}")


def note(incident: Incident, now: float) -> str:
    """What else is to be known of an incident, in a word or two."""
    state = incident.state
    if not state.red:
        return "closed"
    taken_over = state.acked > 0.0 and now < state.acked + BRIEF
    notes = [f"taken over by {one_line(state.acked_by)}"] if taken_over else []
    notes += ["flapping"] if state.flapping else []
    notes += ["from history, told nowhere"] if state.silent else []
    return ", ".join(notes)


def described(incident: Incident) -> list[tuple[str, str]]:
    """The lines of `show`."""
    state, repo = incident.state, incident.repo
    status = Status(state.status).word
    newest = f"#{state.bad[1]} {status}" if state.bad else status
    authors = ", ".join(filter(None, state.authors))
    link = f"{repo.build_url}{state.bad[1]}" if repo.build_url and state.bad else ""
    lines = [
        ("incident", incident.id[:ID]),
        ("of", f"{repo.name} {state.ref_class} on {repo.server}"),
        ("state", "red" if state.red else f"closed; its newest end was {moment_text(int(state.at))}"),
        ("since", f"{moment_text(int(state.since))}, build #{state.first}"),
        ("failures", f"{state.failures}, the newest {newest} at {moment_text(int(state.at))}"),
        ("step", state.step),
        ("commit", state.commit[:10]),
        ("authors", authors),
        ("told", ", ".join(state.told) or "nobody"),
        ("note", note(incident, time.time()) if state.red else ""),
        ("build", link),
    ]
    return [(label, one_line(value)) for label, value in lines if value]


def record(incident: Incident) -> dict[str, object]:
    """An incident for scripts: times are Unix seconds, null where there is none."""
    state, repo = incident.state, incident.repo
    return {
        "id": incident.id,
        "server": repo.server,
        "repo": repo.name,
        "ref_class": state.ref_class,
        "open": state.red,
        "since": int(state.since),
        "opened": int(state.opened),
        "last_end": int(state.at),
        "first_number": state.first,
        "number": state.bad[1] if state.bad else None,
        "status": Status(state.status).word,
        "failures": state.failures,
        "step": state.step,
        "commit": state.commit,
        "authors": list(state.authors),
        "told": list(state.told),
        "history": state.silent,
        "flapping": state.flapping,
        "acked": int(state.acked) or None,
        "acked_by": state.acked_by if state.acked else None,
    }
