"""Incidents against a plain oracle that is told everything in order, and what holds in any order."""

from collections import Counter
from dataclasses import dataclass, replace

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace as changed

from exporter.incidents import (
    BRIEF,
    FLIPS,
    FORGOTTEN,
    STABLE,
    STALE,
    WITHIN,
    Change,
    End,
    State,
    What,
    acknowledge,
    advance,
    close,
    is_forgotten,
    restate,
    wakes,
)
from exporter.model import Status
from exporter.routes import Route, Routes, Subject

MAIN = State("push:main")
STATUSES = [
    Status.SUCCESS, Status.SUCCESS, Status.FAILURE, Status.FAILURE, Status.ERROR, Status.TIMEOUT,
    Status.CANCELLED, Status.SKIPPED, Status.UNKNOWN,
]  # fmt: skip
TARGETS = ("chat", "mail", "pager")
ROUTES = Routes(
    targets=TARGETS,
    routes=(
        Route(to=("chat",), failures=("error",)),
        Route(to=("mail",), failures=("failure",), goes_on=True),
        Route(to=("chat", "pager")),
    ),
)


@dataclass(frozen=True)
class Arrival:
    end: End
    now: float


@st.composite
def histories(draw: st.DrawFn) -> list[Arrival]:
    """Ends of one key in the order of their numbers and runs, the first of them maybe history."""
    chance = st.integers(0, 9)
    arrivals: list[Arrival] = []
    now, past = 1_000_000.0, draw(st.integers(0, 4))
    for number in range(1, draw(st.integers(1, 14)) + 1):
        run = 0
        while True:
            run += draw(st.integers(1, 3))
            gap = draw(st.sampled_from([1.0, 60.0, 600.0, WITHIN / 3, STABLE, WITHIN, 90_000.0]))
            now += gap
            failed = draw(st.sampled_from(["", "test", "lint"]))
            end = End(
                key=(0, number, run),
                status=draw(st.sampled_from(STATUSES)),
                at=now - draw(st.sampled_from([0.0, 0.0, 30.0])),
                history=number <= past,
                commit=draw(st.sampled_from(["", "c1", "c2"])),
                author=draw(st.sampled_from(["ann", "ben"])),
                step=failed,
            )
            arrivals.append(Arrival(end, now))
            if draw(chance) < 8:
                break
    return arrivals


class Oracle:
    """What people are to be told when everything arrives in order: kept as plain lists, changed in place."""

    def __init__(self) -> None:
        self.told: list[tuple[What, bool, bool]] = []
        self.bad: list[End] = []
        """The open incident's bad builds."""
        self.silent = False
        self.flips: list[float] = []
        self.storm = False

    def hear(self, end: End, now: float) -> None:
        if end.status is Status.SUCCESS:
            if self.bad and not self.silent:
                same = end.commit == self.bad[-1].commit != ""
                self.flip(What.RESOLVED, now, flaky=same)
            self.bad = []
        elif end.status in (Status.FAILURE, Status.ERROR, Status.TIMEOUT):
            if not self.bad:
                self.silent = end.history
                if not end.history:
                    self.flip(What.OPENED, now)
            elif not end.history:
                last, authors = self.bad[-1], {one.author for one in self.bad}
                news = (end.step, end.status) != (last.step, last.status) or end.author not in authors
                self.silent = False
                if not self.storm:
                    self.told.append((What.CHANGED, news, False))
            self.bad.append(end)

    def flip(self, what: What, now: float, *, flaky: bool = False) -> None:
        self.flips.append(now)
        if self.storm:
            return
        self.storm = sum(now - at < WITHIN for at in self.flips) >= FLIPS
        self.told.append((What.FLAPPING, True, False) if self.storm else (what, True, flaky))

    def wait(self, now: float) -> None:
        if self.storm and now >= self.flips[-1] + STABLE:
            self.storm, self.flips = False, []
            self.told.append((What.OPENED if self.bad else What.RESOLVED, True, False))
        # A gap is never long enough here for an incident to become stale.


def run(arrivals: list[Arrival], state: State = MAIN) -> tuple[State, list[tuple[int, bool, Change]]]:
    """All arrivals with the clock's look before each; changes with their epoch."""
    told = []
    for arrival in arrivals:
        for end in (None, arrival.end):
            state, changes = advance(state, end, arrival.now)
            told += [(state.epoch, state.silent, change) for change in changes]
    return state, told


@given(histories())
@settings(max_examples=400, deadline=None)
def test_in_order_it_is_exactly_what_a_plain_oracle_says(arrivals: list[Arrival]) -> None:
    oracle = Oracle()
    for arrival in arrivals:
        oracle.wait(arrival.now)
        oracle.hear(arrival.end, arrival.now)
    state, told = run(arrivals)
    assert [(change.what, change.news, change.flaky) for _, _, change in told] == oracle.told
    assert state.red is bool(oracle.bad)
    if oracle.bad:
        first, last = oracle.bad[0], oracle.bad[-1]
        assert (state.failures, state.first, state.since) == (len(oracle.bad), first.key[1], first.at)
        assert (state.bad, state.commit, state.step) == (last.key, last.commit, last.step)
        assert set(state.authors) == {end.author for end in oracle.bad}
        assert state.silent is oracle.silent


@given(histories(), st.data())
@settings(max_examples=400, deadline=None)
def test_in_any_order_the_colour_is_that_of_the_newest_end(
    arrivals: list[Arrival], data: st.DataObject
) -> None:
    ends = [arrival.end for arrival in arrivals]
    heard = data.draw(st.permutations(ends + data.draw(st.lists(st.sampled_from(ends), max_size=5))))
    now = arrivals[-1].now
    gap = data.draw(st.sampled_from([10.0, 2 * WITHIN]))
    state, per_target = MAIN, Counter[tuple[str, int, What]]()
    opened = Counter[int]()
    for end in heard:
        now += gap
        for one in (None, end):
            state, changes = advance(state, one, now)
            for change in changes:
                assert not (one is not None and one.history and change.what is not What.RESOLVED)
                subject = Subject("ci", "octo/hello", "main", "push", Status(state.status).word)
                targets = ROUTES.told(change, state, subject)
                per_target.update((target, state.epoch, change.what) for target in targets)
                opened[state.epoch] += change.what in (What.OPENED, What.FLAPPING)
                state = changed(state, told=tuple(dict.fromkeys((*state.told, *targets))))
    told = [end for end in ends if end.good or end.status.bad]
    newest = max(told, key=lambda end: end.key, default=None)
    assert state.handled == (newest.key if newest else None)
    assert state.red is (newest is not None and newest.status.bad)
    assert all(count == 1 for (_, _, what), count in per_target.items() if what is not What.CHANGED)
    for target, epoch, what in per_target:
        if what is What.RESOLVED and gap > WITHIN:
            told_red = [(target, epoch, kind) for kind in (What.OPENED, What.CHANGED)]
            assert any(per_target[one] for one in told_red), "an all-clear for what was never told"
    if gap > WITHIN:
        assert all(opened[epoch] <= 1 for epoch in opened)
        assert not any(what is What.FLAPPING for _, _, what in per_target)
    if all(end.history for end in ends):
        assert not per_target


@given(histories(), st.sampled_from(STATUSES))
@settings(max_examples=200, deadline=None)
def test_a_rewritten_end_is_told_as_if_it_changed_now(arrivals: list[Arrival], status: Status) -> None:
    ends = [replace(arrival.end, history=False) for arrival in arrivals]
    before, _ = run([Arrival(end, arrival.now) for end, arrival in zip(ends, arrivals, strict=True)])
    ends[-1] = replace(ends[-1], status=status)
    now = arrivals[-1].now + 2 * WITHIN
    before, _ = advance(before, None, now)
    after, changes = restate(before, ends, now)
    fresh, _ = run([Arrival(end, 2 * WITHIN * place) for place, end in enumerate(ends)])
    assert after.red is fresh.red
    assert after.handled == fresh.handled or fresh.handled is None
    turned = [What.OPENED] if after.red else [What.STALE if fresh.handled is None else What.RESOLVED]
    assert [change.what for change in changes] == ([] if after.red is before.red else turned)
    again, nothing = restate(after, ends, now)
    assert (again, nothing) == (after, ())
    if after.red is before.red is True:
        assert (after.since, after.failures, after.first) == (fresh.since, fresh.failures, fresh.first)


def bad(number: int, status: Status = Status.FAILURE, **about: object) -> End:
    return replace(End(key=(0, number, 1), status=status, at=100.0 * number), **about)  # type: ignore[arg-type]


def good(number: int, **about: object) -> End:
    return bad(number, Status.SUCCESS, **about)


def test_a_branch_red_in_history_is_told_at_its_next_failure() -> None:
    state, changes = advance(MAIN, bad(1, history=True), 1000.0)
    assert (state.red, state.silent, changes) == (True, True, ())
    state, changes = advance(state, bad(2, history=True), 1000.0)
    assert changes == ()
    live, changes = advance(state, bad(3), 1000.0)
    assert [(change.what, change.news) for change in changes] == [(What.CHANGED, False)]
    subject = Subject("ci", "octo/hello", "main", "push", "failure")
    assert Routes(targets=("chat",)).told(changes[0], live, subject) == ("chat",)
    assert (live.since, live.first, live.failures) == (100.0, 1, 3)
    green, changes = advance(state, good(3), 1000.0)
    assert (green.red, changes) == (False, ())


def test_more_history_moves_red_since_back_and_tells_nothing() -> None:
    state, _ = advance(MAIN, bad(5, at=500.0), 500.0)
    state = changed(state, told=("chat",))
    history = [good(1, history=True), *(bad(number, history=True) for number in (2, 3, 4))]
    moved, changes = restate(state, [*history, bad(5)], 600.0)
    assert changes == ()
    assert (moved.since, moved.first, moved.failures) == (200.0, 2, 4)
    assert (moved.told, moved.epoch, moved.opened) == (("chat",), state.epoch, state.opened)


def test_what_was_acknowledged_is_told_again_when_it_is_fixed_or_a_day_later() -> None:
    state, _ = advance(MAIN, bad(1), 1000.0)
    taken = acknowledge(state, 1000.0)
    quiet, changes = advance(taken, bad(2, step="lint", author="eve"), 1100.0)
    assert (quiet.failures, changes) == (2, ())
    assert [c.what for c in advance(quiet, good(3), 1200.0)[1]] == [What.RESOLVED]
    assert [c.what for c in advance(quiet, bad(3, step="x"), 1000.0 + BRIEF)[1]] == [What.CHANGED]
    assert advance(quiet, good(3), 1200.0)[0].acked == 0
    assert acknowledge(MAIN, 5.0) == MAIN


def test_a_tag_is_told_once_and_closes_by_itself() -> None:
    state, changes = advance(State("tag:v1"), bad(1), 1000.0)
    assert [change.what for change in changes] == [What.OPENED]
    state, changes = advance(state, bad(2, step="other"), 1001.0)
    assert changes == ()
    assert wakes(state) == 1000.0 + BRIEF
    closed, changes = advance(state, None, 1000.0 + BRIEF)
    assert (closed.red, changes) == (False, ())
    assert restate(closed, [bad(1), bad(2)], 99_999.0)[1] == ()
    assert [c.what for c in advance(state, good(3), 1002.0)[1]] == [What.RESOLVED]


def test_nothing_for_thirty_days_closes_without_claiming_that_it_is_fixed() -> None:
    state, _ = advance(MAIN, bad(1, at=0.0), 10.0)
    assert wakes(state) == STALE
    assert advance(state, None, STALE - 1) == (state, ())
    closed, changes = advance(state, None, STALE)
    assert (closed.red, [change.what for change in changes]) == (False, [What.STALE])
    assert close(closed) == (closed, ())
    # The same end again, as a list shows it, is no news; a later one is a new incident.
    assert advance(closed, bad(1, at=0.0), STALE + 1) == (closed, ())
    again, changes = advance(closed, bad(2), STALE + 1)
    assert (again.epoch, [change.what for change in changes]) == (2, [What.OPENED])


def test_a_key_that_flaps_is_told_once_until_it_is_stable() -> None:
    state, told = MAIN, []
    for number in range(1, 9):
        end = bad(number) if number % 2 else good(number)
        state, changes = advance(state, end, 60.0 * number)
        told += [change.what for change in changes]
    assert told == [What.OPENED, What.RESOLVED, What.OPENED, What.FLAPPING]
    assert wakes(state) == 480.0 + STABLE
    state, changes = advance(state, None, 480.0 + STABLE)
    assert [change.what for change in changes] == [What.RESOLVED]
    assert wakes(state) == state.at + FORGOTTEN
    assert is_forgotten(state, wakes(state))
    assert not is_forgotten(state, wakes(state) - 1)
    assert [c.what for c in advance(state, bad(9), 3000.0)[1]] == [What.OPENED]
