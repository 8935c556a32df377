import io

from app.annotate.annotator import Result
from app.annotate.formats.base import Chunk
from app.annotate.output import Mark
from app.annotate.progress import Progress


def test_says_how_far_how_fast_and_how_long_from_this_runs_rate_alone() -> None:
    now = 100.0
    stream = io.StringIO()
    progress = Progress(
        size=2000, begun_at=Mark(position=1000, n_records=500), stream=stream, every_s=10, clock=lambda: now
    )
    for position in (1100, 1200, 1300):
        now += 5
        result = Result(
            chunk=Chunk(first=0, n=50, start=0, end=100),
            data=b"",
            faults=(),
            n_faults=0,
            n_tokens=1000,
            engine_s=4.0,
            busy_s=5.0,
            peak_bytes=7,
        )
        progress.add(result, Mark(position=position, n_records=position // 2))
    # 200 of 1000 positions, 100 records and 2000 tokens in 10 s: the 800 positions left take 40 s
    assert stream.getvalue() == "60.0 %, 600 records, 10 records/s, 200 tokens/s, 0:00:40 left\n"
    assert (progress.engine_s, progress.busy_s, progress.worker_peak_bytes) == (12, 15, 7)
