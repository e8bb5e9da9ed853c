"""State that replicas share in Redis or Valkey, behind a breaker that no request waits for.

Begin with store.py for a worker, with admin.py for the ledger process.
"""
