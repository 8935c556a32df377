"""The table of a SentencePiece normaliser: what each string of characters becomes, as a double array (darts-clone).

Three quarters of a trimmed tokenizer's file are this table, nearly all of it for scripts that its pieces do not have.
"""

import base64
import struct
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from app.errors import DataError

_LEAF, _END = 1 << 8, 1 << 31
_LABEL = _END | 0xFF


def prune(normalizer: dict[str, Any] | None, alphabet: Collection[str]) -> None:
    """Cut, in place, every `Precompiled` table in a tokenizer.json's normaliser to what concerns `alphabet`.

    A text of these characters, or of what becomes them, is normalised as before. Other characters were unknown and stay
    so, but a known mark that one of them bears may be left where it was taken away, or the reverse.
    """
    if normalizer is None:
        return
    for inner in normalizer.get("normalizers", ()):
        prune(inner, alphabet)
    if normalizer["type"] == "Precompiled":
        table = read(base64.b64decode(normalizer["precompiled_charsmap"]))
        known = {key: new for key, new in table.items() if not new or not set(key + new).isdisjoint(alphabet)}
        normalizer["precompiled_charsmap"] = base64.b64encode(write(known)).decode("ascii")


def read(charsmap: bytes) -> dict[str, str]:
    """The strings of a table and what each becomes; of strings that begin with another one, which `tokenizers` never
    gets to, that one alone. Raises DataError where the table is broken.
    """
    try:
        (size,) = struct.unpack_from("<I", charsmap)
        units = struct.unpack_from(f"<{size // 4}I", charsmap, 4)
        pool = charsmap[4 + size :]
        return {
            key.decode("utf-8"): pool[start : pool.index(b"\0", start)].decode("utf-8") for key, start in _leaves(units)
        }
    except (struct.error, IndexError, ValueError) as error:
        raise DataError("the tokenizer's table of normalised characters (precompiled_charsmap) is broken") from error


def write(table: Mapping[str, str]) -> bytes:
    """The reverse of `read`."""
    starts: dict[str, int] = {}
    pool = bytearray()
    for new in table.values():
        if new not in starts:
            starts[new] = len(pool)
            pool += new.encode("utf-8") + b"\0"
    units = _double_array({key.encode("utf-8"): starts[new] for key, new in table.items()})
    return struct.pack(f"<I{len(units)}I", 4 * len(units), *units) + bytes(pool)


def _leaves(units: Sequence[int]) -> Iterator[tuple[bytes, int]]:
    waiting, n_seen = [(0, b"")], 0
    while waiting:
        at, key = waiting.pop()
        base = at ^ _offset(units[at])
        if units[at] & _LEAF:
            yield key, units[base] & ~_END
            continue
        n_seen += 1
        if n_seen > len(units):
            raise ValueError("the double array has a loop")
        for byte in range(1, 256):
            child = base ^ byte
            if child < len(units) and units[child] & _LABEL == byte:
                waiting.append((child, key + bytes([byte])))


def _offset(unit: int) -> int:
    return (unit >> 10) << ((unit & (1 << 9)) >> 6)


def _double_array(values: Mapping[bytes, int]) -> list[int]:
    """Units whose children lie at `base ^ byte`, each with a base of its own, where the value of its string lies."""
    children: dict[bytes, list[int]] = {b"": []}
    for key in sorted(values):
        for n in range(len(key)):
            if key[: n + 1] not in children:
                children[key[: n + 1]] = []
                children[key[:n]].append(key[n])

    units, used, bases, free = [0] * 256, {0}, {0}, 1
    waiting = [(0, b"")]
    while waiting:
        at, prefix = waiting.pop()
        slots = [*([0] if prefix in values else []), *children[prefix]]
        while free in bases:
            free += 1
        base = free
        while base in bases or any(base ^ slot in used for slot in slots):
            base += 1
        bases.add(base)
        units += [0] * (256 * (1 + base // 256) - len(units))
        used.update(base ^ slot for slot in slots)
        units[at] |= (base ^ at) << 10
        if prefix in values:
            units[at] |= _LEAF
            units[base] = values[prefix] | _END
        for byte in children[prefix]:
            units[base ^ byte] = byte
            waiting.append((base ^ byte, prefix + bytes([byte])))
    return units
