// Webhooks: the ones in trouble come first. Beside a refused value is the value that is served in its place.
import { button, h, icon, prose, sent } from "./dom.js";
import { api } from "./api.js";
import { spark } from "./charts.js";
import { ago, brief, count, plural, share, took } from "./format.js";
import { act, blank, expander, facts, filtered, finder, head, hookName, load, mark, may, none, table, tbody, td, toggle, tr } from "./parts.js";

// In the order of the list: the outcome that has the colours, the word, the drawing.
const STATES = {
  fenced: ["refused", "Fenced", "s-no"],
  failing: ["failed", "Failing", "s-bad"],
  stale: ["waiting", "Old value", "s-wait"],
  open: ["waiting", "Open to all", "open"],
  paused: ["waiting", "Paused", "pause"],
  healthy: ["delivered", "Healthy", "s-ok"],
  silent: ["skipped", "Silent", "s-skip"],
};
const look = (state) => STATES[state] ?? ["skipped", state, "s-skip"];

export function show(root, ctx) {
  const bar = finder(ctx, "Find a webhook, a guard, a module");
  const list = h("div.list");
  root.replaceChildren(head("Webhooks", h("span.grow"), h("span.told", "The last hour; trouble first")), bar.element, list);

  const trouble = (w) => (w.refused ? h("div.note.refused", icon("s-no"), h("div",
    h("p", `Revision ${count(w.refused.revision)}, refused `, ago(w.refused.at), ": ", prose(w.refused.reason)),
    h("p.faint", w.refused.serving_last_good ? `Revision ${count(w.refused.good)} is the last good one, and is served in its place.` : "No good value is left to serve. The webhook answers 503 until it has one.")))
    : w.note && h("p", prose(w.note)));

  const below = (w) => [
    w.warnings.length > 0 && h("ul.plain", w.warnings.map((text) => h("li.note", prose(text)))),
    facts(["Answers", { accepted: "202, once the event is on disk", delivered: "200, once it is delivered" }[w.ack] ?? "503"], ["Dedup", w.dedup ? "on" : "off"], ["History", { full: "head, body and attempts", metadata: "without head and body", none: "none" }[w.history] ?? w.history], w.measured && ["Refused, last hour", count(w.turned)], ["Last refused", ago(w.lastRefused)], ["Serves revision", w.revision ? count(w.revision) : "none"]),
    h("div.actions", h("a.button", { href: `#/events?webhook=${w.key}` }, icon("events"), "Its events"), h("a.button", { href: `#/dead?webhook=${w.key}` }, icon("dead"), "Its dead letters"),
      button("button", may(ctx, () => act({ title: "Send 1 test event", text: [hookName(w.key), " gets it past its guards. Its target takes it like any other event."] }, () => api.test(w.key),
        (done) => [`Sent 1 test event: ${done?.outcome ?? "done"}${done?.status ? `, ${done.status}` : ""}. `, done?.reason && [prose(done.reason), ". "], done?.id && h("a", { href: `#/events/${done.id}` }, "Show it")].filter(Boolean))), icon("send"), "Send a test event")),
  ];

  function row(w) {
    const under = tr("under.more-row", {}, td("panel", below(w)));
    const [tone, ...words] = look(w.state);
    return tbody([
      tr("row", {},
        td("c-mark", mark(tone, words)),
        td("c-hook", expander(`of-${w.key}`, under, null, hookName(w.key)),
          h("p.flow", w.guards.length ? w.guards.map((g) => h("span.tag", g)) : w.module && h("span.tag.warn", "no guard"), w.targets.map(({ module, target }) => h("span", icon("right"), ` ${module} `, target && h("b", h("bdi", sent(target))))))),
        td("c-spark", w.measured ? spark(`${plural(w.total, "event")} in the last hour, ${count(w.turned)} refused, ${count(w.failed)} not delivered`, w.all, w.refusals, w.failures) : null),
        td("c-num.c-events", w.measured ? brief(w.total) : h("span.faint", "–")),
        td("c-num.c-share", w.total ? h("span", { class: w.state === "failing" ? "hot" : w.failed ? "" : "faint" }, share(w.failed / w.total)) : h("span.faint", "–")),
        td("c-num.c-p95", w.p95 ? took(w.p95) : h("span.faint", "–")),
        td("c-num.c-last", ago(w.last))),
      trouble(w) && tr("more-row", {}, td("panel", trouble(w))),
      under,
    ]);
  }

  function draw(f, page) {
    let all = page.webhooks, { next } = page;
    const box = h("div"), more = h("div.more");
    function fill() {
      const q = (f.q ?? "").toLowerCase();
      const found = all.filter((w) => (!f.namespace || w.ns === f.namespace) && [w.key, ...w.targets.flatMap(({ module, target }) => [module, target]), ...w.guards].join(" ").toLowerCase().includes(q));
      const number = (state) => found.filter((w) => w.state === state).length;
      bar.chips(0, [[!f.state, { state: "" }, "All", next ? null : found.length], ...Object.keys(STATES).map((state) => (number(state) || f.state === state) && toggle(f, "state", state, mark(look(state)[0], look(state).slice(1)), next ? null : number(state)))]);
      const rows = found.filter((w) => !f.state || w.state === f.state);
      const rank = ({ state }) => Object.keys(STATES).indexOf(state), lost = ({ failed, total }) => failed / (total || 1);
      if (!next) rows.sort((a, b) => rank(a) - rank(b) || lost(b) - lost(a)); // else their pages come in the server's order
      more.replaceChildren(...(next ? [h("span.faint", `The first ${plural(all.length, "webhook")}`), button("button", { onclick: older }, "Show more")] : []));
      box.replaceChildren(!rows.length && !next ? (all.length || filtered(f) ? none(ctx, "No webhook passes all the filters.") : blank("webhooks", "No webhook yet", "A webhook shows here as soon as the configuration has it."))
        : table("hooks", "Webhooks, trouble first", { "c-mark": "State", "c-hook": "Webhook", "c-spark": "Last hour", "c-num.c-events": "Events", "c-num.c-share": "Not delivered", "c-num.c-p95": "p95", "c-num.c-last": "Last event" }, rows.map(row)), more);
    }
    async function older() {
      const page = await api.webhooks(f, next).catch(() => null);
      if (!page) return;
      all = [...all, ...page.webhooks];
      ({ next } = page);
      fill();
    }
    fill();
    return box;
  }
  return { update(f) { bar.update(f); load(list, () => api.webhooks(f), (page) => draw(f, page)); }, leave() {} };
}
