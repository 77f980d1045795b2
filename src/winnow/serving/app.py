"""Addresses, and what is behind each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import FastAPI, File, Form, Request, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.routing import APIRoute
from pydantic import StringConstraints
from starlette.datastructures import FormData, QueryParams
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartParser
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from .. import __version__
from ..errors import near
from ..inference.predictor import THRESHOLD
from . import page
from .intake import Intake
from .problems import Problem, unexpected
from .schema import ClassName, Detected, Error, LimitsInfo, ModelInfo, Models, State, View
from .service import Service
from .settings import Limits
from .shield import Dress, Shield, dress

MOST_CLASSES = 256
MOST_FIELDS = MOST_CLASSES + 64
LONGEST_FIELD = 1024  # bytes
LISTS, SINGLES = {"image", "url", "classes", "show"}, {"model", "threshold", "rho", "budget_ms"}  # fields to detect
Word = Annotated[str, StringConstraints(max_length=256)]
SAID = {"value_error": "a file was expected: -F image=@street.jpg"}  # instead of what only we would understand
WORDS = {400: "malformed", 404: "not_found", 405: "method_not_allowed"}
ERRORS: dict[int | str, dict[str, Any]] = {
    code: {"model": Error, "description": text} for code, text in {
        400: "The request or an image's address is malformed.", 401: "A key is needed.",
        403: "Another site's page asks.",
        408: "The upload was too slow.", 413: "Too many bytes or pixels.", 415: "No format that is taken.",
        421: "Not a name of this server.", 422: "An argument or an image is not in order.",
        429: "Too much is waiting; `Retry-After` tells when to come again.",
        503: "No answer in time, or the models are not ready.",
    }.items()
}
GUARDED: dict[int | str, dict[str, Any]] = {code: ERRORS[code] for code in (401, 403, 421)}

MultiPartParser.spool_max_size = 2**40  # uploads are bounded by Intake and stay in memory: none touches the disk


def create_app(service: Service) -> FastAPI:
    """The application around a service; whoever started the service stops it, when all is answered."""
    settings = service.settings

    inside: list[Middleware] = [
        Middleware(Dress),
        Middleware(Intake, settings.limits, service.metrics, service.engine.patience),
        Middleware(Shield, settings.answers_to, settings.origins, settings.api_key),
    ]
    if settings.origins:
        inside.insert(0, Middleware(CORSMiddleware, allow_origins=settings.origins, allow_methods=["GET", "POST"],
                                    allow_headers=["Authorization"], expose_headers=["Retry-After"]))
    app = FastAPI(title="Winnow", version=__version__, docs_url=None, redoc_url=None, middleware=inside,
                  redirect_slashes=False,
                  description="Detection transformers that compute only the tokens that matter.",
                  exception_handlers={HTTPException: _problem, RequestValidationError: _wrong, Exception: _unexpected})
    app.router.route_class = _route(settings.limits)
    _api(app, service)
    _state(app, service)
    page.add_to(app)
    return app


def _api(app: FastAPI, service: Service) -> None:
    limits = service.settings.limits

    @app.post("/v1/detect", response_model_exclude_none=True, responses=ERRORS)
    async def detect(
        request: Request,
        image: Annotated[list[UploadFile], File(description="one or more images")] = [],  # noqa: B006
        url: Annotated[list[Word], Form(description="addresses of images, where the server allows them")] = [],  # noqa: B006
        model: Annotated[Word | None, Form(description="by default the first of /v1/models")] = None,
        threshold: Annotated[float, Form(ge=0, le=1, allow_inf_nan=False, description="lowest score")] = THRESHOLD,
        rho: Annotated[float | None, Form(gt=0, le=1, allow_inf_nan=False,
                                          description="share of the tokens that a sparse model keeps")] = None,
        budget_ms: Annotated[float | None, Form(gt=0, le=1e6, allow_inf_nan=False, description=(
            "milliseconds in the network for each image, from which rho is chosen by measured times"))] = None,
        classes: Annotated[list[Word], Form(max_length=MOST_CLASSES, description="only these classes")] = [],  # noqa: B006
        show: Annotated[list[View], Form(max_length=3, description="what else to tell")] = [],  # noqa: B006
    ) -> Detected:
        """Find objects on images. Boxes are in pixels of each image as displayed, best first."""
        _check_names(request.query_params, await request.form())
        asked = service.asked(model, threshold, rho, budget_ms, classes, show)
        if url and not service.settings.urls:
            raise Problem(400, "urls_closed", "this server takes uploads only; it was started without --allow-urls")
        if not 1 <= len(image) + len(url) <= limits.images:
            raise Problem(422, "no_image" if not image and not url else "too_many_images",
                          f"send 1 to {limits.images} images, each as a file in a field called image")
        uploads = [(f"image {i}", await each.read()) for i, each in enumerate(image)]
        await request.close()  # the form holds everything once more
        return await service.detect(asked, uploads, url, _hung_up(request))

    @app.get("/v1/models", responses=GUARDED)
    async def models() -> Models:
        """The models, and what a request may ask."""
        return Models(models=[_info(service, name) for name in service.cards], limits=LimitsInfo(
            upload_bytes=limits.upload, pixels=limits.pixels, images=limits.images, seconds=limits.seconds,
            urls=service.settings.urls))


def _state(app: FastAPI, service: Service) -> None:
    @app.head("/healthz", include_in_schema=False)
    @app.get("/healthz")
    async def healthz() -> State:
        """The server lives."""
        return State(status="ok")

    @app.head("/readyz", include_in_schema=False)
    @app.get("/readyz", responses={503: {"model": State}})
    async def readyz() -> Response:
        """The models are loaded and warm, and the worker is there."""
        ready = service.engine.ready
        return JSONResponse({"status": "ok" if ready else "not ready"}, 200 if ready else 503)

    @app.get("/metrics", responses={200: {"content": {"text/plain": {}}}, **GUARDED}, response_class=Response)
    async def metrics() -> Response:
        """Counters in the format of Prometheus."""
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4")


def _info(service: Service, name: str) -> ModelInfo:
    card = service.cards[name]
    return ModelInfo(name=name, classes=[ClassName(id=number, name=text) for number, text in card.classes],
                     sparse=card.sparse, rho=card.rho, size=card.size, longest=card.longest, parameters=card.parameters,
                     milliseconds={f"{rho:g}": round(each, 1) for rho, each in zip(
                         card.measured.shares, card.measured.milliseconds, strict=True)})


def _check_names(query: QueryParams, form: FormData) -> None:
    """A Problem for arguments that would be overlooked: with a slip in the name, told twice, or in the address."""
    if query:
        raise Problem(422, "wrong_argument", "arguments are fields of the form, not of the address: -F rho=0.1")
    for name, values in Counter(name for name, _ in form.multi_items()).items():
        if name not in LISTS | SINGLES:
            raise Problem(422, "wrong_argument", f"a field has a name that is not known; {near(name, LISTS | SINGLES)}")
        if name in SINGLES and values > 1:
            message = f"{name} is there {values} times; give it once"
            raise Problem(422, "wrong_argument", message, fields={name: message})


def _route(limits: Limits) -> type[APIRoute]:
    """Routes whose forms are forms with files, of a bounded number of parts."""
    class Upload(Request):
        def form(self, **_: Any) -> Any:
            kind = self.headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind != "multipart/form-data":
                raise Problem(415, "no_form", "send a form with files (multipart/form-data), such as: "
                                              "curl -F image=@street.jpg")
            charsets = self.headers["content-type"].lower().split("charset")[1:]
            if not all(each.lstrip("*= \"'").startswith("utf-8") for each in charsets):  # reading some takes ages
                raise Problem(415, "no_form", "the names and fields of a form are UTF-8; leave the charset out")
            return super().form(max_files=limits.images + 1, max_fields=MOST_FIELDS, max_part_size=LONGEST_FIELD)

    class Route(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Any]:
            handle = super().get_route_handler()

            async def handled(request: Request) -> Response:
                return await handle(Upload(request.scope, request.receive))

            return handled

    return Route


async def _hung_up(request: Request) -> None:
    """Ends when the client does; the body has been read by now, so nothing else can come."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _problem(_: Request, error: Any) -> Response:
    if isinstance(error, Problem):
        return error.answer()
    return Problem(error.status_code, WORDS.get(error.status_code, "refused"), str(error.detail),
                   headers=error.headers).answer()


async def _wrong(_: Request, error: Any) -> Response:
    """Arguments that are not in order: where, and what was expected; what came is not repeated."""
    fields = {".".join(map(str, each["loc"][1:])) or "request": SAID.get(each["type"], each["msg"])
              for each in error.errors()}
    return Problem(422, "wrong_argument", "; ".join(f"{name}: {said}" for name, said in fields.items()),
                   fields=fields).answer()


async def _unexpected(*_: Any) -> Response:
    """A mistake of ours, which is answered outside of all that is inside."""
    answer = unexpected().answer()
    dress(answer.headers)
    return answer
