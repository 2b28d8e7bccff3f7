// Parts of several screens: outcomes, names, rows, filters, dialogs, and the states with nothing to show.
import { button, h, hidden, icon, prose, spelled, toast } from "./dom.js";
import { api } from "./api.js";
import { at, brief, clock, count, took } from "./format.js";

// --- outcomes and names
/** The outcomes of a request: the word, and the drawing. The name is the class that has the colours. */
export const OUTCOMES = {
  delivered: ["Delivered", "s-ok"],
  waiting: ["Waiting", "s-wait"],
  failed: ["Failed", "s-bad"],
  refused: ["Refused", "s-no"],
  skipped: ["Skipped", "s-skip"],
};
export const mark = (outcome, [word, drawing] = OUTCOMES[outcome]) => h(`span.mark.${outcome}`, icon(drawing), h("span", word));
/** The drawing. With `alone`, a screen reader reads its word; otherwise the word is beside it. */
export const dot = (outcome, alone = true) => h(`span.mark.${outcome}`, icon(OUTCOMES[outcome][1], alone && OUTCOMES[outcome][0]));

/** namespace/id. If room is short, the namespace gives way first. */
export function hookName(key) {
  const [ns, id] = key.split("/");
  return h("span.hook", { title: key }, h("span.ns", `${ns}/`), h("span.id", id));
}

/** The result in a line: the kind as the API has it, then the gateway's message. */
export function story(e) {
  if (e.outcome === "delivered") return [h("span.faint", e.module), e.tried > 1 && h("span.faint", ` · attempt ${e.tried}`)];
  if (e.outcome === "waiting" && !e.tried) return h("span.faint", `${e.module} · not tried yet`);
  return [e.tried > 0 && h("span.faint", `${e.outcome === "waiting" ? "attempt" : "after attempt"} ${e.tried} · `), h("code", e.kind), " ", prose(e.text)];
}

// --- tables
// CSS lays a row out as a grid, of one line on a desk and two on a phone. Browsers then drop the roles of a table, so each
// element names its role.
export const tr = (spec, attributes, ...cells) => h(`tr.${spec}`, { role: "row", ...attributes }, cells);
export const td = (spec, ...children) => h(`td.${spec}`, { role: "cell" }, children);
export const tbody = (rows) => h("tbody", { role: "rowgroup" }, rows);
export function table(spec, caption, columns, ...bodies) {
  const heads = Object.entries(columns).map(([spec, text]) => h(`th.${spec}`, { role: "columnheader", scope: "col" }, text));
  return h(`table.rows.${spec}`, { role: "table" }, h("caption.hidden", caption), h("thead", { role: "rowgroup" }, tr("heads", {}, heads)), bodies);
}

export const eventRow = (e) => tr("row", { "data-id": e.id },
  td("c-time", at(e.at, "ms")),
  td("c-mark", mark(e.outcome)),
  td("c-hook", h("a.cover", { href: `#/events/${e.id}` }, hookName(e.key), hidden(`, ${OUTCOMES[e.outcome][0]}, ${clock(e.at)}`))),
  h("td.c-what", { role: "cell", title: e.text ? spelled(e.text) : null }, story(e)),
  td("c-code", e.status), td("c-took", took(e.took)));
export const eventTable = (caption, body) => table("events", caption,
  { "c-time": "Received", "c-mark": "Outcome", "c-hook": "Webhook", "c-what": "What happened", "c-code": "Answer", "c-took": "Took" }, body);

/** A button that covers its row, and opens and closes the element below. `opened` is called at the first opening. */
export function expander(id, below, opened, ...children) {
  Object.assign(below, { id, hidden: true });
  const toggle = button("cover", { "aria-expanded": "false", "aria-controls": id, onclick: () => {
    below.hidden = !below.hidden;
    opened?.();
    opened = null;
    toggle.setAttribute("aria-expanded", String(!below.hidden));
  } }, ...children);
  return toggle;
}

// --- filters
/** A select of a filter. The first value means any. */
export const choice = (ctx, name, values) => h("select", { name, "aria-label": name, onchange: (event) => ctx.set({ [name]: event.target.value }) }, values.map((value, i) => h("option", { value: i ? value : "" }, value)));

/** A search field, selects and two rows of chips. They read and write the address, which alone has the state. */
export function finder(ctx, placeholder, selects = {}) {
  let typing;
  const input = h("input", { type: "search", placeholder, "aria-label": placeholder, "data-key": "/", autocomplete: "off", spellcheck: "false",
    oninput: () => { clearTimeout(typing); typing = setTimeout(() => ctx.set({ q: input.value }), 150); } });
  const fields = Object.entries(selects).map(([name, values]) => choice(ctx, name, values));
  const find = h("label.find", icon("search"), input, h("kbd", { "aria-hidden": "true" }, "/"));
  const rows = [h("div.chips", { role: "group", "aria-label": "Show" }), h("div.chips.reasons", { role: "group", "aria-label": "By reason" })];
  return {
    element: h("div.filters", { role: "search" }, h("div.fields", find, fields), rows),
    find,
    update(f) {
      if (document.activeElement !== input) input.value = f.q ?? "";
      for (const field of fields) {
        const value = f[field.name] ?? "";
        if (![...field.options].some((option) => option.value === value)) field.append(h("option", { value }, value));
        field.value = value;
      }
    },
    /** Draws a row of chips, each as [whether it is on, the filters that it sets, its content, its number]. */
    chips(row, list) {
      const focused = [...rows[row].children].indexOf(document.activeElement);
      rows[row].replaceChildren(...list.filter(Boolean).map(([on, change, look, n]) =>
        button(on === null ? "quiet" : "chip", { "aria-pressed": on === null ? null : String(on), onclick: () => ctx.set(change) }, look, n !== undefined && n !== null && brief(n))));
      rows[row].children[focused]?.focus();
      rows[row].scrollLeft = (rows[row].querySelector("[aria-pressed=true]")?.offsetLeft ?? 0) - 16; // on a phone
    },
  };
}
/** A chip that sets a filter, and removes it again. */
export const toggle = (f, name, value, look, n) => [f[name] === value, { [name]: f[name] === value ? "" : value }, look, n];
const CLEAR = { q: "", webhook: "", status: "", outcome: "", since: "", until: "", reason: "", state: "" };
export const filtered = (f) => ["namespace", ...Object.keys(CLEAR)].some((name) => f[name]);

/** The filters of Live and Events: outcomes, the chosen time, and reasons if there are several. */
export function eventFinder(ctx, placeholder) {
  const bar = finder(ctx, placeholder, { webhook: ["Any webhook", ...api.keys()], status: ["Any answer", "2xx", "4xx", "400", "401", "413", "5xx", "503"] });
  return {
    element: bar.element,
    update(f, told = { outcomes: {}, reasons: {} }) {
      bar.update(f);
      const on = new Set(f.outcome?.split(","));
      const today = new Date(new Date().setHours(0, 0, 0, 0)).toISOString(), isToday = f.since === today && !f.until;
      const time = (text, other) => (text ? clock(new Date(text), Date.now() - Date.parse(text) > 72_000_000 ? "d" : "m") : other);
      bar.chips(0, [
        [!f.outcome, { outcome: "", reason: "" }, "All", told.all],
        ...Object.keys(OUTCOMES).map((o) => [on.has(o), { outcome: [...on.symmetricDifference(new Set([o]))].join(","), reason: "" }, [dot(o, false), OUTCOMES[o][0]], told.all && (told.outcomes[o] ?? 0)]),
        [isToday, { since: isToday ? "" : today, until: "" }, "Today"],
        !isToday && (f.since || f.until) && [true, { since: "", until: "" }, [`${time(f.since, "…")} – ${time(f.until, "now")}`, icon("close", "Remove")]],
        Object.keys(CLEAR).some((name) => f[name]) && [null, CLEAR, "Clear"],
      ]);
      const kinds = Object.entries(told.reasons).sort((a, b) => b[1] - a[1]);
      const useful = f.reason || (kinds.length > 1 && ["waiting", "failed", "refused"].some((o) => on.has(o)));
      bar.chips(1, useful ? kinds.map(([kind, n]) => toggle(f, "reason", kind, h("code", kind), n)) : []);
    },
  };
}

// --- nothing to show
export const blank = (drawing, title, text, ...more) => h("div.blank", icon(drawing), h("h2", title), h("p", prose(text)), more);
export const none = (ctx, text) => blank("search", "Nothing found", text, button("button", { onclick: () => ctx.set({ ...CLEAR, namespace: "" }) }, "Clear the filters"));

/** Grey lines in place of the rows. They show after 150 ms, since most answers are faster. */
export const skeleton = () => h("div.skeleton", { "aria-hidden": "true" }, Array.from({ length: 12 }, () => h("i")));

const OFF = {
  history: ["No history", "The gateway keeps no history of events. Set `HISTORY_DIR` to keep it from then on. Webhooks, dead letters and System work without it."],
  queue: ["No queue", "The gateway has no queue of accepted events, so no event waits and none becomes a dead letter. Set `SPOOL_DIR` to have one."],
};
/** The request that failed, and its answer. */
export const failure = (error, again) => (error.off
  ? blank("off", ...OFF[error.off])
  : h("div.blank.failure", { role: "alert" }, icon("s-bad"), h(document.querySelector("h1") ? "h2" : "h1", error.status === 404 ? "Not found" : error.status === 403 ? "Not allowed" : "This cannot be shown now"), h("p", prose(error.message)),
    h("p.faint", h("code", error.asked ?? "The page"), error.status ? ` answered ${error.status}` : error.asked ? " got no answer" : " failed"),
    error.status === 404 ? h("a.button", { href: "#/events" }, "All events") : button("button", { onclick: again }, "Try again")));

/** Asks, and draws the answer. The old content stays until then, dimmed. An answer that a later one overtook is dropped. */
export async function load(root, ask, draw) {
  if (!root.childElementCount || root.querySelector(".blank")) root.replaceChildren(skeleton());
  root.setAttribute("aria-busy", "true");
  const turn = (root.turn = (root.turn ?? 0) + 1);
  let content;
  try {
    const answer = await ask();
    if (turn !== root.turn) return;
    content = draw(answer);
  } catch (error) {
    if (turn !== root.turn) return;
    content = failure(error, () => load(root, ask, draw));
  }
  const heading = root.contains(document.activeElement) && document.activeElement.matches("h1");
  root.replaceChildren(...[content].flat());
  root.removeAttribute("aria-busy");
  if (heading) root.querySelector("h1")?.focus({ preventScroll: true });
}

// --- dialogs
export function dialog(title, ...content) {
  const box = h("dialog", { "aria-labelledby": "asked", onclose: () => box.remove() }, h("form", { method: "dialog" }, h("h2", { id: "asked" }, title), content));
  document.body.append(box);
  box.showModal();
  return box;
}
/** Asks before an action: the button names it with its number. From 100 on, the number of a deletion must be typed. */
const confirm = ({ title, text, note, danger, number }) => new Promise((answer) => {
  const typed = danger && number >= 100 && h("input", { inputmode: "numeric", autocomplete: "off", autofocus: true, oninput: () => { go.disabled = typed.value.replace(/\D/g, "") !== String(number); } });
  const go = h(`button.button.${danger ? "danger" : "primary"}`, { value: "yes", disabled: !!typed, autofocus: !typed }, title);
  const box = dialog(`${title}?`, h("p", text), note && h("p.faint", note), typed && h("label.type", h("span", "Type ", h("b", count(number)), " to go on"), typed),
    h("div.actions", button("button", { onclick: () => box.close() }, "Cancel"), go));
  box.addEventListener("close", () => answer(box.returnValue === "yes"));
});

/** Asks, does it, and shows what it did. `told` makes the text from the answer. Returns whether it was done. */
export async function act(question, work, told) {
  if (question && !(await confirm(question))) return false;
  try {
    toast(...[told(await work())].flat());
    return true;
  } catch (error) {
    toast(icon("s-bad"), " Not done: ", prose(error.message));
    return false;
  }
}
/** The attributes of a button that changes something: disabled, with the reason, if it may not. */
export const may = (ctx, onclick, other) => ({ onclick, disabled: ctx.readOnly || !!other, title: ctx.readOnly ? "Your token may only read" : other });

// --- pages
export const head = (title, ...side) => h("div.head", h("h1", { tabindex: "-1" }, title), side);
export const section = (title, side, ...children) => h("section", h("div.over", h("h2", title), side), children);
/** Names and values. */
export const facts = (...pairs) => h("dl.facts", pairs.filter(Boolean).map(([name, ...value]) => h("div", h("dt", name), h("dd", value))));
