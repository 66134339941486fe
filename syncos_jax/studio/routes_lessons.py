"""What gets approved: lessons of the decisions, templates made from them, datasets."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response
from starlette.responses import StreamingResponse

from syncos_jax.studio import lessons as decided
from syncos_jax.studio.answers import LessonsAnswer, NameAnswer
from syncos_jax.studio.bodies import MAX_TITLE, LearnedBody
from syncos_jax.studio.responses import JsonResponse
from syncos_jax.studio.routes_videos import StudioDep, errors

router = APIRouter(prefix="/v1", tags=["lessons"])
TemplateName = Annotated[
    str | None,
    Query(min_length=1, max_length=MAX_TITLE, description="Only videos made from this template."),
]


@router.get("/lessons", response_model=LessonsAnswer, responses=errors(429))
async def lessons(studio: StudioDep, template: TemplateName = None) -> Response:
    """Which values of a template's variables and settings lead to approval."""
    return await studio.measuring.take(lambda: decided.lessons(studio, template))


@router.post(
    "/lessons/template", status_code=201, response_model=NameAnswer, responses=errors(404, 409, 503)
)
async def save_learned(body: LearnedBody, studio: StudioDep) -> Response:
    """Save a new template with the values that the decisions propose."""
    name = await run_in_threadpool(decided.save_learned, studio, body.template, body.name)
    return JsonResponse({"name": name}, 201)


@router.get(
    "/dataset",
    response_class=StreamingResponse,
    responses={200: {"content": {"application/zip": {}}}, **errors()},
)
def dataset(studio: StudioDep, template: TemplateName = None) -> Response:
    """The approved takes and ``captions.jsonl`` (prompts, seeds) in a ZIP file, for training."""
    return StreamingResponse(
        decided.dataset(studio, template),
        media_type="application/zip",
        headers={"Content-Disposition": 'attachment; filename="approved.zip"'},
    )
