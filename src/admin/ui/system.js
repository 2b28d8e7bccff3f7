// System: whether the configuration is that of the source, whether events are held up, and whether there is room.
import { h, prose } from "./dom.js";
import { api, now } from "./api.js";
import { meter } from "./charts.js";
import { ago, count, share, size, took } from "./format.js";
import { facts, head, hookName, load, mark, section } from "./parts.js";

const SOURCE = { healthy: ["delivered", "Configuration up to date", "s-ok"], stale: ["waiting", "Stale", "s-wait"], starting: ["waiting", "Starting", "s-wait"], disconnected: ["failed", "Disconnected", "s-bad"] };
export const sourceMark = ({ state }) => mark(SOURCE[state]?.[0] ?? "skipped", SOURCE[state]?.slice(1) ?? [state, "s-skip"]);

/** A name and a number; nothing if the token may not see the number. */
const number = (name, n, draw = count) => Number.isFinite(n) && [name, draw(n)];
/** A number that should be 0. */
const zero = (n, text = "") => h("span", { class: n ? "hot" : "faint" }, count(n), text);
/** A key of the configuration, such as shop/webhooks/orders: a link to the webhook, or the name of a connection. */
function keyed(key) {
  const [, namespace, id] = /^([^/]+)\/webhooks\/([^/]+)$/.exec(key) ?? [];
  return id ? h("a", { href: `#/webhooks?q=${namespace}/${id}` }, hookName(`${namespace}/${id}`)) : h("code", key);
}
const usage = (name, used, of) => Number.isFinite(used) && [h("h3", name), h("p", h("b", size(used)), of ? h("span.faint", ` of ${size(of)}, ${share(used / of)}`) : null), of && meter(`${name}: ${size(used)} of ${size(of)}`, [["skipped", used]], of)];
const lists = (counts) => Object.entries(counts ?? {}).filter(([, n]) => n).map(([reason, n]) => `${count(n)} ${reason}`).join(", ");

function draw({ source, queue, history, config, refused, warnings, process }) {
  const faults = (name, list, more) => list.length > 0 && section(name, null, h("ul.plain", list.map((o) => h("li", h("p", keyed(o.key), h("span.faint", more(o))), h("p", prose(o.reason))))));
  return [
    h("div.grid",
      section("Source", sourceMark(source), facts(
        ["Revision", count(source.revision)], source.stale !== null && ["Staleness", h("span", { class: source.stale > 30_000 ? "hot" : "" }, took(source.stale))],
        ["In this state", took(now() - source.since)], ["Kind", [source.source, source.server_version].filter(Boolean).join(" ")], source.endpoint && ["Endpoint", source.endpoint], lists(source.lists) && ["Whole reads", lists(source.lists)]),
      source.state === "disconnected" && h("p.note", source.reason && [prose(source.reason), ". "], "The gateway serves the last configuration, and follows changes again as soon as the source answers."),
      source.error && h("p.note", "The last error: ", h("code", source.error.kind), " ", prose(source.error.reason ?? ""), h("span.faint", ", ", ago(source.error.at)))),
      section("Queue", queue && h("a", { href: "#/dead?view=waiting" }, "Show the events that wait"), queue ? [
        Number.isFinite(queue.waiting) && h("div.pair", h("p.big", count(queue.waiting), h("span", queue.waiting === 1 ? "event waits" : "events wait")), queue.oldest > 0 && h("p.big", took(queue.oldest), h("span", "age of the oldest"))),
        queue.is_failing && h("p.note.refused", h("div", "The storage of the queue fails: accepted events are refused until it works again.")),
        facts(number("Under way", queue.under_way), number("Dead letters", queue.dead_letters, (n) => h("a", { href: "#/dead" }, count(n))))] : h("p.note", prose("There is no queue of accepted events. Set `SPOOL_DIR` to have one."))),
      section("Disk", null, queue && usage("Queue", queue.bytes, queue.max_bytes), history ? [usage("History", history.bytes, history.max_bytes),
        history.is_failing && h("p.note.refused", h("div", "The storage of the history fails: events are delivered, and not recorded.")),
        facts(number("Events kept", history.events), history.oldest && ["The oldest is of", ago(history.oldest)], number("Left out", history.dropped, (n) => zero(n, n ? ", the buffer was full" : "")), number("Bodies left out", history.dropped_bodies, zero))] : h("p.note", prose("There is no history of events. Set `HISTORY_DIR` to keep one."))),
      section("Configuration", h("a", { href: "#/webhooks" }, "Webhooks"),
        facts(number("Webhooks", config.webhooks), number("Namespaces", config.namespaces), number("Connections", config.connections), number("Keys ignored", config.ignored_keys), number("Open to everyone", config.open_webhooks, zero), number("Without a valid value", config.fenced_webhooks, zero), ["Values refused", zero(refused.length)]))),
    faults("Refused values", refused, (o) => ` revision ${count(o.revision)}, ${o.serving_last_good ? "the last good value is served" : "the webhook answers 503"}`),
    faults("Warnings", warnings, () => ""),
    section("Gateway", null, facts(["tower-webhook", process.version], process.started && ["Running for", took(now() - process.started)], ["Features", process.features.join(", ")])),
  ].filter(Boolean);
}

export function show(root) {
  const box = h("div.system");
  root.replaceChildren(head("System"), box);
  const update = () => load(box, api.status, draw);
  const timer = setInterval(() => { if (!document.hidden && !box.contains(document.activeElement)) update(); }, 5000);
  return { update, leave() { clearInterval(timer); } };
}
