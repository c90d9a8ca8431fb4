"""`build-exporter backfill`: the past before the exporter, as blocks for Prometheus."""

import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from exporter.backfill import BackfillError
from exporter.backfill.blocks import command, promtool
from exporter.backfill.fetch import Fetcher, UnreachableError
from exporter.backfill.write import HEAD, Request, Written, expect_closed, write
from exporter.cli.common import BAD, GOOD, SERVER, USAGE, load_config, say, say_error, with_config
from exporter.config import Config, ServerSettings
from exporter.fields import seconds
from exporter.intake import policy_of
from exporter.ledger import Ledger
from exporter.metrics import METRICS

TAKEN = {"le", *(label for metric in METRICS.values() for label in metric.labels)}
"""Labels that the series have of their own."""


class Length(click.ParamType[float]):
    """A duration like `90d`."""

    name = "DURATION"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            return seconds(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


def _labels(_ctx: click.Context, _param: click.Parameter, given: tuple[str, ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    for each in given:
        name, equals, value = each.partition("=")
        if not equals or not value or not re.fullmatch("[a-zA-Z_][a-zA-Z0-9_]*", name):
            raise click.BadParameter(f"{each!r}: write NAME=VALUE, like instance=127.0.0.1:9848")
        if name in TAKEN or name.startswith("__") or name in found:
            raise click.BadParameter(f"{each!r}: the series have a label {name} already")
        found[name] = value
    return found


def _moment(_ctx: click.Context, _param: click.Parameter, given: str | None) -> float | None:
    if given is None:
        return None
    if re.fullmatch(r"[0-9]{1,11}", given):
        return float(given)
    try:
        told = datetime.fromisoformat(given)
    except ValueError:
        raise click.BadParameter(
            f"{given!r}: write a time like 2026-11-24T12:00:00Z, or Unix seconds"
        ) from None
    return (told if told.tzinfo else told.replace(tzinfo=UTC)).timestamp()


@click.command(short_help="Write the past before the exporter as blocks for Prometheus.")
@with_config
@click.option(
    "--since", type=Length(), default="90d", show_default=True, help="How far back, like 90d or 36h."
)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True, metavar="DIR",
              help="Where to write; a new or empty directory.")  # fmt: skip
@click.option("--label", "labels", multiple=True, metavar="NAME=VALUE", callback=_labels,
              help="A label that Prometheus gives the live series: job and instance at least.")  # fmt: skip
@click.option("--until", metavar="TIME", callback=_moment,
              help="Go on with the live counters up to here, for a time that was not scraped.")  # fmt: skip
@click.option("--details", is_flag=True, help="The steps too: reads every build singly.")
@click.option("--server", "names", multiple=True, metavar="NAME", help="Only this server; may be repeated.")
@click.option("--new-prometheus", is_flag=True,
              help="For a Prometheus that was never started: blocks may reach up to now.")  # fmt: skip
@click.option("--keep-text", is_flag=True, help="Keep the OpenMetrics files that blocks were made of.")
def backfill(
    config_path: Path,
    since: float,
    out: Path,
    labels: dict[str, str],
    until: float | None,
    details: bool,
    names: tuple[str, ...],
    new_prometheus: bool,
    keep_text: bool,
) -> int:
    """Write what happened before the exporter first saw each repo, as blocks for Prometheus.

    History that the ledger lacks is read first. Each series ends with a 0 where the live one begins, so that
    increase() over both counts each build once. docs/backfill.md says how to put the blocks in place.

    \b
    build-exporter backfill --since 90d --out history --label job=ci --label instance=127.0.0.1:9848
    """
    config = load_config(config_path)
    now = time.time()
    servers = [settings for settings in config.servers if not names or settings.name in names]
    unknown = set(names) - {settings.name for settings in servers}
    if unknown:
        known = ", ".join(settings.name for settings in config.servers)
        say_error(f"--server: no server is called {min(unknown)}; known are {known}")
        return USAGE
    if out.exists() and any(out.iterdir()):
        say_error(f"--out {out}: is not empty: name a new directory")
        return USAGE
    request = Request(
        directory=out,
        since=now - since,
        until=until,
        labels=labels,
        details=details,
        head=0.0 if new_prometheus else HEAD,
        disabled=config.metrics.disable,
        promtool=promtool(),
        keep_text=keep_text,
    )
    try:
        return _backfill(config, servers, request)
    except UnreachableError as error:
        say_error(str(error))
        return SERVER
    except BackfillError as error:
        say_error(str(error))
        return BAD
    except OSError as error:
        say_error(f"--out {out}: {error.strerror}")
        return USAGE


def _backfill(config: Config, servers: list[ServerSettings], request: Request) -> int:
    ledger = Ledger(config.ledger.url.get_secret_value())
    if not ledger.exists() and request.head:
        say_error(
            f"{ledger.place}: there is no ledger yet: start `build-exporter run`, and come back after 3 "
            "hours; for a Prometheus that was never started, say --new-prometheus"
        )
        return BAD
    if ledger.exists():
        ledger.migrate()
        expect_closed(ledger, [s.name for s in servers], request, time.time())
    if missing := {"job", "instance"} - request.labels.keys():
        say_error(
            f"no --label {' and no --label '.join(sorted(missing))}: unless the live series have none, these "
            "will be other series"
        )
    request.directory.mkdir(parents=True, exist_ok=True)
    with _bars() as bars:
        fetcher = Fetcher(ledger, config, servers, request.begin, bars.show)
        fetcher.read_history()
        expect_closed(ledger, [s.name for s in servers], request, time.time())
        if request.details:
            fetcher.read_steps(time.time())
        policies = {s.name: policy_of(s, config.ledger.series_retention) for s in servers}
        written = write(
            ledger,
            policies,
            request,
            time.time(),
            lambda done, total: bars.show("writing", done, total),
        )
    ledger.close()
    _tell(request, written)
    return GOOD


def _tell(request: Request, written: Written) -> None:
    if not written.files:
        say("There is no history to be written.")
        return
    blocks, text = request.directory / "blocks", request.directory / "openmetrics"
    span = f"from {_text(request.begin)} to {_text(written.last)}"
    say(f"The past of {written.repos} repos, {span}: {written.bytes / 1e6:.1f} MB of OpenMetrics")
    if request.promtool:
        made = sum(1 for _ in blocks.iterdir())
        say(f"{made} blocks are in {blocks}. Before you move them to Prometheus's data directory,")
        days = int(timedelta(seconds=time.time() - request.begin).days) + 1
        say(f"raise its --storage.tsdb.retention.time to {days}d at least: it deletes what is older.")
    else:
        say(f"promtool is not installed, so no blocks were made. Where it is, for each file in {text}:")
        say(f"  {' '.join(command('promtool', 'FILE', 'BLOCKS'))}")


def _text(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M UTC")


class _Bars:
    """Bars with the time that is left, one for each task that was told of."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}

    def show(self, what: str, done: int, total: int) -> None:
        """Of `what`, so much of so much is done."""
        if what not in self._tasks:
            self._tasks[what] = self._progress.add_task(what, total=total)
        self._progress.update(self._tasks[what], completed=done, total=total)


@contextmanager
def _bars() -> Iterator[_Bars]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as progress:
        yield _Bars(progress)
