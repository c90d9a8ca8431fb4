"""The demo as a whole: what is started in which order, what is said of it, and how it ends."""

import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
import yaml

from exporter.config import load
from exporter.demo import programs
from exporter.demo.children import Child, Children, EndedError, ProgramError, hearing
from exporter.demo.history import HOUR, Pages, blocks_of, live_through
from exporter.demo.programs import ALERTMANAGER, GRAFANA, JOB, PROGRAMS, PROMETHEUS, PROMTOOL, Start
from exporter.demo.receiver import Receiver
from exporter.listener import Listener
from exporter.simulator import Clock, serve
from exporter.simulator.demo import demo_worlds
from exporter.simulator.history import DAY

PREFIX = "build-exporter-demo-"
PORTS = {"exporter": 9848, "prometheus": 9090, "alertmanager": 9093, "grafana": 3000, "receiver": 9849}
"""Where one looks for them; another where that is taken."""
POLL = 5.0
EVERY, AGENTS = 20.0, 3
"""Seconds from one build of a server to its next one, and how many run at once: messages can be read, and
sometimes a build waits."""
START = 60.0
"""Seconds that a program has to answer."""
EXPORTER = (sys.executable, "-P", "-m", "exporter")
SHIPPED = Path(__file__).parents[2] / "grafana" / "provisioning"
"""Beside the package in the source; not installed with it."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Extent:
    """How much there is to be seen: days of history, and hours of them that the exporter lived through."""

    days: float = 14.0
    lived: float = 2.0


class Stage:
    """One demo, from the first program to the last."""

    def __init__(
        self, directory: Path, children: Children, stack: ExitStack, say: Say, extent: Extent
    ) -> None:
        self._directory, self._children, self._stack = directory, children, stack
        self._say, self._extent = say, extent
        self._paths = {program: program.path() for program in PROGRAMS}
        self._addresses = {name: programs.free_address(port) for name, port in PORTS.items()}

    def play(self) -> None:
        """Starts everything, says where it is, and looks after it; raises `EndedError` when told to end."""
        self._say_what_is_missing()
        receiver = Receiver()
        listener = Listener(self._addresses["receiver"], receiver.app)
        listener.start()
        self._stack.callback(listener.stop)
        config = self._open_servers()
        self._make_history(config)
        self._start_exporter()
        self._start_others()
        self._say("Ctrl-C ends all of it.")
        while True:
            self._children.pause(3600.0)

    def _say_what_is_missing(self) -> None:
        for program, path in self._paths.items():
            if path is None:
                self._say(f"{program.title} is not installed ({program.advice}): it goes on without")

    def _open_servers(self) -> Path:
        """Serves the simulated worlds, whose clock is behind where hours are to be lived through."""
        lived = self._extent.lived * HOUR if self._has_history else 0.0
        self._clock = Clock.real(-lived)
        servers: list[dict[str, Any]] = []
        worlds = demo_worlds(
            time.time(), clock=self._clock, past=self._extent.days * DAY, every=EVERY, agents=AGENTS
        )
        for name, dialect, world in worlds:
            running = self._stack.enter_context(serve(world))
            token = self._directory / f"{name}.token"
            token.write_text(world.token, encoding="utf-8")
            servers.append(
                {
                    "name": name,
                    "url": running.url,
                    "token_file": token.name,
                    "dialect": dialect,
                    "poll": f"{POLL:g}s",
                    "import_rate": 0.0,
                }
            )
            self._say(f"  {name:13} {running.url}  (simulated, {dialect})")
        file = self._directory / "config.yaml"
        file.write_text(yaml.safe_dump(self._configuration(servers), sort_keys=False), encoding="utf-8")
        return file

    def _configuration(self, servers: list[dict[str, Any]]) -> dict[str, Any]:
        """The exporter's own configuration, which tells the receiver of what turns red and green."""
        page = self._directory / "page.url"
        page.write_text(f"http://{self._addresses['receiver']}/exporter", encoding="utf-8")
        return {
            "servers": servers,
            "ledger": {"url": f"sqlite:///{self._directory / 'ledger.db'}"},
            "web": {"listen": self._addresses["exporter"]},
            "notify": {"targets": [{"name": "page", "type": "webhook", "url_file": page.name}]},
        }

    @property
    def _has_history(self) -> bool:
        return None not in (self._paths[PROMETHEUS], self._paths[PROMTOOL])

    def _make_history(self, file: Path) -> None:
        """Makes the blocks of Prometheus, which must not have started yet; without them it begins empty."""
        promtool = self._paths[PROMTOOL]
        if promtool is None or not self._has_history:
            return
        began = time.monotonic()
        self._say(f"making {self._extent.days:g} days of history, which takes a while ...")
        pages = self._directory / "pages.om"
        with pages.open("wb") as written:
            taken = Pages(written, JOB, self._addresses["exporter"])
            for at, page in live_through(load(file), self._clock, lambda: self._children.pause(0)):
                taken.add(at, page)
            taken.close()
        tsdb = self._directory / "tsdb"
        try:
            self._children.run("promtool", blocks_of(promtool, pages, tsdb))
            self._backfill(file, tsdb)
        except ProgramError as error:
            self._say(f"{error}; Prometheus has less of a past")
        pages.unlink()
        self._say(f"made in {time.monotonic() - began:.0f} s")

    def _backfill(self, file: Path, tsdb: Path) -> None:
        """Adds what was before the exporter first saw its servers."""
        past = self._directory / "past"
        labels = (f"--label=job={JOB}", f"--label=instance={self._addresses['exporter']}")
        options = (f"--config={file}", f"--since={self._extent.days:g}d", f"--out={past}", *labels)
        self._children.run("backfill", [*EXPORTER, "backfill", "--new-prometheus", *options])
        for block in (past / "blocks").iterdir():
            block.rename(tsdb / block.name)

    def _start_exporter(self) -> None:
        command = [*EXPORTER, "run", "--config", str(self._directory / "config.yaml")]
        self._start("exporter", Start(command, "/readyz"), "/metrics")

    def _start_others(self) -> None:
        addresses, directory = self._addresses, self._directory
        self._say(f"  {'messages':13} http://{addresses['receiver']}/")
        if path := self._paths[ALERTMANAGER]:
            start = programs.alertmanager(path, directory, addresses["alertmanager"], addresses["receiver"])
            self._start("alertmanager", start)
        if path := self._paths[PROMETHEUS]:
            self._start("prometheus", programs.prometheus(path, directory, addresses))
            if (path := self._paths[GRAFANA]) and SHIPPED.is_dir():
                start = programs.grafana(
                    path, directory, addresses["grafana"], addresses["prometheus"], SHIPPED
                )
                self._start("grafana", start)

    def _start_grafana(self, path: str) -> None:
        if not SHIPPED.is_dir():
            self._say(
                "Grafana is left out: its dashboards are in the source of build-exporter, which this is not"
            )
            return
        addresses = self._addresses["grafana"], self._addresses["prometheus"]
        self._start("grafana", programs.grafana(path, self._directory, *addresses, SHIPPED))

    def _start(self, name: str, start: Start, page: str = "/") -> None:
        """Starts a program and says where it is; one that does not come up is told of, and left out."""
        address = f"http://{self._addresses[name]}"
        child = self._children.start(name, start.command, start.environ)
        try:
            self._children.until(child, lambda: _answers(address + start.ready), START)
        except ProgramError as error:
            self._say(f"{error}; it goes on without")
        else:
            self._say(f"  {name:13} {address}{page}")


def play(say: Say, extent: Extent | None = None) -> None:
    """Runs the demo until SIGINT, SIGTERM or SIGHUP; then nothing of it is left."""

    def died(child: Child) -> None:
        how = f"signal {-child.code}" if child.code < 0 else f"exit code {child.code}"
        say(f"{child.name} has ended ({how}; its log is {child.log}): {child.last_words}; the rest goes on")

    with (
        hearing() as heard,
        tempfile.TemporaryDirectory(prefix=PREFIX) as name,
        ExitStack() as served,
        Children(Path(name), died, heard) as children,
        suppress(EndedError),
    ):
        Stage(Path(name), children, served, say, extent or Extent()).play()


def _answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=2).status_code == 200
    except requests.RequestException:
        return False
