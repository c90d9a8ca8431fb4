"""The past as series: what points there are, and that they count what a ledger would have counted."""

import json
import random
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from pasts import BEGIN, HORIZON, POLICY, SKEW, ledger_with, made_up, past_of, tracks_of
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from rig import DAY, START, Rig, build, rig

from exporter.backfill import HOUR, BackfillError
from exporter.backfill.blocks import LARGEST, LENGTHS, LINE, length_of, spans
from exporter.backfill.past import seam_of
from exporter.backfill.tracks import GRID, Lines, Span, Track, Value, expect_order
from exporter.backfill.write import HEAD, Request, expect_closed, write
from exporter.ledger import Moment, record, watched
from exporter.ledger.counts import Series
from exporter.ledger.names import PLACES
from exporter.metrics import METRICS, Group, Histogram
from exporter.model import Event, Status
from exporter.simulator import Clock, World

LINE_OF = re.compile(r"(\w+\{.*\}) (\S+) (\d+)$")


@pytest.mark.parametrize("seed", range(4))
def test_history_counts_what_a_ledger_with_an_earlier_horizon_counted(seed: int, tmp_path: Path) -> None:
    builds = made_up(seed)
    ledger, _ = ledger_with(tmp_path, HORIZON, builds)
    live, _ = ledger_with(tmp_path, int(BEGIN + SKEW), builds)
    (counted,) = live.facts(server="ci")
    found = tracks_of(ledger, past_of(ledger), LENGTHS[0])
    seam = int(HORIZON - SKEW)
    totals: dict[Series, Value] = {
        series: total.value if total.counts is None else Histogram(total.counts, total.value)
        for series, total in counted.totals.items()
    }
    ends: dict[Series, Value] = {}
    for (family, labels), points in found.items():
        if METRICS[family].group is Group.HAPPENED:
            assert max(points) == seam
            zero = points[seam]
            assert (sum(zero.counts) if isinstance(zero, Histogram) else zero) == 0
            ends[family, labels] = points[max(points.keys() - {seam})]
    moved = {s: v for s, v in ends.items() if (sum(v.counts) if isinstance(v, Histogram) else v)}
    assert moved == {s: v for s, v in totals.items() if not isinstance(v, float) or v}
    families = {family for family, _ in moved}
    assert families == {m.name for m in METRICS.values() if m.group is Group.HAPPENED}
    assert any("other" in labels for _, labels in moved), "branches beyond the cap"
    assert len({labels[0] for family, labels in moved if family == "ci_builds_total"}) > PLACES["branch"]


@pytest.mark.parametrize(("length", "cut"), [(LENGTHS[1], 0), (LENGTHS[0], LENGTHS[2])])
def test_how_the_time_is_cut_changes_no_value(length: int, cut: int, tmp_path: Path) -> None:
    ledger, _ = ledger_with(tmp_path, HORIZON, made_up(7))
    whole = tracks_of(ledger, past_of(ledger), 1000 * LENGTHS[0])
    parts = tracks_of(ledger, past_of(ledger), length, cut)
    assert parts.keys() == whole.keys()
    for series, points in parts.items():
        assert whole[series].keys() <= points.keys()
        assert {time: points[time] for time in whole[series]} == whole[series]
        more = sorted(points.keys() - whole[series].keys())
        assert all((time + GRID) % (cut or length) == 0 for time in more), "one at the end of each part"


def test_points_are_where_something_changes_and_every_hour(tmp_path: Path) -> None:
    builds = made_up(3)
    ledger, _ = ledger_with(tmp_path, HORIZON, builds)
    found = tracks_of(ledger, past_of(ledger), LENGTHS[0])
    seam = int(HORIZON - SKEW)
    main = found["ci_builds_total", ("main", "push", "failure")]
    ends = sorted(
        build.finished - SKEW
        for build in builds
        if (build.branch, build.event, build.status) == ("main", Event.PUSH, Status.FAILURE)
        and build.finished - SKEW > BEGIN
    )
    assert len(ends) > 30
    for end in ends:
        before = max(time for time in main if time < end)
        after = min(time for time in main if time >= end and time < seam)
        assert after - before <= GRID
        assert main[after] == sum(other <= after for other in ends)
    times = sorted(main)
    hours = [time for time in times if time % HOUR == 0]
    assert {b - a for a, b in pairwise(hours)} == {HOUR}
    assert len(times) < len(hours) + 3 * len(ends) + 10, "nothing else is written"


def test_gauges_are_those_of_the_newest_end_at_the_time(tmp_path: Path) -> None:
    builds = [build for build in made_up(5) if build.event is Event.PUSH and build.branch == "main"]
    builds = [build for build in builds if build.finished]
    ledger, _ = ledger_with(tmp_path, HORIZON, builds)
    found = tracks_of(ledger, past_of(ledger), LENGTHS[1])
    status = found["ci_last_build_status", ("main", "push")]
    failures = found["ci_consecutive_failures", ("main", "push")]
    assert max(status) == max(failures) == int(HORIZON - SKEW) - 1, "no 0, which is a status"
    for time in random.Random(1).sample(sorted(failures.keys() & status.keys()), 60):
        ended = sorted((b for b in builds if b.finished - SKEW <= time), key=lambda b: b.number)
        assert status[time] == ended[-1].status
        bad = 0
        for each in reversed(ended):
            if each.status is Status.SUCCESS:
                break
            bad += each.status.bad
        assert failures[time] == bad


@pytest.mark.parametrize(
    ("times", "why"),
    [
        ([BEGIN, BEGIN + 300, BEGIN + 200], "do not rise"),
        ([BEGIN, BEGIN + 300, BEGIN + 300], "do not rise"),
        ([BEGIN - 1], "not within"),
        ([BEGIN + 4 * HOUR], "not within"),
        ([BEGIN * 1000], "not within"),
    ],
)
def test_what_promtool_would_take_wrongly_is_refused(times: list[int], why: str) -> None:
    span = Span(BEGIN, BEGIN + 4 * HOUR)
    expect_order([BEGIN, BEGIN + 1, span.end - 1], span, "good")
    with pytest.raises(BackfillError, match=why):
        expect_order(times, span, "bad")
    with pytest.raises(BackfillError, match="not within"):
        expect_order([BEGIN * 1000], Span(BEGIN * 1000, BEGIN * 1001), "milliseconds throughout")
    lines = Lines([METRICS["ci_build_restarts_total"]], {"job": "ci"})
    twice = [Track(BEGIN, BEGIN, 1.0), Track(BEGIN, BEGIN, 0.0)]
    with pytest.raises(BackfillError, match="do not rise"):
        lines.render("ci_build_restarts_total", ("ci", "octo/hello"), twice, span)


def test_spans_are_blocks_of_promtool_and_never_too_large() -> None:
    whole = list(spans(BEGIN, BEGIN + 40 * int(DAY), LENGTHS[0]))
    assert [whole[0].begin, whole[-1].end] == [BEGIN, BEGIN + 40 * int(DAY)]
    assert all(a.end == b.begin and a.end % LENGTHS[0] == 0 for a, b in pairwise(whole))
    assert length_of(10) == LENGTHS[0]
    for lines in (20_000, 90_000, 900_000):
        assert length_of(lines) // HOUR * lines * LINE <= LARGEST
        assert LENGTHS[0] % length_of(lines) == 0
    assert length_of(10**9) == LENGTHS[-1]


@pytest.fixture
def ci(tmp_path: Path) -> Iterator[Rig]:
    world = World("drone-1", clock=Clock(START), seed=2)
    world.add_repos(["octo/hello", "octo/web"], builds=60, days=6)
    with rig("drone-1", tmp_path, world) as made:
        # The server's clock is ahead of ours.
        made.ours = lambda: made.clock.now() - 100
        made.restart()
        made.settle()
        yield made


def request(ci: Rig, directory: Path, **about: object) -> Request:
    wanted = Request(directory, ci.ours() - 7 * DAY, None, {"job": "ci"}, details=False, head=HEAD)
    return replace(wanted, **about)  # type: ignore[arg-type]


def lines_of(directory: Path) -> dict[str, list[tuple[int, float]]]:
    """Every series of the files with its points, in the order of the files."""
    found: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for file in sorted((directory / "openmetrics").iterdir()):
        for line in file.read_text().splitlines():
            if not line.startswith("#"):
                series, value, time = LINE_OF.fullmatch(line).groups()  # type: ignore[union-attr]
                found[series].append((int(time), float(value)))
    return found


def test_the_files_are_openmetrics_and_end_with_a_0_at_the_horizon_by_our_clock(
    ci: Rig, tmp_path: Path
) -> None:
    ((horizon, skew),) = set(ci.query("SELECT horizon, horizon_skew FROM repos"))
    assert skew == pytest.approx(100)
    seam = int(float(str(horizon)) - float(str(skew)))
    now = ci.ours() + 4 * HOUR
    written = write(ci.ledger, {"ci": ci.watch.policy}, request(ci, tmp_path / "out"), now)
    found = lines_of(tmp_path / "out")
    assert written.last == seam
    for series, points in found.items():
        times = [time for time, _ in points]
        assert times == sorted(set(times)), series
        assert '{job="ci",server="ci",repo="octo/' in series
        counts = not series.startswith(("ci_last", "ci_consecutive", "ci_build_expected"))
        assert (points[-1] == (seam, 0.0)) is counts, series
        assert max(times) <= seam
    assert not [series for series in found if series.startswith("ci_step")]
    names = {series.partition("{")[0] for series in found}
    assert {"ci_builds_total", "ci_build_duration_seconds_bucket", "ci_last_build_status"} <= names
    for file in (tmp_path / "out/openmetrics").iterdir():
        families = re.split(r"(?m)^(?=# HELP)", file.read_text())
        assert families[-1].endswith("# EOF\n")
        # prometheus-client mixes up the points of a histogram that has several.
        plain = "".join(text for text in families[1:] if " histogram\n" not in text)
        assert list(text_string_to_metric_families(plain))


def test_until_goes_on_with_what_the_page_showed(ci: Rig, tmp_path: Path) -> None:
    horizon = ci.ours()
    for number in range(24):
        build(ci, "failure" if number % 3 else "success", commit=f"c{number // 4}", seconds=20 + 40 * number)
        ci.good_poll(200)
    ci.world.restart("octo/hello", ci.world.start_build("octo/hello", finished=ci.clock.now() + 5))
    ci.clock.advance(600)
    ci.good_poll()
    build(ci, "failure", branch="brand-new")
    ci.good_poll()
    until = int(ci.ours())
    happened = tuple(m.name for m in METRICS.values() if m.group is Group.HAPPENED)
    shown = {series: value for series, value in ci.samples().items() if series.startswith(happened)}
    for _ in range(3):
        build(ci)
        ci.good_poll(600)
    wanted = request(ci, tmp_path / "out", until=float(until), details=True)
    now = ci.ours() + 4 * HOUR
    written = write(ci.ledger, {"ci": ci.watch.policy}, wanted, now)
    assert written.last == until > horizon
    found = {}
    for series, points in lines_of(tmp_path / "out").items():
        name, _, labels = series.partition("{")
        pairs = dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', labels))
        key = name + str(sorted((k, v) for k, v in pairs.items() if k not in {"server", "job"}))
        if points[-1][0] == until:
            found[key] = points[-1][1]
    assert {key: found.get(key) for key in shown} == shown
    new = next(k for k in shown if "brand-new" in k and "'failure'" in k)
    assert shown[new] == 0, "it is held at 0 for its first two minutes"
    assert sum(value for key, value in shown.items() if key.startswith("ci_builds_total")) == 25


def test_a_repo_that_was_left_out_for_a_time_ends_before_its_first_live_end(tmp_path: Path) -> None:
    builds = made_up(2)
    ledger, repo = ledger_with(tmp_path, HORIZON, builds)
    later = replace(
        builds[-1], number=1000, run=HORIZON + 100, created=HORIZON + 100, started=HORIZON + 110,
        finished=HORIZON + 900, status=Status.SUCCESS,
    )  # fmt: skip
    again = replace(later, number=1001, run=HORIZON + 5000, finished=HORIZON + 5900, commit="e")
    with ledger.transaction() as conn:
        record(conn, repo, POLICY, [later], Moment(HORIZON + 1000.0, HORIZON + 1000.0 + SKEW))
        repo.horizon = HORIZON + 90_000
        watched.write_repos(conn, [repo])
        record(conn, repo, POLICY, [again], Moment(HORIZON + 95_000.0, HORIZON + 95_000.0 + SKEW))
    newest = max(build.finished or build.run for build in builds)
    with ledger.reading() as conn:
        assert seam_of(conn, repo) == int(newest + 1 - SKEW)
    assert past_of(ledger).last == int(newest + 1 - SKEW)


def test_a_young_horizon_is_refused(ci: Rig, tmp_path: Path) -> None:
    wanted = request(ci, tmp_path / "out")
    horizon = START - 100 + 15
    with pytest.raises(BackfillError, match="octo/") as refused:
        expect_closed(ci.ledger, ["ci"], wanted, horizon + HEAD - 1)
    assert "possible from 2026-11-24 08:58:35 UTC on" in str(refused.value), str(refused.value)
    expect_closed(ci.ledger, ["ci"], wanted, horizon + HEAD)
    expect_closed(ci.ledger, ["ci"], replace(wanted, head=0.0), horizon + 1)
    late = replace(wanted, until=float(horizon + HEAD))
    with pytest.raises(BackfillError, match="--until 2026-11-24 08:58:35 UTC is too late"):
        expect_closed(ci.ledger, ["ci"], late, horizon + HEAD + 5)


def test_families_that_are_switched_off_are_left_out(ci: Rig, tmp_path: Path) -> None:
    wanted = request(ci, tmp_path / "out", disabled=("ci_builds_total",))
    write(ci.ledger, {"ci": ci.watch.policy}, wanted, ci.ours() + 4 * HOUR)
    assert {s.partition("{")[0] for s in lines_of(tmp_path / "out")} >= {"ci_build_seconds_total"}
    assert "ci_builds_total" not in json.dumps(list(lines_of(tmp_path / "out")))
