/** How far a video is: place in the queue, phase, step, remaining time. */

import { h, replace, announce } from "./dom.js";
import { t, duration, number } from "./text.js";

export const PHASES = ["loading", "compiling", "sampling", "decoding", "writing"];

export const statusChip = (video) => h("span", { class: `chip ${video.status}` }, t(`status.${video.status}`));

/** The share that is done, 0 to 1; null where nothing is known of it. */
export function share(video) {
  if (!video.steps) return null;
  const takes = Math.max(1, video.takes.length);
  const done = video.takes.filter((take) => take.status === "completed").length;
  return Math.min(1, (done + Math.min(1, (video.step || 0) / video.steps)) / takes);
}

/** "Place 2 in the queue", "Sampling, step 12 of 50": where it is, in words. */
export function stateText(video) {
  if (video.status === "queued") return t("progress.place", { n: number(video.place ?? 1) });
  if (video.status !== "in_progress") return t(`status.${video.status}`);
  const phase = video.phase ? t(`phase.${video.phase}`) : t("status.in_progress");
  const step = video.phase === "sampling" && video.steps;
  return step ? t("progress.step", { phase, step: number(video.step || 0), steps: number(video.steps) }) : phase;
}

export function timeLeft(video) {
  const left = video.seconds_left;
  const waits = ["loading", "compiling"].includes(video.phase); // nobody knows how long a compilation takes
  return video.status === "in_progress" && !waits && left !== null && left !== undefined ? t("progress.left", { time: duration(left) }) : "";
}

/** "Take 1 of 2", of several. */
function whichTake({ takes, status }) {
  if (takes.length < 2 || status !== "in_progress") return "";
  const done = takes.filter((take) => take.status === "completed").length;
  return t("progress.take", { n: Math.min(done + 1, takes.length), count: takes.length });
}

/** A small bar for a card of the history. */
export function progressOf(video) {
  if (!["queued", "in_progress"].includes(video.status)) return null;
  const part = share(video);
  return h("span", { class: "mini-progress" },
    video.status === "in_progress" && h("progress", { max: 1, value: part, "aria-label": t("progress.title") }),
    h("span", {}, [stateText(video), timeLeft(video)].filter(Boolean).join(" · ")));
}

/** The panel of one video that is not done yet: update(video) keeps it current. */
export function progressPanel(oncancel) {
  const words = h("p", { class: "progress-words" });
  const left = h("p", { class: "progress-left" });
  const hint = h("p", { class: "progress-hint", hidden: true }, t("progress.compiling"));
  const bar = h("progress", { max: 1, "aria-label": t("progress.title") });
  const phases = h("ol", { class: "phases" });
  const image = h("img", { alt: t("progress.preview"), hidden: true });
  const waiting = h("div", { class: "pulse", "aria-hidden": "true" }, h("i"), h("i"), h("i"));
  const cancel = h("button", { type: "button", class: "quiet on-dark", onclick: oncancel }, t("progress.cancel"));
  let said = "";
  let [shown, elapsed] = [null, ""];

  function update(video) {
    words.textContent = stateText(video);
    shown = video;
    tick();
    const waits = ["loading", "compiling"].includes(video.phase);
    hint.hidden = video.phase !== "compiling";
    const part = waits ? null : share(video);
    if (part === null) bar.removeAttribute("value");
    else bar.value = part;
    bar.hidden = video.status === "queued";
    const now = PHASES.indexOf(video.phase);
    replace(phases, PHASES.map((phase, i) => h("li", {
      class: i < now ? "past" : i === now ? "now" : "", "aria-current": i === now ? "step" : null }, t(`phase.${phase}`))));
    phases.hidden = video.status !== "in_progress";
    if (video.preview && image.getAttribute("src") !== video.preview) image.src = video.preview;
    screen.hidden = !video.preview && video.takes.some((take) => take.content); // the takes are on the stage
    image.hidden = !video.preview;
    waiting.hidden = Boolean(video.preview);
    cancel.disabled = video.status === "cancelling";
    speak(video, part);
  }

  /** Phases and quarters are said; every step would be too much. */
  function speak(video, part) {
    const quarter = part === null ? "" : Math.floor(part * 4);
    const state = `${video.status} ${video.place} ${video.phase} ${quarter}`;
    if (state !== said) announce([stateText(video), timeLeft(video)].filter(Boolean).join(", "));
    said = state;
  }

  const screen = h("div", { class: "screen" }, image, waiting);
  const element = h("section", { class: "stage progress", "aria-label": t("progress.title") },
    screen, h("div", { class: "progress-side" }, words, left, bar, phases, hint, cancel));
  /** The time that has passed goes on between the server's events. */
  function tick() {
    if (shown.status === "in_progress" && shown.started_at)
      elapsed = t("progress.elapsed", { time: duration(Math.max(0, Date.now() / 1000 - shown.started_at)) });
    left.textContent = [whichTake(shown), elapsed, timeLeft(shown)].filter(Boolean).join(" · ");
  }
  const clock = setInterval(() => (element.isConnected ? tick() : null), 1000);
  return { element, update, stop: () => clearInterval(clock) };
}
