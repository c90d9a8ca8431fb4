"""`incidents`, `outbox`, `notify` and `replay` as a user runs them, on real ledgers and servers."""

import json
import random
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from desk import REPO, START, Desk, build, made
from process import configure, entry, expect_clean, exporter, until
from receiver import GOOD as TAKEN
from receiver import HOSTILE, INVISIBLE, KEY, Case, receiving

from exporter.cli.builds_text import lines_text
from exporter.cli.commands import perform
from exporter.cli.common import BAD, GOOD, SERVER, USAGE
from exporter.config import load
from exporter.incidents import STABLE
from exporter.ledger import Ledger
from exporter.ledger.messages import change, incident_key, thread_of
from exporter.ledger.schema import DEAD, DELIVERED, HELD, SENDING, SUPERSEDED, WAITING
from exporter.model import Event, Status
from exporter.routes import Routes
from exporter.simulator import Clock, Leg, Running, StepPlan, World, serve

FAILURE, SUCCESS = Status.FAILURE, Status.SUCCESS
TARGETS = ("team", "ops")
BOTH = Routes(targets=TARGETS)
LEG = Leg("linux", (StepPlan("clone"), StepPlan("test", exit_code=2)))
OBEYED = set(INVISIBLE) - set("\u200b\u200d\u2060")
"""What a terminal acts upon or turns text around by; the others merely have no width."""
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """`build-exporter …` in the test's directory, without a process of its own: code, output, errors."""

    def perform_it(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["build-exporter", *arguments])
        capsys.readouterr()
        code = perform()
        out, err = capsys.readouterr()
        err = "".join(line for line in err.splitlines(True) if "logger=uvicorn" not in line)
        expect_clean(tmp_path, out + err)
        assert KEY not in out + err
        return code, out, err

    return perform_it


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """A ledger that a `run` is on; the configuration beside it names the server `ci` and two targets."""
    targets(tmp_path, "http://127.0.0.1:9")
    ledger = made(tmp_path)
    yield ledger
    ledger.close()


def targets(directory: Path, url: str, server: Running | str = "http://127.0.0.1:9", **notify: Any) -> None:
    """Writes the configuration: both targets are webhooks at `url`."""
    (directory / "hook").write_text(f"{url}/hooks/{KEY}")
    told = [{"name": name, "type": "webhook", "url_file": "hook", "timeout": "2s"} for name in TARGETS]
    configure(directory, entry(directory, "ci", server), notify={"targets": told, **notify})


def listed(run: Run, *arguments: str) -> Any:
    code, out, err = run(*arguments, "--json")
    assert (code, err) == (GOOD, "")
    return json.loads(out)


def refused(run: Run, *arguments: str) -> tuple[int, str]:
    """The exit code and the only sentence."""
    code, out, err = run(*arguments)
    assert (out, err.count("\n")) == ("", 1), out + err
    return code, err.removeprefix("build-exporter: ").rstrip()


# incidents


def test_what_is_red_is_listed_and_shown_by_a_short_id(ledger: Ledger, run: Run) -> None:
    desk = Desk(ledger, BOTH, repos=(REPO, "octo/other"))
    desk.take(build(1, FAILURE), build(2, FAILURE, author="ben"))
    desk.take(build(1, FAILURE, repo="octo/other"), build(2, SUCCESS, repo="octo/other"))
    code, out, _ = run("incidents", "list")
    head, row = out.splitlines()
    assert (code, head.split()[:4]) == (GOOD, ["id", "server", "repo", "what"])
    assert row.split()[1:4] == ["ci", REPO, "push:main"]
    assert "ann, ben" in row
    assert "team, ops" in row
    (red,) = listed(run, "incidents", "list")
    assert (red["open"], red["first_number"], red["number"], red["failures"]) == (True, 1, 2, 2)
    assert red["id"].startswith(row.split()[0])
    assert (red["since"], red["authors"], red["told"]) == (START + 10, ["ann", "ben"], ["team", "ops"])
    every = listed(run, "incidents", "list", "--all")
    assert [(i["repo"], i["open"]) for i in every] == [(REPO, True), ("octo/other", False)]
    assert listed(run, "incidents", "list", "--all", "--repo", "*/other") == every[1:]
    assert listed(run, "incidents", "list", "--server", "other") == []
    code, out, _ = run("incidents", "show", red["id"][:7].upper())
    assert code == GOOD
    assert f"of        {REPO} push:main on ci" in out
    assert "failures  2, the newest #2 failure" in out
    shown = listed(run, "incidents", "show", red["id"])
    assert [(m["target"], m["kind"]) for m in shown["messages"]] == [
        (target, kind) for kind in ("opened", "changed") for target in TARGETS
    ]


def test_ids_that_name_none_or_several_are_refused(ledger: Ledger, run: Run) -> None:
    seen: dict[str, str] = {}
    for branch in (f"b{number}" for number in range(10_000)):
        first = incident_key(thread_of(1, f"push:{branch}"), 1)[:4]
        if first in seen:
            break
        seen[first] = branch
    desk = Desk(ledger, BOTH)
    desk.take(build(1, FAILURE, branch=branch), build(2, FAILURE, branch=seen[first]))
    code, why = refused(run, "incidents", "ack", first)
    assert code == USAGE
    assert why.startswith(f"{first} may be {first}")
    assert f"({REPO} push:{branch}, red since #1)" in why
    assert f"({REPO} push:{seen[first]}, red since #2)" in why
    assert refused(run, "incidents", "show", "xyz")[0] == USAGE
    code, why = refused(run, "incidents", "close", "0000" if first != "0000" else "1111")
    assert (code, why[4:].partition(";")[0]) == (BAD, ": no incident is called so")


def test_who_takes_an_incident_over_is_told_no_more_but_the_all_clear(ledger: Ledger, run: Run) -> None:
    desk = Desk(ledger, BOTH)
    desk.now = time.time()
    desk.take(build(1, FAILURE))
    (red,) = listed(run, "incidents", "list")
    code, out, _ = run("incidents", "ack", red["id"][:7], "--by", "ann\x1b[31m\u202e")
    assert code == GOOD
    assert out.startswith(f"{REPO} push:main, red since #1: taken over by ann")
    assert "taken over by ann" in run("incidents", "list")[1]
    desk.take(build(2, FAILURE, author="ben"))
    assert [kind for kind, _ in desk.told("team")] == ["opened"]
    desk.take(build(3, SUCCESS))
    assert [kind for kind, _ in desk.told("team")] == ["opened", "resolved"]
    code, why = refused(run, "incidents", "ack", red["id"][:7])
    assert (code, why) == (BAD, f"{REPO} push:main, red since #1: is closed already")


def test_a_closed_incident_is_told_as_stale_and_opens_anew(ledger: Ledger, run: Run) -> None:
    desk = Desk(ledger, BOTH)
    desk.take(build(1, FAILURE))
    (red,) = listed(run, "incidents", "list")
    code, out, _ = run("incidents", "close", red["id"][:7])
    assert (code, out) == (GOOD, f"{REPO} push:main, red since #1: closed; team, ops will be told\n")
    assert run("incidents", "list")[1] == "Nothing is red.\n"
    # `run` shows it at its next look at the clock, once.
    assert desk.bridge.tick() == {desk.roster.repos[REPO].id}
    assert desk.bridge.tick() == set()
    assert refused(run, "incidents", "close", red["id"])[0] == BAD
    desk.take(build(2, FAILURE))
    assert desk.told("ops") == [("opened", 1), ("stale", 1), ("opened", 2)]
    assert listed(run, "incidents", "list")[0]["id"] != red["id"]


def test_what_history_left_red_is_closed_in_silence(ledger: Ledger, run: Run) -> None:
    desk = Desk(ledger, BOTH, history=1)
    desk.read_history(build(1, FAILURE, at=-100))
    (red,) = listed(run, "incidents", "list")
    assert (red["history"], red["told"]) == (True, [])
    assert "from history, told nowhere" in run("incidents", "list")[1]
    assert "no message of it" in run("incidents", "show", red["id"])[1]
    assert run("incidents", "close", red["id"])[1].endswith("closed; nobody will be told\n")
    assert desk.rows() == []


def test_without_a_ledger_none_is_made(tmp_path: Path, run: Run) -> None:
    targets(tmp_path, "http://127.0.0.1:9")
    for arguments in (("incidents", "list"), ("outbox", "drop", "1"), ("replay", "--since", "2026-11-01")):
        code, why = refused(run, *arguments)
        assert (code, why.partition(": there is no ledger yet")[1] != "") == (BAD, True)
    assert not (tmp_path / "ledger.db").exists()


# outbox


def stand(desk: Desk, row_id: int, **values: Any) -> None:
    with desk.ledger.transaction() as conn:
        change(conn, [row_id], **values)


def test_what_waits_or_was_given_up_is_listed(ledger: Ledger, run: Run) -> None:
    desk = Desk(ledger, BOTH)
    assert run("outbox", "list")[1] == "Nothing waits, and nothing was given up.\n"
    desk.take(build(1, FAILURE), build(2, SUCCESS))
    stand(desk, 1, state=DEAD, answer="refused (400: no such channel)", attempts=3)
    stand(desk, 2, state=DELIVERED)
    rows = listed(run, "outbox", "list")
    assert [(row["id"], row["target"], row["state"]) for row in rows] == [
        (1, "team", "dead"), (3, "team", "pending"), (4, "ops", "pending"),
    ]  # fmt: skip
    assert rows[0]["title"] == f"{REPO} main #1 failed at step test (exit 2)"
    assert (rows[0]["answer"], rows[0]["attempts"], rows[0]["due"]) == (
        "refused (400: no such channel)",
        3,
        None,
    )
    assert [row["id"] for row in listed(run, "outbox", "list", "--target", "ops")] == [4]
    assert [row["id"] for row in listed(run, "outbox", "list", "--state", "delivered")] == [2]
    out = run("outbox", "list", "--limit", "1")[1]
    assert out.splitlines()[-1] == "… and 2 older ones (--limit)"
    assert run("outbox", "list", "--state", "held")[1] == "There is no such message.\n"
    stand(desk, 1, kind="of a later version", facts="{")
    assert listed(run, "outbox", "list")[0]["title"] == "(cannot be read)"


def test_a_message_that_was_given_up_is_sent_again_and_is_young_again(ledger: Ledger, run: Run) -> None:
    desk = Desk(ledger, BOTH)
    desk.take(build(1, FAILURE))
    stand(desk, 1, state=DEAD, closed=5.0)
    code, out, _ = run("outbox", "retry", "1", "2")
    assert (code, out) == (GOOD, "2 messages will be sent now, by `build-exporter run`\n")
    row = desk.rows()[0]
    assert (row.state, row.due, row.closed) == (WAITING, 0.0, 0.0)
    assert row.expires > time.time() + 86_000


def test_what_cannot_be_sent_again_or_dropped_says_why(ledger: Ledger, run: Run) -> None:
    desk = Desk(ledger, Routes((*TARGETS, "old")))
    desk.take(build(1, FAILURE), build(2, SUCCESS))
    stand(desk, 1, state=DEAD)
    stand(desk, 4, state=DELIVERED)
    cases = {
        "retry 1": "message 4 told team how it went on: sent now, it would be wrong; drop it",
        "retry 4": "it was delivered",
        "drop 4": "it was delivered",
        "retry 6": "the configuration has no target old any more",
        "retry 99": "there is none",
    }
    for asked, why in cases.items():
        assert refused(run, "outbox", *asked.split()) == (BAD, f"message {asked.split()[1]}: {why}")
    code, why = refused(run, "outbox", "drop", "2", "99")
    assert (code, why) == (BAD, "message 99: there is none (nothing was changed)")
    assert run("outbox", "retry", "9" * 20)[0] == USAGE
    assert desk.rows()[1].state == WAITING
    stand(desk, 2, state=SENDING)
    assert refused(run, "outbox", "drop", "2")[1] == "message 2: it is being sent right now"
    stand(desk, 2, state=HELD, hold="quiet", due=time.time() + 60)
    assert refused(run, "outbox", "retry", "2")[1].startswith("message 2: it is held back (quiet) until 20")
    assert run("outbox", "drop", "2", "1")[:2] == (GOOD, "2 messages will not be sent\n")
    assert [(row.state, row.answer) for row in desk.rows()[:2]] == 2 * [(SUPERSEDED, "dropped by hand")]
    assert refused(run, "outbox", "retry", "2")[1] == "message 2: it was dropped"


def test_a_dropped_digest_takes_its_lines_along(ledger: Ledger, run: Run) -> None:
    desk = Desk(ledger, Routes(("team",)))
    desk.now = START + 7 * 3600
    desk.take(build(1, FAILURE, at=100))
    desk.bridge.settle("ci", behind=False)
    line, digest = desk.rows()
    assert (
        refused(run, "outbox", "drop", str(line.id))[1]
        == f"message {line.id}: it is a line of message {digest.id}"
    )
    assert listed(run, "outbox", "list")[-1]["title"] == "CI digest: 1 change"
    assert run("outbox", "drop", str(digest.id))[0] == GOOD
    assert [row.state for row in desk.rows()] == [SUPERSEDED, SUPERSEDED]
    assert listed(run, "outbox", "list") == []


@pytest.mark.parametrize("text", HOSTILE)
def test_what_a_build_says_does_nothing_to_a_terminal(ledger: Ledger, run: Run, text: str) -> None:
    desk = Desk(ledger, BOTH)
    desk.now = time.time()
    bad = build(1, FAILURE, at=desk.now - START - 5, branch=text, author=text, title=text, commit=text)
    desk.take(bad)
    stand(desk, 1, state=DEAD, answer=text)
    red = listed(run, "incidents", "list")[0]["id"]
    outputs = [
        run(*arguments)
        for arguments in (
            ("incidents", "list"),
            ("incidents", "show", red),
            ("incidents", "ack", red),
            ("outbox", "list"),
            ("replay", "--since", "2026-01-01"),
            ("notify", "preview", "ci", REPO, "1"),
            ("incidents", "show", red, "--json"),
            ("incidents", "close", red),
        )
    ]
    for code, out, _ in outputs:
        assert code == GOOD
        assert [character for character in OBEYED if character in out] == []
        assert "\r" not in out


def test_a_preview_keeps_its_lines_and_nothing_that_a_terminal_obeys() -> None:
    assert lines_text("a\n  b\x1b]0;title\x07\x1b[31mc\r\u202ed\x9b2J") == "a\n  bc\ufffd\ufffdd"


# notify test


ANSWERS = (
    (Case(), GOOD, "team (webhook): took the test message"),
    (Case(401), BAD, "target team (webhook) takes nothing: not let in: look at its secrets (401)"),
    (Case(400, "bad\x1b[31m thing"), BAD, "target team (webhook) refuses it: refused (400: bad"),
    (Case(413), BAD, "target team (webhook) refuses it: the message is too large (413)"),
    (Case(500), SERVER, "target team (webhook) does not take it now: it is in trouble (500)"),
    (Case(429), SERVER, "target team (webhook) does not take it now: too many messages (429)"),
    (Case(does="reset"), SERVER, "target team (webhook) may have taken it: sent, and no answer"),
)


@pytest.mark.parametrize(("case", "code", "says"), ANSWERS, ids=lambda value: str(value)[:40])
def test_a_test_message_says_what_the_target_answers(
    run: Run, tmp_path: Path, case: Case, code: int, says: str
) -> None:
    with receiving() as receiver:
        receiver.answer(case)
        targets(tmp_path, receiver.url)
        got, out, err = run("notify", "test", "team")
        assert (got, len(receiver.got)) == (code, 1)
        assert receiver.got[0].json["kind"] == "test"
        assert receiver.got[0].json["title"] == "Test message of build-exporter: this target works"
    assert (out or err.removeprefix("build-exporter: ")).startswith(says)
    assert "\x1b" not in out + err


def test_targets_that_are_not_there_are_said_so(run: Run, tmp_path: Path) -> None:
    targets(tmp_path, "http://127.0.0.1:9")
    assert run("notify", "test", "team")[0] == SERVER
    code, why = refused(run, "notify", "test", "chat")
    assert (code, why) == (USAGE, "no target is called chat; known are team, ops")
    configure(tmp_path, entry(tmp_path, "ci", "http://127.0.0.1:9"))
    code, why = refused(run, "notify", "test", "chat")
    assert (code, why.partition(":")[0]) == (USAGE, "`notify.targets` names no target")
    assert refused(run, "replay", "--since", "2026-11-01")[0] == USAGE
    assert TAKEN["webhook"] == ""


# notify mute


def test_a_muted_repo_waits_until_its_time_or_until_somebody_ends_it(ledger: Ledger, run: Run) -> None:
    desk = Desk(ledger, Routes(("team",)), repos=(REPO, "octo/other"))
    desk.now = time.time()
    assert run("notify", "muted")[1] == "Nothing is muted.\n"
    assert run("notify", "mute", "ci", REPO, "--for", "2h")[1].startswith(f"{REPO} on ci: muted until 20")
    assert run("notify", "muted")[1].split()[3:5] == ["ci", REPO]
    at = desk.now - START - 5
    desk.take(build(1, FAILURE, at=at), build(1, FAILURE, at=at, repo="octo/other"))
    desk.bridge.tick()
    held = [(row.told.repo, row.hold, row.due > desk.now + 7000) for row in desk.rows() if row.hold]
    assert held == [(REPO, "muted", True)]
    assert run("notify", "mute", "ci")[1].startswith("server ci: muted until 20")
    out = run("notify", "unmute", "ci", REPO)[1]
    assert out == f"{REPO} on ci: muted no more; 0 that waited will be told\n"
    assert run("notify", "unmute", "ci")[1] == "server ci: muted no more; 1 that waited will be told\n"
    desk.now = time.time()
    desk.bridge.tick()
    assert [row.hold for row in desk.rows()] == ["", ""]
    assert refused(run, "notify", "unmute", "ci", REPO) == (BAD, f"{REPO} on ci: is not muted")
    assert refused(run, "notify", "mute", "no")[1] == "no server is called no; known are ci"
    assert refused(run, "notify", "mute", "ci", "octo/none")[0] == BAD
    code, _, err = run("notify", "mute", "ci", "--for", "soon")
    assert (code, "Traceback" in err) == (USAGE, False)


# notify preview


@pytest.fixture
def ci() -> Iterator[Running]:
    world = World("drone-1", clock=Clock.real(), default_branch="main")
    world.add_repo(REPO)
    with serve(world) as running:
        yield running


def end(ci: Running, outcome: str = "failure", repo: str = REPO, **what: Any) -> int:
    now = ci.world.clock.now()
    plan = {"started": now - 90, "finished": now - 30, "at": now - 100, "outcome": outcome, "legs": [LEG]}
    if outcome != "failure":
        del plan["legs"]
    return ci.world.start_build(repo, **(plan | what))


def test_a_build_that_no_ledger_has_is_read_from_its_server(run: Run, tmp_path: Path, ci: Running) -> None:
    with receiving() as receiver:
        targets(tmp_path, receiver.url, ci)
        number = end(ci)
        code, out, err = run("notify", "preview", "ci", REPO, str(number), "--target", "ops")
        assert (code, err, receiver.got) == (GOOD, "", [])
        assert not (tmp_path / "ledger.db").exists()
        told = json.loads(out)
        assert (told["kind"], told["build"]["step"], told["build"]["exit_code"]) == ("opened", "test", 2)
        assert told["build"]["url"] == f"{ci.url}/{REPO}/{number}"
        assert told["excerpt"].endswith("exit code 2")
        both = run("notify", "preview", "ci", REPO, str(number))[1]
        assert [line for line in both.splitlines() if line.startswith("──")] == [
            "── team: opened", "── ops: opened",
        ]  # fmt: skip
        routes = [{"match": {"branch": ["release/*"]}, "to": ["ops"]}, {"to": ["team"]}]
        targets(tmp_path, receiver.url, ci, routes=routes)
        assert run("notify", "preview", "ci", REPO, str(number))[1].startswith("── team: opened\n")
        code, why = refused(run, "notify", "preview", "ci", REPO, str(number), "--target", "ops")
        assert (code, why) == (BAD, f"{REPO} {number}: nothing would be sent to ops: it is told to others")


def test_a_build_of_which_nothing_is_told_says_why(run: Run, tmp_path: Path, ci: Running) -> None:
    targets(tmp_path, "http://127.0.0.1:9", ci)
    cases = (
        (end(ci, "success"), "nothing would be sent: it is good, and main was not red before"),
        (end(ci, event="pull_request"), "nothing would be sent: no route names pull_request"),
        (ci.world.start_build(REPO, running=True), "is running: its end is what is told of"),
    )
    for number, why in cases:
        assert refused(run, "notify", "preview", "ci", REPO, str(number)) == (BAD, f"{REPO} {number}: {why}")
    code, why = refused(run, "notify", "preview", "ci", REPO, "99")
    assert (code, "99" in why) == (SERVER, True)
    code, why = refused(run, "notify", "preview", "no", REPO, "1")
    assert (code, why) == (USAGE, "no server is called no; known are ci")
    targets(tmp_path, "http://127.0.0.1:9")
    code, why = refused(run, "notify", "preview", "ci", REPO, "1")
    assert (code, why.startswith("server ci: ")) == (SERVER, True)


def test_what_came_before_says_how_a_build_is_told(ledger: Ledger, run: Run) -> None:
    desk = Desk(ledger, BOTH)
    desk.take(build(1, FAILURE), build(2, FAILURE), build(3, FAILURE, author="ben"), build(4, SUCCESS))

    def kind(number: int) -> str:
        return str(
            json.loads(run("notify", "preview", "ci", REPO, str(number), "--target", "team")[1])["kind"]
        )

    assert [kind(number) for number in (1, 3, 4)] == ["opened", "changed", "resolved"]
    code, why = refused(run, "notify", "preview", "ci", REPO, "2")
    assert (code, why) == (
        BAD,
        f"{REPO} 2: nothing would be sent: main is still red since #1, with nothing new",
    )
    # The server of this ledger cannot be reached: a message would say so as well.
    code, out, err = run("notify", "preview", "ci", REPO, "1", "--target", "team")
    assert json.loads(out)["facts"][-1] == {
        "label": "Log",
        "value": "log unavailable: the server does not answer",
    }
    assert err.startswith("build-exporter: server ci: ")


# replay


def dump(directory: Path) -> list[str]:
    with sqlite3.connect(directory / "ledger.db") as ledger:
        return list(ledger.iterdump())


@pytest.mark.parametrize("seed", range(2))
def test_a_replay_says_what_was_really_told_and_writes_nothing(
    ledger: Ledger, run: Run, tmp_path: Path, seed: int
) -> None:
    """Random builds of some repos, with storms and quiet hours; the exporter saw each at its end."""
    roll = random.Random(seed)
    quiet = [{"from": "06:10", "to": "07:00", "targets": ["ops"]}]
    targets(tmp_path, "http://127.0.0.1:9", quiet_hours=quiet, storm=2)
    repos = tuple(f"octo/r{number}" for number in range(5))
    desk = Desk(ledger, load(tmp_path / "config.yaml").notify.rules, repos=repos)
    at = 1000
    numbers = dict.fromkeys(repos, 0)
    for _ in range(60):
        name = roll.choice(repos)
        at += roll.choice((5, 5, 5, 30, 30, 300, 1900))
        numbers[name] += 1
        while desk.now < START + at:
            desk.now = min(desk.now + 5, float(START + at))
            desk.bridge.tick()
        status = roll.choice((FAILURE, FAILURE, SUCCESS, Status.CANCELLED))
        about = {"branch": roll.choice(("main", "next")), "author": roll.choice(("ann", "ben"))}
        if roll.random() < 0.2:
            about |= {"event": roll.choice((Event.TAG, Event.CRON)), "ref": "refs/tags/v1", "cron": "nightly"}
        desk.take(build(numbers[name], status, at=at, repo=name, **about))
    desk.now += 90_000
    desk.bridge.tick()
    before = dump(tmp_path)
    told = listed(run, "replay", "--since", "2026-11-01")
    assert dump(tmp_path) == before
    assert told["ends"] == 60
    real = [
        (row.target, row.kind, row.told.repo, row.told.number) for row in desk.rows() if row.state == WAITING
    ]
    assert sorted((m["target"], m["kind"], m["repo"], m["number"] or 0) for m in told["messages"]) == sorted(
        real
    )
    assert len({m["kind"] for m in told["messages"]}) >= 4, "the dice were too kind"
    counted = {name: sum(kinds.values()) for name, kinds in told["counts"].items()}
    assert counted == {name: sum(target == name for target, *_ in real) for name in TARGETS}


def test_a_replay_waits_until_what_flaps_is_stable(ledger: Ledger, run: Run) -> None:
    desk = Desk(ledger, BOTH)
    desk.take(
        *(build(number, FAILURE if number % 2 else SUCCESS, at=1000 + 20 * number) for number in range(1, 8))
    )
    told = listed(run, "replay", "--since", "2026-11-01", "--target", "ops")["messages"]
    assert [m["kind"] for m in told] == ["opened", "resolved", "opened", "flapping", "opened"]
    assert (told[-1]["number"], told[-1]["at"]) == (7, START + 1140 + int(STABLE))


def test_what_was_red_before_a_replay_begins_is_told_as_still_red(ledger: Ledger, run: Run) -> None:
    desk = Desk(ledger, BOTH)
    desk.take(build(1, FAILURE), build(2, FAILURE), build(3, SUCCESS), build(4, FAILURE, at=7200))
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(START + 15)).replace(" ", "T")
    told = listed(run, "replay", "--since", since, "--target", "team")
    assert [(m["kind"], m["number"]) for m in told["messages"]] == [
        ("changed", 2), ("resolved", 3), ("opened", 4),
    ]  # fmt: skip
    assert told["counts"] == {"team": {"changed": 1, "resolved": 1, "opened": 1}}
    code, out, _ = run("replay", "--since", since, "--limit", "1")
    assert code == GOOD
    head, row, older, summary, ops, _ = out.splitlines()
    assert head.split() == ["when", "target", "what", "message"]
    assert f"ops     opened  {REPO} main #4 failed at step test (exit 2)" in row
    assert older == "… and 5 older ones (--limit)"
    assert summary.startswith("3 ends of builds since 20")
    assert ops.startswith("  ops: 3 (1 changed, 1 opened, 1 resolved), ")
    assert refused(run, "replay", "--since", "2999-01-01") == (USAGE, "--since: must be in the past")
    assert run("replay", "--since", "0001-01-01")[0] == GOOD
    assert refused(run, "replay", "--since", since, "--target", "x")[0] == USAGE


# Beside a process that runs


def test_a_running_exporter_goes_by_what_is_changed_beside_it(tmp_path: Path, run: Run, ci: Running) -> None:
    """A target lets nobody in: its messages would wait for 15 minutes. Then it does, and `retry` says so."""

    def told(kind: str) -> list[Any]:
        return [got.json for got in receiver.got if got.json["kind"] == kind]

    def asked(*arguments: str) -> Any:
        code, out, err = run(*arguments)
        assert code == GOOD, err
        return json.loads(out) if "--json" in arguments else out

    ci.world.clock.advance(5)
    with receiving() as receiver:
        receiver.answer(Case(403))
        targets(tmp_path, receiver.url, ci, routes=[{"to": ["team"]}])
        with exporter(tmp_path) as process:
            process.ready()
            number = ci.world.start_build(REPO, running=True, legs=[LEG])
            ci.world.clock.advance(2)
            ci.world.finish(REPO, number, "failure", legs=[LEG])
            until("an attempt", lambda: receiver.got)
            receiver.answer(Case())
            (row,) = until(
                "its answer", lambda: [r for r in asked("outbox", "list", "--json") if r["answer"]]
            )
            assert (row["state"], row["due"] > time.time() + 600) == ("pending", True)
            asked("outbox", "retry", str(row["id"]))
            (sent,) = until("the message", lambda: told("opened"), 10)
            preview = asked("notify", "preview", "ci", REPO, str(number), "--target", "team")
            apart = {"key", "thread", "at"}
            assert {k: v for k, v in sent.items() if k not in apart} == {
                k: v for k, v in json.loads(preview).items() if k not in apart
            }
            # What a program is told an incident is called is what it is called here.
            assert process.metrics()[f'ci_incidents_open{{server="ci",repo="{REPO}"}}'] == 1
            asked("incidents", "ack", sent["thread"], "--by", "ann")
            assert asked("incidents", "show", sent["thread"], "--json")["acked_by"] == "ann"
            asked("incidents", "close", sent["thread"][:7])
            until("the message that it is closed", lambda: told("stale"), 5)
            gone = f'ci_incidents_open{{server="ci",repo="{REPO}"}}'
            until("the gauge of open incidents", lambda: process.metrics().get(gone, 0) == 0, 10)
            assert process.stop() == 0
    assert asked("outbox", "list", "--json") == []
