/** Elements without HTML strings: whatever people wrote enters the page as text alone. */

const SVG = "http://www.w3.org/2000/svg";

/**
 * `h("button", {class: "quiet", type: "button", onclick: f}, "text", child)`: an element. Keys that
 * begin with "on" are listeners; true stands for an empty attribute; null and false for none.
 */
export function h(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "value") node.value = value;
    else if (name === "hue") node.style.setProperty("--hue", value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  put(node, children);
  return node;
}

/** Appends texts and elements; null and false are left out. */
export function put(node, children) {
  for (const child of children.flat()) if (child || child === 0) node.append(child);
  return node;
}

export function replace(node, ...children) {
  node.replaceChildren();
  return put(node, children);
}

const PATHS = {
  play: "M6 4v12l10-6z",
  pause: "M6.5 4v12M13.5 4v12",
  back: "M14 4l-7 6 7 6zM5 4v12",
  forth: "M6 4l7 6-7 6zM15 4v12",
  loop: "M4 10a6 5 0 0 1 6-5h5M13 2.5L15.5 5 13 7.500M16 10a6 5 0 0 1-6 5H5M7 12.500L4.500 15 7 17.500",
  up: "M10 16V4M5 9l5-5 5 5",
  down: "M10 4v12M5 11l5 5 5-5",
  remove: "M5 5l10 10M15 5L5 15",
  plus: "M10 4v12M4 10h12",
  minus: "M4 10h12",
  check: "M4 10.500l4 4 8-9",
  again: "M15.500 7A6.500 6.500 0 1 0 16.500 11M16 3v4h-4",
  keep: "M5.500 3h9v14L10 13.500 5.500 17z",
  save: "M10 3v9M6 8.500l4 4 4-4M4 16h12",
  pen: "M4 16l1-4 8.500-8.500 3 3L8 15z",
  grip: "M7 5v.01M13 5v.01M7 10v.01M13 10v.01M7 15v.01M13 15v.01",
  story: "M4 5h12M4 9h12M4 13h7",
};

/** A small picture that says nothing to a screen reader; the control that has it needs a name. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  const path = document.createElementNS(SVG, "path");
  for (const [key, value] of [["viewBox", "0 0 20 20"], ["class", `icon ${name}`], ["aria-hidden", "true"]])
    svg.setAttribute(key, value);
  path.setAttribute("d", PATHS[name]);
  svg.append(path);
  return svg;
}

/** A button of a picture alone. */
export function iconButton(name, label, onclick, more = {}) {
  return h("button", { type: "button", class: "icon-button", "aria-label": label, title: label, onclick, ...more }, icon(name));
}

/** Says it to those who hear the page; the same words twice are said twice. */
export function announce(text) {
  const region = document.getElementById("said");
  region.textContent = region.textContent === text ? `${text}\u00a0` : text;
}

export function later(action, milliseconds) {
  let timer = 0;
  const call = () => {
    clearTimeout(timer);
    timer = setTimeout(action, milliseconds);
  };
  call.cancel = () => clearTimeout(timer);
  return call;
}

/** The hue of event `index` of `count`: along the video from sea green to rose. */
export const hue = (index, count) => Math.round(190 + (count > 1 ? (150 * index) / (count - 1) : 20));
