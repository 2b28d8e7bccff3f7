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

  let f = ctx.f, times = [], lost = 0, paused = false, over = false, linked = null, rows = null, said = 0, turn = 0, soon = 0, later = 0, filling = false;
  const held = new Map(); // by id: events that are not let in yet, the oldest first
  const shown = new Map(); // by id: the row, and its event
  const early = new Map(); // by id: attempts of events that are not known yet
  const reading = () => over || window.scrollY > 60 || list.contains(document.activeElement);

  function tell() {
    const [look, ...words] = !api.session()?.history ? ["", "Off"] : linked === null ? ["", "Connecting"] : !linked ? ["lost", icon("off"), "Disconnected"]
      : paused ? ["held", icon("pause"), "Paused"] : reading() ? ["held", icon("pause"), "Paused while you read"] : ["on", h("i"), "Following"];
    state.className = `pill ${look}`;
    state.replaceChildren(...words);
    pause.hidden = !api.session()?.history;
    pause.replaceChildren(icon(paused ? "play" : "pause"), paused ? "Follow" : "Pause", h("kbd", "p"));
    const bad = [...held.values()].filter((e) => e.outcome === "failed" || e.outcome === "refused").length;
    fresh.hidden = !held.size;
    fresh.replaceChildren(icon("up"), plural(held.size, "new event"), bad ? `, ${count(bad)} failed or refused` : "");
    times = times.filter((t) => now() - t < 60_000);
    rate.textContent = linked ? `${(times.length / 60).toFixed(1)} a second${lost ? `; ${plural(lost, "event")} left out, since the page was too slow` : ""}` : "";
  }
  function put(e) {
    const row = eventRow(e);
    shown.set(e.id, [row, e]);
    return row;
  }
  function flush() {
    clearTimeout(soon);
    soon = 0;
    if (held.size && !filling && !paused && !reading()) {
      if (!rows) draw([]);
      const come = [...held.values()].slice(-KEPT).reverse().map(put);
      held.clear();
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
  /** An event that was answered. */
  function take(e) {
    learn(e);
    early.delete(e.id);
    if (!change(e)) {
      times.push(e.at);
      if (fits(e, f)) held.set(e.id, e);
      if (held.size > 10_000) held.delete(held.keys().next().value);
    }
    // A flood is drawn ten times a second, not once for each event.
    soon ||= setTimeout(flush, 100);
  }
  /** The row of a shown event changes where it is. Returns whether the event is shown, or waits to be. */
  function change(fields) {
    const waits = held.get(fields.id), [row, e] = shown.get(fields.id) ?? [];
    if (waits) Object.assign(waits, fields);
    if (row) {
      const focused = row.contains(document.activeElement), changed = put({ ...e, ...fields });
      row.replaceWith(changed);
      if (focused) changed.querySelector("a").focus();
    }
    return !!(waits || row);
  }
  /** An attempt. The news of it can come before that of its event. */
  function tried(fields) {
    if (change(fields)) { soon ||= setTimeout(flush, 100); return; }
    early.set(fields.id, fields);
    if (early.size > 1000) early.delete(early.keys().next().value);
  }
  /** Adds what the stream already said of an event: the history, and the news of the answer, can be some moments late. */
  function learn(e) {
    for (const said of [held.get(e.id), shown.get(e.id)?.[1], early.get(e.id)]) if (said && said.tried > e.tried) Object.assign(e, said);
  }
  /** An event of the history that is to be shown. */
  function newest(e) {
    learn(e);
    held.delete(e.id);
    early.delete(e.id);
    return e;
  }
  function draw(events) {
    events = events.map(newest);
    shown.clear();
    if (events.length || held.size) {
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
    filling = true; // events of the stream wait, because the list is drawn anew
    list.setAttribute("aria-busy", "true");
    api.recent(f).then((events) => { if (mine !== turn) return; filling = false; times = events.map((e) => e.at); draw(events); flush(); },
      (error) => { if (mine === turn) { filling = false; rows = null; shown.clear(); list.replaceChildren(failure(error, fill)); } }).finally(() => list.removeAttribute("aria-busy"));
  }

  /** Reads the history, and once more when it has all that was missed. */
  function refill() {
    fill();
    clearTimeout(later);
    later = setTimeout(fill, 2000);
  }

  window.addEventListener("scroll", flush, { passive: true });
  const beat = setInterval(flush, 1000);
  const close = !api.session().history ? () => {} : api.live({ each: take, tried, missed: (n) => { lost += n ?? 1; refill(); }, up(up, error) {
    // Events that came while there was no connection are in the history.
    if (up && linked === false) refill();
    linked = up;
    if (error?.off) list.replaceChildren(failure(error));
    else if (!up && !rows && !list.querySelector(".failure")) draw([]);
    tell();
  } });
  if (!api.session().history) linked = false;
  return {
    update(filters) { f = filters; held.clear(); bar.update(f); fill(); tell(); },
    leave() { close(); clearTimeout(soon); clearTimeout(later); clearInterval(beat); window.removeEventListener("scroll", flush); },
  };
}
