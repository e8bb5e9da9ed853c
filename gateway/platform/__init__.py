"""What the machine gives: events, shared memory, limits of the container.

It knows no HTTP but its client, no fal, no money.
"""
