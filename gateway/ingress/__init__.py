"""Callers' HTTP/1.1: sockets, requests in order, answers framed so that a cut always shows.

Begin with connection.py. It knows no policy and no fal: who takes a request is behind `Gate` (http/interfaces.py).
"""
