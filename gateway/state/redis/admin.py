"""Money in the store as the ledger's process sees it: fills purses in, reads and corrects the sums, buries the dead.

The decisions it carries:

* Plain synchronous code beside the ledger's, over the library's connection: a second for connecting and for each
  answer, and no second try. Whoever fails asks again with the next look.
* A purse that was lost while this gateway ran stays closed for a few seconds after it was filled in, in which every
  living process states what it holds. One that is new is open at once.
* A gateway that has given no sign of life for 10 minutes is dead. Its holds become spent money; if it comes back after
  all, its next statement puts that right.
"""

from __future__ import annotations

import contextlib
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from redis.backoff import NoBackoff
from redis.connection import Connection, SSLConnection, UnixDomainSocketConnection
from redis.exceptions import RedisError
from redis.retry import Retry

from gateway.state.redis.address import parse_redis_url
from gateway.state.redis.budget_counters import purse_key
from gateway.state.redis.budget_scripts import ADD, CLOSE, CLOSE_CUT, DROP, FILL, OPEN_CUT, SWEEP, TELL
from gateway.state.redis.budget_totals import RedisBudgetTotals, Statement, parse_statement
from gateway.state.redis.job_commands import JOB_SECONDS, closing, job_key, job_text, read_job

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from gateway.policy.budget import Budget
    from gateway.policy.job import Job
    from gateway.state.redis.address import RedisAddress
    from gateway.state.redis.scripts import Script

OPENING_SECONDS: Final = 4.0
SEEN_SECONDS: Final = 600
CUT_SECONDS: Final = 10
_TIMEOUT_SECONDS: Final = 1.0
_AT_ONCE: Final = 500
_JOBS_AT_ONCE: Final = 200  # in one script, which the store runs in a millisecond
_SEEN_KEY: Final = b"fgw:{replicas}:seen"
_FENCE_KEY: Final = b"fgw:{replicas}:fence:"
_FENCE_SECONDS: Final = 86_400
_OLDEST_PROTOCOL: Final = 2
_CUT: Final = b":cut"
_FAULTS: Final = (RedisError, OSError, ValueError, TypeError, LookupError)
"""What the library raises for a store that is away, that refuses, or that answers garbage."""


class StoreUnavailableError(Exception):
    """The store did not answer, or answered what makes no sense."""


class Eviction(NamedTuple):
    """What a store does at its bound of memory (0: it has none). Any other policy than `noeviction` deletes keys."""

    policy: str
    most_bytes: int


class RedisBudgetAdmin:
    """The store of one ledger process. Every method raises StoreAwayError while the store does not answer."""

    def __init__(self, url: str, replica: str) -> None:
        """Take the store's URL and the gateway's name; ValueError where the URL is wrong. Connects to nothing."""
        self._replica: Final = replica.encode()
        self._line: Final = _Line(parse_redis_url(url))

    def show_life(self) -> list[bytes]:
        """Say that this gateway lives; return the names of all that have shown life within 10 minutes."""
        ((seconds, _),) = self._line.ask(("TIME",))
        now = int(seconds)
        said = ("ZADD", _SEEN_KEY, now + SEEN_SECONDS, self._replica)
        forgotten = ("ZREMRANGEBYSCORE", _SEEN_KEY, "-inf", now)
        return list(self._line.ask(said, forgotten, ("ZRANGEBYSCORE", _SEEN_KEY, now, "+inf"))[-1])

    def end_life(self, gateways: Iterable[str]) -> None:
        """Take gateways off the list that have ended in order, or whose journals were adopted and applied."""
        self._line.ask(("ZREM", _SEEN_KEY, *gateways))

    def purses(self, budgets: Sequence[Budget]) -> list[RedisBudgetTotals | None]:
        """Return the purses of budgets, None where one was never filled in, or was lost."""
        return self._purses([("HGETALL", purse_key(budget)) for budget in budgets])

    def _purses(self, commands: Sequence[tuple[object, ...]]) -> list[RedisBudgetTotals | None]:
        rows = self._all(commands)
        try:
            found = [dict(zip(row[::2], row[1::2], strict=True)) for row in rows]
            return [RedisBudgetTotals(row) if b"start" in row else None for row in found]
        except (LookupError, ValueError, TypeError) as fault:
            raise StoreUnavailableError("garbage") from fault

    def now(self) -> float:
        """Return the store's time, in seconds since the epoch."""
        ((seconds, microseconds),) = self._line.ask(("TIME",))
        return int(seconds) + int(microseconds) / 1e6

    def eviction(self) -> Eviction | None:
        """Return what the store does when its memory is full; None where this user may not ask."""
        fields = self._info("memory")
        if not fields:
            return None
        bound = fields.get("maxmemory", "")
        return Eviction(fields.get("maxmemory_policy", ""), int(bound) if bound.isdecimal() else 0)

    def run_id(self) -> str:
        """Return the name of this life of this server; empty where this user may not ask."""
        return self._info("server").get("run_id", "")

    def _info(self, section: str) -> dict[str, str]:
        try:
            (said,) = self._line.ask(("INFO", section))
        except StoreUnavailableError:
            return {}
        lines = said.decode(errors="replace").splitlines() if isinstance(said, bytes) else ()
        return dict(line.split(":", 1) for line in lines if ":" in line)

    def fill(  # noqa: PLR0913 (a purse's first line, by name)
        self,
        budget: Budget,
        span: tuple[int, int],
        *,
        spent_ns: int,
        jobs_ns: int,
        since: int,
        seconds: float,
        replaces: int | None = None,
        latest: int = 0,
    ) -> bool:
        """Fill a purse in that is not there, or is of the edition that it `replaces`; return whether it was so.

        `span`: start and end of the period. What was settled from `since` on processes state again. `seconds`: how long
        it stays closed. `latest`: the latest edition that is known, which the new one is later than.
        """
        words = (*span, spent_ns, jobs_ns, since, seconds, "" if replaces is None else replaces, latest)
        return bool(self._run(FILL, purse_key(budget), *words))

    def drop(self, budget: Budget, edition: int) -> None:
        """Delete a purse of an edition: it admits nothing until it is filled in."""
        self._run(DROP, purse_key(budget), edition)

    def open_cuts(self, budgets: Sequence[Budget], name: str) -> list[RedisBudgetTotals | None]:
        """Return purses, and let what is stated from here on be listed; None where there is none, or a cut is open."""
        keys = [(purse_key(budget), purse_key(budget) + _CUT) for budget in budgets]
        return self._purses([("EVAL", OPEN_CUT.text, 2, *pair, name, CUT_SECONDS) for pair in keys])

    def close_cuts(self, cuts: Mapping[Budget, RedisBudgetTotals], name: str) -> list[list[Statement] | None]:
        """Return what was stated since cuts were opened under a name; None where one cannot be told any more."""
        told = self._all(
            [
                ("EVAL", CLOSE_CUT.text, 2, purse_key(budget), purse_key(budget) + _CUT, name, cut.edition, cut.start)
                for budget, cut in cuts.items()
            ]
        )
        try:
            return [[parse_statement(text) for text in texts[1:]] if texts else None for texts in told]
        except (LookupError, ValueError, TypeError) as fault:
            raise StoreUnavailableError("garbage") from fault

    def add(self, budget: Budget, seen: RedisBudgetTotals, *, spent_ns: int, jobs_ns: int) -> bool:
        """Add to the sums of a purse; return whether it is still of the edition and period that were seen."""
        return bool(self._run(ADD, purse_key(budget), seen.edition, seen.start, spent_ns, jobs_ns))

    def sweep(self, budget: Budget, start: int, holder: bytes, *, is_gone: bool) -> int:
        """Make what a dead process holds spent; return how much. `is_gone`: it can never come back."""
        return int(self._run(SWEEP, purse_key(budget), start, holder, int(is_gone)))

    # -- jobs -------------------------------------------------------------------------------------------------------

    def fence(self) -> int | None:
        """Return the number that this gateway wrote last, as the store has it."""
        (number,) = self._line.ask(("GET", _FENCE_KEY + self._replica))
        return None if number is None else int(number)

    def write_fence(self, number: int) -> int | None:
        """Write the next number; return the one that was there until then."""
        key = _FENCE_KEY + self._replica
        former, _ = self._line.ask(("GET", key), ("SET", key, number, "EX", _FENCE_SECONDS))
        return None if former is None else int(former)

    def tell_jobs(self, jobs: Iterable[tuple[str, Job]]) -> None:
        """Bind ids to jobs, where they are not known, or their money is further along than the store knows."""
        left = iter(jobs)
        while some := list(islice(left, _JOBS_AT_ONCE)):
            keys, texts = [job_key(name) for name, _ in some], [job_text(job) for _, job in some]
            self._line.ask(("EVAL", TELL.text, len(keys), *keys, JOB_SECONDS, *texts))

    def close_job(self, job_id: str, state: int, known: Job, *, closer: bytes) -> Job | None:
        """Move a job's money up to a state; return it as it was before, None where another had closed it.

        `closer` is who closes it, and may ask again.
        """
        return read_job(self._run(CLOSE, job_key(job_id), *closing(state, closer, known)))

    def close(self) -> None:
        """Close the connection; harmless when done twice."""
        self._line.close()

    def _run(self, script: Script, *words: object) -> Any:  # noqa: ANN401 (whatever the script answers)
        return self._line.ask(("EVAL", script.text, 1, *words))[0]

    def _all(self, commands: Sequence[tuple[object, ...]]) -> list[Any]:
        told: list[Any] = []
        for first in range(0, len(commands), _AT_ONCE):
            last = first + _AT_ONCE
            told += self._line.ask(*commands[first:last])
        return told


class _Line:
    """One connection, made when it is needed, given up at the first fault.

    Without the library's pool: that takes the tickets which TLS 1.3 sends behind a handshake for a broken connection.
    """

    def __init__(self, address: RedisAddress) -> None:
        self._connection: Any = _connection(address)

    def ask(self, *commands: tuple[object, ...]) -> list[Any]:
        """Return the answers to commands; StoreAwayError where one is missing, or a refusal."""
        try:
            self._connection.send_packed_command(self._connection.pack_commands(commands), check_health=False)
            return [self._connection.read_response() for _ in commands]
        except _FAULTS as fault:
            self.close()
            raise StoreUnavailableError(type(fault).__name__) from fault

    def close(self) -> None:
        """Close the connection; harmless when done twice."""
        with contextlib.suppress(*_FAULTS):
            self._connection.disconnect()


def _connection(address: RedisAddress) -> Any:  # noqa: ANN401 (the library's types know less than half of it)
    rest: dict[str, Any] = {
        "db": address.db,
        "username": address.username,
        "password": address.password,
        "socket_timeout": _TIMEOUT_SECONDS,
        "retry": Retry(NoBackoff(), 0),
        "protocol": _OLDEST_PROTOCOL,
        "driver_info": None,  # no CLIENT SETINFO, which a user of an ACL may not be allowed
    }
    kind: Any = UnixDomainSocketConnection if address.path else SSLConnection if address.tls else Connection
    if address.path:
        return kind(path=address.path, **rest)
    rest |= {"host": address.host, "port": address.port, "socket_connect_timeout": _TIMEOUT_SECONDS}
    return kind(ssl_ca_certs=address.ca_file, **rest) if address.tls else kind(**rest)
