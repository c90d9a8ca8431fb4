"""`build-exporter notify`: does a target work, what would it be sent, and what is to wait?"""

import time
import uuid
from pathlib import Path

import click

from exporter.cli.builds_text import hiding, one_line
from exporter.cli.common import BAD, GOOD, SERVER, load_config, say, say_error, with_config
from exporter.cli.notify_mute import mute, muted, unmute
from exporter.cli.notify_preview import preview, target_named
from exporter.notify.channels import open_target
from exporter.notify.notice import Kind, Notice
from exporter.notify.targets import Outcome, Result

SAID = {
    Result.RETRY: "does not take it now",
    Result.AMBIGUOUS: "may have taken it",
    Result.PERMANENT: "refuses it",
    Result.PAUSE: "takes nothing",
    Result.TOO_LARGE: "refuses it",
}


@click.group(short_help="Try a target, see what it would be sent; mute a repo.")
def notify() -> None:
    """Try the targets of messages, and let messages wait."""


@notify.command(short_help="Send one test message.")
@with_config
@click.argument("name", metavar="TARGET")
def test(config_path: Path, name: str) -> int:
    """Send one test message to TARGET, and say what it answered.

    It goes the way that every message goes, but for the outbox: nothing is tried again.
    """
    config = load_config(config_path)
    settings = target_named(config, name)
    target = open_target(settings)
    try:
        outcome = target.send(test_notice())
    finally:
        target.close()
    if outcome.result is Result.OK:
        say(f"{settings.name} ({settings.type}): took the test message")
        return GOOD
    what = one_line(hiding(config.secrets)(outcome.detail))
    say_error(f"target {settings.name} ({settings.type}) {SAID[outcome.result]}: {what}")
    return code_of(outcome)


def code_of(outcome: Outcome) -> int:
    """3 where the target could not be reached or says to come again, 1 where its settings are bad."""
    return SERVER if outcome.result in (Result.RETRY, Result.AMBIGUOUS) else BAD


def test_notice() -> Notice:
    """A message that tells of nothing, another one each time."""
    key = uuid.uuid4().hex
    return Notice(
        key=key,
        thread=key,
        kind=Kind.TEST,
        server="",
        repo="",
        branch="",
        event="",
        ref="",
        build=None,
        since=0,
        failures=0,
        first_number=0,
        flaky=False,
        excerpt="",
        excerpt_note="",
        lines=(),
        mention=(),
        at=int(time.time()),
    )


for command in (preview, mute, unmute, muted):
    notify.add_command(command)
