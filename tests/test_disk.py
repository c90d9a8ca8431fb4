"""A disk that is full or cannot be written: polling stops and says so, the page stays, nothing is torn."""

import contextlib
import os
import resource
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import pytest
from process import command, configure, entry, exporter, first_look, happened, until
from programs import needs

from exporter.simulator import Clock, World, serve

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a disk or lock files")
Switch = Callable[[int], object]
"""Breaks a disk for the process with this id, or mends it."""


@contextmanager
def mounted(directory: Path, options: str) -> Iterator[None]:
    """A small disk at this directory."""
    if subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", directory], check=False).returncode:
        pytest.skip("a container without the right to mount a disk")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", directory], check=True)


def fill(directory: Path) -> None:
    with contextlib.suppress(OSError), (directory / "filler").open("wb", buffering=0) as filler:
        while filler.write(b"x" * 4096):
            pass


@contextmanager
def full(directory: Path) -> Iterator[tuple[Switch, Switch]]:
    with mounted(directory, "size=1m"):
        yield lambda _: fill(directory), lambda _: (directory / "filler").unlink()


@contextmanager
def out_of_quota(_directory: Path) -> Iterator[tuple[Switch, Switch]]:
    """Files end after 4096 bytes, in the middle of the first page that SQLite writes to its log."""

    def limit(process: int, size: int) -> None:
        resource.prlimit(process, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    yield lambda process: limit(process, 4096), lambda process: limit(process, resource.RLIM_INFINITY)


@contextmanager
def read_only(directory: Path) -> Iterator[tuple[Switch, Switch]]:
    def mark(how: str) -> None:
        subprocess.run(["chattr", how, directory, *directory.glob("ledger.db*")], check=True)

    if subprocess.run(["chattr", "+i", directory], check=False).returncode:
        pytest.skip("a file system or container without files that nobody may change")
    mark("-i")
    try:
        yield lambda _: mark("+i"), lambda _: mark("-i")
    finally:
        mark("-i")


@pytest.mark.parametrize(
    "disk",
    [
        pytest.param(full, marks=[as_root, needs("mount")]),
        out_of_quota,
        pytest.param(read_only, marks=[as_root, needs("chattr")]),
    ],
)
def test_a_disk_that_fails_and_works_again(
    tmp_path: Path, disk: Callable[[Path], AbstractContextManager[tuple[Switch, Switch]]]
) -> None:
    clock = Clock.real(-1000)
    world = World("drone-1", clock=clock, default_branch="main")
    world.add_repo("octo/hello", builds=30)
    world.start_build("octo/hello", running=True)
    at = tmp_path / "disk"
    at.mkdir()
    with ExitStack() as stack:
        fail, mend = stack.enter_context(disk(at))
        ci = stack.enter_context(serve(world))
        configure(tmp_path, entry(tmp_path, "drone", ci), ledger={"url": f"sqlite:///{at}/ledger.db"})
        first_look(tmp_path, clock)
        process = stack.enter_context(exporter(tmp_path)).ready()

        def counted() -> float:
            return sum(v for series, v in process.metrics().items() if series.startswith("ci_builds_total"))

        world.finish("octo/hello", 31)
        until("the build counted", lambda: counted() == 1)
        until("all history", lambda: process.metrics()['ci_import_repos_remaining{server="drone"}'] == 0)
        before = process.metrics()

        fail(process.process.pid)
        until("the end of readiness", lambda: process.get("/readyz").status_code == 503)
        until("the end of polling", lambda: "polling stops" in process.log)
        asked = ci.requests.total()
        for _ in range(3):
            number = world.start_build("octo/hello", running=True)
            world.finish("octo/hello", number, "failure")
            time.sleep(1)
            assert process.get("/readyz").text.startswith(f"ledger: sqlite:///{at}/ledger.db: ")
            page = process.metrics()
            assert set(before) <= set(page), "the page is as complete as it was"
            assert happened(page) == happened(before)
            assert page['ci_server_up{server="drone"}'] == 0
        assert ci.requests.total() == asked, "the server is left alone"

        mend(process.process.pid)
        until("readiness", lambda: process.get("/readyz").status_code == 200)
        until("what ended meanwhile", lambda: counted() == 4)
        assert process.metrics()['ci_server_up{server="drone"}'] == 1
        assert process.stop() == 0
        with sqlite3.connect(at / "ledger.db") as ledger:
            assert ledger.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            ends = "SELECT count(*), sum(counted) FROM builds WHERE state = 2"
            assert ledger.execute(ends).fetchall() == [(34, 4)]
    assert [line.split()[1] for line in process.lines] == ["level=info", "level=error", "level=info"]
    assert 'msg="polling stops until it can be written: ledger: ' in process.lines[1]
    assert 'msg="the server is polled again"' in process.lines[2]


@as_root
@needs("mount")
def test_a_disk_that_cannot_be_written_at_the_start(tmp_path: Path) -> None:
    at = tmp_path / "disk"
    at.mkdir()
    configure(
        tmp_path, entry(tmp_path, "drone", "http://127.0.0.1:1"), ledger={"url": f"sqlite:///{at}/ledger.db"}
    )
    with mounted(at, "size=1m,ro"):
        done = command(tmp_path, "run")
        assert done.returncode == 2
        assert (
            done.stderr == f"build-exporter: ledger: cannot lock {at}/ledger.db.lock: Read-only file system\n"
        )
    with mounted(at, "size=1m"):
        fill(at)
        done = command(tmp_path, "run")
        assert done.returncode == 2
        assert done.stderr == (
            f"build-exporter: ledger: sqlite:///{at}/ledger.db: database or disk is full\n"
        )
