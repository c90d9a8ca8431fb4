"""`build-exporter explain`: how many series there are, and what the caps folded into `other`."""

from pathlib import Path

import click
from rich.table import Table

from exporter.cli.common import GOOD, console, load_config, open_ledger, say, with_config
from exporter.exposition import Page
from exporter.intake import policy_of
from exporter.ledger import Ledger, names
from exporter.ledger.folded import folded as folded_names
from exporter.refresh import Refresher, Shown


@click.command(short_help="Count the series, and show what was folded into `other`.")
@with_config
@click.option("--limit", default=20, show_default=True, help="Folded names to show.")
def explain(config_path: Path, limit: int) -> int:
    """Count the series on the page by family, and show which names the caps folded into `other`.

    Reads the ledger alone, beside a `run` that is under way.
    """
    config = load_config(config_path)
    ledger = open_ledger(config)
    page = Page(disabled=frozenset(config.metrics.disable))
    refresher = Refresher(page, ledger, abandoned_after=config.ledger.abandoned_after, clock=lambda: 0.0)
    for settings in config.servers:
        policy = policy_of(settings, config.ledger.series_retention)
        refresher.show(settings.name, Shown(policy, lambda: 0.0, lambda: 0.0))
    series = {family: count for family, count in page.series().items() if count}
    table = Table("family", "series", title=f"{sum(series.values())} series on the page")
    for family, count in sorted(series.items(), key=lambda item: -item[1]):
        table.add_row(family, str(count))
    console().print(table)
    _folded(ledger, limit)
    return GOOD


def _folded(ledger: Ledger, limit: int) -> None:
    with ledger.reading() as conn:
        folded = folded_names(conn)
    if not folded:
        say("No name is folded into `other`.")
        return
    table = Table("server", "repo", "what", "name", "builds", title="Folded into `other`")
    for row in folded[:limit]:
        table.add_row(*map(str, row))
    console().print(table)
    if len(folded) > limit:
        say(f"… and {len(folded) - limit} more (--limit)")
    say(
        f"Each repo has its own label values for {names.PLACES[names.BRANCH]} branches beside those that "
        f"`branches:` names, {names.PLACES[names.STEP]} steps, {names.PLACES[names.ENVIRONMENT]} "
        f"environments and {names.PLACES[names.CRON]} cron jobs."
    )
