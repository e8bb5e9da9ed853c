"""Pure decisions of the policy: who calls, what may be called, what it costs, which limits hold.

No I/O, no clock, no logging: each is a function of its arguments.
"""
