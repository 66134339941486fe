/** Where a video begins: empty, a story, or a template. And the form of a template's variables. */

import { h, hue, replace, announce } from "./dom.js";
import { t, count, number, templateText } from "./text.js";
import { api } from "./api.js";
import { field, choices, numberInput, button, putErrors, errorsOf, focusFirstError } from "./fields.js";

/** The cards to choose from; `onchange(start, template)`. */
export function startPicker(draft, templates, onchange) {
  const card = (start, template, name, description, picture) => {
    const checked = draft.start === start && (start !== "template" || draft.template === template.name);
    return h("label", { class: `start ${start}` },
      h("input", { type: "radio", name: "start", checked, onchange: () => onchange(start, template) }),
      h("span", { class: "start-body" },
        picture, h("span", { class: "start-name" }, name), h("span", { class: "start-text" }, description)));
  };
  return h("fieldset", { class: "starts" },
    h("legend", { class: "away" }, t("start.legend")),
    card("empty", null, t("start.empty"), t("start.empty.text"), sketch([1, 1])),
    card("story", null, t("start.story"), t("start.story.text"), sketch(null)),
    templates.map((item) => {
      const { name, description } = templateText(item);
      return card("template", item, name, description || count("start.variables", item.variables.length), sketch([2, 1, 2, 1]));
    }));
}

/** Videos of the demo model that play; pressing one calls `onuse({scenario, seed})`. */
export function examplesRow(onuse) {
  const row = h("ul", { class: "examples" });
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  fetch("static/examples/examples.json").then((answer) => answer.json()).then((examples) =>
    replace(row, examples.map(({ key, scenario, seed }) => {
      const name = t(`example.${key}`);
      const video = h("video", { src: `static/examples/${key}.mp4`, loop: true, playsinline: true, preload: "auto", tabindex: "-1", "aria-hidden": "true" });
      video.muted = true;
      if (!still) video.autoplay = true;
      return h("li", {}, h("button", { type: "button", class: "example", "aria-label": t("example.use", { name }),
        onmouseenter: () => video.play().catch(() => {}), onclick: () => onuse({ scenario, seed }) },
      video, h("span", {}, name)));
    }))).catch(() => {}); // the page works without examples
  return h("section", { class: "examples-box", "aria-label": t("examples.title") },
    h("div", { class: "scenes-head" }, h("h2", {}, t("examples.title")), h("p", { class: "note" }, t("examples.note"))), row);
}

/** The words a model was trained on, where they are few. */
export function knownWords(vocabulary) {
  if (!vocabulary) return null;
  return h("details", { class: "known" }, h("summary", {}, t("known.title")), h("dl", {},
    Object.entries(vocabulary).map(([kind, list]) => h("div", {}, h("dt", {}, t(`known.${kind}`)), h("dd", { lang: "en" }, list.join(", "))))));
}

/** Opens a record, or a scenario as JSON, from the reader's disk; nothing is sent anywhere. */
export function recordButton(onrecord, onwrong) {
  const file = h("input", { type: "file", accept: ".json,application/json", hidden: true, onchange: async () => {
    try {
      const [chosen] = file.files;
      if (chosen.size > 1_000_000) throw new RangeError(chosen.size);
      onrecord(scenarioOf(JSON.parse(await chosen.text())));
    } catch {
      onwrong();
    }
    file.value = "";
  } });
  return [file, button(t("record.open"), () => file.click(), { look: "quiet", picture: "again" })];
}

/** {scenario, seed}; throws where it is neither a record nor a scenario. */
function scenarioOf(data) {
  const scenario = data.scenario ?? data;
  const good = scenario.events.length > 0 && scenario.events.every(({ prompt }) => typeof prompt === "string");
  if (!good || typeof (scenario.global ?? "") !== "string") throw new TypeError("no scenario");
  return { scenario, seed: data.seed ?? scenario.seed ?? null };
}

/** A small bar of lengths; null for lines of text. */
function sketch(lengths) {
  if (!lengths) return h("span", { class: "sketch lines", "aria-hidden": "true" }, h("i"), h("i"), h("i"));
  return h("span", { class: "sketch", "aria-hidden": "true" }, lengths.map((length, i) => {
    const part = h("i", { hue: hue(i, lengths.length) });
    part.style.flexGrow = length;
    return part;
  }));
}

/** One field for each variable; `onchange(name, value)`. */
export function variablesForm(template, values, onchange) {
  const { variables } = templateText(template);
  return h("div", { class: "fields" }, template.variables.map((v) => {
    const [label, description] = variables[v.name] || [v.name.replaceAll("_", " "), v.description];
    return variableField({ ...v, description }, label, values[v.name], onchange);
  }));
}

function variableField(variable, label, value, onchange) {
  const { name, kind, description, choices: allowed } = variable;
  const common = { key: `variables.${name}`, label: label[0].toUpperCase() + label.slice(1) };
  const hint = [description && sentenceCase(description), limits(variable)].filter(Boolean).join(" ");
  if (kind === "choice" && allowed.length <= 4 && allowed.join("").length <= 60)
    return field({ ...common, hint, group: true, control: choices(`v-${name}`,
      allowed.map((item) => ({ value: item, label: String(item) })), value, (chosen) => onchange(name, chosen)) });
  return field({ ...common, hint, control: control(variable, value, (given) => onchange(name, given)) });
}

function control({ kind, choices: allowed, default: usual, minimum, maximum, max_length: longest }, value, onchange) {
  if (kind === "choice")
    return h("select", { onchange: (event) => onchange(allowed[event.target.selectedIndex]) },
      allowed.map((item) => h("option", { selected: item === value }, String(item))));
  const placeholder = usual === null || usual === undefined ? "" : String(usual);
  if (kind !== "text")
    return numberInput(value, { step: kind === "integer" ? 1 : "any", minimum, maximum, placeholder, oninput: onchange });
  const oninput = (event) => onchange(event.target.value);
  if ((longest || 0) > 200) return h("textarea", { rows: 2, value: value ?? "", placeholder, oninput });
  return h("input", { type: "text", value: value ?? "", placeholder, oninput, autocomplete: "off" });
}

function limits({ kind, default: usual, minimum, maximum, max_length: longest }) {
  const known = (value) => value !== null && value !== undefined;
  if (kind === "text" && longest && longest < 2000) return count("hint.longest", longest);
  if (known(minimum) && known(maximum)) return t("hint.between", { least: number(minimum), most: number(maximum) });
  if (known(minimum)) return t("hint.least", { least: number(minimum) });
  if (known(maximum)) return t("hint.most", { most: number(maximum) });
  return known(usual) ? "" : t("hint.needed");
}

const sentenceCase = (text) => {
  const first = text[0].toUpperCase() + text.slice(1);
  return /[.!?。]$/.test(first) ? first : `${first}.`;
};

/** "Write a story, split it"; `onsplit({global, events, by})`. */
export function storyForm(draft, onedit, onsplit) {
  const answer = h("p", { class: "note", role: "status" });
  const area = h("textarea", {
    rows: 5, value: draft.story, placeholder: t("story.placeholder"), maxlength: 20000,
    oninput: () => {
      putErrors(form, []);
      onedit({ story: area.value });
    },
  });
  const parts = numberInput(draft.parts, { step: 1, minimum: 1, placeholder: t("story.parts.auto"),
    oninput: (value) => onedit({ parts: value }) });
  const form = h("div", { class: "story", "data-own-errors": true },
    field({ key: "story", label: t("story.label"), hint: t("story.hint"), control: area }),
    h("div", { class: "row" },
      field({ key: "parts", label: t("story.parts"), control: parts }),
      button(t("story.split"), split, { look: "secondary", picture: "story" })),
    answer);
  async function split() {
    const send = form.querySelector("button.secondary");
    if (!area.value.trim()) return refuse([{ field: "story", message: t("wrong.story") }]);
    send.disabled = true;
    replace(answer, t("story.working"));
    try {
      const found = await api.split(area.value.trim(), draft.parts);
      putErrors(form, []);
      const said = t(found.by === "model" ? "story.by.model" : "story.by.rules");
      replace(answer, `${count("story.done", found.events.length)} ${said}`);
      announce(answer.textContent);
      onsplit(found);
    } catch (error) {
      refuse(errorsOf(error).map((item) => (item.field === "events" ? { ...item, field: "parts" } : item)));
    }
    send.disabled = false;
  }
  function refuse(errors) {
    const left = putErrors(form, errors);
    replace(answer, left.map((error) => error.message).join(" "));
    focusFirstError(form);
  }
  return form;
}
