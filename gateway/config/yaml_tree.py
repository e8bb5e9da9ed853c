"""YAML text made into plain values, each with the line that it stands in, and what is wrong below the models' sight.

Decided here: nesting and aliases meet a bound before anything walks or unfolds them, and no tag builds an object. What
cannot be read is noted at its place and stands in as its own text, so that it hides nothing else that is wrong.
"""

from __future__ import annotations

import gc
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

Place = tuple[str | int, ...]
Fault = tuple[Place, str]

_DEEPEST: Final = 32
MOST_VALUES: Final = 300_000
_LONGEST_TEXT: Final = 4096
_LOADER: Final = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader


class UnreadableError(Exception):
    """The text is no YAML of plain values; the message says why and where."""


@dataclass(frozen=True, slots=True)
class Tree:
    """A text's plain values (None: it holds none), the line of each place, and what is wrong with single values.

    `size`: how many of MOST_VALUES they take.
    """

    value: Any
    lines: Mapping[Place, int]
    faults: Sequence[Fault]
    size: int

    def line(self, place: Place) -> int:
        """Return the line of a place, or of the nearest above it that the text has."""
        return next(self.lines[place[:end]] for end in range(len(place), -1, -1) if place[:end] in self.lines)


def read_tree(text: bytes) -> Tree:
    """Return what a text says; UnreadableError where it is no YAML of plain values, or too much of it."""
    reader = _Reader()
    collects = gc.isenabled()
    gc.disable()  # what is made here stays until the end, and to look for garbage in it took 40 % of the time
    try:
        node, size = _composed(text)
        value = reader.value(node) if node else None
    except yaml.YAMLError as error:
        raise UnreadableError(_told(error)) from error
    finally:
        if collects:
            gc.enable()
    return Tree(value, reader.lines, reader.faults, size)


def select(tree: object, pattern: str) -> Iterator[tuple[Place, Any]]:
    """Yield (place, value) of all that a pattern like `keys.*.digests.*` names in a raw tree; `*`: each of a list."""
    head, _, rest = pattern.partition(".")
    if not pattern:
        yield (), tree
    elif head == "*" and isinstance(tree, list):
        for index, item in enumerate(tree):
            yield from (((index, *place), value) for place, value in select(item, rest))
    elif isinstance(tree, dict) and head in tree:
        yield from (((head, *place), value) for place, value in select(tree[head], rest))


def shown(place: Place) -> str:
    """Return a place as an operator reads it: `keys[1].limits[0].window`; odd names in quotes."""
    names = [s if isinstance(s, int) or re.fullmatch(r"[A-Za-z0-9_-]{1,64}", s) else json.dumps(s[:64]) for s in place]
    return "".join(f"[{name}]" if isinstance(name, int) else f".{name}" for name in names).removeprefix(".")


class _Reader:
    """Turns YAML nodes into plain values, and notes each place's line and what cannot be read."""

    def __init__(self) -> None:
        self.lines: dict[Place, int] = {}
        self.faults: list[Fault] = []
        self._scalars = yaml.SafeLoader("")

    def value(self, node: yaml.Node, place: Place = ()) -> Any:  # noqa: ANN401 (whatever the file says)
        """Return a node's plain value; MarkedYAMLError where aliases unfold without end."""
        self.lines.setdefault(place, node.start_mark.line + 1)
        if len(place) > _DEEPEST or len(self.lines) > MOST_VALUES:
            raise _unreadable("aliases unfold to too much", node.start_mark)
        if isinstance(node, yaml.MappingNode) and node.tag == "tag:yaml.org,2002:map":
            return self._mapping(node, place)
        if isinstance(node, yaml.SequenceNode) and node.tag == "tag:yaml.org,2002:seq":
            return [self.value(item, (*place, index)) for index, item in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, place)
        raise _unreadable("a tag on a collection", node.start_mark)

    def _mapping(self, node: yaml.MappingNode, place: Place) -> dict[str, Any]:
        mapping = {}
        for name, value in node.value:
            if not isinstance(name, yaml.ScalarNode):
                raise _unreadable("a name should be text", name.start_mark)
            here = (*place, name.value)
            self.lines.setdefault(here, name.start_mark.line + 1)
            if name.value in mapping:
                self.faults.append((here, f"given twice, again in line {name.start_mark.line + 1}"))
            mapping[name.value] = self.value(value, here)
        return {name: value for name, value in mapping.items() if value is not None}

    def _scalar(self, node: yaml.ScalarNode, place: Place) -> object:
        try:
            value = self._scalars.construct_document(node)
        except (ValueError, OverflowError, TypeError, KeyError, yaml.constructor.ConstructorError):
            value = node.value  # 2027-99-99, an odd tag, !!int x, <<
            self.faults.append((place, f"cannot be read as {node.tag.rpartition(':')[2]}: put text in quotes"))
        if value is None and place:
            self.faults.append((place, "is empty: give a value, or leave the name out"))
        return value


def _unreadable(problem: str, mark: Any) -> yaml.MarkedYAMLError:  # noqa: ANN401 (one of two Mark classes)
    return yaml.MarkedYAMLError(problem=problem, problem_mark=mark)


def _composed(text: bytes) -> tuple[yaml.Node | None, int]:
    """Return the nodes and how many events made them.

    Depth is looked at first, because libyaml's composer recurses on the C stack.
    """
    depth = count = 0
    for count, event in enumerate(yaml.parse(text, Loader=_LOADER)):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEEPEST or count > MOST_VALUES:
            raise _unreadable(f"nested deeper than {_DEEPEST}, or more than {MOST_VALUES} values", event.start_mark)
        if isinstance(event, yaml.ScalarEvent) and len(event.value) > _LONGEST_TEXT:
            raise _unreadable(f"a text of more than {_LONGEST_TEXT} characters", event.start_mark)
    return yaml.compose(text, Loader=_LOADER), count


def _told(error: yaml.YAMLError) -> str:
    problem = getattr(error, "problem", None) or str(error).partition("\n")[0]
    mark = getattr(error, "problem_mark", None)
    return f"cannot be read: {problem}" + (f" (line {mark.line + 1}, column {mark.column + 1})" if mark else "")
