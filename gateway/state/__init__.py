"""What is remembered between requests: limits, budgets and queue jobs, in this gateway's memory or in Redis.

Begin with interface.py, the seam; memory/ and redis/ are the two homes of it.
"""
