/** What the page says, in the reader's language: texts/en.json and texts/ja.json. */

export const LANGUAGES = ["en", "ja"];
const KEPT = "syncos.language";

let words = {};
let templates = {}; // built-in templates in the reader's language
let chosen = "en";

/** The language that was chosen here before, else the first of the browser's that there is. */
export function preferred() {
  const kept = localStorage.getItem(KEPT);
  const asked = [kept, ...(navigator.languages || [])].filter(Boolean).map((tag) => tag.slice(0, 2));
  return asked.find((tag) => LANGUAGES.includes(tag)) || "en";
}

export async function useLanguage(language, keep = false) {
  const answer = await fetch(`static/texts/${language}.json`);
  words = await answer.json();
  templates = language === "en" ? {} : await (await fetch(`static/templates/${language}.json`)).json();
  chosen = language;
  if (keep) localStorage.setItem(KEPT, language);
  document.documentElement.lang = language;
  for (const button of document.querySelectorAll("[data-language]"))
    button.setAttribute("aria-pressed", button.dataset.language === language);
  translate(document);
}

/** The text of a key, `{name}` replaced by values. */
export function t(key, values = {}) {
  const text = words[key];
  if (text === undefined) throw new Error(`no text for ${key}`);
  return text.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? String(values[name]) : whole));
}

/** Name, description and variables (name: [label, description]) of a template, as people read them. */
export const templateText = (template) => ({ name: template.name, description: template.description, variables: {}, ...templates[template.name] });

/** A price in the team's currency. */
export const money = (amount, currency) =>
  new Intl.NumberFormat(chosen, { style: "currency", currency }).format(amount);

/** The text of a number of things: KEY.one or KEY.other, with {n}. */
export function count(key, n, values = {}) {
  const form = new Intl.PluralRules(chosen).select(n) === "one" ? "one" : "other";
  return t(`${key}.${form}`, { n: number(n), ...values });
}

/** Texts of what stands in the HTML: data-t is the content, data-t-label the name. */
function translate(root) {
  for (const node of root.querySelectorAll("[data-t]")) node.textContent = t(node.dataset.t);
  for (const node of root.querySelectorAll("[data-t-label]"))
    node.setAttribute("aria-label", t(node.dataset.tLabel));
}

export const number = (value, digits = 2) =>
  new Intl.NumberFormat(chosen, { maximumFractionDigits: digits }).format(value);

/** "2.5 s": a length of a video. */
export const seconds = (value) => t("unit.seconds", { n: number(value) });

/** "about 3 min": how long something takes. */
export function duration(value) {
  if (value < 1) return t("unit.moment");
  if (value < 90) return t("unit.seconds", { n: number(value, 0) });
  if (value < 5400) return t("unit.minutes", { n: number(value / 60, value < 600 ? 1 : 0) });
  return t("unit.hours", { n: number(value / 3600, 1) });
}

export function bytes(value) {
  const units = ["MB", "GB", "TB"];
  let size = value / 1e6;
  let unit = 0;
  while (size >= 1000 && unit < 2) [size, unit] = [size / 1000, unit + 1];
  return `${number(size, size < 10 ? 1 : 0)} ${units[unit]}`;
}

/** A time (Unix seconds or ISO 8601) in the reader's time zone: "14:02" if today, else with its date. */
export function moment(time) {
  const at = new Date(typeof time === "number" ? 1000 * time : time);
  const today = at.toDateString() === new Date().toDateString();
  const form = today ? { timeStyle: "short" } : { dateStyle: "medium", timeStyle: "short" };
  return new Intl.DateTimeFormat(chosen, form).format(at);
}
