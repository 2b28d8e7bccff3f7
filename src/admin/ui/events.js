// Events: find one. Search, outcomes, reasons, and the last hour as a chart; the address has all of it.
import { button, h } from "./dom.js";
import { api } from "./api.js";
import { histogram } from "./charts.js";
import { ago, count, plural } from "./format.js";
import { blank, eventFinder, eventRow, eventTable, filtered, head, load, none, tbody } from "./parts.js";

export function show(root, ctx) {
  const bar = eventFinder(ctx, "Search ids, errors, addresses, bodies");
  const chart = histogram((time) => ctx.set(time));
  const kept = h("span.told");
  const list = h("div.list");
  root.replaceChildren(head("Events", h("span.grow"), kept), bar.element, chart.figure, list);
  let found, turn = 0;

  /** The counts come later than the rows: counting takes longer. */
  async function sum(f, then) {
    const mine = (turn += 1);
    const answer = await api.summary(f).catch(() => undefined);
    if (mine !== turn) return;
    bar.update(f, (found = answer));
    chart.figure.hidden = !answer?.buckets.length;
    if (answer) chart.update(answer.buckets, f);
    const history = api.system()?.history;
    kept.replaceChildren(...(Number.isFinite(history?.events) ? [`${plural(history.events, "event")} kept`, ...(history.oldest ? [", the oldest of ", ago(history.oldest)] : [])] : []));
    then();
  }
  function draw(f, page) {
    let tell = () => {};
    sum(f, () => tell());
    if (!page.events.length) {
      return filtered(f) ? none(ctx, "No event that is kept passes all the filters.")
        : blank("events", "No event yet", "Each request that reaches a webhook is kept here, whether it was let in or refused.");
    }
    const body = tbody(page.events.map(eventRow));
    const more = h("div.more");
    let { next } = page;
    tell = () => {
      const total = found && `${count(body.childElementCount)} of ${found.atLeast ? "at least " : ""}${plural(found.total, "event")}`;
      more.replaceChildren(h("span.faint", total ?? plural(body.childElementCount, "event")), next ? button("button", { onclick: older }, "Show older") : "");
    };
    async function older() {
      const page = await api.events(f, next).catch(() => null);
      if (!page) return;
      const rows = page.events.map(eventRow);
      body.append(...rows);
      next = page.next;
      tell();
      rows[0]?.querySelector("a").focus();
    }
    tell();
    return [eventTable("Events, newest first", body), more];
  }
  return { update(f) { bar.update(f, found); load(list, () => api.events(f), (page) => draw(f, page)); }, leave() {} };
}
