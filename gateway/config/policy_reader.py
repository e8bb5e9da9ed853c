"""One text of a policy after another, read as a whole only where that is needed.

The decision: to read YAML takes 100 us a key, which is seconds for 20,000. An operator changes one of them. So the text
is cut at the items of `keys`, a list at the top of the file in block style, and an item whose text was read before is
not read again. What is cut is what a parser of the whole would find, or it is not cut at all:

* an item ends where a line begins that is indented as little as the list; a quoted text, or a flow collection, that
  goes on beyond is not whole by itself, and so no YAML;
* the rest of the text is read with a mark in place of the items, which must come out as the only item of `keys`;
* an item that names an anchor or refers to one is not cut.

Everything that is not surely right is left to `ruleset.load_document`, which reads the whole and names what is wrong.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pydantic import ValidationError

from gateway.config.policy_schema import Document, Key
from gateway.config.ruleset import LARGEST_POLICY_BYTES, contradictions, load_document
from gateway.config.yaml_tree import MOST_VALUES, UnreadableError, read_tree

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_KEYS: Final = re.compile(rb"^keys:(?: *| +#.*)\n((?:[ -].*\n|\n|#.*\n)*)", re.MULTILINE)
_MARK: Final = "items"
_UNSURE: Final = re.compile(
    rb"[&\r\t\0]|\xc2\x85|\xe2\x80[\xa8\xa9]|^(?:---|\.\.\.|%|\xef\xbb\xbf)|[|>](?s:.*)[^\n]\Z", re.MULTILINE
)
"""Anchors, other line ends than \n, what begins or ends a document, a block of text that the last line may end."""


_AROUND: Final = 5
"""Of a text's size, what is not of its one item: beginning and end of stream, document and list, less the first."""


class _Item(NamedTuple):
    """One item of the list: the key, and how many values a parser counts in it."""

    key: Key
    size: int


class PolicyReader:
    """Reads texts one after another; a key whose text has not changed is the same object as before."""

    def __init__(self) -> None:
        """Begin without anything read."""
        self._items: Mapping[bytes, _Item] = {}

    def read(self, content: bytes, *, origin: str) -> Document:
        """Return what a text says (empty: the defaults); `PolicyError` tells all that is wrong, and names `origin`."""
        document = self._read_in_parts(content) if len(content) <= LARGEST_POLICY_BYTES else None
        return document or load_document(content, origin=origin)

    def _read_in_parts(self, content: bytes) -> Document | None:
        """Return what a text says; None where it is not right, or not surely so."""
        parts = _parts(content)
        if parts is None:
            return None
        rest, texts = parts
        items: dict[bytes, _Item] = {}
        for text in texts:
            item = self._items.get(text) or _item(text)
            if item is None or text in items:
                return None
            items[text] = item
        document = _document(rest, [item.key for item in items.values()], room=MOST_VALUES - _total(items.values()))
        if document is not None:
            self._items = items
        return document


def _total(items: Iterable[_Item]) -> int:
    return sum(item.size for item in items)


def _parts(content: bytes) -> tuple[bytes, list[bytes]] | None:
    """Return the text with a mark for the items of `keys`, and the items; None where it cannot be cut."""
    if _UNSURE.search(content):
        return None
    content = content if content.endswith(b"\n") else content + b"\n"
    found = _KEYS.search(content)
    if found is None:
        return None
    block = found[1]
    first = re.match(rb"(?:\n|[ ]*#.*\n)*([ ]*)- ", block)
    if first is None:
        return None
    indent = first[1]
    starts = [match.start() for match in re.finditer(rb"^%b- " % indent, block, re.MULTILINE)]
    if re.search(rb"^(?!%b(?:- |[ ])|[ ]*#|$)" % indent, block, re.MULTILINE):
        return None  # a line that is indented less than the list
    items = [block[start:end] for start, end in zip(starts, [*starts[1:], len(block)], strict=True)]
    mark = b"%b- %b\n" % (indent, _MARK.encode())
    return content[: found.start(1)] + mark + content[found.end(1) :], items


def _item(text: bytes) -> _Item | None:
    """Return the key that one item is; None where it is not right by itself."""
    try:
        tree = read_tree(text)
        (value,) = tree.value
        key = Key.model_validate(value)
    except (UnreadableError, ValidationError, TypeError, ValueError):  # no YAML, no list of one, no key
        return None
    if tree.faults or any(contradictions({"teams": [{"id": key.team}], "keys": [value]})):
        return None
    return _Item(key, tree.size - _AROUND)


def _document(rest: bytes, keys: list[Key], *, room: int) -> Document | None:
    """Return the document of a text with a mark in it, and of its keys; `room`: how many values it may have beside."""
    try:
        tree = read_tree(rest)
    except UnreadableError:
        return None
    value: Any = tree.value
    if tree.faults or tree.size - 1 > room or not isinstance(value, dict) or value.pop("keys", None) != [_MARK]:
        return None
    try:
        document = Document.model_validate(value)
    except ValidationError:
        return None
    if any(contradictions(value)) or not _go_together(document, keys):
        return None
    return document.model_copy(update={"keys": keys})


def _go_together(document: Document, keys: list[Key]) -> bool:
    """Say whether ids and digests are there once, and every key has its team: `contradictions` of keys with others."""
    teams = {team.id for team in document.teams}
    digests = [digest.lower() for key in keys for digest in key.digests]
    return (
        len({key.id for key in keys}) == len(keys)
        and len(set(digests)) == len(digests)
        and teams.issuperset(key.team for key in keys)
    )
