/** Pictures to begin with, to end with, or at the beginning of an event: choose, see, remove. */

import { h, announce, icon } from "./dom.js";
import { t, bytes } from "./text.js";
import { api } from "./api.js";
import { field, button, errorsOf, sentence } from "./fields.js";

/**
 * A place for a picture, called `name` ("Start picture"). `value` is its id or null; `onchange(id)`
 * is called with what was uploaded, or null. Returns the field; `small` for a card.
 */
export function pictureField({ key, label, name = label, value, most, onchange, small = false }) {
  let id = value ?? null;
  const file = h("input", { type: "file", accept: "image/*", hidden: true, onchange: () => upload(file.files[0]) });
  const image = h("img", { alt: "" });
  const choose = button("", () => file.click(), { look: "quiet", picture: "plus" });
  const remove = button(t("picture.remove"), () => {
    set(null);
    rename(element.pictureName);
    onchange(null);
    choose.focus();
  }, { look: "quiet" });
  const element = field({ key, label, group: true, control: h("div", { class: "picture-box" }, image, choose, remove, file) });
  element.classList.add("picture");
  element.classList.toggle("small", small);

  function set(next) {
    id = next;
    image.hidden = !id;
    if (id) image.src = `v1/pictures/${id}`;
    else image.removeAttribute("src");
    remove.hidden = !id;
    choose.lastChild.textContent = t(id ? "picture.change" : "picture.choose");
  }

  /** What it is called at its place, for those who hear the page. */
  function rename(text) {
    choose.setAttribute("aria-label", t(id ? "picture.change.name" : "picture.choose.name", { name: text }));
    remove.setAttribute("aria-label", t("picture.remove.name", { name: text }));
    element.pictureName = text;
  }

  async function upload(chosen) {
    const error = element.querySelector(":scope > .error");
    file.value = "";
    if (!chosen) return;
    if (chosen.size > most) return void (error.textContent = t("wrong.picture", { most: bytes(most) }));
    choose.disabled = true;
    error.textContent = "";
    try {
      const made = await api.upload(chosen);
      set(made.id);
      rename(element.pictureName);
      onchange(made.id);
      announce(t("picture.done", { name: element.pictureName }));
    } catch (refused) {
      const said = errorsOf(refused);
      error.lang = said[0].lang || "";
      error.textContent = said.map(sentence).join(" ");
    }
    choose.disabled = false;
  }

  set(id);
  rename(name);
  element.rename = rename;
  return element;
}

/** Start and end of the video, and how pictures fit; `rest` is the draft's. */
export function picturesPanel(rest, model, onedit) {
  const most = model.limits.picture_bytes;
  if (!most) return null;
  const slot = (key) => pictureField({ key, label: t(`picture.${key}`), value: rest[key], most, onchange: (id) => {
    if (id) rest[key] = id;
    else delete rest[key];
    onedit();
  } });
  const fit = h("select", { onchange: () => {
    rest.fit = fit.value;
    onedit();
  } }, ["cover", "contain"].map((value) => h("option", { value, selected: (rest.fit || "cover") === value }, t(`picture.${value}`))));
  const bound = rest.redo || rest.extend;
  return h("details", { class: "pictures", open: Boolean(rest.image || rest.end_image) }, h("summary", {}, t("picture.title")),
    h("p", { class: "hint" }, t("picture.hint", { most: bytes(most) })),
    h("div", { class: "picture-row" }, !bound && slot("image"), !rest.redo && slot("end_image")),
    field({ key: "fit", label: t("picture.fit"), control: fit }));
}

/** What the new video builds on, and a way to let go of it: `ondrop()`. */
export function basePanel(rest, ondrop) {
  const key = rest.redo ? "redo" : rest.extend ? "extend" : null;
  if (!key) return null;
  const text = key === "redo" ? t("base.redo", { n: rest.redo.events.join(", ") }) : t("base.extend");
  const [id, take] = (rest.redo?.video || rest.extend).split("/");
  return h("div", { class: "field base", "data-field": key },
    h("div", { class: "base-line" }, icon("again"), h("p", {}, text, " ",
      h("a", { href: `#/videos/${id}` }, t("base.source", { letter: String.fromCharCode(64 + Number(take)) }))),
    button(t("base.drop"), ondrop, { look: "quiet" })), h("p", { class: "error" }));
}
