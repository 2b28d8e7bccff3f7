// Event: one, whole. The first sentence has its outcome, where it is, and whether the sender must send it again.
import { button, copy, h, icon, prose, sent } from "./dom.js";
import { api, now } from "./api.js";
import { dots, timeline } from "./charts.js";
import { bodyView, copyCurl } from "./body.js";
import { ago, at, count, plural, size, took } from "./format.js";
import { act, dot, facts, hookName, load, mark, may, OUTCOMES, section } from "./parts.js";

const MINUTES = 5; // of the events around one

const because = (e) => (e.kind || e.text ? [": ", e.kind && h("code", e.kind), e.kind && e.text && ", ", e.text && prose(e.text)] : "");
/** The outcome, in a sentence or two. */
function verdict(e) {
  const last = e.attempts.at(-1), answered = e.status ? `The sender got ${e.status}` : "The sender got no answer";
  if (e.outcome === "delivered") return [`Delivered to ${e.module}`, last && (e.accepted ? ` ${took(last.at + last.ms)} after receipt` : ` in ${took(last.ms)}`), e.tried > 0 && `, on ${e.tried > 1 ? `attempt ${e.tried}` : "the first attempt"}`, "."];
  if (e.outcome === "waiting") return ["Not delivered yet. ", e.tried ? [`${plural(e.tried, "attempt")} failed`, e.text ? [", the last one with: ", prose(e.text)] : "", ". "] : "The first attempt is still to come. ", "The event is in the queue; the sender need not send it again."];
  if (e.outcome === "failed" && e.accepted) return [`Given up after ${plural(e.tried, "attempt")}`, because(e), ". ", e.queued === "dead_letter" ? "It is a dead letter now. Repair the target, then replay the event." : "It is no longer in the queue."];
  if (e.outcome === "failed") return ["Not delivered", because(e), `. ${answered} and has to send the event again; the queue does not have it.`];
  if (e.outcome === "refused") return ["Refused", because(e), `. ${answered}; nothing was delivered.`];
  if (e.kind === "duplicate") return [`A duplicate: the same event came before, and is delivered once. ${answered}.`];
  return [`Answered without a delivery`, because(e), `. ${answered}.`];
}

/** The result of an attempt: the error, and the beginning of the target's answer. */
const answer = (t) => h("div.answer", t.text && h("p", prose(t.text)), t.answer
  ? h("div.code.small", { tabindex: 0, role: "group", "aria-label": "The target's answer" }, h("div.line", h("span.mute", "status: "), String(t.answer.status)), t.answer.body && [h("div.line.gap"), h("div.line", sent(t.answer.body))])
  : h("p.faint", t.kind ? "There was no answer." : "The module has taken the event."));

/** An event that waits is tried now. Any other one is replayed, after a question. Returns whether it was done. */
export async function again(ctx, e) {
  if (ctx.readOnly || !e.replayable && e.outcome !== "waiting") return false;
  if (e.outcome === "waiting") return act(null, () => api.retry(e), () => `Attempt ${e.tried + 1} begins now.`);
  return act({ title: "Replay 1 event", text: e.queued ? [hookName(e.key), " gets the event again, with the same id, as the webhook is configured now."] : [hookName(e.key), " gets a copy of the event, with a new id, as the webhook is configured now. Its guards are not asked."], note: e.outcome === "delivered" && "It was delivered before. A target that does not drop repeated ids takes it twice." },
    () => api.replay(e), (done) => ["Replayed 1 event. ", done?.id && done.id !== e.id ? h("a", { href: `#/events/${done.id}` }, "Show the copy") : h("a", { href: `#/live?webhook=${e.key}` }, "Watch it arrive")]);
}

function tabs(...pages) {
  const panels = pages.map(([, panel], i) => h("div", { role: "tabpanel", id: `panel-${i}`, "aria-labelledby": `tab-${i}` }, panel));
  const choose = (i) => buttons.forEach((b, j) => { b.setAttribute("aria-selected", String(i === j)); b.tabIndex = i === j ? 0 : -1; panels[j].hidden = i !== j; });
  const buttons = pages.map(([name], i) => button("tab", { role: "tab", id: `tab-${i}`, "aria-controls": `panel-${i}`, onclick: () => choose(i), onkeydown: (event) => {
    if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
    choose(1 - i);
    buttons[1 - i].focus();
  } }, name));
  choose(0);
  return [h("div.tabs", { role: "tablist", "aria-label": "Request" }, buttons), panels];
}

export function show(root, ctx) {
  let timers = [], stale = null;
  const update = () => load(root, () => api.event(ctx.id), draw);
  /** Draws again after an action, and once more when the attempt may have ended. */
  const renew = (done) => { if (done) timers = [300, 2000].map((ms) => setTimeout(update, ms)); };
  // The event's outcome can change while it is open.
  const close = !api.session().history ? () => {} : api.live({ each: changed, tried: changed });
  function changed(e) {
    if (e.id !== ctx.id) return;
    const { activeElement } = document, reads = root.contains(activeElement) && !activeElement.matches("h1");
    if (!reads && !document.querySelector("dialog[open]")) update();
    else if (stale) stale.hidden = false;
  }

  function draw(e) {
    ctx.title(`${OUTCOMES[e.outcome][0]} · ${e.key}`);
    const near = h("div");
    if (!e.alone) {
      load(near, () => api.near(e, MINUTES), ({ rows, around }) => {
        ctx.steps = { j: e.older, k: e.newer };
        return [
          dots(around, e, MINUTES), h("p.ends", h("span", `${MINUTES} min before`), h("span", `${MINUTES} min after`)),
          h("ol.short", rows.map((o) => h("li", h("a", { href: `#/events/${o.id}`, "aria-current": o.id === e.id && "true" }, dot(o.outcome), at(o.at), h("span.what", o.kind || o.module), h("span.took", took(o.took)))))),
          h("a.all", { href: `#/events?webhook=${e.key}` }, "All events of this webhook"),
        ];
      });
    }
    const waits = e.outcome === "waiting", queued = !!e.queued;
    const keep = { waiting: ["Drop", "The event leaves the queue and is not delivered."], dead_letter: ["Delete", "The dead letter is deleted, and can no longer be replayed."] }[e.queued] ?? ["Erase", "The history forgets the event: its head, body and attempts."];
    const remove = () => act({ title: `${keep[0]} 1 event`, text: `${keep[1]} This cannot be undone.`, danger: true }, () => api.remove(e), () => `${keep[0] === "Drop" ? "Dropped" : `${keep[0]}d`} 1 event.`)
      .then((done) => { if (done && (e.alone || !queued)) location.hash = ctx.back(); else renew(done); });
    const key = { "data-key": "r", ...may(ctx, () => again(ctx, e).then(renew), !waits && !e.replayable && (e.replayNote || "What is kept of the event is not complete")) };
    const actions = [button("quiet", may(ctx, remove), icon("drop"), keep[0]),
      button("button.primary", key, icon(waits ? "play" : "replay"), waits ? "Try now" : "Replay", h("kbd", "r"))];
    const extras = () => [button("quiet", { onclick: () => copyCurl(e) }, icon("curl"), "Copy as curl")];
    const download = e.body && !e.alone && button("quiet", { onclick: () => act(null, () => api.download(e), () => "Saved the body as a file.") }, icon("down"), "Save");
    stale = h("p.note.stale", { role: "status", hidden: true }, "The event has changed. ", button("button", { onclick: () => { update(); } }, "Show it"));

    return [
      h("nav.crumbs", { "aria-label": "Breadcrumb" }, h("a", { href: ctx.back() }, "Events"), icon("right"), h("span.cid", e.id), button("quiet", { onclick: () => copy(e.id, "the id"), "aria-label": "Copy the id" }, icon("copy"))),
      h("div.head.title", h("h1", { tabindex: "-1" }, mark(e.outcome), h("a", { href: `#/webhooks?q=${e.key}` }, hookName(e.key))), h("div.actions", actions)),
      h("p.verdict", verdict(e)), !waits && !e.replayable && e.replayNote && h("p.told.why", "It cannot be replayed: ", prose(e.replayNote), "."), stale,
      facts(
        ["Received", at(e.at, "s"), h("span.faint", ", ", ago(e.at))], e.status && ["Answered", h("b", e.status), ` in ${took(e.took)}`], e.peer && ["From", e.peer], e.path && ["Request", h("span.path", `${e.method} `, h("bdi", sent(e.path)))], ["Size", size(e.size)],
        e.kind && ["Kind", h("code", e.kind)], e.tried > 0 && ["Attempts", count(e.tried), e.next && waits && h("span.faint", `, next in ${took(Math.max(0, e.next - now()))}`)],
        e.dedup && ["Dedup", e.dedup], e.secrets.map(({ guard, position }) => `${guard}: number ${position}`).join(", ") && ["Secret", e.secrets.map(({ guard, position }) => `${guard}: number ${position}`).join(", ")],
        e.revision && ["Revision", count(e.revision)], e.died && ["Given up", at(e.died), h("span.faint", ", ", ago(e.died))]),
      e.steps.length > 0 && section("Timeline", h("span.faint", "drawn to scale"), timeline(e, answer)),
      e.alone && h("p.note", "The history does not have this event. The queue does: its head and body are shown."),
      e.actions.length > 0 && section("Actions of operators", null, h("ul.plain", e.actions.map((a) => h("li", at(a.at), h("span.faint", ", ", ago(a.at), ": "), h("code", a.what), " by ", h("bdi", a.by), a.outcome && [", then ", mark(a.outcome)])))),
      h("div.two",
        section("Request", null, tabs(
          ["Body", e.body ? bodyView(e, download, extras()) : h("p.note", e.size ? `The history has no body of this event: its webhook keeps none, or the body was not read. Its length is ${size(e.size)}.` : "The request has no body, or none is kept.")],
          [`Headers ${e.head.length}`, e.head.length ? h("div.body", h("div.strip", h("span.grow"), button("quiet", { onclick: () => copy(e.head.map((field) => field.join(": ")).join("\n"), "the headers") }, icon("copy"), "Copy"), extras()),
            h("dl.headers", e.head.map(([name, value]) => h("div", h("dt", name), h("dd", value === "***REDACTED***" ? h("span.redacted", "redacted") : h("bdi", sent(value))))))) : h("p.note", "The history has no headers of this event.")])),
        !e.alone && section("Around it", null, near)),
    ].filter(Boolean);
  }
  return { update, leave() { close(); timers.forEach(clearTimeout); } };
}
