"""What an Alertmanager is to be told: which incidents, from when to when, as which labels and annotations."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from datetime import datetime, time
from pathlib import Path
from time import sleep
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from desk import REPO, START, Desk, build, made
from hypothesis import given
from hypothesis import strategies as st
from process import until
from receiver import HOSTILE, INVISIBLE, hostile, notice

from exporter.incidents import STABLE, State
from exporter.ledger import Ledger, messages, states, watched
from exporter.ledger.alerts import Alert, alerts_of
from exporter.ledger.messages import Row
from exporter.ledger.schema import WAITING
from exporter.ledger.watched import RepoState
from exporter.model import Event, Status
from exporter.notify.alert_book import GIVEN_UP, KEPT, AlertBook
from exporter.notify.alerts import annotations_of, labels_of, posted
from exporter.notify.logs import once
from exporter.routes import CATCH_UP, Quiet, Route, Routes

BAD, GOOD = Status.FAILURE, Status.SUCCESS
AM = frozenset({"am"})
ROUTES = Routes(targets=("am",), without_messages=AM)
PEERS = ("http://a:9093", "http://b:9093")


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = made(tmp_path)
    yield ledger
    ledger.close()


def opened(desk: Desk, routes: Routes = ROUTES, **options: Any) -> AlertBook:
    """A book that looks at everything every time, by the desk's clock."""
    known: dict[str, Any] = {"servers": ["ci"], "interval": 0.0, "clock": lambda: desk.now, **options}
    return AlertBook("am", PEERS, desk.ledger, routes, known.pop("servers"), desk.bridge.waits, **known)


def looked(book: AlertBook) -> list[Alert]:
    known = book.look()
    assert known is not None
    return list(known[1])


def told(alert: Alert) -> dict[str, str]:
    found: dict[str, str] = json.loads(alert.annotations)
    return found


def labels(alert: Alert) -> dict[str, str]:
    """Without those that all have."""
    found: dict[str, str] = json.loads(alert.labels)
    assert found.pop("alertname") == "CIBuildFailed"
    assert found.pop("severity") == "warning"
    assert found.pop("server") == "ci"
    assert found.pop("repo") == REPO
    return found


def test_an_incident_is_one_alert_until_all_know_that_it_is_over(ledger: Ledger) -> None:
    desk = Desk(ledger, ROUTES)
    book = opened(desk)
    desk.take(build(1, BAD))
    (alert,) = looked(book)
    assert (alert.opened, alert.resolved, alert.url) == (desk.now, 0, f"http://ci.example.com/{REPO}/1")
    assert told(alert)["summary"] == f"{REPO} main #1 failed at step test (exit 2)"
    desk.take(build(2, BAD, author="bob"))
    (later,) = looked(book)
    assert (later.labels, later.opened) == (alert.labels, alert.opened)
    assert told(later)["summary"] == f"{REPO} main is still red: #2 failed at step test (exit 2)"
    assert [told(later)[name] for name in ("build", "author", "step", "failures")] == [
        "2",
        "bob",
        "test",
        "2",
    ]

    desk.now += 60
    desk.take(build(3, GOOD))
    (over,) = looked(opened(desk))
    assert (over.labels, over.opened, over.resolved) == (alert.labels, alert.opened, desk.now)
    assert "main is green again: #3" in told(over)["summary"]
    book = opened(desk)
    looked(book)
    book.took(PEERS[0], [over])
    desk.now += KEPT + 1
    book.took(PEERS[1], [over])
    desk.now += KEPT - 1
    assert len(looked(opened(desk))) == 1
    desk.now += 2
    assert looked(opened(desk)) == []
    with ledger.reading() as conn:
        assert alerts_of(conn, "am") == []


def test_a_resolve_that_nobody_takes_is_told_for_a_month(ledger: Ledger) -> None:
    desk = Desk(ledger, ROUTES)
    book = opened(desk)
    desk.take(build(1, BAD))
    looked(book)
    desk.take(build(2, GOOD))
    looked(book)
    desk.now += GIVEN_UP - 1
    assert len(looked(book)) == 1
    desk.now += 2
    assert looked(book) == []


def test_what_turns_red_again_is_no_resolve_any_more(ledger: Ledger) -> None:
    desk = Desk(ledger, ROUTES)
    book = opened(desk)
    for number, status in enumerate((BAD, GOOD), 1):
        desk.take(build(number, status))
        (over,) = looked(book)
    desk.now += 30
    desk.take(build(3, BAD))
    (again,) = looked(book)
    assert (again.labels, again.opened, again.resolved) == (over.labels, desk.now, 0)
    book.took(PEERS[0], [over])
    assert looked(opened(desk)) == [again]


def test_deployments_from_another_branch_are_an_alert_of_their_own(ledger: Ledger) -> None:
    desk = Desk(ledger, ROUTES)
    book = opened(desk)
    about: dict[str, object] = {"event": Event.DEPLOYMENT, "environment": "prod"}
    seen = []
    for number, (status, branch) in enumerate(((BAD, "main"), (BAD, "dev"), (GOOD, "dev"), (BAD, "dev")), 1):
        desk.take(build(number, status, branch=branch, **about))
        seen.append({(labels(alert)["branch"], alert.resolved > 0) for alert in looked(book)})
    assert seen == [
        {("main", False)}, {("main", False)}, {("main", True)}, {("main", True), ("dev", False)}
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("about", "expected"),
    [
        ({}, {"event": "push", "branch": "main"}),
        ({"event": Event.MANUAL, "branch": ""}, {"event": "manual"}),
        ({"event": Event.CRON, "cron": "a:b"}, {"event": "cron", "branch": "main", "cron": "a:b"}),
        (
            {"event": Event.DEPLOYMENT, "environment": "prod"},
            {"event": "deployment", "branch": "main", "environment": "prod"},
        ),
        ({"event": Event.TAG, "ref": "refs/tags/v1", "branch": ""}, {"event": "tag", "ref": "v1"}),
        (
            {"event": Event.PULL_REQUEST, "ref": "refs/pull/7/head"},
            {"event": "pull_request", "branch": "main", "ref": "7"},
        ),
    ],
)
def test_the_labels_of_each_event(ledger: Ledger, about: dict[str, object], expected: dict[str, str]) -> None:
    routes = Routes(("am",), (Route(("am",), events=tuple(Event)),), without_messages=AM)
    desk = Desk(ledger, routes)
    desk.take(build(1, BAD, **about))
    (alert,) = looked(opened(desk, routes))
    assert labels(alert) == expected


def test_routes_choose_and_nothing_else_is_sent_there(ledger: Ledger) -> None:
    routes = Routes(
        ("am", "chat"), (Route(("am",), branches=("main",)), Route(("chat",))), without_messages=AM
    )
    desk = Desk(ledger, routes)
    book = opened(desk, routes)
    desk.take(build(1, BAD), build(2, BAD, branch="dev"))
    assert [labels(alert)["branch"] for alert in looked(book)] == ["main"]
    assert [(row.target, row.told.branch) for row in desk.rows()] == [("chat", "dev")]
    # A route that is taken away later does not let what is open there burn for ever.
    nowhere = opened(desk, Routes(("am", "chat"), (Route(("chat",)),), without_messages=AM))
    assert [alert.resolved for alert in looked(nowhere)] == [0]
    desk.take(build(3, GOOD))
    assert [alert.resolved for alert in looked(nowhere)] == [desk.now]


def test_history_is_not_told(ledger: Ledger) -> None:
    desk = Desk(ledger, ROUTES, history=1)
    book = opened(desk)
    desk.read_history(build(1, BAD, at=-900))
    assert desk.state().red
    assert looked(book) == []
    desk.take(build(2, BAD))
    (alert,) = looked(book)
    assert alert.opened == desk.state().opened


def test_quiet_hours_and_mutes_delay_what_begins(ledger: Ledger) -> None:
    desk = Desk(ledger, ROUTES)
    here = datetime.fromtimestamp(desk.now, ZoneInfo("UTC"))
    hours = Quiet(time(here.hour), time((here.hour + 1) % 24), ZoneInfo("UTC"))
    quiet = Routes(("am",), quiet=(hours,), without_messages=AM)
    desk.take(build(1, BAD), build(2, BAD, event=Event.TAG, ref="refs/tags/v1"))
    assert [labels(alert)["event"] for alert in looked(opened(desk, quiet))] == ["tag"]
    desk.now += 3600
    assert len(looked(opened(desk, quiet))) == 2
    with ledger.transaction() as conn:
        states.mute(conn, "ci", "", desk.now + 100)
    desk.take(build(3, BAD, desk.now - START, branch="dev"), build(4, GOOD))
    book = opened(desk)
    assert {(a.ref_class, a.resolved) for a in looked(book)} == {("push:main", desk.now), ("tag:v1", 0)}
    desk.now += 101
    assert len(looked(book)) == 3


def test_what_may_be_over_already_is_not_told_before_all_is_read(ledger: Ledger) -> None:
    desk = Desk(ledger, ROUTES)
    book = opened(desk)
    desk.bridge.settle("ci", behind=True)
    desk.take(build(1, BAD))
    assert looked(book) == []
    desk.bridge.settle("ci", behind=False)
    assert len(looked(book)) == 1
    desk.now += 3600
    desk.take(build(200, BAD, branch="late"), build(201, BAD, branch="later"))
    assert len(looked(book)) == 1
    desk.take(build(202, GOOD, branch="late"))
    desk.bridge.settle("ci", behind=False)
    assert {alert.ref_class for alert in looked(book)} == {"push:main", "push:later"}
    desk.now += 3600
    desk.bridge.settle("ci", behind=True)
    desk.take(build(400, BAD, branch="dev"))
    desk.now += CATCH_UP
    assert len(looked(book)) == 3


def test_what_flaps_stays_open_until_it_is_stable(ledger: Ledger) -> None:
    desk = Desk(ledger, ROUTES)
    book = opened(desk)
    for number, status in enumerate((BAD, GOOD, BAD, GOOD, BAD, GOOD), 1):
        desk.now += 10
        desk.take(build(number, status))
        (alert,) = looked(book)
    assert alert.resolved == 0
    assert "keeps turning red and green" in told(alert)["summary"]
    desk.now += STABLE
    desk.bridge.tick()
    (over,) = looked(book)
    assert (over.labels, over.resolved) == (alert.labels, desk.now)
    assert "green again: #6" in told(over)["summary"]


def test_what_is_gone_or_not_watched_any_more_is_over(ledger: Ledger) -> None:
    desk = Desk(ledger, ROUTES)
    desk.take(build(1, BAD), build(2, BAD, branch="dev"))
    assert [alert.resolved for alert in looked(opened(desk))] == [0, 0]
    repo = desk.roster.repos[REPO]
    with ledger.transaction() as conn:
        desk.bridge.gone(conn, repo, desk.moment())
    gone = looked(opened(desk))
    assert [alert.resolved for alert in gone] == [desk.now] * 2
    assert "is closed without a good build" in told(gone[0])["summary"]

    desk.take(build(3, BAD))
    book = opened(desk)
    assert [alert.resolved for alert in looked(book)] == [desk.now, 0]
    assert all(alert.resolved for alert in looked(opened(desk, servers=["other"])))
    repo.watched = False
    with ledger.transaction() as conn:
        watched.write_repos(conn, [repo])
    assert all(alert.resolved for alert in looked(opened(desk)))


def test_the_log_comes_when_it_is_read_and_is_read_once(ledger: Ledger) -> None:
    asked: list[Row] = []

    def excerpt(row: Row) -> tuple[str, str]:
        asked.append(row)
        if row.told.number == 3:
            raise ValueError
        return f"<error> of {row.told.number}", ""

    desk = Desk(ledger, ROUTES)
    book = opened(desk, excerpt=excerpt)
    desk.take(build(1, BAD))
    assert "log" not in told(looked(book)[0])
    until("the log", lambda: told(looked(book)[0]).get("log") == "\uff1cerror\uff1e of 1")
    again = opened(desk, excerpt=excerpt)
    assert told(looked(again)[0])["log"] == "\uff1cerror\uff1e of 1"
    assert [(row.server, row.told.number, row.told.step) for row in asked] == [("ci", 1, "test")]
    desk.take(build(2, BAD))
    until("the next one", lambda: told(looked(again)[0]).get("log") == "\uff1cerror\uff1e of 2")
    desk.take(build(3, BAD))
    until("why there is none", lambda: "log unavailable" in told(looked(again)[0])["description"])
    assert "log" not in told(looked(again)[0])
    for each in (book, again):
        each.close()


def test_a_ledger_that_cannot_be_read_lets_what_is_known_be_told(ledger: Ledger) -> None:
    desk = Desk(ledger, ROUTES)
    book, late = opened(desk), opened(desk)
    desk.take(build(1, BAD))
    known = looked(book)
    ledger.close()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(book, "_ledger", Ledger("sqlite:////nowhere/at/all.db"))
        patched.setattr(late, "_ledger", Ledger("sqlite:////nowhere/at/all.db"))
        assert looked(book) == known
        assert late.look() is None


def repo_named(name: str) -> RepoState:
    known = {field.name: "" for field in fields(RepoState)}
    return RepoState(**(known | {"server": "ci", "name": name}))  # type: ignore[arg-type]


@given(st.text(max_size=300), st.text(max_size=300))
def test_no_two_branches_are_one_alert(one: str, other: str) -> None:
    texts = [
        labels_of(repo_named(REPO), State(f"push:{branch}", branch=branch, event="push"))
        for branch in (one, other)
    ]
    assert (texts[0] == texts[1]) == (one == other)
    for text in texts:
        assert all(0 < len(value.encode()) <= 256 for value in json.loads(text).values())


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_dead(text: str) -> None:
    annotations, url = annotations_of(hostile(text))
    state = State(f"cron:{text}:{text}", branch=text, event="cron")
    name = labels_of(repo_named(REPO), state)
    for value in (*json.loads(annotations).values(), *json.loads(name).values()):
        assert not set(value) & set(INVISIBLE)
        assert not set(value) & set("<>\r")
        assert "@all" not in value
        assert "@everyone" not in value
        assert value.replace(url or "-", "").count("://") == 0


@pytest.mark.parametrize("character", ['"', "\\", "x", "\u20ac", "\U0001f600", "<"])
def test_an_alert_has_at_most_16_kib(character: str) -> None:
    text = character * 5000
    facts = hostile(text, server="ci", event="push")
    annotations, url = annotations_of(facts)
    state = State(f"cron:{text}:{text}", branch=text, event="cron")
    alert = Alert(
        "am", labels_of(repo_named(text), state), 1, state.ref_class, 1, 1.0, 0.0, annotations, url, "{}"
    )
    body = json.dumps(posted(alert, 2.0), ensure_ascii=False).encode()
    assert len(body) <= 16 << 10
    assert all(len(value.encode()) <= 2048 for value in json.loads(annotations).values())


def test_a_resolve_never_lies_ahead_by_their_clock() -> None:
    alert = Alert("am", "{}", 1, "push:main", 1, 1000.0, 1060.0, "{}", "", "{}")
    assert posted(alert, 2000.0) == {
        "labels": {}, "annotations": {},
        "startsAt": "1970-01-01T00:16:40.000+00:00", "endsAt": "1970-01-01T00:17:40.000+00:00",
    }  # fmt: skip
    behind = posted(alert, 900.0)
    assert behind["startsAt"] == behind["endsAt"] == "1970-01-01T00:15:00.000+00:00"


def test_times_that_no_calendar_has_are_left_out() -> None:
    annotations, _ = annotations_of(notice(since=10**18))
    assert "since" not in json.loads(annotations)


def test_all_who_want_a_log_ask_for_it_once() -> None:
    asked: list[int] = []

    def read(row: Row) -> tuple[str, str]:
        asked.append(row.told.number)
        sleep(0.05)
        if row.told.number == 2:
            raise ValueError
        return f"log of {row.told.number}", ""

    def row(number: int) -> Row:
        facts = messages.encode(messages.Facts(number=number, run=7, step="test"))
        return Row(0, "", "any", "push:main", 1, "opened", "ci", 1, WAITING, facts=facts)

    shared = once(read)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(shared, [row(1), row(1), row(3), row(1)]))
        assert [text for text, _ in found] == ["log of 1", "log of 1", "log of 3", "log of 1"]
        for _ in range(2):
            with pytest.raises(ValueError):  # noqa: PT011
                shared(row(2))
    assert sorted(asked) == [1, 2, 3]
