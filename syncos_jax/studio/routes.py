"""The page, monitoring, the model, templates, plans and stories."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, UploadFile
from fastapi import Path as PathParameter
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response
from starlette.responses import FileResponse

from syncos_jax.scenario.language_model import ModelSplitter
from syncos_jax.scenario.split import split_story
from syncos_jax.studio.answers import (
    ModelAnswer,
    NameAnswer,
    PictureAnswer,
    PlanAnswer,
    StoryAnswer,
    TemplatesAnswer,
)
from syncos_jax.studio.api_errors import ApiError, Finding
from syncos_jax.studio.bodies import (
    PICTURE,
    StoryBody,
    TemplateBody,
    VideoBody,
)
from syncos_jax.studio.planning import plan as plan_of
from syncos_jax.studio.responses import JsonResponse, file_response
from syncos_jax.studio.routes_videos import StudioDep, errors
from syncos_jax.studio.video_request import video_request

PAGE = Path(__file__).parent / "page"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".mp4": "video/mp4",
}
router = APIRouter()


def _static() -> dict[str, Path]:
    """The files below ``static/`` by name; no others are served."""
    return {
        path.relative_to(PAGE).as_posix(): path
        for path in PAGE.rglob("*")
        if path.is_file() and path.suffix in TYPES
    }


_files = _static()


@router.get("/", include_in_schema=False)
async def page() -> Response:
    """The page."""
    return _page_file("index.html")


@router.get("/static/{path:path}", include_in_schema=False)
async def static(path: str) -> Response:
    """A file of the page."""
    return _page_file(path)


def _page_file(name: str) -> Response:
    path = _files.get(name)
    if path is None:
        raise ApiError(404, Finding("there is no such file"))
    return FileResponse(path, media_type=TYPES[path.suffix], headers={"Cache-Control": "no-cache"})


@router.get("/healthz", include_in_schema=False)
async def healthz(studio: StudioDep) -> Response:
    """Whether the server works; needs no token."""
    healthy, state = studio.health()
    return JsonResponse({"status": state}, 200 if healthy else 503)


@router.get("/metrics", include_in_schema=False)
def metrics(studio: StudioDep) -> Response:
    """State of the server for Prometheus; needs no token."""
    return Response(studio.metrics(), media_type="text/plain; version=0.0.4")


@router.get("/v1/model", response_model=ModelAnswer, responses=errors(503), tags=["model"])
async def model(studio: StudioDep) -> Response:
    """The model, its limits, defaults and presets."""
    return JsonResponse(await run_in_threadpool(lambda: studio.engine.facts))


@router.post(
    "/v1/pictures",
    status_code=201,
    response_model=PictureAnswer,
    responses=errors(409, 429, 503),
    tags=["pictures"],
)
async def add_picture(picture: UploadFile, studio: StudioDep) -> Response:
    """Upload a picture, for `image`, `end_image` or an event; it is stored without metadata."""
    data = await picture.read()
    answer = await studio.uploads.take(lambda: studio.add_picture(data))
    answer.status_code = 201
    return answer


@router.get(
    "/v1/pictures/{id}",
    response_class=Response,
    responses={200: {"content": {"image/png": {}}}, **errors(404)},
    tags=["pictures"],
)
def picture(
    id: Annotated[str, PathParameter(pattern=PICTURE, description="Id of a picture.")],
    studio: StudioDep,
) -> Response:
    """An uploaded picture, PNG."""
    path = studio.pictures.path(id)
    return file_response(studio.folder, path, "image/png", "private, max-age=86400")


@router.get("/v1/templates", response_model=TemplatesAnswer, responses=errors(), tags=["templates"])
def templates(studio: StudioDep) -> Response:
    """List the templates and their variables."""
    return JsonResponse({"items": studio.templates.items()})


@router.post(
    "/v1/templates",
    status_code=201,
    response_model=NameAnswer,
    responses=errors(404, 409, 503),
    tags=["templates"],
)
def save_template(body: TemplateBody, studio: StudioDep) -> Response:
    """Save a video's scenario as a template."""
    video = studio.find(body.video)
    name = studio.templates.save(
        body.name,
        video.scenario,
        video.template,
        video.variables,
        {variable.name: (variable.text, variable.description) for variable in body.variables},
    )
    return JsonResponse({"name": name}, 201)


@router.post(
    "/v1/plan", response_model=PlanAnswer, responses=errors(404, 429, 503), tags=["videos"]
)
async def plan(body: VideoBody, studio: StudioDep) -> Response:
    """The cost of a video; nothing is generated."""
    return await studio.plans.take(
        lambda: plan_of(video_request(body, studio.engine, studio.templates))
    )


@router.post("/v1/split", response_model=StoryAnswer, responses=errors(429, 503), tags=["stories"])
async def split(body: StoryBody, studio: StudioDep) -> Response:
    """Split a story into what stays the same and what happens."""
    settings = studio.settings
    splitter = None
    if settings.llm is not None and settings.llm_model is not None:
        splitter = ModelSplitter(settings.llm, settings.llm_model)
    return await studio.stories.take(
        lambda: split_story(body.story, body.events, splitter).to_dict()
    )
