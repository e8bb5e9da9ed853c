"""Money in the store as the ledger's process sees it: fills lost purses in, reads the sums, and buries the dead.

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
from typing import TYPE_CHECKING, Any, Final

from redis.backoff import NoBackoff
from redis.connection import Connection, SSLConnection, UnixDomainSocketConnection
from redis.exceptions import RedisError
from redis.retry import Retry

from gateway.state.redis_address import parse_redis_url
from gateway.state.redis_job_commands import JOB_SECONDS, closing, job_key, job_text, read_job
from gateway.state.redis_purse_scripts import ADJUST, CLOSE, FILL, STATE, SWEEP
from gateway.state.redis_registers import purse_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from gateway.policy.budget import Budget
    from gateway.policy.job import Job
    from gateway.state.last_words import LastWord
    from gateway.state.redis_address import RedisAddress
    from gateway.state.redis_scripts import Script

OPENING_SECONDS: Final = 4.0
SEEN_SECONDS: Final = 600
_TIMEOUT_SECONDS: Final = 1.0
_AT_ONCE: Final = 500
_SEEN_KEY: Final = b"fgw:{replicas}:seen"
_JOBS_KEY: Final = b"fgw:{replicas}:jobs"
_OLDEST_PROTOCOL: Final = 2
_GRANTED, _NET = b"g:", b"n:"
_FAULTS: Final = (RedisError, OSError, ValueError, TypeError, LookupError)
"""What the library raises for a store that is away, that refuses, or that answers garbage."""


class StoreAwayError(Exception):
    """The store did not answer, or answered what makes no sense."""


class SharedPurse:
    """One budget's sums in nanodollars, and what each process holds, by its name (`<gateway>:<pid>`)."""

    __slots__ = ("edition", "held_ns", "holders", "jobs_ns", "spent_ns", "start")

    def __init__(self, row: Mapping[bytes, bytes]) -> None:
        self.start: Final = int(row[b"start"])
        self.edition: Final = int(row[b"edition"])
        jobs_ns = int(row[b"jobs"])  # below 0: of jobs whose holds became spent when their process died
        self.spent_ns: Final = int(row[b"spent"]) + min(0, jobs_ns)
        self.jobs_ns: Final = max(0, jobs_ns)
        self.held_ns: Final = max(0, int(row[b"held"]))
        self.holders: Final[dict[bytes, int]] = {}
        for name, value in row.items():
            if name[:2] in (_GRANTED, _NET):
                self.holders[name[2:]] = self.holders.get(name[2:], 0) + int(value)


class RedisBooks:
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

    def purses(self, budgets: Sequence[Budget]) -> list[SharedPurse | None]:
        """Return the purses of budgets, None where one was never filled in, or was lost."""
        rows = self._all([("HGETALL", purse_key(budget)) for budget in budgets])
        try:
            return [SharedPurse(dict(zip(row[::2], row[1::2], strict=True))) if row else None for row in rows]
        except (LookupError, ValueError, TypeError) as fault:
            raise StoreAwayError("garbage") from fault

    def fill(  # noqa: PLR0913 (a purse's first line, by name)
        self, budget: Budget, span: tuple[int, int], *, spent_ns: int, jobs_ns: int, since: int, seconds: float
    ) -> bool:
        """Fill a purse in that is not there; return whether it was not.

        `span`: start and end of the period. What was settled from `since` on is not in the sums: processes state it.
        `seconds`: how long it stays closed.
        """
        words = (*span, spent_ns, jobs_ns, since, seconds)
        return bool(self._run(FILL, purse_key(budget), *words))

    def sweep(self, budget: Budget, start: int, holder: bytes, *, is_gone: bool) -> int:
        """Make what a dead process holds spent; return how much. `is_gone`: it can never come back."""
        return int(self._run(SWEEP, purse_key(budget), start, holder, int(is_gone)))

    def testify(self, budget: Budget, holder: bytes, word: LastWord) -> None:
        """State what a dead process had to say of a purse, in its name; told twice it changes nothing.

        The store takes it in the edition that it was said in, in place of what it was told, and of what it has granted.
        """
        figures = (word.held_ns, 0, word.spent_ns, word.jobs_ns)
        self._run(STATE, purse_key(budget), holder, 0, word.start, word.edition, *figures)

    def adjust(self, budget: Budget, start: int, *, spent_ns: int, jobs_ns: int) -> None:
        """Add to the sums of a purse, in the period that began at `start`, if that is the present one."""
        self._run(ADJUST, purse_key(budget), start, spent_ns, jobs_ns)

    # -- jobs -------------------------------------------------------------------------------------------------------

    def knows_jobs(self) -> bool:
        """Return whether the open jobs of the ledger were told to the store since it was lost last."""
        return self._line.ask(("GET", _JOBS_KEY))[0] is not None

    def tell_jobs(self, jobs: Iterable[tuple[str, Job]]) -> None:
        """Bind ids to jobs, where they are not known."""
        self._all([("SET", job_key(name), job_text(job), "EX", JOB_SECONDS, "NX") for name, job in jobs])
        self._line.ask(("SET", _JOBS_KEY, 1, "EX", JOB_SECONDS))

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
            raise StoreAwayError(type(fault).__name__) from fault

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
