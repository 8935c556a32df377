"""The Open Inference Protocol, version 2, over the same models: BYTES in, BYTES out, each element JSON.

A model is called ``<language>-<task>``. Each element of the one input tensor is JSON of what ``inputs`` is in a request
to ``/v1``, ``parameters`` are the same, and each element of the one output tensor is JSON of what answers it.
"""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field, ValidationError
from pydantic_core import from_json, to_json

from app import __version__, exchange
from app.errors import InvalidInput, NotServed
from app.json_route import JsonRoute
from app.openapi import Responses, inference, probe, problems
from app.schemas.base import WHOLE, Closed, TaskRequest, Text, Texts
from app.schemas.shapes import SHAPES
from app.service import Service
from app.store import Served


class Carriage(Closed):
    """How clients ask for tensors to travel; those of this server always do as JSON."""

    binary_data: bool | None = None


class Tensor(Closed):
    """A vector of strings, each JSON of one input or of one answer."""

    name: str
    shape: Annotated[list[Annotated[int, WHOLE]], Field(min_length=1, max_length=1)]
    datatype: Literal["BYTES"]
    parameters: Carriage | None = None
    data: Texts


class Requested(Closed):
    """The output, called by its name."""

    name: Literal["outputs"]
    parameters: Carriage | None = None


class InferRequest(Closed):
    """One input tensor, and the task's parameters.

    ``model_name`` is what KServe's client says beside the path, and ``binary_data_output`` among the parameters what
    Triton's does.
    """

    model_name: str | None = None
    id: Text | None = None
    parameters: dict[str, Any] = Field(default={})
    inputs: Annotated[list[Tensor], Field(min_length=1, max_length=1)]
    outputs: list[Requested] | None = None


class InferResponse(BaseModel):
    """One output tensor, an answer for each element of the input."""

    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[Tensor]


class Failure(BaseModel):
    """What went wrong."""

    error: str


def _failures(*codes: int) -> Responses:
    return {code: {"model": Failure, "description": problems(code)[code]["description"]} for code in codes}


_LOOKUP = _failures(401, 403, 404, 422, 503)
_INFERENCE = inference(tags=[]) | {"responses": _failures(400, 401, 403, 404, 408, 413, 422, 500, 503, 504)}

router = APIRouter(prefix="/v2", tags=["open inference protocol"], route_class=JsonRoute)


@router.get("", responses=_failures(401))
async def server() -> Response:
    """What this server is."""
    return _json({"name": "bistil", "version": __version__, "extensions": []})


@router.get("/health/live", responses=probe())
async def live(request: Request) -> Response:
    """As /livez."""
    alive = _service(request).alive
    return _json({"live": alive}, status=200 if alive else 503)


@router.get("/health/ready", responses=probe())
async def ready(request: Request) -> Response:
    """As /readyz."""
    is_ready = _service(request).ready
    return _json({"ready": is_ready}, status=200 if is_ready else 503)


@router.get("/models/{model}", responses=_LOOKUP)
@router.get("/models/{model}/versions/{version}", responses=_LOOKUP)
async def metadata(model: str, request: Request, version: str | None = None) -> Response:
    """A model's name, versions and tensors."""
    served = _model(request, model, version)
    tensors = {key: [{"name": key, "datatype": "BYTES", "shape": [-1]}] for key in ("inputs", "outputs")}
    told = {"name": model, "versions": [str(served.bundle.manifest.revision)], "platform": served.variant.engine}
    return _json(told | tensors)


@router.get("/models/{model}/ready", responses=_LOOKUP | probe())
@router.get("/models/{model}/versions/{version}/ready", responses=_LOOKUP | probe())
async def model_ready(model: str, request: Request, version: str | None = None) -> Response:
    """200 when a model is up, and takes requests."""
    is_ready = _service(request).is_up(_model(request, model, version))
    return _json({"name": model, "ready": is_ready}, status=200 if is_ready else 503)


@router.post("/models/{model}/infer", response_model=InferResponse, **_INFERENCE)
@router.post("/models/{model}/versions/{version}/infer", response_model=InferResponse, **_INFERENCE)
async def infer(model: str, body: InferRequest, request: Request, version: str | None = None) -> Response:
    """An answer for each element of the input."""
    served = _model(request, model, version or request.query_params.get("version"))
    answers = await exchange.answer(request, _task_request(served, body), language=served.language, task=served.task)
    tensor = {
        "name": "outputs",
        "shape": [len(answers)],
        "datatype": "BYTES",
        "data": [to_json(answer).decode() for answer in answers],
    }
    told = {"model_name": model, "model_version": str(served.bundle.manifest.revision), "outputs": [tensor]}
    return _json(told if body.id is None else told | {"id": body.id})


def _model(request: Request, name: str, version: str | None) -> Served:
    language, _, task = name.rpartition("-")
    served = _service(request).model(language, task)
    if version not in (None, str(served.bundle.manifest.revision)):
        raise NotServed(f"{name} is served in version {served.bundle.manifest.revision} alone")
    return served


def _task_request(served: Served, body: InferRequest) -> TaskRequest:
    """The request to ``/v1`` that the tensor's elements make.

    :raises InvalidInput: an element is no JSON, the shape is not the data's, or the task has no requests.
    :raises RequestValidationError: the elements or the parameters are not what the task takes.
    """
    if served.task not in SHAPES:
        raise InvalidInput(f"this version has no request for the task of that bundle: {served.task}")
    (tensor,) = body.inputs
    if tensor.shape != [len(tensor.data)]:
        raise InvalidInput(f"the tensor has {len(tensor.data)} elements, and its shape says {tensor.shape}")
    parameters = {name: value for name, value in body.parameters.items() if name != "binary_data_output"}
    inputs = []
    for number, element in enumerate(tensor.data):
        try:
            inputs.append(from_json(element))
        except ValueError as error:
            raise InvalidInput(f"element {number} of the tensor is not JSON") from error
    try:
        task_request: TaskRequest = SHAPES[served.task].request.model_validate(
            {"inputs": inputs, "parameters": parameters}
        )
        return task_request
    except ValidationError as error:
        raise RequestValidationError([item | {"loc": ("body", *item["loc"])} for item in error.errors()]) from error


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


def _json(payload: Any, *, status: int = 200) -> Response:
    return Response(to_json(payload), status_code=status, media_type="application/json")
