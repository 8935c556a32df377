"""Replace a server again and again under a constant load, behind a proxy, as a rolling update does.

    python -m tests.load.rollout --replacements 10 --rate 50 --store model_store --lang ha

Each time a new process is started, the proxy sends new connections to it once it is ready, and the old one gets
SIGTERM. Exits 1 if a request failed or a server did not end with 0.
"""

import argparse
import asyncio
import itertools
import signal
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress

from tests.load import texts
from tests.load.server import Server
from tests.load.traffic import Outcome, Traffic

_PROBE_EVERY_S = 0.1


class Proxy:
    """A TCP proxy: a new connection goes to a server whose ``/readyz`` says 200, in turn."""

    def __init__(self) -> None:
        self.servers: list[Server] = []
        self._ready: list[Server] = []
        self._turn = itertools.count()

    async def listen(self) -> tuple[str, int]:
        """Begin, on a free port."""
        listener = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        self._tasks = [asyncio.create_task(listener.serve_forever()), asyncio.create_task(self._probe())]
        host, port = listener.sockets[0].getsockname()
        return host, port

    def close(self) -> None:
        """Take no more connections."""
        for task in self._tasks:
            task.cancel()

    async def _probe(self) -> None:
        while True:
            self._ready = [server for server in self.servers if await server.is_ready()]
            await asyncio.sleep(_PROBE_EVERY_S)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(len(self._ready)):
            server = self._ready[next(self._turn) % len(self._ready)]
            with suppress(OSError):
                answers, requests = await asyncio.open_connection(server.host, server.port)
                await asyncio.gather(_copy(reader, requests), _copy(answers, writer))
                return
        writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


async def rollout(flags: Sequence[str], *, path: str, replacements: int, rate: float) -> tuple[Outcome, list[int]]:
    """What became of the requests, and the exit codes of the servers that were replaced."""
    async with AsyncExitStack() as stack:
        proxy = Proxy()
        host, port = await proxy.listen()
        current = await Server.start(flags, stack=stack)
        proxy.servers.append(current)
        await current.until_ready()
        await asyncio.sleep(2 * _PROBE_EVERY_S)
        traffic = Traffic(host, port, path=path, texts=texts.made_up(), rate=rate)
        running = asyncio.create_task(traffic.run())
        codes = []
        for number in range(replacements):
            following = await Server.start(flags, stack=stack)
            proxy.servers.append(following)
            await following.until_ready()
            current.process.send_signal(signal.SIGTERM)
            codes.append(await current.process.wait())
            proxy.servers.remove(current)
            current = following
            print(f"replacement {number + 1}: exit {codes[-1]}; {traffic.outcome}", flush=True)
        traffic.stop()
        await running
        proxy.close()
        current.process.send_signal(signal.SIGTERM)
        codes.append(await current.process.wait())
    return traffic.outcome, codes


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replacements", type=int, default=10)
    parser.add_argument("--rate", type=float, default=50, help="requests a second")
    parser.add_argument("--path", default="/v1/ha/ner")
    arguments, flags = parser.parse_known_args()
    outcome, codes = asyncio.run(
        rollout(flags, path=arguments.path, replacements=arguments.replacements, rate=arguments.rate)
    )
    print(f"{arguments.replacements} replacements at {arguments.rate:g}/s: {outcome}")
    return 1 if outcome.n_failed or any(codes) else 0


if __name__ == "__main__":
    sys.exit(main())
