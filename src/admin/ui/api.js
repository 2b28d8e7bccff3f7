// The admin API, as functions. The page counts in milliseconds and has times as numbers: this file translates.

const BASE = new URL("../", document.baseURI); // the API is one level above the page
const SHOWN = 256 * 1024; // characters of a body that the page lays out at most

// --- the token and its rights
let unsaved = null; // the token, for a browser that saves nothing
export const token = {
  get() { try { return sessionStorage["inspector.token"] ?? unsaved; } catch { return unsaved; } },
  set(value) { unsaved = value; try { sessionStorage["inspector.token"] = value; } catch { /* it is kept until the page is left */ } },
  drop() { unsaved = session = null; keys = []; try { sessionStorage.removeItem("inspector.token"); } catch { /* nothing was saved */ } },
};

let session = null, keys = [], system = null, skew = 0;
/** The time on the gateway's clock. */
export const now = () => Date.now() + skew;

// --- requests
/** Whether the gateway answers; `at` is the time of its last answer. A change is the event "link" of the document. */
export const link = { up: true, at: 0 };
function linked(up) {
  if (up) link.at = now();
  if (link.up === up) return;
  link.up = up;
  document.dispatchEvent(new Event("link"));
}

const failure = (message, status, asked, more) => Object.assign(new Error(message), { status, asked, ...more });
const off = (which, asked) => failure(`there is no ${which}`, 404, asked, { off: which });

/** Sends a request. The query leaves out empty values. Throws an error with `status` (0 without an answer) and `asked`. */
async function send(method, path, query = {}, { body, signal, bearer = token.get() } = {}) {
  const url = new URL(path, BASE), asked = `${method} ${url.pathname}`;
  for (const [name, value] of Object.entries(query)) if (value !== undefined && value !== null && value !== "") url.searchParams.set(name, value);
  const headers = { authorization: `Bearer ${bearer}`, ...(body && { "content-type": "application/json" }) };
  let answer;
  try {
    answer = await fetch(url, { method, headers, body: body && JSON.stringify(body), signal, cache: "no-store", credentials: "omit", redirect: "error" });
  } catch (error) {
    if (signal?.aborted) throw error;
    linked(false);
    throw failure("The gateway does not answer.", 0, asked);
  }
  const ahead = Date.parse(answer.headers.get("date")) - Date.now();
  if (Math.abs(ahead - skew) > 2000) skew = Math.abs(ahead) > 2000 ? ahead : 0;
  linked(true);
  if (answer.ok) return answer;
  const problem = await answer.json().catch(() => ({}));
  if (answer.status === 401 && bearer === token.get()) document.dispatchEvent(new Event("ended"));
  throw failure(problem.detail || problem.title || "The answer has no reason.", answer.status, asked);
}
const get = async (path, query) => (await send("GET", path, query)).json();
const tell = async (method, path, query, body) => {
  const answer = await send(method, path, query, { body });
  return answer.status === 204 ? null : answer.json().catch(() => null);
};

// --- from the API's words to the page's
const ms = (seconds) => (seconds ?? 0) * 1000;
const when = (time) => (time ? Date.parse(time) : null);
const OUTCOMES = ["delivered", "waiting", "failed", "refused", "skipped"]; // in the order of the API's lists of numbers

const row = (e) => ({ id: e.id, at: when(e.at), key: e.key ?? `${e.namespace}/${e.webhook}`, ns: e.namespace, module: e.module, method: e.method, size: e.size, peer: e.peer,
  outcome: e.outcome, kind: e.kind ?? "", text: e.reason ?? "", status: e.status, took: ms(e.duration_seconds), tried: e.attempts ?? 0, accepted: !!e.accepted, next: when(e.next_attempt) });

/** The fields that an attempt changes. */
const progress = (e) => ({ id: e.id, outcome: e.outcome, kind: e.kind ?? "", text: e.reason ?? "", tried: e.attempts, next: when(e.next_attempt) });

const hex = (base64) => Array.from(atob(base64), (byte) => byte.charCodeAt(0).toString(16).padStart(2, "0")).join("");
/** A body, or null if none is kept. `text` or `bytes` (hexadecimal digits) is what is shown. */
function body(b, head) {
  if (!b) return null;
  const type = b.type ?? head.find(([name]) => name === "content-type")?.[1] ?? "no Content-Type";
  const kept = b.kept ?? b.size, long = b.text?.length > SHOWN || b.base64?.length > SHOWN;
  const some = b.base64 === undefined ? { text: b.text.slice(0, SHOWN) } : { bytes: hex(b.base64.slice(0, SHOWN)) };
  return { type, size: b.size, kept, cut: !!b.is_cut, long, ...some };
}
const attempt = (e) => (t) => ({ n: t.number, at: when(t.at) - e.at, ms: ms(t.seconds), module: t.module, item: t.item, kind: t.kind ?? "", text: t.reason ?? "", state: t.kind ? "failed" : "delivered", answer: t.answer });

function whole(o) {
  const e = row(o), head = o.head ?? [];
  const last = o.steps.length - 1, stopped = e.outcome === "refused" || e.outcome === "skipped";
  const steps = o.steps.map((step, i) => ({ name: step.name, note: "", state: stopped && i === last ? e.outcome : "delivered", at: ms(step.at_seconds), ms: ms(step.seconds) }));
  return { ...e, path: o.path, revision: o.revision, head, body: body(o.body, head), exact: o.is_exact, replayable: o.can_replay, replayNote: o.replay_note ?? "", queued: o.in_queue, dedup: o.dedup, secrets: o.secrets ?? [],
    steps: steps.length ? steps : [{ name: "request", note: "", state: stopped ? e.outcome : "delivered", at: 0, ms: e.took }],
    request: Math.max(e.took, ...steps.map((step) => step.at + step.ms)),
    attempts: o.attempts_made.map(attempt(e)), due: e.outcome === "waiting" && e.next ? e.next - e.at : null,
    actions: o.actions.map((a) => ({ at: when(a.at), what: a.what, by: a.by, outcome: a.outcome })), newer: o.newer, older: o.older };
}
/** The same of what the queue alone has: no answer, no steps, no attempts. */
function queued(o, queue) {
  const waits = queue === "waiting", head = o.head ?? o.headers ?? [];
  const given = o.body_base64 ? { base64: o.body_base64 } : typeof o.body === "string" ? { text: o.body } : o.body;
  const size = o.size ?? given?.size ?? (given?.text ? new TextEncoder().encode(given.text).length : 0);
  return { ...row({ ...o, outcome: waits ? "waiting" : "failed", accepted: true }), at: when(o.at ?? o.received_at) ?? parseInt(o.id.slice(0, 13).replace("-", ""), 16),
    size, died: when(o.died_at), head, body: body(given && { size, ...given }, head), exact: true, replayable: true, replayNote: "", queued: queue, secrets: [], steps: [], attempts: [], due: null, actions: [], alone: true };
}

function webhook(w) {
  const minutes = w.hour?.minutes.map((counts) => Object.fromEntries(OUTCOMES.map((outcome, i) => [outcome, counts[i]])));
  const sum = (...outcomes) => minutes?.map((minute) => outcomes.reduce((n, outcome) => n + minute[outcome], 0)) ?? [];
  const add = (list) => list.reduce((a, b) => a + b, 0);
  const all = sum(...OUTCOMES), failures = sum("failed", "waiting"), refusals = sum("refused");
  return { ...w, ns: w.namespace, module: w.module ?? "", refused: w.refused && { ...w.refused, at: when(w.refused.at), good: w.refused.last_good_revision }, measured: !!minutes, all, failures, refusals, total: add(all), failed: add(failures), turned: add(refusals),
    p95: minutes ? ms(w.hour.p95_seconds) : 0, last: when(w.last_event), lastRefused: when(w.last_refused) };
}

const FILTERS = ["outcome", "status", "q", "since", "until"];
const LONGEST = 256; // bytes of a search
function short(text) {
  let kept = text?.slice(0, LONGEST);
  while (kept && new TextEncoder().encode(kept).length > LONGEST) kept = kept.slice(0, -1);
  return kept;
}
/** The filters of the address as those of the API: a webhook is named with its namespace. */
function filters(f, names) {
  const [namespace, id] = f.webhook ? f.webhook.split("/") : [f.namespace];
  return { namespace, webhook: id, kind: f.reason, ...Object.fromEntries(names.map((name) => [name, short(f[name])])) };
}
function history() { if (!session.history) throw off("history", "GET events"); }
function queue() { if (!session.queue) throw off("queue", "GET dead-letters"); }

const HOUR = 3_600_000;

export const api = {
  /** The webhooks that a select offers. */
  keys: () => keys,
  session: () => session,
  /** The last answer of `status`. */
  system: () => system,

  /** Learns the rights of a token. */
  async signIn(bearer) {
    const o = await (await send("GET", "session", {}, { bearer })).json();
    token.set(bearer);
    session = { name: o.name, readOnly: !o.rights.includes("write"), namespaces: o.namespaces, history: o.history, queue: o.queue, version: o.version };
    await api.webhooks({}).catch(() => {});
    session.namespaces ??= [...new Set(keys.map((key) => key.split("/")[0]))].sort();
  },

  // --- events
  async recent(f) {
    history();
    return (await get("events", { ...filters(f, FILTERS), limit: 60 })).events.map(row);
  },
  async events(f, after) {
    history();
    const page = await get("events", { ...filters(f, FILTERS), limit: 50, after });
    return { events: page.events.map(row), next: page.next };
  },
  /** Counts by outcome and kind, and 60 intervals: of the last hour, or around the times that are asked for if they are older. */
  async summary(f) {
    history();
    const query = filters(f, FILTERS);
    const recent = !f.since || Date.parse(f.since) >= now() - HOUR;
    const [counts, chart] = await Promise.all([get("events/summary", query), recent && (f.since || f.until) ? get("events/summary", { ...query, since: null, until: null }) : null]);
    const outcomes = counts.outcomes, all = OUTCOMES.reduce((n, outcome) => n + (outcomes[outcome] ?? 0), 0);
    return { total: counts.total, atLeast: counts.total_is_at_least, all, outcomes, reasons: Object.fromEntries(counts.kinds.map(({ kind, count }) => [kind, count])),
      buckets: (chart ?? counts).buckets.map((bucket) => ({ ...bucket, at: when(bucket.at) })) };
  },
  async event(id) {
    const missing = failure("No such event is kept: it is older than the history, it was erased, or its webhook keeps none.", 404, `GET events/${id}`);
    if (session.history) {
      try {
        return whole(await get(`events/${encodeURIComponent(id)}`));
      } catch (error) {
        if (error.status !== 404) throw error;
      }
    }
    if (session.queue) {
      for (const [path, place] of [["waiting", "waiting"], ["dead-letters", "dead_letter"]]) {
        try {
          return queued(await get(`${path}/${encodeURIComponent(id)}`), place);
        } catch (error) {
          if (error.status !== 404) throw error;
        }
      }
    }
    throw missing;
  },
  /** The events of the same webhook around this one: `rows` next to it, and all within some minutes. */
  async near(e, minutes) {
    if (!session.history || e.alone) return { rows: [], around: [] };
    const query = filters({ webhook: e.key }, []), time = (at) => new Date(at).toISOString();
    const [before, later] = await Promise.all([
      get("events", { ...query, after: e.id, limit: 100 }),
      get("events", { ...query, since: time(e.at), until: time(e.at + minutes * 60_000), limit: 200 })]);
    const older = before.events.map(row), newer = later.events.map(row).filter((o) => o.id > e.id);
    const from = e.at - minutes * 60_000;
    return { rows: [...newer.slice(-4), e, ...older.slice(0, 4)], around: [...newer, e, ...older.filter((o) => o.at >= from)] };
  },
  /** Saves what is kept of a body as a file. */
  async download(e) {
    const url = URL.createObjectURL(await (await send("GET", `events/${e.id}/body`)).blob());
    const a = document.createElement("a");
    Object.assign(a, { href: url, download: `${e.id}.bin` });
    a.click();
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
  },
  replay: (e) => tell("POST", e.queued === "dead_letter" ? `dead-letters/${e.id}/replay` : `events/${e.id}/replay`),
  retry: (e) => tell("POST", `waiting/${e.id}/retry`),
  /** Takes it out of the queue; what is in no queue is erased from the history. */
  remove: (e) => tell("DELETE", { waiting: `waiting/${e.id}`, dead_letter: `dead-letters/${e.id}` }[e.queued] ?? `events/${e.id}`),

  // --- webhooks
  async webhooks(f, after) {
    const page = await get("webhooks", { namespace: f.namespace, q: short(f.q), state: f.state, after });
    if (!f.namespace && !f.q && !f.state && !after) keys = page.webhooks.map((w) => w.key).sort();
    return { webhooks: page.webhooks.map(webhook), next: page.next };
  },
  test: (key) => tell("POST", `webhooks/${key}/test`, {}, {}),

  // --- the queue
  async waiting(f, after) {
    queue();
    const page = await get("waiting", { ...filters(f, []), limit: 100, after });
    return { total: page.total, next: page.next, waiting: page.waiting.map((o) => ({ ...o, tried: o.attempts, next: when(o.next_attempt), queued: "waiting" })) };
  },
  async letters(f) {
    queue();
    const { groups } = await get("dead-letters/groups", filters({ ...f, reason: "" }, ["q"]));
    return groups.map((g) => ({ ...g, text: g.reason, oldest: when(g.oldest), newest: when(g.newest) }));
  },
  /** The dead letters of a group. */
  async lettersOf(g, limit, after) {
    const page = await get("dead-letters", { ...filters({ webhook: g.key, reason: g.kind, q: g.text }, ["q"]), limit, after });
    return { next: page.next, letters: page.dead_letters.map((o) => ({ id: o.id, at: when(o.died_at), tried: o.attempts, size: o.size })) };
  },
  /** Does it to all dead letters of groups: `what` is replay or delete. A dry run counts. Returns the number. */
  async bulk(what, groups, dry) {
    let n = 0;
    for (const g of groups) {
      const answer = await tell("POST", `dead-letters/${what}`, { ...filters({ webhook: g.key, reason: g.kind, q: g.text }, ["q"]), dry_run: dry || null });
      n += dry ? answer.matched : answer.done;
    }
    return n;
  },

  // --- the whole
  async status() {
    const o = await get("system");
    const { source, queue, history } = o;
    system = { ...o,
      source: { ...source, since: now() - ms(source.state_seconds), stale: Number.isFinite(source.staleness_seconds) ? ms(source.staleness_seconds) : null, error: source.last_error && { ...source.last_error, at: now() - ms(source.last_error.seconds_ago) } },
      queue: queue && { ...queue, oldest: ms(queue.oldest_seconds) },
      history: history && { ...history, oldest: when(history.oldest) },
      process: { ...o.process, started: when(o.process.started_at) } };
    return system;
  },
  /** Follows events. `calls` has each(event) for a new event, tried(fields) for an attempt of any event, missed(number) if the
   *  page was too slow, and up(is connected, error) for each change. Returns the function that ends it. */
  live({ each, tried, missed, up }) {
    let ended = false, wait = 500, timer, cut;
    function message(text) {
      const fields = Object.fromEntries(text.split("\n").filter((field) => field && field[0] !== ":").map((field) => [field.slice(0, field.indexOf(":")), field.slice(field.indexOf(":") + 1).trim()]));
      const data = fields.data && JSON.parse(fields.data);
      if (fields.event === "event") each?.(row(data));
      if (fields.event === "attempt") tried?.(progress(data));
      if (fields.event === "missed") missed?.(data.count);
    }
    async function follow() {
      let watch, error;
      cut = new AbortController();
      // The server sends at least a comment every ten seconds.
      const alive = () => { clearTimeout(watch); watch = setTimeout(() => cut.abort(), 25_000); };
      try {
        alive();
        const answer = await send("GET", "events/live", {}, { signal: cut.signal });
        const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
        let text = "";
        up?.(true);
        for (;;) {
          const { value, done } = await reader.read();
          if (done) break;
          alive();
          wait = 500;
          const messages = (text + value).replaceAll("\r\n", "\n").split("\n\n");
          text = messages.pop();
          messages.forEach(message);
        }
      } catch (fault) {
        error = fault;
      }
      clearTimeout(watch);
      if (ended) return;
      const gone = error?.status === 404 || error?.status === 401;
      up?.(false, gone && error.status === 404 ? off("history", error.asked) : error);
      if (gone) return;
      if (error && !error.status) linked(false);
      timer = setTimeout(follow, wait * (0.75 + Math.random() / 2));
      wait = Math.min(15_000, wait * 2);
    }
    follow();
    return () => { ended = true; clearTimeout(timer); cut.abort(); };
  },
};

/** Whether the filters ask for an event of the live stream. Its body is not in the stream. */
export function fits(e, f) {
  const q = f.q?.toLowerCase();
  return (!f.namespace || e.ns === f.namespace) && (!f.webhook || e.key === f.webhook) && (!f.outcome || f.outcome.split(",").includes(e.outcome)) && (!f.reason || e.kind === f.reason)
    && (!f.status || String(e.status).startsWith(f.status.replace("xx", ""))) && (!f.since || e.at >= Date.parse(f.since)) && (!f.until || e.at < Date.parse(f.until))
    && (!q || [e.id, e.key, e.kind, e.text, e.peer, e.module].some((text) => text?.toLowerCase().includes(q)));
}
