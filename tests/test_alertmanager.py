"""Real Alertmanagers are told what is red until they surely know that it is over, whoever dies meanwhile."""

import json
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
import requests
from alertmanagers import alertmanagers as running
from alertmanagers import colours, told, unix
from desk import REPO, START, Desk, build, made
from process import configure, entry, exporter, until
from programs import needs, path_of
from receiver import Case, Receiver, receiving

from exporter.app import App
from exporter.config import load
from exporter.config_alertmanager import AlertmanagerSettings
from exporter.ledger import Ledger, watched
from exporter.ledger.alerts import Alert, alerts_of, write_alerts
from exporter.model import Status
from exporter.notify.alert_book import AlertBook
from exporter.notify.alertmanager import Alertmanager
from exporter.routes import Routes
from exporter.simulator import Clock, World, serve
from exporter.telemetry import Telemetry

BAD, GOOD = Status.FAILURE, Status.SUCCESS
ROUTES = Routes(targets=("am",), without_messages=frozenset({"am"}))
AHEAD = 86_400.0


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = made(tmp_path)
    yield ledger
    ledger.close()


@pytest.fixture
def team() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


class Told:
    """A desk by the real clock and what posts from its ledger; `again` is what a restart leaves of it."""

    def __init__(
        self,
        ledger: Ledger,
        *urls: str,
        ahead: float = 0.0,
        interval: float = 0.5,
        repos: tuple[str, ...] = (REPO,),
        **settings: object,
    ) -> None:
        """Our clock is `ahead` of everybody else's; `interval` 0: every turn posts."""
        self.ledger, self.urls, self.ahead = ledger, urls, ahead
        self.interval, self.settings = interval, settings
        self.desk = Desk(ledger, ROUTES, repos=repos)
        self.desk.now = self.clock()
        with ledger.transaction() as conn:
            for repo in self.desk.roster.repos.values():
                repo.horizon = int(self.clock()) - 3600
                watched.write_repos(conn, [repo])
        self.again()

    def clock(self) -> float:
        return time.time() + self.ahead

    def again(self) -> None:
        settings = AlertmanagerSettings.model_validate(
            {"name": "am", "type": "alertmanager", "urls": self.urls, "timeout": 5, **self.settings}
        )
        self.telemetry = Telemetry()
        self.book = AlertBook(
            "am",
            self.urls,
            self.ledger,
            ROUTES,
            ["ci"],
            self.desk.bridge.waits,
            interval=self.interval,
            clock=self.clock,
        )
        self.posting = [
            Alertmanager(url, settings, self.book, self.telemetry, clock=self.clock) for url in self.urls
        ]

    def end(self, number: int, status: Status, repo: str = REPO, **about: object) -> float:
        """A build ends now; when that was by our clock."""
        self.desk.now = self.clock()
        at = self.desk.now - START
        self.desk.take(build(number, status, at, repo=repo, **about))
        return self.desk.now

    def fail_everywhere(self) -> None:
        """A build of each repo fails."""
        self.desk.now = self.clock()
        at = self.desk.now - START
        self.desk.take(*(build(1, BAD, at, repo=repo) for repo in self.desk.roster.repos))

    def turn(self) -> None:
        """Each posts by a thread of its own: the less time lies between two of a cluster, the better."""
        with ThreadPoolExecutor(len(self.posting)) as threads:
            for done in [threads.submit(each.turn) for each in self.posting]:
                done.result()

    def until(self, what: str, look: object) -> None:
        """Turns until it is so."""

        def turned() -> object:
            self.turn()
            return look()  # type: ignore[operator]

        until(what, turned, 15)

    def a_while(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.turn()
            time.sleep(0.05)

    def gauge(self, name: str, url: str) -> float | None:
        return self.telemetry.registry.get_sample_value(name, {"alertmanager": url})


@needs("prometheus-alertmanager")
def test_red_and_green_arrive_and_no_restart_of_ours_or_theirs_changes_that(
    tmp_path: Path, ledger: Ledger, team: Receiver
) -> None:
    with running(tmp_path, team) as (theirs,):
        ours = Told(ledger, theirs.url)
        opened = ours.end(1, BAD, title="Parse <dates>")
        ours.until("firing", lambda: colours(team) == ["firing"])
        (alert,) = told(team)
        assert unix(alert["startsAt"]) == pytest.approx(opened, abs=0.002)
        assert alert["labels"] == {
            "alertname": "CIBuildFailed", "severity": "warning", "server": "ci", "repo": REPO,
            "branch": "main", "event": "push",
        }  # fmt: skip
        assert alert["annotations"]["summary"] == "octo/hello main #1 failed at step test (exit 2)"
        assert alert["annotations"]["build_url"] == "http://ci.example.com/octo/hello/1"
        assert "Parse \uff1cdates\uff1e" in alert["annotations"]["description"]
        (held,) = theirs.alerts()
        assert held["generatorURL"] == "http://ci.example.com/octo/hello/1"
        assert unix(held["endsAt"]) == pytest.approx(time.time() + AHEAD, abs=5)
        assert ours.gauge("ci_alertmanager_last_success_timestamp_seconds", theirs.url) == pytest.approx(
            time.time(), abs=5
        )
        assert ours.gauge("ci_alertmanager_clock_skew_seconds", theirs.url) == pytest.approx(-0.5, abs=1.5)

        ours.end(2, BAD)
        ours.until("what changed", lambda: "#2 failed" in theirs.alerts()[0]["annotations"]["summary"])
        ours.again()
        ours.a_while(0.7)
        assert colours(team) == ["firing"]

        theirs.stop()
        ours.a_while(0.3)
        theirs.start().ready()
        ours.until("it is held again", theirs.alerts)
        assert unix(theirs.alerts()[0]["startsAt"]) == pytest.approx(opened, abs=0.002)
        ours.a_while(0.5)
        assert colours(team) == ["firing"]

        theirs.stop()
        ours.end(3, GOOD)
        ours.turn()
        ours.again()
        theirs.start().ready()
        ours.until("resolved", lambda: colours(team) == ["firing", "resolved"])
        assert told(team)[-1]["annotations"]["summary"].startswith(
            "octo/hello main is green again: #3, after"
        )
        ours.a_while(0.5)
        assert colours(team) == ["firing", "resolved"]
        assert theirs.alerts() == []


@needs("prometheus-alertmanager")
def test_all_of_a_cluster_are_told_and_nothing_fires_again(
    tmp_path: Path, ledger: Ledger, team: Receiver
) -> None:
    with running(tmp_path, team, 2) as pair:
        ours = Told(ledger, *(each.url for each in pair))
        ours.end(1, BAD)
        ours.until("firing at both", lambda: all(each.alerts() for each in pair))
        until("firing", lambda: colours(team) == ["firing"])
        ours.a_while(1)
        ours.end(2, GOOD)
        ours.until("resolved", lambda: colours(team) == ["firing", "resolved"])
        ours.a_while(1.5)
        assert colours(team) == ["firing", "resolved"]
        assert [each.alerts() for each in pair] == [[], []]


@needs("prometheus-alertmanager")
def test_what_one_alert_is_refused_for_stops_no_other(
    tmp_path: Path, ledger: Ledger, team: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    repos = tuple(f"octo/r{n}" for n in range(70))
    with running(tmp_path, team) as (theirs,):
        ours = Told(ledger, theirs.url, repos=repos)
        ours.fail_everywhere()
        with ledger.transaction() as conn:
            write_alerts(
                conn, [poison('{"alertname": "x", "no-name": "x"}', ""), poison("{}", "http://a/%zz")]
            )
        ours.turn()
        assert {alert["labels"]["repo"] for alert in theirs.alerts()} == set(repos)
        ours.a_while(1.2)
        lines = [vars(record)["fields"] for record in caplog.records if record.levelname == "WARNING"]
        assert [line["labels"] for line in lines] == ['{"alertname": "x", "no-name": "x"}', "{}"]
        assert "422" in lines[1]["said"]
        assert "400" in lines[0]["said"]
        assert ours.gauge("ci_alertmanager_last_success_timestamp_seconds", theirs.url)


def poison(labels: str, url: str) -> Alert:
    """An alert that Alertmanager refuses."""
    return Alert("am", labels, 1, "push:gone", 1, time.time() - 60, 0.0, "{}", url, "{}")


@needs("prometheus-alertmanager")
@pytest.mark.parametrize("ahead", [300.0, -300.0])
def test_a_clock_five_minutes_off_loses_nothing(
    tmp_path: Path, ledger: Ledger, team: Receiver, ahead: float
) -> None:
    with running(tmp_path, team) as (theirs,):
        ours = Told(ledger, theirs.url, ahead=ahead)
        opened = ours.end(1, BAD)
        ours.until("firing", lambda: colours(team) == ["firing"])
        (held,) = theirs.alerts()
        assert unix(held["startsAt"]) == pytest.approx(opened, abs=0.002)
        assert unix(held["endsAt"]) == pytest.approx(time.time() + AHEAD, abs=5)
        ours.end(2, GOOD)
        ours.until("resolved", lambda: colours(team) == ["firing", "resolved"])
        ours.a_while(0.6)
        ours.end(3, BAD)
        ours.until("firing again", lambda: colours(team) == ["firing", "resolved", "firing"])
        skew = ours.gauge("ci_alertmanager_clock_skew_seconds", theirs.url)
        assert skew == pytest.approx(-ahead - 0.5, abs=1.5)


def posts(receiver: Receiver) -> list[list[dict[str, Any]]]:
    return [got.json for got in receiver.got]


def test_many_alerts_go_in_batches_and_the_clock_is_asked_for_first(ledger: Ledger, team: Receiver) -> None:
    repos = tuple(f"octo/r{n}" for n in range(130))
    ours = Told(ledger, team.url, repos=repos)
    ours.fail_everywhere()
    ours.turn()
    assert [len(batch) for batch in posts(team)] == [0, 64, 64, 2]
    assert {got.path for got in team.got} == {"/api/v2/alerts"}
    ours.turn()
    assert len(team.got) == 4


def test_whoever_has_nothing_to_tell_asks_whether_it_is_there(ledger: Ledger, team: Receiver) -> None:
    ours = Told(ledger, team.url, interval=0.0)
    assert ours.gauge("ci_alertmanager_last_success_timestamp_seconds", team.url) == 0
    ours.turn()
    ours.turn()
    assert posts(team) == [[], []]
    assert ours.gauge("ci_alertmanager_last_success_timestamp_seconds", team.url) == pytest.approx(
        time.time(), abs=5
    )
    assert ours.gauge("ci_alertmanager_clock_skew_seconds", team.url) is None


def test_a_resolve_is_taken_once_it_is_past_by_their_clock(ledger: Ledger, team: Receiver) -> None:
    ours = Told(ledger, team.url, interval=0.0)
    date = {"Date": formatdate(time.time() - 300, usegmt=True)}
    team.answer(Case(headers=date))
    ours.end(1, BAD)
    ours.turn()
    ours.end(2, GOOD)
    # Their clock is set back between two posts: what was past is ahead now.
    team.answer(Case(headers={"Date": formatdate(time.time() - 900, usegmt=True)}))
    ours.turn()
    assert taken(ours) == {}
    ours.turn()
    assert list(taken(ours)) == [team.url]
    (told_last,) = posts(team)[-1]
    assert unix(told_last["endsAt"]) <= time.time() - 898
    assert ours.gauge("ci_alertmanager_clock_skew_seconds", team.url) == pytest.approx(-900, abs=2)


def taken(ours: Told) -> dict[str, float]:
    with ours.ledger.reading() as conn:
        (alert,) = alerts_of(conn, "am")
    found: dict[str, float] = json.loads(alert.taken)
    return found


@pytest.mark.parametrize(
    ("case", "said"),
    [
        (Case(503), "in trouble"),
        (Case(429, headers={"Retry-After": "3"}), "too many"),
        (Case(401), "look at its secrets"),
        (Case(404), "look at its address"),
        (Case(405), "look at `urls`"),
        (Case(400, "not today"), "not today"),
        (Case(302, headers={"Location": "http://login.example/x"}), "http://login.example"),
        (Case(200, "<html>Welcome</html>"), "a web page"),
        (Case(does="reset"), "no answer"),
        (Case(200, "", {"Date": "yesterday"}), ""),
    ],
)
def test_what_does_not_take_alerts_gets_them_again_and_is_told_of_once(
    ledger: Ledger, team: Receiver, caplog: pytest.LogCaptureFixture, case: Case, said: str
) -> None:
    caplog.set_level("INFO")
    ours = Told(ledger, team.url)
    ours.end(1, BAD)
    team.answer(case)
    ours.turn()
    ours.posting[0]._not_before = 0.0
    ours.turn()
    lines = [record for record in caplog.records if "Alertmanager" in record.getMessage()]
    assert [said in vars(line)["fields"]["said"] for line in lines] == [True] * bool(said)
    assert not said or all(batch == [] for batch in posts(team))
    caplog.clear()
    team.answer(Case())
    ours.posting[0]._not_before = 0.0
    ours.turn()
    again = [record.getMessage() for record in caplog.records if "Alertmanager" in record.getMessage()]
    assert again == ["an Alertmanager takes alerts again"] * bool(said)
    assert not said or [len(batch) for batch in posts(team)] == [0, 1]


def test_a_retry_waits_as_long_as_is_asked_for(ledger: Ledger, team: Receiver) -> None:
    ours = Told(ledger, team.url)
    team.answer(Case(503, headers={"Retry-After": "1"}))
    ours.turn()
    ours.end(1, BAD)
    ours.a_while(0.8)
    assert len(team.got) == 1
    ours.until("the next attempt", lambda: len(team.got) > 1)


def test_the_alerts_that_are_left_out_are_found_by_halves_and_tried_again(
    ledger: Ledger, team: Receiver, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = Told(ledger, team.url, interval=0.0, repos=("octo/a", "octo/b"))
    ours.end(1, BAD, "octo/a")
    ours.end(2, BAD, "octo/b")
    refused, good = Case(422, {"code": 601, "message": "bad"}), Case(headers={"Date": formatdate()})
    team.answer(good, refused, good, refused, good)
    ours.turn()
    assert [len(batch) for batch in posts(team)] == [0, 2, 0, 1, 1]
    team.answer(good)
    ours.turn()
    assert [alert["labels"]["repo"] for batch in posts(team) for alert in batch] == ["octo/b"]
    monkeypatch.setattr("exporter.notify.alertmanager.REFUSED_AGAIN", 0.0)
    ours.end(3, BAD, "octo/a")
    team.answer(refused, good, refused, good)
    ours.turn()
    ours.turn()
    assert [len(batch) for batch in posts(team)] == [2, 0, 1, 1, 2]
    lines = [vars(record)["fields"] for record in caplog.records if record.levelname == "WARNING"]
    assert ["octo/a" in line["labels"] for line in lines] == [True, True]


@pytest.mark.parametrize(
    ("about", "expected"),
    [
        ({"token": "abc"}, "Bearer abc"),
        ({"login": "ci", "password": "s3cret"}, "Basic Y2k6czNjcmV0"),
        ({}, None),
    ],
)
def test_who_we_are_is_said_in_the_header(
    ledger: Ledger, team: Receiver, about: dict[str, str], expected: str | None
) -> None:
    ours = Told(ledger, team.url, **about)
    ours.turn()
    assert team.got[0].headers.get("Authorization") == expected


def test_an_exporter_ends_while_an_alertmanager_hangs(tmp_path: Path, team: Receiver) -> None:
    team.answer(Case(does="hang"))
    target = {"name": "am", "type": "alertmanager", "urls": [team.url]}
    nowhere = entry(tmp_path, "ci", "http://127.0.0.1:9")
    app = App(load(configure(tmp_path, nowhere, notify={"targets": [target]})))
    app.start()
    until("a request that hangs", lambda: team.got)
    page = requests.get(f"http://{app.listener.address}/metrics", timeout=5).text
    began = time.monotonic()
    app.stop()
    assert time.monotonic() - began < 4
    assert f'ci_alertmanager_last_success_timestamp_seconds{{alertmanager="{team.url}"}} 0.0' in page


def red(directory: Path) -> list[int]:
    """Of each incident in the ledger whether it is open."""
    with closing(sqlite3.connect(directory / "ledger.db")) as ledger:
        return [row[0] for row in ledger.execute("SELECT red FROM incidents")]


@needs("prometheus-alertmanager")
def test_kill_9_and_an_alertmanager_that_is_down_lose_nothing(tmp_path: Path, team: Receiver) -> None:
    world = World("drone-1", clock=Clock.real(), seed=3)
    world.add_repo("octo/hello", default_branch="main")

    def end(outcome: str) -> None:
        number = world.start_build("octo/hello", branch="main", running=True)
        world.clock.advance(2)
        world.finish("octo/hello", number, outcome)

    with ExitStack() as stack:
        (theirs,) = stack.enter_context(running(tmp_path, team))
        target = {"name": "am", "type": "alertmanager", "urls": [theirs.url]}
        server = entry(tmp_path, "ci", stack.enter_context(serve(world)))
        configure(tmp_path, server, notify={"targets": [target]})
        ours = stack.enter_context(exporter(tmp_path)).ready()
        end("failure")
        until("firing", lambda: colours(team) == ["firing"])
        until("its log", lambda: "exit code" in theirs.alerts()[0]["annotations"].get("log", ""))
        theirs.stop()
        end("success")
        until("green", lambda: red(tmp_path) == [0])
        ours.kill()
        theirs.start().ready()
        ours.start()
        until("resolved", lambda: colours(team) == ["firing", "resolved"])
        assert ours.stop() == 0


@needs("amtool")
def test_the_configuration_in_the_page_is_one_that_alertmanager_takes(tmp_path: Path) -> None:
    page = (Path(__file__).parent.parent / "docs/alertmanager.md").read_text(encoding="utf-8")
    snippet = page[page.index("```yaml\nroute:") :].split("```")[1].removeprefix("yaml\n")
    (tmp_path / "alertmanager.yml").write_text(snippet)
    file = str(tmp_path / "alertmanager.yml")
    assert "1 inhibit rules" in said_by_amtool("check-config", file)
    labels = ("alertname=CIBuildFailed", "severity=warning")
    assert said_by_amtool("config", "routes", "test", f"--config.file={file}", *labels) == "builds\n"


def said_by_amtool(*arguments: str) -> str:
    done = subprocess.run(
        [str(path_of("amtool")), *arguments], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
