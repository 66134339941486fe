/** The page where a video is described: start, prompts, events, settings, plan. */

import { h, replace, announce } from "./dom.js";
import { t } from "./text.js";
import { api, newKey } from "./api.js";
import * as drafts from "./draft.js";
import { examplesRow, knownWords, recordButton, startPicker, variablesForm, storyForm } from "./start.js";
import { eventCards, storyboard } from "./events.js";
import { takesField, titleField, advanced, presetsRow } from "./settings.js";
import { basePanel, picturesPanel } from "./pictures.js";
import { planDock } from "./plan.js";
import { field, promptArea, putErrors, errorsOf, focusFirstError, sentence, button } from "./fields.js";
import { keepAnswer } from "./store.js";

/** studio: {model, templates, draft, go(address)}; returns {element, title, leave()}. */
export function makeView(studio) {
  return new MakeView(studio);
}

class MakeView {
  constructor(studio) {
    Object.assign(this, { studio, model: studio.model, touched: new Set(), everything: false, key: null, sent: "" });
    this.draft = studio.draft;
    this.plan = null;
    this.refused = []; // what the server says of the draft as it is
    this.title = t("nav.make");
    this.head = h("div", { class: "make-head" });
    this.columns = h("div", { class: "columns" });
    this.dock = planDock({
      model: this.model,
      bodyOf: () => (this.wrong().length ? null : drafts.body(this.draft)),
      reasonOf: () => this.reason(),
      onplan: (plan, errors) => this.planned(plan, errors),
      onpick: (index) => this.cards?.focus(index),
      ongenerate: () => this.generate(),
    });
    this.element = h("div", { class: "make" }, this.head, this.columns, this.dock.element);
    this.build();
  }

  leave() {
    this.dock.stop();
    drafts.save(this.draft);
  }

  get template() {
    return this.studio.templates.find((item) => item.name === this.draft.template);
  }

  wrong() {
    return drafts.problems(this.draft, this.model, this.template);
  }

  /** Why nothing can be generated yet; empty where it can. */
  reason() {
    return drafts.isEmpty(this.draft) ? t("plan.why.empty") : "";
  }

  // -- what stands on the page -------------------------------------------------------------------

  build() {
    const { draft, studio } = this;
    replace(this.head, h("div", { class: "scenes-head" }, h("h1", { tabindex: "-1" }, t("make.title")),
      recordButton((record) => this.ofRecord(record), () => this.dock.complain(t("record.wrong")))),
    h("p", { class: "lead" }, t("make.lead")),
      drafts.isEmpty(draft) && examplesRow((example) => this.ofExample(example)),
      startPicker(draft, studio.templates, (start, template) => this.begin(start, template)));
    this.buildColumns();
  }

  buildColumns() {
    const { draft } = this;
    this.cards = null;
    const edit = (changes) => this.edit(changes);
    const isTemplate = draft.start === "template";
    const prompts = h("div", { class: "side prompts" }, isTemplate ? this.variables() : this.prompts());
    const output = h("section", { class: "side panel" }, h("h2", {}, t("make.output")),
      h("div", { class: "fields" }, takesField(draft, this.model, edit), titleField(draft, edit)),
      presetsRow(this.model, (settings) => {
        Object.assign(draft.settings, settings);
        delete draft.rest.sampler;
        this.buildColumns();
      }),
      advanced(draft, this.model, { onedit: edit, negative: !isTemplate }));
    this.board = h("div", { class: "board" });
    this.right = h("section", { class: "scenes" });
    replace(this.right, isTemplate ? this.preview() : this.events());
    replace(this.columns, prompts, this.right, output);
    for (const part of [prompts, output])
      part.addEventListener("focusout", ({ target }) => this.touch(target.closest("[data-field]")?.dataset.field));
    this.edit({});
  }

  variables() {
    const { draft, template } = this;
    return h("section", { class: "panel" }, h("h2", {}, t("variables.title")),
      variablesForm(template, draft.variables, (name, value) => {
        this.touched.add(`variables.${name}`);
        this.edit({ variables: { ...draft.variables, [name]: value } });
      }));
  }

  prompts() {
    const { draft } = this;
    this.global = promptArea(draft.global, { rows: 3, placeholder: t("global.placeholder"),
      longest: this.model.limits.prompt_characters || 2000, oninput: (global) => this.edit({ global }) });
    const prompt = field({ key: "global", label: t("global.label"), hint: t("global.hint"), ...this.global });
    this.globalCut = h("p", { class: "cut" });
    prompt.append(this.globalCut);
    const story = draft.start === "story" && storyForm(draft, (changes) => this.edit(changes), (found) => this.split(found));
    return [story && h("section", { class: "panel" }, h("h2", {}, t("start.story")), story),
      h("section", { class: "panel" }, prompt, knownWords(this.model.vocabulary),
        picturesPanel(draft.rest, this.model, () => this.edit({})))];
  }

  events() {
    const { draft, model } = this;
    this.cards = eventCards({
      draft, model, onedit: () => this.edit({}), touch: (key) => this.touch(key),
      newEvent: () => ({ prompt: "", seconds: draft.events.at(-1)?.seconds || drafts.usualSeconds(model), rest: {} }),
    });
    const base = basePanel(draft.rest, () => {
      for (const key of ["redo", "extend", "join"]) delete draft.rest[key];
      this.buildColumns();
    });
    return [h("div", { class: "scenes-head" }, h("h2", {}, t("events.title")), h("p", { class: "note" }, t("events.note"))),
      base, this.cards.element];
  }

  preview() {
    return [h("div", { class: "scenes-head" }, h("h2", {}, t("board.title")),
      button(t("board.edit"), () => this.editFreely(), { look: "quiet", picture: "pen" })), this.board];
  }

  // -- what is done to it ------------------------------------------------------------------------

  begin(start, template) {
    const { draft } = this;
    if (start === "template") Object.assign(draft, drafts.ofTemplate(draft, template));
    else Object.assign(draft, { start, template: null });
    Object.assign(this, { touched: new Set(), everything: false, plan: null, refused: [], freely: false });
    this.dock.bar([]); // never another story's lengths
    this.buildColumns();
  }

  /** The template's prompts, as they are filled in now, become a scenario of one's own. */
  editFreely() {
    this.freely = !this.plan; // as soon as the server has said what the template makes
    if (this.freely) return;
    const seed = this.draft.seed;
    Object.assign(this.draft, drafts.withScenario(this.draft, this.plan.scenario, this.model), { seed });
    this.build();
    this.cards.focus(0);
    announce(t("board.edited"));
  }

  ofExample(example) {
    this.ofRecord(example);
    announce(t("example.used"));
    this.dock.focus();
  }

  ofRecord({ scenario, seed }) {
    const fresh = drafts.withScenario(drafts.newDraft(this.model), scenario, this.model);
    Object.assign(this.draft, fresh, { seed, takes: this.draft.takes });
    this.build();
    announce(t("video.again.done"));
  }

  split({ global, events }) {
    const { draft, model } = this;
    const usual = drafts.usualSeconds(model);
    Object.assign(draft, { global, rest: {}, events: events.map(({ prompt, seconds }) => ({ prompt, seconds: seconds || usual, rest: {} })) });
    this.global.control.value = global;
    this.global.control.dispatchEvent(new Event("input"));
    replace(this.right, this.events());
    this.edit({});
  }

  edit(changes) {
    const { draft } = this;
    Object.assign(draft, changes);
    this.refused = [];
    this.dock.takes(draft.takes);
    if (draft.start !== "template") this.dock.bar(draft.events);
    this.dock.complain("");
    this.showErrors();
    this.dock.ask();
    drafts.save(draft);
  }

  touch(key) {
    if (!key) return;
    this.touched.add(key);
    this.showErrors();
  }

  planned(plan, errors) {
    this.plan = plan;
    this.refused = errors;
    if (this.freely) {
      this.freely = false; // and where it refuses, not later either
      if (plan) return void this.editFreely();
    }
    if (this.draft.start === "template") {
      if (plan) {
        replace(this.board, storyboard(plan.scenario.global, plan.events));
        this.dock.bar(plan.events);
      } else if (!this.board.childElementCount) this.dock.bar([]);
      this.board.classList.toggle("stale", !plan);
    } else {
      this.cards.mark(plan?.events);
      this.markGlobal(plan);
    }
    this.showErrors();
  }

  /** Where the shared prompt gives way to an event's, the words that are cut are its own. */
  markGlobal(plan) {
    const text = this.draft.global.toLowerCase();
    const cut = plan?.events.map((event, i) => [event.cut, this.draft.events[i]?.prompt.toLowerCase()])
      .find(([words, own]) => words && !own?.includes(words.toLowerCase()) && text.includes(words.toLowerCase()));
    this.global.mark(cut ? cut[0] : "");
    const n = plan ? plan.events.findIndex((event) => event.cut === cut?.[0]) + 1 : 0;
    replace(this.globalCut, cut && t("event.cut", { n, words: cut[0], most: this.model.limits.prompt_tokens }));
  }

  /** Errors at their fields; of those that nobody has been in yet, none before "Generate". */
  showErrors() {
    const own = this.wrong().map(({ field: key, key: name, values }) => ({ field: key, message: t(name, values) }));
    const shown = (key) => this.everything || this.touched.has(key) || this.refused.some((error) => error.field === key);
    const rest = putErrors(this.element, [...own, ...this.refused], shown);
    const words = rest.filter((error) => this.refused.includes(error));
    if (words.length) this.dock.complain(words.map(sentence).join(" "), words[0].lang);
    return own.length + this.refused.length;
  }

  async generate() {
    this.everything = true;
    this.refused = []; // a full queue may have room by now
    this.dock.complain("");
    if (this.showErrors()) {
      this.dock.complain(t("make.mend"));
      focusFirstError(this.element);
      return;
    }
    const body = drafts.body(this.draft);
    const same = JSON.stringify(body) === this.sent;
    if (!same) [this.key, this.sent] = [newKey(), JSON.stringify(body)]; // tried again: the same video
    this.dock.busy(true);
    try {
      const video = await keepAnswer(api.make(body, this.key));
      this.sent = "";
      announce(t("make.queued"));
      this.studio.go(`#/videos/${encodeURIComponent(video.id)}`);
    } catch (error) {
      this.refused = errorsOf(error);
      this.showErrors();
      focusFirstError(this.element);
    }
    this.dock.busy(false);
  }
}
