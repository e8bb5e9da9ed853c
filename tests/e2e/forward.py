"""Stands for a Service within a pod's network: `forward.py HOST PORT TARGET_PORT` passes connections on.

It runs in a container of the image, with nothing but Python's own library.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from typing import Final

PIECE_BYTES: Final = 65536


async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass on what comes, as it comes, and its end; a side that has gone ends it."""
    with contextlib.suppress(OSError):
        while piece := await reader.read(PIECE_BYTES):
            writer.write(piece)
            await writer.drain()
        writer.write_eof()


async def serve(host: str, port: int, target_port: int) -> None:
    """Forward until it is killed."""

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(host, target_port)
            await asyncio.gather(pass_on(reader, far_writer), pass_on(far_reader, writer))
            far_writer.close()
        finally:
            writer.close()

    server = await asyncio.start_server(forward, host, port)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
