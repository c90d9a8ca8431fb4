"""Writes the tables of docs/ from settings, metrics and alert rules; `--check` only says which are stale.

A table stands between `<!-- table NAME -->` and `<!-- end -->`; the rest of a page is written by hand.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import yaml

from exporter.config import Config
from exporter.config_errors import keys, types
from exporter.filters import Settings
from exporter.metrics import METRICS, Group
from exporter.model import Status
from exporter.rules import parameters, render

DOCS = Path(__file__).parent
RUNBOOKS = DOCS / "runbooks"
LISTS = {"servers", "targets", "routes", "quiet_hours", "deployments", "drone"}
"""Keys that hold a list of mappings."""
TABLE = re.compile(r"(<!-- table (.+?) -->\n).*?(<!-- end -->)", re.DOTALL)


def setting_tables(model: type[Settings], path: str) -> Iterator[tuple[str, str]]:
    """The table of a mapping of the configuration file, by its path, and those of the mappings in it."""
    rows = ["| key | default | meaning |", "|---|---|---|"]
    for key, about, below in keys(model):
        within = f"{path}.{key}".removeprefix(".") + ("[]" if key in LISTS else "")
        for inner in below:
            yield from setting_tables(inner, " ".join((within, *types(inner))))
        default = "required" if about.is_required() else shown(about.get_default(call_default_factory=True))
        rows.append(f"| `{key}` | {default} | {' '.join(str(about.description).split())} |")
    yield path or "file", "\n".join(rows)


def shown(default: object) -> str:
    match default:
        case None | "" | dict() | Settings():
            return ""
        case bool():
            return f"`{default}`".lower()
        case float():
            return f"`{default:g}`"
        case tuple():
            return f"`[{', '.join(repr(item) for item in default)}]`".replace("'", '"')
        case _:
            return f"`{default}`"


def metric_tables() -> Iterator[tuple[str, str]]:
    """One table of families for each group."""
    for group in Group:
        rows = ["| family | type | labels | meaning |", "|---|---|---|---|"]
        for metric in METRICS.values():
            if metric.group is group:
                labels = ", ".join(f"`{label}`" for label in metric.labels)
                bounds = " ".join(f"{bound:g}" for bound in metric.buckets)
                buckets = f" Buckets: {bounds}." if bounds else ""
                rows.append(f"| `{metric.name}` | {metric.type} | {labels} | {metric.help}{buckets} |")
        yield str(group), "\n".join(rows)


def status_table() -> Iterator[tuple[str, str]]:
    rows = ["| code | status | finished | counts as |", "|---|---|---|---|"]
    for status in Status:
        if status is Status.UNKNOWN:
            finished, kind = "once it has an end time", "nothing"
        elif status.open:
            finished, kind = "no", ""
        else:
            finished, kind = "yes", "good" if status is Status.SUCCESS else "bad" if status.bad else "neutral"
        rows.append(f"| {status.value} | `{status.word}` | {finished} | {kind} |")
    yield "statuses", "\n".join(rows)


def rule_tables() -> Iterator[tuple[str, str]]:
    """Every alert with the first sentence of its runbook, and what can be set in the rules."""
    rows = ["| alert | severity | after | when |", "|---|---|---|---|"]
    for text in render().values():
        for rule in (rule for group in yaml.safe_load(text)["groups"] for rule in group["rules"]):
            name, page = rule["alert"], RUNBOOKS / f"{rule['alert']}.md"
            meaning = page.read_text(encoding="utf-8").split("## Meaning\n\n")[1]
            sentence = " ".join(re.split(r"\.\s", meaning, maxsplit=1)[0].split())
            about = f"{rule['labels']['severity']} | {rule['for']} | {sentence}."
            rows.append(f"| [{name}](runbooks/{name}.md) | {about} |")
    yield "alerts", "\n".join(rows)
    rows = ["| name | default | meaning |", "|---|---|---|"]
    for parameter in parameters().values():
        default = f"`{parameter.default}`" if parameter.default else ""
        rows.append(f"| `{parameter.name}` | {default} | {parameter.meaning} |")
    yield "rule parameters", "\n".join(rows)


def main(check: bool) -> int:
    """Bring every page up to date, or (`check`) name the stale ones and return 1."""
    tables = dict((*setting_tables(Config, ""), *metric_tables(), *status_table(), *rule_tables()))
    unused, stale = set(tables), False
    for page in sorted(DOCS.glob("*.md")):
        old = page.read_text(encoding="utf-8")
        unused -= {name for _, name, _ in TABLE.findall(old)}
        new = TABLE.sub(lambda found: f"{found[1]}{tables[found[2]]}\n{found[3]}", old)
        if new != old and check:
            print(f"{page.name} is stale: run `make docs`", file=sys.stderr)
            stale = True
        elif new != old:
            page.write_text(new, encoding="utf-8")
    for name in sorted(unused):
        print(f"no page has the table {name}", file=sys.stderr)
    return 1 if stale or unused else 0


if __name__ == "__main__":
    sys.exit(main(check="--check" in sys.argv[1:]))
