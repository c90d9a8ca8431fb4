"""Writes the alert rules as a PrometheusRule; `--check` only says whether it is stale.

`python deploy/prometheus_rule.py ci.yaml` prints rules with thresholds of your own as one.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from textwrap import indent

from exporter.rules import CI, render

MANIFEST = Path(__file__).parent / "kubernetes/prometheus-operator/prometheusrule.yaml"
HEAD = """\
# The alert rules of build-exporter, made by deploy/prometheus_rule.py. Do not edit; docs/deployment.md says
# how to change thresholds.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: build-exporter
  labels: {app.kubernetes.io/name: build-exporter}
spec:
"""


def manifest(rules: str) -> str:
    """A rule file for Prometheus as a PrometheusRule, its comments kept."""
    _, begin, groups = rules.rpartition("\ngroups:\n")
    return HEAD + indent(begin.lstrip() + groups, "  ")


def main(arguments: Sequence[str]) -> int:
    """Bring the manifest up to date, or (`--check`) say that it is stale and return 1."""
    parser = argparse.ArgumentParser(description="Alert rules for Prometheus as a PrometheusRule.")
    parser.add_argument("--check", action="store_true", help="write nothing, fail if the manifest is stale")
    parser.add_argument(
        "file", nargs="?", type=Path, metavar="FILE", help="print what this rule file becomes"
    )
    wanted = parser.parse_args(arguments)
    if wanted.file:
        try:
            rules = wanted.file.read_text(encoding="utf-8")
        except OSError as error:
            parser.error(f"{wanted.file}: cannot be read: {error.strerror}")
        sys.stdout.write(manifest(rules))
        return 0
    text = manifest(render()[CI])
    if MANIFEST.exists() and MANIFEST.read_text(encoding="utf-8") == text:
        return 0
    if wanted.check:
        sys.stderr.write(f"{MANIFEST.name} is stale: run `make docs`\n")
        return 1
    MANIFEST.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
