"""Peak memory of reading, counting and packing text: python -m tests.distill.corpus_memory --megabytes 100."""

import argparse
import random
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

from distill import vocabulary
from distill.corpus import Blocks, lines, pack
from tests.distill.tiny import ENGLISH, HAUSA, tiny_tokenizer


def text(megabytes: float) -> Iterator[str]:
    """Lines of shuffled words, about as many bytes."""
    dice, words, written = random.Random(0), " ".join((*HAUSA, *ENGLISH)).split(), 0
    while written < megabytes * 1e6:
        line = " ".join(dice.choices(words, k=dice.randint(5, 40))) + "\n"
        written += len(line.encode())
        yield line


def peak(field: str) -> int:
    """VmHWM, all memory ever resident at once, or RssAnon, what is resident now and no mapped file, in bytes."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--megabytes", type=float, default=100.0)
    megabytes = parser.parse_args().megabytes
    tokenizer = tiny_tokenizer("xlm-roberta").backend_tokenizer
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with (folder / "ha.txt").open("w", encoding="utf-8") as stream:
            stream.writelines(text(megabytes))
        before = peak("VmHWM")
        counts = vocabulary.count(tokenizer, lines([folder], "ha"))
        pack([folder], "ha", tokenizer, length=128, heldout=0.01, out=folder / "packed")
        packed = peak("VmHWM")
        blocks = Blocks.open(folder / "packed", "ha", "train")
        for start in range(0, 3200, 32):
            blocks.take(start, 32, seed=0)
        print(f"{megabytes:.0f} MB of text, {int(counts.sum())} pieces")
        print(f"peak {packed / 1e6:.0f} MB counting and packing, {before / 1e6:.0f} MB of them before it began")
        print(f"{peak('RssAnon') / 1e6:.0f} MB, without mapped files, after reading 3,200 blocks")


if __name__ == "__main__":
    main()
