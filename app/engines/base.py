"""The engine seam: what runs one exported model. It knows no language, no task and no HTTP."""

from pathlib import Path
from typing import Protocol, Self

from app.rows import Tensors


class Engine(Protocol):
    """One loaded model. ``run`` may be called from any thread, as many calls at a time as it has ``streams``."""

    streams: int

    @classmethod
    def open(cls, folder: Path, *, file: str, device: str = "cpu", threads: int = 0, streams: int = 1) -> Self:
        """Load ``folder / file``; ``threads`` 0 leaves the number to the runtime.

        With ``streams`` calls at once are wished for, each on its part of the threads; an engine may have one only.

        :raises EngineError: the file cannot be loaded, or the device is not there.
        """
        ...

    def run(self, inputs: Tensors) -> Tensors:
        """Named (rows, longest) int64 inputs to the model's named outputs; inputs it does not declare are ignored.

        :raises EngineError: the model failed, or gave values that are not finite.
        """
        ...

    def close(self) -> None:
        """Free the model; ``run`` may not be called again."""
        ...
