// Live: events as they come, the newest first. The list holds still while the operator reads: while the pointer moves over
// it, the page is scrolled, or the focus is in it. A button lets in the events that came in the meantime.
import { button, h, icon, say } from "./dom.js";
import { api, fits, now } from "./api.js";
import { count, plural } from "./format.js";
import { blank, eventFinder, eventRow, eventTable, failure, filtered, head, none, skeleton, tbody } from "./parts.js";

const KEPT = 200; // rows; the screen Events has the older ones

export function show(root, ctx) {
  const bar = eventFinder(ctx, "Filter new events");
  const state = h("span.pill");
  const rate = h("span.told.grow");
  const pause = button("button", { "data-key": "p", onclick: () => { paused = !paused; flush(); } });
  const fresh = button("fresh", { onclick: () => { window.scrollTo({ top: 0 }); paused = over = false; document.activeElement.blur(); flush(); } });
  const list = h("div", { onfocusout: () => setTimeout(flush) }, skeleton());
  root.replaceChildren(head("Live", state, rate, pause), bar.element, h("div", {
    // A pointer that rests where the list appears does not read. The button above the list is part of the list here.
    onpointermove: (event) => { if (!over && event.pointerType === "mouse" && (event.movementX || event.movementY)) { over = true; tell(); } },
    onpointerleave: () => { over = false; flush(); },
  }, h("div.float", fresh), list));

  let f = ctx.f, held = [], times = [], lost = 0, paused = false, over = false, linked = null, rows = null, said = 0, turn = 0;
  const shown = new Map(); // the rows by their ids
  const reading = () => over || window.scrollY > 60 || list.contains(document.activeElement);

  function tell() {
    const [look, ...words] = linked === null ? ["", "Connecting"] : !linked ? ["lost", icon("off"), "Disconnected"]
      : paused ? ["held", icon("pause"), "Paused"] : reading() ? ["held", icon("pause"), "Paused while you read"] : ["on", h("i"), "Following"];
    state.className = `pill ${look}`;
    state.replaceChildren(...words);
    pause.replaceChildren(icon(paused ? "play" : "pause"), paused ? "Follow" : "Pause", h("kbd", "p"));
    const bad = held.filter((e) => e.outcome === "failed" || e.outcome === "refused").length;
    fresh.hidden = !held.length;
    fresh.replaceChildren(icon("up"), plural(held.length, "new event"), bad ? `, ${count(bad)} failed or refused` : "");
    times = times.filter((t) => now() - t < 60_000);
    rate.textContent = linked ? `${(times.length / 60).toFixed(1)} a second${lost ? `; ${plural(lost, "event")} left out, since the page was too slow` : ""}` : "";
  }
  function put(e) {
    const row = eventRow(e);
    shown.set(e.id, row);
    return row;
  }
  function flush() {
    if (held.length && !paused && !reading()) {
      if (!rows) draw([]);
      const come = held.splice(0).slice(-KEPT).reverse().map(put);
      for (const row of come) row.classList.add("new");
      rows.prepend(...come);
      while (rows.childElementCount > KEPT) {
        shown.delete(rows.lastElementChild.dataset.id);
        rows.lastElementChild.remove();
      }
      // A screen reader gets a number every ten seconds, not each event.
      if (performance.now() - said > 10_000) { said = performance.now(); say(plural(come.length, "new event")); }
    }
    tell();
  }
  /** A new event, or a new outcome of one that is shown: its row changes where it is. */
  function take(e) {
    const row = shown.get(e.id), waits = held.findIndex((o) => o.id === e.id);
    if (row) {
      const focused = row.contains(document.activeElement), changed = put(e);
      row.replaceWith(changed);
      if (focused) changed.querySelector("a").focus();
      return;
    }
    if (waits >= 0) { held[waits] = e; return; }
    // The outcome of an older event, which Events has.
    if (now() - e.at > 60_000 && e.tried) return;
    times.push(e.at);
    if (fits(e, f)) held.push(e);
    if (held.length > 10_000) held.shift();
    flush();
  }
  function draw(events) {
    shown.clear();
    if (events.length || held.length) {
      held = held.filter((e) => !events.some((o) => o.id === e.id));
      rows = tbody(events.map(put));
      list.replaceChildren(eventTable("Events as they come, newest first", rows));
    } else {
      rows = null;
      list.replaceChildren(linked === false ? blank("off", "No events come in", "The page has lost the gateway, and tries again. The gateway delivers events without the page.")
        : filtered(f) ? none(ctx, "No event that passes all the filters has come yet.")
          : blank("live", "Waiting for the first event", "An event shows here within a second after it was sent."));
    }
  }
  function fill() {
    const mine = (turn += 1);
    list.setAttribute("aria-busy", "true");
    api.recent(f).then((events) => { if (mine !== turn) return; times = events.map((e) => e.at); draw(events); flush(); },
      (error) => { if (mine === turn) { rows = null; shown.clear(); list.replaceChildren(failure(error, fill)); } }).finally(() => list.removeAttribute("aria-busy"));
  }

  window.addEventListener("scroll", flush, { passive: true });
  const beat = setInterval(flush, 1000);
  const close = !api.session().history ? () => {} : api.live(take, (n) => { lost += n ?? 1; fill(); }, (up, error) => {
    // Events that came while there was no connection are in the history.
    if (up && linked === false) fill();
    linked = up;
    if (error?.off) list.replaceChildren(failure(error));
    else if (!up && !rows && !list.querySelector(".failure")) draw([]);
    tell();
  });
  if (!api.session().history) linked = false;
  return {
    update(filters) { f = filters; held = []; bar.update(f); fill(); tell(); },
    leave() { close(); clearInterval(beat); window.removeEventListener("scroll", flush); },
  };
}
