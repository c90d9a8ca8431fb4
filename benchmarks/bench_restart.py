"""Start of the real process on a large ledger, and the memory that it needs while nothing happens.

The targets: with 1,000,000 builds of 1,000 repos the first complete page within 3 s of the start; less
than 250 MB at 100,000 series (about 800 repos). 1,000,000 series are printed beside it.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from operator import attrgetter
from pathlib import Path

import requests
from simulated import simulated

from exporter.ledger import Ledger, Moment, Policy, record, watched
from exporter.ledger.runs import COLUMNS, new_run
from exporter.ledger.schema import SETTLED, builds
from exporter.ledger.sql import upsert
from exporter.ledger.watched import RepoState, ServerState
from exporter.model import Build, Event, Status, Step

LIVE = 10
"""Builds of a repo that moved its counters; the others are history."""
STEPS = ("clone", "build", "test")
POLICY = Policy(lambda branch, default: branch == default, lambda _event, _branch: True, 30 * 86_400.0)


def fill(path: Path, repos: int, of_each: int) -> None:
    """A ledger as it is after a while: every repo with its counters, and a long past."""
    now = time.time()
    ledger = Ledger(f"sqlite:///{path}")
    ledger.migrate()
    moment = Moment(now - 600, now - 600)
    with ledger.transaction() as conn:
        watched.write_server(conn, ServerState("ci", int(now) - 86_400, int(now), now, 0.0, ""))
        for place in range(repos):
            repo = RepoState(
                id=0, server="ci", name=f"load/r{place:05d}", uid="", default_branch="main", timeout=3600,
                build_url=f"https://ci.example.com/load/r{place:05d}/", horizon=int(now) - 86_400,
                horizon_skew=0.0, generation=0, highest=of_each, highest_created=int(now) - 700, watched=True,
                missed_sweeps=0, missed_since=0.0, gone=False, pruned=0,
            )  # fmt: skip
            watched.write_repos(conn, [repo])
            past = [_build(repo.name, number, int(now) - 90_000) for number in range(1, of_each - LIVE + 1)]
            rows = [replace(new_run(repo.id, 0, build), state=SETTLED) for build in past]
            upsert(conn, builds, list(map(attrgetter(*COLUMNS), rows)))
            live = [
                _build(repo.name, number, int(now) - 700) for number in range(of_each - LIVE + 1, of_each + 1)
            ]
            record(conn, repo, POLICY, [replace(build, detailed=True) for build in live], moment)
    ledger.close()


def _build(repo: str, number: int, ended: int) -> Build:
    started = ended - 60
    steps = tuple(Step(name=n, status=Status.SUCCESS, started=started, finished=ended) for n in STEPS)
    status = Status.FAILURE if number % 7 == 0 else Status.SUCCESS
    return Build(
        repo=repo, number=number, run=started - 10, id=number, status=status, event=Event.PUSH, branch="main",
        ref="refs/heads/main", commit=f"{number:040x}", created=started - 10, started=started, finished=ended,
        wait=10, duration=60, author="ada", title="change the greeting", steps=steps,
    )  # fmt: skip


def start(directory: Path, url: str, repos: int) -> tuple[float, float, int]:
    """Seconds to the first complete page, MB of memory after some scrapes, series."""
    config = directory / "config.yaml"
    config.write_text(
        f"servers: [{{name: ci, url: '{url}', token_env: BENCH_TOKEN, dialect: drone-1, poll: 1h}}]\n"
        f"ledger: {{url: 'sqlite:///{directory}/ledger.db'}}\nweb: {{listen: '127.0.0.1:19849'}}\n",
        encoding="utf-8",
    )
    began = time.perf_counter()
    command = [sys.executable, "-m", "exporter", "run", "--config", str(config)]
    with subprocess.Popen(command, env={**os.environ, "BENCH_TOKEN": "none"}) as process:
        try:
            while True:
                try:
                    page = requests.get("http://127.0.0.1:19849/metrics", timeout=60).text
                except requests.ConnectionError:
                    time.sleep(0.02)
                    continue
                if page.count("\nci_repo_info{") == repos:
                    break
            took = time.perf_counter() - began
            for _ in range(3):
                requests.get("http://127.0.0.1:19849/metrics", timeout=60)
            status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
            resident = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
            series = sum(1 for line in page.splitlines() if not line.startswith("#"))
        finally:
            process.terminate()
    return took, resident / 1024, series


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="leave out 1,000,000 series")
    chosen = parser.parse_args()
    cases = [(1000, 1000, "target: 3 s"), (800, LIVE, "target: 250 MB at 100,000 series"), (8000, LIVE, "")]
    print("restart on a ledger, and memory at rest")
    for repos, of_each, target in cases[: 2 if chosen.quick else 3]:
        with tempfile.TemporaryDirectory() as name, simulated("drone-1", 1, 1) as server:
            fill(Path(name) / "ledger.db", repos, of_each)
            took, memory, series = start(Path(name), server.url, repos)
            print(
                f"  {repos * of_each:9,} builds of {repos:5,} repos, {series:9,} series: first complete page "
                f"after {took:5.2f} s, {memory:5.0f} MB   {f'({target})' if target else ''}"
            )


if __name__ == "__main__":
    main()
