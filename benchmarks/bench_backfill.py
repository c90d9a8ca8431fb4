"""The real `build-exporter backfill` on a large ledger, with blocks made by promtool where that is installed.

The target: 1,000,000 builds of 1,000 repos over 90 days in less than 10 minutes and 500 MB.
"""

import argparse
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from operator import attrgetter
from pathlib import Path

from exporter.ledger import Ledger, Moment, Policy, record, watched
from exporter.ledger.runs import COLUMNS, new_run
from exporter.ledger.schema import SETTLED, builds
from exporter.ledger.sql import upsert
from exporter.ledger.watched import RepoState, ServerState
from exporter.model import Build, Event, Status

DAYS = 90
BRANCHES = ("main", "main", "main", "develop", "release/1.4")
ENDS = (Status.SUCCESS,) * 8 + (Status.FAILURE, Status.CANCELLED)
POLICY = Policy(lambda branch, default: branch == default, lambda _event, _branch: True, 30 * 86_400.0)


def fill(path: Path, repos: int, of_each: int) -> None:
    """A ledger four hours after its first start, with all history read."""
    horizon = int(time.time()) - 4 * 3600
    dice = random.Random(1)
    ledger = Ledger(f"sqlite:///{path}")
    ledger.migrate()
    with ledger.transaction() as conn:
        watched.write_server(conn, ServerState("ci", horizon, horizon, float(horizon), 0.0, ""))
        for place in range(repos):
            repo = RepoState(
                id=0, server="ci", name=f"load/r{place:05d}", uid="", default_branch="main", timeout=3600,
                build_url=f"https://ci.example.com/load/r{place:05d}/", horizon=horizon, horizon_skew=0.0,
                generation=0, highest=of_each, highest_created=horizon, watched=True, missed_sweeps=0,
                missed_since=0.0, gone=False, pruned=0,
            )  # fmt: skip
            watched.write_repos(conn, [repo])
            ends = sorted(dice.randrange(horizon - DAYS * 86_400, horizon) for _ in range(of_each))
            past = [_build(dice, repo.name, number, end) for number, end in enumerate(ends, 1)]
            # The newest are recorded as an import does, so that names and heads are there.
            record(conn, repo, POLICY, past[-100:], Moment(horizon + 60.0, horizon + 60.0))
            rows = [replace(new_run(repo.id, 0, build), state=SETTLED) for build in past[:-100]]
            upsert(conn, builds, list(map(attrgetter(*COLUMNS), rows)))
    ledger.close()


def _build(dice: random.Random, repo: str, number: int, ended: int) -> Build:
    took = dice.randrange(20, 1500)
    again = number % 20 == 0  # of the commit of the build before
    return Build(
        repo=repo, number=number, run=ended - took - 10, id=number, status=dice.choice(ENDS), detailed=True,
        event=Event.PUSH, branch=dice.choice(BRANCHES), ref="refs/heads/main", commit=f"{number - again:x}",
        created=ended - took - 10, started=ended - took, finished=ended, wait=10, duration=took,
        by_hand=again, author="ada", title="change the greeting",
    )  # fmt: skip


def run(directory: Path) -> tuple[float, float, str]:
    """Seconds that the command took, the most memory of its own in MB, and what it said."""
    config = directory / "config.yaml"
    config.write_text(
        "servers: [{name: ci, url: 'http://127.0.0.1:9', token_env: BENCH_TOKEN, dialect: drone-1}]\n"
        f"ledger: {{url: 'sqlite:///{directory}/ledger.db'}}\n",
        encoding="utf-8",
    )
    began = time.perf_counter()
    command = [
        sys.executable, "-m", "exporter", "backfill", "--config", str(config), "--since", f"{DAYS}d",
        "--out", str(directory / "out"), "--label", "job=ci", "--label", "instance=127.0.0.1:9848",
    ]  # fmt: skip
    most = 0.0
    with subprocess.Popen(
        command, env={**os.environ, "BENCH_TOKEN": "none"}, stdout=subprocess.PIPE, text=True
    ) as process:
        status = Path(f"/proc/{process.pid}/status")
        while process.poll() is None:
            lines = status.read_text(encoding="ascii").splitlines()
            peak = [int(line.split()[1]) for line in lines if line.startswith("VmHWM")]
            most = max(most, *peak) if peak else most
            time.sleep(0.2)
        assert process.stdout is not None
        said = process.stdout.read()
    assert process.returncode == 0, said
    return time.perf_counter() - began, most / 1024, said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the builds and repos")
    repos = 100 if parser.parse_args().quick else 1000
    print("backfill of 90 days")
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        fill(directory / "ledger.db", repos, 1000)
        took, memory, said = run(directory)
        blocks = sum(f.stat().st_size for f in directory.glob("out/blocks/**/*") if f.is_file())
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        print(
            f"  {repos * 1000:9,} builds of {repos:5,} repos: {took:5.0f} s, {memory:4.0f} MB; with promtool "
            f"{used.ru_utime + used.ru_stime:5.0f} s of processor time and {used.ru_maxrss / 1024:4.0f} MB, "
            f"mapped text included; {blocks / 1e6:.0f} MB of blocks   (target: 600 s, 500 MB)\n    {said}"
        )


if __name__ == "__main__":
    main()
