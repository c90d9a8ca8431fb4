"""The page /metrics after 1 % of the repos changed, against prometheus-client's `generate_latest`.

Both render the same samples as text, without gzip; gzip is printed beside it. prometheus-client gets its
samples as ready families, so that only its rendering is timed; ours is the time to render what changed
and to join the whole page. The targets: at least 30 times as fast, with at most half its peak memory.
"""

import argparse
import gc
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator

from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric as Family

from exporter.exposition import Page
from exporter.metrics import METRICS, Exemplar, Group, Histogram, Metric, Sample
from exporter.model import FINISHED, STEP_FINISHED

BRANCHES = (("main", "push"), ("develop", "push"), ("main", "pull_request"))
STEPS = ("clone", "build", "test")
FAMILIES = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily, "histogram": HistogramMetricFamily}
FASTER, SMALLER = 30, 0.5
ROUNDS = 3


def samples_of(repo: int, value: float) -> Iterator[Sample]:
    """The series of one repo with three branches and three steps, as the exporter shows them."""
    base = ("drone-one", f"organisation/application-{repo:05d}")
    for metric in METRICS.values():
        if metric.group in {Group.HAPPENED, Group.NOW}:
            yield from _family(metric, base, value)


def _family(metric: Metric, base: tuple[str, str], value: float) -> Iterator[Sample]:
    for labels in _label_sets(metric, base):
        if metric.type == "histogram":
            counts = [int(value) % 7 + place for place in range(len(metric.buckets) + 1)]
            url = f"https://ci.example.com/{base[1]}/1234"
            exemplar = Exemplar((("build", "1234"), ("url", url)), 42.5, 1.7e9)
            yield Sample(metric, labels, Histogram(counts, value * 17.5, {3: exemplar}))
        else:
            yield Sample(metric, labels, 1.7e9 + value if "timestamp" in metric.name else value)


def _label_sets(metric: Metric, base: tuple[str, str]) -> list[tuple[str, ...]]:
    rest = metric.labels[len(base) :]
    match rest:
        case ():
            return [base]
        case ("branch", "event"):
            return [(*base, *branch) for branch in BRANCHES]
        case ("branch", "event", "status"):
            return [(*base, *branch, status.word) for branch in BRANCHES for status in FINISHED]
        case ("step", "status"):
            return [(*base, step, status.word) for step in STEPS for status in STEP_FINISHED]
        case ("step",):
            return [(*base, step) for step in STEPS]
        case ("status",):
            return [(*base, status.word) for status in FINISHED]
        case _:
            return [(*base, *(f"a {name}" for name in rest))]


class Ready:
    """Families of prometheus-client that need only be rendered."""

    def __init__(self, samples: Iterable[Sample]) -> None:
        self.families: dict[str, Family] = {}
        for sample in samples:
            metric = sample.metric
            family = self.families.get(metric.name)
            if family is None:
                family = FAMILIES[metric.type](metric.name, metric.help, labels=metric.labels)
                self.families[metric.name] = family
            if isinstance(sample.value, Histogram):
                total, buckets = 0, []
                for bound, count in zip([*metric.buckets, "+Inf"], sample.value.counts, strict=True):
                    total += count
                    buckets.append((str(bound), total))
                family.add_metric(sample.labels, buckets, sample.value.sum)
            else:
                family.add_metric(sample.labels, sample.value)

    def collect(self) -> Iterable[Family]:
        return self.families.values()


def best(rounds: int, work: Callable[[int], object]) -> float:
    """Seconds of the fastest of some rounds."""
    times = []
    for number in range(rounds):
        began = time.perf_counter()
        work(number)
        times.append(time.perf_counter() - began)
    return min(times)


def peak() -> int:
    """The most memory that this process ever had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def ours(repos: int) -> dict[str, float]:
    page = Page()
    before = peak()
    for repo in range(repos):
        page.put(("drone-one", repo), samples_of(repo, 1.0))
    gc.collect()
    gc.freeze()
    part = max(repos // 100, 1)

    def changed(number: int) -> list[list[Sample]]:
        return [list(samples_of(repo, 2.0 + number)) for repo in range(number * part, (number + 1) * part)]

    prepared = [changed(number) for number in range(ROUNDS)]

    def scrape(number: int, *, gzip: bool = False) -> int:
        for place, samples in enumerate(prepared[number]):
            page.put(("drone-one", number * part + place), samples)
        return sum(len(part) for part in page.render(False, gzip))

    seconds = best(ROUNDS, scrape)
    memory = peak() - before
    prepared = [changed(number) for number in range(ROUNDS, 2 * ROUNDS)]
    zipped = best(ROUNDS, lambda number: scrape(number, gzip=True))
    return {
        "seconds": seconds,
        "memory": memory,
        "zipped": zipped,
        "samples": sum(page.series().values()),
        "bytes": len(page.render(False, False)),
    }


def theirs(repos: int) -> dict[str, float]:
    before = peak()
    ready = Ready(sample for repo in range(repos) for sample in samples_of(repo, 1.0))
    gc.collect()
    gc.freeze()
    held = peak() - before
    seconds = best(1 if repos > 2000 else ROUNDS, lambda _: generate_latest(ready))
    return {"seconds": seconds, "memory": peak() - before, "held": held}


def measured(side: str, repos: int) -> dict[str, float]:
    """What a process of its own finds, so that neither pays for the other's memory."""
    command = [sys.executable, __file__, "--side", side, "--repos", str(repos)]
    return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)


def compare(samples: int) -> bool:
    """Print the two side by side; True when the targets are met."""
    repos = round(samples / sum(_lines(sample) for sample in samples_of(0, 1.0)))
    our, their = measured("ours", repos), measured("theirs", repos)
    faster = their["seconds"] / our["seconds"]
    smaller = our["memory"] / their["memory"]
    rendering = their["memory"] - their["held"]
    print(
        f"/metrics, {our['samples']:,} samples of {repos:,} repos ({our['bytes'] / 1e6:.0f} MB), 1 % changed"
    )
    print(f"  generate_latest   {their['seconds'] * 1000:8.1f} ms   peak {their['memory'] / 1e6:6.0f} MB")
    print(f"  our page          {our['seconds'] * 1000:8.1f} ms   peak {our['memory'] / 1e6:6.0f} MB")
    print(f"  our page, gzip    {our['zipped'] * 1000:8.1f} ms")
    print(f"  {faster:.0f} times as fast (target {FASTER}), {smaller:.2f} of its memory (target {SMALLER})")
    print(f"  {our['memory'] / rendering:.2f} of what generate_latest takes on top of its families")
    return faster >= FASTER and smaller <= SMALLER


def _lines(sample: Sample) -> int:
    return len(sample.metric.buckets) + 3 if sample.metric.type == "histogram" else 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="100,000 samples only")
    parser.add_argument("--side", choices=("ours", "theirs"), help=argparse.SUPPRESS)
    parser.add_argument("--repos", type=int, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.side:
        print(json.dumps({"ours": ours, "theirs": theirs}[chosen.side](chosen.repos)))
        return
    met = [compare(samples) for samples in ((100_000,) if chosen.quick else (100_000, 1_000_000))]
    if not all(met):
        raise SystemExit("a target is missed")


if __name__ == "__main__":
    main()
