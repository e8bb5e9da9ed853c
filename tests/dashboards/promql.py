"""Reads PromQL by its grammar: which series a query asks for, and by which labels it groups them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import promql_parser
from promql_parser import AggModifierType, AggregateExpr, BinaryExpr, VectorSelector

from gateway.metering.metrics import FAMILIES, PREFIX

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.metering.metrics import Family

SCRAPED: Final = frozenset({"job", "instance", "namespace", "pod"})
"""Labels that Prometheus gives to every series of a target; the last two only in Kubernetes."""

HISTOGRAM_PARTS: Final = ("bucket", "count", "sum")
BELOW: Final = ("lhs", "rhs", "expr", "args", "vector_selector")


@dataclass(frozen=True, slots=True)
class Asked:
    """What a query asks for: each selector with the labels that it names, and the labels of each grouping."""

    selectors: tuple[tuple[str, frozenset[str]], ...]
    groupings: tuple[tuple[frozenset[str], frozenset[str]], ...]

    @property
    def names(self) -> set[str]:
        """Names of the series."""
        return {name for name, _ in self.selectors}


def read(query: str) -> Asked:
    """Return what a query asks for; ValueError where it does not parse."""
    tree = promql_parser.parse(query)
    selectors = tuple(map(_selector, _selectors(tree)))
    groupings = tuple(
        (frozenset(node.modifier.labels), frozenset(name for name, _ in map(_selector, _selectors(node.expr))))
        for node in _nodes(tree)
        if isinstance(node, AggregateExpr) and node.modifier and node.modifier.type == AggModifierType.By
    )
    return Asked(selectors, (*groupings, *_joins(tree)))


def series_of(family: Family) -> dict[str, frozenset[str]]:
    """Return the names under which a family is exported, with the labels of each."""
    labels = SCRAPED | set(family.labels)
    if family.kind != "histogram":
        return {f"{PREFIX}{family.name}": frozenset(labels)}
    return {
        f"{PREFIX}{family.name}_{part}": frozenset(labels | ({"le"} if part == "bucket" else set()))
        for part in HISTOGRAM_PARTS
    }


EXPORTED: Final = {name: labels for family in FAMILIES for name, labels in series_of(family).items()}
"""Every series that the gateway exports, with its labels."""


def strangers(asked: Asked) -> list[str]:
    """Return every name and label that a query uses and the gateway does not export."""
    wrong = [name for name in asked.names if name not in EXPORTED]
    for name, labels in asked.selectors:
        wrong += [f"{name}{{{label}}}" for label in labels - EXPORTED.get(name, frozenset())]
    for labels, names in asked.groupings:
        known = frozenset[str]().union(*(EXPORTED.get(name, frozenset()) for name in names))
        wrong += [f"{label}, of {', '.join(sorted(names))}" for label in labels - known]
    return sorted(wrong)


def _joins(tree: Any) -> Iterator[tuple[frozenset[str], frozenset[str]]]:  # noqa: ANN401 - nodes have no common class
    for node in _nodes(tree):
        matching = node.modifier.matching if isinstance(node, BinaryExpr) and node.modifier else None
        if matching is not None:
            yield frozenset(matching.labels), frozenset(name for name, _ in map(_selector, _selectors(node)))


def _selectors(tree: Any) -> Iterator[VectorSelector]:  # noqa: ANN401 - nodes have no common class
    return (node for node in _nodes(tree) if isinstance(node, VectorSelector))


def _selector(node: VectorSelector) -> tuple[str, frozenset[str]]:
    assert node.name, "a selector without a name"
    return node.name, frozenset(matcher.name for matcher in node.matchers.matchers)


def _nodes(tree: Any) -> Iterator[Any]:  # noqa: ANN401 - nodes have no common class
    yield tree
    for name in BELOW:
        below = getattr(tree, name, None)
        for node in below if isinstance(below, list) else [below] if below is not None else []:
            yield from _nodes(node)
