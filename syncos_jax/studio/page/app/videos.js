/** The history: every video with its picture and its state; search, filter, more. */

import { h, hue, replace, announce, later, icon } from "./dom.js";
import { t, count, seconds, moment } from "./text.js";
import { api } from "./api.js";
import { choices, errorsOf, sentence, button } from "./fields.js";
import { keepAnswer, listen } from "./store.js";
import { progressOf, statusChip } from "./progress.js";
import { queuePanel } from "./queue.js";

const PAGE = 24;
const FILTERS = ["", "in_progress", "queued", "completed", "failed", "cancelled"];

export function videosView(studio) {
  const cards = new Map();
  let [status, review, search, next] = ["", "", "", null];
  const grid = h("ul", { class: "history" });
  const note = h("p", { class: "note", role: "status" });
  const more = button(t("history.more"), () => load(true), { look: "secondary", hidden: true });

  const find = h("input", { type: "search", placeholder: t("history.search"), "aria-label": t("history.search"),
    oninput: later(() => {
      if (find.value.trim() !== search) load(); // not if the filter was changed since, which asked for both
    }, 250) });
  const filter = h("fieldset", { class: "filter" }, h("legend", { class: "away" }, t("history.filter")),
    choices("status", FILTERS.map((value) => ({ value, label: t(value ? `status.${value}` : "history.all") })), "", (value) => {
      status = value;
      load();
    }));

  const reviews = h("select", { "aria-label": t("history.review"), onchange: () => {
    review = reviews.value;
    load();
  } }, h("option", { value: "" }, t("history.review.all")),
  ["approved", "rejected", "undecided"].map((value) => h("option", { value }, t(`verdict.${value}`))));

  let asked = 0;
  async function load(further = false) {
    const mine = ++asked;
    search = find.value.trim();
    const query = { limit: PAGE, ...(status && { status }), ...(review && { review }), ...(search && { search }), ...(further && next && { after: next }) };
    try {
      const answer = await keepAnswer(api.videos(query));
      if (mine !== asked) return;
      if (!further) {
        cards.clear();
        grid.replaceChildren();
      }
      for (const video of answer.data) grid.append(card(video));
      next = answer.has_more ? answer.last_id : null;
      more.hidden = !next;
      const none = status || review || search ? t("history.nothing") : t("history.empty");
      replace(note, cards.size ? "" : none);
      if (search || status) announce(count("history.found", cards.size));
    } catch (error) {
      if (mine === asked) replace(note, errorsOf(error).map(sentence).join(" "));
    }
  }

  function card(video) {
    const item = cards.get(video.id) || h("li", {});
    cards.set(video.id, item);
    return replace(item, videoCard(video));
  }

  const stop = listen((video, before) => {
    if (cards.has(video.id)) update(cards.get(video.id), video);
    else if (!before && !search && !review && (!status || status === video.status)) {
      grid.prepend(card(video));
      replace(note);
    }
  });

  /** Anew, unless the focus is in it: then what changes inside. */
  function update(item, video) {
    const focused = item.contains(document.activeElement);
    replace(item, videoCard(video));
    if (focused) item.querySelector("a").focus({ preventScroll: true });
  }

  const queue = queuePanel((error) => replace(note, errorsOf(error).map(sentence).join(" ")));
  load();
  return {
    title: t("nav.videos"),
    leave() {
      stop();
      queue.stop();
    },
    element: h("div", { class: "videos" },
      h("div", { class: "videos-head" }, h("h1", { tabindex: "-1" }, t("history.title")),
        h("div", { class: "finders" }, find, reviews, filter)),
      queue.element, note, grid, more),
  };
}

export const titleOf = (video) => video.title || video.scenario?.global || video.scenario?.events?.[0]?.prompt || video.id;

/** Seconds of the whole video, as its scenario has them; 0 where it says frames. */
const lengthOf = (video) => (video.scenario?.events || []).reduce((sum, event) => sum + (event.seconds || 0), 0);

function videoCard(video) {
  const takes = video.takes || [];
  const length = lengthOf(video);
  const facts = [moment(video.created_at), length && seconds(length), count("takes.count", takes.length), video.template];
  return h("a", { class: `video-card ${video.status}`, href: `#/videos/${encodeURIComponent(video.id)}` },
    picture(video),
    h("span", { class: "video-body" },
      h("span", { class: "video-title" }, titleOf(video)),
      h("span", { class: "video-facts" }, facts.filter(Boolean).join(" · ")),
      h("span", { class: "video-state" }, statusChip(video), verdicts(takes)),
      progressOf(video)));
}

function picture(video) {
  const shown = (video.takes || []).find((take) => take.thumbnail && take.verdict === "approved")
    || (video.takes || []).find((take) => take.thumbnail);
  const source = shown?.thumbnail || video.preview;
  if (source) return h("span", { class: "video-picture" }, h("img", { src: source, alt: "", loading: "lazy" }));
  const events = video.scenario?.events || [];
  return h("span", { class: "video-picture drawn" }, h("span", { class: "sketch" }, events.slice(0, 12).map((event, i) => {
    const part = h("i", { hue: hue(i, events.length) });
    part.style.flexGrow = event.seconds || event.frames || 1;
    return part;
  })));
}

function verdicts(takes) {
  const of = (verdict) => takes.filter((take) => take.verdict === verdict).length;
  return [["approved", "check"], ["rejected", "remove"]].filter(([verdict]) => of(verdict)).map(([verdict, sign]) =>
    h("span", { class: `verdict ${verdict}` }, icon(sign), count(`verdict.${verdict}.count`, of(verdict))));
}
