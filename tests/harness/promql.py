"""What a PromQL expression speaks about: its metrics, and whether each label that it names can be there at all.

The decision it carries: labels are followed from the selectors upwards, as Prometheus does it, so that a label that is
misspelt in a grouping, or was summed away below, is found, and not only one in a matcher. What comes out of a recording
rule is known by the same way. Prometheus itself says nothing about any of this: such a query is merely empty.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from promql_parser import (
    AggModifierType,
    AggregateExpr,
    BinaryExpr,
    Call,
    Expr,
    LabelModifierType,
    MatrixSelector,
    ParenExpr,
    StringLiteral,
    SubqueryExpr,
    UnaryExpr,
    VectorSelector,
    parse,
)

from gateway.telemetry.metrics import families as metrics
from gateway.telemetry.metrics.families import PREFIX, Family

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Labels = frozenset[str]

TARGET_LABELS: Final = frozenset({"namespace", "job", "instance", "pod"})
"""What Prometheus adds to each series of a target."""

_NO_LABELS: Final[Labels] = frozenset()
_KEEPING: Final = frozenset({"topk", "bottomk"})
_SETS: Final = frozenset({"and", "unless"})


@dataclass(slots=True)
class Reading:
    """What was found in an expression: the metrics that it asks for, its series' labels, and what is wrong with it."""

    metrics: set[str] = field(default_factory=set)
    labels: Labels = _NO_LABELS
    faults: list[str] = field(default_factory=list)


def declared_labels() -> dict[str, Labels]:
    """Return the labels of every series name that the gateway exports, those of its target with them."""
    families = [family for family in vars(metrics).values() if isinstance(family, Family)]
    return {name: labels for family in families for name, labels in _series_of(family)}


def read(text: str, known: Mapping[str, Labels]) -> Reading:
    """Read an expression, with `known` labels by series name; ValueError where it is no PromQL."""
    reading = Reading()
    reading.labels = _labels_of(parse(text), known, reading)
    return reading


def _series_of(family: Family) -> Iterable[tuple[str, Labels]]:
    labels = TARGET_LABELS.union(family.labels)
    if family.kind != "histogram":
        return [(PREFIX + family.name, labels)]
    return [
        (f"{PREFIX}{family.name}_bucket", labels | {"le"}),
        (f"{PREFIX}{family.name}_sum", labels),
        (f"{PREFIX}{family.name}_count", labels),
    ]


def _labels_of(node: Expr, known: Mapping[str, Labels], reading: Reading) -> Labels:
    """Return the labels that a node's series may have, and note what is asked for and what is wrong."""
    match node:
        case VectorSelector() | MatrixSelector():
            return _of_selector(node, known, reading)
        case ParenExpr() | UnaryExpr() | SubqueryExpr():
            return _labels_of(node.expr, known, reading)
        case AggregateExpr():
            return _of_aggregate(node, _labels_of(node.expr, known, reading), reading)
        case Call():
            parts = [_labels_of(part, known, reading) for part in node.args]
            return _of_call(node, _NO_LABELS.union(*parts), reading)
        case BinaryExpr():
            left, right = _labels_of(node.lhs, known, reading), _labels_of(node.rhs, known, reading)
            return _of_binary(node, left, right, reading)
        case _:
            return _NO_LABELS  # a number, a text


def _of_selector(node: VectorSelector | MatrixSelector, known: Mapping[str, Labels], reading: Reading) -> Labels:
    selector = node.vector_selector if isinstance(node, MatrixSelector) else node
    name = selector.name
    if name is None or name not in known:
        reading.faults.append(f"{selector}: no such metric")
        return _NO_LABELS
    reading.metrics.add(name)
    _check((matcher.name for matcher in selector.matchers.matchers), known[name], f"{selector}", reading)
    return known[name]


def _of_aggregate(node: AggregateExpr, inner: Labels, reading: Reading) -> Labels:
    if str(node.op) in _KEEPING:
        return inner
    if node.modifier is None:
        return _NO_LABELS
    named = frozenset(node.modifier.labels)
    _check(named, inner, f"{node.op} {node.modifier}", reading)
    return named if node.modifier.type == AggModifierType.By else inner - named


def _of_call(node: Call, inner: Labels, reading: Reading) -> Labels:
    name, args = node.func.name, node.args
    if name == "histogram_quantile":
        _check(["le"], inner, name, reading)
        return inner - {"le"}
    if name in {"label_replace", "label_join"}:
        sources = [args[3]] if name == "label_replace" else args[3:]
        _check((_text(source) for source in sources if _text(source)), inner, name, reading)
        return inner | {_text(args[1])}
    return _NO_LABELS if name in {"absent", "absent_over_time", "scalar", "vector"} else inner


def _of_binary(node: BinaryExpr, left: Labels, right: Labels, reading: Reading) -> Labels:
    operator = str(node.op)
    if operator == "or" or not left or not right:  # a number has no labels
        return left | right
    matched = _match(node, left, right, reading)
    if operator in _SETS:
        return left
    grouped = node.modifier.group_labels if node.modifier is not None else None
    if grouped is None:
        return matched
    _check(grouped, left | right, f"{node.op} {node.modifier}", reading)  # the side of many keeps what it has
    return max(left, right, key=len).union(grouped)


def _match(node: BinaryExpr, left: Labels, right: Labels, reading: Reading) -> Labels:
    """Return the labels by which two sides are matched, and note where that never comes to a match."""
    matching = node.modifier.matching if node.modifier is not None else None
    if matching is not None and matching.type == LabelModifierType.Include:
        _check(matching.labels, left & right, f"{node.op} {node.modifier}", reading)
        return frozenset(matching.labels)
    ignored = frozenset(matching.labels if matching is not None else ())
    _check(ignored, left | right, f"{node.op} {node.modifier}", reading)
    grouped = node.modifier.group_labels if node.modifier is not None else None
    if grouped is None and left - ignored != right - ignored:
        reading.faults.append(f"{node.op}: {sorted(left)} on one side, {sorted(right)} on the other")
    return left - ignored


def _check(named: Iterable[str], there: Labels, place: str, reading: Reading) -> None:
    reading.faults += [f"{place}: no label {name!r} there" for name in sorted(set(named) - there)]


def _text(node: Any) -> str:  # noqa: ANN401 (an argument of the parser's)
    return node.val if isinstance(node, StringLiteral) else ""
