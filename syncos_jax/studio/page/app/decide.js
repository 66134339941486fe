/** Approve or reject a take, with name and comment. */

import { h, replace, announce, icon } from "./dom.js";
import { t } from "./text.js";
import { api } from "./api.js";
import { field, button, putErrors, errorsOf, focusFirstError, sentence } from "./fields.js";
import { keepAnswer } from "./store.js";
import { letterOf } from "./stage.js";

const KEPT = "syncos.by";

/** The name that stands under decisions, asked once for all takes. */
export function nameField() {
  const control = h("input", { type: "text", maxlength: 200, autocomplete: "name", value: localStorage.getItem(KEPT) || "",
    placeholder: t("decide.by.placeholder"), oninput: () => localStorage.setItem(KEPT, control.value) });
  return { control, element: field({ key: "by", label: t("decide.by"), hint: t("decide.by.hint"), control }) };
}

/** The card of a take below its picture: state, file, decision. Returns {element, update(take)}. */
export function takeCard(video, take, name) {
  const letter = letterOf(take.take - 1);
  const verdict = h("span", {});
  const seed = h("span", { class: "take-facts" });
  const said = h("blockquote", { class: "said", hidden: true });
  const answer = h("p", { class: "error", role: "alert" });
  const comment = h("textarea", { rows: 2, maxlength: 4000, placeholder: t("decide.comment.placeholder") });
  const buttons = [
    button(t("decide.approve"), () => decide("approved"), { look: "approve", picture: "check", "aria-label": t("decide.approve.name", { letter }) }),
    button(t("decide.reject"), () => decide("rejected"), { look: "reject", picture: "remove", "aria-label": t("decide.reject.name", { letter }) }),
    button(t("decide.undo"), () => decide("undecided"), { look: "quiet", "aria-label": t("decide.undo.name", { letter }) }),
  ];
  const form = h("div", { class: "decide" }, field({ key: "comment", label: t("decide.comment"), control: comment }),
    h("div", { class: "decide-buttons" }, buttons), answer);
  comment.setAttribute("aria-label", t("decide.comment.name", { letter }));
  const file = h("a", { class: "quiet-link", download: true }, icon("save"), t("take.save"));
  const element = h("section", { class: "take", "aria-label": t("stage.take", { letter }) },
    h("div", { class: "take-head" }, h("span", { class: `letter l${(take.take - 1) % 6}` }, letter), seed, verdict),
    said, form, file);

  async function decide(choice) {
    const by = name.control.value.trim();
    const missing = by ? [] : [{ field: "by", message: t("wrong.by") }];
    putErrors(name.element.parentElement, missing);
    replace(answer);
    if (missing.length) return focusFirstError(name.element.parentElement);
    for (const each of buttons) each.disabled = true;
    try {
      const body = { take: take.take, verdict: choice, by, comment: comment.value.trim() };
      await keepAnswer(api.decide(video.id, body));
      comment.value = "";
      announce(t(`decide.done.${choice}`, { letter }));
    } catch (error) {
      const left = putErrors(form, errorsOf(error));
      const own = putErrors(name.element.parentElement, left);
      replace(answer, own.map(sentence).join(" "));
    }
    for (const each of buttons) each.disabled = false;
    update(element.take);
  }

  function update(now) {
    element.take = now;
    const ready = Boolean(now.content);
    replace(seed, t("take.seed", { seed: now.seed ?? "–" }));
    const state = ready ? now.verdict || "undecided" : null;
    verdict.className = `chip ${state || now.status}`;
    verdict.textContent = state ? t(`verdict.${state}`) : t(`status.${now.status}`);
    element.dataset.verdict = state || "";
    const decided = state && state !== "undecided";
    said.hidden = !(decided || now.comment);
    replace(said, now.comment && h("p", {}, now.comment), now.by && h("footer", {}, now.by));
    form.hidden = !ready;
    file.hidden = !ready;
    if (ready) file.href = now.content;
    buttons[0].hidden = state === "approved";
    buttons[1].hidden = state === "rejected";
    buttons[2].hidden = !decided;
  }

  update(take);
  return { element, update };
}
