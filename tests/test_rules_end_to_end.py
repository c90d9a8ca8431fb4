"""A real Prometheus evaluates the rules on the page of a real exporter, and Alertmanager keeps one silent."""

import json
import re
import signal
import socket
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import requests
from alerts import NAMES
from process import command, configure, entry, exporter, first_look, until
from programs import needs, path_of
from prometheus import Prometheus, prometheus

from exporter.simulator import Clock, World, serve

AT_ONCE = ("deployment_failed.for", "server_unreachable.for", "exporter_absent.for", "red_branch.for")
BRANCH = {"repo": "octo/api", "branch": "main", "event": "push"}
NEWEST = 'max(ci_last_build_number{repo="octo/api",branch="main",event="push"})'
INHIBIT = re.compile(r"^inhibit_rules:\n(?:  .*\n)+", re.MULTILINE)


def load_rules(prom: Prometheus, directory: Path) -> None:
    """Lets a running Prometheus evaluate, every second, what the real command prints."""
    settings = [word for name in AT_ONCE for word in ("--set", f"{name}=0s")]
    for file, *more in (("ci.yaml",), ("ci-red-branch.yaml", "--red-branch")):
        printed = command(directory, "rules", *settings, *more)
        assert printed.returncode == 0, printed.stderr
        (directory / file).write_text(printed.stdout)
    file = directory / "prometheus.yml"
    config = json.loads(file.read_text())
    config["global"]["evaluation_interval"] = "1s"
    config["rule_files"] = [str(directory / "ci*.yaml")]
    file.write_text(json.dumps(config))
    prom.process.send_signal(signal.SIGHUP)
    until("the rules", lambda: set(rules(prom)) == set(NAMES))
    until("their first evaluation", lambda: all(rule["health"] == "ok" for rule in rules(prom).values()))


def rules(prom: Prometheus) -> dict[str, dict[str, Any]]:
    return {rule["name"]: rule for group in prom.api("rules")["groups"] for rule in group["rules"]}


def firing(prom: Prometheus, name: str) -> list[dict[str, Any]]:
    return [alert for alert in rules(prom)[name]["alerts"] if alert["state"] == "firing"]


def red(prom: Prometheus) -> list[dict[str, Any]]:
    """The alerts on the branch whose builds the test makes."""
    alerts = firing(prom, "CIBranchRed")
    return [one for one in alerts if BRANCH.items() <= one["labels"].items()]


def expect_no_errors(prom: Prometheus) -> None:
    assert {name: rule["lastError"] for name, rule in rules(prom).items() if rule.get("lastError")} == {}
    failures = {
        name: value
        for name, value in prom.own_metrics().items()
        if name.startswith("prometheus_rule_evaluation_failures_total")
    }
    assert failures
    assert set(failures.values()) == {0.0}


@needs("prometheus")
def test_alerts_fire_on_what_happens_and_no_rule_fails(tmp_path: Path) -> None:
    clock = Clock.real(-1000)
    world = World("drone-1", clock=clock, seed=11)
    world.add_repos(["octo/api", "octo/web"], builds=30)
    with ExitStack() as stack:
        server = stack.enter_context(serve(world))
        configure(tmp_path, entry(tmp_path, "cloud", server, sweep="2s"))
        first_look(tmp_path, clock)
        process = stack.enter_context(exporter(tmp_path)).ready()
        prom = stack.enter_context(prometheus(tmp_path, process.address))
        until("the page", lambda: prom.values("ci_server_up", "server") == {("cloud",): 1.0})
        good = world.start_build("octo/api", branch="main", running=True)
        clock.advance(2)
        world.finish("octo/api", good)
        until("a good build", lambda: prom.values(NEWEST) == {(): float(good)})
        load_rules(prom, tmp_path)
        assert red(prom) == []
        assert firing(prom, "CIDeploymentFailed") == []

        bad = world.start_build("octo/api", branch="main", running=True)
        deployed = world.start_build("octo/web", event="deployment", environment="production", running=True)
        clock.advance(2)
        world.finish("octo/api", bad, "failure")
        world.finish("octo/web", deployed, "failure")

        until("a red branch", lambda: red(prom))
        (alert,) = red(prom)
        assert alert["labels"]["server"] == "cloud"
        link = alert["annotations"]["description"].rpartition(" ")[2]
        assert link == f"{server.url}/octo/api/{bad}"
        assert requests.get(link, timeout=5).status_code < 500
        until("a failed deployment", lambda: firing(prom, "CIDeploymentFailed"))
        assert "ended as failure" in firing(prom, "CIDeploymentFailed")[0]["annotations"]["description"]
        assert firing(prom, "CIServerUnreachable") == firing(prom, "CIExporterAbsent") == []

        server.stop()
        until("a server that is down", lambda: firing(prom, "CIServerUnreachable"))
        process.kill()
        until("an exporter that is gone", lambda: firing(prom, "CIExporterAbsent"))
        assert firing(prom, "CIExporterAbsent")[0]["labels"]["job"] == "ci"
        assert prom.values("ci_server_up") == {}
        assert red(prom)
        assert firing(prom, "CIServerUnreachable")
        expect_no_errors(prom)


@needs("prometheus-alertmanager")
def test_alertmanager_tells_of_a_red_branch_once(tmp_path: Path) -> None:
    page = Path(__file__).parent.parent / "docs/alert-rules.md"
    (snippet,) = INHIBIT.findall(page.read_text(encoding="utf-8"))
    config = f"route: {{receiver: team}}\nreceivers: [{{name: team}}]\n{snippet}"
    (tmp_path / "alertmanager.yml").write_text(config)
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with ExitStack() as stack:
        log = stack.enter_context((tmp_path / "log").open("wb"))
        process = subprocess.Popen(
            [
                str(path_of("prometheus-alertmanager")),
                f"--config.file={tmp_path / 'alertmanager.yml'}",
                f"--storage.path={tmp_path / 'data'}",
                f"--web.listen-address={address}",
                "--cluster.listen-address=",
            ],
            stderr=log,
        )
        stack.callback(process.wait)
        stack.callback(process.kill)
        url = f"http://{address}/api/v2/alerts"

        def state() -> dict[tuple[str, str], str]:
            got = requests.get(url, timeout=5).json()
            return {
                (one["labels"]["alertname"], one["labels"]["branch"]): one["status"]["state"] for one in got
            }

        def answers() -> bool:
            assert process.poll() is None, (tmp_path / "log").read_text()
            try:
                return requests.get(url, timeout=5).status_code == 200
            except requests.ConnectionError:
                return False

        until("Alertmanager", answers)
        of_build = {"server": "s", "repo": "acme/app", "event": "push"}
        alerts = [
            {"labels": {"alertname": name, **of_build, "branch": branch}}
            for name, branch in (("CIBuildFailed", "main"), ("CIBranchRed", "main"), ("CIBranchRed", "dev"))
        ]
        assert requests.post(url, json=alerts, timeout=5).status_code == 200
        until(
            "one of three kept silent",
            lambda: (
                state()
                == {
                    ("CIBuildFailed", "main"): "active",
                    ("CIBranchRed", "main"): "suppressed",
                    ("CIBranchRed", "dev"): "active",
                }
            ),
        )
