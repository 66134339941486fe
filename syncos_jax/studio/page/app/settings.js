/** Number of takes, title, and what is under "advanced". */

import { h } from "./dom.js";
import { t, count, number } from "./text.js";
import { field, stepper, numberInput, button } from "./fields.js";

export function takesField(draft, model, onedit) {
  return field({
    key: "takes", label: t("takes.label"), hint: t("takes.hint"),
    ...stepper(draft.takes, {
      least: 1, most: model.limits.takes, lessLabel: t("takes.less"), moreLabel: t("takes.more"),
      oninput: (takes) => onedit({ takes: takes ?? NaN }),
    }),
  });
}

/** Named settings at one press; `onpreset(settings)`. */
export function presetsRow(model, onpreset) {
  if (!model.presets?.length) return null;
  return h("div", { class: "presets", role: "group", "aria-label": t("presets.label") }, h("span", { class: "label" }, t("presets.label")),
    h("div", { class: "choices" }, model.presets.map(({ name, settings }) =>
      button(t(`preset.${name}`), () => onpreset(settings), { look: "preset" }))));
}

export function titleField(draft, onedit) {
  const control = h("input", { type: "text", maxlength: 200, value: draft.title, placeholder: t("title.placeholder"),
    autocomplete: "off", oninput: (event) => onedit({ title: event.target.value }) });
  return field({ key: "title", label: t("title.label"), control });
}

/** Size, steps, seed, guidance, strength, and what the video should not show. */
export function advanced(draft, model, { onedit, negative }) {
  const { defaults } = model;
  const set = (key) => (value) => {
    draft.settings[key] = value;
    onedit({});
  };
  const usual = (value) => (value === null || value === undefined ? t("advanced.own") : t("advanced.usual", { value: number(value, 4) }));
  const one = (key, options, hint) => field({
    key: `settings.${key}`, label: t(`advanced.${key}`), hint,
    control: numberInput(draft.settings[key], { ...options, oninput: set(key) }) });
  const size = ["width", "height"].map((key) => {
    const input = numberInput(draft.settings[key], { step: 1, minimum: 8, placeholder: model[key], oninput: set(key) });
    input.setAttribute("aria-label", t(`advanced.${key}`));
    return input;
  });
  const fields = h("div", { class: "fields pairs" },
    field({ key: "settings.size", wide: true, label: t("advanced.size"), hint: t("advanced.size.hint"), group: true,
      control: h("div", { class: "size" }, size[0], h("span", { "aria-hidden": "true" }, "×"), size[1]) }),
    one("steps", { step: 1, minimum: 1, placeholder: usual(defaults.steps) }, t("advanced.steps.hint")),
    field({ key: "seed", label: t("advanced.seed"), hint: t("advanced.seed.hint"),
      control: numberInput(draft.seed, { step: 1, minimum: 0, placeholder: usual(defaults.seed),
        oninput: (seed) => onedit({ seed }) }) }),
    one("guidance", { placeholder: usual(defaults.guidance) }, t("advanced.guidance.hint")),
    one("strength", { minimum: 0, maximum: 1, placeholder: usual(defaults.strength) }, t("advanced.strength.hint")),
    negative && field({ key: "negative", wide: true, label: t("advanced.negative"), control: h("textarea", {
      rows: 2, value: draft.settings.negative, maxlength: 2000, oninput: (event) => set("negative")(event.target.value) }) }));
  return h("details", { class: "advanced", open: isSet(draft) }, h("summary", {}, t("advanced.title")), fields,
    marks(draft, model, set), alsoKept(draft));
}

/** The visible label, the watermark, and who signs. */
function marks(draft, model, set) {
  const { signer, watermark } = model.marking || {};
  const label = h("input", { type: "text", maxlength: 100, value: draft.settings.label, placeholder: t("marks.label.placeholder"),
    autocomplete: "off", oninput: (event) => set("label")(event.target.value) });
  const hidden = h("input", { type: "checkbox", checked: draft.settings.watermark ?? watermark,
    onchange: () => set("watermark")(hidden.checked) });
  return h("div", { class: "fields marks" },
    field({ key: "settings.label", label: t("marks.label"), hint: t("marks.label.hint"), control: label }),
    h("div", { class: "field", "data-field": "settings.watermark" },
      h("label", { class: "at" }, hidden, h("span", {}, t("marks.watermark"))),
      h("p", { class: "hint" }, t("marks.watermark.hint")), h("p", { class: "error" })),
    h("p", { class: "note" }, signer ? t("marks.signer", { signer }) : t("marks.unsigned")));
}

/** Keys of a scenario that have their own place in the form. */
const SHOWN = ["image", "end_image", "extend", "join", "redo", "fit"];

const isSet = ({ seed, settings }) => seed !== null || Object.values(settings).some((value) => value !== null && value !== "");

/** What an earlier video's scenario says beyond the form; it stays as it is. */
function alsoKept(draft) {
  const keys = Object.keys(draft.rest).filter((key) => !SHOWN.includes(key)).filter((key) => key !== "sampler" || Object.keys(draft.rest.sampler).length > 1);
  const events = draft.events.filter((event) => Object.keys(event.rest).some((key) => key !== "image")).length;
  if (draft.start === "template" || !(keys.length || events)) return null;
  const parts = [keys.length && keys.join(", "), events && count("kept.events", events)].filter(Boolean);
  return h("p", { class: "note" }, t("kept.also", { keys: parts.join("; ") }));
}
