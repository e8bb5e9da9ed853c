"""Settings and the policy file: read, judged as a whole with every error at its line, published, and read again.

Begin with settings.py and ruleset.py. With cli the only reader of the environment.
"""
