"""The pipeline behind LitServe: `python -m app.bench.litserve_server MODEL_FOLDER THREADS PORT`."""

import sys
from typing import Any

import litserve

from app.bench.pipeline import open_pipeline, plain

MAX_BATCH_SIZE = 32
BATCH_TIMEOUT_S = 0.005


class Api(litserve.LitAPI):  # type: ignore[misc]  # litserve is untyped
    """Requests that come within 5 ms of each other are one batch of the pipeline, of at most 32 requests."""

    def __init__(self, folder: str, threads: int) -> None:
        super().__init__(max_batch_size=MAX_BATCH_SIZE, batch_timeout=BATCH_TIMEOUT_S)
        self.folder, self.threads = folder, threads

    def setup(self, device: str) -> None:
        """Load the model in the worker."""
        self.pipeline = open_pipeline(self.folder, self.threads)

    def decode_request(self, request: dict[str, Any]) -> Any:
        """A text, or a list of them."""
        return request["inputs"]

    def predict(self, batch: list[Any]) -> list[Any]:
        """One answer a request."""
        asked = [[inputs] if isinstance(inputs, str) else inputs for inputs in batch]
        flat = [text for texts in asked for text in texts]
        answers = iter(plain(self.pipeline(flat, batch_size=MAX_BATCH_SIZE)))
        found = [[next(answers) for _ in texts] for texts in asked]
        return [own[0] if isinstance(inputs, str) else own for inputs, own in zip(batch, found, strict=True)]

    def encode_response(self, output: Any) -> Any:
        """JSON has an object at its top."""
        return {"output": output}


def main(folder: str, threads: str, port: str) -> None:
    """Serve with one worker, which has all threads."""
    server = litserve.LitServer(Api(folder, int(threads)), accelerator="cpu", timeout=False)
    server.run(host="127.0.0.1", port=int(port), log_level="error", generate_client_file=False, num_api_servers=1)


if __name__ == "__main__":
    main(*sys.argv[1:])
