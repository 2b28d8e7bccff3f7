// Numbers, sizes, durations and times: one format for each.
import { h } from "./dom.js";
import { now } from "./api.js";

const whole = new Intl.NumberFormat("en-US");
const short = new Intl.NumberFormat("en-US", { notation: "compact", maximumFractionDigits: 1 });

/** 1,204: exact, wherever an action uses the number. */
export const count = (n) => whole.format(n);
/** 1,204, 12.4K, 1M: where room is short. The title has the exact number. */
export const brief = (n) => h("span.n", { title: count(n) }, n < 10_000 ? count(n) : short.format(n));
export const plural = (n, one) => `${count(n)} ${one}${n === 1 ? "" : "s"}`;

const two = (x) => (x < 9.95 ? x.toFixed(1).replace(".0", "") : String(Math.round(x)));
const pair = (big, one, small, other) => `${big} ${one}${small ? ` ${small} ${other}` : ""}`;
/** 64 µs, 6.4 ms, 412 ms, 30 s, 2 min 14 s, 3 h 5 min, 6 days. */
export function took(ms) {
  const s = ms / 1000;
  if (ms < 0.095) return `${Math.round(ms * 1000)} µs`;
  if (ms < 999.5) return `${ms < 0.995 ? ms.toFixed(2) : two(ms)} ms`;
  if (s < 59.5) return `${two(s)} s`;
  if (s < 3600) return pair(Math.floor(s / 60), "min", Math.floor(s % 60), "s");
  if (s < 86_400) return pair(Math.floor(s / 3600), "h", Math.floor((s % 3600) / 60), "min");
  return s < 172_800 ? "1 day" : `${Math.floor(s / 86_400)} days`;
}
/** The largest unit only: 12 s, 6 min, 3 h, 2 days. */
export const rough = (ms) => took(ms < 60_000 ? ms - (ms % 1000) : ms).split(" ").slice(0, 2).join(" ");

/** 96 B, 4.2 KiB, 25 MiB. */
export function size(bytes) {
  const units = ["B", "KiB", "MiB", "GiB"];
  while (bytes >= 1023.5 && units.length > 1) { bytes /= 1024; units.shift(); }
  return `${two(bytes)} ${units[0]}`;
}

/** 12 %, 0.3 %. A share above 0 never reads 0 %. */
export const share = (x) => (x && x < 0.001 ? "< 0.1 %" : `${two(x * 100)} %`);

const time = (options) => new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", ...options });
const CLOCKS = { d: time({ day: "numeric", month: "short" }), m: time({}), s: time({ second: "2-digit" }), ms: time({ second: "2-digit", fractionalSecondDigits: 3 }) };
const full = new Intl.DateTimeFormat("en-GB", { dateStyle: "full", timeStyle: "long" });
/** A time by the clock: to the minute, second or millisecond; `d` has the day too. */
export const clock = (at, digits = "s") => CLOCKS[digits].format(at);

const aged = (at) => { const ms = now() - at; return ms < 1000 ? "now" : `${rough(ms)} ago`; };
const moment = (at, text, more) => {
  const iso = new Date(at).toISOString();
  return h("time", { datetime: iso, title: `${full.format(at)}\n${iso}\n${aged(at)}`, ...more }, text);
};
/** A time by the clock, for lists: an operator looks for 10:42. The title has date, UTC and age. */
export const at = (when, digits = "s") => moment(when, clock(when, digits));
/** A time by its age, kept up to date, for summaries. */
export const ago = (when) => (when ? moment(when, aged(when), { "data-ago": when }) : h("span.faint", "never"));

setInterval(() => {
  for (const element of document.querySelectorAll("[data-ago]")) {
    const text = aged(Number(element.dataset.ago));
    if (element.textContent !== text) element.textContent = text;
  }
}, 1000);
