/** What gets approved: values of a template's variables and settings, a proposal, what to try next. */

import { h, replace, announce } from "./dom.js";
import { t, count, number, templateText } from "./text.js";
import { api } from "./api.js";
import { button, errorsOf, field, sentence } from "./fields.js";
import { askName } from "./dialogs.js";
import { newDraft, ofTemplate } from "./draft.js";

const SETTINGS = ["steps", "guidance", "strength"];
const percent = (share) => `${number(100 * share, 0)} %`;

export function learnedView(studio) {
  let shown = null;
  const box = h("div", { class: "learned-box" });
  const note = h("p", { class: "note", role: "status" });
  const chosen = h("select", { onchange: () => load(chosen.value) });
  const choose = field({ key: "learned", label: t("learned.template"), control: chosen });
  choose.hidden = true;

  async function load(template = "") {
    replace(note, t("learned.loading"));
    try {
      shown = await api.lessons(template);
      replace(note);
      show();
    } catch (error) {
      replace(note, errorsOf(error).map(sentence).join(" "));
    }
  }

  const nameOf = (name) => templateText({ name, description: "" }).name;

  /** A variable or setting in the reader's words. */
  function factorOf(factor) {
    if (!factor.startsWith("sampler.")) {
      const { variables } = templateText({ name: shown.template, description: "" });
      return variables[factor]?.[0] || factor.replaceAll("_", " ");
    }
    const key = factor.slice("sampler.".length);
    return SETTINGS.includes(key) ? t(`advanced.${key}`) : key.replaceAll("_", " ");
  }

  const valueOf = (value) => (value === null ? t("advanced.own") : typeof value === "number" ? number(value, 4) : String(value));
  const pairs = (values) => Object.entries(values).map(([factor, value]) => `${factorOf(factor)}: ${valueOf(value)}`).join(", ");

  function show() {
    choose.hidden = !shown.templates.length;
    replace(chosen, shown.templates.map(({ name, decided }) => h("option", { value: name, selected: name === shown.template },
      `${nameOf(name)} (${decided})`)));
    if (!shown.templates.length) return void replace(box, h("p", { class: "note" }, t("learned.none")));
    replace(box, h("p", { class: "lead" }, t("learned.count", { approved: number(shown.approved), decided: number(shown.decided) })),
      shown.evidence.length ? evidence() : h("p", { class: "note" }, t("learned.few")), proposal(), trials(), dataset());
  }

  function evidence() {
    return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": t("learned.title") }, h("table", { class: "evidence" },
      h("thead", {}, h("tr", {}, ["factor", "value", "approved", "rate", "best"].map((key) => h("th", { scope: "col" }, t(`learned.${key}`))))),
      h("tbody", {}, shown.evidence.map((each, i) => h("tr", {},
        h("th", { scope: "row" }, each.factor === shown.evidence[i - 1]?.factor ? h("span", { class: "away" }, factorOf(each.factor)) : factorOf(each.factor)),
        h("td", {}, valueOf(each.value), each.proposed && h("span", { class: "chip approved" }, t("learned.proposed"))),
        h("td", {}, t("learned.of", { n: number(each.approved), total: number(each.decided) })),
        h("td", {}, interval(each), h("span", {}, t("learned.interval", { rate: percent(each.rate), low: percent(each.low), high: percent(each.high) }))),
        h("td", {}, percent(each.best)))))));
  }

  /** The interval as a line from 0 to 100 %, the rate as a mark on it. */
  function interval({ rate, low, high }) {
    const line = h("i", { class: "range" });
    const mark = h("i", { class: "mark" });
    Object.assign(line.style, { left: percent(low).replace(" ", ""), width: percent(high - low).replace(" ", "") });
    mark.style.left = percent(rate).replace(" ", "");
    return h("span", { class: "interval", "aria-hidden": "true" }, line, mark);
  }

  function proposal() {
    const proposed = Object.keys(shown.proposals).length;
    return h("section", { class: "panel" }, h("h2", {}, t("learned.proposal")),
      h("p", {}, proposed ? pairs(shown.proposals) : t("learned.proposal.none")),
      proposed > 0 && button(t("learned.make"), make, { look: "primary", picture: "keep" }));
  }

  function make() {
    askName({ title: t("learned.make"), note: t("learned.make.note", { values: pairs(shown.proposals) }) }, async (wanted) => {
      const { name } = await api.saveLearned(shown.template, wanted);
      studio.templates = await api.templates();
      replace(note, t("template.saved", { name }));
    });
  }

  function trials() {
    if (!shown.trials.length) return null;
    const template = studio.templates.find((item) => item.name === shown.template);
    return h("section", { class: "panel" }, h("h2", {}, t("learned.next")), h("p", { class: "hint" }, t("learned.next.hint")),
      h("ul", { class: "trials" }, shown.trials.map((trial, i) => h("li", {}, h("span", {}, pairs(trial)),
        template && button(t("learned.use"), () => use(template, trial), { look: "secondary", "aria-label": t("learned.use.name", { n: i + 1 }) })))));
  }

  function use(template, trial) {
    const values = Object.entries(trial).filter(([factor]) => !factor.startsWith("sampler."));
    const draft = ofTemplate(newDraft(studio.model), template, Object.fromEntries(values));
    for (const key of SETTINGS) draft.settings[key] = trial[`sampler.${key}`] ?? draft.settings[key];
    studio.draft = draft;
    studio.go("#/");
    announce(t("learned.used"));
  }

  function dataset() {
    return h("section", { class: "panel" }, h("h2", {}, t("learned.dataset")), h("p", { class: "hint" }, t("learned.dataset.hint")),
      shown.approved > 0 && h("a", { class: "quiet-link", href: `v1/dataset?${new URLSearchParams({ template: shown.template })}`, download: "approved.zip" },
        count("learned.dataset.get", shown.approved)));
  }

  load();
  return {
    title: t("nav.learned"),
    leave() {},
    element: h("div", { class: "learned" }, h("h1", { tabindex: "-1" }, t("learned.title")),
      h("p", { class: "lead" }, t("learned.lead")), choose, note, box),
  };
}
