/** The videos that are known, kept up to date by the server's events, or by asking every 2 s. */

import { api } from "./api.js";

const POLL = 2000;
const LATEST = 30;

const known = new Map();
const listeners = new Set();
let polling = 0;
let source = null;

export const get = (id) => known.get(id);

export const busy = () => [...known.values()].filter((video) => isOpen(video));

export const isOpen = (video) => ["queued", "running", "cancelling"].includes(video.status);

/** Calls `listener(video)` for every change; returns what ends that. */
export function listen(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

export function keep(video) {
  const before = known.get(video.id);
  known.set(video.id, video);
  if (JSON.stringify(before) === JSON.stringify(video)) return video;
  for (const listener of [...listeners]) listener(video, before);
  return video;
}

/** It is deleted. */
export const drop = (id) => known.delete(id);

export async function fetchVideo(id) {
  return keep(await api.video(id));
}

async function poll() {
  if (document.visibilityState !== "visible") return;
  try {
    const answer = await api.videos({ limit: LATEST });
    answer.items.forEach(keep);
    const listed = new Set(answer.items.map((video) => video.id));
    for (const video of busy()) if (!listed.has(video.id)) await fetchVideo(video.id);
  } catch {
    // the next try comes; a page that shows a video says by itself that nothing answers
  }
}

function startPolling() {
  if (polling) return;
  polling = setInterval(poll, POLL);
  poll();
}

function stopPolling() {
  clearInterval(polling);
  polling = 0;
}

/** Server-sent events where they come through; polling until they do, and again when they break. */
export function watch() {
  poll();
  if (!("EventSource" in window)) return startPolling();
  source = new EventSource("v1/events");
  source.addEventListener("open", () => {
    stopPolling();
    poll(); // what changed in between
  });
  source.addEventListener("video", (event) => keep(JSON.parse(event.data)));
  source.addEventListener("error", () => {
    startPolling();
    if (source.readyState !== EventSource.CLOSED) return; // the browser tries again by itself
    setTimeout(() => {
      stopPolling();
      watch();
    }, 15_000);
  });
}
