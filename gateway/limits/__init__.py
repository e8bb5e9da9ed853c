"""What a request has to get before it is sent: rates, places at once, and the hold on its budgets.

Begin with limiter.py. What is remembered between requests is behind state/interface.py.
"""
