"""The alert rules for Prometheus, made from the templates in rules.yaml beside this module."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.resources import files
from math import isfinite

import yaml

CI = "ci.yaml"
"""The file with every alert but the one that is opted in to."""
RED_BRANCH = "optional/ci-red-branch.yaml"
SELECTOR = "selector"
SEVERITIES = ("critical", "warning", "info")

_PLACE = re.compile(r"([{,]?)\$\{([a-z_.]+)\}(\}?)")
_DURATION = re.compile("(?=.)" + "".join(f"(?:([0-9]{{1,6}}){unit})?" for unit in "wdhms"))
_SECONDS = (604_800, 86_400, 3600, 60, 1)
_LONGEST = 366 * 86_400
_STRING = r'"(?:[^"\\]|\\[abfnrtv\\"])*"'
_MATCHER = re.compile(rf"([a-zA-Z_][a-zA-Z0-9_]*)\s*(=~|!~|!=|=)\s*({_STRING})")
_NOT_RE2 = re.compile(r"\(\?(?:[=!(#>]|<[=!])|\\[1-9]|[*+?}]\+")
"""What Python's regular expressions have and those of Prometheus have not."""
_ADDRESS = re.compile(r"(https?://)?[\w.:~%@/-]+")


class RulesError(ValueError):
    """A parameter that does not exist, or a value that makes no working rule; says what to do."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """What can be set in the rules, by its name; `default` as it is written."""

    name: str
    default: str
    meaning: str


def parameters() -> dict[str, Parameter]:
    """Every parameter by its name, in the order of the rules."""
    table = yaml.safe_load(_documents()[0])
    return {name: Parameter(name, str(default), meaning) for name, (default, meaning) in table.items()}


def render(settings: Mapping[str, str] | None = None) -> dict[str, str]:
    """The rule files by their names below grafana/rules/; `settings`: values of parameters, as written.

    Raises `RulesError`.
    """
    known = parameters()
    values = {name: parameter.default for name, parameter in known.items()}
    for name, value in (settings or {}).items():
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else "`build-exporter rules --list` shows all"
            raise RulesError(f"{name}: there is no such parameter: {hint}")
        values[name] = value.strip().removesuffix(",")
        wrong = _wrong(known[name], values[name])
        if wrong:
            raise RulesError(f"{name}: {value!r} is {wrong}")
    _expect_alerts(values)
    for name, value in values.items():
        if name.endswith(f".{SELECTOR}") and not name.startswith("exporter."):
            values[name] = ",".join(filter(None, (values[SELECTOR], value)))
    return dict(zip((CI, RED_BRANCH), (_filled(text, values) for text in _documents()[1:]), strict=True))


def _documents() -> list[str]:
    return (files(__name__) / "rules.yaml").read_text(encoding="utf-8").split("\n---\n")


def _filled(template: str, values: Mapping[str, str]) -> str:
    """A selector without matchers takes the comma before it along, or its braces."""

    def fill(place: re.Match[str]) -> str:
        before, name, after = place.groups()
        if name.endswith(SELECTOR) and not values[name]:
            return "" if before == "{" else after
        return f"{before}{values[name]}{after}"

    return _PLACE.sub(fill, template).rstrip("\n") + "\n"


def _wrong(parameter: Parameter, value: str) -> str:
    """Why this is no value of the parameter, whose kind its name and its default tell; empty if it is one."""
    kind = parameter.name.rpartition(".")[2]
    if kind == SELECTOR:
        return _wrong_matchers(value)
    if kind.endswith("severity"):
        return "" if value in SEVERITIES else f"no severity: write one of {', '.join(SEVERITIES)}"
    if _seconds(parameter.default) is not None:
        seconds = _seconds(value)
        if seconds is None or (seconds == 0 and not kind.endswith("for")):
            return "no duration: write it like 90s, 15m, 6h or 1d12h"
        return ""
    if _number(parameter.default) is not None:
        return "" if _number(value) is not None else "no number that is 0 or more: write it like 0.4 or 20"
    return "" if _ADDRESS.fullmatch(value) else "no address: write it like https://grafana.example.com"


def _number(text: str) -> float | None:
    if not re.fullmatch(r"[0-9]+(\.[0-9]+)?", text):
        return None
    number = float(text)
    return number if isfinite(number) else None


def _seconds(text: str) -> int | None:
    """How long a duration as Prometheus writes it is; None of what is none, or longer than a year."""
    found = _DURATION.fullmatch(text)
    if found is None:
        return None
    seconds = sum(int(count or 0) * unit for count, unit in zip(found.groups(), _SECONDS, strict=True))
    return seconds if seconds <= _LONGEST else None


def _wrong_matchers(text: str) -> str:
    if not text.isprintable():
        return "no list of label matchers: it has characters that cannot be seen"
    rest = text
    while rest:
        found = _MATCHER.match(rest)
        if not found:
            return """no list of label matchers: write it like server="prod",repo=~"acme/.*" """.rstrip()
        if found[2] in ("=~", "!~"):
            pattern = found[3][1:-1].replace(r"\\", "\\")
            if not _compiles(pattern):
                return f"not valid: {found[3]} is no regular expression of Prometheus (RE2)"
        rest = rest[found.end() :].lstrip()
        if rest and not rest.startswith(","):
            return f"no list of label matchers: a comma is missing before {rest}"
        rest = rest.removeprefix(",").lstrip()
    return ""


def _compiles(pattern: str) -> bool:
    try:
        re.compile(pattern)
    except re.error:
        return False
    return not _NOT_RE2.search(pattern)


def _expect_alerts(values: Mapping[str, str]) -> None:
    """Raises `RulesError` where a ratio would have to pass 1, which none does."""
    budget = float(values["error_budget.budget"])
    for pace in ("fast", "slow"):
        burn = float(values[f"error_budget.{pace}_burn"])
        if burn * budget >= 1:
            raise RulesError(
                f"error_budget.{pace}_burn: {burn:g} times a budget of {budget:g} is "
                f"{burn * budget:g}: no ratio of failed builds is above 1, so this alert can never fire: "
                "lower error_budget.budget or the burn rate"
            )
    if float(values["failure_ratio.threshold"]) >= 1:
        raise RulesError("failure_ratio.threshold: no ratio is above 1: write it like 0.4")
