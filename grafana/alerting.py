"""Turns rule files for Prometheus into alerts that Grafana manages, as a file of Grafana's provisioning.

`python grafana/alerting.py --datasource UID ci.yaml > ci-rules.yaml` does it for rules with thresholds of
your own; what is checked in is made of the rules as they are shipped.
"""

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from exporter.rules import render

GRAFANA = Path(__file__).parent
PROVISIONED = GRAFANA / "provisioning/alerting/ci-rules.yaml"
DATASOURCE = "prometheus"
"""The uid of the data source in provisioning/datasources/."""
FOLDER = "CI"
LONGEST_UID = 40
OPTED_IN = {"CIBranchRed"}
ANY_SERIES = "is_number($A) || is_nan($A) || is_inf($A)"
"""True of every series that the query returns, also of a value of 0."""
HEAD = """\
# Alert rules of build-exporter for people whose alerts live in Grafana: made of the rules for Prometheus by
# grafana/alerting.py. Do not edit; docs/alert-rules.md says how to change thresholds.
"""


def files() -> dict[Path, str]:
    """The rule files that are shipped, and what Grafana makes of them, by their paths."""
    rules = render()
    written = {GRAFANA / "rules" / name: text for name, text in rules.items()}
    return written | {PROVISIONED: provisioning(list(rules.values()), DATASOURCE)}


def provisioning(rule_files: Sequence[str], datasource: str) -> str:
    """Rule files for Prometheus as one file for Grafana, which asks the data source of this uid."""
    groups = [group for text in rule_files for group in yaml.safe_load(text)["groups"]]
    content = {"apiVersion": 1, "groups": [_group(group, datasource) for group in groups]}
    return HEAD + yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10_000)


def _group(group: dict[str, Any], datasource: str) -> dict[str, Any]:
    return {
        "orgId": 1,
        "name": group["name"],
        "folder": FOLDER,
        "interval": group.get("interval", "1m"),
        "rules": [_rule(rule, datasource) for rule in group["rules"]],
    }


def _rule(rule: dict[str, Any], datasource: str) -> dict[str, Any]:
    query = {"refId": "A", "expr": rule["expr"], "instant": True, "range": False}
    condition = {"refId": "B", "type": "math", "expression": ANY_SERIES}
    return {
        "uid": uid(rule["alert"]),
        "title": rule["alert"],
        "condition": "B",
        "data": [_data("A", datasource, query), _data("B", "__expr__", condition)],
        "noDataState": "OK",
        "execErrState": "Error",
        "for": rule["for"],
        "labels": dict(rule["labels"]),
        "annotations": {name: annotation(text) for name, text in rule["annotations"].items()},
        "isPaused": rule["alert"] in OPTED_IN,
    }


def _data(ref: str, datasource: str, model: dict[str, Any]) -> dict[str, Any]:
    span = {"from": 600, "to": 0}
    source = {"type": "__expr__" if datasource == "__expr__" else "prometheus", "uid": datasource}
    model = {**model, "datasource": source}
    return {"refId": ref, "relativeTimeRange": span, "datasourceUid": datasource, "model": model}


def uid(alert: str) -> str:
    """A name that stays the same: CIBuildStuck is ci-build-stuck."""
    words = re.findall(r"^CI|[A-Z][a-z]+", alert)
    made = "-".join(words).lower()
    if len(made) > LONGEST_UID:
        raise ValueError(f"{made}: a uid has at most {LONGEST_UID} characters")
    return made


def annotation(text: str) -> str:
    """A template of Prometheus as one of Grafana, where the value of the query has another name."""
    return re.sub(r"\$value\b", "$values.A.Value", text)


class _Dumper(yaml.SafeDumper):
    """Writes texts of more than one line as they are."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def main(arguments: Sequence[str]) -> Iterator[str]:
    """What the command prints."""
    parser = argparse.ArgumentParser(description="Rule files for Prometheus as alerts that Grafana manages.")
    parser.add_argument("--datasource", default=DATASOURCE, metavar="UID", help="uid of the data source")
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="rule files for Prometheus")
    wanted = parser.parse_args(arguments)
    yield provisioning([path.read_text(encoding="utf-8") for path in wanted.files], wanted.datasource)


if __name__ == "__main__":
    sys.stdout.writelines(main(sys.argv[1:]))
