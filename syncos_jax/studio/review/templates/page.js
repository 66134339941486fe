"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const all = (selector, from = document) => [...from.querySelectorAll(selector)];
  const one = (selector, from = document) => from.querySelector(selector);
  const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
  const takes = data.takes;
  const videos = takes.map((take) => one(`.take[data-take="${take.id}"] video`));
  const lead = data.lead; // the longest take: its time is the page's time
  const spine = takes[lead];
  const seconds = (take) => take.frames / take.fps;
  const events = spine.events;
  const eventAt = (take, frame) => Math.max(0, take.events.findIndex((e) => frame < e.stop));
  const frameAt = (take, time) => clamp(Math.floor(time * take.fps + 1e-6), 0, take.frames - 1);

  // -- the player: one clock for all takes ------------------------------------------------------
  let time = 0;
  let playing = false;
  const ui = Object.fromEntries(
    ["play", "back", "forth", "clock", "now", "rate", "repeat", "time", "theme"].map((id) => [
      id, document.getElementById(id)]));

  const middle = (take, frame) => (frame + 0.5) / take.fps; // never between two frames

  function show() {
    const frame = frameAt(spine, time);
    const here = eventAt(spine, frame);
    ui.clock.textContent = `${time.toFixed(2)} s · ${frame + 1}/${spine.frames}`;
    ui.now.textContent = events[here].prompt ? `${here + 1}. ${events[here].prompt}` : "";
    ui.time.value = frame;
    ui.time.setAttribute("aria-valuetext", `frame ${frame + 1} of ${spine.frames}, event ${here + 1}`);
    for (const strip of all(".segments"))
      all(".segment", strip).forEach((part, index) => part.classList.toggle("here", index === here));
    const x = clamp(time / seconds(spine), 0, 1) * 1000;
    for (const line of all(".plane .head")) { line.setAttribute("x1", x); line.setAttribute("x2", x); }
    for (const [id, stills] of stillsOf) {
      const at = frameAt(takes[id], time);
      let near = null;
      for (const still of stills) if (Number(still.dataset.frame) <= at) near = still;
      for (const still of stills) still.classList.toggle("here", still === near);
    }
  }

  const stillsOf = takes.map((take) => [take.id, all(`.still[data-take="${take.id}"]`)]);

  function seek(to) {
    time = clamp(to, 0, seconds(spine) - 0.5 / spine.fps);
    takes.forEach((take, i) => {
      videos[i].currentTime = Math.min(time, seconds(take) - 0.5 / take.fps);
    });
    show();
  }

  function start() {
    if (time >= seconds(spine) - 1 / spine.fps) seek(0);
    playing = true;
    ui.play.textContent = "❚❚";
    ui.play.setAttribute("aria-label", "Pause");
    takes.forEach((take, i) => {
      videos[i].playbackRate = Number(ui.rate.value);
      if (time < seconds(take) - 0.5 / take.fps) videos[i].play().catch(() => {});
    });
    requestAnimationFrame(tick);
  }

  function stop() {
    playing = false;
    ui.play.textContent = "▶";
    ui.play.setAttribute("aria-label", "Play");
    for (const video of videos) video.pause();
    time = videos[lead].currentTime; // not the last tick's, which is old on a busy machine
    seek(middle(spine, frameAt(spine, time))); // all of them on the same moment
  }

  function tick() {
    if (!playing) return;
    const before = eventAt(spine, frameAt(spine, time));
    const clock = videos[lead];
    time = clock.currentTime;
    const over = clock.ended || time >= seconds(spine) - 0.02;
    const now = eventAt(spine, frameAt(spine, time));
    if (ui.repeat.value === "event" && (over || now !== before)) return again(events[before].start);
    if (over && ui.repeat.value === "all") return again(0);
    if (over) return stop();
    takes.forEach((take, i) => {
      const late = Math.abs(videos[i].currentTime - time);
      if (i !== lead && time < seconds(take) - 0.1 && late > Math.max(0.12, 1 / take.fps))
        videos[i].currentTime = time;
    });
    show();
    requestAnimationFrame(tick);
  }

  function again(frame) {
    seek(middle(spine, frame));
    start();
  }

  const step = (by) => {
    if (playing) stop();
    seek(middle(spine, frameAt(spine, time) + by));
  };
  const toggle = () => (playing ? stop() : start());

  ui.play.addEventListener("click", toggle);
  ui.back.addEventListener("click", () => step(-1));
  ui.forth.addEventListener("click", () => step(1));
  ui.time.addEventListener("input", () => seek(middle(spine, Number(ui.time.value))));
  ui.rate.addEventListener("change", () => {
    for (const video of videos) video.playbackRate = Number(ui.rate.value);
  });
  for (const video of videos) video.addEventListener("click", toggle);
  for (const button of all("button[data-frame]"))
    button.addEventListener("click", () => {
      const take = takes[Number(button.dataset.take)];
      seek(middle(take, Number(button.dataset.frame)));
    });

  addEventListener("keydown", (event) => {
    const inside = event.target.closest("input, textarea, select, [contenteditable]");
    const typing = inside && inside.type !== "range";
    if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
    const button = event.target.closest("button, summary, a");
    const actions = {
      " ": button ? null : toggle, ArrowLeft: () => step(-1), ArrowRight: () => step(1),
      Home: () => seek(0), End: () => seek(seconds(spine)),
      r: () => { ui.repeat.selectedIndex = (ui.repeat.selectedIndex + 1) % 3; },
    };
    if (inside && event.key.startsWith("Arrow")) return; // the slider has its own
    const action = /^[1-9]$/.test(event.key)
      ? events[event.key - 1] && (() => seek(middle(spine, events[event.key - 1].start)))
      : actions[event.key];
    if (!action) return;
    event.preventDefault();
    action();
  });

  // -- widths that follow the lengths of events --------------------------------------------------
  for (const strip of all(".segments"))
    all(".segment", strip).forEach((part, i) => {
      part.style.flexGrow = events[i].stop - events[i].start;
    });

  // -- plots -------------------------------------------------------------------------------------
  function reader(plane, move) {
    plane.addEventListener("pointermove", (event) => {
      const box = plane.getBoundingClientRect();
      move((event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
    });
  }

  for (const chart of data.charts) {
    const plane = one(`[data-chart="${chart.key}"]`);
    const output = one(`[data-reading="${chart.key}"]`);
    let at = 0;
    const read = (to) => {
      at = clamp(to, 0, seconds(spine));
      const parts = [`${at.toFixed(2)} s`];
      takes.forEach((take, i) => {
        if (at > seconds(take)) return;
        const frame = frameAt(take, at);
        const line = chart.lines[i];
        let best = 0;
        line.frames.forEach((f, k) => { if (f <= frame) best = k; });
        if (line.values.length) parts.push(`${take.letter} ${line.values[best].toFixed(3)}`);
      });
      output.textContent = parts.join("  ·  ");
    };
    reader(plane, (x) => read(x * seconds(spine)));
    plane.addEventListener("click", () => seek(at));
    plane.addEventListener("keydown", (event) => {
      const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (by) { read(at + by / spine.fps); seek(at); }
      else if (event.key === "Enter") seek(at);
      else return;
      event.preventDefault();
      event.stopPropagation();
    });
  }

  for (const heat of all("[data-heat]")) {
    const take = takes[Number(heat.dataset.heat)];
    const values = Uint8Array.from(atob(take.heat.values), (c) => c.charCodeAt(0));
    const n = take.heat.frames.length;
    const output = one(".reading", heat.parentElement);
    let row = 0, column = 0;
    const say = () => {
      const value = take.heat.low + (values[row * n + column] / 255) * (1 - take.heat.low);
      const name = (i) => {
        const frame = take.heat.frames[i];
        return `frame ${frame + 1} (event ${eventAt(take, frame) + 1})`;
      };
      output.textContent = `${name(column)} and ${name(row)}: ${value.toFixed(2)}`;
      for (const [line, axis, value] of [[one(".v", heat), "x", column], [one(".h", heat), "y", row]])
        for (const end of [1, 2]) line.setAttribute(axis + end, value + 0.5);
    };
    const go = () => seek(middle(take, take.heat.frames[column]));
    reader(heat, (x, y) => {
      column = clamp(Math.floor(x * n), 0, n - 1);
      row = clamp(Math.floor(y * n), 0, n - 1);
      say();
    });
    heat.addEventListener("click", go);
    heat.addEventListener("keydown", (event) => {
      const by = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
      if (by) {
        column = clamp(column + by[0], 0, n - 1);
        row = clamp(row + by[1], 0, n - 1);
        say();
      } else if (event.key === "Enter") go();
      else return;
      event.preventDefault();
      event.stopPropagation();
    });
  }

  // -- colours -----------------------------------------------------------------------------------
  const themes = ["", "light", "dark"];
  ui.theme.addEventListener("click", () => {
    const next = themes[(themes.indexOf(document.documentElement.dataset.theme || "") + 1) % 3];
    if (next) document.documentElement.dataset.theme = next;
    else delete document.documentElement.dataset.theme;
    ui.theme.setAttribute("aria-label", `Colours: ${next || "as the system"}`);
    ui.theme.title = ui.theme.getAttribute("aria-label");
  });

  // -- decisions, where a server is behind the page ---------------------------------------------
  const moment = (at) => `${at.slice(0, 16).replace("T", " ")} UTC`;
  const element = (tag, name, text) => {
    const node = document.createElement(tag);
    if (name) node.className = name;
    node.textContent = text;
    return node;
  };

  function apply(state) {
    for (const card of all(".take")) {
      const known = state.videos[card.dataset.name];
      const take = takes[Number(card.dataset.take)];
      if (!known) continue;
      take.seen = known.seen;
      const badge = one("[data-status]", card);
      badge.textContent = known.sha256 === take.sha256 ? known.status : "changed";
      badge.className = `status ${badge.textContent}`;
      one("[data-log]", card).replaceChildren(...known.history.map((entry) => {
        const item = document.createElement("li");
        item.append(element("span", `what ${entry.action}`, entry.action), " ",
          element("span", "quiet", `${entry.by}, ${moment(entry.at)}`));
        if (entry.comment) item.append(document.createElement("br"), element("span", "said", entry.comment));
        return item;
      }));
    }
    document.getElementById("all-history").replaceChildren(...state.history.map((entry) => {
      const row = document.createElement("tr");
      for (const text of [moment(entry.at), entry.name, entry.by, entry.action])
        row.append(element("td", "", text));
      row.append(element("td", "said", entry.comment));
      return row;
    }));
  }

  async function ask(path, body) {
    const answer = await fetch(path, body && {
      method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
    const json = await answer.json();
    if (json.state) apply(json.state);
    if (!answer.ok) throw new Error(json.error?.message || json.error || `error ${answer.status}`);
  }

  for (const form of all("[data-decide]")) {
    const card = form.closest(".take");
    const take = takes[Number(card.dataset.take)];
    const answer = one(".answer", form);
    const field = one("textarea", form);
    form.addEventListener("submit", (event) => event.preventDefault());
    for (const button of all("[data-action]", form))
      button.addEventListener("click", async () => {
        const buttons = all("button", form);
        for (const each of buttons) each.disabled = true;
        answer.className = "answer";
        answer.textContent = "Writing …";
        try {
          await ask("decide", {
            video: take.name, action: button.dataset.action, by: document.getElementById("by").value,
            comment: field.value, seen: take.seen, sha256: take.sha256 });
          field.value = "";
          answer.textContent = "Kept in review.json.";
        } catch (error) {
          answer.classList.add("bad");
          answer.textContent = error instanceof TypeError ? "The server does not answer." : error.message;
        }
        for (const each of buttons) each.disabled = false;
      });
  }
  if (data.served) {
    const refresh = () => document.visibilityState === "visible" && ask("state").catch(() => {});
    addEventListener("focus", refresh);
    setInterval(refresh, 5000);
  }
  show();
})();
