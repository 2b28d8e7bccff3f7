// Dead letters by reason, and the events that wait. An action on many names their number, which is counted just before.
import { button, h, hidden, icon, prose, toast } from "./dom.js";
import { api, now } from "./api.js";
import { ago, at, brief, count, plural, rough, size, took } from "./format.js";
import { act, blank, expander, filtered, finder, head, hookName, load, may, none, table, tbody, td, toggle, tr } from "./parts.js";

const SOME = 5; // dead letters of an opened group; a press shows more

export function show(root, ctx) {
  const bar = finder(ctx, "Search reasons", { webhook: ["Any webhook", ...api.keys()] });
  const views = h("nav.views", { "aria-label": "What to show" });
  const list = h("div.list");
  const tray = h("div.tray", { role: "region", "aria-label": "Chosen" });
  const chosen = new Map(); // checkbox → its group
  root.replaceChildren(head("Dead letters", h("span.grow"), views), bar.element, list, tray);
  let f = ctx.f;

  const renew = (done) => { if (done) update(f); };
  /** Counts with a dry run, asks, and does it. */
  async function bulk(what, groups, text) {
    const word = what === "replay" ? "Replay" : "Delete";
    let n;
    try { n = await api.bulk(what, groups, true); } catch (error) { toast(icon("s-bad"), " Not counted: ", prose(error.message)); return; }
    if (!n) { toast("These dead letters are gone."); renew(true); return; }
    const note = what === "replay" ? "Each event begins with its first attempt, in the order of receipt. An event that fails again becomes a dead letter again." : "A deleted event cannot be replayed. The history keeps its record.";
    renew(await act({ title: `${word} ${plural(n, "event")}`, text, note, danger: what === "delete", number: n }, () => api.bulk(what, groups, false),
      (done) => [`${what === "replay" ? "Replayed" : "Deleted"} ${plural(done, "event")}. `, what === "replay" && h("a", { href: "#/events?outcome=waiting" }, "Watch them")].filter(Boolean)));
  }
  function actions(n, groups, text) {
    const events = plural(n, "event");
    return [button("button", { ...may(ctx, () => bulk("replay", groups, text())), "aria-label": `Replay ${events}` }, icon("replay"), "Replay"), button("quiet", { ...may(ctx, () => bulk("delete", groups, text())), "aria-label": `Delete ${events}` }, icon("drop"), "Delete")];
  }
  function choose(none) {
    if (none) { for (const box of chosen.keys()) box.checked = false; chosen.clear(); }
    const groups = [...chosen.values()], n = groups.reduce((sum, g) => sum + g.count, 0);
    tray.hidden = !n;
    tray.replaceChildren(h("span.grow", h("b", count(n)), " chosen"), button("quiet", { onclick: () => choose(true) }, "Choose none"), ...actions(n, groups, () => `${plural(groups.length, "group")} of dead letters. Counted just now.`));
  }
  const box = (g, label) => h("input", { type: "checkbox", "aria-label": label, onchange: ({ target }) => { if (target.checked) chosen.set(target, g); else chosen.delete(target); choose(); } });

  function group(g, i) {
    const letters = h("div.letters");
    const rows = (some) => some.map((o) => h("li", h("a", { href: `#/events/${o.id}` }, h("span.cid", o.id), ago(o.at), h("span", plural(o.tried, "attempt")), h("span.took", o.size === undefined ? "" : size(o.size)))));
    const open = () => load(letters, () => api.lettersOf(g, SOME), (page) => {
      const some = h("ol.short", rows(page.letters));
      let { next } = page;
      const more = button("button", { onclick: async () => {
        const page = await api.lettersOf(g, 100, next).catch(() => null);
        if (!page) return;
        const added = rows(page.letters);
        some.append(...added);
        added[0]?.querySelector("a").focus();
        next = page.next;
        more.hidden = !next;
      } }, "Show more");
      more.hidden = !next;
      return [some, more];
    });
    const age = rough(now() - g.oldest);
    return h("li.group",
      h("div.top", box(g, `Choose ${plural(g.count, "event")}: ${g.kind}, ${g.key}`),
        h("div.reason", h("p.line1", expander(`letters-${i}`, letters, open, icon("right"), h("code", g.kind), hidden(`, ${g.key}`)), hookName(g.key)), h("p.text", prose(g.text)), h("p.faint", `${age} to `, ago(g.newest))),
        h("p.total", brief(g.count), hidden(" events")),
        h("div.actions", actions(g.count, [g], () => [hookName(g.key), ", ", h("code", g.kind), `, at most ${age} old. Counted just now.`]))),
      letters);
  }
  function draw(found) {
    const number = (kind) => found.filter((g) => !kind || g.kind === kind).reduce((n, g) => n + g.count, 0);
    const kinds = [...new Set(found.map((g) => g.kind))].sort((a, b) => number(b) - number(a));
    bar.chips(0, [[!f.reason, { reason: "" }, "All", number()], ...kinds.map((kind) => toggle(f, "reason", kind, h("code", kind), number(kind)))]);
    const shown = found.filter((g) => !f.reason || g.kind === f.reason).sort((a, b) => b.count - a.count);
    if (!shown.length) return filtered(f) ? none(ctx, "No dead letter passes all the filters.") : blank("dead", "No dead letters", "An event that is given up is kept here, to be replayed or deleted.");
    return h("ol.groups", { "aria-label": "By reason, the largest first" }, shown.map(group));
  }

  // --- the events that wait
  function waiter(o) {
    return tr("row", { "data-id": o.id },
      td("c-hook", h("a.cover", { href: `#/events/${o.id}` }, hookName(o.key), hidden(`, ${plural(o.tried, "attempt")}`))),
      td("c-cid", h("span.cid", o.id)),
      td("c-what", o.under_way ? "An attempt is under way" : [o.tried ? `${plural(o.tried, "attempt")} failed` : "Not tried yet", o.next && `, next in ${took(Math.max(0, o.next - now()))}`]),
      td("c-took", size(o.size)),
      td("c-act", button("quiet", { ...may(ctx, () => act(null, () => api.retry(o), () => "The attempt begins now.").then(renew)), "aria-label": `Try now: ${o.key}` }, icon("play"), "Try now"),
        button("quiet", { ...may(ctx, () => act({ title: "Drop 1 event", text: [hookName(o.key), ": the event leaves the queue and is not delivered. This cannot be undone."], danger: true }, () => api.remove(o), () => "Dropped 1 event.").then(renew)), "aria-label": `Drop: ${o.key}` }, icon("drop"))));
  }
  function drawWaiting(page) {
    bar.chips(0, []);
    if (!page.waiting.length) return filtered(f) ? none(ctx, "No event that waits passes all the filters.") : blank("s-wait", "No event waits", "An accepted event that is not delivered yet is here, with its next attempt.");
    const body = tbody(page.waiting.map(waiter));
    const more = h("div.more");
    let { next } = page;
    const tell = () => more.replaceChildren(h("span.faint", `${count(body.childElementCount)} of ${plural(page.total, "event")}`), next ? button("button", { onclick: async () => {
      const later = await api.waiting(f, next).catch(() => null);
      if (!later) return;
      body.append(...later.waiting.map(waiter));
      ({ next } = later);
      tell();
    } }, "Show more") : "");
    tell();
    return [table("waiters", "Events that wait", { "c-hook": "Webhook", "c-cid": "Event", "c-what": "State", "c-took": "Size", "c-act": "Actions" }, body), more];
  }

  function update(filters) {
    f = filters;
    const waits = f.view === "waiting", kept = Object.fromEntries(["namespace", "webhook"].filter((name) => f[name]).map((name) => [name, f[name]]));
    const to = (view) => `#/dead?${new URLSearchParams({ ...kept, ...(view && { view }) })}`.replaceAll("%2F", "/");
    const queue = api.system()?.queue;
    views.replaceChildren(
      h("a.chip", { href: to(""), "aria-current": waits ? null : "page" }, "Dead letters", Number.isFinite(queue?.dead_letters) ? brief(queue.dead_letters) : null),
      h("a.chip", { href: to("waiting"), "aria-current": waits ? "page" : null }, "Waiting", Number.isFinite(queue?.waiting) ? brief(queue.waiting) : null));
    root.querySelector("h1").textContent = waits ? "Waiting" : "Dead letters";
    ctx.title(waits ? "Waiting" : "Dead letters");
    bar.find.hidden = waits;
    choose(true);
    bar.update(f);
    if (waits) load(list, () => api.waiting(f), drawWaiting); else load(list, () => api.letters(f), draw);
  }
  return { update, leave() {} };
}
