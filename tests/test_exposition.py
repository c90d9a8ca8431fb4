"""The page is what prometheus_client would have rendered of the same samples, only sooner."""

import gzip
import math
import subprocess
import threading
import zlib
from collections.abc import Iterable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from programs import needs, path_of
from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client import Histogram as RegistryHistogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.core import Exemplar as RegistryExemplar
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from exporter.exposition import SLICE, Page
from exporter.metrics import METRICS, Exemplar, Histogram, Metric, Sample

BUILDS = METRICS["ci_builds_total"]
DURATION = METRICS["ci_build_duration_seconds"]
RUNNING = METRICS["ci_builds_running"]
STATUS = METRICS["ci_last_build_status"]
LEDGER = METRICS["ci_ledger_size_bytes"]
PUSH = ("drone", "acme/app", "main", "push")
OURS = [m for m in METRICS.values() if m.name != "ci_exporter_series"]


def builds(repo: str, value: float, status: str = "success") -> Sample:
    return Sample(BUILDS, ("drone", repo, "main", "push", status), value)


def text_of(page: Page, *, openmetrics: bool = False, names: frozenset[str] | None = None) -> str:
    return bytes(page.render(openmetrics, False, names)).decode()


def lines_of(page: Page, name: str, *, openmetrics: bool = False) -> list[str]:
    """The lines of the samples of one name."""
    return [
        line
        for line in text_of(page, openmetrics=openmetrics).splitlines()
        if line.startswith((f"{name}{{", f"{name} "))
    ]


class Reference:
    """The same samples in a collector of prometheus_client."""

    def __init__(self, samples: list[Sample], *, created: bool) -> None:
        self.samples, self.created = samples, created

    def collect(self) -> Iterator[Family]:
        for metric in OURS:
            mine = [s for s in self.samples if s.metric is metric]
            if mine:
                yield self.family(metric, mine)

    def family(self, metric: Metric, samples: list[Sample]) -> Family:
        kinds = {
            "counter": CounterMetricFamily,
            "gauge": GaugeMetricFamily,
            "histogram": HistogramMetricFamily,
        }
        family = kinds[metric.type](metric.name, metric.help, labels=metric.labels)
        for sample in samples:
            began = sample.created if self.created and sample.created else None
            if isinstance(sample.value, Histogram):
                family.add_metric(sample.labels, self.buckets(metric, sample.value), sample.value.sum)
                if began:
                    named = dict(zip(metric.labels, sample.labels, strict=True))
                    family.add_sample(f"{metric.name}_created", named, began)
            elif metric.type == "counter":
                family.add_metric(sample.labels, sample.value, created=began)
            else:
                family.add_metric(sample.labels, sample.value)
        return family

    @staticmethod
    def buckets(metric: Metric, value: Histogram) -> list[tuple[object, ...]]:
        total, buckets = 0, []
        for place, (bound, count) in enumerate(zip([*metric.buckets, math.inf], value.counts, strict=True)):
            total += count
            exemplar = value.exemplars.get(place)
            shown = exemplar and RegistryExemplar(dict(exemplar.labels), exemplar.value, exemplar.time)
            buckets.append((str(bound).replace("inf", "+Inf"), total, shown))
        return buckets


def comparable(families: Iterable[Family]) -> dict[str, object]:
    """Families as they compare: samples in any order, every NaN alike."""
    return {
        f.name: (
            f.type,
            f.documentation,
            sorted(
                (s.name, sorted(s.labels.items()), repr(s.value), str(s.timestamp), str(s.exemplar))
                for s in f.samples
            ),
        )
        for f in families
        if f.name != "ci_exporter_series"
    }


words = st.one_of(
    st.sampled_from(
        ["main", "", "\\", '"', "\n", "\\n", '\\"', 'a",b="c', "}", " # {", "\r", "\u2028", "名"]
    ),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12),
)
whole = st.integers(0, 2**53)
times = st.integers(1, 2**33).map(float)


@st.composite
def exemplars(draw: st.DrawFn) -> Exemplar:
    # prometheus_client's parser, unlike Prometheus, takes an escaped quote for the end of the label.
    labels = (("build", str(draw(whole))), ("url", draw(words).replace('"', "")))
    return Exemplar(labels, float(draw(whole)), draw(times))


@st.composite
def samples(draw: st.DrawFn) -> Sample:
    metric = draw(st.sampled_from(OURS))
    labels = tuple(draw(words) for _ in metric.labels)
    created = draw(st.sampled_from([0.0, 1.5, 1700000000.0])) if metric.type != "gauge" else 0.0
    if metric.type == "gauge":
        return Sample(metric, labels, draw(st.one_of(st.floats(), whole)))
    if metric.type == "counter":
        return Sample(metric, labels, draw(st.floats(min_value=0, allow_nan=False)), created)
    size = len(metric.buckets) + 1
    counts = draw(st.lists(st.integers(0, 2**40), min_size=size, max_size=size))
    shown = draw(st.dictionaries(st.integers(0, size - 1), exemplars(), max_size=3))
    total = draw(st.floats(min_value=0, allow_nan=False, allow_infinity=False))
    return Sample(metric, labels, Histogram(counts, total, shown), created)


@given(
    st.lists(samples(), unique_by=lambda s: (s.metric.name, s.labels), max_size=12),
    st.booleans(),
    st.integers(1, 4),
)
@settings(max_examples=200, deadline=None)
def test_the_page_says_what_prometheus_client_says(given: list[Sample], created: bool, keys: int) -> None:
    page = Page(created=created)
    for key in range(keys):
        page.put(("drone", str(key)), given[key::keys])
    reference = Reference(given, created=created)
    wanted = comparable(parse_text(generate_latest(reference).decode()))
    assert comparable(parse_text(text_of(page))) == wanted
    wanted = comparable(parse_openmetrics(generate_openmetrics(reference).decode()))
    assert comparable(parse_openmetrics(text_of(page, openmetrics=True))) == wanted


def example(metric: Metric, repo: str = "acme/app") -> Sample:
    """A sample of any family, as it may stand on a real page."""
    labels = tuple(repo if name == "repo" else f"a {name}" for name in metric.labels)
    if metric.type == "histogram":
        exemplar = Exemplar((("build", "17"), ("url", "https://ci.example.com/acme/app/17")), 42.0, 1.7e9)
        counts = list(range(len(metric.buckets) + 1))
        return Sample(metric, labels, Histogram(counts, 17.5, {2: exemplar}), 1.6e9)
    return Sample(metric, labels, 3.0, 1.6e9)


def own_counters() -> CollectorRegistry:
    registry = CollectorRegistry()
    Counter("exporter_polls_total", "Polls.", registry=registry).inc(7)
    RegistryHistogram("exporter_wait_seconds", "Waits.", registry=registry, buckets=(1, 5)).observe(2)
    return registry


@needs("promtool")
@pytest.mark.parametrize("created", [False, True])
def test_promtool_finds_nothing_wrong_with_any_family(created: bool) -> None:
    page = Page(registry=own_counters(), created=created)
    for repo in ("acme/app", 'quo"te\\d\n'):
        page.put(("drone", repo), [example(m, repo) for m in OURS])
    checked = subprocess.run(
        [path_of("promtool"), "check", "metrics"], input=bytes(page.render(False, False)), capture_output=True
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")


def test_families_stand_in_the_order_of_the_table() -> None:
    page = Page()
    page.put("b", [example(m) for m in reversed(OURS)])
    shown = [line.split()[2] for line in text_of(page).splitlines() if line.startswith("# TYPE")]
    assert shown == [*(m.name for m in OURS), "ci_exporter_series"]


def test_a_put_replaces_all_that_its_key_had_and_nothing_else() -> None:
    page = Page()
    page.put(("drone", "a"), [builds("a", 1), builds("a", 2, "failure"), Sample(RUNNING, ("drone", "a"), 5)])
    page.put(("drone", "b"), [builds("b", 3)])
    page.put(("drone", "a"), [builds("a", 4)])
    assert lines_of(page, "ci_builds_total") == [
        'ci_builds_total{server="drone",repo="a",branch="main",event="push",status="success"} 4.0',
        'ci_builds_total{server="drone",repo="b",branch="main",event="push",status="success"} 3.0',
    ]
    assert "ci_builds_running" not in text_of(page)
    page.drop(("drone", "a"))
    page.drop(("drone", "never there"))
    assert len(lines_of(page, "ci_builds_total")) == 1
    assert page.series() == {"ci_builds_total": 1}


def test_values_are_written_as_both_formats_want_them() -> None:
    page = Page()
    written = {}
    for value in (5, 0.25, 1e300, -2.0, math.inf, -math.inf, math.nan):
        page.put("ledger", [Sample(LEDGER, (), value)])
        written[value] = lines_of(page, "ci_ledger_size_bytes", openmetrics=True)[0].split()[1]
    assert list(written.values()) == ["5.0", "0.25", "1e+300", "-2.0", "+Inf", "-Inf", "NaN"]


def test_buckets_are_cumulated() -> None:
    page = Page()
    page.put("a", [Sample(DURATION, PUSH, Histogram([1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 4], 99.5))])
    lines = lines_of(page, "ci_build_duration_seconds_bucket")
    assert [line.split()[1] for line in lines] == ["1.0", "1.0"] + ["3.0"] * 8 + ["7.0"]
    assert 'le="15.0"' in lines[0]
    assert 'le="+Inf"' in lines[-1]
    assert lines_of(page, "ci_build_duration_seconds_count")[0].endswith(" 7.0")
    assert lines_of(page, "ci_build_duration_seconds_sum")[0].endswith(" 99.5")


@needs("promtool")
@pytest.mark.parametrize("hostile", ["a\0b", "\ud800", "a\udfff\0"])
def test_what_would_end_or_break_the_page_is_replaced(hostile: str) -> None:
    page = Page()
    page.put("a", [Sample(RUNNING, ("drone", hostile), 1), Sample(LEDGER, (), 2)])
    checked = subprocess.run(
        [path_of("promtool"), "check", "metrics"], input=bytes(page.render(False, False)), capture_output=True
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")
    assert lines_of(page, "ci_ledger_size_bytes") == ["ci_ledger_size_bytes 2.0"]


def shown_exemplar(*labels: tuple[str, str]) -> dict[str, str] | None:
    page = Page()
    exemplar = Exemplar(labels, 20.0, 1700000000.25)
    page.put("a", [Sample(DURATION, PUSH, Histogram([0, 1, *[0] * 9], 20.0, {1: exemplar}))])
    assert " # " not in "".join(lines_of(page, "ci_build_duration_seconds_bucket"))
    families = list(parse_openmetrics(text_of(page, openmetrics=True)))
    found = [s.exemplar for s in families[0].samples if s.exemplar]
    return dict(found[0].labels) if found else None


def test_an_exemplar_keeps_within_its_128_characters() -> None:
    build = ("build", "17")
    for size, kept in ((118, True), (119, False)):
        url = ("url", "é" * size)
        assert shown_exemplar(build, url) == dict([build, url] if kept else [build])
    assert shown_exemplar(("build", "1" * 124)) is None
    slashed = ("url", "https://ci/\\\n")
    assert shown_exemplar(build, slashed) == dict([build, slashed])


def test_a_chunk_is_kept_once_where_the_formats_do_not_differ() -> None:
    page = Page()
    with_exemplar = Histogram([1, *[0] * 10], 1.0, {0: Exemplar((("build", "1"),), 1.0, 1.7e9)})
    page.put("a", [builds("a", 1), Sample(DURATION, PUSH, with_exemplar)])
    text, openmetrics = page.render(False, False).parts, page.render(True, False).parts
    assert [a is b for a, b in zip(text, openmetrics, strict=True)] == [False, True, False, False]


def test_openmetrics_ends_once() -> None:
    page = Page(registry=own_counters())
    page.put("a", [builds("a", 1)])
    assert text_of(page, openmetrics=True).count("# EOF\n") == 1
    assert text_of(page, openmetrics=True).endswith("\n# EOF\n")
    assert "# EOF" not in text_of(page)


def test_the_registry_ends_the_page_and_never_repeats_a_family() -> None:
    registry = own_counters()
    Counter("ci_builds_total", "Not ours.", registry=registry).inc(99)
    page = Page(registry=registry, disabled=frozenset({"exporter_wait_seconds"}))
    page.put("a", [builds("a", 1)])
    assert lines_of(page, "exporter_polls_total") == ["exporter_polls_total 7.0"]
    assert "exporter_wait_seconds" not in text_of(page)
    assert "_created" not in text_of(page)
    assert lines_of(page, "ci_builds_total")[0].endswith(" 1.0")
    assert text_of(page).count("# TYPE ci_builds_total") == 1
    assert "exporter_polls_created" in text_of(Page(registry=registry, created=True))


@pytest.mark.parametrize("openmetrics", [False, True])
@pytest.mark.parametrize("created", [False, True])
def test_series_are_counted_as_they_are_shown(openmetrics: bool, created: bool) -> None:
    page = Page(registry=own_counters(), created=created)
    for repo in ("a", "b"):
        page.put(("drone", repo), [example(m, repo) for m in OURS])
    page.put(("woodpecker", "c"), [example(m, "c") for m in OURS])
    page.put(("drone", "a"), [example(m, "a") for m in OURS[:3]])
    page.drop(("drone", "b"))
    page.hide("woodpecker")
    parse = parse_openmetrics if openmetrics else parse_text
    shown: dict[str, float] = {}
    told: dict[str, float] = {}
    for family in parse(text_of(page, openmetrics=openmetrics)):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        name = name.removesuffix("_created")
        name = f"{name}_total" if f"{name}_total" in METRICS or name == "exporter_polls" else name
        shown[name] = shown.get(name, 0) + len(family.samples)
        if name == "ci_exporter_series":
            told = {s.labels["family"]: s.value for s in family.samples}
    assert told == shown


def test_a_hidden_server_keeps_its_counters_alone() -> None:
    page = Page()
    for server in ("drone", "woodpecker"):
        page.put((server, "a"), [builds("a", 1), Sample(RUNNING, (server, "a"), 2)])
    page.put("drone", [Sample(STATUS, PUSH, 1)])
    page.hide("drone")
    assert len(lines_of(page, "ci_builds_total")) == 2
    assert lines_of(page, "ci_builds_running") == ['ci_builds_running{server="woodpecker",repo="a"} 2.0']
    assert lines_of(page, "ci_last_build_status") == []
    page.put(("drone", "a"), [Sample(RUNNING, ("drone", "a"), 3)])
    assert page.series() == {"ci_builds_total": 1, "ci_builds_running": 1}
    page.show("drone")
    assert lines_of(page, "ci_builds_running")[0] == 'ci_builds_running{server="drone",repo="a"} 3.0'
    assert page.series() == {"ci_builds_total": 1, "ci_builds_running": 2, "ci_last_build_status": 1}


def test_families_can_be_left_out() -> None:
    page = Page(disabled=frozenset({"ci_builds_total", "ci_exporter_series"}))
    page.put("a", [builds("a", 1), Sample(RUNNING, ("drone", "a"), 2)])
    assert list(page.series()) == ["ci_builds_running"]
    assert "ci_builds_total" not in text_of(page)
    assert "ci_exporter_series" not in text_of(page)


@pytest.mark.parametrize(
    ("asked", "shown"),
    [
        ({"ci_builds_total"}, {"ci_builds"}),
        ({"ci_builds"}, {"ci_builds"}),
        ({"ci_builds_created"}, {"ci_builds"}),
        ({"ci_build_duration_seconds_bucket", "nothing"}, {"ci_build_duration_seconds"}),
        (
            {"ci_build_duration_seconds_sum", "ci_builds_running"},
            {"ci_build_duration_seconds", "ci_builds_running"},
        ),
        ({"exporter_polls_total"}, {"exporter_polls"}),
        ({"exporter_wait_seconds_count"}, {"exporter_wait_seconds"}),
        ({"ci_exporter_series"}, {"ci_exporter_series"}),
        ({"nothing"}, set()),
        (set(), set()),
    ],
)
def test_a_scrape_can_ask_for_some_families(asked: set[str], shown: set[str]) -> None:
    page = Page(registry=own_counters())
    page.put("a", [example(m) for m in OURS])
    for zipped in (False, True):
        body = bytes(page.render(True, zipped, frozenset(asked)))
        text = (gzip.decompress(body) if zipped else body).decode()
        assert {family.name for family in parse_openmetrics(text)} == shown


@pytest.mark.parametrize("openmetrics", [False, True])
@pytest.mark.parametrize("repos", [0, 1, 3000])
def test_gzip_is_one_member_that_says_the_same(openmetrics: bool, repos: int) -> None:
    page = Page(registry=own_counters())
    for number in range(repos):
        page.put(("drone", str(number)), [example(METRICS["ci_step_duration_seconds"], str(number))])
    zipped = page.render(openmetrics, True)
    unpacking = zlib.decompressobj(wbits=31)
    assert unpacking.decompress(bytes(zipped)) == bytes(page.render(openmetrics, False))
    assert unpacking.eof
    assert unpacking.unused_data == b""
    assert len(zipped) == len(bytes(zipped))


def test_slices_are_of_even_size_and_make_up_the_body() -> None:
    page = Page()
    for number in range(3000):
        page.put(("drone", str(number)), [example(METRICS["ci_step_duration_seconds"], str(number))])
    body = page.render(False, False)
    slices = list(body)
    assert b"".join(slices) == bytes(body)
    assert sum(map(len, slices)) == len(body)
    largest = max(map(len, body.parts))
    assert all(SLICE - largest < len(part) < SLICE + largest for part in slices[:-2])


@pytest.mark.parametrize("zipped", [False, True])
def test_only_what_changed_is_made_anew(zipped: bool) -> None:
    page = Page(registry=own_counters())
    page.put("a", [builds("a", 1)])
    page.put("b", [builds("b", 1)])
    first = page.render(True, zipped)
    page.put("a", [builds("a", 1)])
    page.drop("never there")
    again = page.render(True, zipped)
    assert again.parts is first.parts
    page.put("a", [builds("a", 2)])
    changed = page.render(True, zipped)
    assert changed.parts is not first.parts
    if not zipped:
        assert changed.parts[-1] is first.parts[-1]
    page.hide("a")
    assert page.render(True, zipped).parts is not changed.parts


def test_a_scrape_sees_a_key_before_or_after_a_put_but_never_between() -> None:
    page = Page()
    keys, stop, torn = 20, threading.Event(), []

    def write() -> None:
        for value in range(400):
            for key in range(keys):
                repo = str(key)
                page.put(("drone", repo), [builds(repo, value), Sample(RUNNING, ("drone", repo), value)])
        stop.set()

    def read(openmetrics: bool) -> None:
        parse = parse_openmetrics if openmetrics else parse_text
        while not stop.is_set():
            seen: dict[str, set[float]] = {}
            body = page.render(openmetrics, True)
            for family in parse(gzip.decompress(bytes(body)).decode()):
                for sample in family.samples:
                    if "repo" in sample.labels:
                        seen.setdefault(sample.labels["repo"], set()).add(sample.value)
            torn.extend(repo for repo, values in seen.items() if len(values) > 1)

    readers = [threading.Thread(target=read, args=(kind,)) for kind in (False, True)]
    writer = threading.Thread(target=write)
    for thread in (*readers, writer):
        thread.start()
    for thread in (*readers, writer):
        thread.join()
    assert torn == []
    assert page.series() == {"ci_builds_total": keys, "ci_builds_running": keys}
