/** Takes side by side, played together: one clock for all of them. */

import { h, replace, iconButton, icon } from "./dom.js";
import { t, number, seconds } from "./text.js";
import { lengthBar } from "./events.js";

const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

export const letterOf = (index) => String.fromCharCode(65 + (index % 26));

/** `takes`: [{take, content}]; `events`: [{prompt, seconds}]. Returns {element, stop(), go(event)}. */
export function stage({ takes, events, fps, title }) {
  return new Stage(takes, events, fps, title);
}

class Stage {
  constructor(takes, events, fps, title) {
    Object.assign(this, { events, fps, playing: false, time: 0, loop: true });
    this.starts = events.reduce((starts, event) => [...starts, starts.at(-1) + event.seconds], [0]);
    this.videos = takes.map((take) => h("video", {
      src: take.content, preload: "auto", playsinline: true, muted: true, tabindex: "-1",
      "aria-label": t("stage.take", { letter: letterOf(take.take - 1) }) }));
    for (const video of this.videos) {
      video.muted = true;
      video.addEventListener("click", () => this.toggle());
      video.addEventListener("loadedmetadata", () => this.show());
    }
    this.screens = h("div", { class: `screens of-${Math.min(takes.length, 4)}` }, takes.map((take, i) =>
      h("figure", { class: "screen" }, this.videos[i],
        h("figcaption", { class: `letter l${(take.take - 1) % 6}`, "aria-hidden": "true" }, letterOf(take.take - 1)))));
    this.element = h("section", { class: "stage", "aria-label": title, onkeydown: (event) => this.key(event) },
      this.screens, this.transport());
    this.show();
  }

  transport() {
    this.play = iconButton("play", t("stage.play"), () => this.toggle(), { class: "icon-button play" });
    this.clock = h("output", { class: "clock" });
    this.now = h("p", { class: "now" });
    this.slider = h("input", { type: "range", min: 0, step: 1, value: 0, "aria-label": t("stage.position"),
      oninput: () => this.seek((Number(this.slider.value) + 0.5) / this.fps) });
    const repeat = iconButton("loop", t("stage.loop"), () => {
      this.loop = !this.loop;
      repeat.setAttribute("aria-pressed", this.loop);
    }, { "aria-pressed": "true" });
    const rate = h("select", { "aria-label": t("stage.speed"), onchange: () => {
      for (const video of this.videos) video.playbackRate = Number(rate.value);
    } }, [0.25, 0.5, 1, 2].map((value) => h("option", { value, selected: value === 1 }, `${number(value)}×`)));
    const wipe = this.videos.length > 1 && this.wipeControls();
    this.bar = lengthBar(this.events, (index) => this.go(index));
    return h("div", { class: "transport" },
      h("div", { class: "transport-line" }, this.play,
        iconButton("back", t("stage.back"), () => this.step(-1)), iconButton("forth", t("stage.forth"), () => this.step(1)),
        this.clock, this.now, wipe && wipe.toggle, repeat, rate),
      wipe && wipe.panel, this.bar, this.slider);
  }

  /** Two takes on top of each other, divided by a line that moves. */
  wipeControls() {
    const letters = [...this.screens.querySelectorAll(".letter")].map((node) => node.textContent);
    const figures = [...this.screens.children];
    const pick = (chosen) => h("select", { "aria-label": t("stage.wipe.takes"), onchange: () => show() },
      letters.map((letter, i) => h("option", { value: i, selected: i === chosen }, letter)));
    const [under, over] = [pick(0), pick(1)];
    const line = h("input", { type: "range", min: 0, max: 100, value: 50, "aria-label": t("stage.wipe.position"), oninput: () => show() });
    const panel = h("div", { class: "wipe", hidden: true }, under, line, over);
    const show = () => {
      const on = !panel.hidden;
      this.screens.classList.toggle("wiping", on);
      this.screens.style.setProperty("--wipe", `${line.value}%`);
      figures.forEach((figure, i) => {
        figure.classList.toggle("under", on && i === Number(under.value));
        figure.classList.toggle("over", on && i === Number(over.value) && over.value !== under.value);
      });
    };
    const toggle = h("button", { type: "button", class: "quiet on-dark wipe-toggle", "aria-pressed": "false", onclick: () => {
      panel.hidden = !panel.hidden;
      toggle.setAttribute("aria-pressed", String(!panel.hidden));
      show();
    } }, t("stage.wipe"));
    return { toggle, panel };
  }

  get lead() {
    return this.videos.reduce((best, video) => ((video.duration || 0) > (best.duration || 0) ? video : best), this.videos[0]);
  }

  get length() {
    return this.lead?.duration || this.starts.at(-1) || 1 / this.fps;
  }

  show() {
    const frames = Math.max(1, Math.round(this.length * this.fps));
    const frame = clamp(Math.floor(this.time * this.fps + 1e-6), 0, frames - 1);
    const event = this.eventAt((frame + 0.5) / this.fps);
    this.slider.max = frames - 1;
    this.slider.value = frame;
    this.clock.textContent = t("stage.clock", { time: seconds(Math.round(this.time * 100) / 100), frame: frame + 1, frames });
    this.slider.setAttribute("aria-valuetext", `${this.clock.textContent}, ${t("event.title", { n: event + 1 })}`);
    const text = this.events[event]?.prompt || "";
    if (this.now.textContent !== text) this.now.textContent = text;
    [...this.bar.children].forEach((part, i) => part.classList.toggle("here", i === event));
  }

  eventAt(time) {
    const after = this.starts.findIndex((start) => start > time);
    return after < 0 ? this.events.length - 1 : Math.max(0, after - 1);
  }

  seek(time) {
    this.time = clamp(time, 0, this.length - 0.5 / this.fps);
    for (const video of this.videos)
      video.currentTime = Math.min(this.time, Math.max(0, (video.duration || this.length) - 0.5 / this.fps));
    this.show();
  }

  go(event) {
    this.seek(this.starts[event] + 0.5 / this.fps);
  }

  step(by) {
    this.pause();
    this.seek((Math.floor(this.time * this.fps + 1e-6) + by + 0.5) / this.fps);
  }

  toggle() {
    if (this.playing) this.pause();
    else this.start();
  }

  start() {
    if (this.time >= this.length - 1 / this.fps) this.seek(0);
    this.playing = true;
    this.sign("pause", t("stage.pause"));
    for (const video of this.videos) video.play().catch(() => {});
    requestAnimationFrame(() => this.tick());
  }

  pause() {
    if (!this.playing) return;
    this.playing = false;
    this.sign("play", t("stage.play"));
    for (const video of this.videos) video.pause();
    this.time = this.lead.currentTime; // not the last tick's, which is old on a busy machine
    this.seek((Math.floor(this.time * this.fps + 1e-6) + 0.5) / this.fps); // all on the same frame
  }

  sign(name, label) {
    replace(this.play, icon(name));
    this.play.setAttribute("aria-label", label);
    this.play.title = label;
  }

  tick() {
    if (!this.playing) return;
    const { lead } = this;
    this.time = lead.currentTime;
    if (lead.ended || this.time >= this.length - 0.02) {
      if (!this.loop) return this.pause();
      this.seek(0);
      for (const video of this.videos) video.play().catch(() => {});
    }
    for (const video of this.videos) {
      const late = Math.abs(video.currentTime - this.time);
      if (video !== lead && this.time < video.duration - 0.1 && late > Math.max(0.12, 1 / this.fps)) video.currentTime = this.time;
    }
    this.show();
    requestAnimationFrame(() => this.tick());
  }

  key(event) {
    const { target } = event;
    if (event.ctrlKey || event.metaKey || event.altKey || target.matches("select")) return;
    if (event.key.startsWith("Arrow") && target.matches("input")) return;
    const actions = { ArrowLeft: () => this.step(-1), ArrowRight: () => this.step(1), k: () => this.toggle() };
    if (!actions[event.key]) return;
    event.preventDefault();
    actions[event.key]();
  }

  stop() {
    this.playing = false;
    for (const video of this.videos) {
      video.pause();
      video.removeAttribute("src");
      video.load(); // frees the connection
    }
  }
}
