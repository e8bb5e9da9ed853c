"""Rules of an emulator inside somebody else's loop."""

from __future__ import annotations

import asyncio
import json

from gateway.emulator.server import listen

RUN = b"POST /fal-ai/flux/dev HTTP/1.1\r\nHost: fal.run\r\nAuthorization: Key a:b\r\nContent-Length: 2\r\n%b\r\n{}"
SECONDS = 10.0


async def quiet(tasks: set[asyncio.Task[object]]) -> None:
    """Return when no task beyond these is left."""
    async with asyncio.timeout(SECONDS):
        while left := asyncio.all_tasks() - tasks:
            await asyncio.wait(left)


async def ask_and_leave() -> bytes:
    """Run once, leave a second run while it stalls, and return the first answer's content."""
    server, port = listen(host="127.0.0.1", port=0, key=None)
    mine = asyncio.all_tasks()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(RUN % b"")
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
    content = await reader.readexactly(length)
    writer.write(RUN % b"x-fal-emulate: stall\r\n")
    await reader.readuntil(b"\r\n\r\n")
    writer.close()
    await writer.wait_closed()
    await quiet(mine)
    server.stop()
    server.stop()
    await server.close_all_connections()
    return content


def test_it_listens_in_a_running_loop() -> None:
    """`listen` starts an emulator on any free port of a running loop; a peer that leaves leaves no task behind."""
    assert json.loads(asyncio.run(ask_and_leave()))["bytes"] == 2
