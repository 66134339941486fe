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

export const isOpen = (video) => ["queued", "in_progress", "cancelling"].includes(video.status);

/** Calls `listener(video)` for every change; returns what ends that. */
export function listen(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

/** Addresses relative to the page, which may be below a path of a proxy. */
function withLocalAddresses(video) {
  const local = (address) => address?.replace(/^\//, "") ?? null;
  const takes = video.takes.map((take) => ({ ...take, content: local(take.content), thumbnail: local(take.thumbnail), published: local(take.published) }));
  return { ...video, takes, preview: local(video.preview) };
}

function keep(answered) {
  const video = withLocalAddresses(answered);
  const before = known.get(video.id);
  known.set(video.id, video);
  if (JSON.stringify(before) === JSON.stringify(video)) return video;
  for (const listener of [...listeners]) listener(video, before);
  return video;
}

let clock = 0;
const told = new Map(); // the last event about a video

/**
 * Keeps the videos of an answer: of one video, or of a list of `data`. An event that came since
 * the question was asked is newer than the answer, which is then not kept. Returns the answer with
 * the newest that is known of its videos.
 */
export async function keepAnswer(answering) {
  const asked = ++clock;
  const answer = await answering;
  const newest = (video) => ((told.get(video.id) ?? 0) > asked ? known.get(video.id) : keep(video));
  return answer?.data ? { ...answer, data: answer.data.map(newest) } : answer && newest(answer);
}

function keepEvent(video) {
  told.set(video.id, ++clock);
  keep(video);
}

/** It is deleted. */
export function drop(id) {
  known.delete(id);
  told.delete(id);
}

export const fetchVideo = (id) => keepAnswer(api.video(id));

async function poll() {
  if (document.visibilityState !== "visible") return;
  try {
    const answer = await keepAnswer(api.videos({ limit: LATEST }));
    const listed = new Set(answer.data.map((video) => video.id));
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
  source.addEventListener("video", (event) => keepEvent(JSON.parse(event.data)));
  source.addEventListener("error", () => {
    startPolling();
    if (source.readyState !== EventSource.CLOSED) return; // the browser tries again by itself
    setTimeout(() => {
      stopPolling();
      watch();
    }, 15_000);
  });
}
