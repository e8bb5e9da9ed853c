"""The processes that `ps` shows, and how each is put together: supervisor, worker, ledger, ops, policy.

Begin with supervisor.py, then composition.py for a worker. With cli the only place that knows `Settings`.
"""
