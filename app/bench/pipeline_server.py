"""What a user would run instead: transformers' pipeline behind FastAPI, or behind LitServe with batching.

`python -m app.bench.pipeline_server fastapi MODEL_FOLDER THREADS PORT`; the answer is the pipeline's own.
"""

import sys
from typing import Any

MAX_BATCH_SIZE = 32
BATCH_TIMEOUT_S = 0.005


def open_pipeline(folder: str, threads: int) -> Any:
    """Entities of a text or of several."""
    import torch
    from transformers import pipeline

    torch.set_num_threads(threads)
    return pipeline("token-classification", model=folder, aggregation_strategy="simple", device="cpu")


def plain(found: Any) -> Any:
    """The pipeline's answer as JSON can hold it."""
    if isinstance(found, list):
        return [plain(part) for part in found]
    return {key: float(value) if key == "score" else value for key, value in found.items()}


def fastapi(folder: str, port: int, threads: int) -> None:
    """A synchronous route, which FastAPI runs in its thread pool, on the pipeline as it comes."""
    import uvicorn
    from fastapi import Body, FastAPI

    answer = open_pipeline(folder, threads)
    app = FastAPI()

    @app.post("/predict")
    def predict(inputs: Any = Body(embed=True)) -> Any:
        return plain(answer(inputs))

    uvicorn.run(app, host="127.0.0.1", port=port, log_level="error", access_log=False)


def litserve(folder: str, port: int, threads: int) -> None:
    """Requests that come within 5 ms of each other are one batch of the pipeline, at most 32."""
    import litserve

    class Api(litserve.LitAPI):  # type: ignore[misc]
        def setup(self, device: str) -> None:
            self.answer = open_pipeline(folder, threads)

        def decode_request(self, request: dict[str, Any]) -> Any:
            return request["inputs"]

        def predict(self, batch: list[Any]) -> list[Any]:
            asked = [[inputs] if isinstance(inputs, str) else inputs for inputs in batch]
            flat = self.answer([text for texts in asked for text in texts], batch_size=MAX_BATCH_SIZE)
            answers = iter(plain(flat))
            found = [[next(answers) for _ in texts] for texts in asked]
            return [own[0] if isinstance(inputs, str) else own for inputs, own in zip(batch, found, strict=True)]

        def encode_response(self, output: Any) -> Any:
            return {"output": output}

    api = Api(max_batch_size=MAX_BATCH_SIZE, batch_timeout=BATCH_TIMEOUT_S)
    server = litserve.LitServer(api, accelerator="cpu", timeout=False)
    server.run(host="127.0.0.1", port=port, log_level="error", generate_client_file=False, num_api_servers=1)


if __name__ == "__main__":
    kind, folder, threads, port = sys.argv[1:]
    {"fastapi": fastapi, "litserve": litserve}[kind](folder, int(port), int(threads))
