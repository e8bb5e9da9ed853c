"""What a policy file is refused for: every error at once, at its place and line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from gateway.config.ruleset import LARGEST_POLICY_BYTES, PolicyError, load_ruleset, load_ruleset_file

if TYPE_CHECKING:
    from pathlib import Path

A, B = "sha256:" + "a" * 64, "sha256:" + "b" * 64


@dataclass(frozen=True, slots=True)
class Wrong:
    """A policy (JSON-like YAML), the place that is blamed, and a part of the reason."""

    text: str
    path: str
    reason: str


def team(entry: str) -> str:
    """Return a policy with one team of these further fields."""
    return f"teams: [{{id: t, {entry}}}]"


def key(entry: str, digests: str = f"['{A}']") -> str:
    """Return a policy with one good key of these further fields."""
    return f"teams: [{{id: t}}]\nkeys: [{{id: k, team: t, digests: {digests}, {entry}}}]"


def limit(entry: str) -> str:
    """Return a policy with one limit of these fields and a name."""
    return team(f"limits: [{{name: n, {entry}}}]")


def budget(entry: str) -> str:
    """Return a policy with one budget of these fields."""
    return team(f"budgets: [{{{entry}}}]")


def price(entry: str) -> str:
    """Return a policy with one price of these fields and an endpoint."""
    return f"prices: [{{endpoint: fal-ai/x, {entry}}}]"


WRONG = (
    Wrong("[]", "", "should be a mapping"),
    Wrong("5", "", "should be a mapping"),
    Wrong("false", "", "should be a mapping"),
    Wrong("xyzzy: 1", "xyzzy", "no such field"),
    Wrong("'a b': 1", '"a b"', "no such field"),
    Wrong("teams:", "teams", "is empty"),
    Wrong("teams: [~]", "teams[0]", "is empty"),
    Wrong("teams: {}", "teams", "valid list"),
    Wrong("teams: [t]", "teams[0]", "should be a mapping"),
    Wrong("targets: {}\nteams: []\ntargets: {}", "targets", "given twice, again in line 3 (line 1)"),
    # targets
    Wrong("targets: {allowed_urls: []}", "targets.allowed_urls", "no such field"),
    Wrong("targets: {allowed_url_patterns: []}", "targets.allowed_url_patterns", "at least 1"),
    Wrong("targets: {allowed_url_patterns: ['**']}", "targets.allowed_url_patterns[0]", "host/path"),
    Wrong("targets: {allowed_url_patterns: ['*/**']}", "targets.allowed_url_patterns[0]", "host/path"),
    Wrong("targets: {allowed_url_patterns: ['*fal.run/**']}", "targets.allowed_url_patterns[0]", "host/path"),
    Wrong("targets: {allowed_url_patterns: ['**.fal.run/**']}", "targets.allowed_url_patterns[0]", "host/path"),
    Wrong("targets: {allowed_url_patterns: ['fal.run**']}", "targets.allowed_url_patterns[0]", "host/path"),
    Wrong("targets: {allowed_url_patterns: ['fal.run']}", "targets.allowed_url_patterns[0]", "host/path"),
    Wrong("targets: {allowed_url_patterns: ['fal.*/**']}", "targets.allowed_url_patterns[0]", "host/path"),
    Wrong("targets: {allowed_url_patterns: ['https://fal.run/**']}", "targets.allowed_url_patterns[0]", "host/path"),
    Wrong("targets: {allowed_url_patterns: ['fal.run/{a,b}']}", "targets.allowed_url_patterns[0]", "brace"),
    Wrong("targets: {binary_url_patterns: ['**']}", "targets.binary_url_patterns[0]", "host/path"),
    Wrong("targets: {allowed_endpoints: ['/fal-ai/x']}", "targets.allowed_endpoints[0]", "slash"),
    Wrong("targets: {allowed_url_patterns: ['FAL.RUN/**']}", "targets.allowed_url_patterns[0]", "lower case"),
    Wrong("targets: {allowed_url_patterns: ['fal.run:443/**']}", "targets.allowed_url_patterns[0]", "port"),
    Wrong("targets: {allowed_url_patterns: ['10.0.0.1/**']}", "targets.allowed_url_patterns[0]", "matches no target"),
    Wrong("targets: {allowed_url_patterns: ['xn--a.run/**']}", "targets.allowed_url_patterns[0]", "matches no target"),
    Wrong("targets: {allowed_url_patterns: ['fal.run/a//b']}", "targets.allowed_url_patterns[0]", "empty segment"),
    Wrong("targets: {allowed_url_patterns: ['fal.run/../*']}", "targets.allowed_url_patterns[0]", "dot segment"),
    Wrong("targets: {allowed_url_patterns: ['fal.run/a%2fb']}", "targets.allowed_url_patterns[0]", "escape"),
    Wrong("targets: {allowed_url_patterns: ['fal.run/%c3%a9']}", "targets.allowed_url_patterns[0]", "upper case"),
    Wrong("targets: {binary_url_patterns: ['fal.run/a#b']}", "targets.binary_url_patterns[0]", "fragment"),
    Wrong("targets: {allowed_endpoints: []}", "targets.allowed_endpoints", "leave the field out to allow all"),
    Wrong("targets: {allowed_endpoints: ['https://fal.run/**']}", "targets.allowed_endpoints[0]", "scheme"),
    Wrong("targets: {allowed_endpoints: ['fal.run/fal-ai/**']}", "targets.allowed_endpoints[0]", "begins with a host"),
    Wrong("targets: {allowed_endpoints: ['*.fal.run/**']}", "targets.allowed_endpoints[0]", "begins with a host"),
    Wrong("targets: {allowed_endpoints: ['fal-ai/flux/']}", "targets.allowed_endpoints[0]", "ends with a slash"),
    Wrong("targets: {allowed_endpoints: ['fal-ai/**/']}", "targets.allowed_endpoints[0]", "ends with a slash"),
    Wrong("targets: {allowed_endpoints: ['fal-ai//x']}", "targets.allowed_endpoints[0]", "empty segment"),
    Wrong("targets: {allowed_endpoints: ['fal-ai/./x']}", "targets.allowed_endpoints[0]", "dot segment"),
    Wrong("targets: {allowed_endpoints: ['fal-ai/x?']}", "targets.allowed_endpoints[0]", "has a ?"),
    Wrong("targets: {allowed_endpoints: ['fal-ai/x?a=*']}", "targets.allowed_endpoints[0]", "has a ?"),
    Wrong("targets: {allowed_endpoints: ['fal-ai/[ab]']}", "targets.allowed_endpoints[0]", "no endpoint id"),
    Wrong("targets: {allowed_endpoints: ['']}", "targets.allowed_endpoints[0]", "empty"),
    Wrong("targets: {allowed_endpoints: '**'}", "targets.allowed_endpoints", "valid list"),
    Wrong("targets: {isolate_jobs: owner}", "targets.isolate_jobs", "'none', 'team' or 'key'"),
    # clients
    Wrong("clients: {allow_unauthorized_requests: 1}", "clients.allow_unauthorized_requests", "valid boolean"),
    Wrong("clients: {allow_unauthorized_requests: 'true'}", "clients.allow_unauthorized_requests", "valid boolean"),
    Wrong("clients: {cors_allowed_origins: ['*']}", "clients.cors_allowed_origins[0]", "exactly scheme://host"),
    Wrong("clients: {cors_allowed_origins: ['null']}", "clients.cors_allowed_origins[0]", "exactly scheme://host"),
    Wrong("clients: {cors_allowed_origins: ['https://a.b/']}", "clients.cors_allowed_origins[0]", "no path"),
    Wrong("clients: {cors_allowed_origins: ['https://*.b.c']}", "clients.cors_allowed_origins[0]", "no wildcard"),
    Wrong("clients: {cors_allowed_origins: ['https://A.b']}", "clients.cors_allowed_origins[0]", "lower case"),
    Wrong("clients: {cors_allowed_origins: ['https://a.b:443']}", "clients.cors_allowed_origins[0]", "leaves out :443"),
    Wrong("clients: {cors_allowed_origins: ['http://a.b:80']}", "clients.cors_allowed_origins[0]", "leaves out :80"),
    Wrong('clients: {cors_allowed_origins: ["https://a.b\\n"]}', "clients.cors_allowed_origins[0]", "exactly"),
    # teams
    Wrong("teams: [{}]", "teams[0].id", "required"),
    Wrong("teams: [{id: ~}]", "teams[0].id", "is empty"),
    Wrong("teams: [{id: Design}]", "teams[0].id", "should be 1 to 63"),
    Wrong("teams: [{id: -a}]", "teams[0].id", "should be 1 to 63"),
    Wrong(f"teams: [{{id: {'a' * 64}}}]", "teams[0].id", "should be 1 to 63"),
    Wrong("teams: [{id: anonymous}]", "teams[0].id", "reserved"),
    Wrong("teams: [{id: unknown}]", "teams[0].id", "reserved"),
    Wrong("teams: [{id: no}]", "teams[0].id", "valid string"),
    Wrong("teams: [{id: a}, {id: b}, {id: a}]", "teams[2].id", "is the same as teams[0].id"),
    Wrong(team("fal_key_env: A-B"), "teams[0].fal_key_env", "environment variable"),
    Wrong(team("fal_key_env: A, fal_key_file: f"), "teams[0].fal_key_file", "not with it"),
    Wrong("teams: [{id: no}]", "teams[0].id", "reads this value as false, put it in quotes"),
    Wrong("teams: [{id: 007}]", "teams[0].id", "reads this value as a number, put it in quotes"),
    Wrong("teams: [{id: 2026-11-30}]", "teams[0].id", "reads this value as a date, put it in quotes"),
    Wrong("targets: {isolate_jobs: off}", "targets.isolate_jobs", "reads this value as false, put it in quotes"),
    Wrong(team("realtime: {mode: hold}"), "teams[0].realtime.mode", "not supported yet"),
    Wrong(team("realtime: {mode: on}"), "teams[0].realtime.mode", "'refuse' or 'allow'"),
    Wrong("realtime: {max_token_seconds: 0}", "realtime.max_token_seconds", "greater than or equal"),
    # keys
    Wrong("keys: [{id: k, team: t, digests: ['" + A + "']}]", "keys[0].team", "no team 't' under teams"),
    Wrong(key("", "[]"), "keys[0].digests", "at least 1"),
    Wrong(key("", "['sha256:abc']"), "keys[0].digests[0]", "64 hex digits"),
    Wrong(key("", f"['md5:{'a' * 64}']"), "keys[0].digests[0]", "sha256:"),
    Wrong(key("", "['gwk_" + "a" * 47 + "']"), "keys[0].digests[0]", "sha256:"),
    Wrong(key("", f"['{A}', '{A.upper().replace('SHA', 'sha')}']"), "keys[0].digests[1]", "same as keys[0].digests[0]"),
    Wrong(key("expires_at: 2027-01-01T00:00:00"), "keys[0].expires_at", "no time zone"),
    Wrong(key("expires_at: '2027-01-01T00:00:00'"), "keys[0].expires_at", "no time zone"),
    Wrong(key("expires_at: 2027-01-01"), "keys[0].expires_at", "date with time and zone"),
    Wrong(key("expires_at: 1798761600"), "keys[0].expires_at", "date with time and zone"),
    Wrong(key("expires_at: soon"), "keys[0].expires_at", "date with time and zone"),
    Wrong(key("expires_at: 2027-13-01T00:00:00Z"), "keys[0].expires_at", "cannot be read as timestamp"),
    Wrong(key("expires_at: ~"), "keys[0].expires_at", "is empty"),
    Wrong(key("allowed_endpoints: []"), "keys[0].allowed_endpoints", "at least 1"),
    Wrong(key("allowed_endpoints: ['a/***']"), "keys[0].allowed_endpoints[0]", "***"),
    Wrong(key("max_body_bytes: 0"), "keys[0].max_body_bytes", "greater than or equal to 1"),
    Wrong(key("max_body_bytes: 1.5"), "keys[0].max_body_bytes", "valid integer"),
    Wrong(key("max_body_bytes: '100'"), "keys[0].max_body_bytes", "valid integer"),
    # limits
    Wrong(limit("unit: requests, quota: 1"), "teams[0].limits[0].window", "missing"),
    Wrong(limit("unit: content-bytes, quota: 1"), "teams[0].limits[0].window", "missing"),
    Wrong(limit("unit: concurrent-requests, quota: 1, window: 60s"), "teams[0].limits[0].window", "no meaning"),
    Wrong(limit("unit: concurrent-requests, quota: 1, burst: 2"), "teams[0].limits[0].burst", "no meaning"),
    Wrong(limit("unit: tokens, quota: 1, window: 60s"), "teams[0].limits[0].unit", "'concurrent-requests'"),
    Wrong(limit("quota: 1, window: 60s"), "teams[0].limits[0].unit", "required"),
    Wrong(limit("unit: requests, quota: 0, window: 60s"), "teams[0].limits[0].quota", "greater than or equal to 1"),
    Wrong(limit("unit: requests, quota: 1e15, window: 1s"), "teams[0].limits[0].quota", "valid integer"),
    Wrong(limit("unit: requests, quota: 1, window: 0"), "teams[0].limits[0].window", "greater than 0"),
    Wrong(limit("unit: requests, quota: 1, window: 1.5"), "teams[0].limits[0].window", "whole seconds"),
    Wrong(limit("unit: requests, quota: 1, window: 500ms"), "teams[0].limits[0].window", "whole seconds"),
    Wrong(limit("unit: requests, quota: 1, window: 1w"), "teams[0].limits[0].window", "60s, 5m, 24h"),
    Wrong(limit("unit: requests, quota: 1, window: true"), "teams[0].limits[0].window", "60s, 5m, 24h"),
    Wrong(limit("unit: requests, quota: 1, window: .nan"), "teams[0].limits[0].window", "60s, 5m, 24h"),
    Wrong(limit("unit: requests, quota: 1, window: .inf"), "teams[0].limits[0].window", "60s, 5m, 24h"),
    Wrong(limit("unit: requests, quota: 1, window: -1"), "teams[0].limits[0].window", "60s, 5m, 24h"),
    Wrong(limit("unit: requests, quota: 1, window: 367d"), "teams[0].limits[0].window", "less than or equal"),
    Wrong(limit("unit: requests, quota: 1, window: 1s, burst: 0"), "teams[0].limits[0].burst", "greater than or equal"),
    Wrong(limit("unit: requests, quota: 1, window: 1s, max_wait: 3s"), "teams[0].limits[0].max_wait", "less than or"),
    Wrong(limit("unit: requests, quota: 1, window: 1s, class: gold"), "teams[0].limits[0].class", "'free' or 'paid'"),
    Wrong(limit("unit: requests, quota: 1, window: 1s, shadow: 2"), "teams[0].limits[0].shadow", "valid boolean"),
    Wrong(team("limits: [{name: 'a b', unit: requests, quota: 1, window: 1s}]"), "teams[0].limits[0].name", "letters"),
    Wrong(
        team("limits: [{name: a, unit: requests}, {name: a, unit: requests}]"),
        "teams[0].limits[1].name",
        "is the same as teams[0].limits[0].name",
    ),
    Wrong(
        "clients: {anonymous: {limits: [{name: a}, {name: a}]}}",
        "clients.anonymous.limits[1].name",
        "is the same as clients.anonymous.limits[0].name",
    ),
    # budgets
    Wrong(budget("usd: 0.5, period: day"), "teams[0].budgets[0].usd", 'put the number in quotes ("0.5")'),
    Wrong(budget("usd: '-1', period: day"), "teams[0].budgets[0].usd", "not negative"),
    Wrong(budget("usd: -1, period: day"), "teams[0].budgets[0].usd", "not negative"),
    Wrong(budget("usd: true, period: day"), "teams[0].budgets[0].usd", "decimal number"),
    Wrong(budget("usd: '1e3', period: day"), "teams[0].budgets[0].usd", "decimal number"),
    Wrong(budget("usd: 'NaN', period: day"), "teams[0].budgets[0].usd", "decimal number"),
    Wrong(budget("usd: '0.0000000001', period: day"), "teams[0].budgets[0].usd", "9 decimal places"),
    Wrong(budget(f"usd: 0x{'f' * 4000}, period: day"), "teams[0].budgets[0].usd", "decimal number"),
    Wrong(budget("usd: '5', period: year"), "teams[0].budgets[0].period", "'day', 'week' or 'month'"),
    Wrong(budget("usd: '5', period: day, warn_at: [0]"), "teams[0].budgets[0].warn_at[0]", "greater than 0"),
    Wrong(budget("usd: '5', period: day, warn_at: [1.1]"), "teams[0].budgets[0].warn_at[0]", "less than or equal to 1"),
    Wrong(
        team("budgets: [{usd: 5, period: day}, {usd: 6, period: day}]"),
        "teams[0].budgets[1].period",
        "is the same as teams[0].budgets[0].period",
    ),
    # prices and the rest
    Wrong(price("unit: image, usd: 0.025"), "prices[0].usd", "quotes"),
    Wrong(price("unit: image, usd: '0.1', typical_units: 1.5"), "prices[0].typical_units", "quotes"),
    Wrong(price("unit: image, usd: '1000000.1'"), "prices[0].usd", "at most 1,000,000 US dollars"),
    Wrong(price("unit: image, usd: '2', typical_units: '500001'"), "prices[0].typical_units", "more than 1,000,000"),
    Wrong("prices: [{endpoint: fal-ai/*, unit: image, usd: '1'}]", "prices[0].endpoint", "without wildcards"),
    Wrong("prices: [{endpoint: a/b}, {endpoint: a/b}]", "prices[1].endpoint", "is the same as prices[0].endpoint"),
    Wrong(price("unit: '\"', usd: '1'"), "prices[0].unit", "plain name"),
    Wrong("attribution: {tags: true}", "attribution.tags", "no such field"),
    Wrong("price_source: web", "price_source", "'policy' or 'fal'"),
    Wrong("on_state_loss: maybe", "on_state_loss", "'open', 'local' or 'closed'"),
    Wrong("unpriced_endpoints: warn", "unpriced_endpoints", "'refuse' or 'allow'"),
    Wrong("max_share: 0", "max_share", "greater than 0"),
    Wrong("max_share: 1.01", "max_share", "less than or equal to 1"),
    Wrong("settle_deadline: 91d", "settle_deadline", "less than or equal"),
    Wrong("budget_webhook: {url: 'ftp://h', secret_env: A}", "budget_webhook.url", "http or https"),
    Wrong("budget_webhook: {url: 'https://h'}", "budget_webhook.secret_env", "required"),
)


def errors_of(text: str | bytes) -> list[tuple[str, str]]:
    """Return the (path, message) pairs of a policy that is refused."""
    with pytest.raises(PolicyError) as caught:
        load_ruleset(text, origin="policy.yaml")
    return list(caught.value.errors)


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: f"{wrong.path}: {wrong.reason}")
def test_a_wrong_value_is_refused_at_its_place(wrong: Wrong) -> None:
    """Each rule of the schema has its error: at the place in the file, with the reason, and nothing else beside it."""
    errors = errors_of(wrong.text)
    blamed = [(path, message) for path, message in errors if path == wrong.path]
    assert any(wrong.reason in message for _, message in blamed), errors
    cut_short = wrong.reason.startswith(
        "is the same as"
    )  # such entries hold what repeats, and lack what else is needed
    assert cut_short or len(errors) == 1


EVERYTHING_WRONG = f"""\
xyzzy: 1
targets:
  isolate_jobs: nobody
teams:
  - id: Design
    id: design
  - id: design
keys:
  - id: a
    team: desing
    digests: ["{A}"]
    expires:
  - id: a
    team: design
    digests: ["{A}", "short"]
    limits:
      - name: polls
        unit: requests
        quota: 0
      - {{name: polls, unit: concurrent-requests, quota: 1, window: 60s}}
"""

ALL_ERRORS = [
    ("xyzzy", "no such field (line 1)"),
    ("targets.isolate_jobs", "Input should be 'none', 'team' or 'key' (line 3)"),
    ("teams[0].id", "given twice, again in line 6 (line 5)"),
    ("teams[1].id", "is the same as teams[0].id (line 7)"),
    ("keys[0].team", "no team 'desing' under teams (line 10)"),
    ("keys[0].expires", "is empty: give a value, or leave the name out (line 12)"),
    ("keys[1].id", "is the same as keys[0].id (line 13)"),
    ("keys[1].digests[0]", "is the same as keys[0].digests[0] (line 15)"),
    ("keys[1].digests[1]", "should read sha256: and the 64 hex digits of the whole key (line 15)"),
    ("keys[1].limits[0].window", "missing; requests are counted in a window (line 17)"),
    ("keys[1].limits[0].quota", "Input should be greater than or equal to 1 (line 19)"),
    ("keys[1].limits[1].name", "is the same as keys[1].limits[0].name (line 20)"),
    ("keys[1].limits[1].window", "has no meaning for concurrent-requests (line 20)"),
]


def test_all_errors_are_told_at_once_in_the_order_of_the_file() -> None:
    """Shapes, values, repeats and loose ends: no error waits until another is mended."""
    assert errors_of(EVERYTHING_WRONG) == ALL_ERRORS


def test_the_error_reads_as_lines_that_begin_with_the_file() -> None:
    """`policy.yaml: keys[0].team: why (line n)`, a line for each error."""
    with pytest.raises(PolicyError) as caught:
        load_ruleset(EVERYTHING_WRONG, origin="policy.yaml")
    assert str(caught.value).splitlines() == [f"policy.yaml: {path}: {message}" for path, message in ALL_ERRORS]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: [1", "line 2, column 1"),
        ("a: b: c", "line 1, column 5"),
        ("a: 1\n---\nb: 2", "document"),
        ("a: *nowhere", "undefined alias"),
        ("? [a]\n: 1", "a name should be text"),
        ("!!python/object/apply:os.system ['true']", "tag"),
        ("teams: !!set {a}", "tag"),
        ("\tteams: []", "cannot be read"),
        ("a: \0", "control characters"),
        (b"a: \xff\xfe", "UTF-8"),
        ("teams: []".encode("utf-16"), "UTF-16"),
        ("teams: []".encode("utf-16-le"), "UTF-16"),
        ("teams: []".encode("utf-16-be"), "UTF-16"),
        ("teams: []".encode("utf-32-be"), "UTF-16"),
        ("a: '\ud800'", "invalid Unicode"),
    ],
)
def test_what_is_no_yaml_is_one_error(text: str | bytes, reason: str) -> None:
    """A file that cannot be read as plain values is refused with the parser's reason, and builds no object."""
    [(path, message)] = errors_of(text)
    assert path == ""
    assert message.startswith("cannot be read")
    assert reason in message


def bomb(levels: int) -> str:
    """Return aliases of aliases: 9 to the power of `levels` values, in a few lines."""
    rows = [f"  - &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, levels)]
    return "\n".join(["teams:", "  - &a0 [x, x, x, x, x, x, x, x, x]", *rows])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (bomb(20), "aliases unfold to too much"),
        ("a: &a [*a]", "aliases unfold to too much"),
        ("a: &a {b: *a}", "aliases unfold to too much"),
        ("[" * 100_000, "nested deeper than 32"),
        ("{a: " * 100_000, "nested deeper than 32"),
        ("- " * 100_000, "nested deeper than 32"),
        ("? " * 100_000, "nested deeper than 32"),
        ("keys: [" + "1," * 400_000 + "]", "more than 300000 values"),
        ("a: " + "x" * 5000, "4096 characters"),
        ("a: " + "1:" * 2500 + "1", "4096 characters"),
        ("x" * (LARGEST_POLICY_BYTES + 1), "longer than 4194304 bytes"),
    ],
    ids=lambda text: text[:24],
)
def test_a_hostile_file_meets_a_bound(text: str, reason: str) -> None:
    """Bombs of aliases, circles, depth, width, endless numbers and size end in one error, not in the interpreter."""
    [(_, message)] = errors_of(text)
    assert reason in message


def test_a_file_that_cannot_be_opened_is_one_error(tmp_path: Path) -> None:
    """No such file, or a directory: refused with the system's reason, under the file's name."""
    for path, reason in ((tmp_path / "none.yaml", "No such file"), (tmp_path, "directory")):
        with pytest.raises(PolicyError) as caught:
            load_ruleset_file(path)
        assert str(caught.value).startswith(f"{path}: cannot be read: ")
        assert reason in str(caught.value)
