"""The alert rules as they are shipped."""

from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent
GRAFANA = ROOT / "grafana"
SHIPPED = [GRAFANA / "rules/ci.yaml", GRAFANA / "rules/optional/ci-red-branch.yaml"]
TESTS = {path.stem: path for path in sorted((GRAFANA / "rules/tests").glob("*.yaml"))}
"""The unit tests of promtool, by the name of the alert."""


def rules_of(*paths: Path) -> list[dict[str, Any]]:
    """Every rule of these files."""
    files = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in paths]
    return [rule for file in files for group in file["groups"] for rule in group["rules"]]


RULES = rules_of(*SHIPPED)
NAMES = [rule["alert"] for rule in RULES]
