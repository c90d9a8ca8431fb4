"""The process's own metrics: what exists from the start, what goes with a server, what is logged."""

import logging

import pytest
from prometheus_client import generate_latest

from exporter import __version__
from exporter.metrics import METRICS, Group
from exporter.telemetry import FIELDS, LOGGED_VALUES, REASONS, Telemetry


@pytest.fixture
def telemetry() -> Telemetry:
    telemetry = Telemetry()
    telemetry.add("ci")
    return telemetry


def page(telemetry: Telemetry) -> str:
    return generate_latest(telemetry.registry).decode()


def test_known_label_sets_exist_at_0(telemetry: Telemetry) -> None:
    sample = telemetry.registry.get_sample_value
    for reason in REASONS:
        assert sample("ci_server_poll_failures_total", {"server": "ci", "reason": reason}) == 0
    for field in FIELDS:
        assert sample("ci_unknown_values_total", {"server": "ci", "field": field}) == 0
    assert sample("ci_server_up", {"server": "ci"}) == 0
    assert sample("ci_builds_missing", {"server": "ci"}) == 0
    assert sample("ci_build_detection_seconds_count", {"server": "ci"}) == 0
    assert sample("ci_exporter_build_info", {"version": __version__}) == 1
    assert "process_cpu_seconds_total" in page(telemetry)
    assert "python_gc_objects_collected_total" in page(telemetry)


def test_families_are_as_promised(telemetry: Telemetry) -> None:
    promised = {
        name.removesuffix("_total") for name, metric in METRICS.items() if metric.group is Group.FRESH
    }
    found = {family.name: family for family in telemetry.registry.collect()}
    assert promised <= set(found)
    for name, family in found.items():
        metric = METRICS.get(name) or METRICS.get(f"{name}_total")
        if metric:
            assert (family.type, family.documentation) == (metric.type, metric.help)


@pytest.mark.parametrize("created", [True, False])
def test_created_samples_are_there_on_request(created: bool) -> None:
    telemetry = Telemetry(created=created)
    telemetry.add("ci")
    assert ("ci_unknown_values_created" in page(telemetry)) is created
    assert ("ci_build_detection_seconds_created" in page(telemetry)) is created


def test_a_server_is_one_thing_at_a_time(telemetry: Telemetry) -> None:
    telemetry.identify("ci", "drone-0.8", "0.8.9")
    telemetry.identify("other", "drone-0.5", "0.5.0")
    telemetry.identify("ci", "drone-1", "2.0.4")
    lines = [line for line in page(telemetry).splitlines() if line.startswith("ci_server_info{")]
    assert lines == [
        'ci_server_info{dialect="drone-0.5",server="other",version="0.5.0"} 1.0',
        'ci_server_info{dialect="drone-1",server="ci",version="2.0.4"} 1.0',
    ]


def test_nothing_of_a_forgotten_server_is_left(telemetry: Telemetry) -> None:
    telemetry.add("other")
    telemetry.identify("ci", "drone-1", "2.0.4")
    telemetry.requests.labels("ci", "feed", "200").inc()
    telemetry.last_poll.labels("ci", "watch").set(1)
    telemetry.poll_duration.labels("ci", "watch").observe(1)
    telemetry.clock_skew.labels("ci").set(1)
    telemetry.import_remaining.labels("ci").set(1)
    telemetry.unknown("ci", "row", "x")
    telemetry.failed("ci", "shape")
    telemetry.forget("ci")
    assert 'server="ci"' not in page(telemetry)
    assert 'server="other"' in page(telemetry)


def test_unknown_values_are_counted_each_and_logged_once(
    telemetry: Telemetry, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for _ in range(3):
        telemetry.unknown("ci", "status", "paused\nlevel=error")
        telemetry.unknown("ci", "event", "paused\nlevel=error")
        telemetry.unknown("other", "status", "paused\nlevel=error")
        telemetry.unknown("ci", "started", -5)
        telemetry.unknown("ci", "row", "x" * 10_000_000)
    assert len(caplog.messages) == 5
    assert caplog.messages[0] == (
        r"server ci: status: outside what it is known to send: 'paused\nlevel=error'"
    )
    assert max(map(len, caplog.messages)) < 200
    for server, field in (("ci", "status"), ("other", "status"), ("ci", "started"), ("ci", "row")):
        labels = {"server": server, "field": field}
        assert telemetry.registry.get_sample_value("ci_unknown_values_total", labels) == 3


def test_a_flood_of_unknown_values_is_counted_only(
    telemetry: Telemetry, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(3 * LOGGED_VALUES):
        telemetry.unknown("ci", "status", f"odd {number}")
    assert len(caplog.messages) == LOGGED_VALUES
    assert "counted, not logged" in caplog.messages[-1]
    telemetry.unknown("other", "status", "odd")
    assert len(caplog.messages) == LOGGED_VALUES + 1
    labels = {"server": "ci", "field": "status"}
    assert telemetry.registry.get_sample_value("ci_unknown_values_total", labels) == 3 * LOGGED_VALUES
