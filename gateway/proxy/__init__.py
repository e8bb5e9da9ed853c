"""The way of one request: admitted or refused, relayed both ways, ended once, counted and logged once.

Begin with application.py, then exchange.py. It never learns that libcurl is behind the origin (upstream/interface.py).
"""
