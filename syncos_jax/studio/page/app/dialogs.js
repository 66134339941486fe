/** Questions that stand before the page: a name for a template, whether to delete. */

import { h, replace, iconButton } from "./dom.js";
import { t } from "./text.js";
import { field, button, putErrors, errorsOf, sentence } from "./fields.js";

/** Asks; `submit()` does it and may refuse by throwing, then the question stays with what was said. */
function ask({ title, note, content = null, look = "primary", label, submit }) {
  const answer = h("p", { class: "error", role: "alert" });
  const send = h("button", { type: "submit", class: look }, label);
  const form = h("form", { method: "dialog", onsubmit: async (event) => {
    event.preventDefault();
    send.disabled = true;
    try {
      await submit();
      dialog.close();
    } catch (error) {
      replace(answer, putErrors(form, errorsOf(error)).map(sentence).join(" "));
    }
    send.disabled = false;
  } },
  h("h2", { id: "dialog-title" }, title), h("p", { class: "note" }, note), content, answer,
  h("div", { class: "dialog-buttons" }, button(t("dialog.back"), () => dialog.close(), { look: "quiet" }), send));
  const dialog = h("dialog", { "aria-labelledby": "dialog-title", onclose: () => dialog.remove() }, form);
  document.body.append(dialog);
  dialog.showModal();
}

/** Rows of words and the variables that replace them: {element, values()}. */
function variableRows() {
  const list = h("div", { class: "variable-rows" });
  const element = h("div", {}, list, button(t("template.add"), () => add(), { look: "quiet", picture: "plus" }));
  function number() {
    [...list.children].forEach((row, i) => {
      const n = i + 1;
      const [text, name] = row.querySelectorAll("input");
      text.setAttribute("aria-label", t("template.text.name", { n }));
      name.setAttribute("aria-label", t("template.variable.name", { n }));
      row.querySelector("button").setAttribute("aria-label", t("template.remove", { n }));
    });
  }
  function add() {
    const input = (placeholder) => h("input", { type: "text", placeholder, maxlength: 100, autocomplete: "off" });
    const row = h("div", { class: "row" }, input(t("template.text")), input(t("template.variable")), iconButton("remove", "", () => {
      row.remove();
      number();
    }));
    list.append(row);
    number();
    row.querySelector("input").focus();
  }
  const values = () => [...list.children].map((row) => [...row.querySelectorAll("input")].map((input) => input.value.trim()))
    .filter(([text, name]) => text || name).map(([text, name]) => ({ text, name }));
  return { element, values };
}

/** The name in a field; refuses an empty one. */
function named(control) {
  const name = control.value.trim();
  if (!name) throw Object.assign(new Error(), { fields: [{ field: "name", message: t("wrong.name"), lang: "" }] });
  return name;
}

/** `save(name, variables)` keeps the template. */
export function askTemplate(suggested, save) {
  const rows = variableRows();
  const control = h("input", { type: "text", maxlength: 60, value: suggested, autocomplete: "off" });
  const submit = () => save(named(control), rows.values());
  ask({ title: t("template.title"), note: t("template.note"), label: t("template.save"), submit,
    content: h("div", { class: "fields" }, field({ key: "name", label: t("template.name"), control }),
      h("div", { class: "field", "data-field": "variables" }, rows.element, h("p", { class: "error" }))) });
  control.focus();
}

/** Asks for the name of a template alone; `save(name)` keeps it. */
export function askName({ title, note }, save) {
  const control = h("input", { type: "text", maxlength: 60, autocomplete: "off" });
  const submit = () => save(named(control));
  ask({ title, note, label: t("template.save"), submit, content: field({ key: "name", label: t("template.name"), control }) });
  control.focus();
}

export function askDelete(forget) {
  ask({ title: t("delete.title"), note: t("delete.note"), look: "reject", label: t("delete.yes"), submit: forget });
}
