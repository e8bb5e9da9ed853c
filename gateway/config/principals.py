"""The keys of a policy file as principals: what they may call, and the limits that their calls meet.

The decision: a key's own limits and its team's are put together once, for paid calls and for free ones, so that a
request finds what it meets without a search.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from gateway.policy.budget import Budget
from gateway.policy.credential import ANONYMOUS, MAX_TOKEN_SECONDS, Principal
from gateway.policy.glob import GlobSet
from gateway.policy.price import NANODOLLARS, Price, picodollars_of
from gateway.policy.quota import Limit, LimitSet

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gateway.config import policy_schema as document

Owned = tuple[str, "Sequence[document.Limit]"]
"""An owner as the store names it (`key/web-prod`, `team/design`, `anonymous`), and its limits."""


def key_principal(key: document.Key, teams: Mapping[str, document.Team], *, realtime: document.Realtime) -> Principal:
    """Return the principal of a key; `teams` by id, `realtime` what holds where neither it nor its team says more."""
    team = teams.get(key.team)
    shared = [(f"team/{team.id}", team.limits)] if team else []
    paid, free = _limit_sets(key.team, (f"key/{key.id}", key.limits), *shared)
    budgets = (
        *budgets_of(f"key/{key.id}", key.budgets, tag=key.team),
        *(budgets_of(f"team/{team.id}", team.budgets, tag=key.team) if team else ()),
    )
    may_open_realtime, max_token_seconds = _realtime(
        (key.realtime, *((team.realtime,) if team else ()), realtime), is_budgeted=bool(budgets)
    )
    return Principal(
        key.id,
        key.team,
        key.expires_at.timestamp() if key.expires_at else None,
        GlobSet(tuple(key.allowed_endpoints)) if key.allowed_endpoints else None,
        key.max_body_bytes,
        paid,
        free,
        budgets=budgets,
        may_open_realtime=may_open_realtime,
        max_token_seconds=max_token_seconds,
    )


def _realtime(nearest_first: Sequence[document.Realtime], *, is_budgeted: bool) -> tuple[bool, int]:
    """Return whether realtime tokens are given out, and for how many seconds at most."""
    mode = next((each.mode for each in nearest_first if each.mode is not None), "refuse" if is_budgeted else "allow")
    seconds = (each.max_token_seconds for each in nearest_first if each.max_token_seconds is not None)
    return mode == "allow", next(seconds, MAX_TOKEN_SECONDS)


def budgets_of(owner: str, budgets: Sequence[document.Budget], *, tag: str) -> tuple[Budget, ...]:
    """Return an owner's budgets (`key/web-prod`, `team/design`); `tag` is the team, as for limits."""
    return tuple(Budget(owner, each.period, int(each.usd * NANODOLLARS), each.warn_at, tag=tag) for each in budgets)


def owned_budgets(policy: document.Document) -> dict[str, tuple[Budget, ...]]:
    """Return all budgets, by owner; who has none is not in it."""
    owned = [(f"key/{key.id}", key.team, key.budgets) for key in policy.keys]
    owned += [(f"team/{team.id}", team.id, team.budgets) for team in policy.teams]
    return {owner: budgets_of(owner, budgets, tag=team) for owner, team, budgets in owned if budgets}


def team_credentials(policy: document.Document) -> dict[str, str]:
    """Return where the fal credential of each team comes from, "" for the gateway's own."""
    places = {team.id: team.fal_key_env or team.fal_key_file or "" for team in policy.teams}
    return {ANONYMOUS.team: "", **places}


def unit_price(price: document.Price) -> Price:
    """Return a price of the file as the accounting has it."""
    picodollars = picodollars_of(price.usd)
    if picodollars is None:
        raise AssertionError("the document has judged it")
    return Price(price.unit, picodollars, price.typical_units)


def anonymous_principal(clients: document.Clients, realtime: document.Realtime) -> Principal | None:
    """Return whom callers without a key stand for, None where there may be none."""
    if not clients.allow_unauthorized_requests:
        return None
    paid, free = _limit_sets(ANONYMOUS.team, (ANONYMOUS.team, clients.anonymous.limits))
    may_open_realtime, seconds = _realtime((realtime,), is_budgeted=False)
    return replace(ANONYMOUS, paid=paid, free=free, may_open_realtime=may_open_realtime, max_token_seconds=seconds)


def _limit_sets(tag: str, *owned: Owned) -> tuple[LimitSet, LimitSet]:
    """Return what paid calls and what free calls meet, in the order of the owners and of the file.

    `tag` groups what lives on one node of a cluster: a team, since its keys share its limits.
    """
    paid = [_limit(limit, owner) for owner, limits in owned for limit in limits if limit.class_ != "free"]
    free = [_limit(limit, owner) for owner, limits in owned for limit in limits if limit.class_ != "paid"]
    return LimitSet(tag, paid), LimitSet(tag, free)


def _limit(limit: document.Limit, owner: str) -> Limit:
    return Limit(
        limit.name,
        owner,
        limit.unit,
        quota=limit.quota,
        window=limit.window or 0.0,
        burst=limit.burst,
        max_wait=limit.max_wait,
        shadow=limit.shadow,
    )
