"""A PostgreSQL server of the tests' own: a throw-away cluster, which can be stopped, started and frozen."""

import gc
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
from process import until
from programs import needs, path_of

PROGRAMS = ("initdb", "postgres")
USER, PASSWORD = "ci", "p@ss/w0rd:?"
SETTINGS = {
    "autovacuum": "off",
    "fsync": "off",
    "full_page_writes": "off",
    "listen_addresses": "",
    "shared_buffers": "16MB",
    "timezone": "Asia/Kathmandu",
}
"""No disk is waited for, and nothing in a ledger may depend on the server's time zone."""


def needs_postgresql() -> pytest.MarkDecorator:
    """Marks tests that use a cluster."""
    return needs(*PROGRAMS)


class Cluster:
    """A cluster in a directory; it answers on a socket there, to `USER` with `PASSWORD`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._numbers = itertools.count(1)
        # The server refuses to run as root; Debian's package comes with a user for it.
        self._as = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
        if self._as:
            shutil.chown(directory, "postgres", "postgres")
        (directory / "password").write_text(PASSWORD)
        (directory / "password").chmod(0o644)
        self._program(
            "initdb",
            f"--pgdata={directory}/data",
            f"--username={USER}",
            f"--pwfile={directory}/password",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
        )

    def start(self) -> None:
        """Starts the server and waits until it answers."""
        settings = [f"--{name}={value}" for name, value in SETTINGS.items()]
        with (self.directory / "log").open("ab") as log:
            self._server = subprocess.Popen(
                [str(path_of("postgres")), "-D", f"{self.directory}/data", "-k", self.directory, *settings],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                **self._as,
            )
        until("an answer of PostgreSQL", self._answers)

    def stop(self) -> None:
        """Stops the server at once, as a crash does; what was committed is kept."""
        self._server.send_signal(signal.SIGQUIT)
        self._server.wait(10)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """All of the server's processes stand still: connections stay, and nothing is answered."""
        tree = [self._server.pid, *self._children()]
        _signal(tree, signal.SIGSTOP)
        try:
            yield
        finally:
            gc.collect()  # closes connections that were begun meanwhile, for which the server would wait
            _signal(tree, signal.SIGCONT)

    @contextmanager
    def database(self, encoding: str = "UTF8") -> Iterator[str]:
        """The address of a new, empty database, which is dropped in the end."""
        name = f"ledger{next(self._numbers)}"
        self.run(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING '{encoding}'")
        try:
            yield self.url(name)
        finally:
            self.run(f"DROP DATABASE {name} (FORCE)")

    def url(self, database: str, user: str = USER, password: str = PASSWORD) -> str:
        """The address of a database, as the configuration has it."""
        return f"postgresql://{user}:{quote(password, safe='')}@/{database}?host={self.directory}"

    def run(self, *statements: str) -> None:
        """Runs SQL as the administrator does."""
        with self._connected() as conn:
            for statement in statements:
                conn.execute(statement)

    def log(self) -> str:
        """What the server has logged."""
        return (self.directory / "log").read_text()

    def _connected(self) -> "psycopg.Connection[tuple[int]]":
        return psycopg.connect(
            host=str(self.directory), user=USER, password=PASSWORD, dbname="postgres", autocommit=True
        )

    def _answers(self) -> bool:
        assert self._server.poll() is None, self.log()
        try:
            self._connected().close()
        except psycopg.OperationalError:
            return False
        return True

    def _children(self) -> list[int]:
        path = Path(f"/proc/{self._server.pid}/task/{self._server.pid}/children")
        return [int(pid) for pid in path.read_text().split()]

    def _program(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [str(path_of(program)), *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            cwd=self.directory,
            check=False,
            **self._as,
        )
        assert done.returncode == 0, done.stderr


def _signal(processes: list[int], number: signal.Signals) -> None:
    for pid in processes:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


@contextmanager
def cluster() -> Iterator[Cluster]:
    """A cluster that is gone in the end; its directory is short, for it holds a socket."""
    directory = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
    try:
        made = Cluster(directory)
        try:
            made.start()
            yield made
        finally:
            made.stop()
    finally:
        shutil.rmtree(directory)
