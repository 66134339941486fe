/** The plan at the foot of the form: lengths, windows, time, memory, and the button that starts it. */

import { h, replace, announce, later } from "./dom.js";
import { t, count, seconds, duration, bytes, money, number } from "./text.js";
import { api } from "./api.js";
import { button, errorsOf } from "./fields.js";
import { lengthBar } from "./events.js";

const WAIT = 350;

/**
 * `bodyOf()` is the body to plan, null where the page itself sees what is wrong. `onplan(plan,
 * errors)` gets what came. Returns {element, ask(), show(events), complain(text), busy(bool)}.
 */
export function planDock({ model, bodyOf, reasonOf, onplan, onpick, ongenerate }) {
  const bar = h("div", { class: "bar-box" });
  const windows = h("div", { class: "windows", "aria-hidden": "true" });
  const facts = h("dl", { class: "facts" });
  const words = h("p", { class: "dock-words", role: "alert" });
  const why = h("p", { class: "dock-why", id: "dock-why" });
  const generate = button("", () => generate.getAttribute("aria-disabled") !== "true" && ongenerate(),
    { look: "primary big", picture: "play", "aria-describedby": "dock-why" });
  const label = generate.querySelector("span");
  const element = h("section", { class: "dock", "aria-label": t("plan.title") },
    h("div", { class: "dock-inner" },
      h("div", { class: "timeline" }, bar, windows), facts, h("div", { class: "dock-act" }, generate, why), words));

  let current = null; // the request that is under way

  async function request() {
    current?.abort();
    const body = bodyOf();
    if (!body) return show(null, []);
    const mine = (current = new AbortController());
    element.setAttribute("aria-busy", "true");
    wait(t("plan.loading"));
    try {
      const plan = await api.plan(body, mine.signal);
      if (mine === current) show(plan, []);
    } catch (error) {
      if (error.name !== "AbortError" && mine === current) show(null, errorsOf(error));
    }
    if (mine === current) element.removeAttribute("aria-busy");
  }

  function wait(text) {
    replace(facts, fact(t("plan.title"), text));
    facts.classList.add("waiting");
    replace(windows);
  }

  function show(plan, errors) {
    if (plan) replace(facts, factsOf(plan, bodyOf()?.takes || 1, model));
    else wait(errors.length ? "–" : t("plan.waiting"));
    facts.classList.toggle("waiting", !plan);
    drawWindows(windows, plan, model);
    onplan(plan, errors);
    if (plan) hear(plan);
  }

  let heard = "";
  let last = null;
  const speak = later(() => {
    const text = t("plan.spoken", { length: seconds(last.seconds), windows: count("plan.windows", last.windows) });
    if (text !== heard) announce(text);
    heard = text;
  }, 1200);
  const hear = (plan) => {
    last = plan;
    speak();
  };

  const askLater = later(request, WAIT);
  /** Plan what the form holds now; until the answer comes, nothing of an earlier plan is shown. */
  function ask() {
    const reason = reasonOf();
    generate.setAttribute("aria-disabled", String(Boolean(reason)));
    why.textContent = reason;
    wait(bodyOf() ? t("plan.loading") : t("plan.waiting"));
    askLater();
  }
  ask.cancel = askLater.cancel;
  return {
    element, ask,
    focus: () => generate.focus({ preventScroll: true }),
    stop() {
      ask.cancel();
      speak.cancel();
      current?.abort();
    },
    /** The bar, at once, from what stands in the form. */
    bar: (events) => replace(bar, events.length ? lengthBar(events, onpick) : null),
    takes: (n) => (label.textContent = Number.isInteger(n) && n > 0 ? count("plan.generate", n) : t("plan.generate")),
    complain(text, lang = "") {
      words.lang = lang;
      words.textContent = text;
    },
    busy: (is) => {
      generate.disabled = is;
      generate.classList.toggle("working", is);
    },
  };
}

const fact = (name, value, title = null) => h("div", { title }, h("dt", {}, name), h("dd", {}, value));

function factsOf(plan, takes, { devices, rate }) {
  const time = plan.estimated_seconds;
  const known = time !== null && time !== undefined;
  return [
    fact(t("plan.length"), seconds(plan.seconds), count("plan.frames", plan.frames)),
    fact(t("plan.windows.name"), number(plan.windows), count("plan.calls", plan.calls)),
    fact(takes > 1 ? count("plan.time.takes", takes) : t("plan.time"), known ? t("plan.about", { time: duration(time) }) : t("plan.unknown")),
    known && fact(t("plan.cost"), rate ? money(time * devices * rate.per_hour / 3600, rate.currency) : t("plan.device", { n: number(time * devices / 60, 1) }),
      t("plan.device", { n: number(time * devices / 60, 1) })),
    plan.memory_bytes ? fact(t("plan.memory"), bytes(plan.memory_bytes)) : null,
  ];
}

/** Each window as a line, on as many rows as overlap: how the video is put together. */
function drawWindows(box, plan, model) {
  if (!plan || plan.windows < 1 || plan.windows > 120) return replace(box);
  const length = Math.min(1, model.clip_frames / plan.frames);
  const stride = plan.windows > 1 ? (1 - length) / (plan.windows - 1) : 0;
  const rows = stride > 0 ? Math.min(4, Math.ceil(length / stride)) : 1;
  replace(box, Array.from({ length: plan.windows }, (_, i) => {
    const line = h("i");
    Object.assign(line.style, { left: `${100 * i * stride}%`, width: `calc(${100 * length}% - 3px)`, top: `${(i % rows) * 4}px` });
    return line;
  }));
}
