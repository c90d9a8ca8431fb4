"""`build-exporter rules`: the alert rules for Prometheus, with thresholds and label matchers as wanted."""

import click
from rich.table import Table

from exporter.cli.common import GOOD, USAGE, console, say, say_error
from exporter.rules import CI, RED_BRANCH, RulesError, parameters, render


@click.command(short_help="Print the alert rules for Prometheus.")
@click.option(
    "--set",
    "settings",
    metavar="NAME=VALUE",
    multiple=True,
    help="A threshold, a duration, a severity or label matchers; may be given more than once.",
)
@click.option("--red-branch", is_flag=True, help="Print the rule for every red branch instead.")
@click.option("--list", "listing", is_flag=True, help="Show what can be set, and the defaults.")
def rules(settings: tuple[str, ...], red_branch: bool, listing: bool) -> int:
    """Print the alert rules, as a rule file for Prometheus.

    \b
    build-exporter rules > ci.yaml
    build-exporter rules --set failure_ratio.threshold=0.4 --set 'selector=server="prod"' > ci.yaml
    """
    if listing:
        table = Table("name", "default", "meaning")
        for parameter in parameters().values():
            table.add_row(parameter.name, parameter.default, parameter.meaning)
        console().print(table)
        return GOOD
    wanted = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals:
            say_error(f"--set {setting}: write NAME=VALUE")
            return USAGE
        wanted[name.strip()] = value
    try:
        files = render(wanted)
    except RulesError as error:
        say_error(f"--set {error}")
        return USAGE
    say(files[RED_BRANCH if red_branch else CI].rstrip("\n"))
    return GOOD
