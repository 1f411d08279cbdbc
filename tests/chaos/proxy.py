"""A cable between workers and their scheduler that can be cut, slowed down, stopped and damaged."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from typing import Any


class Cable:
    """Forwards TCP connections to an address, from a thread of its own."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._delay = 0.0
        self._is_swallowing = False
        self._n_to_flip = 0
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        started = threading.Event()
        self.port = 0

        async def serve() -> None:
            server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
            self.port = server.sockets[0].getsockname()[1]
            started.set()

        def run() -> None:
            self._loop.create_task(serve())
            self._loop.run_forever()

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()
        started.wait(10)

    async def _accept(self, reader: Any, writer: Any) -> None:
        try:
            onward = await asyncio.open_connection(*self._target)
        except OSError:
            writer.close()
            return
        self._writers |= {writer, onward[1]}
        await asyncio.gather(self._pump(reader, onward[1]), self._pump(onward[0], writer))

    async def _pump(self, reader: Any, writer: Any) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while data := await reader.read(1 << 16):
                if self._delay:
                    await asyncio.sleep(self._delay)
                if self._is_swallowing:
                    continue
                if self._n_to_flip:
                    self._n_to_flip -= 1
                    at = len(data) // 2
                    data = data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :]
                writer.write(data)
                await writer.drain()
        with contextlib.suppress(OSError):
            writer.close()
        self._writers.discard(writer)

    def cut(self) -> None:
        """End all connections; new ones are taken."""
        self._loop.call_soon_threadsafe(
            lambda: [writer.transport.abort() for writer in list(self._writers)]
        )

    def delay(self, seconds: float) -> None:
        """Hold up every piece for so long."""
        self._delay = seconds

    def swallow(self, on: bool) -> None:
        """Take everything and pass nothing on: a connection that is half open."""
        self._is_swallowing = on

    def flip(self) -> None:
        """Damage one bit of what comes next."""
        self._n_to_flip += 1

    def end(self) -> None:
        self.cut()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)


def through(file: str, cable_file: str) -> Cable:
    """A cable to the scheduler of a scheduler file, and a file that leads through it."""
    with open(file, encoding="utf-8") as stream:
        place = json.load(stream)
    host, port = place["address"].rsplit("://", 1)[-1].rsplit(":", 1)
    cable = Cable(host, int(port))
    place["address"] = f"tcp://127.0.0.1:{cable.port}"
    with open(cable_file, "w", encoding="utf-8") as stream:
        json.dump(place, stream)
    return cable
