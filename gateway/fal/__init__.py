"""What fal's URLs, fields and statuses mean. Pure: no I/O and no clock.

Begin with calls.py. Another vendor would be a folder beside this one.
"""
