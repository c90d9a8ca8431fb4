"""What is recorded, and what people are told of it, in one transaction."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from desk import REPO, START, Desk, build, made
from hypothesis import given
from hypothesis import strategies as st

from exporter.incidents import FORGOTTEN, STABLE, STALE, State, advance
from exporter.ledger import Ledger, LedgerError, messages, states, watched
from exporter.ledger.runs import new_run
from exporter.ledger.schema import DEAD, HELD, NEWEST, SETTLED, SUPERSEDED, UNREAD, WAITING, WHOLE
from exporter.ledger.watched import RepoState
from exporter.model import Event, Status, Step
from exporter.routes import CATCH_UP, LATE, STORM_WITHIN, Hold, Quiet, Route, Routes

BAD, GOOD, CANCELLED, ERROR = Status.FAILURE, Status.SUCCESS, Status.CANCELLED, Status.ERROR
CHAT = Routes(targets=("chat",))
BOTH = Routes(targets=("chat", "mail"))
OTHER = "octo/other"


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = made(tmp_path)
    yield ledger
    ledger.close()


def test_a_branch_that_turns_red_and_green_is_told_with_the_reason(ledger: Ledger) -> None:
    desk = Desk(ledger, BOTH)
    desk.take(build(1, GOOD), build(2, BAD), build(3, BAD), build(4, GOOD))
    assert desk.told("chat") == desk.told("mail") == [("opened", 2), ("resolved", 4)]
    opened, resolved = (row.told for row in desk.rows("chat"))
    assert (opened.step, opened.exit_code, opened.status) == ("test", 2, "failure")
    assert (opened.repo, opened.branch, opened.url) == (REPO, "main", f"http://ci.example.com/{REPO}/2")
    assert (opened.commit, opened.author, opened.title, opened.duration) == ("c2", "ann", "Parse dates", 50)
    assert (resolved.since, resolved.failures, resolved.first) == (START + 20, 2, 2)
    assert len({row.key for row in desk.rows()}) == 4
    assert {row.thread for row in desk.rows()} == {"1 push:main"}
    assert desk.bridge.due.is_set()


def test_a_message_and_what_it_tells_of_are_written_together_or_not_at_all(ledger: Ledger) -> None:
    desk = Desk(ledger, CHAT)

    def fails(_conn: object) -> None:
        raise LedgerError("the disk is full")

    with pytest.raises(LedgerError):
        desk.take(build(1, BAD), within=fails)
    assert desk.told() == []
    again = Desk(ledger, CHAT)
    again.take(build(1, BAD))
    again.take(build(1, BAD))
    assert again.told() == [("opened", 1)]


def test_the_same_and_older_answers_after_a_restart_tell_nothing(ledger: Ledger) -> None:
    Desk(ledger, CHAT).take(build(1, GOOD), build(3, BAD))
    desk = Desk(ledger, CHAT)
    desk.take(build(2, GOOD), build(3, BAD))
    desk.take(build(4, CANCELLED))
    assert desk.told() == [("opened", 3)]
    desk.take(build(5, GOOD))
    assert desk.told() == [("opened", 3), ("resolved", 5)]


def test_events_do_not_clear_each_other(ledger: Ledger) -> None:
    desk = Desk(ledger, CHAT)
    about = {
        "cron": {"event": Event.CRON, "cron": "nightly"},
        "deploy": {"event": Event.DEPLOYMENT, "environment": "prod"},
        "tag": {"event": Event.TAG, "ref": "refs/tags/v1"},
        "pull": {"event": Event.PULL_REQUEST, "ref": "refs/pull/7/head"},
        "manual": {"event": Event.MANUAL},
    }
    desk.take(*(build(number, BAD, **of) for number, of in enumerate(about.values(), 1)))  # type: ignore[arg-type]
    desk.take(build(6, GOOD))
    assert desk.told() == [("opened", 1), ("opened", 2), ("opened", 3), ("opened", 5)]
    assert [row.told.ref for row in desk.rows()] == ["cron nightly", "deployment to prod", "tag v1", ""]


def test_pull_requests_are_told_where_a_route_names_them(ledger: Ledger) -> None:
    desk = Desk(ledger, Routes(("chat",), (Route(("chat",), events=("pull_request",)),)))
    pull = {"event": Event.PULL_REQUEST, "ref": "refs/pull/7/head"}
    desk.take(build(1, BAD, **pull), build(2, BAD))  # type: ignore[arg-type]
    assert desk.told() == [("opened", 1)]
    assert desk.rows()[0].told.ref == "pull request 7"


def test_what_only_leaves_out_is_never_told(ledger: Ledger) -> None:
    desk = Desk(ledger, CHAT)
    desk.intake.policy = replace(desk.intake.policy, counts=lambda event, _: event != "push")
    desk.take(build(1, BAD))
    assert desk.told() == []


def test_a_restart_in_place_that_passes_is_told_as_flaky(ledger: Ledger) -> None:
    desk = Desk(ledger, CHAT)
    desk.take(build(1, BAD))
    desk.take(build(1, GOOD, at=200, created=START - 50, commit="c1"))
    assert desk.told() == [("opened", 1), ("resolved", 1)]
    assert [row.told.flaky for row in desk.rows()] == [False, True]


def test_history_is_never_told_and_its_red_branches_are_known(ledger: Ledger) -> None:
    desk = Desk(ledger, CHAT, history=4)
    desk.now = START + 300.0
    desk.take(build(6, BAD))
    assert (desk.roster.repos[REPO].judged, desk.told()) == (UNREAD, [])
    desk.read_history(build(4, BAD, at=-100), build(3, BAD, at=-200), down_to=3)
    assert desk.roster.repos[REPO].judged == NEWEST
    # The branch was red before: its live failure is told as such, once the newest page says so.
    assert desk.told() == [("changed", 6)]
    assert (desk.rows()[0].told.first, desk.rows()[0].told.failures) == (3, 3)
    desk.read_history(build(2, BAD, at=-300), build(1, GOOD, at=-400))
    assert desk.roster.repos[REPO].judged == WHOLE
    assert (desk.state().first, desk.state().failures, desk.state().told) == (2, 4, ("chat",))
    assert desk.state().since == START - 300
    desk.take(build(7, GOOD))
    assert desk.told() == [("changed", 6), ("resolved", 7)]


def test_a_branch_that_history_left_red_turns_green_in_silence(ledger: Ledger) -> None:
    desk = Desk(ledger, CHAT, history=2)
    desk.read_history(build(2, BAD, at=-100), build(1, GOOD, at=-200))
    assert desk.state().red
    assert desk.state().silent
    desk.take(build(3, GOOD))
    assert (desk.told(), desk.state().red) == ([], False)


def test_a_branch_that_was_green_in_history_opens(ledger: Ledger) -> None:
    desk = Desk(ledger, CHAT, history=2)
    desk.take(build(3, BAD))
    desk.read_history(build(2, GOOD, at=-100), build(1, BAD, at=-200))
    assert desk.told() == [("opened", 3)]
    assert desk.rows()[0].told.first == 3


def test_history_is_taken_in_once_all_of_it_is_read_or_somebody_waits_for_it(ledger: Ledger) -> None:
    desk = Desk(ledger, CHAT, history=4, repos=(REPO, OTHER))
    desk.now = START + 300.0
    repo, other = (desk.roster.repos[name] for name in (REPO, OTHER))
    desk.read_history(build(4, GOOD, at=-100), build(3, BAD, at=-200), down_to=3)
    assert repo.judged == UNREAD
    desk.take(build(6, BAD))
    assert (repo.judged, desk.told()) == (NEWEST, [("opened", 6)])
    desk.read_history(build(4, BAD, at=-100, repo=OTHER), down_to=4, repo=OTHER)
    assert other.judged == UNREAD
    desk.read_history(build(3, BAD, at=-200, repo=OTHER), repo=OTHER)
    assert (other.judged, desk.state(repo=OTHER).first) == (WHOLE, 3)


def test_a_publishing_waits_for_no_history(ledger: Ledger) -> None:
    step = Step(name="publish", status=ERROR, apart=True, finished=START + 100, exit_code=0)
    desk = Desk(ledger, CHAT, history=4)
    desk.now = START + 300.0
    desk.read_history(build(4, GOOD, at=-100), down_to=3)
    desk.take(build(4, GOOD, at=-100, steps=(step,)))
    assert desk.told() == [("opened", 4)]


@given(
    st.lists(
        st.tuples(st.sampled_from([BAD, GOOD, CANCELLED, ERROR]), st.booleans(), st.sampled_from("ab")),
        max_size=12,
    )
)
def test_ends_that_are_left_out_leave_no_trace(told: list[tuple[Status, bool, str]]) -> None:
    repo = RepoState(id=1, server="ci", name=REPO)
    ended = [build(number, status, commit=commit) for number, (status, _, commit) in enumerate(told, 1)]
    runs = [new_run(1, 0, each) for each in ended]
    for run, (_, counted, _) in zip(runs, told, strict=True):
        run.counted, run.state, run.ref_class = counted, SETTLED, "push:main"
    every = [states.to_end(r, history=not r.counted, at=r.when_ended, step="") for r in runs]
    few = [end for _, end in states.ends(repo, runs, {}, 0.0)]
    for history in (False, True):  # as they are, and taken for history as a whole
        folded = []
        for ends in (every, few):
            state, changes = State("push:main"), []
            for end in ends:
                state, told_now = advance(state, replace(end, history=end.history or history), START)
                changes += told_now
            folded.append((state, changes))
        assert folded[0] == folded[1]


def test_a_history_that_cannot_be_read_keeps_nobody_waiting_for_ever(ledger: Ledger) -> None:
    desk = Desk(ledger, CHAT, history=2)
    desk.now = START + 500.0
    desk.take(build(3, BAD))
    desk.intake.settle(behind=False)
    assert desk.told() == []
    desk.now = START + 700.0
    desk.intake.settle(behind=False)
    assert desk.told() == [("opened", 3)]


def test_builds_that_the_ledger_had_before_are_history(ledger: Ledger) -> None:
    """A class whose state was never kept is computed from what is recorded."""
    desk = Desk(ledger, CHAT)
    desk.take(build(1, BAD))
    with ledger.transaction() as conn:
        states.drop_states(conn, desk.roster.repos[REPO].id, ["push:main"])
    desk.take(build(2, BAD, author="ben"))
    assert desk.told() == [("opened", 1), ("changed", 2)]
    assert (desk.state().first, desk.state().failures) == (1, 2)


def test_a_rewritten_end_is_told_and_not_counted_again(ledger: Ledger) -> None:
    """ABF: a worker still reports of a build that was cancelled; a bulk change makes a success a failure."""
    desk = Desk(ledger, CHAT)
    desk.take(build(1, BAD), build(2, CANCELLED))
    desk.take(build(2, GOOD))
    assert desk.told() == [("opened", 1), ("resolved", 2)]
    desk.take(build(2, BAD))
    assert desk.told() == [("opened", 1), ("resolved", 2), ("opened", 2)]
    desk.take(build(1, GOOD))
    assert len(desk.told()) == 3


def test_a_failed_publishing_is_an_incident_of_its_own(ledger: Ledger) -> None:
    def publish(number: int, status: Status) -> object:
        step = Step(name="publish", status=status, apart=True, finished=START + 900, exit_code=0)
        return build(number, GOOD, event=Event.MANUAL, branch="rosa/main/x86_64", steps=(step,))

    desk = Desk(ledger, CHAT)
    desk.take(publish(1, Status.RUNNING))  # type: ignore[arg-type]
    desk.take(publish(1, ERROR))  # type: ignore[arg-type]
    desk.take(publish(1, ERROR))  # type: ignore[arg-type]
    desk.take(publish(2, CANCELLED))  # type: ignore[arg-type]
    assert desk.told() == [("opened", 1)]
    assert desk.rows()[0].thread.endswith("publish:rosa/main/x86_64")
    assert desk.rows()[0].told.step == "publish"
    desk.take(publish(3, GOOD))  # type: ignore[arg-type]
    assert desk.told() == [("opened", 1), ("resolved", 3)]


def test_a_late_opening_waits_and_is_a_line_where_it_is_green_again(ledger: Ledger) -> None:
    desk = Desk(ledger, CHAT, repos=(REPO, "octo/other"))
    desk.now = START + 100 + LATE + 60
    other = {"repo": "octo/other"}
    desk.take(build(1, BAD, at=100), build(1, BAD, at=110, **other))  # type: ignore[arg-type]
    assert [(row.state, row.hold) for row in desk.rows()] == 2 * [(HELD, Hold.UNREAD)]
    desk.take(build(2, GOOD, at=LATE + 150, **other))  # type: ignore[arg-type]
    assert desk.rows()[-1].hold == Hold.UNREAD
    desk.bridge.settle("ci", behind=False)
    assert [(row.kind, row.state, row.hold) for row in desk.rows()] == [
        ("opened", WAITING, Hold.NO),
        ("opened", HELD, Hold.DIGEST),
        ("resolved", HELD, Hold.DIGEST),
        ("digest", WAITING, Hold.NO),
    ]


def test_what_is_red_for_hours_when_it_can_be_told_is_a_line(ledger: Ledger) -> None:
    desk = Desk(ledger, CHAT)
    desk.now = START + 7 * 3600
    desk.take(build(1, BAD, at=100))
    desk.bridge.settle("ci", behind=False)
    assert [row.kind for row in desk.rows()] == ["opened", "digest"]


def test_while_much_is_unread_nothing_goes_out_and_then_the_net_of_it(ledger: Ledger) -> None:
    desk = Desk(ledger, CHAT)
    desk.take(build(1, BAD))
    desk.bridge.settle("ci", behind=True)
    desk.take(build(2, GOOD), build(3, BAD, author="ben"))
    assert [row.state for row in desk.rows()] == [WAITING, HELD, HELD]
    desk.bridge.settle("ci", behind=False)
    assert [row.state for row in desk.rows()] == [WAITING, SUPERSEDED, WAITING]
    assert desk.rows()[1].into_id == desk.rows()[2].id


def test_a_catch_up_that_does_not_end_is_told_after_ten_minutes(ledger: Ledger) -> None:
    desk = Desk(ledger, CHAT)
    desk.bridge.settle("ci", behind=True)
    desk.take(build(1, BAD))
    desk.now += CATCH_UP - 1
    desk.bridge.tick()
    assert [row.state for row in desk.rows()] == [HELD]
    desk.now += 2
    desk.bridge.tick()
    assert [row.state for row in desk.rows()] == [WAITING]


def test_from_the_sixth_opening_on_a_storm_is_one_digest(ledger: Ledger) -> None:
    repos = tuple(f"octo/r{number}" for number in range(9))
    desk = Desk(ledger, BOTH, repos=repos)
    for name in repos[:7]:
        desk.take(build(1, BAD, at=990, repo=name))
    desk.now += 60
    desk.take(*(build(1, BAD, at=1050, repo=name) for name in repos[7:]))
    desk.take(build(2, GOOD, at=1055, repo=repos[6]))
    chat = desk.rows("chat")
    assert [row.hold for row in chat] == [Hold.NO] * 5 + [Hold.STORM] * 5
    assert len({row.due for row in chat if row.hold}) == 1
    desk.now += STORM_WITHIN
    desk.bridge.tick()
    for target in ("chat", "mail"):
        digest = desk.rows(target)[-1]
        assert (digest.kind, digest.state) == ("digest", WAITING)
        members = [row for row in desk.rows(target) if row.into_id == digest.id]
        assert len(members) == 5


def test_a_storm_of_zero_tells_all(ledger: Ledger) -> None:
    repos = tuple(f"octo/r{number}" for number in range(9))
    desk = Desk(ledger, Routes(("chat",), storm=0), repos=repos)
    desk.take(*(build(1, BAD, at=990, repo=name) for name in repos))
    assert [row.state for row in desk.rows()] == [WAITING] * 9


def test_a_mute_delays_and_drops_nothing(ledger: Ledger) -> None:
    desk = Desk(ledger, CHAT, repos=(REPO, "octo/other"))
    with ledger.transaction() as conn:
        states.mute(conn, "ci", REPO, desk.now + 3600)
    desk.take(build(1, BAD), build(1, BAD, repo="octo/other"))
    assert [(row.told.repo, row.hold) for row in desk.rows()] == [(REPO, Hold.MUTED), ("octo/other", Hold.NO)]
    desk.now += 3600
    desk.bridge.tick()
    assert [row.state for row in desk.rows()] == [WAITING, WAITING]
    with ledger.reading() as conn:
        assert messages.muted(conn) == {("ci", REPO): desk.now}
        assert states.muted_until(conn, "ci", REPO, desk.now) == 0


def quiet_night() -> Routes:
    """Quiet hours that have just begun when a desk's clock starts, and last for an hour."""
    begins = datetime.fromtimestamp(START + 700, UTC).time().replace(second=0)
    ends = begins.replace(hour=(begins.hour + 1) % 24)
    return Routes(("chat",), quiet=(Quiet(begins, ends, ZoneInfo("UTC")),))


def test_a_storm_within_quiet_hours_wakes_nobody(ledger: Ledger) -> None:
    repos = tuple(f"octo/r{number}" for number in range(8))
    desk = Desk(ledger, quiet_night(), repos=repos)
    desk.take(*(build(1, BAD, at=690, repo=name) for name in repos))
    desk.now += STORM_WITHIN
    desk.bridge.tick()
    assert [(row.state, row.hold) for row in desk.rows()] == [(HELD, Hold.QUIET)] * 8
    desk.now += 3600
    desk.bridge.tick()
    assert [row.state for row in desk.rows()] == [WAITING] * 8


def test_what_was_read_late_waits_for_the_end_of_quiet_hours(ledger: Ledger) -> None:
    desk = Desk(ledger, quiet_night())
    desk.now += LATE + 300
    desk.take(build(1, BAD))
    assert desk.rows()[0].hold == Hold.UNREAD
    desk.bridge.settle("ci", behind=False)
    assert [(row.state, row.hold) for row in desk.rows()] == [(HELD, Hold.QUIET)]
    desk.take(build(2, GOOD, at=1890))
    desk.now += 3600
    desk.bridge.tick()
    assert [row.kind for row in desk.rows() if row.state == WAITING] == ["digest"]


def test_a_clock_that_is_set_back_holds_nothing_for_longer(ledger: Ledger) -> None:
    repos = tuple(f"octo/r{number}" for number in range(6))
    desk = Desk(ledger, CHAT, repos=repos)
    desk.take(*(build(1, BAD, at=690, repo=name) for name in repos))
    assert desk.rows()[-1].hold == Hold.STORM
    desk.bridge.tick()
    assert desk.rows()[-1].state == HELD
    desk.now -= 7200
    desk.bridge.tick()
    assert (desk.rows()[-1].kind, desk.rows()[-1].state) == ("digest", WAITING)


def test_a_mute_that_was_made_longer_holds_what_waits(ledger: Ledger) -> None:
    desk = Desk(ledger, CHAT)
    begin = desk.now
    for length in (3600, 7200):
        with ledger.transaction() as conn:
            states.mute(conn, "ci", "", begin + length)
        desk.take(build(1, BAD))
    desk.now = begin + 3600
    desk.bridge.tick()
    assert [(row.state, row.due) for row in desk.rows()] == [(HELD, begin + 7200)]
    desk.now = begin + 7200
    desk.bridge.tick()
    assert [row.state for row in desk.rows()] == [WAITING]


def test_a_repo_that_is_gone_closes_its_incidents(ledger: Ledger) -> None:
    desk = Desk(ledger, CHAT)
    desk.take(build(1, BAD))
    repo = desk.roster.repos[REPO]
    with ledger.transaction() as conn:
        desk.intake.gone(conn, [repo.id])
        repo.gone = True
        watched.write_repos(conn, [repo])
        desk.intake.gone(conn, [repo.id])
        desk.intake.gone(conn, [repo.id])
    assert desk.told() == [("opened", 1), ("stale", 1)]


def test_an_incident_ends_with_a_message_though_its_build_is_not_kept_any_more(ledger: Ledger) -> None:
    desk = Desk(ledger, CHAT)
    deployed = {"event": Event.DEPLOYMENT, "environment": "prod"}
    desk.take(build(1, BAD), build(2, BAD, **deployed))  # type: ignore[arg-type]
    with ledger.transaction() as conn:
        for table in ("steps", "builds"):
            conn.exec_driver_sql(f"DELETE FROM {table}")
    desk.now += STALE
    desk.bridge.tick()
    assert desk.told() == [("opened", 1), ("opened", 2), ("stale", 1), ("stale", 2)]
    before, after = (row.told for row in desk.rows()[1::2])
    for name in ("repo", "branch", "ref", "event", "commit", "author", "url", "since", "first", "failures"):
        assert getattr(after, name) == getattr(before, name), name


def test_a_held_message_that_cannot_be_read_holds_no_other(ledger: Ledger) -> None:
    desk = Desk(ledger, CHAT, repos=(REPO, "octo/other"))
    with ledger.transaction() as conn:
        states.mute(conn, "ci", "", desk.now + 3600)
    desk.take(build(1, BAD), build(1, BAD, repo="octo/other"))
    with ledger.transaction() as conn:
        conn.exec_driver_sql("UPDATE outbox SET facts = '{' WHERE id = 1")
    desk.now += 3600
    desk.bridge.tick()
    assert [row.state for row in desk.rows()] == [DEAD, WAITING]


def test_flapping_is_told_once_and_then_how_it_ended(ledger: Ledger) -> None:
    desk = Desk(ledger, CHAT)
    for number in range(1, 8):
        desk.now += 20
        desk.take(build(number, BAD if number % 2 else GOOD, at=1000 + 20 * number))
    assert [kind for kind, _ in desk.told()] == ["opened", "resolved", "opened", "flapping"]
    desk.now += STABLE
    assert desk.bridge.tick() == {desk.roster.repos[REPO].id}
    assert desk.told()[4:] == [("opened", 7)]
    assert desk.bridge.tick() == set()


def test_a_target_that_came_later_is_told_once_that_it_is_still_red(ledger: Ledger) -> None:
    Desk(ledger, CHAT).take(build(1, BAD))
    desk = Desk(ledger, BOTH)
    desk.take(build(2, BAD), build(3, BAD), build(4, GOOD))
    assert desk.told("chat") == [("opened", 1), ("resolved", 4)]
    assert desk.told("mail") == [("changed", 2), ("resolved", 4)]


def test_what_was_green_for_long_is_forgotten(ledger: Ledger) -> None:
    desk = Desk(ledger, CHAT)
    desk.take(build(1, BAD), build(2, GOOD))
    desk.now = START + 20 + FORGOTTEN
    assert desk.bridge.tick() == set()
    with ledger.reading() as conn:
        assert states.all_states(conn, desk.roster.repos[REPO].id) == {}
