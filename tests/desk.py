"""A ledger on disk into which a test writes builds as a watch does, and what people are told then."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from pydantic import SecretStr
from sqlalchemy import Connection

from exporter.bridge import Bridge
from exporter.config import ServerSettings
from exporter.intake import Intake
from exporter.ledger import Ledger, Moment, states, watched
from exporter.ledger.messages import Row
from exporter.ledger.schema import outbox
from exporter.ledger.watched import RepoState, ServerState
from exporter.model import Build, Event, Status, Step
from exporter.roster import Roster
from exporter.routes import Routes
from exporter.telemetry import Telemetry

START = 1_795_500_000
REPO = "octo/hello"


class Desk:
    """One server `ci`; its repos are known since `START`, and the clock stands where `now` says."""

    def __init__(
        self, ledger: Ledger, routes: Routes, *, history: int = 0, repos: tuple[str, ...] = (REPO,)
    ) -> None:
        """Of each repo `history` builds are still to be read."""
        self.ledger, self.now = ledger, START + 700.0
        self.telemetry = Telemetry()
        self.settings = ServerSettings.model_validate(
            {
                "name": "ci",
                "url": "http://ci.example.com",
                "token": SecretStr("t"),
                "poll": 15.0,
                "sweep": 600.0,
            }
        )
        with ledger.transaction() as conn:
            if not watched.repo_states(conn, "ci"):
                watched.write_server(conn, ServerState("ci", START))
                for name in repos:
                    self._adopt(conn, name, history)
        self.roster = Roster(ledger, self.settings)
        self.roster.load()
        self.bridge = Bridge(ledger, routes, self.telemetry, lambda: self.now)
        self.intake = Intake(
            ledger, self.roster, self.settings, self.telemetry, self.moment, 30 * 86_400.0,
            lambda _: None, self.bridge,
        )  # fmt: skip

    def _adopt(self, conn: Connection, name: str, history: int) -> None:
        repo = RepoState(0, "ci", name, default_branch="main", horizon=START, highest=history)
        repo.build_url = f"http://ci.example.com/{name}/"
        watched.write_repos(conn, [repo])
        if history:
            watched.add_gap(conn, repo, 1, history, history=True)

    def moment(self) -> Moment:
        return Moment(self.now, self.now)

    def take(self, *builds: Build, within: Callable[[Connection], None] | None = None) -> None:
        """The server told of these builds."""
        self.intake.take(builds, within)

    def read_history(self, *builds: Build, down_to: int = 1, repo: str = REPO) -> None:
        """The newest list page of what is left of a repo's history is recorded."""
        state = self.roster.repos[repo]
        with self.ledger.reading() as conn:
            gap = next(gap for gap in watched.gaps_of_repo(conn, state.id) if gap.history)

        def write(conn: Connection) -> None:
            watched.write_gap(conn, replace(gap, high=down_to - 1))
            self.intake.history_read(conn, [state])

        self.take(*builds, within=write)

    def rows(self, target: str = "") -> list[Row]:
        """All messages, in their order."""
        with self.ledger.reading() as conn:
            found = [Row(*row) for row in conn.execute(outbox.select().order_by(outbox.c.id))]
        return [row for row in found if target in ("", row.target)]

    def told(self, target: str = "") -> list[tuple[str, int]]:
        """Kind and build number of every message."""
        return [(row.kind, row.told.number) for row in self.rows(target)]

    def state(self, ref_class: str = "push:main", repo: str = REPO) -> states.State:
        with self.ledger.reading() as conn:
            return states.states_of(conn, self.roster.repos[repo].id, [ref_class])[ref_class]


def made(path: Path) -> Ledger:
    """A new ledger."""
    ledger = Ledger(f"sqlite:///{path}/ledger.db")
    ledger.lock()
    ledger.migrate()
    return ledger


def build(number: int, status: Status, at: float = 0.0, **about: object) -> Build:
    """A build whose end was read singly; it ended `at` seconds after `START`, if badly in the step `test`."""
    end = int(START + (at or 10 * number))
    known: dict[str, object] = {
        "repo": REPO, "number": number, "run": end - 60, "created": end - 60, "started": end - 50,
        "finished": end, "status": status, "detailed": True, "event": Event.PUSH, "branch": "main",
        "commit": f"c{number}", "author": "ann", "title": "Parse dates", "duration": 50,
        "steps": (
            Step(name="lint", status=Status.FAILURE, exit_code=9, ignored=True),
            Step(name="test", status=Status.FAILURE if status.bad else Status.SUCCESS, exit_code=2),
        ),
    }  # fmt: skip
    return Build(**(known | about))  # type: ignore[arg-type]
