// The shell: the address, the side, the keys. An address is #/SCREEN?FILTERS: a link can be shared, and no server sees it.
import { button, h, icon, say } from "./dom.js";
import { api, link, token } from "./api.js";
import { at, brief, count, took } from "./format.js";
import { choice, dialog, dot, failure, mark, skeleton } from "./parts.js";
import { sourceMark } from "./system.js";
import * as live from "./live.js";
import * as events from "./events.js";
import * as one from "./event.js";
import * as webhooks from "./webhooks.js";
import * as dead from "./dead.js";
import * as system from "./system.js";
import * as signin from "./signin.js";

const SCREENS = { live: ["Live", live], events: ["Events", events], webhooks: ["Webhooks", webhooks], dead: ["Dead letters", dead], system: ["System", system] };
const NAMES = Object.keys(SCREENS);
const main = document.getElementById("main");
const side = document.getElementById("side");

// --- the address
function read() {
  const [path, query] = location.hash.slice(2).split("?");
  const [screen, id] = path.split("/");
  return { screen: SCREENS[screen] || screen === "signin" ? screen : "live", id: screen === "events" ? id : "", f: Object.fromEntries(new URLSearchParams(query)) };
}
function address(screen, f) {
  const query = new URLSearchParams(Object.entries(f).filter(([, value]) => value));
  return `#/${screen}${query.size ? `?${query}`.replaceAll("%2F", "/").replaceAll("%2C", ",").replaceAll("%3A", ":") : ""}`;
}

let view = null, shown = "", list = "#/events", first = true, why = "";
const ctx = {
  f: {}, id: "",
  /** On an event: the older and the newer one, for j and k. */
  steps: null,
  get readOnly() { return api.session().readOnly; },
  /** Changes filters, and with them the address. Typing replaces the entry in the browser's history. */
  set(change) {
    const to = address(shown, { ...ctx.f, ...change });
    if ("q" in change) history.replaceState(null, "", to); else history.pushState(null, "", to);
    route();
  },
  back: () => list,
  title: (text) => { document.title = `${text} · Inspector`; },
};

function leave() {
  view?.leave();
  view = null; shown = "";
  side.replaceChildren();
}
/** A token without a session: the page was loaded again. */
async function resume() {
  leave();
  main.replaceChildren(h("div.screen", skeleton()));
  try {
    await api.signIn(token.get());
    route();
  } catch (error) {
    if (token.get()) main.replaceChildren(h("div.screen", failure(error, resume)));
  }
}
function route() {
  const { screen, id, f } = read();
  const gated = screen === "signin" || !token.get();
  document.body.classList.toggle("gated", gated);
  if (gated) {
    leave();
    banner.hidden = true;
    ctx.title("Sign in");
    signin.show(main, why, () => { why = ""; if (screen === "signin") location.hash = "#/live"; else route(); });
    return;
  }
  if (!api.session()) { resume(); return; }
  Object.assign(ctx, { f, id });
  if (screen === "events" && !id) list = location.hash;
  const next = id ? `events/${id}` : screen;
  const moved = next !== shown;
  if (moved) {
    view?.leave();
    ctx.steps = null;
    shown = next;
    ctx.title(id ? "Event" : SCREENS[screen][0]);
    const box = h("div.screen");
    main.replaceChildren(banner, box);
    view = (id ? one : SCREENS[screen][1]).show(box, ctx);
    window.scrollTo(0, 0);
  }
  view.update(f);
  drawSide(screen, f);
  if (moved && !first) {
    (main.querySelector("h1") ?? main).focus({ preventScroll: true });
    say(document.title);
  }
  first = false;
}

// --- the side
const pulse = h("div.pulse");
const letters = h("span");
const banner = h("div.banner", { role: "status", hidden: true });
/** What the reader prefers, if the browser saves it. */
const kept = (name, value) => { try { return value === undefined ? localStorage[name] : (localStorage[name] = value); } catch { return ""; } };
const THEMES = { "": ["auto", "as the system", "light"], light: ["sun", "light", "dark"], dark: ["moon", "dark", ""] };
function themeButton() {
  const root = document.documentElement;
  const turn = (theme) => {
    root.dataset.theme = theme;
    const [drawing, word] = THEMES[theme];
    toggle.replaceChildren(icon(drawing));
    for (const name of ["aria-label", "title"]) toggle.setAttribute(name, `Theme: ${word}`);
  };
  const toggle = button("quiet", { onclick: () => { turn(THEMES[root.dataset.theme][2]); kept("inspector.theme", root.dataset.theme); say(toggle.title); } });
  turn(THEMES[root.dataset.theme] ? root.dataset.theme : "");
  return toggle;
}
function drawSide(screen, f) {
  if (!side.childElementCount) {
    const named = (name) => ({ "aria-label": name, title: name });
    const { name, readOnly, namespaces } = api.session();
    side.replaceChildren(
      h("div.brand", icon("mark"), h("span", "tower-webhook")),
      namespaces.length === 1 ? h("p.only", { title: "The namespace of your token" }, namespaces[0]) : choice(ctx, "namespace", ["All namespaces", ...namespaces]),
      h("nav", { "aria-label": "Screens" }, NAMES.map((name) => h("a", icon(name), h("span", SCREENS[name][0]), name === "dead" && letters))),
      pulse,
      h("p.told.me", { title: name }, name, readOnly && ", may only read"),
      h("div.tools", themeButton(), button("quiet", { ...named("Keys"), onclick: help }, icon("keys")), button("quiet", { ...named("Sign out"), onclick: () => { token.drop(); location.hash = "#/signin"; } }, icon("out"))));
    beat();
  }
  const choose = side.querySelector("select");
  if (choose) choose.value = f.namespace ?? "";
  side.querySelectorAll("nav a").forEach((a, i) => {
    a.href = address(NAMES[i], { namespace: f.namespace });
    a.ariaCurrent = NAMES[i] === screen ? "page" : null;
  });
}
async function beat() {
  try {
    const { source, queue } = await api.status();
    letters.replaceChildren(queue?.dead_letters ? brief(queue.dead_letters) : "");
    pulse.replaceChildren(
      h("a", { href: "#/system" }, sourceMark(source), h("span.faint", `revision ${count(source.revision)}`)),
      queue?.waiting ? h("a", { href: "#/dead?view=waiting" }, mark("waiting", [`${count(queue.waiting)} waiting`, "s-wait"]), queue.oldest && h("span.faint", `oldest ${took(queue.oldest)}`))
        : queue?.waiting === null ? "" : h("p", mark("skipped", [queue ? "No event waits" : "No queue", "s-skip"])));
  } catch {
    // The link's event shows that the gateway is away. Without the right to ask, the side has no state.
    if (link.up) pulse.replaceChildren();
  }
}
document.addEventListener("link", () => {
  banner.hidden = link.up || document.body.classList.contains("gated");
  if (!link.up) banner.replaceChildren(dot("waiting"), h("p", h("b", "The gateway does not answer."), " The page shows its state of ", at(link.at), ", and keeps trying."), button("button", { onclick: beat }, "Try now"));
  else if (view && main.querySelector(".failure")) view.update(ctx.f);
});
document.addEventListener("ended", () => {
  if (!token.get()) return;
  const had = !!api.session();
  token.drop();
  document.querySelectorAll("dialog").forEach((box) => box.close());
  if (!document.body.classList.contains("gated")) { why = had ? "ended" : ""; route(); }
});
setInterval(() => { if (side.childElementCount && !document.hidden) beat(); }, 5000);

// --- the keys
const KEYS = { "/": "Search", "j k": "Next row, previous row. On an event: the older one, the newer one", Enter: "Open the row", r: "Replay, or try now", p: "Pause, or follow", "1 2 3 4 5": "The screens", Esc: "Leave the search. On an event: back", "?": "These keys" };
function help() {
  const on = h("input", { type: "checkbox", checked: kept("inspector.keys") !== "off", onchange: () => kept("inspector.keys", on.checked ? "on" : "off") });
  dialog("Keys", h("dl.keys", Object.entries(KEYS).map(([keys, what]) => h("div", h("dt", keys.split(" ").map((key) => h("kbd", key))), h("dd", what)))),
    h("label.check", on, "Use single keys"),
    h("div.actions", h("button.button", { autofocus: true }, "Close")));
}
function step(by) {
  const id = ctx.steps?.[by > 0 ? "j" : "k"];
  if (ctx.steps) { if (id) location.hash = `#/events/${id}`; return; }
  const rows = [...main.querySelectorAll(".cover")].filter((row) => row.offsetParent);
  const row = rows[Math.min(rows.length - 1, Math.max(0, rows.indexOf(document.activeElement) + by))];
  row?.focus();
  row?.closest("tr, li").scrollIntoView({ block: "nearest" });
}
document.addEventListener("keydown", (event) => {
  const { key, target } = event;
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || !view || document.querySelector("dialog[open]")) return;
  const typing = target.matches("input:not([type=checkbox]), select");
  if (key === "Escape") {
    if (typing) target.blur(); else if (ctx.id) location.hash = list;
    return;
  }
  if (typing || kept("inspector.keys") === "off") return;
  const pressed = main.querySelector(`[data-key="${CSS.escape(key)}"]`);
  const row = document.activeElement.closest("[data-id]");
  if (key === "j" || key === "k") step(key === "j" ? 1 : -1);
  else if (key === "?") help();
  else if (NAMES[key - 1]) location.hash = `#/${NAMES[key - 1]}`;
  else if (key === "r" && row) api.event(row.dataset.id).then((e) => one.again(ctx, e), () => {});
  else if (pressed) { if (key === "/") pressed.focus(); else pressed.click(); }
  else return;
  event.preventDefault();
});

document.querySelector(".skip").onclick = (event) => { event.preventDefault(); main.focus(); };
window.addEventListener("hashchange", route);
route();
