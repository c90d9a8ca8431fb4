"""A simulated server in a process of its own, and a watch on it in this one."""

import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
from pydantic import SecretStr

from exporter.bridge import Bridge
from exporter.config import ServerSettings
from exporter.exposition import Page
from exporter.ledger import Ledger
from exporter.refresh import Refresher, Shown
from exporter.routes import Routes
from exporter.servers.detect import open_server
from exporter.telemetry import Telemetry
from exporter.watch import Watch

DAY = 86_400.0


@dataclass(frozen=True)
class Simulated:
    """Its address, an administrator's token and that of a plain user."""

    url: str
    admin: str
    reader: str

    def tell(self, what: str, **arguments: object) -> Any:
        """Steers it by its control path."""
        return self._control("POST", what, arguments)

    def asked(self, method: str = "GET", what: str = "requests") -> Any:
        """What its control path knows; `DELETE` begins anew."""
        return self._control(method, what, None)

    def _control(self, method: str, what: str, body: object) -> Any:
        answer = requests.request(method, f"{self.url}/_sim/{what}", json=body, timeout=60)
        answer.raise_for_status()
        return answer.json()


@contextmanager
def simulated(dialect: str, repos: int, builds: int, days: float = 80.0) -> Iterator[Simulated]:
    """Runs a simulator with that much history until the block ends."""
    command = [
        sys.executable, "-m", "exporter.simulator", "--dialect", dialect,
        "--repos", str(repos), "--builds", str(builds), "--days", str(days),
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield Simulated(*(process.stdout.readline().strip() for _ in range(3)))
        finally:
            process.terminate()


@dataclass(frozen=True)
class Watched:
    """A watch, and what belongs to it."""

    watch: Watch
    ledger: Ledger
    refresher: Refresher
    page: Page
    path: Path


@contextmanager
def watched(url: str, token: str, **options: object) -> Iterator[Watched]:
    """A watch on a server, with a ledger that is thrown away."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "ledger.db"
        ledger = Ledger(f"sqlite:///{path}")
        ledger.lock()
        ledger.migrate()
        telemetry = Telemetry()
        page = Page(registry=telemetry.registry)
        refresher = Refresher(page, ledger, abandoned_after=2 * DAY, clock=time.time)
        defaults = {
            "name": "ci", "url": url, "public_url": url, "token": SecretStr(token), "poll": 15.0,
            "sweep": 600.0, "import": 90 * DAY, "import_rate": 0.0, "timeout": 60.0,
        }  # fmt: skip
        settings = ServerSettings.model_validate(defaults | options)
        watch = Watch(
            settings,
            lambda: open_server(settings, telemetry),
            ledger,
            telemetry,
            retention=400 * DAY,
            series_retention=30 * DAY,
            changed=refresher.refresh,
            bridge=Bridge(ledger, Routes(), telemetry, time.time),
            stop=threading.Event(),
        )
        watch.load()
        refresher.show("ci", Shown(watch.policy, watch.skew, watch.last_poll))
        try:
            yield Watched(watch, ledger, refresher, page, path)
        finally:
            watch.close()
            ledger.close()
