"""What a PromQL query reads, and which labels its result has, found from its syntax tree alone."""

from collections.abc import Callable
from dataclasses import dataclass, field

import promql_parser as tree
from promql_parser import AggModifierType, LabelModifierType, VectorMatchCardinality

TARGET = frozenset({"job", "instance"})
"""Labels that Prometheus adds to whatever it scrapes."""
KEEPING = ("topk", "bottomk")
SETS = ("and", "unless")
SCALARS = ("time", "scalar")


@dataclass(slots=True)
class Reading:
    """`labels` are those of the result; `faults` name labels that are used and do not exist."""

    labels: frozenset[str] = frozenset()
    selectors: list[str] = field(default_factory=list)
    metrics: set[str] = field(default_factory=set)
    faults: list[str] = field(default_factory=list)


def read(query: str, labels_of: Callable[[str], frozenset[str] | None]) -> Reading:
    """`labels_of` answers the labels of a metric, None of one that does not exist. Raises `ValueError`."""
    reading = Reading()
    reading.labels = _Walk(reading, labels_of).labels(tree.parse(query)) or frozenset()
    return reading


@dataclass(frozen=True, slots=True)
class _Walk:
    reading: Reading
    labels_of: Callable[[str], frozenset[str] | None]

    def labels(self, node: object) -> frozenset[str] | None:
        """The labels that the result of this node can have; None of a scalar."""
        match node:
            case tree.VectorSelector():
                return self._selector(node)
            case tree.MatrixSelector():
                return self._selector(node.vector_selector)
            case tree.AggregateExpr():
                return self._aggregate(node)
            case tree.BinaryExpr():
                return self._binary(node)
            case tree.Call():
                return self._call(node)
            case tree.ParenExpr() | tree.UnaryExpr() | tree.SubqueryExpr():
                return self.labels(node.expr)
            case _:
                return None

    def _selector(self, node: tree.VectorSelector) -> frozenset[str]:
        name = node.name or ""
        matchers = node.matchers.matchers
        self.reading.metrics.add(name)
        self.reading.selectors.append(f"{name}{{{', '.join(str(matcher) for matcher in matchers)}}}")
        known = self.labels_of(name)
        if known is None:
            self.reading.faults.append(f"there is no metric {name}")
            return frozenset({matcher.name for matcher in matchers})
        self._expect({matcher.name for matcher in matchers}, known | TARGET, f"a matcher of {name}")
        return known | TARGET

    def _aggregate(self, node: tree.AggregateExpr) -> frozenset[str]:
        inner = self.labels(node.expr) or frozenset()
        op, modifier = str(node.op), node.modifier
        if modifier is not None:
            self._expect(set(modifier.labels), inner, f"{op} by or without")
        if op in KEEPING:
            return inner
        if modifier is None:
            return frozenset()
        named = frozenset(modifier.labels)
        return named if modifier.type == AggModifierType.By else inner - named

    def _binary(self, node: tree.BinaryExpr) -> frozenset[str] | None:
        left, right = self.labels(node.lhs), self.labels(node.rhs)
        if left is None or right is None:
            return left if right is None else right
        op, modifier = str(node.op), node.modifier
        matching = modifier.matching if modifier else None
        if matching is not None:
            for side in (left, right):
                self._expect(set(matching.labels), side, f"{op} on or ignoring")
        if op == "or":
            return left & right
        if op in SETS:
            return left
        if modifier is not None and modifier.group_labels is not None:
            if modifier.card == VectorMatchCardinality.OneToMany:
                left, right = right, left
            self._expect(set(modifier.group_labels), right, "group_left")
            return left | frozenset(modifier.group_labels)
        if matching is not None:
            named = frozenset(matching.labels)
            return named if matching.type == LabelModifierType.Include else left - named
        self._expect(left ^ right, left & right, f"one side of {op}")
        return left & right

    def _call(self, node: tree.Call) -> frozenset[str] | None:
        name = node.func.name
        given = [self.labels(argument) or frozenset() for argument in node.args]
        if name in SCALARS:
            return None
        if name == "label_replace":
            target, _, source = (argument.val for argument in node.args[1:4])
            self._expect({source}, given[0], name)
            return given[0] | {target}
        if name == "histogram_quantile":
            self._expect({"le"}, given[1], name)
            return given[1] - {"le"}
        return frozenset().union(*given)

    def _expect(self, named: set[str] | frozenset[str], known: frozenset[str], where: str) -> None:
        self.reading.faults += [f"{where} names {label}" for label in sorted(set(named) - known)]
