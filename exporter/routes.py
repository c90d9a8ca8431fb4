"""Who is told of a change, when, and what of many is told as one. Pure: no I/O, no clock.

Times are Unix seconds by our clock.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, time, timedelta
from enum import StrEnum
from zoneinfo import ZoneInfo

from exporter.fields import fits
from exporter.incidents import Change, State, What
from exporter.model import Event

STORM_WITHIN = 120.0
"""Seconds in which so many openings on one server are told one by one, and the others as a digest."""
LATE = 900.0
"""An opening that is recorded so long after its end waits for what else is still unread."""
CATCH_UP = 600.0
"""Seconds for which rows wait at most while much is unread."""
WEEK = 7 * 86_400.0
MANY = 10
"""More messages than these that wait for a target after an outage become a digest."""
ALERT = "alert"
"""The event of alerts of Prometheus's, for routes."""
AT_ALL_HOURS = (Event.DEPLOYMENT, Event.TAG)


class Hold(StrEnum):
    """Why a message is told later; the later ones of its thread wait with it."""

    NO = ""
    UNREAD = "unread"
    STORM = "storm"
    QUIET = "quiet"
    MUTED = "muted"
    DIGEST = "digest"
    """It is a line of another message."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What a change is about, as routes match it."""

    server: str
    repo: str
    branch: str
    event: str
    failure: str
    """How its newest bad build ended: `failure`, `error` or `timeout`."""


@dataclass(frozen=True, slots=True)
class Route:
    """Targets for what fits all of its patterns; one without patterns fits everything but pull requests."""

    to: tuple[str, ...]
    servers: tuple[str, ...] = ()
    repos: tuple[str, ...] = ()
    branches: tuple[str, ...] = ()
    events: tuple[str, ...] = ()
    failures: tuple[str, ...] = ()
    goes_on: bool = False
    """Later routes are tried too."""

    def takes(self, subject: Subject) -> bool:
        """True when it fits, however the build ended."""
        if subject.event not in self.events and (self.events or subject.event == Event.PULL_REQUEST):
            return False
        pairs = (
            (subject.server, self.servers),
            (subject.repo, self.repos),
            (subject.branch, self.branches),
        )
        return all(not patterns or fits(text, patterns) for text, patterns in pairs)


@dataclass(frozen=True, slots=True)
class Quiet:
    """Hours of which messages wait for the end: from `begins` to `ends`, on the days that it begins on."""

    begins: time
    ends: time
    zone: ZoneInfo
    days: frozenset[int] = frozenset(range(7))
    """Monday is 0."""
    targets: frozenset[str] = frozenset()
    """Empty: all of them."""

    def until(self, now: float) -> float:
        """When the quiet hours that it is now end; 0 where it is none."""
        here = datetime.fromtimestamp(now, self.zone)
        for day in (here.date(), here.date() - timedelta(days=1)):
            begin = datetime.combine(day, self.begins, self.zone)
            last = day if self.ends > self.begins else day + timedelta(days=1)
            end = datetime.combine(last, self.ends, self.zone)
            if day.weekday() in self.days and begin <= here < end:
                return end.timestamp()
        return 0.0


@dataclass(frozen=True, slots=True)
class Routes:
    """What the configuration says of who is told."""

    targets: tuple[str, ...] = ()
    routes: tuple[Route, ...] = ()
    quiet: tuple[Quiet, ...] = ()
    storm: int = 5
    """Openings that are told one by one; 0: all of them."""
    max_age: float = 21_600.0
    """What is red for longer when it is told late is a line of a digest."""
    mention: Callable[[str, str], str] = field(default=lambda _target, _author: "")
    """(target, author) -> the author's handle there."""
    without_messages: frozenset[str] = frozenset()
    """Targets that are told what is red, not what happens."""

    def watches(self, subject: Subject) -> bool:
        """True when failures like this are incidents: pull requests where a route names them."""
        if subject.event != Event.PULL_REQUEST:
            return True
        return any(route.takes(subject) for route in self.routes)

    def targets_for(self, subject: Subject) -> tuple[str, ...]:
        """The targets of a new failure."""
        found: dict[str, None] = {}
        for route in self.routes or (Route(self.targets),):
            if route.takes(subject) and (not route.failures or subject.failure in route.failures):
                found |= dict.fromkeys(route.to)
                if not route.goes_on:
                    break
        return tuple(found)

    def messages_for(self, subject: Subject) -> tuple[str, ...]:
        """Those of them that get messages."""
        return tuple(t for t in self.targets_for(subject) if t not in self.without_messages)

    def told(self, change: Change, state: State, subject: Subject) -> tuple[str, ...]:
        """The targets that get a message of a change of the incident in `state`."""
        before = tuple(target for target in state.told if target in self.targets)
        routed = self.messages_for(subject)
        match change.what:
            case What.RESOLVED | What.STALE:
                return before
            case What.CHANGED:
                return tuple(target for target in routed if change.news or target not in before)
            case What.FLAPPING:
                return tuple(dict.fromkeys((*before, *routed)))
            case _:
                return routed

    def quiet_until(self, target: str, subject: Subject, now: float) -> float:
        """When the quiet hours of a target end, those that follow at once too; 0 where there are none now.

        Hours that never end are taken to end once a week.
        """
        if subject.event in AT_ALL_HOURS:
            return 0.0
        kept = [quiet for quiet in self.quiet if not quiet.targets or target in quiet.targets]
        end, at = 0.0, now
        while at < now + WEEK and (ends := max((quiet.until(at) for quiet in kept), default=0.0)) > at:
            end = at = ends
        return end


@dataclass(frozen=True, slots=True)
class Waiting:
    """A message that waits for a target."""

    id: int
    thread: str
    kind: str
    hold: str = Hold.NO
    since: float = 0.0
    """Since when what it tells of is red."""


@dataclass(slots=True)
class Folded:
    """What becomes of messages of one target that waited."""

    keep: list[int] = field(default_factory=list)
    """They are told, each by itself."""
    superseded: dict[int, int] = field(default_factory=dict)
    """They are told by that other one."""
    lines: list[list[int]] = field(default_factory=list)
    """What makes a line of a digest each; the last one of a line says how it went out."""


def fold(rows: Iterable[Waiting], *, oldest: float, digest_above: int = MANY, held: bool = True) -> Folded:
    """What is told of messages that waited: of each thread the net, and of many a digest.

    `rows` are those of one target in their order. `held`: they were held back, so that an opening which
    is green again is a line of a digest, as is one that is red since before `oldest`; else they could
    not be sent, and the all-clear alone is told.
    """
    threads: dict[str, list[Waiting]] = {}
    for row in rows:
        threads.setdefault(row.thread, []).append(row)
    folded = Folded()
    alone: list[list[Waiting]] = []
    for of_thread in threads.values():
        kept = _net(of_thread)
        over = kept.kind in _OVER and of_thread[0].kind == What.OPENED
        aged = kept.kind == What.OPENED and 0 < kept.since < oldest
        if held and (over or aged or kept.hold == Hold.STORM):
            folded.lines.append([row.id for row in of_thread])
        else:
            alone.append([*(row for row in of_thread if row is not kept), kept])
    if len(alone) > digest_above:
        folded.lines += [[row.id for row in of_thread] for of_thread in alone]
        alone = []
    for *others, kept in alone:
        folded.keep.append(kept.id)
        folded.superseded |= {row.id: kept.id for row in others}
    return folded


_OVER = (What.RESOLVED, What.STALE)


def _net(rows: Sequence[Waiting]) -> Waiting:
    """Of what happened to a thread, the one that says how it is now and how it began."""
    colours = [row for row in rows if row.kind != What.CHANGED]
    return colours[-1] if colours else rows[-1]


def handles(people: Mapping[str, Mapping[str, str]], kinds: Mapping[str, str]) -> Callable[[str, str], str]:
    """How an author is called at a target, by the target's name or else by its kind."""

    def mention(target: str, author: str) -> str:
        known = people.get(author, {})
        return known.get(target) or known.get(kinds.get(target, ""), "")

    return mention
