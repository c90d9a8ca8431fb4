"""promtool finds nothing wrong with the alert rules, and a unit test of theirs finds every fault planted."""

import subprocess
from pathlib import Path

import pytest
import yaml
from alerts import NAMES, ROOT, RULES, SHIPPED, TESTS
from mutants import Mutant, mutants, passing, survivors
from programs import needs, path_of

from exporter.rules import CI, RED_BRANCH, render

PLANTED = [mutant for rule in RULES for mutant in mutants(rule)]


def check_rules(*files: Path) -> subprocess.CompletedProcess[str]:
    command = [str(path_of("promtool")), "check", "rules", *map(str, files)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


@needs("promtool")
def test_the_shipped_rules_are_valid() -> None:
    checked = check_rules(*SHIPPED)
    assert checked.returncode == 0, checked.stderr
    assert f"{len(RULES) - 1} rules found" in checked.stdout


@needs("promtool")
def test_rules_with_other_values_are_valid(tmp_path: Path) -> None:
    settings = {
        "selector": r'server=~"prod|a\\.b{1,}",job!=""',
        "exporter.selector": 'job="ci"',
        "red_branch.selector": "",
        "failure_ratio.threshold": "0.4",
        "queue_slow.window": "1h30m",
        "notifications_dead.for": "0s",
    }
    for place, (name, text) in enumerate(render(settings).items()):
        assert name in (CI, RED_BRANCH)
        (tmp_path / f"{place}.yaml").write_text(text)
    checked = check_rules(*tmp_path.glob("*.yaml"))
    assert checked.returncode == 0, checked.stderr


@needs("promtool")
def test_the_unit_tests_pass() -> None:
    command = [str(path_of("promtool")), "test", "rules", *map(str, TESTS.values())]
    tested = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert tested.returncode == 0, tested.stderr


@pytest.mark.parametrize("name", NAMES)
def test_unit_tests_compare_annotations(name: str) -> None:
    tests = yaml.safe_load(TESTS[name].read_text(encoding="utf-8"))["tests"]
    expected = [
        alert for test in tests for case in test.get("alert_rule_test", ()) for alert in case["exp_alerts"]
    ]
    assert expected
    assert all(len(alert["exp_annotations"]) == 4 for alert in expected)


def test_faults_of_every_kind_are_planted() -> None:
    faults = [mutant.fault for mutant in PLANTED]
    for kind in (
        "without last_over_time",
        "without and ",
        "without or",
        "without unless",
        " is >=",
        " is <",
        "for ",
    ):
        assert sum(kind in fault for fault in faults) > 5, kind
    assert "10 is 9" in faults
    assert 'ci_builds_total without status="error"' in faults
    assert len({mutant.rule["alert"] for mutant in PLANTED}) == len(RULES)
    for mutant in PLANTED:
        (original,) = (rule for rule in RULES if rule["alert"] == mutant.rule["alert"])
        assert mutant.rule != original


@needs("promtool")
def test_every_planted_fault_is_valid(tmp_path: Path) -> None:
    groups = [
        {"name": str(place), "rules": [dict(mutant.rule)]} for place, mutant in enumerate(PLANTED)
    ]  # a group each, for two faults may look alike
    (tmp_path / "mutants.yaml").write_text(yaml.safe_dump({"groups": groups}))
    checked = check_rules(tmp_path / "mutants.yaml")
    assert checked.returncode == 0, checked.stderr


@needs("promtool")
def test_a_unit_test_finds_every_planted_fault(tmp_path: Path) -> None:
    assert [str(mutant) for mutant in survivors(TESTS, PLANTED, tmp_path)] == []


@needs("promtool")
def test_a_fault_that_changes_nothing_survives(tmp_path: Path) -> None:
    (rule,) = (rule for rule in RULES if rule["alert"] == "CINotificationsDead")
    mutant = Mutant("more brackets", {**rule, "expr": f"({rule['expr']})"})
    assert survivors(TESTS, [mutant], tmp_path) == [mutant]
    assert passing([str(TESTS["CINotificationsDead"])]) == [str(TESTS["CINotificationsDead"])]


@needs("amtool")
def test_the_inhibition_of_the_pages_is_one_that_alertmanager_takes(tmp_path: Path) -> None:
    page = (ROOT / "docs/alert-rules.md").read_text(encoding="utf-8")
    snippet = page[page.index("inhibit_rules:") :].split("```")[0]
    told = SHIPPED[1].read_text(encoding="utf-8").replace("#   ", "")
    assert snippet in told
    config = yaml.safe_load(snippet) | {"route": {"receiver": "team"}, "receivers": [{"name": "team"}]}
    (tmp_path / "alertmanager.yml").write_text(yaml.safe_dump(config))
    command = [str(path_of("amtool")), "check-config", str(tmp_path / "alertmanager.yml")]
    checked = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert checked.returncode == 0, checked.stderr
    assert "1 inhibit rules" in checked.stdout
