"""``/v1/videos``: create, follow, cancel, watch, review, delete.

The routes that OpenAI's video API has too answer in its shape, with further fields.
"""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Iterator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Header, Path, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response
from starlette.responses import StreamingResponse

from syncos_jax.studio.answers import (
    DeletedAnswer,
    ErrorAnswer,
    ReportAnswer,
    VideoAnswer,
    VideosAnswer,
)
from syncos_jax.studio.api_errors import ApiError, Finding
from syncos_jax.studio.bodies import (
    DecisionBody,
    MoveBody,
    Status,
    TakesBody,
    Verdict,
    VideoBody,
)
from syncos_jax.studio.documents import download_name, preview_file, thumbnail_file
from syncos_jax.studio.published import published_file
from syncos_jax.studio.responses import JsonResponse, file_response
from syncos_jax.studio.studio import Studio, digest_of, no_video
from syncos_jax.studio.video_request import video_request


def studio_of(request: Request) -> Studio:
    """The app's studio."""
    return request.app.state.studio


StudioDep = Annotated[Studio, Depends(studio_of)]
Id = Annotated[str, Path(pattern=r"^v[0-9a-f]{16}$", description="Id of a video.")]
TakeNumber = Annotated[int, Query(ge=1, le=1000, description="From 1.")]
Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=200,
        description="Repeated requests with the same key and body create one video.",
    ),
]


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Error responses for the OpenAPI document."""
    return {status: {"model": ErrorAnswer} for status in (400, 401, 403, 413, 421, 422, *statuses)}


router = APIRouter(prefix="/v1", tags=["videos"])
_VIDEO_ID = r"^v[0-9a-f]{16}$"


async def _video(studio: Studio, id: str, status: int = 200) -> Response:
    raw = await run_in_threadpool(studio.documents.json, id)
    if raw is None:
        raise no_video()
    return Response(raw, status, media_type="application/json")


@router.post(
    "/videos", status_code=202, response_model=VideoAnswer, responses=errors(404, 409, 429, 503)
)
async def create(body: VideoBody, studio: StudioDep, key: Key = None) -> Response:
    """Queue a video. A form (multipart) is accepted as well as JSON."""

    def add() -> str:
        known = studio.jobs.by_key(key) if key is not None else None
        if known is not None and known[1] == digest_of(body):
            return known[0]
        return studio.add(body, video_request(body, studio.engine, studio.templates), key)

    return await _video(studio, await run_in_threadpool(add), 202)


@router.get("/videos", response_model=VideosAnswer, responses=errors(404))
def videos(
    studio: StudioDep,
    status: Annotated[Status | None, Query(description="Only videos with this status.")] = None,
    review: Annotated[
        Verdict | None,
        Query(description="Only videos with an approved, rejected or undecided take."),
    ] = None,
    search: Annotated[str, Query(max_length=200, description="Words in title or prompts.")] = "",
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    after: Annotated[
        str | None, Query(pattern=_VIDEO_ID, description="`last_id` of the list before.")
    ] = None,
    order: Annotated[Literal["asc", "desc"], Query(description="By time of creation.")] = "desc",
) -> Response:
    """List videos, newest first."""
    start = None if after is None else studio.find(after).number
    places = studio.jobs.places()

    def matching() -> Iterator[dict[str, Any]]:
        at, more = start, True
        while more:
            found, more = studio.jobs.history(status, search, limit + 1, at, order == "asc")
            for video in found:
                document = studio.documents.document(video, places)
                if review is None or any(
                    take["content"] and take["verdict"] == review for take in document["takes"]
                ):
                    yield document
            at = found[-1].number if found else at

    found = list(itertools.islice(matching(), limit + 1))
    data = found[:limit]
    return JsonResponse(
        {
            "object": "list",
            "data": data,
            "has_more": len(found) > limit,
            "first_id": data[0]["id"] if data else None,
            "last_id": data[-1]["id"] if data else None,
        }
    )


@router.get("/videos/{id}", response_model=VideoAnswer, responses=errors(404))
async def video(id: Id, studio: StudioDep) -> Response:
    """A video and its state."""
    return await _video(studio, id)


@router.post("/videos/{id}/cancel", response_model=VideoAnswer, responses=errors(404, 409))
async def cancel(id: Id, studio: StudioDep) -> Response:
    """Cancel a video: a queued one at once, a running one after the current network call."""
    await run_in_threadpool(studio.cancel, id)
    return await _video(studio, id)


@router.delete("/videos/{id}", response_model=DeletedAnswer, responses=errors(404, 409))
async def delete(id: Id, studio: StudioDep) -> Response:
    """Delete a video that has ended, with its files and decisions."""
    await run_in_threadpool(studio.delete, id)
    return JsonResponse({"id": id, "object": "video.deleted", "deleted": True})


@router.post(
    "/videos/{id}/takes",
    status_code=202,
    response_model=VideoAnswer,
    responses=errors(404, 409, 429, 503),
)
async def more_takes(id: Id, body: TakesBody, studio: StudioDep) -> Response:
    """Queue more takes of a video, with the next seeds."""
    await run_in_threadpool(studio.add_takes, id, body.count)
    return await _video(studio, id, 202)


@router.post("/videos/{id}/place", response_model=VideoAnswer, responses=errors(404, 409))
async def move(id: Id, body: MoveBody, studio: StudioDep) -> Response:
    """Move a queued video to another position of the queue."""
    await run_in_threadpool(studio.move, id, body.place)
    return await _video(studio, id)


@router.get(
    "/videos/{id}/content",
    response_class=Response,
    responses={
        200: {"content": {"video/mp4": {}}},
        206: {"content": {"video/mp4": {}}},
        416: {"description": "No such range."},
        **errors(404, 409),
    },
)
def content(
    id: Id,
    studio: StudioDep,
    take: TakeNumber = 1,
    variant: Annotated[
        Literal["video", "thumbnail", "published"],
        Query(description="`published`: an approved take whose credentials hold the approval."),
    ] = "video",
) -> Response:
    """The file of a take, or of a range of it; named after the video's title."""
    if variant == "thumbnail":
        return thumbnail(id, studio, take)
    path = studio.take_path(id, take)
    if variant == "published":
        path = published_file(path)
    name = download_name(studio.find(id).title, take)
    return file_response(studio.folder, path, "video/mp4", "private, max-age=3600", name)


@router.get(
    "/videos/{id}/thumbnail",
    response_class=Response,
    responses={200: {"content": {"image/png": {}}}, **errors(404, 409)},
)
def thumbnail(id: Id, studio: StudioDep, take: TakeNumber = 1) -> Response:
    """A small picture of a take."""
    folder = studio.take_path(id, take).parent
    return file_response(
        studio.folder, thumbnail_file(folder, take), "image/png", "private, max-age=3600"
    )


@router.get(
    "/videos/{id}/preview",
    response_class=Response,
    responses={200: {"content": {"image/png": {}}}, **errors(404)},
)
def preview(
    id: Id,
    studio: StudioDep,
    v: Annotated[str, Query(max_length=20, description="Ignored: makes each address new.")] = "",
) -> Response:
    """A preview of the take in progress."""
    studio.find(id)
    folder = studio.documents.folder(id)
    return file_response(studio.folder, preview_file(folder), "image/png")


@router.post("/videos/{id}/decision", response_model=VideoAnswer, responses=errors(404, 409, 503))
async def decision(id: Id, body: DecisionBody, studio: StudioDep) -> Response:
    """Approve or reject a take, undo that, or comment on it."""
    await run_in_threadpool(studio.decide, id, body)
    return await _video(studio, id)


@router.get("/videos/{id}/report", response_model=ReportAnswer, responses=errors(404, 409, 429))
async def report(id: Id, studio: StudioDep) -> Response:
    """Metrics, warnings and stills of the completed takes; measured on the first request."""
    video = await run_in_threadpool(studio.find, id)
    done = [take.take for take in video.takes if take.status == "completed"]
    await run_in_threadpool(studio.take_path, id, done[0] if done else 1)
    return await studio.measuring.take(lambda: studio.reports.report(id))


EVENTS: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {"text/event-stream": {}},
        "description": "`event: video` with the video as JSON in `data:`, after each change.",
    },
    **errors(404, 503),
}


@router.get("/events", response_class=StreamingResponse, responses=EVENTS)
async def events(studio: StudioDep, request: Request) -> Response:
    """Changes of all videos, as server-sent events."""
    return _events(studio, None, request)


@router.get("/videos/{id}/events", response_class=StreamingResponse, responses=EVENTS)
async def events_of_one(id: Id, studio: StudioDep, request: Request) -> Response:
    """Changes of one video, as server-sent events; the first is its current state."""
    await run_in_threadpool(studio.find, id)
    return _events(studio, id, request)


def _events(studio: Studio, id: str | None, request: Request) -> Response:
    kind, headers = "text/event-stream", {"X-Accel-Buffering": "no"}  # nginx must not buffer it
    if request.scope.get("is_head"):
        return Response(media_type=kind, headers=headers)
    if studio.stopping or studio.events.full:
        raise ApiError(
            503,
            Finding("there are too many event streams", "Poll the video instead"),
            {"Retry-After": "10"},
        )

    def render(changed: str) -> Awaitable[bytes | None]:
        return run_in_threadpool(studio.documents.json, changed)

    stream = studio.events.stream(id, render)
    return StreamingResponse(stream, media_type=kind, headers=headers)
