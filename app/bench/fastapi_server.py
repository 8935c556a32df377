"""The pipeline behind FastAPI: `python -m app.bench.fastapi_server MODEL_FOLDER THREADS PORT`."""

import sys
from typing import Any

import uvicorn
from fastapi import Body, FastAPI

from app.bench.pipeline import open_pipeline, plain


def main(folder: str, threads: str, port: str) -> None:
    """Serve a synchronous route, which FastAPI runs in its thread pool, on the pipeline as it comes."""
    answer = open_pipeline(folder, int(threads))
    app = FastAPI()

    @app.post("/predict")
    def predict(inputs: Any = Body(embed=True)) -> Any:
        return plain(answer(inputs))

    uvicorn.run(app, host="127.0.0.1", port=int(port), log_level="error", access_log=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
