"""A file of many megabytes, annotated with a kill -9 in the middle; every line is checked. Run by hand:

    python -m tests.app.annotate.large --megabytes 200 --workers 2

The model is the tiny bundle of the tests, a table, so that the time goes into everything but the model. The texts are
sentences of 20 to 60 random words out of 14, a tenth of them numbers; each record has an id and a source besides.
"""

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.app import tiny

ROOT = Path(__file__).parents[3]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=200)
    parser.add_argument("--workers", default="1")
    parser.add_argument("--kill-after", type=float, default=0.4, help="share of the input after which it is killed")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = tiny.write_store(folder, tasks=("ner",))
        source, target = folder / "in.jsonl", folder / "out.jsonl"
        n_records = write(source, n_bytes=options.megabytes * 1_000_000)
        print(f"{source.stat().st_size:,} bytes, {n_records:,} records", flush=True)
        command = [sys.executable, "-m", "app.annotate", str(source), str(target), "--lang", "ha", "--task", "ner"]
        command += ["--store", str(store), "--workers", options.workers, "--progress-s", "30"]
        process = subprocess.Popen(command, cwd=ROOT)
        while committed(target) < options.kill_after * source.stat().st_size:
            if process.poll() is not None:
                sys.exit("it ended before it was killed")
            time.sleep(0.2)
        process.send_signal(signal.SIGKILL)
        process.wait()
        print("killed", flush=True)
        subprocess.run(command, cwd=ROOT, check=True)
        check(source, target)
        print(f"{n_records:,} records in {target.stat().st_size:,} bytes, each once and in order")


def write(path: Path, *, n_bytes: int) -> int:
    """Write records until the file has ``n_bytes``; how many they are."""
    chance = random.Random(0)
    n = 0
    with path.open("w", encoding="utf-8") as file:
        while file.tell() < n_bytes:
            for _ in range(1000):
                words = chance.choices(tiny.WORDS, k=chance.randint(20, 60))
                words = [str(chance.randrange(10_000)) if chance.random() < 0.1 else word for word in words]
                record = {"id": n, "source": f"https://example.org/{n % 997}/{n}", "text": " ".join(words) + "."}
                file.write(json.dumps(record) + "\n")
                n += 1
    return n


def committed(target: Path) -> int:
    """The position in the input up to which ``target``'s journal says that chunks are finished."""
    journal = target.with_name(f"{target.name}.journal")
    lines = journal.read_bytes().split(b"\n")[1:-1] if journal.exists() else []
    return int(json.loads(lines[-1])["position"]) if lines else 0


def check(source: Path, target: Path) -> None:
    """Every record of ``source`` is in ``target``, once, in order, with the entities that its words say."""
    named = {word for word, label in tiny.NER_RULES.items() if label.startswith("B-")}
    with source.open(encoding="utf-8") as given, target.open(encoding="utf-8") as said:
        for expected, line in zip(given, said, strict=True):
            record = json.loads(line)
            entities = record.pop("ner")
            assert record == json.loads(expected), f"record {record['id']} differs"
            begins = [entity["word"].split()[0] for entity in entities if entity["word"].split()[0] in named]
            words = [word for word in record["text"].rstrip(".").split() if word in named]
            assert begins == words, f"record {record['id']}: {begins} for {words}"


if __name__ == "__main__":
    main()
