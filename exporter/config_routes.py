"""The settings below `notify:` that say who is told, and when."""

import re
from datetime import time
from typing import Annotated, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BeforeValidator, Field, StrictBool, ValidationInfo

from exporter import fields
from exporter.filters import Settings, Text
from exporter.routes import Quiet, Route

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
EventName = Literal["push", "pull_request", "tag", "cron", "deployment", "manual", "alert"]
"""What a route may name: every `Event`, and what is none of a build."""
DAYS: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def _known_target(name: str, info: ValidationInfo) -> str:
    if isinstance(info.context, fields.Source) and ("target", name) not in info.context.names:
        known = sorted(other for kind, other in info.context.names if kind == "target")
        raise ValueError(f"is no target{fields.suggestion(name, known) if known else ': there are none'}")
    return name


def _hour(value: object) -> time:
    # YAML reads 22:00 without quotes as a number of minutes.
    minutes = value if isinstance(value, int) and not isinstance(value, bool) else None
    text = str(value) if minutes is None else f"{minutes // 60}:{minutes % 60:02}"
    if isinstance(value, time):
        return value
    if not re.fullmatch(r"([01]?[0-9]|2[0-3]):[0-5][0-9]", text):
        raise ValueError("must be a time of day like 22:00")
    hour, minute = text.split(":")
    return time(int(hour), int(minute))


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError("must be a time zone like Europe/Berlin or UTC") from None
    return name


Target = Annotated[str, AfterValidator(_known_target)]
Hour = Annotated[time, BeforeValidator(_hour)]


class MatchSettings(Settings):
    """What a route is for; all that is given must fit."""

    server: fields.Patterns = ()
    """Patterns of servers' names; empty: all of them."""
    repo: tuple[fields.RepoPattern, ...] = ()
    """Patterns of `owner/name`; empty: all of them."""
    branch: fields.Patterns = ()
    """Patterns of branches; empty: all of them. The branch of a pull request is its target."""
    event: tuple[EventName, ...] = ()
    """Of `push`, `pull_request`, `tag`, `cron`, `deployment`, `manual` and `alert` (what an Alertmanager
    sends); empty: all but `pull_request`."""
    failure: tuple[Literal["failure", "error", "timeout"], ...] = ()
    """How the build ended: `failure`, `error` (the CI system failed it), `timeout`; empty: any of them."""


class RouteSettings(Settings):
    """Who is told of what. The first route that fits is taken."""

    match: MatchSettings = MatchSettings()
    """What it is for; left out: everything but pull requests."""
    to: Annotated[tuple[Target, ...], fields.SOME]
    """Names of targets."""
    continue_: StrictBool = Field(default=False, validation_alias="continue")
    """Whether the routes below are tried as well."""

    @property
    def route(self) -> Route:
        """The route as `exporter.routes` knows it."""
        match = self.match
        return Route(
            self.to, match.server, match.repo, match.branch, match.event, match.failure, self.continue_
        )


class QuietSettings(Settings):
    """Hours in which messages wait for their end. Deployments and tags are told at all hours."""

    from_: Hour = Field(validation_alias="from")
    """Time of day at which they begin, like `22:00`."""
    to: Hour
    """Time of day at which they end; earlier than `from`: on the next day."""
    days: tuple[Day, ...] = DAYS
    """The days that they begin on."""
    timezone: Annotated[str, AfterValidator(_zone)] = "UTC"
    """Name of a time zone, like `Europe/Berlin`."""
    targets: tuple[Target, ...] = ()
    """Names of targets that keep them; empty: all of them."""

    @property
    def quiet(self) -> Quiet:
        """The hours as `exporter.routes` knows them."""
        days = frozenset(DAYS.index(day) for day in self.days)
        return Quiet(self.from_, self.to, ZoneInfo(self.timezone), days, frozenset(self.targets))


People = dict[Annotated[str, Field(min_length=1)], dict[Annotated[str, Field(min_length=1)], Text]]
