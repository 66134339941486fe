/** Questions that stand before the page: a name for a template, whether to delete. */

import { h, replace } from "./dom.js";
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

/** `save(name)` keeps the template. */
export function askTemplate(suggested, save) {
  const control = h("input", { type: "text", maxlength: 60, value: suggested, autocomplete: "off" });
  const submit = () => {
    const name = control.value.trim();
    if (!name) throw Object.assign(new Error(), { fields: [{ field: "name", message: t("wrong.name"), lang: "" }] });
    return save(name);
  };
  ask({ title: t("template.title"), note: t("template.note"), label: t("template.save"), submit,
    content: field({ key: "name", label: t("template.name"), control }) });
  control.focus();
}

export function askDelete(forget) {
  ask({ title: t("delete.title"), note: t("delete.note"), look: "reject", label: t("delete.yes"), submit: forget });
}
