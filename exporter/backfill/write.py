"""The whole backfill: the repos that have a past, span by span into files and blocks."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from exporter.backfill import HOUR, BackfillError
from exporter.backfill.blocks import LENGTHS, Blocks, length_of, spans
from exporter.backfill.gauges import FAMILIES
from exporter.backfill.past import Past, Wanted, seam_of
from exporter.backfill.tracks import Lines, Span, Track
from exporter.chunks import header
from exporter.ledger import Ledger, Policy, RepoFacts
from exporter.metrics import METRICS, Group, Metric

HEAD = 3 * HOUR
"""Of a running Prometheus the newest samples, which are in no block yet. At its next start it drops all that
are older than the end of its newest block."""
AllTracks = dict[str, list[tuple[tuple[str, ...], list[Track]]]]
"""By family the labels of each series and its tracks, which follow one another in time."""
STEP_FAMILIES = frozenset({"ci_steps_total", "ci_step_duration_seconds"})


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked for; times are by our clock (Unix seconds)."""

    directory: Path
    since: float
    until: float | None
    """Up to when live counters are written too; None: they are not."""
    labels: Mapping[str, str]
    """What a scrape adds to the live series."""
    details: bool
    head: float
    """How long before now the last block ends: `HEAD`, or 0 for a Prometheus that was not started yet."""
    disabled: Collection[str] = ()
    promtool: str | None = None
    keep_text: bool = False

    @property
    def begin(self) -> int:
        """The full hour at which counters begin."""
        return int(self.since) // HOUR * HOUR

    @property
    def metrics(self) -> list[Metric]:
        """The families that are written."""
        left_out = {*self.disabled, *(() if self.details else STEP_FAMILIES)}
        return [
            metric
            for metric in METRICS.values()
            if (metric.group is Group.HAPPENED or metric.name in FAMILIES) and metric.name not in left_out
        ]


@dataclass(slots=True)
class Written:
    """What was written."""

    repos: int = 0
    bytes: int = 0
    files: int = 0
    last: int = 0
    """When the last point is."""


def expect_closed(ledger: Ledger, servers: Collection[str], request: Request, now: float) -> None:
    """Raises `BackfillError` while a block would reach into what a running Prometheus has in no block yet."""
    latest = now - request.head
    if request.until is not None and request.until > latest:
        raise BackfillError(
            f"--until {_text(request.until)} is too late: no block may reach into the last 3 hours, which a "
            f"running Prometheus holds in memory; {_text(latest)} is the latest"
        )
    young: list[tuple[int, str]] = []
    for server in servers:
        for facts in ledger.facts(server=server):
            with ledger.reading() as conn:
                seam = seam_of(conn, facts.repo)
            if seam is None and facts.importing:
                seam = int(facts.repo.horizon - facts.repo.horizon_skew)
            if seam is not None and seam > latest:
                young.append((seam, f"{server}: {facts.repo.name}"))
    if young:
        seam, name = max(young)
        others = f" (as those of {len(young) - 1} others)" if len(young) > 1 else ""
        raise BackfillError(
            f"the live counters of {name}{others} began at {_text(seam)}, and no block may reach into the "
            "last 3 hours, which a running Prometheus holds in memory: possible from "
            f"{_text(seam + request.head)} on; for a Prometheus that was never started, say --new-prometheus"
        )


def write(
    ledger: Ledger,
    policies: Mapping[str, Policy],
    request: Request,
    now: float,
    progress: Callable[[int, int], None] = lambda _done, _all: None,
) -> Written:
    """Writes the past of these servers' repos as the ledger has it.

    `progress` is told how many parts of how many are done. Raises `BackfillError` and `LedgerError`.
    """
    pasts = _pasts(ledger, policies, request, now)
    end = max((past.last for past in pasts), default=0) + 1
    windows = list(spans(request.begin, end, LENGTHS[0]))
    length = length_of(sum(past.lines for past in pasts))
    lines = Lines(request.metrics, request.labels)
    written = Written(repos=len(pasts), last=end - 1)
    text = request.directory / "openmetrics"
    text.mkdir(parents=True, exist_ok=True)
    done, all_parts = 0, 2 * len(windows) * len(pasts)
    with Blocks(request.promtool, request.directory / "blocks", keep_text=request.keep_text) as blocks:
        for window in windows:
            series: AllTracks = {}
            for past in pasts:
                of_repo = (past.repo.server, past.repo.name)
                with ledger.reading() as conn:
                    tracks = past.tracks(conn, window) if past.last >= window.begin else {}
                for family, labels in sorted(tracks):
                    series.setdefault(family, []).append(((*of_repo, *labels), tracks[family, labels]))
                done += 1
                progress(done, all_parts)
            parts = list(spans(window.begin, window.end, length))
            for number, span in enumerate(parts, 1):
                file = text / f"{span.begin}.om"
                if size := _write_span(file, lines, request.metrics, series, span):
                    written.files += 1
                    written.bytes += size
                    blocks.add(file)
                progress(done + len(pasts) * number // len(parts), all_parts)
            done += len(pasts)
    if not any(text.iterdir()):
        text.rmdir()
    return written


def _write_span(
    path: Path,
    lines: Lines,
    metrics: Sequence[Metric],
    series: AllTracks,
    span: Span,
) -> int:
    """Writes one file, family by family; its size, and 0 where there is nothing to be written."""
    size = 0
    with path.open("wb") as file:
        for metric in metrics:
            begun = False
            for labels, tracks in series.get(metric.name, ()):
                text = lines.render(metric.name, labels, tracks, span)
                if text and not begun:
                    size += file.write(header(metric, openmetrics=True))
                    begun = True
                size += file.write(text)
        if size:
            size += file.write(b"# EOF\n")
    if not size:
        path.unlink()
    return size


def _pasts(ledger: Ledger, policies: Mapping[str, Policy], request: Request, now: float) -> list[Past]:
    found = []
    until = int(request.until or 0)
    for server, policy in policies.items():
        wanted = Wanted(request.begin, until, policy, request.details, now)
        for facts in _sorted(ledger, server):
            with ledger.reading() as conn:
                past = Past(conn, facts, seam_of(conn, facts.repo), wanted)
            if past.last > request.begin:
                found.append(past)
    return found


def _sorted(ledger: Ledger, server: str) -> Sequence[RepoFacts]:
    return sorted(ledger.facts(server=server), key=lambda facts: facts.repo.name)


def _text(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
