"""Real Alertmanagers are told what is red until they surely know that it is over, whoever dies meanwhile."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from alertmanagers import alertmanagers as running
from alertmanagers import colours, told, unix
from desk import REPO, START, Desk, build, made
from process import until
from programs import needs
from receiver import Receiver, receiving

from exporter.config_alertmanager import AlertmanagerSettings
from exporter.ledger import Ledger, watched
from exporter.ledger.alerts import Alert, write_alerts
from exporter.model import Status
from exporter.notify.alert_book import AlertBook
from exporter.notify.alertmanager import Alertmanager
from exporter.routes import Routes
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
        self, ledger: Ledger, *urls: str, ahead: float = 0.0, repos: tuple[str, ...] = (REPO,)
    ) -> None:
        """Our clock is `ahead` of everybody else's."""
        self.ledger, self.urls, self.ahead = ledger, urls, ahead
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
            {"name": "am", "type": "alertmanager", "urls": self.urls, "timeout": 5}
        )
        self.telemetry = Telemetry()
        self.book = AlertBook(
            "am",
            self.urls,
            self.ledger,
            ROUTES,
            ["ci"],
            self.desk.bridge.waits,
            interval=0.5,
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

    def turn(self) -> None:
        for each in self.posting:
            each.turn()

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
        for number, name in enumerate(repos, 1):
            ours.end(number, BAD, name)
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
