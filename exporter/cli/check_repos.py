"""What `build-exporter check` says of a server's repos: which are watched, and what leaves out the others."""

from collections.abc import Iterator, Sequence

from rich.table import Table
from rich.text import Text

from exporter.cli.builds_text import one_line
from exporter.config import ServerSettings
from exporter.fields import fits
from exporter.filters import Refusal
from exporter.model import Repo

NAMED = 3
"""Repos that a line names; the others it counts."""


def summary(settings: ServerSettings, repos: Sequence[Repo], *, all_known: bool) -> Iterator[str]:
    """A line for the repos that are watched, one for each reason that leaves some out, and one for each
    pattern that fits none (where the server tells `all_known` repos)."""
    left_out: dict[Refusal, list[str]] = {}
    watched: list[str] = []
    for repo in sorted(repos, key=lambda repo: repo.name):
        refusal = settings.repos.refuses(repo.name, active=repo.active)
        (watched if refusal is None else left_out.setdefault(refusal, [])).append(repo.name)
    if watched:
        yield f"watched: {_named(watched)}"
    for refusal, names in sorted(left_out.items(), key=lambda item: -len(item[1])):
        yield f"left out, {_why(refusal)}: {_named(names)}"
    if all_known and repos:
        yield from _idle(settings, [repo.name for repo in repos])


def table(settings: ServerSettings, repos: Sequence[Repo]) -> Table:
    """Every repo, and what becomes of it."""
    found = Table("repo", "", title=f"{settings.name}: {len(repos)} repos", title_justify="left")
    for repo in sorted(repos, key=lambda repo: repo.name):
        refusal = settings.repos.refuses(repo.name, active=repo.active)
        told = Text("watched", style="green") if refusal is None else Text(f"left out, {_why(refusal)}")
        found.add_row(Text(one_line(repo.name)), told)
    return found


def _named(names: Sequence[str]) -> str:
    rest = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{len(names)} ({', '.join(names[:NAMED])}{rest})"


def _why(refusal: Refusal) -> str:
    match refusal.setting:
        case "active_only":
            return "switched off at the server"
        case "owners":
            return "of none of `owners`"
        case "include":
            return "fit no pattern of `include`"
        case _:
            return f"by `exclude` pattern {refusal.pattern}"


def _idle(settings: ServerSettings, names: Sequence[str]) -> Iterator[str]:
    """What fits none of the repos: a likely slip of the pen."""
    given = settings.repos
    patterns = [("include", pattern, pattern) for pattern in given.include]
    patterns += [("exclude", pattern, pattern) for pattern in given.exclude]
    patterns += [("owners", owner, f"{owner}/*") for owner in given.owners]
    lower = [name.lower() for name in names]
    for setting, written, pattern in patterns:
        if any(fits(name, [pattern]) for name in names):
            continue
        in_lower = any(fits(name, [pattern.lower()]) for name in lower)
        hint = "upper and lower case differ" if in_lower else "is it spelt right?"
        yield f"`{setting}`: {written} fits no repo: {hint}"
