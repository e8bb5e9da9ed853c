"""The gateway with its standard error elsewhere: `python stderr_to.py PATH ARGUMENTS`, a pipe, a terminal, or a file.

Where FILE_BYTES is set, no file of the gateway's may grow beyond so many bytes, as on a disk that is full.
"""

from __future__ import annotations

import os
import resource
import sys

from gateway.cli.main import main

place, *arguments = sys.argv[1:]
fd = os.open(place, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOCTTY, 0o600)
os.dup2(fd, 2)
os.close(fd)
most_bytes = os.environ.get("FILE_BYTES")
if most_bytes:
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(most_bytes), resource.RLIM_INFINITY))
sys.exit(main(arguments))
