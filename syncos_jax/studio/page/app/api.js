/** The server's answers. What it refuses is thrown as `Refusal`. */

export class Refusal extends Error {
  /** `fields`: [{field, message, remedy}], the field null where it is about the whole. */
  constructor(status, error, retryAfter = null) {
    super(error.message);
    Object.assign(this, { status, remedy: error.remedy || "", field: error.field ?? null, retryAfter });
    this.fields = error.fields?.length ? error.fields : [{ ...error, field: this.field }];
  }
}

/** The server does not answer at all. */
export class Silence extends Error {}

async function ask(path, { method = "GET", body, form, headers = {}, signal } = {}) {
  const options = { method, headers: { ...headers }, signal, credentials: "same-origin" };
  if (body !== undefined) {
    options.headers["Content-Type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  if (form) options.body = form; // the browser names its type and boundary
  let answer;
  try {
    answer = await fetch(`v1/${path}`, options);
  } catch (error) {
    throw error.name === "AbortError" ? error : new Silence(error.message);
  }
  if (answer.status === 204) return null;
  const json = await answer.json().catch(() => null);
  if (answer.ok && json !== null) return json;
  if (answer.status === 401) document.dispatchEvent(new Event("locked")); // the server began anew
  const error = json?.error || { message: `HTTP ${answer.status}`, remedy: "", field: null };
  throw new Refusal(answer.status, error, answer.headers.get("Retry-After"));
}

const path = (id) => `videos/${encodeURIComponent(id)}`;

export const api = {
  model: () => ask("model"),
  templates: () => ask("templates").then((answer) => answer.items),
  saveTemplate: (name, video, variables) => ask("templates", { method: "POST", body: { name, video, variables } }),
  upload(file) {
    const form = new FormData();
    form.append("picture", file);
    return ask("pictures", { method: "POST", form });
  },
  lessons: (template) => ask(`lessons?${new URLSearchParams(template ? { template } : {})}`),
  saveLearned: (template, name) => ask("lessons/template", { method: "POST", body: { template, name } }),
  plan: (body, signal) => ask("plan", { method: "POST", body, signal }),
  split: (story, events) => ask("split", { method: "POST", body: { story, events } }),
  make: (body, key) => ask("videos", { method: "POST", body, headers: { "Idempotency-Key": key } }),
  videos: (query) => ask(`videos?${new URLSearchParams(query)}`),
  video: (id) => ask(path(id)),
  cancel: (id) => ask(`${path(id)}/cancel`, { method: "POST" }),
  remove: (id) => ask(path(id), { method: "DELETE" }),
  report: (id) => ask(`${path(id)}/report`),
  moreTakes: (id, count) => ask(`${path(id)}/takes`, { method: "POST", body: { count } }),
  move: (id, place) => ask(`${path(id)}/place`, { method: "POST", body: { place } }),
  decide: (id, body) => ask(`${path(id)}/decision`, { method: "POST", body }),
};

/** 128 random bits; crypto.randomUUID is missing where the page comes over plain HTTP. */
export function newKey() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((b) => b.toString(16).padStart(2, "0")).join("");
}
