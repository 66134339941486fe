/** One video: how far it is, then its takes side by side, to be judged; and what to make of it. */

import { h, replace, announce } from "./dom.js";
import { t, count, seconds, moment, money, number } from "./text.js";
import { api } from "./api.js";
import { button, errorsOf, sentence } from "./fields.js";
import { askDelete, askTemplate } from "./dialogs.js";
import { drop, fetchVideo, get, isOpen, keepAnswer, listen } from "./store.js";
import { progressPanel, statusChip } from "./progress.js";
import { stage } from "./stage.js";
import { nameField, takeCard } from "./decide.js";
import { storyboard } from "./events.js";
import { newDraft, ofTake, ofVideo, withScenario } from "./draft.js";
import { reportPanel } from "./report.js";
import { titleOf } from "./videos.js";

export function videoView(studio, id) {
  return new VideoView(studio, id);
}

class VideoView {
  constructor(studio, id) {
    Object.assign(this, { studio, id, stage: null, panel: null, cards: new Map(), ready: "" });
    this.title = t("nav.videos");
    this.heading = h("h1", { tabindex: "-1" }, "…");
    this.facts = h("p", { class: "lead" });
    this.actions = h("div", { class: "actions" });
    this.trouble = h("p", { class: "error", role: "alert" });
    this.screen = h("div", {});
    this.review = h("div", {});
    this.measured = h("div", {});
    this.what = h("div", {});
    this.element = h("div", { class: "video" },
      h("p", { class: "crumb" }, h("a", { href: "#/videos" }, `← ${t("nav.videos")}`)),
      h("div", { class: "video-head" }, h("div", {}, this.heading, this.facts), this.actions),
      this.trouble, h("div", { class: "watch" }, this.screen, this.review), this.measured, this.what);
    this.ending = listen((video) => video.id === id && this.show(video));
    this.load();
  }

  leave() {
    this.ending();
    this.stage?.stop();
    this.panel?.stop();
  }

  async load() {
    if (get(this.id)) this.show(get(this.id));
    try {
      this.show(await fetchVideo(this.id));
    } catch (error) {
      if (!get(this.id)) this.heading.textContent = t("video.missing");
      this.complain(error);
    }
  }

  complain(error) {
    const said = errorsOf(error);
    this.trouble.textContent = said.map(sentence).join(" ");
    this.trouble.lang = said[0].lang || "";
  }

  get fps() {
    return this.video.scenario?.fps || this.studio.model.fps;
  }

  get events() {
    return (this.video.scenario?.events || []).map((event) => ({
      prompt: event.prompt, seconds: event.seconds ?? event.frames / this.fps }));
  }

  show(video) {
    const first = !this.video;
    const ended = this.video && isOpen(this.video) && !isOpen(video);
    this.video = video;
    this.heading.textContent = titleOf(video);
    document.title = `${titleOf(video)} · SynCoS Studio`;
    const length = this.events.reduce((sum, event) => sum + event.seconds, 0);
    const { rate } = this.studio.model;
    const cost = video.device_minutes > 0 && (rate ? money(video.device_minutes * rate.per_hour / 60, rate.currency)
      : t("video.cost", { minutes: number(video.device_minutes, 1) }));
    const facts = [moment(video.created_at), seconds(length), count("takes.count", video.takes.length), video.template, cost];
    replace(this.facts, statusChip(video), facts.filter(Boolean).join(" · "));
    this.showScreen(video);
    this.showTakes(video);
    const liked = this.liked()?.take;
    if (first || liked !== this.likedBefore) this.showWhat(video);
    this.likedBefore = liked;
    this.showActions(video);
    if (ended) announce(t(`status.${video.status}`));
  }

  showScreen(video) {
    const done = video.takes.filter((take) => take.content);
    const ready = done.map((take) => take.content).join(" ");
    if (isOpen(video) && !this.panel) this.panel = progressPanel(() => this.cancel());
    if (!isOpen(video)) {
      this.panel?.stop();
      this.panel = null;
    }
    this.panel?.update(video);
    if (ready !== this.ready) {
      this.stage?.stop();
      this.stage = done.length ? stage({ takes: done, events: this.events, fps: this.fps, title: t("stage.title") }) : null;
      this.ready = ready;
    }
    const nodes = [this.panel?.element, this.stage?.element, this.outcome(video)].filter(Boolean);
    const same = nodes.length === this.screen.children.length && nodes.every((node, i) => node === this.screen.children[i]);
    if (!same) replace(this.screen, nodes);
  }

  /** Why there is nothing to see. */
  outcome(video) {
    if (video.status === "failed" && video.error)
      return h("div", { class: "outcome failed" }, h("h2", {}, t("video.failed")), h("p", { lang: "en" }, sentence(video.error)));
    if (video.status === "cancelled") return h("div", { class: "outcome" }, h("h2", {}, t("video.cancelled")));
    return null;
  }

  showTakes(video) {
    const done = video.takes.some((take) => take.content);
    if (done && !this.cards.size) {
      this.name = nameField();
      const row = h("div", { class: "takes" }, video.takes.map((take) => {
        return this.addCard(video, take);
      }));
      this.row = row;
      replace(this.measured, reportPanel(this.id, (time) => this.seek(time)));
      replace(this.review, h("section", { class: "review", "aria-label": t("decide.title") },
        h("div", { class: "review-head" }, h("h2", {}, t("decide.title")), h("div", { class: "by" }, this.name.element)), row));
    }
    for (const take of video.takes) {
      if (done && !this.cards.has(take.take)) this.row.append(this.addCard(video, take));
      this.cards.get(take.take)?.update(take);
    }
  }

  addCard(video, take) {
    const card = takeCard(video, take, this.name, { timeOf: () => this.stage?.time ?? 0, onseek: (time) => this.seek(time),
      onextend: this.studio.model.limits.picture_bytes && ((chosen) => this.extend(chosen)) });
    this.cards.set(take.take, card);
    return card.element;
  }

  seek(time) {
    this.stage?.pause();
    this.stage?.seek(time);
    this.stage?.element.scrollIntoView({ block: "nearest" });
  }

  showWhat(video) {
    const sampler = video.scenario?.sampler || {};
    const rows = [
      ...Object.entries(video.variables || {}).map(([name, value]) => [name.replaceAll("_", " "), String(value)]),
      ...["steps", "guidance", "strength"].filter((key) => sampler[key] !== undefined && sampler[key] !== null)
        .map((key) => [t(`advanced.${key}`), number(sampler[key], 4)]),
      video.scenario?.size && [t("advanced.size"), video.scenario.size.join(" × ")],
      video.scenario?.negative && [t("advanced.negative"), video.scenario.negative],
    ].filter(Boolean);
    replace(this.what, h("section", { class: "what" }, h("h2", {}, t("video.what")),
      h("div", { class: "what-columns" }, storyboard(video.scenario?.global, this.events, { onchange: (index) => this.change(index),
        onredo: this.studio.model.limits.picture_bytes && this.liked() && ((index) => this.redo(index)) }),
        rows.length ? h("dl", { class: "settings" }, rows.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value)))) : null)));
  }

  // -- what is done with it ----------------------------------------------------------------------

  showActions(video) {
    const state = `${video.status} ${video.takes.length}`;
    if (this.actions.dataset.state === state) return;
    this.actions.dataset.state = state;
    const more = video.status === "completed" && video.takes.length < this.studio.model.limits.takes
      && button(t("video.more"), () => this.more(), { look: "secondary", picture: "plus" });
    const again = button(t("video.again"), () => this.again(), { look: "secondary", picture: "again" });
    const save = button(t("video.template"), () => this.saveTemplate(), { look: "secondary", picture: "keep" });
    const gone = !isOpen(video) && button(t("delete.ask"), () => this.forget(), { look: "quiet" });
    replace(this.actions, gone, save, more, again);
  }

  again() {
    const { studio, video } = this;
    studio.draft = ofVideo(video, studio.model, studio.templates);
    studio.go("#/");
    announce(t("video.again.done"));
  }

  async more() {
    try {
      await keepAnswer(api.moreTakes(this.id, 1));
      announce(t("video.more.done"));
    } catch (error) {
      this.complain(error);
    }
  }

  /** The same seed and settings with another prompt for one event. */
  change(index) {
    const { studio, video } = this;
    const draft = withScenario(newDraft(studio.model), video.scenario, studio.model);
    const liked = video.takes.find((take) => take.verdict === "approved") || video.takes[0];
    studio.draft = Object.assign(draft, { takes: 1, seed: liked?.seed ?? video.seed, title: video.title || "" });
    const focus = () => document.querySelector(`[data-field="events.${index}.prompt"] textarea`)?.focus();
    addEventListener("hashchange", focus, { once: true }); // after the view has changed
    studio.go("#/");
    announce(t("video.change.done", { n: index + 1 }));
  }

  /** The finished take that people like best so far. */
  liked() {
    const done = this.video.takes.filter((take) => take.content);
    return done.find((take) => take.verdict === "approved") || done[0];
  }

  /** Only one event again, with the next seed; all other frames stay. */
  redo(index) {
    const take = this.liked();
    this.buildOn(take, { redo: { video: `${this.id}/${take.take}`, events: [index + 1] } }, index, t("video.redo.done", { n: index + 1 }));
  }

  /** A new video that begins with the last frames of a take. */
  extend(take) {
    this.buildOn(take, { extend: `${this.id}/${take.take}`, join: false }, 0, t("take.extend.done"));
  }

  buildOn(take, keys, index, said) {
    const { studio } = this;
    studio.draft = ofTake(this.video, take, studio.model, keys);
    const focus = () => document.querySelector(`[data-field="events.${index}.prompt"] textarea`)?.focus();
    addEventListener("hashchange", focus, { once: true });
    studio.go("#/");
    announce(said);
  }

  async cancel() {
    try {
      await keepAnswer(api.cancel(this.id));
    } catch (error) {
      this.complain(error);
    }
  }

  saveTemplate() {
    const { studio, video } = this;
    this.saved ??= this.facts.parentElement.appendChild(h("p", { class: "saved", role: "status" }));
    askTemplate(video.template ? "" : (video.title || "").slice(0, 60), async (wanted, variables) => {
      const { name } = await api.saveTemplate(wanted, this.id, variables);
      studio.templates = await api.templates();
      this.trouble.textContent = "";
      replace(this.saved, t("template.saved", { name }));
    });
  }

  forget() {
    askDelete(async () => {
      await api.remove(this.id);
      drop(this.id);
      this.studio.go("#/videos");
      announce(t("delete.done"));
    });
  }
}
