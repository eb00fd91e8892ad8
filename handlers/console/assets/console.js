// The operator's page: one stream of frames in, elements kept in step with them.
// Whatever a frame says becomes text, never HTML. Elements live as long as what
// they show, so that the focus stays where it is and readers are left in peace:
// only what has happened is said aloud, in #said.
"use strict";

const base = document.body.dataset.base;
const $ = (id) => document.getElementById(id);
const number = new Intl.NumberFormat("en");
const compact = (n) => (n >= 100 ? number.format(Math.round(n)) : number.format(Math.round(n * 10) / 10));
const clock = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "medium" });

// make builds an element: classes behind its name, then attributes and children.
const make = (kind, attributes = {}, ...children) => {
  const [name, ...classes] = kind.split(".");
  const e = document.createElement(name);
  if (classes.length) e.className = classes.join(" ");
  for (const [k, v] of Object.entries(attributes)) e.setAttribute(k, v);
  e.append(...children);
  return e;
};
// put writes a text only when it is another one.
const put = (e, text) => { if (e.textContent !== String(text)) e.textContent = text; };
const say = (text) => { $("said").textContent = text; };

// keep holds a list's elements in step with items: each is made once, changed
// from then on, and removed with its item.
const keep = (list, items, key, create, change) => {
  const known = new Map([...list.children].map((e) => [e.dataset.key, e]));
  let place = list.firstElementChild;
  for (const item of items) {
    const k = key(item);
    let e = known.get(k);
    known.delete(k);
    if (!e) {
      e = create(item);
      e.dataset.key = k;
    }
    if (e === place) place = place.nextElementSibling;
    else list.insertBefore(e, place);
    change(e, item);
  }
  for (const e of known.values()) e.remove();
};
const part = (e, name) => e.querySelector(`[data-part=${name}]`);

// Acting. A button is off while it is at work, and on again afterwards.
const call = async (path, fields) => {
  const reply = await fetch(base + path, fields === undefined ? {} : { method: "POST", body: new URLSearchParams(fields) });
  if (reply.status === 401) location.reload();
  const body = await reply.json();
  if (!reply.ok) throw new Error(body.error);
  return body;
};
const button = (text, name, work) => {
  const b = make("button", { type: "button", "aria-label": `${text} ${name}` }, text);
  b.addEventListener("click", async () => {
    if (b.getAttribute("aria-disabled") === "true") return;
    b.setAttribute("aria-disabled", "true");
    try {
      await work(b);
    } catch (e) {
      say(e.message);
      toast(e.message);
    }
    b.removeAttribute("aria-disabled");
  });
  return b;
};
const toast = (text) => {
  document.querySelector(".toast")?.remove();
  const t = make("p.toast.notice.bad", { "aria-hidden": "true" }, text);
  document.body.append(t);
  setTimeout(() => t.remove(), 6000);
};
// ask resolves to false, or to what was written when it asks for something in
// words, else to true.
const ask = (title, text, yes, words = "") => new Promise((done) => {
  put($("ask-title"), title);
  put($("ask-text"), text);
  put($("ask-yes"), yes);
  const dialog = $("ask"), input = $("ask-words");
  put($("ask-label"), words);
  $("ask-field").hidden = !words;
  input.required = words !== "";
  input.value = "";
  dialog.returnValue = "no";
  dialog.addEventListener("close", () => done(dialog.returnValue === "yes" && (!words || input.value)), { once: true });
  dialog.showModal();
  if (words) input.focus();
});

$("ask-no").addEventListener("click", () => $("ask").close("no"));

// Parts of frames.
const states = ["active", "initial", "inactive", "locked"];
const bar = (e, counts, names) => {
  const all = names.reduce((sum, n) => sum + (counts[n] ?? 0), 0);
  keep(e, names.filter((n) => counts[n] > 0), (n) => n, (n) => make(`span.${n}`), (s, n) => { s.style.width = `${(100 * counts[n]) / all}%`; });
};
const legend = (e, counts, names) => keep(e, names.filter((n) => counts[n] > 0), (n) => n,
  (n) => make(`span.key.${n}`, {}, make("span", { "data-part": "text" })), (s, n) => put(part(s, "text"), `${number.format(counts[n])} ${n}`));

const spark = (svg, rates) => {
  const top = Math.max(1, ...rates), step = 180 / 59;
  const points = rates.map((r, i) => `${(180 - (rates.length - 1 - i) * step).toFixed(1)} ${(42 - (38 * r) / top).toFixed(1)}`);
  const [area, line] = svg.children;
  const first = points.length ? points[0].split(" ")[0] : 180;
  line.setAttribute("d", points.length ? `M${points.join("L")}` : "");
  area.setAttribute("d", points.length ? `M${first} 44L${points.join("L")}L180 44Z` : "");
};

const outcomes = ["created", "updated", "skipped", "failed"];
const showJobs = (jobs) => {
  $("no-jobs").hidden = jobs.length > 0;
  keep($("jobs"), jobs, (j) => `${j.org} ${j.id}`, (j) => {
    const failures = make("ul.failures", { hidden: "", "aria-label": `Failures of ${j.id}` });
    const show = button("Failures", `of ${j.id}`, async () => {
      if (!failures.hidden) {
        failures.hidden = true;
      } else {
        const { failures: list, more } = await call(`/imports/${encodeURIComponent(j.org)}/${encodeURIComponent(j.id)}/failures`);
        failures.replaceChildren(...list.map((f) => make("li", {}, make("b", {}, `Line ${number.format(f.line)}`), ` ${f.field ? `${f.field}: ` : ""}${f.error.message}`)));
        if (more) failures.append(make("li.muted", {}, "There are more: muster import --failures, or GET /v1/imports/…/failures."));
        failures.hidden = false;
      }
      show.setAttribute("aria-expanded", String(!failures.hidden));
    });
    show.dataset.part = "show";
    show.setAttribute("aria-expanded", "false");
    return make("li.job", {},
      make("div.row", {}, make("b.id", {}, j.id), make("span.badge", { "data-part": "state" }), make("span.muted.end", { "data-part": "rate" })),
      make("p.muted", { "data-part": "about" }),
      make("div.bar", { "data-part": "bar", "aria-hidden": "true" }),
      make("div.row", {}, make("p.legend", { "data-part": "legend" }), show), failures);
  }, (e, j) => {
    const active = j.state === "running" && j.rate > 0;
    const state = part(e, "state");
    put(state, j.state === "running" && !active ? "waiting" : j.state);
    state.className = `badge ${{ running: active ? "tint" : "warn", finished: "good", undone: "warn" }[j.state] ?? "tint"}`;
    e.classList.toggle("active", active);
    put(part(e, "rate"), active ? `${compact(j.rate)} lines/s` : "");
    put(part(e, "about"), `${j.orgName} · ${number.format(j.lines)} ${j.lines === 1 ? "line" : "lines"} · began ${clock.format(new Date(j.started))}${j.dryRun ? " · dry run" : ""}${j.removed ? ` · ${number.format(j.removed)} removed` : ""}`);
    bar(part(e, "bar"), j, outcomes);
    legend(part(e, "legend"), j, outcomes);
    part(e, "show").hidden = j.failed === 0;
    if (e.dataset.state && e.dataset.state !== j.state) say(`Import ${j.id} is ${j.state}: ${number.format(j.created)} created, ${number.format(j.failed)} failed.`);
    e.dataset.state = j.state;
  });
};

const showOrgs = (orgs, all) => {
  $("no-orgs").hidden = orgs.length > 0;
  const most = Math.max(1, ...orgs.map((o) => o.users));
  keep($("orgs"), orgs, (o) => o.id, (o) => make("li", {},
    make("div.row", {}, make("b", { "data-part": "name" }), make("span.end.number", { "data-part": "users" })),
    make("div.bar", { "data-part": "bar", "aria-hidden": "true" }), make("p.legend", { "data-part": "legend" })),
  (e, o) => {
    put(part(e, "name"), o.name);
    put(part(e, "users"), number.format(o.users));
    part(e, "bar").style.width = `${Math.max(2, (100 * o.users) / most)}%`;
    bar(part(e, "bar"), o.states, states);
    legend(part(e, "legend"), o.states, states);
  });
  put($("orgs-title"), all > orgs.length ? `Organisations, the largest of ${number.format(all)}` : "Organisations");
};

const cell = (name, kind = "td") => make(kind, { "data-part": name });
const rebuildText = (r) => {
  if (!r) return "";
  if (r.running) return r.total > 0 ? `${r.phase || "rebuild"} ${Math.floor((100 * Math.min(r.events, r.total)) / r.total)} %${r.rate > 0 ? `, ${compact(r.rate)}/s` : ""}` : r.phase || "begins";
  return r.error ? `failed: ${r.error}` : `${r.rollback ? "rolled back" : "rebuilt"}: version ${r.version}`;
};
const showModels = (models) => {
  keep($("models"), models, (m) => m.name, (m) => {
    const actions = make("td.actions");
    if ("rebuilds" in document.body.dataset) {
      const rebuild = button("Rebuild", m.name, async () => { await call(`/projections/${m.name}/rebuild`, {}); say(`The rebuild of ${m.name} has begun.`); });
      rebuild.dataset.part = "rebuild";
      const back = button("Roll back", m.name, async () => {
        if (await ask(`Roll ${m.name} back?`, "Readers get the version that was live before. It catches up first; nothing is lost.", "Roll back")) {
          await call(`/projections/${m.name}/rollback`, {});
          say(`The rollback of ${m.name} has begun.`);
        }
      });
      back.dataset.part = "back";
      actions.append(rebuild, back);
    }
    const row = make("tr", {}, make("th", { scope: "row" }, m.name), ...["version", "position", "lag"].map((n) => cell(n)),
      make("td", {}, make("span.badge", { "data-part": "state" }), make("progress", { "data-part": "progress", "aria-label": `Rebuild of ${m.name}`, max: "1", value: "0" }), make("span.muted.progress-text", { "data-part": "text" })), actions);
    for (const n of ["version", "position", "lag"]) part(row, n).className = "n";
    return row;
  }, (e, m) => {
    put(part(e, "version"), m.version);
    put(part(e, "position"), number.format(m.position));
    put(part(e, "lag"), number.format(m.lag));
    const state = part(e, "state");
    const [text, tone] = m.problem ? [m.problem, "bad"] : m.stopped > 0 ? [`${number.format(m.stopped)} stopped`, "bad"] : !m.owned ? ["nobody works on it", "warn"] : m.lag > 0 ? ["following", "tint"] : ["up to date", "good"];
    put(state, text);
    state.className = `badge ${tone}`;
    const r = m.rebuild, running = r?.running ?? false;
    const progress = part(e, "progress");
    progress.hidden = !running;
    if (running && r.total > 0) progress.value = Math.min(1, r.events / r.total);
    put(part(e, "text"), rebuildText(r));
    const rebuild = part(e, "rebuild"), back = part(e, "back");
    if (rebuild) {
      rebuild.hidden = running && document.activeElement !== rebuild;
      back.hidden = (m.retired === 0 || running) && document.activeElement !== back;
    }
    const was = e.dataset.running === "true";
    if (was && !running) say(`${m.name} ${rebuildText(r)}.`);
    e.dataset.running = String(running);
  });
};

const trouble = (list, items, key, about, actions) => keep(list, items, key, (i) => make("li", {},
  make("div", {}, make("b", { "data-part": "what" }), make("p.muted", { "data-part": "why" })), make("div.actions", {}, ...actions(i))),
(e, i) => { const [what, why] = about(i); put(part(e, "what"), what); put(part(e, "why"), why); });

const showConsumers = (consumers, parked) => {
  $("no-consumers").hidden = consumers.length > 0;
  keep($("consumers"), consumers, (c) => c.name, (c) => {
    const release = button("Release all", `of ${c.name}`, async () => { await call(`/consumers/${encodeURIComponent(c.name)}/release`, {}); say(`All streams of ${c.name} are released.`); });
    release.dataset.part = "release";
    const row = make("tr", {}, make("th", { scope: "row" }, c.name), ...["position", "lag", "instances"].map((n) => cell(n)),
      make("td", {}, make("span.badge", { "data-part": "state" })), make("td.actions", {}, release));
    for (const n of ["position", "lag", "instances"]) part(row, n).className = "n";
    return row;
  }, (e, c) => {
    put(part(e, "position"), number.format(c.position));
    put(part(e, "lag"), number.format(c.lag));
    put(part(e, "instances"), number.format(c.instances));
    const [text, tone] = c.parked > 0 ? [`${number.format(c.parked)} parked`, "bad"] : c.uncertain > 0 ? [`${number.format(c.uncertain)} uncertain`, "warn"]
      : c.retrying > 0 ? [`${number.format(c.retrying)} trying again`, "warn"] : c.instances === 0 ? ["not running", "warn"] : c.lag > 0 ? ["following", "tint"] : ["up to date", "good"];
    put(part(e, "state"), text);
    part(e, "state").className = `badge ${tone}`;
    const release = part(e, "release");
    release.hidden = c.parked === 0 && document.activeElement !== release;
  });
  trouble($("parked"), parked, (p) => `${p.consumer} ${p.stream}`,
    (p) => [`${p.consumer}: stream ${p.stream}`, `${p.type}, sequence ${p.sequence} · ${p.class} · ${p.state}, ${p.attempts} tries since ${clock.format(new Date(p.since))}`],
    (p) => {
      const act = async (what, form) => {
        await call(`/consumers/${encodeURIComponent(p.consumer)}/${what.toLowerCase()}`, { stream: p.stream, ...form });
        say(`${what}: stream ${p.stream} goes on.`);
      };
      const of = `${p.stream} of ${p.consumer}`;
      return [button("Retry", of, () => act("Retry")), button("Release", of, () => act("Release")), button("Skip", of, async () => {
        const reason = await ask(`Skip ${p.type} of ${p.stream}?`, `${p.consumer} will never handle this event. Who skipped it, and why, is recorded in the log.`, "Skip", "Reason");
        if (reason) await act("Skip", { reason });
      })];
    });
};

const show = (s) => {
  $("away").hidden = !s.problem;
  if (s.problem) return;
  put($("users"), number.format(s.users));
  put($("head"), number.format(s.head));
  put($("user-rate"), compact(s.userRates.at(-1) ?? 0));
  put($("event-rate"), compact(s.eventRates.at(-1) ?? 0));
  spark($("user-spark"), s.userRates);
  spark($("event-spark"), s.eventRates);
  legend($("states"), s.states, states);
  showOrgs(s.orgs, s.allOrgs);
  showJobs(s.jobs);
  showModels(s.projections);
  trouble($("stopped"), s.stopped, (t) => `${t.projection} ${t.stream}`,
    (t) => [`${t.projection}: stream ${t.stream}`, `sequence ${t.sequence} · ${t.reason} · ${t.attempts} tries since ${clock.format(new Date(t.since))}`],
    (t) => [button("Retry", `${t.stream} of ${t.projection}`, async () => {
      await call(`/projections/${t.projection}/retry`, { stream: t.stream });
      say(`Stream ${t.stream} goes on.`);
    })]);
  showConsumers(s.consumers, s.parked);
};

// The stream. A page that is not in front lets go of it: browsers have few
// connections for one host, and there may be many tabs.
let stream = null, again = 0, lost = false;
const link = (state, text) => { $("link").dataset.state = state; put($("link-text"), text); };
const close = () => { stream?.close(); stream = null; clearTimeout(again); };
const open = () => {
  close();
  if (document.visibilityState === "hidden") return;
  stream = new EventSource(`${base}/live`);
  stream.onmessage = (m) => {
    show(JSON.parse(m.data));
    link("live", "Live");
    if (lost) say("Connected again.");
    lost = false;
  };
  stream.onerror = async () => {
    const refused = stream?.readyState === EventSource.CLOSED;
    if (!lost) say("The connection is lost.");
    lost = true;
    link("lost", "Connecting again");
    if (!refused) return; // the browser tries again by itself
    close();
    again = setTimeout(open, 5000);
    try {
      if ((await fetch(`${base}/session`)).status === 401) location.reload();
    } catch { /* no connection at all: the timer goes on */ }
  };
};
document.addEventListener("visibilitychange", () => {
  if (document.visibilityState === "hidden") { close(); link("waiting", "Paused"); } else open();
});
addEventListener("pagehide", close);
addEventListener("pageshow", open);

// Search, and what happened to a user.
let asked = 0;
$("search").addEventListener("submit", async (event) => {
  event.preventDefault();
  const turn = ++asked;
  $("history").hidden = true;
  try {
    const { users, total } = await call("/search", { q: $("q").value });
    if (turn !== asked) return;
    $("found").replaceChildren(...users.map((u) => {
      const b = make("button.person", { type: "button", "aria-pressed": "false" },
        make("span.face", { "aria-hidden": "true" }, [...(u.name || u.login)][0]?.toUpperCase() ?? "?"),
        make("span.names", {}, make("b", {}, u.name || u.login), make("span.muted", {}, `${u.login} · ${u.email}`), make("span.muted", {}, u.org)),
        make(`span.badge.${{ active: "good", initial: "tint", locked: "bad" }[u.state] ?? "warn"}`, {}, u.state));
      b.addEventListener("click", () => showHistory(u, b));
      return make("li", {}, b);
    }));
    const text = total === 0 ? "Nobody is called that." : total > users.length ? `${number.format(total)} users, the first ${users.length} are shown.` : `${number.format(total)} ${total === 1 ? "user" : "users"}.`;
    put($("found-text"), text);
    say(text);
  } catch (e) {
    put($("found-text"), e.message);
    say(e.message);
  }
});

const showHistory = async (u, pressed) => {
  const turn = ++asked;
  for (const b of $("found").querySelectorAll("button")) b.setAttribute("aria-pressed", String(b === pressed));
  try {
    const { events, more } = await call(`/users/${encodeURIComponent(u.id)}/events`);
    if (turn !== asked) return;
    put($("history-title"), `Events of ${u.name || u.login}`);
    put($("history-text"), `${u.id}. The newest comes first${more ? `, the latest ${events.length} are shown` : ""}. Personal fields stay sealed.`);
    $("timeline").replaceChildren(...events.map((e) => make("li", {},
      make("div.row", {}, make("b", {}, e.type), make("span.muted.end.number", {}, `sequence ${number.format(e.sequence)} · position ${number.format(e.position)}`)),
      make("p.muted", {}, make("time", { datetime: e.at }, clock.format(new Date(e.at))), " by ", make("span", { title: e.actor }, e.by)))));
    $("history").hidden = false;
    $("history-title").focus();
  } catch (e) {
    say(e.message);
    toast(e.message);
  }
};
