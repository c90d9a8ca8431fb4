"""The command, its blocks in a real Prometheus, and what that counts."""

import json
import random
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
from click import UsageError
from click.testing import CliRunner
from fortnight import write_blocks
from process import command, configure, entry, exporter, first_look
from programs import needs
from prometheus import prometheus
from rig import DAY, START, Rig, build, rig

from exporter.backfill import HOUR
from exporter.backfill.blocks import promtool
from exporter.backfill.write import HEAD, Request, expect_closed, write
from exporter.cli.commands import commands
from exporter.simulator import Clock, Running, World, serve

KEEP = "--storage.tsdb.retention.time=10y"
INSTANCE = "exporter:9848"
LABELS = ("--label", "job=ci", "--label", f"instance={INSTANCE}")
BUILDS = """
SELECT r.name, b.branch, b.event, b.status, b.duration, b.wait,
       CASE WHEN b.finished > 0 THEN b.finished ELSE b.run END - r.horizon_skew, b.counted, b.recorded
FROM builds b JOIN repos r ON r.id = b.repo_id WHERE b.state >= 2
"""
WORDS = ("unknown", "success", "failure", "error", "timeout", "cancelled", "skipped", "declined")
Counts = dict[tuple[str, ...], float]


@pytest.fixture
def ci(tmp_path: Path) -> Iterator[Rig]:
    world = World("drone-1", clock=Clock(START), seed=3)
    world.add_repos(["octo/api", "octo/web"], builds=200, days=24)
    for repo in ("octo/api", "octo/web"):
        world.start_build(repo, running=True)
    with rig("drone-1", tmp_path, world) as made:
        made.ours = lambda: made.clock.now() + 40  # the server's clock is behind ours
        made.restart()
        made.settle()
        yield made


def ended(ci: Rig, after: float, until: float) -> dict[str, Counts]:
    """What the ledger has of the ends within (after, until], family by family, as Prometheus labels it."""
    found: dict[str, Counts] = defaultdict(lambda: defaultdict(float))
    named = {(row[0], row[1]) for row in ci.query(
        "SELECT r.name, n.name FROM names n JOIN repos r ON r.id = n.repo_id WHERE kind = 'branch'"
    )}  # fmt: skip
    for repo, branch, event, status, duration, wait, at, *_ in ci.query(BUILDS):
        if not after < float(str(at)) <= until:
            continue
        label = str(branch) if (repo, branch) in named else "other"
        key, word = (str(repo), label, str(event)), WORDS[int(str(status))]
        found["ci_builds_total"][*key, word] += 1
        if duration is not None:
            found["ci_build_seconds_total"][str(repo), word] += float(str(duration))
            if word == "success":
                found["ci_build_duration_seconds_count"][key] += 1
                found["ci_build_duration_seconds_sum"][key] += float(str(duration))
                if float(str(duration)) <= 60:
                    found['ci_build_duration_seconds_bucket{le="60"}'][key] += 1
        if wait is not None:
            found["ci_build_queue_seconds_count"][(str(repo),)] += 1
            found["ci_build_queue_seconds_sum"][(str(repo),)] += float(str(wait))
    return found


ASKED = {
    "ci_builds_total": ("repo", "branch", "event", "status"),
    "ci_build_seconds_total": ("repo", "status"),
    "ci_build_duration_seconds_count": ("repo", "branch", "event"),
    "ci_build_duration_seconds_sum": ("repo", "branch", "event"),
    'ci_build_duration_seconds_bucket{le="60.0"}': ("repo", "branch", "event"),
    "ci_build_queue_seconds_count": ("repo",),
    "ci_build_queue_seconds_sum": ("repo",),
}


def nonzero(counts: Counts) -> Counts:
    return {key: value for key, value in counts.items() if value}


def make(ci: Rig, directory: Path, tsdb: Path) -> None:
    """Backfills the history of the rig into a TSDB, four hours after its horizon."""
    wanted = Request(
        directory, START - 25 * DAY, None, {"job": "ci", "instance": INSTANCE}, details=False, head=HEAD,
        promtool=promtool(),
    )  # fmt: skip
    now = max(ci.ours(), START + 4.0 * HOUR)
    expect_closed(ci.ledger, ["ci"], wanted, now)
    written = write(ci.ledger, {"ci": ci.watch.policy}, wanted, now)
    assert written.repos == 2
    assert not (directory / "openmetrics").exists(), "the text goes once it is in blocks"
    tsdb.mkdir(exist_ok=True)
    for block in (directory / "blocks").iterdir():
        assert json.loads((block / "meta.json").read_text())["maxTime"] <= (now - HEAD) * 1000
        block.rename(tsdb / block.name)


@needs("prometheus", "promtool")
def test_days_in_prometheus_are_days_in_the_ledger(ci: Rig, tmp_path: Path) -> None:
    make(ci, tmp_path / "out", tmp_path / "tsdb")
    first = START // HOUR * HOUR - 24 * int(DAY)
    seen = 0
    with prometheus(tmp_path, "", KEEP) as prom:
        for at in random.Random(9).sample(range(first, START - HOUR, HOUR), 10):
            truth = ended(ci, at - DAY, at)
            seen += int(sum(truth["ci_builds_total"].values()))
            for query, labels in ASKED.items():
                found = prom.values(f"{query} - {query} offset 1d", *labels, time=str(at))
                assert nonzero(found) == nonzero(truth[query.replace("60.0", "60")]), (query, at)
        assert seen > 50
        assert not prom.values("ci_builds_total > 0", "repo", time=str(START + 60))


@needs("prometheus", "promtool")
def test_over_the_seam_each_build_counts_once(ci: Rig, tmp_path: Path) -> None:
    make(ci, tmp_path / "out", tmp_path / "tsdb")
    pages = []
    for repo in ("octo/api", "octo/web"):
        ci.world.finish(repo, 201, "failure")  # it ran over the seam
    for number in range(30):
        build(ci, "failure" if number % 4 == 0 else "success", "octo/web" if number % 3 else "octo/api")
        ci.good_poll(265)
        shown = [line for line in ci.text().splitlines() if line.startswith("ci_build")]
        pages.append((int(ci.ours()), shown))
    ci.good_poll(150)
    write_blocks(pages, INSTANCE, tmp_path / "tsdb")
    last = pages[-1][0]
    truth = ended(ci, START - 24.5 * DAY, last)
    live = ended(ci, START + 40, last)
    assert sum(live["ci_builds_total"].values()) == 32
    with prometheus(tmp_path, "", KEEP) as prom:
        for query, labels in ASKED.items():
            window = f"[{last - START + int(24.5 * DAY) + 60}s]"
            found = prom.values(f"increase({query}{window})", *labels, time=str(last))
            assert nonzero(found) == pytest.approx(nonzero(truth[query.replace("60.0", "60")])), query
        resets = prom.values(f"max by (job) (resets(ci_builds_total{window}))", "job", time=str(last))
        assert resets == {("ci",): 1.0}, "at the horizon alone"


def history(directory: Path, clock: Clock) -> World:
    world = World("drone-1", clock=clock, seed=5)
    world.add_repos(["octo/api", "octo/web"], builds=60, days=20)
    return world


def backfill(directory: Path, *arguments: str, seconds: float = 60.0, **environ: str) -> tuple[int, str]:
    """The command's exit code, and what it said."""
    done = command(directory, "backfill", "--out", "out", *LABELS, *arguments, seconds=seconds, **environ)
    return done.returncode, done.stdout + done.stderr


def counted(directory: Path, family: str = "ci_builds_total") -> float:
    """How many ends the text has of a family: the highest value of each series."""
    most: dict[str, float] = {}
    for file in (directory / "out/openmetrics").iterdir():
        for line in file.read_text().splitlines():
            if line.startswith(f"{family}{{"):
                series, value, _ = line.rsplit(" ", 2)
                most[series] = max(most.get(series, 0.0), float(value))
    return sum(most.values())


@pytest.fixture
def ahead(tmp_path: Path) -> Iterator[tuple[Path, Running]]:
    """A ledger whose horizon was five hours ago, with no history read yet, and the server beside it."""
    clock = Clock.real(-5 * HOUR)
    world = history(tmp_path, clock)
    with serve(world) as server:
        configure(tmp_path, entry(tmp_path, "drone", server))
        first_look(tmp_path, clock, 5 * HOUR)
        yield tmp_path, server


@needs("promtool")
def test_the_command_reads_what_is_missing_and_makes_blocks(ahead: tuple[Path, Running]) -> None:
    directory, server = ahead
    code, said = backfill(directory, "--keep-text", "--since", "21d")
    assert code == 0, said
    assert "blocks are in out/blocks" in said
    assert "--storage.tsdb.retention.time to 22d" in said
    assert counted(directory) == 120
    assert not counted(directory, "ci_steps_total")
    blocks = list((directory / "out/blocks").iterdir())
    newest = max(json.loads((block / "meta.json").read_text())["maxTime"] for block in blocks)
    assert time.time() - 6 * HOUR < newest / 1000 <= time.time() - HEAD
    asked = sum(server.requests.values())
    code, said = backfill(directory)
    assert (code, "is not empty" in said) == (2, True)
    code, said = backfill(directory, "--out", "again", "--since", "20d")
    assert code == 0, said
    assert sum(server.requests.values()) == asked, "nothing is missing any more"


def test_details_reads_every_build_once_and_writes_steps(ahead: tuple[Path, Running]) -> None:
    directory, server = ahead
    none = str(directory / "no-programs")
    code, said = backfill(directory, "--details", "--since", "21d", PATH=none)
    assert code == 0, said
    assert "promtool is not installed" in said
    assert "promtool tsdb create-blocks-from --max-block-duration=336h openmetrics" in said
    assert not (directory / "out/blocks").exists()
    assert counted(directory, "ci_steps_total") > 200
    singles = {route: n for (_, route), n in server.requests.items() if route.endswith("/builds/N")}
    before = sum(server.requests.values())
    code, said = backfill(directory, "--details", "--since", "21d", "--out", "again", PATH=none)
    assert code == 0, said
    assert sum(server.requests.values()) - before < 20, singles


def test_history_is_left_to_a_run_that_is_on_the_ledger(ahead: tuple[Path, Running]) -> None:
    directory, _ = ahead
    with exporter(directory) as process:
        process.started()
        code, said = backfill(directory, "--since", "21d", PATH=str(directory))
        assert code == 0, said
        assert counted(directory) == 120
        code, said = backfill(directory, "--out", "far", "--since", "200d", PATH=str(directory))
        assert code == 1
        assert "reads history no further back than its setting `import`" in said


def test_history_that_was_not_imported_then_is_read_now(tmp_path: Path) -> None:
    clock = Clock.real(-5 * HOUR)
    with serve(history(tmp_path, clock)) as server:
        configure(tmp_path, entry(tmp_path, "drone", server, **{"import": "0"}))
        first_look(tmp_path, clock, 5 * HOUR)
        code, said = backfill(tmp_path, "--since", "10d", PATH=str(tmp_path))
        assert code == 0, said
        some = counted(tmp_path)
        assert 20 < some < 110
        code, said = backfill(tmp_path, "--since", "21d", "--out", "out2", PATH=str(tmp_path))
        assert code == 0, said
        (tmp_path / "out").rename(tmp_path / "out1")
        (tmp_path / "out2").rename(tmp_path / "out")
        assert counted(tmp_path) == 120


def test_a_prometheus_that_was_never_started_takes_all_at_once(tmp_path: Path) -> None:
    with serve(history(tmp_path, Clock.real())) as server:
        configure(tmp_path, entry(tmp_path, "drone", server))
        code, said = backfill(tmp_path, "--since", "21d")
        assert (code, "there is no ledger yet: start `build-exporter run`" in said) == (1, True)
        code, said = backfill(tmp_path, "--since", "21d", "--new-prometheus", PATH=str(tmp_path))
        assert code == 0, said
        assert counted(tmp_path) == 120
        server.stop()
        (tmp_path / "ledger.db").unlink()
        code, said = backfill(tmp_path, "--out", "none", "--new-prometheus")
        assert code == 3, said


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("--label", "server=x"), "the series have a label server already"),
        (("--label", "job=other"), "the series have a label job already"),
        (("--label", "job"), "write NAME=VALUE"),
        (("--since", "90"), "must be a duration with its unit"),
        (("--until", "yesterday"), "write a time like"),
        (("--server", "nobody"), "no server is called nobody; known are drone"),
    ],
)
def test_wrong_use_is_refused(arguments: tuple[str, ...], why: str, tmp_path: Path) -> None:
    config = configure(tmp_path, entry(tmp_path, "drone", "http://127.0.0.1:9"))
    out = ("--out", str(tmp_path / "out"))
    done = CliRunner().invoke(commands, ["backfill", "--config", str(config), *out, *LABELS, *arguments],
                              standalone_mode=False)  # fmt: skip
    said = f"{done.output}{done.exception}"
    assert done.return_value == 2 or isinstance(done.exception, UsageError)
    assert why in said
    assert not (tmp_path / "out").exists()


def test_without_job_and_instance_it_warns(ahead: tuple[Path, Running]) -> None:
    directory, _ = ahead
    done = command(
        directory, "backfill", "--out", "out", "--since", "2d", "--label", "job=ci", PATH=str(directory)
    )
    assert done.returncode == 0
    assert "no --label instance: unless the live series have none" in done.stderr
