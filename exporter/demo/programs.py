"""The programs of others that a demo runs: where they are, how they are configured and started."""

import shutil
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from exporter.rules import CI, RED_BRANCH, render

HOST = "127.0.0.1"
JOB = "ci"
SCRAPE = "5s"
RETENTION = "100d"
"""Longer than any history, for Prometheus deletes what is older within minutes."""
GRAFANA_HOMES = ("/usr/share/grafana", "/usr/local/share/grafana", "/opt/grafana")


@dataclass(frozen=True, slots=True)
class Program:
    """A program of others: `names` it may be installed under, and the packages that have it."""

    title: str
    names: tuple[str, ...]
    advice: str

    def path(self) -> str | None:
        """Where it is installed, if it is."""
        return next(filter(None, map(shutil.which, self.names)), None)


PROMETHEUS = Program("Prometheus", ("prometheus",), "as root: apt install prometheus")
PROMTOOL = Program("promtool", ("promtool",), "as root: apt install prometheus")
ALERTMANAGER = Program(
    "Alertmanager",
    ("prometheus-alertmanager", "alertmanager"),
    "as root: apt install prometheus-alertmanager",
)
GRAFANA = Program("Grafana", ("grafana", "grafana-server"), "see https://grafana.com/grafana/download")
PROGRAMS = (PROMETHEUS, PROMTOOL, ALERTMANAGER, GRAFANA)


@dataclass(frozen=True, slots=True)
class Start:
    """How a program is started, and the path at which it answers once it is ready."""

    command: list[str]
    ready: str
    environ: dict[str, str] = field(default_factory=dict)


def free_address(port: int) -> str:
    """`127.0.0.1:port`, or another port where that one is taken."""
    for wanted in (port, 0):
        with socket.socket() as probe:
            # As the programs themselves do: else a port that was in use a minute ago is taken.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, wanted))
            except OSError:
                continue
            return f"{HOST}:{probe.getsockname()[1]}"
    raise OSError("this machine has no free port on loopback")


def prometheus(path: str, directory: Path, addresses: Mapping[str, str]) -> Start:
    """Prometheus, which scrapes the exporter, with the rules and what history is in `directory`/tsdb.

    `addresses` are those of `prometheus`, `exporter`, `alertmanager` and `grafana`.
    """
    rules = render({"grafana": f"http://{addresses['grafana']}"})
    names = {name: directory / Path(name).name for name in (CI, RED_BRANCH)}
    for name, file in names.items():
        file.write_text(rules[name], encoding="utf-8")
    config = {
        "global": {"scrape_interval": SCRAPE, "evaluation_interval": SCRAPE},
        "scrape_configs": [{"job_name": JOB, "static_configs": [{"targets": [addresses["exporter"]]}]}],
        "rule_files": [str(file) for file in names.values()],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [addresses["alertmanager"]]}]}]},
    }
    command = [
        path,
        f"--config.file={_written(directory / 'prometheus.yml', config)}",
        f"--storage.tsdb.path={directory / 'tsdb'}",
        f"--storage.tsdb.retention.time={RETENTION}",
        f"--web.listen-address={addresses['prometheus']}",
        f"--web.external-url=http://{addresses['prometheus']}/",
        # It knows of Alertmanager some seconds after it first judged; what it said before went nowhere.
        f"--rules.alert.resend-delay={SCRAPE}",
        "--enable-feature=exemplar-storage",
    ]
    return Start(command, "/-/ready")


def alertmanager(path: str, directory: Path, address: str, receiver: str) -> Start:
    """Alertmanager, which posts to the page at `receiver`."""
    config = {
        "route": {
            "receiver": "page",
            "group_by": ["alertname", "server", "repo"],
            "group_wait": "2s",
            "group_interval": "30s",
            "repeat_interval": "4h",
        },
        "receivers": [
            {"name": "page", "webhook_configs": [{"url": f"http://{receiver}/alertmanager"}]},
        ],
        # As the head of ci-red-branch.yaml says: what build-exporter tells itself says more.
        "inhibit_rules": [
            {
                "source_matchers": ['alertname="CIBuildFailed"'],
                "target_matchers": ['alertname="CIBranchRed"'],
                "equal": ["server", "repo", "branch", "event"],
            }
        ],
    }
    command = [
        path,
        f"--config.file={_written(directory / 'alertmanager.yml', config)}",
        f"--storage.path={directory / 'alertmanager'}",
        f"--web.listen-address={address}",
        f"--web.external-url=http://{address}/",
        "--cluster.listen-address=",
    ]
    return Start(command, "/-/ready")


def grafana(path: str, directory: Path, address: str, prometheus_address: str, shipped: Path) -> Start:
    """Grafana with the dashboards of `shipped` (grafana/provisioning), which anybody here may look at.

    Its own alerts are left out: Prometheus has the same ones.
    """
    provisioning = directory / "provisioning"
    for kind in ("datasources", "dashboards"):
        shutil.copytree(shipped / kind, provisioning / kind)
    for file in (provisioning / "datasources").glob("*.yaml"):
        sources = yaml.safe_load(file.read_text(encoding="utf-8"))
        for source in sources["datasources"]:
            source["url"] = f"http://{prometheus_address}"
            source["jsonData"]["timeInterval"] = SCRAPE
        _written(file, sources)
    for file in (provisioning / "dashboards").glob("*.yaml"):
        providers = yaml.safe_load(file.read_text(encoding="utf-8"))
        for provider in providers["providers"]:
            inside = Path(provider["options"]["path"]).relative_to("/etc/grafana/provisioning")
            provider["options"]["path"] = str(provisioning / inside)
        _written(file, providers)
    host, _, port = address.rpartition(":")
    home = next(filter(None, map(_home, (*_above(path), *GRAFANA_HOMES))), None)
    command = [path, *(["server"] if Path(path).name == "grafana" else [])]
    environ = {
        "GF_PATHS_DATA": str(directory / "grafana"),
        "GF_PATHS_LOGS": str(directory / "grafana" / "log"),
        "GF_PATHS_PLUGINS": str(directory / "grafana" / "plugins"),
        "GF_PATHS_PROVISIONING": str(provisioning),
        "GF_SERVER_HTTP_ADDR": host,
        "GF_SERVER_HTTP_PORT": port,
        "GF_SERVER_ROOT_URL": f"http://{address}/",
        "GF_AUTH_ANONYMOUS_ENABLED": "true",
        "GF_AUTH_ANONYMOUS_ORG_ROLE": "Viewer",
        "GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH": str(provisioning / "dashboards/ci/ci-fleet.json"),
        "GF_ANALYTICS_REPORTING_ENABLED": "false",
        "GF_ANALYTICS_CHECK_FOR_UPDATES": "false",
        "GF_ANALYTICS_CHECK_FOR_PLUGIN_UPDATES": "false",
        "GF_LOG_MODE": "console",
    }
    if home:
        command.append(f"--homepath={home}")
    return Start(command, "/api/health", environ)


def _above(path: str) -> Iterable[str]:
    """A Grafana that was unpacked somewhere has its home above its program."""
    return [str(parent) for parent in list(Path(path).resolve().parents)[:2]]


def _home(place: str) -> str | None:
    return place if (Path(place) / "conf/defaults.ini").is_file() else None


def _written(file: Path, content: Mapping[str, Any]) -> Path:
    file.write_text(yaml.safe_dump(dict(content), sort_keys=False, allow_unicode=True), encoding="utf-8")
    return file
