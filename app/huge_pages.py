"""Memory in huge pages: an engine reads all of its weights for every text, and finds them sooner in few large pages."""

import ctypes
import re
from pathlib import Path

_MAPS = Path("/proc/self/maps")
_PRIVATE = re.compile(r"([0-9a-f]+)-([0-9a-f]+) rw-p 0+ 00:00 0 +(\[heap\])?\n")
_SIZE = 2**21
_MADV_HUGEPAGE, _MADV_COLLAPSE = 14, 25


def collapse() -> None:
    """Move what this process has allocated so far into pages of 2 MiB; where that cannot be, nothing changes.

    Addresses and contents stay. Linux 6.1 moves it at once, an older one in the background; no other system does.
    """
    if not _MAPS.exists():
        return
    madvise = ctypes.CDLL(None).madvise
    madvise.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    for begin, end, _ in _PRIVATE.findall(_MAPS.read_text(encoding="ascii", errors="replace")):
        start, stop = -(-int(begin, 16) // _SIZE) * _SIZE, int(end, 16) // _SIZE * _SIZE
        if start < stop and madvise(start, stop - start, _MADV_HUGEPAGE) == 0:
            madvise(start, stop - start, _MADV_COLLAPSE)
