"""Every paid request and what it cost, exact through any death: journals, and the database that takes them.

Begin with entry.py, then journal.py (a worker's end) and writer.py (the ledger process). It knows nothing but entries.
"""
