"""A real Prometheus scrapes the real command, which reads a simulated server of each Drone generation."""

import re
import subprocess
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

from process import Exporter, configure, entry, exporter, first_look, happened, samples, until
from programs import needs
from prometheus import Prometheus, prometheus
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from exporter.simulator import Clock, World, serve

OPENMETRICS = "application/openmetrics-text; version=1.0.0"
REFUSED_SAMPLES = (
    "prometheus_target_scrapes_exceeded_sample_limit_total",
    "prometheus_target_scrapes_sample_duplicate_timestamp_total",
    "prometheus_target_scrapes_sample_out_of_bounds_total",
    "prometheus_target_scrapes_sample_out_of_order_total",
    "prometheus_target_scrapes_exemplar_out_of_order_total",
)
EVENTS = ("push", "pull_request")


def make_world(dialect: str, clock: Clock) -> World:
    """A server with history, whose branch and events were seen before."""
    world = World(dialect, clock=clock, seed=11)
    world.add_repos(["octo/api", "octo/web", "octo/gone"], builds=30)
    for repo in world.repos:
        for event in EVENTS:
            world.start_build(repo, event=event, running=True)
    return world


def end_all(world: World, repo: str) -> int:
    """What was open ends: one build fails, whose number this is, and one is cancelled."""
    failed, cancelled = (number for name, number in open_builds(world) if name == repo)
    world.finish(repo, failed, "failure")
    world.cancel(repo, cancelled)
    return failed


def restart(world: World, repo: str, number: int) -> None:
    """The build runs once more, and passes."""
    again = world.restart(repo, number)
    world.run(repo, again)
    world.clock.advance(2)
    world.finish(repo, again)


def open_builds(world: World) -> list[tuple[str, int]]:
    with world.moment() as now:
        return [(repo.name, build.number) for repo, build in world.open_builds(now)]


def ends_of(name: str, world: World) -> Counter[tuple[str, str, str, str]]:
    """(server, repo, event, status) of all that ended after the first look."""
    with world.moment() as now:
        ended = [(repo, build) for repo, build in world.runs() if build.ended(now)]
    return Counter((name, repo, build.event, world.status(build).word) for repo, build in ended)


@needs("prometheus", "promtool")
def test_prometheus_sees_every_build(tmp_path: Path) -> None:
    clock = Clock.real(-1000)
    worlds = {
        name: make_world(dialect, clock)
        for name, dialect in {"legacy": "drone-0.5", "platform": "drone-0.8", "cloud": "drone-1"}.items()
    }
    with ExitStack() as stack:
        servers = {name: stack.enter_context(serve(world)) for name, world in worlds.items()}
        configure(tmp_path, *(entry(tmp_path, name, server, sweep="2s") for name, server in servers.items()))
        first_look(tmp_path, clock)
        process = stack.enter_context(exporter(tmp_path)).started()
        prom = stack.enter_context(prometheus(tmp_path, process.address))

        def expect_up(**up: int) -> None:
            wanted = {(name,): float(value) for name, value in up.items()}
            until(f"{up} in Prometheus", lambda: prom.values("ci_server_up", "server") == wanted)

        def seen() -> Counter[tuple[str, ...]]:
            query = "sum by (server, repo, event, status) (ci_builds_total) > 0"
            found = prom.values(query, "server", "repo", "event", "status")
            return Counter({key: int(value) for key, value in found.items()})

        def ends() -> Counter[tuple[str, ...]]:
            return sum((ends_of(name, world) for name, world in worlds.items()), Counter())

        def sweeps() -> dict[tuple[str, ...], float]:
            return prom.values('ci_server_last_poll_timestamp_seconds{task="sweep"}', "server")

        expect_up(legacy=1, platform=1, cloud=1)
        until("the end of the import", lambda: not prom.values("ci_import_repos_remaining > 0", "server"))
        until(
            "the builds that run",
            lambda: sum(prom.values("ci_builds_running", "server", "repo").values()) == 18,
        )
        assert not seen(), "history moves no counter"
        check_page(process)

        failed = {name: end_all(world, "octo/api") for name, world in worlds.items()}
        until("all ends in Prometheus", lambda: seen() == ends())
        for name, world in worlds.items():
            restart(world, "octo/api", failed[name])
        until("the restarted builds too", lambda: seen() == ends())

        for world in worlds.values():
            end_all(world, "octo/gone")
        until("the ends of a repo that will go", lambda: seen() == ends())
        gone = seen()
        before = sweeps()
        for world in worlds.values():
            world.delete_repo("octo/gone")
        until("two sweeps without it", lambda: all(at > before[name] + 2 for name, at in sweeps().items()))
        assert seen() == gone

        cloud = servers["cloud"]
        cloud.stop()
        expect_up(legacy=1, platform=1, cloud=0)
        end_all(worlds["cloud"], "octo/web")
        stack.enter_context(serve(worlds["cloud"], cloud.port))
        expect_up(legacy=1, platform=1, cloud=1)

        legacy = worlds["legacy"]
        legacy.revoke(legacy.token)
        expect_up(legacy=0, platform=1, cloud=1)
        end_all(legacy, "octo/web")
        end_all(worlds["platform"], "octo/web")
        assert set(prom.values('ci_server_poll_failures_total{reason="auth"} > 0', "server")) == {("legacy",)}
        legacy.add_user("adminuser", admin=True, token=legacy.token)
        expect_up(legacy=1, platform=1, cloud=1)
        of_gone = Counter({key: count for key, count in gone.items() if key[1] == "octo/gone"})
        until("all that ended meanwhile", lambda: seen() == ends() + of_gone)

        check_page(process)
        check_prometheus(prom)
        assert process.stop() == 0
    assert [line.split()[1] for line in process.lines] == [
        f"level={level}" for level in ("info", "error", "info", "error", "info")
    ]


def check_page(process: Exporter) -> None:
    """promtool has nothing to say of the page, and the OpenMetrics form says the same as the text."""
    text = process.get("/metrics", Accept="text/plain").text
    checked = subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")
    openmetrics = process.get("/metrics", Accept=OPENMETRICS)
    assert openmetrics.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    families = list(text_string_to_metric_families(openmetrics.text))
    assert {family.name.removesuffix("_total") for family in families} >= {
        "ci_builds",
        "ci_server_up",
        "process_cpu_seconds",
    }
    assert len(happened(samples(text))) == sum(
        len(family.samples) for family in families if family.samples and happened({family.samples[0].name: 0})
    )


def check_prometheus(prom: Prometheus) -> None:
    """No scrape failed, no sample was refused, no counter fell, and exemplars lead to builds."""
    assert prom.values("min_over_time(up[10m])", "job") == {("ci",): 1.0}
    (target,) = prom.api("targets")["activeTargets"]
    assert (target["health"], target["lastError"]) == ("up", "")
    own = prom.own_metrics()
    assert {name: own[name] for name in REFUSED_SAMPLES} == dict.fromkeys(REFUSED_SAMPLES, 0.0)
    assert not re.findall(r"^.*level=(?:warn|error).*$", prom.log, re.MULTILINE)
    for counter in ("ci_builds_total", "ci_steps_total", "ci_build_queue_seconds_count"):
        assert not prom.values(f"resets({counter}[10m]) > 0", "server", "repo")
    increase = sum(
        prom.values("increase(ci_builds_total[10m])", "server", "repo", "event", "status").values()
    )
    assert increase > 0
    restarts = prom.values("sum by (server) (ci_build_restarts_total)", "server")
    assert restarts == {("legacy",): 1.0, ("platform",): 1.0, ("cloud",): 1.0}
    found = prom.api("query_exemplars", query="ci_build_duration_seconds_bucket", start="0", end="9999999999")
    urls = {exemplar["labels"]["url"] for series in found for exemplar in series["exemplars"]}
    assert len(urls) >= 3
    assert all(re.fullmatch(r"http://127\.0\.0\.1:\d+/octo/(api|web|gone)/\d+", url) for url in urls)
