"""Faults planted in alert rules one by one, and which of them the unit tests of `promtool` find."""

import re
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import promql_parser as promql
import yaml
from programs import path_of

Rule = Mapping[str, Any]
FLIPPED = {">": ("<", ">="), "<": (">", "<="), ">=": ("<=", ">"), "<=": (">=", "<"), "==": ("!=",)}
"""What each comparison is turned into: the other way round, and the boundary moved."""
PROCESSES = 2


@dataclass(frozen=True, slots=True)
class Mutant:
    """A rule with one fault; `fault` names it."""

    fault: str
    rule: Rule

    def __str__(self) -> str:
        return f"{self.rule['alert']}: {self.fault}"


def mutants(rule: Rule) -> Iterator[Mutant]:
    """Every fault of its expression and of its `for`."""
    expr = promql.parse(rule["expr"])
    for fault, mutated in _mutated(expr):
        yield Mutant(fault, {**rule, "expr": str(mutated)})
    for changed in _durations(rule["for"]):
        yield Mutant(f"for {rule['for']} is {changed}", {**rule, "for": changed})


def _durations(duration: str) -> tuple[str, ...]:
    minutes = int(promql.parse_duration(duration).total_seconds() / 60) if duration != "0m" else 0
    return (f"{2 * minutes}m", f"{minutes // 2}m") if minutes else ("2m",)


def _mutated(expr: promql.Expr) -> Iterator[tuple[str, promql.Expr]]:
    nodes: list[promql.Expr] = []
    promql.walk(expr, None, nodes.append)
    for place, node in enumerate(nodes):
        for fault, replacement in _faults(node):
            yield fault, promql.transform(expr, None, _at(place, replacement))


def _at(place: int, replacement: promql.Expr) -> Callable[[promql.Expr], promql.Expr | None]:
    visited = iter(range(1_000_000))
    return lambda _: replacement if next(visited) == place else None


def _faults(node: promql.Expr) -> Iterator[tuple[str, promql.Expr]]:
    match node:
        case promql.BinaryExpr():
            yield from _operator_faults(node)
        case promql.Call() if node.func.name == "last_over_time":
            yield f"without {node}", promql.parse(re.sub(r"\[\w+\]", "", str(node.args[0])))
        case promql.NumberLiteral():
            for value in _numbers(node.val):
                yield f"{node} is {value:g}", promql.parse(f"{value:g}")
        case promql.VectorSelector():
            for matcher in node.matchers.matchers:
                without = str(node).replace(str(matcher), "").replace(",,", ",").replace("{,", "{")
                yield f"{node.name} without {matcher}", promql.parse(without)


def _operator_faults(node: promql.BinaryExpr) -> Iterator[tuple[str, promql.Expr]]:
    operator = str(node.op)
    left, right = str(node.lhs), str(node.rhs)
    if operator in ("and", "unless", "or"):
        yield f"without {operator} {right}", node.lhs
    if operator == "or":
        yield f"without {left} or", node.rhs
    for other in FLIPPED.get(operator, ()):
        between = str(node)[len(left) : len(str(node)) - len(right)]
        flipped = f"({left}{between.replace(operator, other, 1)}{right})"
        yield f"{operator} {right} is {other}", promql.parse(flipped)


def _numbers(value: float) -> tuple[float, ...]:
    """Other thresholds: a step away where it counts something, else a tenth."""
    if value == 0:
        return (1.0,)
    step = 1.0 if value == int(value) and value < 20 else value / 10
    return value - step, value + step


def survivors(tests: Mapping[str, Path], planted: Sequence[Mutant], directory: Path) -> list[Mutant]:
    """The mutants that no test finds; `tests`: the test file of each alert."""
    files = {}
    for number, mutant in enumerate(planted):
        file = directory / f"{number}.test.yaml"
        rules = directory / f"{number}.rules.yaml"
        rules.write_text(yaml.safe_dump({"groups": [{"name": "mutant", "rules": [dict(mutant.rule)]}]}))
        text = tests[mutant.rule["alert"]].read_text(encoding="utf-8")
        file.write_text(re.sub(r"(?m)^rule_files: .*$", f"rule_files: [{rules.name}]", text))
        files[str(file)] = mutant
    shares = [list(files)[share::PROCESSES] for share in range(PROCESSES)]
    with ThreadPoolExecutor(PROCESSES) as pool:
        passed = [file for found in pool.map(passing, filter(None, shares)) for file in found]
    return [files[file] for file in passed]


def passing(files: Sequence[str]) -> list[str]:
    """Of these test files, those whose tests all pass."""
    command = [str(path_of("promtool")), "test", "rules", *files]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    told = re.split(r"(?m)^Unit Testing:\s+", done.stdout + done.stderr if not done.stdout else done.stdout)
    outcomes = {part.split("\n", 1)[0].strip(): part for part in told[1:]}
    assert set(outcomes) == set(files), done.stderr
    return [file for file in files if "SUCCESS" in outcomes[file]]
