"""Files for containers, systemd and Kubernetes fit the program, and real tools accept them."""

import json
import re
import shlex
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import prometheus_rule
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from programs import BESIDE_PYTHON, needs, path_of

from exporter import __version__
from exporter.cli.commands import commands
from exporter.config import WebSettings, load
from exporter.rules import CI, render
from exporter.web import PAGES

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs/deployment.md"
PORT = WebSettings().port
USER = 10001
"""Of no user of the machine: what leaves the container owns nothing."""
IMAGE = f"build-exporter:{__version__}"
OPERATOR = ROOT / "deploy/kubernetes/prometheus-operator"
UNIT = ROOT / "deploy/systemd/build-exporter.service"
MOST_EXPOSED = 15
"""Tenths that `systemd-analyze security` may give, of 100."""
SECRET = re.compile("password|passwd|token|secret|key|credential", re.IGNORECASE)


def run(*command: str, directory: Path = ROOT) -> subprocess.CompletedProcess[str]:
    program, *arguments = command
    found = [str(path_of(program)), *arguments]
    return subprocess.run(found, capture_output=True, text=True, check=False, timeout=30, cwd=directory)


def instructions(text: str) -> list[tuple[str, str]]:
    """A Dockerfile's instructions and what follows each."""
    joined = re.sub(r"\\\n", "", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE))
    return [(name, rest.strip()) for name, _, rest in (line.partition(" ") for line in joined.splitlines())]


DOCKERFILE = instructions((ROOT / "Dockerfile").read_text(encoding="utf-8"))
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
MANIFESTS = {
    manifest["kind"]: manifest
    for path in sorted(ROOT.glob("deploy/kubernetes/**/*.yaml"))
    for manifest in yaml.safe_load_all(path.read_text(encoding="utf-8"))
}
POD = MANIFESTS["Deployment"]["spec"]["template"]
(CONTAINER,) = POD["spec"]["containers"]


def final(name: str) -> str:
    """The last instruction of this name."""
    return [rest for found, rest in DOCKERFILE if found == name][-1]


def unit(name: str) -> list[str]:
    """The values of a setting of the systemd unit."""
    return re.findall(rf"^{name}=(.*)$", UNIT.read_text(encoding="utf-8"), re.MULTILINE)


def accepts(command: list[str]) -> dict[str, Any]:
    """The options of a command line of build-exporter; fails where it does not take it."""
    name, *arguments = command
    return dict(commands.commands[name].make_context(name, arguments).params)


# The image


@needs("hadolint")
def test_the_dockerfile_is_clean_to_a_linter() -> None:
    checked = run("hadolint", "Dockerfile")
    assert checked.returncode == 0, checked.stdout


def test_the_image_runs_a_command_that_exists() -> None:
    (program,) = json.loads(final("ENTRYPOINT"))
    assert program in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    options = accepts(json.loads(final("CMD")))
    assert options["listen"] == f":{PORT}"
    assert final("EXPOSE") == str(PORT)


def test_the_image_needs_no_root() -> None:
    assert final("USER") == f"{USER}:{USER}"
    (made,) = [rest for name, rest in DOCKERFILE if name == "RUN" and "/etc/passwd" in rest]
    assert f"build-exporter:x:{USER}:{USER}:" in made
    assert f"install -d -o {USER} -g {USER} -m 0750 {final('VOLUME')}" in made
    assert final("WORKDIR") == final("VOLUME") == unit("WorkingDirectory")[0]


def test_the_health_check_asks_a_page_that_exists() -> None:
    options, _, command = final("HEALTHCHECK").partition(" CMD ")
    program, flag, code = json.loads(command)
    assert (program, flag) == ("python", "-c")
    compile(code, "HEALTHCHECK", "exec")
    assert f"'127.0.0.1', {PORT}, " in code
    assert [page for page in PAGES if f"'GET', '{page}'" in code] == ["/healthz"]
    assert "--timeout=5s" in options


def test_the_build_is_given_all_that_it_copies_and_nothing_else() -> None:
    copied = {
        source.rstrip("/")
        for name, rest in DOCKERFILE
        if name == "COPY" and "--from" not in rest
        for source in rest.split()[:-1]
    }
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert {line[1:] for line in ignored if line.startswith("!")} == copied
    assert [source for source in copied if not (ROOT / source).exists()] == []
    assert "*" in ignored


@pytest.mark.parametrize("name", ["requirements.txt", "build-requirements.txt"])
def test_the_image_has_the_packages_that_the_project_asks_for(name: str) -> None:
    text = (ROOT / "deploy/image" / name).read_text(encoding="utf-8")
    locked = dict(re.findall(r"^([\w.-]+)==(\S+)", text, re.MULTILINE))
    hashes = re.findall(r"^[\w.-]+==\S+ \\\n    --hash=sha256:[0-9a-f]{64}", text, re.MULTILINE)
    assert len(hashes) == len(locked)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wanted = project["build-system"]["requires"]
    if name == "requirements.txt":
        wanted = [
            *project["project"]["dependencies"],
            *project["project"]["optional-dependencies"]["postgresql"],
        ]
    for requirement in map(Requirement, wanted):
        version = locked.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement.name} is not locked: run `make lock`"
        assert version in requirement.specifier, f"{requirement} is locked at {version}: run `make lock`"


# Compose


@needs("docker-compose")
def test_docker_compose_takes_the_file() -> None:
    checked = run("docker-compose", "config", "--format", "json")
    assert checked.returncode == 0, checked.stderr
    services = json.loads(checked.stdout)["services"]
    assert set(services) == {"exporter", "prometheus", "alertmanager", "grafana"}
    for name, service in services.items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service.get("user") is None, f"{name}: the image's own user is not root"
        assert [port["host_ip"] for port in service["ports"]] == ["127.0.0.1"], name


def test_compose_mounts_what_is_there() -> None:
    files = [value["file"] for value in COMPOSE["configs"].values()]
    mounts = [mount.split(":") for service in COMPOSE["services"].values() for mount in service["volumes"]]
    files += [mount[0] for mount in mounts if mount[0].startswith("./")]
    assert [name for name in files if name != "config.yaml" and not (ROOT / name).exists()] == []
    named = {mount[0] for mount in mounts if not mount[0].startswith("./")}
    assert named == set(COMPOSE["volumes"])
    written = {mount[0] for mount in mounts if mount[0].startswith("./") and mount[-1] != "ro"}
    assert written == set()
    secrets = {value["file"] for value in COMPOSE["secrets"].values()}
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    assert {f"/{Path(name).parent}/" for name in secrets} <= set(ignored)


def test_compose_runs_the_image_as_it_wants_to_be_run() -> None:
    exporter = COMPOSE["services"]["exporter"]
    assert exporter["image"] == IMAGE
    (config,) = exporter["configs"]
    assert config["target"] == json.loads(final("CMD"))[2]
    assert exporter["volumes"] == [f"ledger:{final('VOLUME')}"]
    assert exporter["ports"] == [f"127.0.0.1:{PORT}:{PORT}"]


def test_the_services_find_each_other() -> None:
    ports = {
        f"{name}:{port.split(':')[-1]}"
        for name, service in COMPOSE["services"].items()
        for port in service["ports"]
    }
    prometheus = yaml.safe_load((ROOT / "deploy/compose/prometheus.yml").read_text(encoding="utf-8"))
    (scrape,) = prometheus["scrape_configs"]
    (alerting,) = prometheus["alerting"]["alertmanagers"]
    source = yaml.safe_load((ROOT / "grafana/provisioning/datasources/prometheus.yaml").read_text())
    asked = [target for group in scrape["static_configs"] for target in group["targets"]]
    asked += [target for group in alerting["static_configs"] for target in group["targets"]]
    asked += [place["url"].removeprefix("http://") for place in source["datasources"]]
    assert set(asked) == {f"exporter:{PORT}", "alertmanager:9093", "prometheus:9090"} <= ports
    assert source["datasources"][0]["jsonData"]["timeInterval"] == prometheus["global"]["scrape_interval"]


def test_grafana_and_prometheus_do_not_both_tell_of_an_alert() -> None:
    mounted = [mount.split(":")[1] for mount in COMPOSE["services"]["grafana"]["volumes"]]
    assert not any(fnmatch("/etc/grafana/provisioning/alerting", f"{place}*") for place in mounted)
    board = yaml.safe_load((ROOT / "grafana/provisioning/dashboards/ci.yaml").read_text(encoding="utf-8"))
    assert any(
        provider["options"]["path"].startswith(mount) for mount in mounted for provider in board["providers"]
    )


@needs("promtool", "amtool")
def test_prometheus_and_alertmanager_take_their_files(tmp_path: Path) -> None:
    text = (ROOT / "deploy/compose/prometheus.yml").read_text(encoding="utf-8")
    mounts = dict(mount.split(":")[:2] for mount in COMPOSE["services"]["prometheus"]["volumes"])
    inside = mounts["./grafana/rules"]
    assert f"[{inside}/*.yaml]" in text
    (tmp_path / "prometheus.yml").write_text(text.replace(inside, str(ROOT / "grafana/rules")))
    checked = run("promtool", "check", "config", str(tmp_path / "prometheus.yml"))
    assert checked.returncode == 0, checked.stderr
    assert "1 rule files found" in checked.stdout
    for snippet in ["deploy/compose/alertmanager.yml", *alertmanager_examples(tmp_path)]:
        checked = run("amtool", "check-config", snippet)
        assert checked.returncode == 0, checked.stderr


def alertmanager_examples(directory: Path) -> Iterator[str]:
    for place, block in enumerate(examples("route:")):
        path = directory / f"alertmanager{place}.yml"
        path.write_text(block)
        yield str(path)


# systemd


@needs("systemd-analyze")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    (command,) = unit("ExecStart")
    installed = f"{BESIDE_PYTHON}/build-exporter"
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text(encoding="utf-8").replace(command.split()[0], installed))
    checked = run("systemd-analyze", "verify", "--recursive-errors=no", str(copy))
    assert checked.returncode == 0, checked.stderr
    assert UNIT.name not in checked.stderr


@needs("systemd-analyze")
def test_the_unit_is_confined() -> None:
    most = f"--threshold={MOST_EXPOSED}"
    checked = run("systemd-analyze", "security", "--offline=yes", "--no-pager", most, str(UNIT))
    assert checked.returncode == 0, checked.stdout


def test_the_unit_runs_a_command_that_exists() -> None:
    (line,) = unit("ExecStart")
    program, *command = shlex.split(line)
    assert Path(program).name == json.loads(final("ENTRYPOINT"))[0]
    path = accepts(command)["config_path"]
    text = PAGE.read_text(encoding="utf-8")
    assert f"config.yaml {path}\n" in text
    assert f"venv {Path(program).parent.parent}\n" in text


def test_the_unit_hands_over_the_secret_that_the_page_installs() -> None:
    assert unit("Environment") + unit("EnvironmentFile") == []
    ((name, source),) = (given.split(":") for given in unit("LoadCredential"))
    text = PAGE.read_text(encoding="utf-8")
    assert f" {source}\n" in text
    assert f"token_file: /run/credentials/{UNIT.name}/{name}\n" in text
    assert f"/var/lib/{unit('StateDirectory')[0]}" == unit("WorkingDirectory")[0]


# Kubernetes


@needs("kubernetes-validate")
@pytest.mark.parametrize("version", ["1.25", "1.37"])
def test_kubernetes_takes_the_manifest(version: str) -> None:
    checked = run("kubernetes-validate", "--strict", "-k", version, "deploy/kubernetes/build-exporter.yaml")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert checked.stdout.count(" passed for ") == 5


def test_the_operator_takes_what_is_meant_for_it() -> None:
    from cloudcoil.models.prometheus_operator import v1

    for model in (v1.ServiceMonitor, v1.PrometheusRule):
        manifest = MANIFESTS[model.__name__]
        read = model.model_validate(manifest).model_dump(mode="json", by_alias=True, exclude_unset=True)
        assert read == manifest, "a key that the operator does not know"


def test_the_pod_is_confined() -> None:
    assert POD["spec"]["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": USER,
        "runAsGroup": USER,
        "fsGroup": USER,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert CONTAINER["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert POD["spec"]["automountServiceAccountToken"] is False


def test_one_exporter_at_a_time_writes_to_the_ledger() -> None:
    spec = MANIFESTS["Deployment"]["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})
    volumes = {volume["name"]: volume for volume in POD["spec"]["volumes"]}
    mounts = {mount["mountPath"]: volumes[mount["name"]] for mount in CONTAINER["volumeMounts"]}
    claim = mounts[final("VOLUME")]["persistentVolumeClaim"]["claimName"]
    assert claim == MANIFESTS["PersistentVolumeClaim"]["metadata"]["name"]


def test_the_objects_find_each_other() -> None:
    labels = POD["metadata"]["labels"]
    service, monitor, policy = (MANIFESTS[kind] for kind in ("Service", "ServiceMonitor", "NetworkPolicy"))
    assert MANIFESTS["Deployment"]["spec"]["selector"]["matchLabels"] == labels
    assert service["spec"]["selector"] == policy["spec"]["podSelector"]["matchLabels"] == labels
    assert monitor["spec"]["selector"]["matchLabels"] == service["metadata"]["labels"]
    (container_port,), (port,) = CONTAINER["ports"], service["spec"]["ports"]
    assert container_port == {"name": "metrics", "containerPort": PORT}
    assert port == {"name": "metrics", "port": PORT, "targetPort": "metrics"}
    assert [endpoint["port"] for endpoint in monitor["spec"]["endpoints"]] == ["metrics"]
    assert [rule["port"] for rule in policy["spec"]["ingress"][0]["ports"]] == ["metrics"]
    probes = {name: CONTAINER[f"{name}Probe"]["httpGet"] for name in ("liveness", "readiness", "startup")}
    assert {probe["port"] for probe in probes.values()} == {"metrics"}
    assert [probe["path"] for probe in probes.values()] == ["/healthz", "/readyz", "/healthz"]
    assert {probe["path"] for probe in probes.values()} <= set(PAGES)


def test_the_configuration_in_the_manifest_loads_beside_its_secret(tmp_path: Path) -> None:
    (projected,) = [volume for volume in POD["spec"]["volumes"] if "projected" in volume]
    sources = projected["projected"]["sources"]
    assert [list(source) for source in sources] == [["configMap"], ["secret"]]
    assert sources[0]["configMap"]["name"] == MANIFESTS["ConfigMap"]["metadata"]["name"]
    created = re.findall(r"create secret generic (\S+) --from-file=(\w+)=", PAGE.read_text(encoding="utf-8"))
    ((secret, key),) = created
    assert sources[1]["secret"]["name"] == secret
    mounts = {mount["name"]: mount["mountPath"] for mount in CONTAINER["volumeMounts"]}
    ((name, text),) = MANIFESTS["ConfigMap"]["data"].items()
    assert f"{mounts[projected['name']]}/{name}" == json.loads(final("CMD"))[2]
    (tmp_path / "..1").mkdir()  # the kubelet lays the files so, and turns ..data when they change
    (tmp_path / "..data").symlink_to("..1")
    for file, content in ((key, "secret"), (name, text)):
        (tmp_path / "..1" / file).write_text(content)
        (tmp_path / file).symlink_to(f"..data/{file}")
    assert load(tmp_path / name, {}).servers[0].token is not None


def test_the_prometheus_rule_has_the_rules_that_are_shipped() -> None:
    assert MANIFESTS["PrometheusRule"]["spec"] == yaml.safe_load(render()[CI])
    assert prometheus_rule.main(["--check"]) == 0


def test_a_stale_prometheus_rule_is_found_and_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stale = tmp_path / "prometheusrule.yaml"
    stale.write_text("old\n")
    monkeypatch.setattr(prometheus_rule, "MANIFEST", stale)
    assert prometheus_rule.main(["--check"]) == 1
    assert "prometheusrule.yaml is stale" in capsys.readouterr().err
    assert prometheus_rule.main([]) == 0
    assert prometheus_rule.main(["--check"]) == 0


def test_rules_of_ones_own_become_a_prometheus_rule(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rules = render({"failure_ratio.threshold": "0.4"})[CI]
    (tmp_path / "ci.yaml").write_text(rules)
    assert prometheus_rule.main([str(tmp_path / "ci.yaml")]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["spec"] == yaml.safe_load(rules)
    with pytest.raises(SystemExit, match="2"):
        prometheus_rule.main([str(tmp_path / "missing.yaml")])
    assert "missing.yaml: cannot be read" in capsys.readouterr().err


# All of them


def images() -> Iterator[str]:
    stages = {rest.split(" AS ")[1] for name, rest in DOCKERFILE if name == "FROM" and " AS " in rest}
    arguments = dict(rest.split("=", 1) for name, rest in DOCKERFILE if name == "ARG")
    for name, rest in DOCKERFILE:
        if name == "FROM" and rest not in stages:
            yield arguments[rest.split()[0].strip("${}")]
    yield from (service["image"] for service in COMPOSE["services"].values())
    yield CONTAINER["image"]


def test_every_image_is_of_one_version() -> None:
    for image in images():
        assert re.search(r":v?\d+\.\d+\.\d+(-[\w.-]+)?$", image), image
    ours = {image for image in images() if "build-exporter:" in image}
    assert {image.rpartition("/")[2] for image in ours} == {IMAGE}
    assert set(re.findall(r"build-exporter:[0-9][\w.]*", PAGE.read_text(encoding="utf-8"))) == {IMAGE}


def test_no_secret_is_an_environment_variable() -> None:
    variables = [
        (name, value)
        for service in COMPOSE["services"].values()
        for name, value in service.get("environment", {}).items()
    ]
    variables += [(entry["name"], entry.get("value", "")) for entry in CONTAINER.get("env", [])]
    variables += [
        (name, value)
        for instruction, rest in DOCKERFILE
        if instruction in {"ENV", "ARG"}
        for name, _, value in (setting.partition("=") for setting in rest.split())
    ]
    for name, value in variables:
        if SECRET.search(name):
            assert name.endswith("__FILE"), name
            assert value.startswith("/run/secrets/"), name
    assert "Secret" not in MANIFESTS


def examples(begin: str) -> list[str]:
    """The YAML blocks of the page that begin so."""
    blocks = re.findall(r"^```yaml\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return [block for block in blocks if block.startswith(begin)]


def test_the_configurations_of_the_page_load(tmp_path: Path) -> None:
    secrets = {Path(value["file"]).name for value in COMPOSE["secrets"].values()}
    (tmp_path / "token").write_text("secret")
    found = examples("servers:")
    for block in found:
        named = re.findall(r"token_file: /run/(?:secrets|credentials/[\w.-]+)/(\w+)\n", block)
        assert set(named) <= secrets
        (tmp_path / "config.yaml").write_text(re.sub("token_file: .*", "token_file: token", block))
        assert len(load(tmp_path / "config.yaml", {}).servers) == 1
    assert len(found) == 2


Planted = tuple[str, list[str], Path, Callable[[str], str]]
FAULTS: list[Planted] = [
    ("hadolint", [], ROOT / "Dockerfile", lambda text: text.replace("RUN python", "RUN sudo python")),
    ("hadolint", [], ROOT / "Dockerfile", lambda text: text.replace("\nUSER ", "\nUSSR ")),
    (
        "docker-compose",
        ["config", "-q", "-f"],
        ROOT / "compose.yaml",
        lambda text: text.replace("image:", "imago:"),
    ),
    ("systemd-analyze", ["verify"], UNIT, lambda text: text.replace("@system-service", "@system-servant")),
    ("systemd-analyze", ["verify"], UNIT, lambda text: text.replace("ProtectHome=yes", "ProtectHouse=yes")),
    (
        "kubernetes-validate",
        ["--strict"],
        ROOT / "deploy/kubernetes/build-exporter.yaml",
        lambda text: text.replace("runAsNonRoot:", "runAsNobody:"),
    ),
    (
        "amtool",
        ["check-config"],
        ROOT / "deploy/compose/alertmanager.yml",
        lambda text: text.replace("name: nobody", "name: x"),
    ),
]


@needs("hadolint", "docker-compose", "systemd-analyze", "kubernetes-validate", "amtool")
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault[0])
def test_the_tools_find_a_planted_fault(fault: Planted, tmp_path: Path) -> None:
    program, arguments, path, plant = fault
    planted = tmp_path / path.name
    planted.write_text(plant(path.read_text(encoding="utf-8")))
    assert planted.read_text() != path.read_text()
    checked = run(program, *arguments, str(planted), directory=tmp_path)
    assert checked.returncode != 0 or path.name in checked.stderr
