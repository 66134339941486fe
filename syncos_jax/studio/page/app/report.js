/** Metrics, warnings and stills of a video's takes. */

import { h, replace } from "./dom.js";
import { t, seconds } from "./text.js";
import { api } from "./api.js";
import { button, errorsOf, sentence } from "./fields.js";
import { letterOf } from "./stage.js";

const round = (time) => Math.round(100 * time) / 100;

/** `onseek(time)` goes to a time of the video. */
export function reportPanel(id, onseek) {
  const box = h("div", { class: "report-box", role: "status" });
  const measure = button(t("report.load"), load, { look: "secondary" });
  const element = h("section", { class: "report", "aria-label": t("report.title") },
    h("div", { class: "scenes-head" }, h("h2", {}, t("report.title")), measure), box);

  async function load() {
    measure.disabled = true;
    replace(box, h("p", { class: "note" }, t("report.loading")));
    try {
      const report = await api.report(id);
      replace(box, warnings(report), metrics(report), stills(report));
      measure.hidden = true;
    } catch (error) {
      replace(box, h("p", { class: "error" }, errorsOf(error).map(sentence).join(" ")));
    }
    measure.disabled = false;
  }

  const letter = (take) => h("span", { class: `letter l${(take - 1) % 6}` }, letterOf(take - 1));

  function warnings({ takes }) {
    return h("div", { class: "warnings" }, takes.map(({ take, warnings: found }) => h("div", {},
      h("h3", {}, letter(take), " ", found.length ? "" : t("report.none")),
      h("ul", { lang: "en" }, found.map(({ text, time }) => h("li", {}, text, " ",
        time !== null && h("button", { type: "button", class: "quiet", onclick: () => onseek(time) }, t("decide.seek", { time: seconds(round(time)) }))))))));
  }

  function metrics({ takes, metrics: rows }) {
    return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": t("report.metric") }, h("table", {},
      h("thead", {}, h("tr", {}, h("th", { scope: "col" }, t("report.metric")),
        takes.map(({ take }) => h("th", { scope: "col" }, t("report.take", { letter: letterOf(take - 1) }))))),
      h("tbody", { lang: "en" }, rows.map(({ label, help, values }) => h("tr", {}, h("th", { scope: "row", title: help }, label),
        values.map(({ text, best }) => h("td", { class: best ? "best" : null }, text)))))));
  }

  function stills({ events }) {
    return h("div", { class: "stills", "aria-label": t("report.stills"), role: "group" }, events.map(({ prompt, takes }, n) => h("div", {},
      h("h3", {}, `${n + 1}. ${prompt}`),
      takes.map(({ take, stills: shown, reading }) => h("div", { class: "strip" }, letter(take),
        shown.map(({ time, src }) => h("button", { type: "button", class: "still", onclick: () => onseek(time),
          "aria-label": t("report.still", { letter: letterOf(take - 1), time: seconds(round(time)) }) }, h("img", { src, alt: "" }))),
        reading && h("span", { class: "note", lang: "en" }, reading))))));
  }

  return element;
}
