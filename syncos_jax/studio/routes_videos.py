"""``/v1/videos``: make, follow, cancel, watch, judge."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Path, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response
from starlette.responses import StreamingResponse

from syncos_jax.studio.api_errors import ApiError, Finding
from syncos_jax.studio.documents import preview_file, take_file, thumbnail_file
from syncos_jax.studio.responses import JsonResponse, file_response
from syncos_jax.studio.schemas import (
    DecisionBody,
    ErrorAnswer,
    Status,
    VideoAnswer,
    VideoBody,
    VideosAnswer,
)
from syncos_jax.studio.studio import Studio, digest_of, no_video
from syncos_jax.studio.video_request import video_request


def studio_of(request: Request) -> Studio:
    """The studio behind the app."""
    return request.app.state.studio


StudioDep = Annotated[Studio, Depends(studio_of)]
Id = Annotated[str, Path(pattern=r"^v[0-9a-f]{16}$", description="Of a video.")]
TakeNumber = Annotated[int, Query(ge=1, le=1000, description="Counts from 1.")]
Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=200,
        description="The same key with the same body makes one video, however often it is sent.",
    ),
]


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Of the OpenAPI document."""
    return {status: {"model": ErrorAnswer} for status in (400, 401, 403, 413, 421, 422, *statuses)}


router = APIRouter(prefix="/v1", tags=["videos"])


async def _video(studio: Studio, id: str, status: int = 200) -> Response:
    raw = await run_in_threadpool(studio.documents.json, id)
    if raw is None:
        raise no_video()
    return Response(raw, status, media_type="application/json")


@router.post(
    "/videos", status_code=202, response_model=VideoAnswer, responses=errors(404, 409, 429, 503)
)
async def make(body: VideoBody, studio: StudioDep, key: Key = None) -> Response:
    """Put a video into the queue."""

    def add() -> str:
        known = studio.jobs.by_key(key) if key is not None else None
        if known is not None and known[1] == digest_of(body):
            return known[0]
        return studio.add(body, video_request(body, studio.engine, studio.templates), key)

    return await _video(studio, await run_in_threadpool(add), 202)


@router.get("/videos", response_model=VideosAnswer, responses=errors())
def videos(
    studio: StudioDep,
    status: Annotated[Status | None, Query(description="Only of this status.")] = None,
    search: Annotated[str, Query(max_length=200, description="Words of title or prompts.")] = "",
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    after: Annotated[int | None, Query(ge=0, lt=2**62, description="`next` of before.")] = None,
) -> Response:
    """All videos, the newest first."""
    found, more = studio.jobs.history(status, search, limit, after)
    places = studio.jobs.places()
    items = [studio.documents.document(video, places) for video in found]
    return JsonResponse({"items": items, "next": None if more is None else str(more)})


@router.get("/videos/{id}", response_model=VideoAnswer, responses=errors(404))
async def video(id: Id, studio: StudioDep) -> Response:
    """A video and where it stands."""
    return await _video(studio, id)


@router.delete("/videos/{id}", response_model=VideoAnswer, responses=errors(404, 409))
async def cancel(
    id: Id,
    studio: StudioDep,
    forget: Annotated[
        bool, Query(description="Remove one that has ended, with its files.")
    ] = False,
) -> Response:
    """Cancel a video: one that waits at once, one that is being made at the next call of the
    network. With `forget`, remove one that has ended; the answer is what it was."""
    if forget:
        before = await _video(studio, id)
        await run_in_threadpool(studio.forget, id)
        return before
    await run_in_threadpool(studio.cancel, id)
    return await _video(studio, id)


@router.get(
    "/videos/{id}/content",
    response_class=Response,
    responses={
        200: {"content": {"video/mp4": {}}},
        206: {"content": {"video/mp4": {}}},
        416: {"description": "No such part."},
        **errors(404),
    },
)
def content(id: Id, studio: StudioDep, take: TakeNumber = 1) -> Response:
    """The file of a take; parts of it can be asked for (Range)."""
    return _file(studio, id, take_file, take, "video/mp4")


@router.get(
    "/videos/{id}/thumbnail",
    response_class=Response,
    responses={200: {"content": {"image/png": {}}}, **errors(404)},
)
def thumbnail(id: Id, studio: StudioDep, take: TakeNumber = 1) -> Response:
    """A small picture of a take."""
    return _file(studio, id, thumbnail_file, take, "image/png")


@router.get(
    "/videos/{id}/preview",
    response_class=Response,
    responses={200: {"content": {"image/png": {}}}, **errors(404)},
)
def preview(
    id: Id,
    studio: StudioDep,
    v: Annotated[str, Query(max_length=20, description="Ignored: it makes each address new.")] = "",
) -> Response:
    """What a video looks like while it is being made."""
    studio.find(id)
    folder = studio.documents.folder(id)
    return file_response(studio.folder, preview_file(folder), "image/png")


def _file(studio: Studio, id: str, path: Any, take: int, kind: str) -> Response:
    found = studio.find(id)
    if not any(item.take == take and item.status == "done" for item in found.takes):
        raise ApiError(404, Finding("this take is not made", "Wait until it is done", "take"))
    folder = studio.documents.folder(id)
    return file_response(studio.folder, path(folder, take), kind, "private, max-age=3600")


@router.post("/videos/{id}/decision", response_model=VideoAnswer, responses=errors(404, 409, 503))
async def decision(id: Id, body: DecisionBody, studio: StudioDep) -> Response:
    """Approve or reject a take, or take that back; with a comment."""
    await run_in_threadpool(studio.decide, id, body)
    return await _video(studio, id)


EVENTS: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {"text/event-stream": {}},
        "description": "`event: video`, `data:` the video as JSON, whenever one changes.",
    },
    **errors(404, 503),
}


@router.get("/events", response_class=StreamingResponse, responses=EVENTS)
async def events(studio: StudioDep) -> Response:
    """All videos' changes, as server-sent events."""
    return _events(studio, None)


@router.get("/videos/{id}/events", response_class=StreamingResponse, responses=EVENTS)
async def events_of_one(id: Id, studio: StudioDep) -> Response:
    """One video's changes, as server-sent events; begins with the video as it is."""
    await run_in_threadpool(studio.find, id)
    return _events(studio, id)


def _events(studio: Studio, id: str | None) -> Response:
    if studio.stopping or studio.events.full:
        raise ApiError(
            503,
            Finding("there are too many listeners", "Ask for the video now and then"),
            {"Retry-After": "10"},
        )

    def render(changed: str) -> Awaitable[bytes | None]:
        return run_in_threadpool(studio.documents.json, changed)

    return StreamingResponse(studio.events.stream(id, render), media_type="text/event-stream")
