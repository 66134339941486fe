/** One card for each event: prompt, seconds, order. And the bar that shows their lengths. */

import { h, hue, icon, replace, announce, iconButton } from "./dom.js";
import { t, count, seconds } from "./text.js";
import { pictureField } from "./pictures.js";
import { field, stepper, promptArea, controlOf, button } from "./fields.js";

/**
 * The cards of `draft.events`. `onedit()` is called after every change; `touch(field)` when a field
 * is left. Returns {element, mark(plan), focus(index)}.
 */
export function eventCards({ draft, model, newEvent, onedit, touch }) {
  const list = h("ol", { class: "events" });
  const cards = new Map(); // event -> card: what is being typed into stays where it is
  const most = model.limits.events || Infinity;

  const add = button(t("event.add"), () => insert(draft.events.length), { look: "add", picture: "plus" });
  const element = h("div", {}, list,
    h("div", { class: "field", "data-field": "events" }, add, h("p", { class: "error", role: "status" })));

  function arrange() {
    draft.events.forEach((event, index) => {
      if (!cards.has(event)) cards.set(event, makeCard(event));
      const { item, name } = cards.get(event);
      name(index, draft.events.length);
      if (list.children[index] !== item) list.insertBefore(item, list.children[index] || null);
    });
    for (const [event, { item }] of [...cards])
      if (!draft.events.includes(event)) {
        item.remove();
        cards.delete(event);
      }
    add.disabled = draft.events.length >= most;
  }

  function insert(at) {
    const event = newEvent();
    draft.events.splice(at, 0, event);
    arrange();
    cards.get(event).area.focus();
    announce(count("event.added", draft.events.length));
    onedit();
  }

  function remove(event) {
    const at = draft.events.indexOf(event);
    if (draft.events.length === 1) return;
    draft.events.splice(at, 1);
    arrange();
    cards.get(draft.events[Math.min(at, draft.events.length - 1)]).area.focus();
    announce(count("event.removed", draft.events.length));
    onedit();
  }

  function move(event, to, quiet = false) {
    const from = draft.events.indexOf(event);
    if (to < 0 || to >= draft.events.length || to === from) return;
    const focused = document.activeElement;
    draft.events.splice(from, 1);
    draft.events.splice(to, 0, event);
    arrange();
    if (cards.get(event).item.contains(focused)) focused.focus({ preventScroll: quiet });
    if (!quiet) announce(t("event.moved", { place: to + 1, count: draft.events.length }));
    onedit();
  }

  function makeCard(event) {
    const area = promptArea(event.prompt, {
      placeholder: t("event.prompt.placeholder"), longest: model.limits.prompt_characters || 2000,
      oninput: (value) => {
        event.prompt = value;
        onedit();
      },
    });
    const length = stepper(event.seconds, {
      step: 0.5, least: 0.5, lessLabel: "", moreLabel: "",
      oninput: (value) => {
        event.seconds = value;
        onedit();
      },
    });
    const title = h("h3", { class: "number" });
    const prompt = field({ key: "", label: t("event.prompt"), wide: true, ...area });
    const time = field({ key: "", label: t("event.seconds"), ...length });
    const buttons = {
      up: iconButton("up", "", () => move(event, draft.events.indexOf(event) - 1)),
      down: iconButton("down", "", () => move(event, draft.events.indexOf(event) + 1)),
      remove: iconButton("remove", "", () => remove(event)),
    };
    const { picture_bytes: most } = model.limits;
    const picture = most && !draft.rest.redo && pictureField({ key: "", label: t("picture.event"), name: "", value: event.rest.image, most, small: true,
      onchange: (id) => {
        if (id) event.rest.image = id;
        else delete event.rest.image;
        onedit();
      } });
    const grip = h("span", { class: "grip", "aria-hidden": "true", title: t("event.drag") }, icon("grip"));
    const cut = h("p", { class: "cut" });
    prompt.append(cut);
    const item = h("li", { class: "event" },
      h("div", { class: "event-side" }, title, grip),
      h("div", { class: "event-body" }, prompt, h("div", { class: "event-foot" }, time,
        h("div", { class: "event-buttons" }, buttons.up, buttons.down, buttons.remove)), picture));
    item.addEventListener("focusout", ({ target }) => {
      const left = target.closest("[data-field]");
      if (left && target.matches("input, textarea")) touch(left.dataset.field);
    });
    dragging(grip, item, list, (to) => move(event, to, true));
    return { item, area: area.control, mark: area.mark, cut, name: namer(item, title, prompt, time, buttons, picture) };
  }

  arrange();
  return {
    element, arrange,
    focus: (index) => cards.get(draft.events[index])?.area.focus(),
    mark(planned) {
      draft.events.forEach((event, i) => {
        const { mark, cut } = cards.get(event);
        const words = planned?.[i]?.cut || "";
        mark(words);
        replace(cut, words && t("event.cut", { n: i + 1, words, most: model.limits.prompt_tokens }), words && model.vocabulary && ` ${t("event.cut.unknown")}`);
      });
    },
  };
}

/** What a card is called at its place: names of buttons, keys of fields, hue. */
function namer(item, title, prompt, time, buttons, picture) {
  return (index, total) => {
    const n = index + 1;
    item.style.setProperty("--hue", hue(index, total));
    title.textContent = n;
    title.setAttribute("aria-label", t("event.title", { n }));
    prompt.dataset.field = `events.${index}.prompt`;
    time.dataset.field = `events.${index}.seconds`;
    controlOf(prompt).setAttribute("aria-label", t("event.prompt.name", { n }));
    time.querySelector("input").setAttribute("aria-label", t("event.seconds.name", { n }));
    for (const [name, node] of Object.entries(buttons)) {
      label(node, t(`event.${name}`, { n }));
    }
    const [less, more] = time.querySelectorAll("button");
    label(less, t("event.shorter", { n }));
    label(more, t("event.longer", { n }));
    if (picture) {
      picture.dataset.field = `events.${index}.image`;
      picture.rename(t("picture.event.name", { n }));
    }
    buttons.up.disabled = index === 0;
    buttons.down.disabled = n === total;
    buttons.remove.disabled = total === 1;
  };
}

function label(button, text) {
  button.title = text;
  button.setAttribute("aria-label", text);
}

/** Dragging by the grip, with mouse, pen or finger: the card goes where the pointer is. */
function dragging(grip, item, list, moveTo) {
  grip.addEventListener("pointerdown", (down) => {
    if (down.button !== 0) return;
    down.preventDefault();
    grip.setPointerCapture(down.pointerId);
    item.classList.add("dragged");
    const follow = ({ clientY }) => {
      const items = [...list.children];
      const from = items.indexOf(item);
      const middle = (node) => node.getBoundingClientRect().top + node.offsetHeight / 2;
      if (from > 0 && clientY < middle(items[from - 1])) moveTo(from - 1);
      else if (from < items.length - 1 && clientY > middle(items[from + 1])) moveTo(from + 1);
    };
    const drop = () => {
      item.classList.remove("dragged");
      grip.removeEventListener("pointermove", follow);
    };
    grip.addEventListener("pointermove", follow);
    grip.addEventListener("lostpointercapture", drop, { once: true });
  });
}

/** The lengths as a bar; `onpick(index)` where a press on an event leads somewhere. */
export function lengthBar(events, onpick = null) {
  const total = events.reduce((sum, event) => sum + (event.seconds || 0), 0);
  return h("ol", { class: "bar" }, events.map((event, i) => {
    const label = t("bar.event", { n: i + 1, length: seconds(event.seconds || 0) });
    const part = h("li", { hue: hue(i, events.length) }, onpick
      ? h("button", { type: "button", title: label, "aria-label": label, onclick: () => onpick(i) }, i + 1)
      : h("span", { title: label }, i + 1));
    part.style.flexGrow = Math.max(event.seconds || 0, 0.001);
    part.classList.toggle("tiny", !(event.seconds > total / 40));
    return part;
  }));
}

/** What a template makes: the same cards, to be read. */
export function storyboard(global, events, { most = "", onchange = null, onredo = null } = {}) {
  return h("div", { class: "storyboard" },
    global && h("p", { class: "board-global" }, h("span", { class: "label" }, t("global.short")), global),
    h("ol", { class: "events read" }, events.map((event, i) => h("li", { class: "event", hue: hue(i, events.length) },
      h("div", { class: "event-side" }, h("span", { class: "number" }, i + 1)),
      h("div", { class: "event-body" }, h("p", { class: "board-prompt" }, marked(event)),
        h("p", { class: "board-length" }, seconds(event.seconds)),
        onchange && h("button", { type: "button", class: "quiet change", "aria-label": t("video.change", { n: i + 1 }),
          title: t("video.change", { n: i + 1 }), onclick: () => onchange(i) }, icon("pen")),
        onredo && h("button", { type: "button", class: "quiet change", "aria-label": t("video.redo", { n: i + 1 }),
          title: t("video.redo", { n: i + 1 }), onclick: () => onredo(i) }, icon("again")),
        event.cut && h("p", { class: "cut" }, t("event.cut", { n: i + 1, words: event.cut, most })))))));
}

function marked({ prompt, cut }) {
  const at = cut ? prompt.toLowerCase().lastIndexOf(cut.toLowerCase()) : -1;
  if (at < 0) return prompt;
  return [prompt.slice(0, at), h("mark", {}, prompt.slice(at, at + cut.length)), prompt.slice(at + cut.length)];
}
