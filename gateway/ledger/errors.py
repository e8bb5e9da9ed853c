"""What can be wrong with a ledger: two kinds of trouble, apart because two kinds of people mend them.

The decision: a module without a database in it, so that who only asks what went wrong need not load one. Neither text
quotes a password.
"""

from __future__ import annotations


class LedgerUnavailableError(Exception):
    """The database does not answer, or not as it should; the text says why. It may pass by itself."""


class LedgerUnusableError(Exception):
    """The URL, or the schema that is there, is none that this release can work with; the text says why."""


class LedgerNewerError(LedgerUnusableError):
    """The schema was made by a newer release than this one; the text says which, and what to do."""
