"""What requests cost: held, settled, compared with the ledger, warned of, and shown.

Begin with accounting.py for a request, with budget_sync.py for the ledger process.
It knows no process and no listener.
"""
