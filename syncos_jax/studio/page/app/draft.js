/** The draft: what the form holds, from and to what the server takes. No element is known here. */

const KEPT = "syncos.draft";
const SAMPLER = ["steps", "guidance", "strength"];

/** Events of a new draft are as long as the model's own clips. */
export const usualSeconds = (model) => Math.max(0.5, Math.round((2 * model.clip_frames) / model.fps) / 2);

/**
 * start: "empty", "story" or "template"; events: {prompt, seconds, rest}, `rest` being what the form
 * does not show; rest: the same of the scenario. Numbers are null where the field is empty and NaN
 * where it holds no number.
 */
export function newDraft(model) {
  const event = () => ({ prompt: "", seconds: usualSeconds(model), rest: {} });
  return {
    start: "empty", template: null, variables: {}, story: "", parts: null, title: "",
    global: "", events: [event(), event()], rest: {}, takes: Math.min(2, model.limits.takes), seed: null,
    settings: { steps: null, guidance: null, strength: null, width: null, height: null, negative: "", label: "", watermark: null },
  };
}

/** Nothing has been written or chosen yet. */
export const isEmpty = (draft) =>
  draft.start !== "template" && !draft.global.trim() && !draft.story.trim() && draft.events.every((event) => !event.prompt.trim());

/** Takes a scenario apart, as it stands in a plan or in an earlier video. */
export function withScenario(draft, scenario, model) {
  const { global = "", events = [], seed, size, negative = "", sampler, ...rest } = scenario;
  const fps = rest.fps || model.fps;
  const settings = { ...draft.settings, width: size?.[0] ?? null, height: size?.[1] ?? null, negative };
  const others = { ...(sampler || {}) };
  for (const key of SAMPLER) {
    settings[key] = others[key] ?? null;
    delete others[key];
  }
  if (sampler) rest.sampler = others;
  return {
    ...draft, start: "empty", template: null, variables: {}, global, rest, settings,
    events: events.map(({ prompt, seconds, frames, ...more }) => ({
      prompt, seconds: seconds ?? Math.round((1000 * frames) / fps) / 1000, rest: more })),
  };
}

/** "Again from this one": of the same template where it still exists, else of its scenario. */
export function ofVideo(video, model, templates) {
  const draft = withScenario(newDraft(model), video.scenario, model);
  Object.assign(draft, { takes: video.takes.length || 1, seed: video.seed, title: video.title || "" });
  Object.assign(draft.settings, { label: video.label || "", watermark: video.watermark ?? null });
  const template = templates.find((item) => item.name === video.template);
  return template ? ofTemplate(draft, template, video.variables || {}) : draft;
}

export function ofTemplate(draft, template, values = {}) {
  const variables = Object.fromEntries(
    template.variables.map((v) => [v.name, values[v.name] ?? v.default ?? (v.kind === "text" ? "" : null)]));
  return { ...draft, start: "template", template: template.name, variables };
}

/** The scenario of a take with `keys` of what it builds on: an event made again, or its continuation. */
export function ofTake(video, take, model, keys) {
  const draft = withScenario(newDraft(model), video.scenario, model);
  for (const key of ["image", "end_image", "extend", "join", "redo"]) delete draft.rest[key];
  for (const event of draft.events) delete event.rest.image;
  Object.assign(draft.rest, keys);
  return Object.assign(draft, { takes: 1, seed: (take.seed + 1) % 2 ** 32, title: video.title || "" });
}

/** The body of POST /v1/plan and POST /v1/videos. */
export function body(draft) {
  const { steps, guidance, strength, width, height, negative, label, watermark } = draft.settings;
  const settings = { steps, guidance, strength, size: width && height ? [width, height] : null, watermark };
  if (label.trim()) settings.label = label.trim();
  if (negative.trim()) settings.negative = negative.trim();
  const given = Object.fromEntries(Object.entries(settings).filter(([, value]) => value !== null));
  const common = { takes: draft.takes, seed: draft.seed, title: draft.title.trim() || null, settings: given };
  if (draft.start === "template")
    return { template: draft.template, variables: withoutEmpty(draft.variables), ...common };
  const events = draft.events.map(({ prompt, seconds, rest }) => ({ ...rest, prompt: prompt.trim(), seconds }));
  return { scenario: { ...draft.rest, global: draft.global.trim(), events }, ...common };
}

const withoutEmpty = (values) =>
  Object.fromEntries(Object.entries(values).filter(([, value]) => value !== null && value !== ""));

/** What is wrong, in the page's own words: [{field, key, values}], `key` naming a text. */
export function problems(draft, model, template) {
  const found = [];
  const say = (field, key, values = {}) => found.push({ field, key, values });
  const { limits } = model;
  if (draft.start === "template") template?.variables.forEach((v) => ofVariable(v, draft.variables[v.name], say));
  else {
    if (!draft.global.trim() && draft.rest.structured !== false) say("global", "wrong.global");
    draft.events.forEach((event, i) => ofEvent(event, i, say));
    const total = draft.events.reduce((sum, event) => sum + (event.seconds || 0), 0);
    if (limits.seconds && total > limits.seconds) say("events", "wrong.total", { most: limits.seconds });
  }
  whole(draft.takes, 1, limits.takes, "takes", say, false);
  whole(draft.seed, 0, 2 ** 32 - 1, "seed", say);
  ofSettings(draft.settings, say);
  return found;
}

function ofEvent(event, index, say) {
  if (!event.prompt.trim()) say(`events.${index}.prompt`, "wrong.prompt");
  if (!(event.seconds > 0)) say(`events.${index}.seconds`, "wrong.seconds");
}

function ofSettings({ steps, guidance, strength, width, height }, say) {
  whole(steps, 1, 1000, "settings.steps", say);
  if (Number.isNaN(guidance)) say("settings.guidance", "wrong.number");
  if (strength !== null && !(strength >= 0 && strength <= 1))
    say("settings.strength", "wrong.between", { least: 0, most: 1 });
  if ((width === null) !== (height === null)) say("settings.size", "wrong.size");
  else if (width !== null && !(Number.isInteger(width) && Number.isInteger(height) && width > 0 && height > 0))
    say("settings.size", "wrong.size");
}

function whole(value, least, most, field, say, optional = true) {
  if (value === null && optional) return;
  if (!Number.isInteger(value) || value < least || value > most) say(field, "wrong.whole", { least, most });
}

function ofVariable(variable, value, say) {
  const { name, kind, minimum, maximum, max_length: longest } = variable;
  const field = `variables.${name}`;
  if (value === null || value === "" || value === undefined) {
    if (variable.default === null || variable.default === undefined) say(field, "wrong.value");
    return;
  }
  if (kind === "text" && longest && String(value).length > longest) say(field, "wrong.long", { most: longest });
  if (kind !== "number" && kind !== "integer") return;
  const low = minimum ?? -Infinity;
  const high = maximum ?? Infinity;
  if (Number.isNaN(value) || (kind === "integer" && !Number.isInteger(value))) say(field, kind === "integer" ? "wrong.integer" : "wrong.number");
  else if (value < low || value > high) say(field, ...range(minimum, maximum));
}

function range(minimum, maximum) {
  if (minimum === null || minimum === undefined) return ["wrong.most", { most: maximum }];
  if (maximum === null || maximum === undefined) return ["wrong.least", { least: minimum }];
  return ["wrong.between", { least: minimum, most: maximum }];
}

/** The draft outlives the tab: an afternoon's prompts are not lost with it. */
export function save(draft) {
  try {
    localStorage.setItem(KEPT, JSON.stringify(draft));
  } catch {
    // full or forbidden: the form works without
  }
}

export function restore(model, templates) {
  const fresh = newDraft(model);
  try {
    const kept = JSON.parse(localStorage.getItem(KEPT));
    if (!kept || !Array.isArray(kept.events) || !kept.events.length) return fresh;
    const draft = { ...fresh, ...kept, settings: { ...fresh.settings, ...kept.settings } };
    const template = templates.find((item) => item.name === draft.template);
    if (draft.start !== "template") return draft;
    return template ? ofTemplate(draft, template, draft.variables) : { ...draft, start: "empty", template: null };
  } catch {
    return fresh;
  }
}
