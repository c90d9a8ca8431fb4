"""Messages on their way to real channels on loopback: in order, retried, put together, never lost."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import receiver
from desk import REPO, Desk, build, made
from process import until
from receiver import Case, Receiver, receiving

from exporter.ledger import Ledger, LedgerError, outbox
from exporter.ledger.messages import Row
from exporter.ledger.schema import DEAD, DELIVERED, EXPIRED, SENDING, SUPERSEDED, WAITING
from exporter.model import Status
from exporter.notify.lane import LONGEST_WAIT, PAUSE, backoff
from exporter.notify.outbox import LEASE, OUTAGE, Excerpt, Outbox
from exporter.notify.targets import Target
from exporter.routes import Routes

BAD, GOOD = Status.FAILURE, Status.SUCCESS
CHAT = Routes(targets=("webhook",), storm=0)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = made(tmp_path)
    yield ledger
    ledger.close()


@pytest.fixture
def channel() -> Iterator[Receiver]:
    with receiving() as made_here:
        yield made_here


@contextmanager
def sending(desk: Desk, *targets: Target, **options: object) -> Iterator[Outbox]:
    """The outbox's threads, by the desk's clock."""
    made_here = Outbox(
        desk.ledger, targets, desk.bridge.routes, desk.telemetry, desk.bridge.due,
        clock=lambda: desk.now, **options,
    )  # type: ignore[arg-type] # fmt: skip
    made_here.start()
    try:
        yield made_here
    finally:
        made_here.stop(5.0)


def kinds(channel: Receiver) -> list[str]:
    return [got.json["kind"] for got in channel.got]


def states_of(desk: Desk) -> list[int]:
    return [row.state for row in desk.rows()]


def wait_for(desk: Desk, *states: int) -> None:
    until(f"the states {states}", lambda: states_of(desk) == list(states), 5)


def tried(desk: Desk, row: int = 0, attempts: int = 1) -> Row:
    until(f"attempt {attempts}", lambda: desk.rows()[row].attempts >= attempts, 5)
    return desk.rows()[row]


def later(desk: Desk, seconds: float) -> None:
    desk.now += seconds
    desk.bridge.due.set()


def count(desk: Desk, name: str, **labels: str) -> float:
    return desk.telemetry.registry.get_sample_value(name, {"target": "webhook", **labels}) or 0.0


def test_messages_of_a_thread_go_out_in_order_and_are_marked(ledger: Ledger, channel: Receiver) -> None:
    desk = Desk(ledger, CHAT)
    with sending(desk, receiver.target("webhook", channel.url)):
        desk.take(build(1, BAD), build(2, BAD, author="ben"), build(3, GOOD))
        wait_for(desk, DELIVERED, DELIVERED, DELIVERED)
    assert kinds(channel) == ["opened", "changed", "resolved"]
    keys = [row.key for row in desk.rows()]
    assert [got.headers["Idempotency-Key"] for got in channel.got] == keys
    assert len({got.json["thread"] for got in channel.got}) == 1
    for kind in ("opened", "changed", "resolved"):
        assert count(desk, "ci_notifications_total", kind=kind, outcome="delivered") == 1
    assert count(desk, "ci_notification_attempts_total", outcome="ok") == 3


def test_an_all_clear_never_overtakes_its_failure(ledger: Ledger, channel: Receiver) -> None:
    desk = Desk(ledger, CHAT)
    channel.answer(Case(500), Case(503), Case(200))
    with sending(desk, receiver.target("webhook", channel.url)):
        desk.take(build(1, BAD))
        tried(desk)
        desk.take(build(2, GOOD))
        time.sleep(0.2)
        assert states_of(desk) == [WAITING, WAITING]
        later(desk, LONGEST_WAIT)
        tried(desk, attempts=2)
        later(desk, LONGEST_WAIT)
        until("both", lambda: desk.rows()[1].state == DELIVERED, 5)
    assert kinds(channel)[-1] == "resolved"
    assert count(desk, "ci_notification_attempts_total", outcome="retry") == 2


@pytest.mark.parametrize(
    ("asked", "wait"), [("120", 120), ("99999", 3600), ("Thu, 01 Jan 2026 00:00:00 GMT", 0)]
)
def test_a_channel_that_says_when_is_asked_then(
    ledger: Ledger, channel: Receiver, asked: str, wait: float
) -> None:
    desk = Desk(ledger, CHAT, repos=(REPO, "octo/other"))
    channel.answer(Case(429, headers={"Retry-After": asked}), Case(200))
    with sending(desk, receiver.target("webhook", channel.url)):
        desk.take(build(1, BAD))
        row = tried(desk)
        assert row.due == pytest.approx(desk.now + wait, abs=1)
        desk.take(build(1, BAD, repo="octo/other"))
        if wait:
            later(desk, wait - 5)
            time.sleep(0.2)
            assert len(channel.got) == 1, "what else waits for it is not sent either"
        later(desk, 6)
        wait_for(desk, DELIVERED, DELIVERED)


def test_what_is_refused_for_good_lets_the_next_one_pass(ledger: Ledger, channel: Receiver) -> None:
    desk = Desk(ledger, CHAT)
    channel.answer(Case(400, "no such field"), Case(200))
    with sending(desk, receiver.target("webhook", channel.url)) as sender:
        desk.take(build(1, BAD), build(2, GOOD))
        wait_for(desk, DEAD, DELIVERED)
        sender.measure()
    assert "400" in desk.rows()[0].answer
    assert count(desk, "ci_notifications_dead") == 1
    assert count(desk, "ci_notifications_pending") == 0
    assert count(desk, "ci_notifications_total", kind="opened", outcome="dead") == 1


def test_what_is_too_large_is_sent_once_more_in_few_words(ledger: Ledger, channel: Receiver) -> None:
    desk = Desk(ledger, CHAT)
    channel.answer(Case(413), Case(200), Case(413))
    with sending(desk, receiver.target("webhook", channel.url)):
        desk.take(build(1, BAD))
        wait_for(desk, DELIVERED)
        desk.take(build(2, GOOD))
        wait_for(desk, DELIVERED, DEAD)
    first, second = channel.got[:2]
    assert len(second.body) < len(first.body)
    assert len(channel.got) == 4


def test_what_a_paused_target_gets_waits_and_does_not_age(ledger: Ledger, channel: Receiver) -> None:
    desk = Desk(ledger, CHAT, repos=tuple(f"octo/r{n}" for n in range(4)))
    channel.answer(Case(401))
    with sending(desk, receiver.target("webhook", channel.url)):
        desk.take(*(build(1, BAD, repo=f"octo/r{n}") for n in range(4)))

        def paused() -> bool:
            rows = desk.rows()
            return SENDING not in states_of(desk) and max(row.due for row in rows) == desk.now + PAUSE

        until("the pause", paused, 5)
        before = len(channel.got)
        for _ in range(120):
            later(desk, PAUSE)
            until("one more", paused, 5)
        time.sleep(0.3)
        assert before <= 4
        assert len(channel.got) - before <= 121, "one of them is tried every 15 minutes"
        assert states_of(desk) == [WAITING] * 4
        channel.answer(Case(200))
        later(desk, PAUSE)
        wait_for(desk, *[DELIVERED] * 4)


def test_what_was_tried_for_a_day_is_given_up(ledger: Ledger, channel: Receiver) -> None:
    desk = Desk(ledger, CHAT)
    channel.answer(Case(500))
    with sending(desk, receiver.target("webhook", channel.url)) as sender:
        desk.take(build(1, BAD))
        tried(desk)
        later(desk, 86_401)
        until("the end", lambda: states_of(desk) == [EXPIRED], 5)
        sender.measure()
    assert count(desk, "ci_notifications_dead") == 1


def test_a_target_that_hangs_stops_nobody_else_nor_the_end(ledger: Ledger, channel: Receiver) -> None:
    desk = Desk(ledger, Routes(targets=("slow", "webhook")))
    with receiving() as slow:
        slow.answer(Case(does="hang"))
        stuck = receiver.target("webhook", slow.url, name="slow", timeout=20)
        with sending(desk, stuck, receiver.target("webhook", channel.url)) as sender:
            desk.take(build(1, BAD), build(2, GOOD))
            until("the other target", lambda: len(channel.got) == 2, 5)
            until("the one that hangs", lambda: len(slow.got) == 1, 5)
            began = time.monotonic()
            sender.stop(3.0)
            assert time.monotonic() - began < 3.5
    assert [row.state for row in desk.rows("slow")][1] == WAITING
    assert [row.state for row in desk.rows("webhook")] == [DELIVERED, DELIVERED]


def test_an_answer_that_never_came_is_retried_and_counted_apart(ledger: Ledger, channel: Receiver) -> None:
    desk = Desk(ledger, CHAT)
    channel.answer(Case(does="reset"), Case(200))
    with sending(desk, receiver.target("webhook", channel.url)):
        desk.take(build(1, BAD))
        tried(desk)
        later(desk, LONGEST_WAIT)
        wait_for(desk, DELIVERED)
    assert count(desk, "ci_notification_attempts_total", outcome="ambiguous") == 1
    assert len({got.headers["Idempotency-Key"] for got in channel.got}) == 1


def test_after_an_outage_many_messages_are_a_digest(ledger: Ledger, channel: Receiver) -> None:
    repos = tuple(f"octo/r{n:02}" for n in range(15))
    desk = Desk(ledger, CHAT, repos=repos)
    channel.answer(Case(503))
    with sending(desk, receiver.target("webhook", channel.url)):
        desk.take(*(build(1, BAD, repo=name) for name in repos))
        desk.take(build(2, GOOD, repo=repos[14]))
        until("trouble", lambda: any(row.attempts for row in desk.rows()), 5)
        later(desk, OUTAGE)
        time.sleep(0.2)
        channel.answer(Case(200))
        later(desk, LONGEST_WAIT)
        until("all", lambda: all(state in (DELIVERED, SUPERSEDED) for state in states_of(desk)), 8)
    digest = next(got.json for got in channel.got if got.json["kind"] == "digest")
    alone = {got.json["repo"] for got in channel.got if got.json["kind"] == "opened"}
    told = {name for name in repos if name in alone or any(name in line for line in digest["lines"])}
    assert told == set(repos)
    assert len(digest["lines"]) >= 10
    assert sum("green again" in line for line in digest["lines"]) == 1
    rows = desk.rows()
    members = [row for row in rows if row.into_id]
    assert {row.state for row in members} == {SUPERSEDED}


def test_what_follows_waits_for_the_digest_before_it(ledger: Ledger, channel: Receiver) -> None:
    repos = tuple(f"octo/r{n}" for n in range(9))
    desk = Desk(ledger, Routes(targets=("webhook",)), repos=repos)
    channel.answer(*[Case(200)] * 5, Case(500), Case(200))
    with sending(desk, receiver.target("webhook", channel.url)):
        desk.take(*(build(1, BAD, at=690, repo=name) for name in repos))
        until("the first five", lambda: states_of(desk).count(DELIVERED) == 5, 5)
        later(desk, 130)
        desk.bridge.tick()
        until("the digest's first attempt", lambda: len(channel.got) == 6, 5)
        desk.take(build(2, GOOD, at=700, repo=repos[8]))
        time.sleep(0.3)
        assert kinds(channel)[5:] == ["digest"]
        later(desk, LONGEST_WAIT)
        until("the all-clear", lambda: len(channel.got) == 8, 5)
    assert kinds(channel)[5:] == ["digest", "digest", "resolved"]


def test_a_lease_that_ended_is_taken_anew(ledger: Ledger, channel: Receiver) -> None:
    desk = Desk(ledger, CHAT)
    desk.take(build(1, BAD))
    with ledger.transaction() as conn:
        outbox.lease(conn, [desk.rows()[0].id], desk.now + LEASE)
    with sending(desk, receiver.target("webhook", channel.url)):
        later(desk, LEASE - 1)
        time.sleep(0.3)
        assert channel.got == []
        later(desk, 6)
        wait_for(desk, DELIVERED)


def test_a_ledger_that_cannot_be_written_loses_no_answer(
    ledger: Ledger, channel: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = Desk(ledger, CHAT)
    sick = threading.Event()
    healthy = ledger.transaction

    @contextmanager
    def transaction() -> Iterator[object]:
        if sick.is_set():
            raise LedgerError("the disk is full")
        with healthy() as conn:
            yield conn

    with sending(desk, receiver.target("webhook", channel.url)):
        channel.cases = [Case(200)]
        monkeypatch.setattr(ledger, "transaction", transaction)
        desk.take(build(1, BAD))
        until("the message", lambda: channel.got, 5)
        sick.set()
        time.sleep(0.2)
        sick.clear()
        later(desk, 1)
        wait_for(desk, DELIVERED)
    assert len(channel.got) == 1


def test_the_log_is_read_once_for_all_targets(ledger: Ledger, channel: Receiver) -> None:
    desk = Desk(ledger, Routes(targets=("webhook", "second")))
    read: list[Row] = []

    def excerpt(row: Row) -> Excerpt:
        read.append(row)
        time.sleep(0.2)
        return "line of the log", ""

    targets = receiver.target("webhook", channel.url), receiver.target("webhook", channel.url, name="second")
    with sending(desk, *targets, excerpt=excerpt):
        desk.take(build(1, BAD))
        until("both", lambda: len(channel.got) == 2, 5)
        desk.take(build(2, GOOD))
        until("the all-clear", lambda: len(channel.got) == 4, 5)
    assert len(read) == 1
    assert [got.json["excerpt"] for got in channel.got] == ["line of the log"] * 2 + [""] * 2
    assert [row.excerpt for row in desk.rows()][:2] == ["line of the log"] * 2


def test_a_server_whose_logs_hang_delays_no_message_of_others(ledger: Ledger, channel: Receiver) -> None:
    repos = tuple(f"octo/r{n:02}" for n in range(20))
    desk = Desk(ledger, CHAT, repos=repos)
    hangs = threading.Event()

    def excerpt(row: Row) -> Excerpt:
        if row.server == "ci":
            hangs.wait(5)
        return "", ""

    desk.take(*(build(1, BAD, repo=name) for name in repos))
    with ledger.transaction() as conn:
        conn.exec_driver_sql("UPDATE outbox SET server = 'other' WHERE id = (SELECT max(id) FROM outbox)")
    with sending(desk, receiver.target("webhook", channel.url), excerpt=excerpt):
        until("its message", lambda: channel.got, 3)
        assert channel.got[0].json["server"] == "other"
        hangs.set()
        until("the others", lambda: len(channel.got) == 20, 5)


@pytest.mark.parametrize("damage", ["kind = 'of a later version'", "facts = '{'", "facts = '{\"at\": []}'"])
def test_a_message_that_cannot_be_read_is_given_up_alone(
    ledger: Ledger, channel: Receiver, damage: str
) -> None:
    desk = Desk(ledger, CHAT, repos=(REPO, "octo/other"))
    desk.take(build(1, BAD), build(1, BAD, repo="octo/other"))
    with ledger.transaction() as conn:
        conn.exec_driver_sql(f"UPDATE outbox SET {damage} WHERE id = 1")
    with sending(desk, receiver.target("webhook", channel.url), excerpt=lambda _: ("", "")):
        wait_for(desk, DEAD, DELIVERED)
    assert desk.rows()[0].answer == "what the ledger has of it cannot be read"


def test_what_was_sent_when_it_stops_is_noted(
    ledger: Ledger, channel: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = Desk(ledger, CHAT, repos=(REPO, "octo/other"))
    waits, goes_on, healthy = threading.Event(), threading.Event(), ledger.transaction

    @contextmanager
    def transaction() -> Iterator[object]:
        if threading.current_thread().name == "outbox" and channel.got:
            waits.set()
            assert goes_on.wait(5)
        with healthy() as conn:
            yield conn

    monkeypatch.setattr(ledger, "transaction", transaction)
    with sending(desk, receiver.target("webhook", channel.url), excerpt=lambda _: ("", "")) as sender:
        desk.take(build(1, BAD))
        assert waits.wait(5)
        desk.take(build(1, BAD, repo="octo/other"))
        end = threading.Thread(target=sender.stop, args=(5.0,))
        end.start()
        time.sleep(0.2)
        goes_on.set()
        end.join(10)
        assert not end.is_alive()
    assert states_of(desk) == [DELIVERED, WAITING]


def test_a_bot_writes_over_its_own_message_of_the_same_incident(ledger: Ledger) -> None:
    desk = Desk(ledger, Routes(targets=("bot",)))
    with receiving() as slack:
        slack.answer(Case(body=receiver.GOOD["bot"]))
        with sending(desk, receiver.target("bot", slack.url)):
            desk.take(build(1, BAD), build(2, GOOD))
            until("the first", lambda: len(slack.got) == 1, 5)
            later(desk, 2)  # a channel takes one a second
            wait_for(desk, DELIVERED, DELIVERED)
            later(desk, 2)
            desk.take(build(3, BAD))
            wait_for(desk, DELIVERED, DELIVERED, DELIVERED)
        updates = ["ts" in got.json for got in slack.got if got.path.endswith(("update", "postMessage"))]
    assert "1503435956.000247" in desk.rows()[0].reference
    assert updates == [False, True, False] or updates.count(True) == 1


def test_a_channel_gets_no_more_than_it_takes(ledger: Ledger) -> None:
    repos = tuple(f"octo/r{n:02}" for n in range(20))
    desk = Desk(ledger, Routes(targets=("dingtalk",), storm=0), repos=repos)
    with receiving() as group:
        group.answer(Case(body=receiver.GOOD["dingtalk"]))
        target = receiver.target("dingtalk", group.url)
        (rate,) = target.rate
        with sending(desk, target):
            desk.take(*(build(1, BAD, repo=name) for name in repos))
            until("as many as may be", lambda: states_of(desk).count(DELIVERED) == rate.count, 5)
            time.sleep(0.2)
            assert len(group.got) == rate.count
            later(desk, rate.seconds + 1)
            until("the rest", lambda: states_of(desk).count(DELIVERED) == 20, 5)


def test_a_clock_that_is_set_back_stalls_nothing(ledger: Ledger, channel: Receiver) -> None:
    desk = Desk(ledger, Routes(targets=("webhook", "bot"), storm=0), repos=(REPO, "octo/other"))
    channel.answer(Case(429, headers={"Retry-After": "600"}), Case(200))
    with receiving() as slack:
        slack.answer(Case(body=receiver.GOOD["bot"]))
        targets = receiver.target("webhook", channel.url), receiver.target("bot", slack.url)
        with sending(desk, *targets):
            desk.take(build(1, BAD))
            until("both tried", lambda: [row.attempts for row in desk.rows()] == [1, 1], 5)
            later(desk, -7200)
            desk.take(build(1, BAD, repo="octo/other"))
            later(desk, 10)
            wait_for(desk, *[DELIVERED] * 4)


def test_a_lease_of_a_clock_that_was_ahead_ends(ledger: Ledger, channel: Receiver) -> None:
    desk = Desk(ledger, CHAT)
    desk.take(build(1, BAD))
    with ledger.transaction() as conn:
        outbox.lease(conn, [desk.rows()[0].id], desk.now + LEASE + 7200)
    with sending(desk, receiver.target("webhook", channel.url)):
        time.sleep(0.3)
        later(desk, -10)
        time.sleep(0.3)
        assert channel.got == []
        later(desk, LEASE + 10)
        wait_for(desk, DELIVERED)


def test_waits_grow_and_differ() -> None:
    assert all(0 <= backoff(0) <= 5 for _ in range(50))
    assert max(backoff(3) for _ in range(200)) > 20
    assert all(backoff(99) <= LONGEST_WAIT for _ in range(50))
    assert len({backoff(5) for _ in range(10)}) == 10
