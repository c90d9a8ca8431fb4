"""What the pages say is what the program does."""

import re
import runpy
import subprocess
from pathlib import Path
from typing import get_args

import pytest
import trustme
import yaml
from programs import needs, path_of
from prometheus_client.parser import text_string_to_metric_families

from exporter import web_config
from exporter.cli.commands import commands
from exporter.config import ServerSettings, load
from exporter.metrics import METRICS

ROOT = Path(__file__).parent.parent
PAGES = sorted((*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("grafana/*.md")))
TOKENS = {"DRONE_TOKEN": "a", "OLD_DRONE_TOKEN": "b", "WOODPECKER_TOKEN": "c", "ABF_PASSWORD": "d"}
DIALECTS = set(get_args(ServerSettings.model_fields["dialect"].annotation))
TOKENS |= dict.fromkeys(("SLACK_URL", "DINGTALK_URL", "HOOK_URL"), "https://chat.example.com/hooks/e")
TOKENS |= dict.fromkeys(("DINGTALK_SECRET", "HOOK_SECRET", "MAIL_PASSWORD"), "f")
TOKENS |= {"ALERTMANAGER_TOKEN": "g", "DRONE_WEBHOOK_SECRET": "h"}
TOKENS |= dict.fromkeys(("ALERTMANAGER_PASSWORD", "DINGTALK_SECRET", "HOOK_SECRET", "MAIL_PASSWORD"), "f")
PARTS = re.compile(r"_(bucket|sum|count)$")


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a page in one language."""
    text = page.read_text(encoding="utf-8")
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [block for named, block in found if named == language]


def family_of(name: str) -> str:
    return name if name in METRICS else PARTS.sub("", name)


def test_tables_of_settings_and_metrics_are_up_to_date(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build = runpy.run_path(str(ROOT / "docs/build.py"))
    assert build["main"](check=True) == 0, capsys.readouterr().err


def test_a_stale_or_missing_table_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build = runpy.run_path(str(ROOT / "docs/build.py"))
    build["main"].__globals__["DOCS"] = tmp_path
    page = tmp_path / "page.md"
    page.write_text("<!-- table log -->\n| old |\n<!-- end -->\n")
    assert build["main"](check=True) == 1
    told = capsys.readouterr().err
    assert "page.md is stale" in told
    assert "no page has the table ledger" in told
    build["main"](check=False)
    assert "| `level` | `info` |" in page.read_text()


def test_every_family_is_documented() -> None:
    page = (ROOT / "docs/metrics.md").read_text(encoding="utf-8")
    assert [name for name in METRICS if f"| `{name}` |" not in page] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_name_only_families_that_exist(page: Path) -> None:
    names = set(re.findall(r"\bci_[a-z_]+\b", page.read_text(encoding="utf-8")))
    assert {name for name in names if name not in METRICS and family_of(name) not in METRICS} == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8"))
    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []


def test_the_sample_of_the_readme_is_what_the_page_looks_like() -> None:
    (sample,) = [block for block in blocks(ROOT / "README.md", "") if block.startswith("ci_")]
    lines = [line for family in text_string_to_metric_families(sample) for line in family.samples]
    assert len(lines) == 5
    for line in lines:
        labels = tuple(label for label in line.labels if label != "le")
        assert labels == METRICS[family_of(line.name)].labels


def test_the_commands_of_the_readme_are_those_that_exist() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `build-exporter (\w+)`", readme, re.MULTILINE)) == set(commands.commands)


def test_the_example_configuration_loads() -> None:
    config = load(ROOT / "config.example.yaml", TOKENS)
    assert [server.name for server in config.servers] == ["drone", "old-drone"]


def test_the_example_configuration_loads_with_all_that_it_leaves_out(tmp_path: Path) -> None:
    lines = (ROOT / "config.example.yaml").read_text(encoding="utf-8").splitlines()
    whole = [re.sub(r"^# (?=[a-z]+:$|  )", "", line) for line in lines]
    (tmp_path / "web.yaml").touch()
    (tmp_path / "config.yaml").write_text("\n".join(whole))
    config = load(tmp_path / "config.yaml", TOKENS)
    assert [server.name for server in config.servers] == ["drone", "old-drone", "woodpecker", "abf"]
    assert config.metrics.disable == ("ci_step_duration_seconds",)
    assert [target.name for target in config.notify.targets] == [
        "team",
        "ding",
        "ops",
        "program",
        "alertmanager",
    ]
    assert config.web.config_file == tmp_path / "web.yaml"
    assert config.hooks.alertmanager is not None
    assert [hook.server for hook in config.hooks.drone] == ["drone"]


@pytest.mark.parametrize("name", ["README.md", "docs/configuration.md", "docs/hooks.md"])
def test_configurations_of_the_pages_load(name: str, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret")
    found = [block for block in blocks(ROOT / name, "yaml") if block.startswith("servers:")]
    for block in found:
        (tmp_path / "config.yaml").write_text(re.sub(r"/run/secrets/\w+", "token", block))
        assert load(tmp_path / "config.yaml", {}).servers[0].name == "drone"
    assert found


@pytest.mark.parametrize("dialect", sorted(DIALECTS - {"auto"}))
def test_every_kind_of_server_has_a_page_whose_configurations_load(dialect: str, tmp_path: Path) -> None:
    page = ROOT / f"docs/servers/{dialect}.md"
    text = page.read_text(encoding="utf-8")
    assert f"`dialect: {dialect}`" in text
    assert re.findall("^## (.+)$", text, re.MULTILINE) == [
        "Token",
        "Configuration",
        "What is read, and at what cost",
        "What cannot be seen",
        "What you may meet",
    ]
    (tmp_path / "secret").write_text("secret")
    found = blocks(page, "yaml")
    for block in found:
        (tmp_path / "config.yaml").write_text(re.sub(r"/run/secrets/\w+", "secret", block))
        assert len(load(tmp_path / "config.yaml", {}).servers) == 1
    assert found


def test_readme_and_index_lead_to_every_kind_of_server() -> None:
    pages = {path.name for path in ROOT.glob("docs/servers/*.md")}
    assert pages == {f"{dialect}.md" for dialect in DIALECTS - {"auto"}}
    for name in ("README.md", "docs/configuration.md"):
        text = (ROOT / name).read_text(encoding="utf-8")
        assert set(re.findall(r"servers/([\w.-]+\.md)", text)) == pages, name


@needs("promtool")
def test_queries_of_the_pages_are_valid(tmp_path: Path) -> None:
    queries = [query for page in PAGES for query in blocks(page, "promql")]
    rules = [{"record": f"question:{place}", "expr": query} for place, query in enumerate(queries)]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "pages", "rules": rules}]}))
    command = [str(path_of("promtool")), "check", "rules", str(tmp_path / "rules.yaml")]
    checked = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert checked.returncode == 0, checked.stderr
    assert f"{len(queries)} rules found" in checked.stdout


@needs("promtool")
@pytest.mark.parametrize("name", ["README.md", "docs/opening.md"])
def test_scrape_configurations_of_the_pages_are_valid(name: str, tmp_path: Path) -> None:
    snippets = [block for block in blocks(ROOT / name, "yaml") if block.startswith("scrape_configs:")]
    trustme.CA().issue_cert("exporter").cert_chain_pems[0].write_to_path(str(tmp_path / "any.crt"))
    for snippet in snippets:
        (tmp_path / "prometheus.yml").write_text(re.sub(r"[\w-]+\.(crt|key|password)", "any.crt", snippet))
        command = [str(path_of("promtool")), "check", "config", str(tmp_path / "prometheus.yml")]
        checked = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
        assert checked.returncode == 0, checked.stderr
    assert snippets


def test_web_configurations_of_the_pages_load(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "prometheus-ca.crt"))
    certificate = authority.issue_cert("exporter")
    certificate.cert_chain_pems[0].write_to_path(str(tmp_path / "exporter.crt"))
    certificate.private_key_pem.write_to_path(str(tmp_path / "exporter.key"))
    page = ROOT / "docs/opening.md"
    first, second = (block for block in blocks(page, "yaml") if block.startswith("tls_server_config:"))
    (tmp_path / "web.yaml").write_text(first)
    assert web_config.load(tmp_path / "web.yaml")[1] is not None
    (tmp_path / "web.yaml").write_text(second)
    assert list(web_config.load(tmp_path / "web.yaml")[0].users) == ["prometheus"]
