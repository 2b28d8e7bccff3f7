// Charts, as SVG: lengths are attributes, colours come from classes. Each chart has its content in words too.
import { h, icon, s } from "./dom.js";
import { now } from "./api.js";
import { at, clock, count, plural, took } from "./format.js";
import { dot, OUTCOMES } from "./parts.js";

const MINUTE = 60_000;
// Failures are at the base line, where heights can be compared.
const STACK = ["failed", "waiting", "refused", "skipped", "delivered"];
const sum = (list) => list.reduce((a, b) => a + b, 0);
const line = (x1, x2, y1, y2, spec) => s("line", { class: spec, x1, x2, y1, y2 });
const text = (x, y, anchor, ...words) => s("text", { class: "tick", x, y, "text-anchor": anchor }, words);

/** Events by time, in 60 intervals. Dragging over it chooses a time, and so do its two handles with the arrow keys. */
export function histogram(brushed) {
  const told = h("p.told");
  const svg = s("svg", { class: "histogram", role: "group", "aria-label": "Events by time" });
  const figure = h("figure.chart", svg, told);
  const tall = 56, base = 60;
  let minutes = [], from = 0, to = 60, drag = null, unit = 1, each = MINUTE, latest = true;

  const words = (a, b, title) => {
    const n = Object.fromEntries(STACK.map((o) => [o, sum(minutes.slice(a, b).map((m) => m[o]))]));
    return [title, plural(sum(Object.values(n)), "event"), ...STACK.slice(0, 4).filter((o) => n[o]).map((o) => `${count(n[o])} ${OUTCOMES[o][0].toLowerCase()}`)].join(" · ");
  };
  const end = (m) => clock(minutes[0].at + m * each, each > 20 * MINUTE ? "d" : each < 10_000 ? "s" : "m");
  const tell = () => { told.textContent = words(from, to, to - from === 60 && latest ? "Last hour" : `${end(from)} – ${end(to)}`); };
  const choose = (a, b) => { from = Math.max(0, a); to = Math.min(60, b); draw(); };
  const done = () => brushed(to - from === 60 ? { since: "", until: "" } : { since: new Date(minutes[from].at).toISOString(), until: new Date(minutes[0].at + to * each).toISOString() });

  const under = (event) => Math.min(59, Math.max(0, Math.floor((event.clientX - svg.getBoundingClientRect().left) / unit)));
  svg.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    drag = under(event);
    svg.setPointerCapture(event.pointerId);
    choose(drag, drag + 1);
  });
  svg.addEventListener("pointermove", (event) => {
    const m = under(event);
    if (drag === null) told.textContent = words(m, m + 1, end(m));
    else choose(Math.min(drag, m), Math.max(drag, m) + 1);
  });
  svg.addEventListener("pointerup", () => { if (drag !== null) { drag = null; done(); } });
  svg.addEventListener("pointercancel", () => { drag = null; });
  svg.addEventListener("pointerleave", tell);

  const handle = (name, at) => s("g", {
    class: "handle", role: "slider", tabindex: 0, id: name, transform: `translate(${at * unit} 0)`,
    "aria-label": name, "aria-valuemin": 0, "aria-valuemax": 60, "aria-valuenow": at, "aria-valuetext": end(at),
    onkeydown: (event) => {
      const step = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -10, PageUp: 10, Home: -60, End: 60 }[event.key];
      if (!step) return;
      event.preventDefault();
      if (name === "From") choose(Math.min(to - 1, at + step), to); else choose(from, Math.max(from + 1, at + step));
      done();
    },
  }, s("rect", { class: "ring", x: -5, y: 0, width: 10, height: base, rx: 3 }), s("path", { class: "grip", d: `M0 4V${base}` }), s("circle", { class: "grip", cy: 32, r: 3 }));

  function draw() {
    const width = figure.clientWidth;
    if (!width || !minutes.length) return;
    const focused = document.activeElement?.id;
    unit = width / 60;
    svg.setAttribute("viewBox", `0 0 ${width} 78`);
    const top = Math.max(1, ...minutes.map((m) => sum(STACK.map((o) => m[o]))));
    const bars = minutes.map((m, i) => {
      let y = base;
      return s("g", { class: i >= from && i < to ? "in" : "out" }, STACK.filter((o) => m[o]).map((o) => {
        const height = Math.max(2, (m[o] / top) * tall); // so that one failure among thousands shows
        return s("rect", { class: o, x: i * unit + 0.75, y: (y -= height), width: unit - 1.5, height, "stroke-dasharray": `${unit - 1.5} 999` }); // the stroke is the upper edge alone
      }));
    });
    const ticks = [0, 10, 20, 30, 40, 50].filter((m) => width > 500 || m % 20 === 0).map((m) => text(m * unit, 75, m ? "middle" : "start", end(m)));
    svg.replaceChildren(
      s("pattern", { id: "hatch", width: 4, height: 4, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" }, s("path", { class: "hatch", d: "M0 0V4M2 0V4" })),
      to - from < 60 ? s("rect", { class: "brush", x: from * unit, y: 4, width: (to - from) * unit, height: tall }) : "",
      s("path", { class: "rule", d: `M0 ${base + 0.5}H${width}` }), ...bars, ...ticks, text(width, 75, "end", latest ? "now" : end(60)), handle("From", from), handle("Until", to));
    tell();
    if (focused === "From" || focused === "Until") document.getElementById(focused).focus();
  }
  new ResizeObserver(draw).observe(figure);
  return {
    figure,
    update(buckets, f) {
      minutes = buckets;
      each = buckets[1].at - buckets[0].at;
      latest = now() - buckets[0].at < 61.5 * MINUTE && each > 0.9 * MINUTE;
      const index = (moment, other) => (moment ? Math.min(60, Math.max(0, Math.round((Date.parse(moment) - minutes[0].at) / each))) : other);
      if (drag === null) choose(Math.min(59, index(f.since, 0)), Math.max(1, index(f.until, 60)));
    },
  };
}

/** An hour in a line: all events, and over them the refused and the undelivered ones. */
export function spark(label, all, refused, failed) {
  const top = Math.max(1, ...all);
  const bars = (spec, list, least) => s("path", { class: spec, d: list.map((n, i) => (n ? `M${i + 0.5} 20v${-Math.max(least, (n / top) * 19).toFixed(1)}` : "")).join("") });
  return s("svg", { class: "spark", viewBox: "0 0 60 20", preserveAspectRatio: "none", role: "img", "aria-label": label },
    s("path", { class: "rule", d: "M0 20H60" }), bars("all", all, 1.5), bars("refused", refused, 3), bars("failed", failed, 3));
}

/** Parts of a whole. */
export function meter(label, parts, of) {
  let x = 0;
  return s("svg", { class: "meter", role: "img", "aria-label": label, width: "100%", height: 8 },
    parts.map(([outcome, n]) => { const w = Math.max(0.5, (n / of) * 100); x += w; return s("rect", { class: outcome, x: `${x - w}%`, width: `${w}%`, height: 8 }); }));
}

// --- the timeline
const STEPS = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 3e4, 6e4, 12e4, 3e5, 6e5, 18e5, 36e5, 216e5];

/** Turns milliseconds into per cent of the width, with the lines of the grid. */
function scale(span) {
  const x = (ms) => `${Math.min(100, (ms / span) * 100)}%`;
  const step = STEPS.find((n) => span / n <= 5) ?? 864e5;
  const ticks = Array.from({ length: Math.floor(span / step) + 1 }, (_, i) => i * step);
  return {
    x,
    lane: (...drawn) => s("svg", { class: "lane", "aria-hidden": "true", width: "100%", height: 20 }, ticks.map((ms) => line(x(ms), x(ms), 0, 20, "rule")), drawn),
    bar: (outcome, from, ms) => s("rect", { class: `bar ${outcome}`, x: x(from), y: 5, width: x(ms), height: 10 }),
    axis: () => h("div.axis", { "aria-hidden": "true" }, s("svg", { width: "100%", height: 16 }, ticks.map((ms) => text(x(ms), 12, ms ? (ms / span > 0.96 ? "end" : "middle") : "start", ms ? `+${took(ms)}` : "0")))),
  };
}

/** The steps and attempts by time. The request has a scale of its own, since the attempts after it can take hours. The
 *  wedge between the two shows which part of the second scale the first one is. */
export function timeline(e, answer) {
  const a = scale(Math.max(e.request, 0.01));
  const title = (name, ...side) => h("div.scale", h("h3", name), h("span.faint", side));
  const request = [
    title("In the request", took(e.request)),
    h("ol", e.steps.map(({ name, note, state, at, ms }) => h(`li.step.${state}`,
      h("span.what", (state === "refused" || state === "skipped") && dot(state), h("code", name), h("small", note)),
      a.lane(a.bar(state, at, ms)),
      h("span.took", took(ms))))),
    a.axis(),
  ];
  if (!e.attempts.length && !e.due) return h("div.timeline", request);
  const left = e.due === null ? 0 : Math.max(0, e.next - now()); // until the next attempt
  const end = Math.max(1, e.due ?? 0, ...e.attempts.map((t) => t.at + t.ms));
  const b = scale(end);
  const before = (i) => (i ? e.attempts[i - 1].at + e.attempts[i - 1].ms : e.accepted ? e.request : e.attempts[0]?.at ?? 0);
  const item = (t) => (Number.isInteger(t.item) ? ` · ${t.module}, item ${t.item + 1}` : "");
  return h("div.timeline", request,
    e.accepted && h("div.axis", { "aria-hidden": "true" }, s("svg", { class: "wedge", viewBox: "0 0 100 20", preserveAspectRatio: "none", width: "100%", height: 20 }, s("path", { d: `M0 0H100L${Math.min(100, Math.max(0.25, (e.request / end) * 100))} 20H0Z` }))),
    title(e.accepted ? "After the answer" : "Delivery", took(end), e.due && ", until the next attempt"),
    h("ol", e.attempts.map((t, i) => h(`li.step.${t.state}`, h("details", { open: t.state === "failed" && i === e.attempts.length - 1 },
      h("summary",
        h("span.what", icon("right"), dot(t.state), ` Attempt ${t.n}`, h("small", at(e.at + t.at), " ", h("code", t.kind), item(t))),
        b.lane(line(b.x(before(i)), b.x(t.at), 10, 10, "gap"), b.bar(t.state, t.at, t.ms)),
        h("span.took", took(t.ms))),
      answer(t)))),
    e.due && h("li.step.due",
      h("span.what", dot("waiting"), ` Attempt ${e.tried + 1}`, h("small", "is due")),
      b.lane(line(b.x(before(e.attempts.length)), "100%", 10, 10, "gap ahead"), line(b.x(e.due - left), b.x(e.due - left), 0, 20, "now")),
      h("span.took", left ? `in ${took(left)}` : "now"))),
    b.axis());
}

/** Some minutes of one webhook: a small dot for each event, and a large one for this event. */
export function dots(events, e, minutes) {
  const x = (when) => `${50 + ((when - e.at) / (minutes * MINUTE)) * 50}%`;
  return s("svg", { class: "dots", role: "img", width: "100%", height: 22, "aria-label": `${plural(events.length, "event")} within ${minutes} minutes before and after` },
    line(0, "100%", 11, 11, "rule"), events.map((o) => s("circle", { class: o.outcome, cx: x(o.at), cy: 11, r: 2.5 })), s("circle", { class: `this ${e.outcome}`, cx: "50%", cy: 11, r: 5 }));
}
