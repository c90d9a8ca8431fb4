"""Alert rules name what exists and say what is needed, can be set, and are the same for Grafana."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import alerting
import click
import promql_parser as promql
import pytest
import yaml
from alerts import GRAFANA, NAMES, ROOT, RULES, SHIPPED, TESTS, rules_of
from click.testing import CliRunner
from dashboards import boards, labels_of
from hypothesis import given
from hypothesis import strategies as st
from promql import read

from exporter.cli.commands import commands
from exporter.rules import CI, RED_BRANCH, RulesError, parameters, render

BOARDS = {board["uid"]: board for board in boards()}
RUNBOOKS = ROOT / "docs/runbooks"
ANNOTATIONS = {"summary", "description", "runbook_url", "dashboard_url"}


def selectors(expr: str) -> Iterator[promql.VectorSelector]:
    nodes: list[promql.Expr] = []
    promql.walk(promql.parse(expr), None, nodes.append)
    return (node for node in nodes if isinstance(node, promql.VectorSelector))


def rules_printed(*arguments: str) -> str:
    done = CliRunner().invoke(commands, ["rules", *arguments], standalone_mode=False)
    assert done.exception is None
    assert done.return_value == 0, done.output
    return done.output


def refused(*arguments: str) -> str:
    """What is said of arguments that cannot be followed: one line on standard error, exit code 2."""
    done = CliRunner().invoke(commands, ["rules", *arguments], standalone_mode=False)
    assert (done.return_value, done.stdout) == (2, "")
    assert done.stderr.startswith("build-exporter: --set ")
    assert done.stderr.count("\n") == 1
    return done.stderr.removeprefix("build-exporter: --set ").rstrip("\n")


def test_what_is_checked_in_is_what_is_printed() -> None:
    assert rules_printed() == SHIPPED[0].read_text(encoding="utf-8")
    assert rules_printed("--red-branch") == SHIPPED[1].read_text(encoding="utf-8")
    for path, text in alerting.files().items():
        assert path.read_text(encoding="utf-8") == text, f"{path} is stale: run `make docs`"


@pytest.mark.parametrize("rule", RULES, ids=NAMES)
def test_every_alert_has_what_a_reader_needs(rule: dict[str, dict[str, str]]) -> None:
    name, annotations = rule["alert"], rule["annotations"]
    assert set(annotations) == ANNOTATIONS
    assert all(annotations.values())
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    assert annotations["runbook_url"] == f"docs/runbooks/{name}.md"
    address = re.fullmatch(r"http://localhost:3000/d/([a-z-]+)(?:\?(.+))?", annotations["dashboard_url"])
    assert address
    variables = [one["name"] for one in BOARDS[address[1]]["templating"]["list"]]
    chosen = dict(choice.split("=") for choice in (address[2] or "").split("&") if choice)
    for variable, value in chosen.items():
        assert variable.removeprefix("var-") in variables
        assert value == f"{{{{ $labels.{variable.removeprefix('var-')} | urlquery }}}}"
    used = set(re.findall(r"\$labels\.(\w+)", " ".join(annotations.values())))
    grouped = set(re.findall(r"(?:by|group_left|on) \(([^)]*)\)", str(rule["expr"])))
    assert used <= {label.strip() for labels in grouped for label in labels.split(",")}


@pytest.mark.parametrize("rule", RULES, ids=NAMES)
def test_every_family_and_label_of_an_expression_exists(rule: dict[str, str]) -> None:
    assert read(rule["expr"], labels_of).faults == []


def test_every_alert_has_a_runbook_and_a_unit_test_and_neither_is_left_over() -> None:
    assert len(set(NAMES)) == len(NAMES)
    assert {page.stem for page in RUNBOOKS.glob("*")} == set(NAMES)
    assert set(TESTS) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_runbook_says_what_to_do_with_what_exists(name: str) -> None:
    text = (RUNBOOKS / f"{name}.md").read_text(encoding="utf-8")
    assert re.findall(r"^#+ (.*)$", text, re.MULTILINE) == [
        name, "Meaning", "Impact", "Diagnosis", "Mitigation",
    ]  # fmt: skip
    queries = re.findall(r"^```promql\n(.*?)\n```$", text, re.DOTALL | re.MULTILINE)
    named = re.findall(r"(?:^|`)(build-exporter \w[^\n`]*)", text, re.MULTILINE)
    assert queries
    assert named
    for query in queries:
        assert all(labels_of(str(one.name)) is not None for one in selectors(query)), query
    for command in named:
        expect_command(command)
    for family in re.findall(r"\bci_\w+", text):
        assert labels_of(family) is not None, family
    for link in re.findall(r"\]\(([^)#]+)", text):
        assert (RUNBOOKS / link).exists(), link
    for parameter in re.findall(r"[`']([a-z_]+\.[a-z_]+)[`=]", text):
        assert parameter in parameters(), parameter


def expect_command(line: str) -> None:
    """Fails where the command of a page, or one of its options, does not exist."""
    command: click.Command = commands
    for word in line.split()[1:]:
        if isinstance(command, click.Group):
            assert word in command.commands, line
            command = command.commands[word]
        elif word.startswith("--"):
            assert word in {option for one in command.params for option in one.opts}, line
    assert not isinstance(command, click.Group), line


def test_a_command_or_option_that_does_not_exist_is_found() -> None:
    for line in (
        "build-exporter build show a 1",
        "build-exporter builds shew a 1",
        "build-exporter builds list a --brunch b",
    ):
        with pytest.raises(AssertionError):
            expect_command(line)


def test_thresholds_durations_severities_and_matchers_can_be_set() -> None:
    text = rules_printed(
        "--set", "failure_ratio.threshold=0.4",
        "--set", "failure_ratio.for = 1h30m",
        "--set", "failure_ratio.severity=critical",
        "--set", 'selector=server="prod",',
        "--set", 'flaky.selector=branch=~"ma{1,}in.{2}|",repo!="{}"',
        "--set", 'exporter.selector=job="ci"',
        "--set", "grafana=https://grafana.example.com/ci",
    )  # fmt: skip
    rules = {rule["alert"]: rule for group in yaml.safe_load(text)["groups"] for rule in group["rules"]}
    ratio = rules["CIFailureRatioHigh"]
    assert "> 0.4\n" in ratio["expr"]
    assert (ratio["for"], ratio["labels"]["severity"]) == ("1h30m", "critical")
    assert 'event!="pull_request"' in ratio["expr"]
    assert ratio["annotations"]["dashboard_url"].startswith("https://grafana.example.com/ci/d/ci-repository?")
    assert '{server="prod",branch=~"ma{1,}in.{2}|",repo!="{}"}' in rules["CIBuildsFlaky"]["expr"]
    for rule in rules.values():
        for selector in selectors(rule["expr"]):
            matchers = {str(matcher) for matcher in selector.matchers.matchers}
            of_server = "server" in (labels_of(str(selector.name)) or ())
            wanted = 'server="prod"' if of_server else 'job="ci"'
            assert wanted in matchers or selector.name == "up", f"{rule['alert']}: {selector}"


def test_every_parameter_changes_the_rules() -> None:
    shipped = render()
    other = {"severity": "info", "for": "42m", "selector": 'job="other"'}
    for name, parameter in parameters().items():
        kind = name.rpartition(".")[2].rpartition("_")[2]
        if kind in other:
            value = other[kind] if parameter.default != other[kind] else "warning"
        elif re.fullmatch(r"[0-9]+[mhd]", parameter.default):
            value = "43m"
        else:
            value = "https://example.com" if name in ("grafana", "runbooks") else "0.043"
        changed = render({name: value})
        assert changed != shipped, name
        assert any(value in text for text in changed.values())


DURATION = "no duration: write it like 90s, 15m, 6h or 1d12h"
NUMBER = "no number that is 0 or more: write it like 0.4 or 20"
NEVER = (
    "no ratio of failed builds is above 1, so this alert can never fire: "
    "lower error_budget.budget or the burn rate"
)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("failure_ratio.threshold", "40%", NUMBER),
        ("failure_ratio.threshold", "-1", NUMBER),
        ("failure_ratio.threshold", "nan", NUMBER),
        ("failure_ratio.for", "soon", DURATION),
        ("failure_ratio.for", "5m1h", DURATION),
        ("failure_ratio.for", "", DURATION),
        ("failure_ratio.for", "2d400w", DURATION),
        ("failure_ratio.window", "0m", DURATION),
        ("failure_ratio.window", "53w", DURATION),
        ("flaky.severity", "page", "no severity: write one of critical, warning, info"),
        ("selector", "prod", 'no list of label matchers: write it like server="prod",repo=~"acme/.*"'),
        ("selector", 'a="b" c="d"', 'no list of label matchers: a comma is missing before c="d"'),
        ("selector", 'a=~"("', 'not valid: "(" is no regular expression of Prometheus (RE2)'),
        ("selector", 'a=~"(?!b)"', 'not valid: "(?!b)" is no regular expression of Prometheus (RE2)'),
        ("selector", 'a="\x07"', "no list of label matchers: it has characters that cannot be seen"),
        ("runbooks", "https://a b", "no address: write it like https://grafana.example.com"),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused(name: str, value: str, said: str) -> None:
    assert refused("--set", f"{name}={value}") == f"{name}: {value!r} is {said}"


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("failure_ratio.treshold=1", "there is no such parameter: did you mean failure_ratio.threshold?"),
        ("zzz=1", "there is no such parameter: `build-exporter rules --list` shows all"),
        ("flaky.commits", "write NAME=VALUE"),
        ("failure_ratio.threshold=1", "no ratio is above 1: write it like 0.4"),
        ("error_budget.fast_burn=20", f"20 times a budget of 0.05 is 1: {NEVER}"),
        ("error_budget.slow_burn=144", f"144 times a budget of 0.05 is 7.2: {NEVER}"),
    ],
)
def test_what_makes_no_working_rule_is_refused(setting: str, said: str) -> None:
    assert refused("--set", setting) == f"{setting.partition('=')[0]}: {said}"


def test_a_budget_and_a_burn_rate_that_fit_each_other_are_taken() -> None:
    assert "> 14.4 * 0.05\n" in rules_printed("--set", "error_budget.fast_burn=14.4")
    assert "error_budget.fast_burn: 10 times a budget of 0.1 is 1" in refused(
        "--set", "error_budget.budget=0.1"
    )


MATCHERS = st.builds(
    "{}{}{}".format,
    st.sampled_from(("server", "repo", "1x", "")),
    st.sampled_from(("=", "!=", "=~", "!~", "==")),
    st.text(max_size=10).flatmap(lambda text: st.sampled_from((json.dumps(text), f'"{text}"', text))),
)


@given(name=st.sampled_from(list(parameters())), value=st.text(max_size=30) | MATCHERS)
def test_whatever_is_set_is_refused_or_stays_in_its_place(name: str, value: str) -> None:
    try:
        files = render({name: value})
    except RulesError as error:
        assert "\n" not in str(error)  # noqa: PT017
        return
    for file, path in ((CI, SHIPPED[0]), (RED_BRANCH, SHIPPED[1])):
        made = [rule for group in yaml.safe_load(files[file])["groups"] for rule in group["rules"]]
        assert [rule["alert"] for rule in made] == [rule["alert"] for rule in rules_of(path)]
        for rule in made:
            promql.parse(rule["expr"])


def test_the_list_shows_every_parameter() -> None:
    text = rules_printed("--list")
    assert [name for name in parameters() if f" {name} " not in text] == []


def test_grafana_has_the_same_rules() -> None:
    content = yaml.safe_load((GRAFANA / "provisioning/alerting/ci-rules.yaml").read_text(encoding="utf-8"))
    assert content["apiVersion"] == 1
    managed = {rule["title"]: rule for group in content["groups"] for rule in group["rules"]}
    assert list(managed) == NAMES
    uids = [rule["uid"] for rule in managed.values()]
    assert len(set(uids)) == len(uids)
    for rule in RULES:
        made = managed[rule["alert"]]
        assert re.fullmatch(r"ci(-[a-z]+){2,}", made["uid"])
        assert len(made["uid"]) <= 40
        assert made["uid"].replace("-", "") == rule["alert"].lower()
        query, condition = made["data"]
        assert query["model"]["expr"] == rule["expr"]
        assert (query["refId"], query["model"]["instant"]) == ("A", True)
        assert query["datasourceUid"] == query["model"]["datasource"]["uid"] == "prometheus"
        assert (condition["refId"], condition["datasourceUid"]) == ("B", "__expr__")
        assert condition["model"]["type"] == "math"
        assert condition["model"]["expression"] == "is_number($A) || is_nan($A) || is_inf($A)"
        assert made["condition"] == "B"
        assert (made["noDataState"], made["execErrState"]) == ("OK", "Error")
        assert (made["for"], made["labels"]) == (rule["for"], rule["labels"])
        assert made["isPaused"] == (rule["alert"] == "CIBranchRed")
        for name, text in rule["annotations"].items():
            assert made["annotations"][name].replace("$values.A.Value", "$value") == text
            assert not re.search(r"\$value\b", made["annotations"][name])


def test_grafana_takes_other_thresholds_and_another_data_source(tmp_path: Path) -> None:
    file = tmp_path / "ci.yaml"
    file.write_text(rules_printed("--set", "failure_ratio.threshold=0.4"))
    content = yaml.safe_load("".join(alerting.main(["--datasource", "mine", str(file)])))
    rules = {rule["title"]: rule for group in content["groups"] for rule in group["rules"]}
    assert "> 0.4\n" in rules["CIFailureRatioHigh"]["data"][0]["model"]["expr"]
    assert {rule["data"][0]["datasourceUid"] for rule in rules.values()} == {"mine"}
    with pytest.raises(ValueError, match="at most 40"):
        alerting.uid("CI" + "Long" * 10)
