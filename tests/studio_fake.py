"""The studio's server as the page sees it, in memory and without a model: for tests of the page.

It answers as docs/studio.md says; jobs go on by `FakeStudio.advance`, never by themselves, so that
a test sees every state for as long as it wants to.
"""

from __future__ import annotations

import asyncio
import copy
import itertools
import json
import threading
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, RedirectResponse, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

import syncos_jax

PAGE = Path(syncos_jax.__file__).parent / "studio" / "page"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "media-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
)
MODEL = {
    "name": "demo",
    "family": "demo",
    "width": 64,
    "height": 64,
    "fps": 8,
    "clip_frames": 8,
    "limits": {
        "events": 8, "seconds": 60, "takes": 4, "prompt_tokens": 24, "picture_bytes": 10 * 2**20,
    },
    "defaults": {"steps": 50, "guidance": 3.0, "strength": None, "seed": 0},
    "presets": [
        {"name": "published", "settings": {"steps": None, "guidance": None, "strength": None}},
        {"name": "fast", "settings": {"steps": 16, "guidance": None, "strength": 0.5}},
    ],
    "vocabulary": {
        "colours": ["red", "blue"],
        "shapes": ["ball", "box"],
        "backgrounds": ["on a green meadow"],
        "motions": ["moves to the left"],
    },
    "devices": 1,
    "rate": {"per_hour": 3.0, "currency": "EUR"},
    "marking": {"signer": "Example Studio", "watermark": False},
}  # fmt: skip
TEMPLATE = {
    "name": "Product on a place",
    "description": "A product moves, grows, and comes back.",
    "variables": [
        {"name": "product", "kind": "text", "description": "what is shown", "default": "red ball",
         "choices": None, "minimum": None, "maximum": None, "max_length": 40},
        {"name": "place", "kind": "choice", "description": "where it is", "default": "green meadow",
         "choices": ["green meadow", "sandy beach"], "minimum": None, "maximum": None,
         "max_length": None},
        {"name": "pace", "kind": "number", "description": "seconds of each event", "default": 1,
         "choices": None, "minimum": 0.5, "maximum": 4, "max_length": None},
    ],
}  # fmt: skip
MOVES = ("the {} moves to the left", "the {} grows", "the {} moves to the right")
PICTURE = "p" + "0123456789abcdef" * 2
LESSONS = {
    "templates": [{"name": TEMPLATE["name"], "decided": 24, "approved": 14}],
    "template": TEMPLATE["name"], "decided": 24, "approved": 14,
    "evidence": [
        {"factor": "place", "value": place, "approved": yes, "decided": 12, "rate": rate,
         "low": rate - 0.2, "high": min(1, rate + 0.15), "best": best, "proposed": best > 0.9}
        for place, yes, rate, best in
        [("sandy beach", 11, 0.88, 0.999), ("green meadow", 3, 0.27, 0.001)]
    ],
    "proposals": {"place": "sandy beach"},
    "trials": [{"place": "sandy beach", "sampler.steps": 20}, {"place": "green meadow"}],
}  # fmt: skip
SEES = 24  # words of a prompt and the global one that the model sees


def example(server: FakeStudio, **more: Any) -> dict[str, Any]:
    """A finished video of the template."""
    body = {"template": TEMPLATE["name"], "variables": {"place": "sandy beach"}, "takes": 2}
    video = server.add({**body, **more})
    server.finish(video["id"])
    return video


class Refused(Exception):
    def __init__(self, status: int, message: str, remedy: str = "", field: str | None = None):
        super().__init__(message)
        self.status = status
        self.error = {"message": message, "remedy": remedy, "field": field}


def scenario_of(body: dict[str, Any]) -> dict[str, Any]:
    if "template" in body:
        values = {v["name"]: v["default"] for v in TEMPLATE["variables"]} | body["variables"]
        if not 0.5 <= values["pace"] <= 4:
            raise Refused(400, "pace is not from 0.5 to 4", "give another", "variables.pace")
        moves = [move.format(values["product"]) for move in MOVES]
        scenario = {
            "global": f"a {values['product']} on a {values['place']}",
            "events": [{"prompt": move, "seconds": values["pace"]} for move in moves],
        }
    else:
        scenario = copy.deepcopy(body["scenario"])
    for index, event in enumerate(scenario["events"]):
        if "unicorn" in event["prompt"]:
            raise Refused(
                422,
                "the model knows no unicorns",
                "name another animal",
                f"events.{index}.prompt",
            )
    settings = body.get("settings") or {}
    sampler = {k: v for k, v in settings.items() if k in ("steps", "guidance", "strength")}
    if sampler:
        scenario["sampler"] = {"name": "syncos", **scenario.get("sampler", {}), **sampler}
    for key in ("size", "negative"):
        if settings.get(key):
            scenario[key] = settings[key]
    return scenario


def plan_of(body: dict[str, Any]) -> dict[str, Any]:
    scenario = scenario_of(body)
    shared = len(scenario["global"].split())
    events = []
    for event in scenario["events"]:
        words = event["prompt"].split()
        frames = round(event["seconds"] * MODEL["fps"])
        cut = " ".join(words[max(1, SEES - shared) :]) or None
        events.append({**event, "frames": frames, "cut": cut})
    frames = sum(event["frames"] for event in events)
    windows = max(1, -(-(frames - 8) // 4) + 1)
    steps = scenario.get("sampler", {}).get("steps", 50)
    return {
        "frames": frames,
        "seconds": frames / MODEL["fps"],
        "windows": windows,
        "calls": windows * steps * body["takes"],
        "memory_bytes": 214_000_000,
        "estimated_seconds": windows * steps * body["takes"] * 0.06,
        "events": events,
        "scenario": scenario,
    }


class FakeStudio:
    """State, and a server of it in a thread; `clip` is what every take turns out as."""

    def __init__(self, clip: Path, picture: Path, events: bool = True):
        self.clips, self.picture, self.with_events = [clip], picture, events  # a clip a take
        self.videos: dict[str, dict[str, Any]] = {}
        self.templates = [TEMPLATE]
        self.answers: dict[str, tuple[dict[str, Any], str]] = {}
        self.bodies: list[dict[str, Any]] = []
        self.saved: list[dict[str, Any]] = []
        self.listeners: list[tuple[asyncio.AbstractEventLoop, asyncio.Queue[Any]]] = []
        self.numbers = itertools.count(1)
        self.full = False
        self.loading = False
        self.sends = threading.Event()  # cleared: answers about one video are ready, but held back
        self.sends.set()
        self.held = 0
        self._server: uvicorn.Server | None = None

    # -- jobs --------------------------------------------------------------------------------------

    def add(self, body: dict[str, Any], status: str = "queued") -> dict[str, Any]:
        number = next(self.numbers)
        seed = body.get("seed") or 0
        takes = [self.new_take(i + 1, seed + i, status) for i in range(body["takes"])]
        video = {
            "id": f"v{number}", "title": body.get("title"), "status": status, "place": number,
            "phase": None, "step": 0, "steps": None, "seconds_left": None, "error": None,
            "object": "video", "model": "demo", "created_at": 1795600000 + 60 * number,
            "started_at": None, "completed_at": None, "device_minutes": 0.0, "progress": 0,
            "phase_seconds": None, "label": (body.get("settings") or {}).get("label"),
            "watermark": (body.get("settings") or {}).get("watermark"),
            "template": body.get("template"), "variables": body.get("variables"),
            "scenario": scenario_of(body), "seed": seed, "takes": takes, "preview": None,
        }  # fmt: skip
        self.videos[video["id"]] = video
        self.tell(video)
        return video

    @staticmethod
    def new_take(number: int, seed: int, status: str) -> dict[str, Any]:
        return {
            "take": number, "seed": seed, "status": status, "seconds": None, "content": None,
            "thumbnail": None, "published": None, "verdict": "undecided", "by": None,
            "comment": None,
            "decided_at": None, "history": [], "device_minutes": 0.0,
        }  # fmt: skip

    def advance(self, name: str, **changes: Any) -> None:
        """Changes a video, and tells everybody; ``done=2`` finishes that many of its takes."""
        video = self.videos[name]
        for take in video["takes"][: changes.pop("done", 0)]:
            root = f"v1/videos/{name}"
            take |= {
                "status": "completed", "seconds": 12.5,
                "content": f"{root}/content?take={take['take']}",
                "thumbnail": f"{root}/thumbnail?take={take['take']}",
            }  # fmt: skip
        video.update(changes)
        self.tell(video)

    def finish(self, name: str) -> None:
        self.advance(
            name,
            done=99,
            status="completed",
            phase=None,
            place=None,
            preview=None,
            seconds_left=None,
        )

    def tell(self, video: dict[str, Any]) -> None:
        said = json.dumps(video)
        for loop, queue in self.listeners:
            loop.call_soon_threadsafe(queue.put_nowait, said)

    # -- answers -----------------------------------------------------------------------------------

    async def model(self, _: Request) -> Any:
        if self.loading:
            raise Refused(503, "the model is still being loaded", "Try again in a moment")
        return MODEL

    async def list_templates(self, _: Request) -> Any:
        return {"items": self.templates}

    async def save_template(self, request: Request) -> Any:
        body = await request.json()
        self.saved.append(body)
        if body["name"] in {item["name"] for item in self.templates}:
            raise Refused(409, "there is a template of this name", "give another name", "name")
        self.templates = [*self.templates, {**TEMPLATE, "name": body["name"], "variables": []}]
        return JSONResponse({"name": body["name"]}, 201)

    async def upload(self, request: Request) -> Any:
        async with request.form() as form:
            data = await form["picture"].read()
        if not data.startswith(b"\x89PNG"):
            raise Refused(422, "not a picture that can be read", "Save it as PNG", "picture")
        return JSONResponse({"id": PICTURE, "width": 64, "height": 64}, 201)

    async def show_picture(self, _: Request) -> Any:
        return FileResponse(self.picture, media_type="image/png")

    async def lessons(self, _: Request) -> Any:
        return LESSONS if self.videos else {**LESSONS, "templates": []}

    async def save_learned(self, request: Request) -> Any:
        body = await request.json()
        self.saved.append(body)
        return JSONResponse({"name": body["name"]}, 201)

    async def plan(self, request: Request) -> Any:
        body = await request.json()
        self.bodies.append(body)
        return plan_of(body)

    async def split(self, request: Request) -> Any:
        body = await request.json()
        first, *rest = [part.strip() for part in body["story"].split(".") if part.strip()]
        if not rest:
            raise Refused(422, "the story has one sentence", "tell what happens then", "story")
        events = [{"prompt": part, "seconds": 1} for part in rest]
        return {"global": first, "events": events, "by": "rules"}

    async def make(self, request: Request) -> Any:
        body, key = await request.json(), request.headers["Idempotency-Key"]
        if self.full:
            raise Refused(429, "the queue is full", "wait until a video is done")
        if key in self.answers:
            return self.videos[self.answers[key][1]]
        video = self.add(body)
        self.answers[key] = (body, video["id"])
        return JSONResponse(video, 202)

    async def list_videos(self, request: Request) -> Any:
        query = request.query_params
        found = [
            video
            for video in reversed(self.videos.values())
            if query.get("status", video["status"]) == video["status"]
            if query.get("review", "") in ("", *(take["verdict"] for take in video["takes"]))
            if query.get("search", "").lower() in json.dumps(video).lower()
        ]
        ids = [video["id"] for video in found]
        begin = ids.index(query["after"]) + 1 if "after" in query else 0
        limit = int(query.get("limit", 50))
        data = found[begin : begin + limit]
        last = data[-1]["id"] if data else None
        return {"data": data, "has_more": begin + limit < len(found), "last_id": last}

    def of(self, request: Request) -> dict[str, Any]:
        try:
            return self.videos[request.path_params["name"]]
        except KeyError:
            raise Refused(404, "there is no such video", "see the list") from None

    async def video(self, request: Request) -> Any:
        answer = copy.deepcopy(self.of(request))
        if not self.sends.is_set():
            self.held += 1
            await asyncio.to_thread(self.sends.wait)
        return answer

    async def cancel(self, request: Request) -> Any:
        video = self.of(request)
        state = "cancelled" if video["status"] == "queued" else "cancelling"
        self.advance(video["id"], status=state)
        return video

    async def remove(self, request: Request) -> Any:
        video = self.videos.pop(self.of(request)["id"])
        return {"id": video["id"], "object": "video.deleted", "deleted": True}

    async def content(self, request: Request) -> Any:
        self.of(request)
        clip = self.clips[(int(request.query_params["take"]) - 1) % len(self.clips)]
        return FileResponse(clip, media_type="video/mp4")

    async def image(self, request: Request) -> Any:
        self.of(request)
        return FileResponse(self.picture, media_type="image/png")

    async def decide(self, request: Request) -> Any:
        video, body = self.of(request), await request.json()
        if len(body["comment"]) > 3000:
            raise Refused(422, "the comment is too long", "shorten it", "comment")
        take = video["takes"][body["take"] - 1]
        action = {"approved": "approve", "rejected": "reject", "undecided": "reopen"}
        entry = {
            "action": action.get(body["verdict"], "comment"),
            "by": body["by"],
            "at": "2026-11-25T09:30:00Z",
            "comment": body["comment"],
            "time": body.get("time"),
        }
        take["history"] = [*take["history"], entry]
        if body["verdict"]:
            take.update(verdict=body["verdict"], by=body["by"], comment=body["comment"])
            take["decided_at"] = entry["at"]
            signed = f"{take['content']}&variant=published"
            take["published"] = signed if body["verdict"] == "approved" else None
        self.tell(video)
        return video

    async def more(self, request: Request) -> Any:
        video, body = self.of(request), await request.json()
        for _ in range(body["count"]):
            last = video["takes"][-1]
            fresh = self.new_take(last["take"] + 1, last["seed"] + 1, "queued")
            video["takes"] = [*video["takes"], fresh]
        self.advance(video["id"], status="queued", place=1)
        return video

    async def move(self, request: Request) -> Any:
        video, body = self.of(request), await request.json()
        waiting = [v for v in self.videos.values() if v["status"] == "queued"]
        waiting.sort(key=lambda each: each["place"])
        waiting.remove(video)
        waiting.insert(body["place"] - 1, video)
        for place, each in enumerate(waiting, 1):
            self.advance(each["id"], place=place)
        return video

    async def report(self, request: Request) -> Any:
        takes = self.of(request)["takes"]
        pixel = "data:image/gif;base64,R0lGODlhAQABAAAAACH5BAEKAAEALAAAAAABAAEAAAICTAEAOw=="
        still = {"time": 0.5, "src": pixel}
        warning = {"kind": "Still", "text": "Event 2 hardly moves.", "time": 1.0}
        values = [{"text": "0.98", "best": True}] * len(takes)
        each = [{"take": take["take"], "reading": "", "stills": [still]} for take in takes]
        return {
            "takes": [{"take": take["take"], "warnings": [warning]} for take in takes],
            "metrics": [{"label": "Subject consistency", "help": "", "values": values}],
            "events": [{"prompt": "it moves", "takes": each}],
        }

    async def stream(self, _: Request) -> Any:
        if not self.with_events:
            raise Refused(503, "no events here")
        queue: asyncio.Queue[str] = asyncio.Queue()
        entry = (asyncio.get_running_loop(), queue)

        async def lines() -> Any:
            self.listeners.append(entry)
            try:
                yield ": hello\n\n"
                while True:
                    yield f"event: video\ndata: {await queue.get()}\n\n"
            finally:
                self.listeners.remove(entry)

        return StreamingResponse(lines(), media_type="text/event-stream")

    # -- the server --------------------------------------------------------------------------------

    def app(self) -> Starlette:
        def route(path: str, handler: Any, method: str = "GET") -> Route:
            async def answer(request: Request) -> Any:
                try:
                    said = await handler(request)
                except Refused as refused:
                    return JSONResponse(
                        {"error": refused.error}, refused.status, {"Retry-After": "1"}
                    )
                return JSONResponse(said) if isinstance(said, dict) else said

            return Route(path, answer, methods=[method])

        async def page(request: Request) -> Any:
            if "token" in request.query_params:
                return RedirectResponse("/")
            headers = {"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff"}
            return FileResponse(PAGE / "index.html", headers=headers)

        return Starlette(
            routes=[
                Route("/", page),
                Mount("/static", StaticFiles(directory=PAGE)),
                route("/v1/model", self.model),
                route("/v1/templates", self.list_templates),
                route("/v1/templates", self.save_template, "POST"),
                route("/v1/pictures", self.upload, "POST"),
                route("/v1/pictures/{name}", self.show_picture),
                route("/v1/lessons", self.lessons),
                route("/v1/lessons/template", self.save_learned, "POST"),
                route("/v1/plan", self.plan, "POST"),
                route("/v1/split", self.split, "POST"),
                route("/v1/events", self.stream),
                route("/v1/videos", self.list_videos),
                route("/v1/videos", self.make, "POST"),
                route("/v1/videos/{name}", self.video),
                route("/v1/videos/{name}", self.remove, "DELETE"),
                route("/v1/videos/{name}/cancel", self.cancel, "POST"),
                route("/v1/videos/{name}/content", self.content),
                route("/v1/videos/{name}/thumbnail", self.image),
                route("/v1/videos/{name}/preview", self.image),
                route("/v1/videos/{name}/decision", self.decide, "POST"),
                route("/v1/videos/{name}/takes", self.more, "POST"),
                route("/v1/videos/{name}/place", self.move, "POST"),
                route("/v1/videos/{name}/report", self.report),
            ]
        )

    def __enter__(self) -> FakeStudio:
        config = uvicorn.Config(
            self.app(), host="127.0.0.1", port=0, log_level="critical", timeout_graceful_shutdown=1
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        while not self._server.started:
            self._thread.join(0.02)
        return self

    @property
    def url(self) -> str:
        assert self._server is not None
        port = self._server.servers[0].sockets[0].getsockname()[1]
        return f"http://127.0.0.1:{port}/"

    def __exit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.should_exit = True
        self._thread.join(5)
