/** The queue: what is in progress and what waits, in order; move and cancel. */

import { h, replace, iconButton } from "./dom.js";
import { t, number } from "./text.js";
import { api } from "./api.js";
import { busy, keepAnswer, listen } from "./store.js";
import { stateText, timeLeft } from "./progress.js";
import { titleOf } from "./videos.js";

/** `onwrong(error)`; returns {element, stop()}. */
export function queuePanel(onwrong) {
  const list = h("ol", {});
  const element = h("section", { class: "queue panel", "aria-label": t("queue.title"), hidden: true }, h("h2", {}, t("queue.title")), list);

  async function act(action) {
    try {
      await keepAnswer(action);
    } catch (error) {
      onwrong(error);
    }
  }

  function show() {
    const videos = busy().sort((a, b) => (a.place ?? 0) - (b.place ?? 0) || a.created_at - b.created_at);
    const waiting = videos.filter((video) => video.status === "queued").length;
    const name = document.activeElement?.closest(".queue") && document.activeElement.getAttribute("aria-label");
    element.hidden = !videos.length;
    replace(list, videos.map((video) => {
      const title = titleOf(video);
      const queued = video.status === "queued";
      return h("li", {}, h("span", { class: "number" }, queued ? number(video.place ?? 1) : "▸"),
        h("a", { href: `#/videos/${encodeURIComponent(video.id)}` }, title),
        h("span", { class: "note" }, [stateText(video), timeLeft(video)].filter(Boolean).join(" · ")),
        h("span", { class: "event-buttons" },
          queued && iconButton("up", t("queue.up", { title }), () => act(api.move(video.id, video.place - 1)), { disabled: video.place <= 1 }),
          queued && iconButton("down", t("queue.down", { title }), () => act(api.move(video.id, video.place + 1)), { disabled: video.place >= waiting }),
          iconButton("remove", t("queue.cancel", { title }), () => act(api.cancel(video.id)), { disabled: video.status === "cancelling" })));
    }));
    if (name) [...list.querySelectorAll("button")].find((node) => node.getAttribute("aria-label") === name)?.focus();
  }

  show();
  return { element, stop: listen(show) };
}
