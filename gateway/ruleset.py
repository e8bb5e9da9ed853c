"""A policy file made into one frozen `Ruleset`, or refused with everything that is wrong with it, each at its line.

Decided here: the models judge the values one at a time, and `_contradictions` compares them across the raw tree, so
that a misspelt field never hides a key without a team. Nesting and aliases meet a bound before anything walks or
unfolds them. What this release cannot enforce yet is an error too: a limit that is read and ignored is a trap.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal

import yaml
from pydantic import ValidationError

from gateway.policy.document import Document, Price
from gateway.policy.glob import GlobSet, compile_globs
from gateway.policy.principals import anonymous_principal, key_principal

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from pydantic_core import ErrorDetails

    from gateway.policy.credential import Principal

Place = tuple[str | int, ...]
Fault = tuple[Place, str]

LARGEST_POLICY_BYTES: Final = 4 * 2**20
_DEEPEST: Final = 32
_MOST_VALUES: Final = 300_000
_LONGEST_TEXT: Final = 4096
_LOADER: Final = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader

_NOT_YET: Final[tuple[tuple[str, tuple[object, ...]], ...]] = (
    ("teams.*.budgets", ([],)),
    ("teams.*.fal_key_env", ()),
    ("teams.*.fal_key_file", ()),
    ("keys.*.budgets", ([],)),
    ("attribution.fal_tags", (False,)),
    ("price_source", ("policy",)),
    ("unpriced_endpoints", ()),
    ("settle_deadline", ()),
    ("budget_webhook", ()),
)
"""What is not enforced yet: the field, and the values that ask for nothing."""

_WORDS: Final = MappingProxyType({"extra_forbidden": "no such field", "model_type": "should be a mapping"})


class PolicyError(Exception):
    """The file makes no ruleset: `errors` holds every (path, message), in the order of the file; `origin` names it."""

    def __init__(self, origin: str, errors: Iterable[tuple[str, str]]) -> None:
        self.origin, self.errors = origin, tuple(errors)
        super().__init__("\n".join(": ".join(filter(None, (origin, *error))) for error in self.errors))


@dataclass(frozen=True, slots=True)
class Ruleset:
    """A policy as the hot path reads it: plain values, patterns compiled, keys by the SHA-256 of their whole text.

    `endpoint_globs` None: all. `keys`: (key, team) in the order of the file. `prices` by endpoint. `named_endpoints`:
    priced, or named without a wildcard; metrics may show them, and a last `stream` of theirs is part of the name.
    `anonymous` None: callers need a key. `on_quota_loss`: what becomes of limits while their store is away.
    """

    keys_by_digest: Mapping[bytes, Principal]
    url_patterns: GlobSet
    binary_patterns: GlobSet
    endpoint_globs: GlobSet | None
    anonymous: Principal | None
    cors_origins: frozenset[bytes]
    isolate_jobs: Literal["none", "team", "key"]
    teams: tuple[str, ...]
    keys: tuple[tuple[str, str], ...]
    prices: Mapping[str, Price]
    named_endpoints: frozenset[str]
    on_quota_loss: Literal["open", "local", "closed"]


class _Reader:
    """Turns YAML nodes into plain values, and notes each place's line and what is wrong below the models' sight."""

    def __init__(self) -> None:
        self.lines: dict[Place, int] = {}
        self.faults: list[Fault] = []
        self._scalars = yaml.SafeLoader("")

    def value(self, node: yaml.Node, place: Place = ()) -> Any:  # noqa: ANN401 (whatever the file says)
        """Return a node's plain value; MarkedYAMLError where aliases unfold without end."""
        self.lines.setdefault(place, node.start_mark.line + 1)
        if len(place) > _DEEPEST or len(self.lines) > _MOST_VALUES:
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


def _composed(text: bytes) -> yaml.Node | None:
    """Return the nodes; depth is looked at first, because libyaml's composer recurses on the C stack."""
    depth = 0
    for count, event in enumerate(yaml.parse(text, Loader=_LOADER)):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEEPEST or count > _MOST_VALUES:
            raise _unreadable(f"nested deeper than {_DEEPEST}, or more than {_MOST_VALUES} values", event.start_mark)
        if isinstance(event, yaml.ScalarEvent) and len(event.value) > _LONGEST_TEXT:
            raise _unreadable(f"a text of more than {_LONGEST_TEXT} characters", event.start_mark)
    return yaml.compose(text, Loader=_LOADER)


def _told(error: yaml.YAMLError) -> str:
    problem = getattr(error, "problem", None) or str(error).partition("\n")[0]
    mark = getattr(error, "problem_mark", None)
    return f"cannot be read: {problem}" + (f" (line {mark.line + 1}, column {mark.column + 1})" if mark else "")


def _select(tree: object, pattern: str) -> Iterator[tuple[Place, Any]]:
    """Yield (place, value) of all that a pattern like `keys.*.digests.*` names in a raw tree; `*`: each of a list."""
    head, _, rest = pattern.partition(".")
    if not pattern:
        yield (), tree
    elif head == "*" and isinstance(tree, list):
        for index, item in enumerate(tree):
            yield from (((index, *place), value) for place, value in _select(item, rest))
    elif isinstance(tree, dict) and head in tree:
        yield from (((head, *place), value) for place, value in _select(tree[head], rest))


def _shown(place: Place) -> str:
    """Return a place as an operator reads it: `keys[1].limits[0].window`; odd names in quotes."""
    names = [s if isinstance(s, int) or re.fullmatch(r"[A-Za-z0-9_-]{1,64}", s) else json.dumps(s[:64]) for s in place]
    return "".join(f"[{name}]" if isinstance(name, int) else f".{name}" for name in names).removeprefix(".")


def _repeats(tree: object, pattern: str, owner: Place = ()) -> Iterator[Fault]:
    seen: dict[str, Place] = {}
    for place, value in _select(tree, pattern):
        if isinstance(value, str):
            first = seen.setdefault(value.lower(), place)
            if first is not place:
                yield (*owner, *place), f"is the same as {_shown((*owner, *first))}"


def _homeless_keys(tree: object) -> Iterator[Fault]:
    teams = {team for _, team in _select(tree, "teams.*.id") if isinstance(team, str)}
    for place, team in _select(tree, "keys.*.team"):
        if isinstance(team, str) and team not in teams:
            yield place, f"no team {team[:64]!a} under teams"


def _contradictions(tree: object) -> Iterator[Fault]:
    """Yield (place, message) of what does not go together across a raw tree, however wrong its values are otherwise."""
    for pattern in ("teams.*.id", "keys.*.id", "keys.*.digests.*", "prices.*.endpoint"):
        yield from _repeats(tree, pattern)
    for owners in ("teams.*", "keys.*", "clients.anonymous"):
        for place, owner in _select(tree, owners):
            yield from _repeats(owner, "limits.*.name", place)
            yield from _repeats(owner, "budgets.*.period", place)
    yield from _homeless_keys(tree)
    for place, team in _select(tree, "teams.*"):
        if isinstance(team, dict) and {"fal_key_env", "fal_key_file"} <= team.keys():
            yield (*place, "fal_key_file"), "goes in place of fal_key_env, not with it"


def _not_yet(tree: object) -> Iterator[Fault]:
    for pattern, harmless in _NOT_YET:
        for place, value in _select(tree, pattern):
            if value not in harmless:
                yield place, "not supported by this release yet"


def _model_fault(error: ErrorDetails) -> Fault:
    kind = error["type"]
    return error["loc"], str(error["ctx"]["error"]) if kind == "value_error" else _WORDS.get(kind, error["msg"])


def _judged(tree: object) -> tuple[Document | None, list[Fault]]:
    try:
        return Document.model_validate(tree), []
    except ValidationError as fault:
        return None, [_model_fault(error) for error in fault.errors(include_url=False)]


def _located(fault: Fault, lines: Mapping[Place, int]) -> tuple[int, str, str]:
    place, message = fault
    line = next(lines[place[:end]] for end in range(len(place), -1, -1) if place[:end] in lines)
    return line, _shown(place), f"{message} (line {line})"


def _document(text: bytes, origin: str) -> Document:
    reader = _Reader()
    try:
        node = _composed(text)
        tree = reader.value(node) if node else None
    except yaml.YAMLError as error:
        raise PolicyError(origin, [("", _told(error))]) from error
    document, misfits = _judged({} if tree is None else tree)
    told = {place for place, _ in reader.faults}
    faults = [*reader.faults, *(misfit for misfit in misfits if misfit[0] not in told)]
    faults += [*_contradictions(tree), *_not_yet(tree)]
    if faults or document is None:
        located = sorted(_located(fault, reader.lines) for fault in faults)
        raise PolicyError(origin, [(path, message) for _, path, message in located])
    return document


def load_ruleset(text: str | bytes, *, origin: str) -> Ruleset:
    """Return the rules of a text (empty: the defaults); `PolicyError` tells all that is wrong, and names `origin`."""
    content = text.encode(errors="surrogatepass") if isinstance(text, str) else text
    if len(content) > LARGEST_POLICY_BYTES:
        raise PolicyError(origin, [("", f"is longer than {LARGEST_POLICY_BYTES} bytes")])
    return _compiled(_document(content, origin))


def load_ruleset_file(path: Path) -> Ruleset:
    """Return the rules of a policy file; `PolicyError` also where it cannot be read."""
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_POLICY_BYTES + 1)
    except OSError as error:
        raise PolicyError(str(path), [("", f"cannot be read: {error.strerror}")]) from error
    return load_ruleset(content, origin=str(path))


def ruleset_with_key(digest: bytes) -> Ruleset:
    """Return the built-in defaults with one key, `default` of the team `default`, known by its SHA-256 (32 bytes)."""
    key = {"id": "default", "team": "default", "digests": [f"sha256:{digest.hex()}"]}
    return _compiled(Document.model_validate({"teams": [{"id": "default"}], "keys": [key]}))


def _named(document: Document) -> frozenset[str]:
    lists = [document.targets.allowed_endpoints, *(key.allowed_endpoints or [] for key in document.keys)]
    literal = (pattern for patterns in lists for pattern in patterns if "*" not in pattern)
    return frozenset((*literal, *(price.endpoint for price in document.prices)))


def _compiled(document: Document) -> Ruleset:
    targets, clients = document.targets, document.clients
    teams = {team.id: team for team in document.teams}
    keys = [(key, key_principal(key, teams)) for key in document.keys]
    by_digest = {bytes.fromhex(text.partition(":")[2]): principal for key, principal in keys for text in key.digests}
    return Ruleset(
        keys_by_digest=MappingProxyType(by_digest),
        url_patterns=compile_globs(targets.allowed_url_patterns),
        binary_patterns=compile_globs(targets.binary_url_patterns),
        endpoint_globs=compile_globs(targets.allowed_endpoints) if targets.allowed_endpoints else None,
        anonymous=anonymous_principal(clients),
        cors_origins=frozenset(origin.encode() for origin in clients.cors_allowed_origins),
        isolate_jobs=targets.isolate_jobs,
        teams=tuple(team.id for team in document.teams),
        keys=tuple((key.id, key.team) for key in document.keys),
        prices=MappingProxyType({price.endpoint: price for price in document.prices}),
        named_endpoints=_named(document),
        on_quota_loss=document.on_state_loss or "local",
    )
