/** The page as a whole: language, model, addresses, views. */

import { announce, h } from "./dom.js";
import { t, count, useLanguage, preferred, number } from "./text.js";
import { api, Refusal } from "./api.js";
import { restore } from "./draft.js";
import { errorsOf, sentence } from "./fields.js";
import { busy, listen, watch } from "./store.js";
import { makeView } from "./make.js";
import { learnedView } from "./learned.js";
import { videosView } from "./videos.js";
import { videoView } from "./video.js";

const main = document.getElementById("main");
const trouble = document.getElementById("trouble");

const studio = {
  model: null, templates: [], draft: null,
  go(address) {
    if (location.hash === address || (address === "#/" && !location.hash)) show();
    else location.hash = address;
  },
};
let view = null;

/** What an address shows: the form, "#/videos", "#/videos/ID" one video, "#/approved" the lessons. */
function viewOf(address) {
  const [first, id] = address.replace(/^#\/?/, "").split("/");
  if (first === "approved") return learnedView(studio);
  if (first !== "videos") return makeView(studio);
  return id ? videoView(studio, decodeURIComponent(id)) : videosView(studio);
}

function show(focus = true) {
  view?.leave();
  document.title = "SynCoS Studio";
  view = viewOf(location.hash);
  if (document.title === "SynCoS Studio") document.title = `${view.title} · SynCoS Studio`;
  main.replaceChildren(view.element);
  const place = { videos: "videos", approved: "learned" }[location.hash.split("/")[1]] || "make";
  for (const link of document.querySelectorAll("[data-nav]"))
    if (link.dataset.nav === place) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  if (!focus) return;
  scrollTo(0, 0);
  view.element.querySelector("h1")?.focus({ preventScroll: true });
}

function showCount() {
  const open = busy().length;
  const badge = document.getElementById("busy");
  badge.hidden = !open;
  badge.textContent = open;
  badge.setAttribute("aria-label", count("nav.busy", open));
}

function showModel() {
  const { name, width, height, fps } = studio.model;
  document.getElementById("model").textContent =
    t("shell.model", { name, size: `${width} × ${height}`, fps: number(fps) });
}

function complain(text) {
  trouble.textContent = text;
  trouble.hidden = false;
}

/** A large model takes minutes to load; until then there is nothing to fill in. */
async function reachModel() {
  const waiting = h("div", { class: "loading" }, h("div", { class: "pulse", "aria-hidden": "true" }, h("i"), h("i"), h("i")),
    h("p", { role: "status" }, t("shell.loading")));
  const soon = setTimeout(() => main.replaceChildren(waiting), 400);
  for (;;) {
    try {
      [studio.model, studio.templates] = await Promise.all([api.model(), api.templates()]);
      clearTimeout(soon);
      trouble.hidden = true;
      return true;
    } catch (error) {
      const again = error instanceof Refusal && error.status === 503 ? Number(error.retryAfter) || 5 : 0;
      if ((!again || again > 30) && error.status !== 401) complain(errorsOf(error).map(sentence).join(" "));
      if (!again) clearTimeout(soon);
      if (!again) return false;
      await new Promise((resolve) => setTimeout(resolve, 1000 * again));
    }
  }
}

async function begin() {
  await useLanguage(preferred());
  document.addEventListener("locked", () => complain(t("trouble.locked")));
  for (const button of document.querySelectorAll("[data-language]"))
    button.addEventListener("click", async () => {
      await useLanguage(button.dataset.language, true);
      if (!studio.model) return;
      showModel();
      showCount();
      show(false);
      announce(t("shell.changed"));
    });
  if (!(await reachModel())) return;
  studio.draft = restore(studio.model, studio.templates);
  listen(showCount);
  addEventListener("hashchange", () => show());
  document.querySelector(".skip").addEventListener("click", (event) => {
    event.preventDefault(); // the address belongs to the views
    main.focus();
  });
  showModel();
  show(false);
  watch();
}

begin();
