/** Approve or reject a take, with name and comment. */

import { h, replace, announce, icon } from "./dom.js";
import { t, moment, seconds } from "./text.js";
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
export function takeCard(video, take, name, { timeOf, onseek, onextend }) {
  const letter = letterOf(take.take - 1);
  const verdict = h("span", {});
  const seed = h("span", { class: "take-facts" });
  const said = h("ul", { class: "said", hidden: true });
  const answer = h("p", { class: "error", role: "alert" });
  const signed = h("p", { class: "hint", hidden: true }, t("take.signed"));
  const comment = h("textarea", { rows: 1, maxlength: 4000, placeholder: t("decide.comment.placeholder") });
  const buttons = [
    button(t("decide.approve"), () => decide("approved"), { look: "approve", picture: "check", "aria-label": t("decide.approve.name", { letter }) }),
    button(t("decide.reject"), () => decide("rejected"), { look: "reject", picture: "remove", "aria-label": t("decide.reject.name", { letter }) }),
    button(t("decide.undo"), () => decide("undecided"), { look: "quiet", "aria-label": t("decide.undo.name", { letter }) }),
  ];
  const at = h("input", { type: "checkbox" });
  const atLabel = h("label", { class: "at" }, at, h("span", {}, ""));
  const say = button(t("decide.say"), () => decide(null), { look: "secondary", "aria-label": t("decide.say.name", { letter }) });
  const showTime = () => (atLabel.lastChild.textContent = t("decide.at", { time: seconds(Math.round(timeOf() * 100) / 100) }));
  comment.addEventListener("focus", () => {
    showTime();
    at.checked = true;
  });
  const file = h("a", { class: "quiet-link", "aria-label": t("take.save.name", { letter }) }, icon("save"), t("take.save"));
  const extend = onextend && button(t("take.extend"), () => onextend(element.take), { look: "quiet", "aria-label": t("take.extend.name", { letter }) });
  const form = h("div", { class: "decide" }, h("div", { class: "decide-buttons" }, buttons),
    field({ key: "comment", label: t("decide.comment"), control: comment, more: atLabel }), h("div", { class: "decide-foot" }, say, extend, file), signed, answer);
  showTime();
  comment.setAttribute("aria-label", t("decide.comment.name", { letter }));
  const element = h("section", { class: "take", "aria-label": t("stage.take", { letter }) },
    h("div", { class: "take-head" }, h("span", { class: `letter l${(take.take - 1) % 6}` }, letter), seed, verdict),
    said, form);

  async function decide(choice) {
    const by = name.control.value.trim();
    const missing = by ? [] : [{ field: "by", message: t("wrong.by") }];
    putErrors(name.element.parentElement, missing);
    replace(answer);
    if (missing.length) return focusFirstError(name.element.parentElement);
    for (const each of buttons) each.disabled = true;
    try {
      const text = comment.value.trim();
      const time = text && at.checked ? timeOf() : null;
      await keepAnswer(api.decide(video.id, { take: take.take, verdict: choice, by, comment: text, time }));
      comment.value = "";
      at.checked = false;
      announce(choice ? t(`decide.done.${choice}`, { letter }) : t("decide.said"));
    } catch (error) {
      const left = putErrors(form, errorsOf(error));
      const own = putErrors(name.element.parentElement, left);
      replace(answer, own.map(sentence).join(" "));
    }
    for (const each of buttons) each.disabled = false;
    update(element.take);
  }

  /** A decision or comment: who, when, what, and at which time of the video. */
  function entry({ action, by, at: when, comment: text, time }) {
    const verdicts = { approve: "approved", reject: "rejected", reopen: "undecided" };
    return h("li", {}, verdicts[action] && h("b", {}, t(`verdict.${verdicts[action]}`)),
      time !== null && time !== undefined && h("button", { type: "button", class: "quiet at-time", onclick: () => onseek(time),
        "aria-label": t("decide.seek", { time: seconds(Math.round(100 * time) / 100) }) }, seconds(Math.round(100 * time) / 100)),
      text && h("p", {}, text), h("footer", {}, t("decide.on", { by, at: moment(when) })));
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
    said.hidden = !now.history.length;
    replace(said, now.history.map(entry));
    form.hidden = !ready;
    if (ready) {
      file.href = now.published || now.content;
      file.download = `${(video.title || "video").replace(/[^\p{L}\p{N}_]+/gu, "-").slice(0, 80)}-take-${now.take}.mp4`;
    }
    signed.hidden = !now.published;
    buttons[0].hidden = state === "approved";
    buttons[1].hidden = state === "rejected";
    buttons[2].hidden = !decided;
  }

  update(take);
  return { element, update };
}
