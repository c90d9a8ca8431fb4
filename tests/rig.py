"""One simulated server, a ledger on disk and a watch on it, with a clock that the test turns."""

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr

from exporter.bridge import Bridge
from exporter.config import Only, RepoFilter, ServerSettings
from exporter.exposition import Page
from exporter.ledger import Ledger
from exporter.ledger.recall import Recalled
from exporter.refresh import Refresher, Shown
from exporter.routes import Routes
from exporter.servers.detect import open_server
from exporter.simulator import Clock, Running, World, serve
from exporter.telemetry import Telemetry
from exporter.watch import Watch

START = 1_795_500_000
DAY = 86_400.0


class TestStop(threading.Event):
    """Where the watch would wait, the world's clock moves on instead."""

    __test__ = False

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock

    def wait(self, timeout: float | None = None) -> bool:
        self.clock.advance(timeout or 0.0)
        return self.is_set()


@dataclass
class Rig:
    world: World
    running: Running
    ledger_url: str
    options: dict[str, object] = field(default_factory=dict)
    routes: Routes = field(default_factory=Routes)

    def __post_init__(self) -> None:
        self.clock = self.world.clock
        self.ours: Callable[[], float] = self.clock.now
        """The exporter's clock."""
        self._read: tuple[str, list[tuple[str, dict[str, str], float]]] = ("", [])
        self.open()

    def open(self) -> None:
        """A process of the exporter begins."""
        self.ledger = Ledger(self.ledger_url)
        self.ledger.lock()
        self.ledger.migrate()
        self.telemetry = Telemetry()
        self.page = Page(registry=self.telemetry.registry)
        self.refresher = Refresher(self.page, self.ledger, abandoned_after=2 * DAY, clock=self.ours)
        options = {
            "name": "ci",
            "url": self.running.url,
            "public_url": "https://ci.example.com",
            "token": SecretStr(self.world.token),
            "poll": 15.0,
            "sweep": 600.0,
            "import_": 90 * DAY,
            "import_rate": 0.0,
            "timeout": 5.0,
        }
        options |= self.options
        options["repos"] = RepoFilter.model_validate(options.get("repos", {}))
        options["only"] = Only.model_validate(options.get("only", {}))
        self.settings = ServerSettings.model_validate(options)
        self.bridge = Bridge(self.ledger, self.routes, self.telemetry, self.ours)
        self.watch = Watch(
            self.settings,
            lambda: open_server(
                self.settings,
                self.telemetry,
                recall=Recalled(self.ledger, "ci"),
                clock=self.ours,
                sleep=self.clock.advance,
            ),
            self.ledger,
            self.telemetry,
            retention=400 * DAY,
            series_retention=30 * DAY,
            changed=self.refresher.refresh,
            bridge=self.bridge,
            stop=TestStop(self.clock),
            clock=self.ours,
            monotonic=self.ours,
        )
        self.watch.load()
        self.refresher.show(
            "ci",
            Shown(self.watch.policy, self.watch.skew, self.watch.last_poll),
        )

    def close(self) -> None:
        """The process ends, having let go of everything."""
        self.watch.close()
        self.ledger.close()

    def restart(self) -> None:
        self.close()
        self.open()

    def poll(self, seconds: float = 15.0) -> None:
        """Time passes, then the server is looked at."""
        self.clock.advance(seconds)
        self.watch.cycle()
        self.refresher.refresh(self.bridge.tick())
        self.refresher.tick()

    def good_poll(self, seconds: float = 15.0) -> None:
        self.poll(seconds)
        assert self.watch.fault == ""

    def settle(self) -> None:
        """What is new is shown: polls until the history is read and new series are let out."""
        for _ in range(20):
            self.good_poll()
            if self.value("ci_import_repos_remaining") == 0:
                break
        self.good_poll(150)

    def series(self) -> list[tuple[str, dict[str, str], float]]:
        """Name, labels and value of every series on the page; the same page is read once."""
        text = self.text()
        if text != self._read[0]:
            families = text_string_to_metric_families(text)
            self._read = text, [(s.name, s.labels, s.value) for family in families for s in family.samples]
        return self._read[1]

    def family(self, name: str) -> list[tuple[dict[str, str], float]]:
        """Labels and value of every series of a family."""
        return [(labels, value) for family, labels, value in self.series() if family == name]

    def asked(self, route: str) -> int:
        """How many requests there were whose route ends so."""
        return sum(n for (_, asked), n in list(self.running.requests.items()) if asked.endswith(route))

    def samples(self) -> dict[str, float]:
        """The page: `family{label="value",...}` without `server` → value."""
        return {
            name + str(sorted((k, v) for k, v in labels.items() if k != "server")): value
            for name, labels, value in self.series()
        }

    def path(self, repo: str) -> str:
        """A regular expression of where the server has the builds of a repo."""
        if self.world.dialect == "woodpecker":
            return f"repos/{self.world.repos[repo].id}/pipelines"
        return f"{repo}/builds"

    def text(self) -> str:
        return bytes(self.page.render(False, False)).decode()

    def value(self, family: str, **labels: str) -> float | None:
        """The value of one series; None where it is absent."""
        for found, value in self.family(family):
            if {key: text for key, text in found.items() if key != "server"} == labels:
                return value
        return None

    def counted(self, repo: str, status: str, branch: str = "main", event: str = "push") -> float | None:
        return self.value("ci_builds_total", repo=repo, branch=branch, event=event, status=status)

    def query(self, sql: str) -> list[tuple[object, ...]]:
        with self.ledger.reading() as conn:
            return [tuple(row) for row in conn.exec_driver_sql(sql)]


def build(
    ci: Rig, outcome: str = "success", repo: str = "octo/hello", seconds: float = 30, **about: Any
) -> int:
    """A build waits for 5 seconds, runs and ends; its number."""
    number = ci.world.start_build(repo, **about)
    ci.clock.advance(5)
    ci.world.run(repo, number)
    ci.clock.advance(seconds)
    ci.world.finish(repo, number, outcome)
    return number


@contextlib.contextmanager
def rig(
    dialect: str,
    tmp_path: Path,
    world: World | None = None,
    ledger_url: str = "",
    user: Mapping[str, bool] | None = None,
    routes: Routes = Routes(),  # noqa: B008
    **options: object,
) -> Iterator[Rig]:
    """A rig on a world of its own, or on `world`; with a ledger in `tmp_path`, or at `ledger_url`.

    `user` is what the token's user may do other than everything; `options` are settings of the server.
    """
    if world is None:
        world = World(dialect, clock=Clock(START), seed=1)
        world.add_repo("octo/hello", default_branch="main")
    world.set_user(**(user or {}))
    with serve(world) as running:
        made = Rig(world, running, ledger_url or f"sqlite:///{tmp_path}/ledger.db", options, routes)
        try:
            yield made
        finally:
            made.close()
