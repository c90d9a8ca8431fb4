"""The real command as a process of its own: configured, started, watched, signalled."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import requests

from exporter.app import App
from exporter.config import load
from exporter.metrics import METRICS, Group
from exporter.simulator import Clock, Running

COMMAND = str(Path(sys.executable).with_name("build-exporter"))
HAPPENED = tuple(name for name, metric in METRICS.items() if metric.group is Group.HAPPENED)
"""Families of "What happened": what none of their series may do is fall."""

T = TypeVar("T")


def until(what: str, look: Callable[[], T], seconds: float = 30.0) -> T:
    """What `look` answers once that is true; fails, naming `what`, when it never is."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.02)
    return found


def entry(directory: Path, name: str, server: Running | str, **settings: object) -> dict[str, object]:
    """A server of the configuration, whose token is in a file beside it."""
    url = server if isinstance(server, str) else server.url
    token = "token-of-nobody" if isinstance(server, str) else server.world.token
    (directory / f"{name}.token").write_text(f"{token}\n")
    return {
        "name": name,
        "url": url,
        "token_file": f"{name}.token",
        "poll": "1s",
        "import_rate": 0.0,
        **settings,
    }


def configure(directory: Path, *servers: Mapping[str, object], **sections: object) -> Path:
    """Writes `config.yaml`: on a port of its own, with a ledger beside it."""
    path = directory / "config.yaml"
    known = {"ledger": {"url": f"sqlite:///{directory}/ledger.db"}, "web": {"listen": "127.0.0.1:0"}}
    path.write_text(json.dumps({"servers": servers, **known, **sections}, indent=2))
    return path


def first_look(directory: Path, clock: Clock, age: float = 1000.0) -> None:
    """Lets the configured servers have been looked at once, `age` seconds before now by `clock`.

    Series that were born then are shown at once, where new ones are held at 0 for two minutes; history is
    still to be read.
    """
    app = App(load(directory / "config.yaml"), clock=clock.now)
    for watch in app.work.watches:
        watch.cycle(history=False)
        assert not watch.fault
    app.stop()
    clock.advance(age)


def command(
    directory: Path, *arguments: str, seconds: float = 30.0, **environ: str
) -> subprocess.CompletedProcess[str]:
    """The command run to its end in `directory`, which has neither a traceback nor a token in its output."""
    done = subprocess.run(
        [COMMAND, *arguments],
        cwd=directory,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    expect_clean(directory, done.stdout + done.stderr)
    return done


def expect_clean(directory: Path, text: str) -> None:
    """Whatever happened, no user is shown a traceback, and nobody a token."""
    assert "Traceback" not in text, text
    for token in directory.glob("*.token"):
        assert token.read_text().strip() not in text


class Exporter:
    """`build-exporter run` (or other arguments) in a directory; what it writes goes to files there."""

    def __init__(self, directory: Path, *arguments: str, **environ: str) -> None:
        self.directory = directory
        self.arguments = arguments or ("run",)
        self._environ = {**os.environ, **environ}
        self.log_path = directory / "log"
        self.start()

    def start(self) -> None:
        """A new process on the same directory, which appends to the same log."""
        self._from = self.log_path.stat().st_size if self.log_path.exists() else 0
        with self.log_path.open("ab") as log, (self.directory / "output").open("ab") as output:
            self.process = subprocess.Popen(
                [COMMAND, *self.arguments],
                cwd=self.directory,
                env=self._environ,
                stdout=output,
                stderr=log,
            )

    @property
    def log(self) -> str:
        """What this process wrote to standard error."""
        return self.log_path.read_bytes()[self._from :].decode()

    @property
    def lines(self) -> list[str]:
        return self.log.splitlines()

    @property
    def output(self) -> str:
        """What all processes wrote to standard output."""
        return (self.directory / "output").read_text()

    @property
    def address(self) -> str:
        """Where this process answers; empty until it has said so."""
        said = re.search(r"msg=watching .*listen=(\S+)", self.log)
        return said[1] if said else ""

    def started(self) -> "Exporter":
        """This, once it has said what it watches."""

        def said() -> str:
            assert self.process.poll() is None, self.log
            return self.address

        until("the line that says what is watched", said)
        return self

    def ready(self) -> "Exporter":
        """This, once every server was tried."""
        self.started()
        until("readiness", lambda: self.get("/readyz").status_code == 200)
        return self

    def get(self, path: str, **headers: str) -> requests.Response:
        return requests.get(f"http://{self.address}{path}", headers=headers, timeout=10)

    def metrics(self) -> dict[str, float]:
        """The page: `family{label="value",...}` → value."""
        answer = self.get("/metrics")
        assert answer.status_code == 200
        return samples(answer.text)

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self, seconds: float = 10.0) -> int:
        """Its exit code, once it has ended."""
        code = self.process.wait(seconds)
        expect_clean(self.directory, self.log + self.output)
        return code

    def stop(self) -> int:
        """Ends it as a service manager does; its exit code."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        """Ends it as a power cut does."""
        self.process.kill()
        self.process.wait()


@contextmanager
def exporter(directory: Path, *arguments: str, **environ: str) -> Iterator[Exporter]:
    """An `Exporter` that does not outlive the test."""
    made = Exporter(directory, *arguments, **environ)
    try:
        yield made
    finally:
        made.kill()


def samples(text: str) -> dict[str, float]:
    """A page in the text format as series → value."""
    lines = (line for line in text.splitlines() if line and not line.startswith("#"))
    return {series: float(value) for series, _, value in (line.rpartition(" ") for line in lines)}


def happened(page: Mapping[str, float]) -> dict[str, float]:
    """Of a page, what must never fall."""
    return {series: value for series, value in page.items() if series.startswith(HAPPENED)}
