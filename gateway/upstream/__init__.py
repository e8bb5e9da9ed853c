"""The way to the origin: transfers over libcurl's multi handle.

Begin with interface.py, the seam, then carrier.py. The only room that uses pycurl on the data path; it knows no policy.
"""
