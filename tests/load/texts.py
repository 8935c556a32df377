"""Varied texts without end: lines of a folder's files, or made up."""

import lzma
import random
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

_WORDS = (
    "shugaba gwamna birnin jihar ya ta sun yana tana za a da na ga ba ce ne domin saboda wannan wata kasar Najeriya"
    " Kano Kaduna Abuja Bola Tinubu Musa Aisha mutane yara ruwa kasuwa makaranta lafiya labari shekara rana gobe jiya"
    " fara isa zama kawo samu yi ce daga zuwa cikin kan bayan kafin tsakanin wasu duk"
)


def lines(folder: Path, *, seed: int = 0, max_characters: int = 2000) -> Iterator[str]:
    """Lines of ``*.txt`` and ``*.txt.xz`` in random order, again and again; at most 50,000 are held, read at once."""
    found: list[str] = []
    for path in sorted(folder.glob("*.txt*")):
        with (lzma.open if path.suffix == ".xz" else open)(path, "rt", encoding="utf-8") as file:
            read = (line.strip()[:max_characters] for line in islice(file, 50_000))
            found += [line for line in read if line]
    generator = random.Random(seed)
    found = generator.sample(found, min(len(found), 50_000))
    return iter(lambda: generator.choice(found), None)


def made_up(*, seed: int = 0) -> Iterator[str]:
    """Hausa words in random order, log-normal in number (median 14), hardly ever the same twice."""
    generator, words = random.Random(seed), _WORDS.split()
    while True:
        yield " ".join(generator.choices(words, k=min(int(generator.lognormvariate(2.64, 0.7)) + 1, 200)))
