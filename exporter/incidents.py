"""From the ends of one branch's builds to incidents: when it turned red, and when green again.

Pure: `advance` is given the state of a key, one end and the time, and returns the new state and what
people are to be told. A key is a repo and a ref class (`push:main`, `deploy:prod`, …); ends of other
classes neither break nor mend it. Times are Unix seconds by our clock.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, TypeAlias

import msgspec
from msgspec.structs import replace as changed

from exporter.model import Status

Key: TypeAlias = tuple[int, int, int]
"""Generation, number and run: a later run has a greater one."""

FLIPS, WITHIN, STABLE = 4, 3600.0, 1800.0
"""A key that changes colour so often within that time is told as flapping, then not until it is stable."""
STALE = 30 * 86_400.0
"""Seconds without a build after which an incident is closed."""
FORGOTTEN = STALE + 3 * 86_400.0
"""The same for what is green: by then no message of it is kept any more."""
BRIEF = 86_400.0
"""Seconds after which an incident of a tag is closed, and for which an acknowledgement holds."""
AUTHORS = 50
"""Authors of one incident that are remembered."""


class What(StrEnum):
    """What is to be told of an incident."""

    OPENED = "opened"
    CHANGED = "changed"
    """Still red: told where `Change.news` says that something is new, or where it was never told."""
    RESOLVED = "resolved"
    FLAPPING = "flapping"
    STALE = "stale"


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """One settled end of a build."""

    key: Key
    status: Status
    at: float
    """When it ended."""
    history: bool = False
    """It ended before anybody was there to be told."""
    branch: str = ""
    event: str = ""
    commit: str = ""
    author: str = ""
    step: str = ""
    """The step that failed."""

    @property
    def good(self) -> bool:
        return self.status is Status.SUCCESS


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that happened to a key; what it is about stands in the state that comes with it."""

    what: What
    sequence: int
    """Of the key, rising."""
    news: bool = True
    """False of a failure that is like the one before."""
    flaky: bool = False
    """It became good on the same commit."""


class State(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is known of a key, kept while it is green too; its incident is the open one, or the last."""

    ref_class: str
    handled: Key | None = None
    """The newest end that was good or bad."""
    at: float = 0.0
    """When that ended."""
    red: bool = False
    """An incident is open."""
    epoch: int = 0
    """Counts the key's incidents."""
    opened: float = 0.0
    """When the incident was seen."""
    since: float = 0.0
    """When its first bad build ended."""
    first: int = 0
    """That build's number."""
    failures: int = 0
    bad: Key | None = None
    """Its newest bad build, and what that tells."""
    branch: str = ""
    event: str = ""
    commit: str = ""
    step: str = ""
    status: int = 0
    authors: tuple[str, ...] = ()
    """Of all its bad builds."""
    silent: bool = False
    """It is known from history alone."""
    told: tuple[str, ...] = ()
    """The targets that were told of it."""
    sequence: int = 0
    flips: tuple[float, ...] = ()
    """When the colour changed of late."""
    flapping: bool = False
    acked: float = 0.0
    """When somebody took it over; 0: nobody did."""
    acked_by: str = ""
    """Who last did."""

    @property
    def last_was_bad(self) -> bool:
        """True when the newest end is bad, whether the incident is still open or not."""
        return self.handled is not None and self.bad == self.handled

    @property
    def brief(self) -> bool:
        """True of a tag: nobody builds it again, so that an all-clear is not to be waited for."""
        return self.ref_class.startswith("tag:")


Step: TypeAlias = tuple[State, tuple[Change, ...]]


def advance(state: State, end: End | None, now: float) -> Step:
    """The state after one more end, or (None) after time alone, and what is to be told of it."""
    if end is None:
        return _wait(state, now)
    if not (end.good or end.status.bad) or (state.handled is not None and end.key < state.handled):
        return state, ()
    if end.key == state.handled and end.good != state.last_was_bad:
        return state, ()
    if end.good:
        return _mend(state, end, now)
    return _fail_again(state, end, now) if state.red else _break(state, end, now)


def restate(state: State, ends: Iterable[End], now: float) -> Step:
    """The state computed anew from all ends of a key (in their order), after one of them was rewritten or
    more history was read.

    "Red since" and the count may move; a colour that is another one now is told as a change of now.
    """
    fresh = State(state.ref_class)
    newest: End | None = None
    for end in ends:
        fresh, _ = advance(fresh, replace(end, history=True), now)
        newest = end if fresh.handled == end.key else newest
    if newest is None:
        return close(state) if state.red else (state, ())
    if fresh.red == state.last_was_bad:
        state = changed(state, handled=fresh.handled, at=newest.at)
        return (_moved(state, fresh) if fresh.red else state), ()
    if not fresh.red:
        return _mend(state, newest, now)
    opened, changes = _break(state, newest, now)
    return _moved(opened, fresh), changes


def close(state: State) -> Step:
    """Closes an incident without claiming that it is fixed: its repo is gone, or somebody said so."""
    if not state.red:
        return state, ()
    state = changed(state, red=False, acked=0.0, flapping=False)
    return (state, ()) if state.silent else _tell(state, What.STALE)


def acknowledge(state: State, now: float, by: str = "") -> State:
    """Somebody took the incident over: no more updates for a day, but for the all-clear."""
    return changed(state, acked=now, acked_by=by) if state.red else state


def wakes(state: State) -> float:
    """When time alone changes the state, or lets it be forgotten."""
    moments = [state.flips[-1] + STABLE] if state.flapping else []
    if state.red:
        moments.append(state.opened + BRIEF if state.brief else state.at + STALE)
    else:
        moments.append(state.at + FORGOTTEN)
    return min(moments)


def is_forgotten(state: State, now: float) -> bool:
    """True of what has been green, and built nothing, for so long that nobody need remember it."""
    return not state.red and not state.flapping and now >= state.at + FORGOTTEN


def _wait(state: State, now: float) -> Step:
    if state.flapping and now >= state.flips[-1] + STABLE:
        return _tell(changed(state, flapping=False, flips=()), What.OPENED if state.red else What.RESOLVED)
    if state.red and state.brief and now >= state.opened + BRIEF:
        return changed(state, red=False, acked=0.0), ()
    if state.red and now >= state.at + STALE:
        return close(state)
    return state, ()


def _break(state: State, end: End, now: float) -> Step:
    state = _failed(
        state,
        end,
        red=True,
        epoch=state.epoch + 1,
        opened=end.at if end.history else now,
        since=end.at,
        first=end.key[1],
        failures=1,
        authors=(end.author,),
        silent=end.history,
        told=state.told if state.flapping else (),
        acked=0.0,
    )
    return (state, ()) if end.history else _flip(state, What.OPENED, now)


def _fail_again(state: State, end: End, now: float) -> Step:
    news = (end.step, end.status) != (state.step, state.status) or end.author not in state.authors
    authors = state.authors
    if end.author not in authors and len(authors) < AUTHORS:
        authors = (*authors, end.author)
    state = _failed(
        state,
        end,
        failures=state.failures + (end.key != state.bad),
        authors=authors,
        silent=state.silent and end.history,
    )
    taken_over = state.acked > 0.0 and now < state.acked + BRIEF
    if end.history or state.brief or state.flapping or taken_over:
        return state, ()
    return _tell(state, What.CHANGED, news=news)


def _failed(state: State, end: End, **more: Any) -> State:
    """The state with `end` as its newest bad build, and what `more` says."""
    return changed(
        state,
        handled=end.key,
        at=end.at,
        bad=end.key,
        branch=end.branch,
        event=end.event,
        commit=end.commit,
        step=end.step,
        status=int(end.status),
        **more,
    )


def _mend(state: State, end: End, now: float) -> Step:
    was_red = state.red
    flaky = end.commit != "" and end.commit == state.commit
    bad = state.bad if state.bad != end.key else None
    state = changed(state, handled=end.key, at=end.at, red=False, bad=bad, acked=0.0)
    return _flip(state, What.RESOLVED, now, flaky=flaky) if was_red and not state.silent else (state, ())


def _flip(state: State, what: What, now: float, *, flaky: bool = False) -> Step:
    """Tells that the colour changed, unless it does so all the time."""
    flips = (*(at for at in state.flips if now - at < WITHIN), now)
    state = changed(state, flips=flips[-FLIPS:])
    if state.flapping:
        return state, ()
    if len(flips) < FLIPS:
        return _tell(state, what, flaky=flaky)
    return _tell(changed(state, flapping=True), What.FLAPPING)


def _tell(state: State, what: What, *, news: bool = True, flaky: bool = False) -> Step:
    state = changed(state, sequence=state.sequence + 1)
    return state, (Change(what, state.sequence, news, flaky),)


def _moved(state: State, fresh: State) -> State:
    """An open incident, with what all of its builds say of it."""
    return changed(
        state,
        since=fresh.since,
        first=fresh.first,
        failures=fresh.failures,
        bad=fresh.bad,
        branch=fresh.branch,
        event=fresh.event,
        commit=fresh.commit,
        step=fresh.step,
        status=fresh.status,
        authors=fresh.authors,
    )
