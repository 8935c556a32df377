"""``bistil-serve`` in a process of its own."""

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self

_ROOT = Path(__file__).parents[2]


@dataclass(eq=False)
class Server:
    """A process that listens."""

    process: Process
    host: str
    port: int

    @classmethod
    async def start(cls, flags: Sequence[str], *, stack: AsyncExitStack) -> Self:
        """Start one on a free port and wait until it listens; it may still be loading. ``stack`` ends it."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "app.main", "--port", "0", *flags), stdout=PIPE, cwd=_ROOT
        )
        stack.push_async_callback(_end, process)
        assert process.stdout is not None
        async for line in process.stdout:
            message = json.loads(line)["message"]
            if "running on" in message:
                host, port = message.split("http://")[1].split(" ")[0].split(":")
                return cls(process, host, int(port))
        raise RuntimeError(f"the server ended with {await process.wait()}")

    async def is_ready(self) -> bool:
        """Whether ``/readyz`` says 200."""
        try:
            return (await self._get("/readyz")).startswith(b"HTTP/1.1 200")
        except OSError:
            return False

    async def n_counted(self) -> int:
        """The requests that ``/metrics`` has counted, whatever was answered."""
        lines = (await self._get("/metrics")).decode().splitlines()
        return int(sum(float(line.split()[-1]) for line in lines if line.startswith("bistil_requests_total")))

    async def until_ready(self) -> None:
        """Wait for ``is_ready``."""
        while not await self.is_ready():
            if self.process.returncode is not None:
                raise RuntimeError(f"the server ended with {self.process.returncode}")
            await asyncio.sleep(0.05)

    def resident_bytes(self) -> int:
        """The process' resident memory, from Linux' /proc."""
        fields = Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8")
        return 1024 * int(fields.split("VmRSS:")[1].split()[0])

    def cpu_s(self) -> float:
        """Processor seconds that the process has used, from Linux' /proc."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    async def _get(self, path: str) -> bytes:
        reader, writer = await asyncio.open_connection(self.host, self.port)
        writer.write(f"GET {path} HTTP/1.1\r\nhost: load\r\nconnection: close\r\n\r\n".encode())
        answer = await reader.read()
        writer.close()
        return answer


async def _end(process: Process) -> None:
    if process.returncode is None:
        process.kill()
        await process.wait()
