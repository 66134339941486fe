/** Fields: label, control, hint and error of each, tied together for those who hear the page. */

import { h, replace, iconButton, icon } from "./dom.js";
import { t } from "./text.js";

let made = 0;

/**
 * A field called `key`, as errors name it. `control` is what is filled in, `box` what holds it where
 * that is more; `more` stands beside the label, `hint` below the control. `group`: several controls.
 */
export function field({ key, label, control, box = null, hint = "", more = null, wide = false, group = false }) {
  const id = `f${++made}`;
  const describe = [`${id}-error`];
  if (hint) describe.unshift(`${id}-hint`);
  const target = group ? h("div", { role: "group" }, control) : control;
  target.id = id;
  target.setAttribute("aria-describedby", describe.join(" "));
  if (group) target.setAttribute("aria-labelledby", `${id}-label`);
  return h("div", { class: `field${wide ? " wide" : ""}`, "data-field": key },
    h("div", { class: "field-head" },
      group ? h("span", { class: "label", id: `${id}-label` }, label) : h("label", { for: id }, label), more),
    box || target,
    hint && h("p", { class: "hint", id: `${id}-hint` }, hint),
    h("p", { class: "error", id: `${id}-error` }));
}

/** The control of a field that can be focused. */
export const controlOf = (node) => node.querySelector("input, textarea, select, button");

/**
 * Puts errors [{field, message, remedy, lang}] at their fields below `root`, clears all others and
 * returns those that have no field there. `only` limits it to fields that it accepts.
 */
export function putErrors(root, errors, only = () => true) {
  const left = new Set(errors);
  for (const node of root.querySelectorAll("[data-field]")) {
    const inner = node.closest("[data-own-errors]"); // a form within, which puts its own
    if (inner && inner !== root && root.contains(inner)) continue;
    const own = errors.filter((error) => error.field === node.dataset.field);
    own.forEach((error) => left.delete(error));
    const shown = own.length && only(node.dataset.field) ? own[0] : null;
    const text = node.querySelector(":scope > .error");
    const said = shown ? sentence(shown) : "";
    if (text.textContent !== said) {
      text.textContent = said;
      text.lang = shown?.lang || "";
    }
    node.classList.toggle("bad", Boolean(shown));
    for (const control of node.querySelectorAll("input, textarea, select"))
      if (shown) control.setAttribute("aria-invalid", "true");
      else control.removeAttribute("aria-invalid");
  }
  return [...left];
}

/** What is wrong and what helps, as one text. */
export function sentence({ message, remedy }) {
  const first = /[.!?。]$/.test(message) || !remedy ? message : `${message}.`;
  return remedy ? `${first} ${remedy}` : first;
}

/** The errors of a refusal or of a silent server, as `putErrors` takes them. */
export function errorsOf(error) {
  if (error.fields) return error.fields.map((item) => ({ ...item, lang: item.lang ?? "en" }));
  return [{ field: null, message: t("trouble.silent"), remedy: t("trouble.silent.remedy") }];
}

export function focusFirstError(root) {
  const node = root.querySelector("[data-field].bad");
  if (!node) return false;
  for (let outer = node.closest("details"); outer; outer = outer.parentElement.closest("details")) outer.open = true;
  controlOf(node)?.focus();
  return true;
}

/** The value of a number's input: null where empty, NaN where it is no number. */
export function numberOf(input) {
  if (input.validity.badInput) return NaN;
  return input.value.trim() === "" ? null : Number(input.value);
}

export function numberInput(value, { step = "any", placeholder = "", minimum, maximum, oninput }) {
  return h("input", {
    type: "number", inputmode: step === 1 ? "numeric" : "decimal", step, placeholder, min: minimum, max: maximum,
    value: value === null || Number.isNaN(value) ? "" : value, oninput: (event) => oninput(numberOf(event.target)),
  });
}

/** A number with a button for less and one for more: {control, box}. */
export function stepper(value, { step = 1, least, most, lessLabel, moreLabel, oninput, ...more }) {
  const input = numberInput(value, { step: step === 1 ? 1 : "any", minimum: least, maximum: most, oninput, ...more });
  const move = (by) => {
    const now = numberOf(input);
    const next = Math.round(((now > 0 ? now : 0) + by) * 100) / 100;
    input.value = Math.min(Math.max(next, least ?? next), most ?? next);
    input.dispatchEvent(new Event("input", { bubbles: true }));
  };
  const box = h("div", { class: "stepper" },
    iconButton("minus", lessLabel, () => move(-step)), input, iconButton("plus", moreLabel, () => move(step)));
  return { control: input, box };
}

/** A text field that grows with its text: {control, box, mark}; `mark(words)` marks what is cut. */
export function promptArea(value, { rows = 2, placeholder = "", longest = 2000, oninput }) {
  const mirror = h("div", { class: "mirror", "aria-hidden": "true" });
  const area = h("textarea", {
    rows, placeholder, maxlength: longest, value, spellcheck: "true",
    oninput: () => {
      mark("");
      oninput(area.value);
    },
  });
  let marked = null;
  const mark = (cut) => {
    const text = area.value;
    if (marked === `${cut}\n${text}`) return;
    marked = `${cut}\n${text}`;
    const at = cut ? text.toLowerCase().lastIndexOf(cut.toLowerCase()) : -1;
    if (at < 0) replace(mirror, `${text}\n`);
    else replace(mirror, text.slice(0, at), h("mark", {}, text.slice(at, at + cut.length)), `${text.slice(at + cut.length)}\n`);
  };
  mark("");
  return { control: area, box: h("div", { class: "prompt-area" }, mirror, area), mark };
}

/** One of several, as a row of buttons; a native radio group underneath. */
export function choices(name, items, chosen, onchange) {
  return h("div", { class: "choices" }, items.map(({ value, label }) =>
    h("label", { class: "choice" },
      h("input", { type: "radio", name, value, checked: value === chosen, onchange: () => onchange(value) }),
      h("span", {}, label))));
}

export const button = (label, onclick, { look = "", picture = null, ...more } = {}) =>
  h("button", { type: "button", class: look, onclick, ...more }, picture && icon(picture), h("span", {}, label));
