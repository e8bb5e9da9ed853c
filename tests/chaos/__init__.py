"""Chaos: gateways under load and faults drawn from a seed, then the accounts compared (README.md beside this file).

Begin with `plan` (which faults, when), `site` (what runs), `callers` (who calls) and `audit` (what must hold then).
"""
