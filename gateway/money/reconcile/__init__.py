"""The ledger compared with fal's bill, and corrected by it. Begin with run.py."""
