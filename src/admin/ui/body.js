// A body as it was sent. JSON is laid out by its tokens and never parsed: numbers of 64 bits, the order of keys and
// repeated keys stay.
import { button, copy, h, icon, say, sent } from "./dom.js";
import { count, plural, size } from "./format.js";

const TOKEN = /"(?:\\[^]|[^"\\])*"?|[{}[\]:,]|[^\s{}[\]:,"]+/g;
const REDACTED = "***REDACTED***";
const LINES = 5000; // shown at first: a body can have many more
const DEEP = 64; // deeper values have no pointer: with one, each line could be as long as the body

/** JSON as lines: the depth, the parts, and the pointer (RFC 6901) of the value that begins on the line. */
function json(text) {
  const lines = [];
  const path = []; // to the open value: a number in an array, a key in an object
  let line = null, before = "";
  const put = (kind, value) => {
    if (!line) lines.push((line = { depth: path.length, parts: [], pointer: path.length > DEEP ? "" : path.map((step) => `/${step}`).join("") }));
    line.parts.push([kind, value]);
  };
  const tokens = text.match(TOKEN) ?? [];
  tokens.forEach((token, i) => {
    const inObject = typeof path.at(-1) === "string";
    if (token === "{" || token === "[") {
      put("mute", token);
      if (!"}]".includes(tokens[i + 1])) { path.push(token === "[" ? 0 : ""); line = null; }
    } else if (token === "}" || token === "]") {
      if (!"{[".includes(before)) { path.pop(); line = null; }
      put("mute", token);
    } else if (token === ",") {
      put("mute", token);
      if (!inObject) path[path.length - 1]++;
      line = null;
    } else if (token === ":") {
      put("mute", ": ");
    } else if (inObject && "{,".includes(before)) {
      path[path.length - 1] = token.slice(1, -1).replaceAll("~", "~0").replaceAll("/", "~1");
      put("key", token);
    } else {
      put(token === `"${REDACTED}"` ? "redacted" : token[0] === '"' ? "string" : "value", token);
    }
    before = token;
  });
  return lines;
}

const plain = (...parts) => ({ depth: 0, pointer: "", parts });
/** A form: one decoded field on each line. */
const form = (text) => text.split("&").map((field) => {
  const [name, value] = [...new URLSearchParams(field)][0] ?? [field, ""];
  return plain(["key", name], ["mute", " = "], [value === REDACTED ? "redacted" : "string", value]);
});
/** Bytes, sixteen on each line, with their ASCII characters. */
const dump = (digits) => (digits.match(/.{1,32}/g) ?? []).map((row, i) => {
  const bytes = row.match(/../g);
  const ascii = bytes.map((b) => (b >= "20" && b < "7f" ? String.fromCharCode(parseInt(b, 16)) : "·")).join("");
  return plain(["mute", `${(i * 16).toString(16).padStart(6, "0")}  `], ["string", bytes.join(" ").padEnd(49)], ["mute", ascii]);
});

export function bodyView(e, ...actions) {
  const { text, bytes, type, cut, long, kept } = e.body;
  const lines = bytes !== undefined ? dump(bytes) : /json/i.test(type) ? json(text) : /x-www-form/i.test(type) ? form(text) : text ? text.split("\n").map((row) => plain(["string", row])) : [];
  const draw = ({ depth, parts }) => h(`div.line.d${Math.min(depth, 8)}`, parts.map(([kind, value]) => h(`span.${kind}`, sent(value))));
  const rows = lines.slice(0, LINES).map(draw);
  const where = h("output.where");

  // The current line, and its pointer in the form that a webhook's `dedup` takes.
  let current = -1;
  const go = (i) => {
    rows[current]?.classList.remove("current");
    current = Math.min(rows.length - 1, Math.max(0, i));
    if (!rows.length) return;
    rows[current].classList.add("current");
    rows[current].scrollIntoView({ block: "nearest" });
    const { pointer } = lines[current];
    where.replaceChildren(...(pointer ? [h("code", sent(pointer)), button("quiet", { onclick: () => copy(pointer, "the pointer"), "aria-label": "Copy the pointer" }, icon("copy"))] : []));
  };
  const code = h("div.code", {
    tabindex: 0, role: "group", "aria-label": "Body", dir: "ltr",
    onclick: (event) => { const i = rows.indexOf(event.target.closest(".line")); if (i >= 0) go(i); },
    onkeydown: (event) => {
      const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
      if (step) { event.preventDefault(); go(current + step); }
    },
  }, rows);

  // The browser's highlights mark what is found, so that no text node is split.
  let hits = [], hit = -1;
  const found = h("span.found", { role: "status" });
  const seek = (step) => {
    if (hits.length) {
      hit = (hit + step + hits.length) % hits.length;
      go(hits[hit][1]);
      found.textContent = `${count(hit + 1)} of ${count(hits.length)}`;
    }
    CSS.highlights?.set("found", new Highlight(...hits.map(([range]) => range)));
    CSS.highlights?.set("found-now", new Highlight(...hits.slice(hit, hit + 1).map(([range]) => range)));
  };
  const look = (q) => {
    hits = []; hit = -1;
    rows.forEach((row, i) => {
      const texts = document.createTreeWalker(row, NodeFilter.SHOW_TEXT);
      while (q && texts.nextNode()) {
        const node = texts.currentNode, lower = node.data.toLowerCase(), low = lower.length === node.data.length ? lower : node.data;
        for (let p = low.indexOf(q); p >= 0; p = low.indexOf(q, p + q.length)) {
          const range = new Range();
          range.setStart(node, p); range.setEnd(node, p + q.length);
          hits.push([range, i]);
        }
      }
    });
    found.textContent = q ? "none" : "";
    seek(1);
  };
  const input = h("input", {
    type: "search", placeholder: "Search the body", "aria-label": "Search the body", "data-key": "/", autocomplete: "off", spellcheck: "false",
    oninput: () => look(input.value.toLowerCase()), onkeydown: (event) => { if (event.key === "Enter") seek(event.shiftKey ? -1 : 1); },
  });
  const notes = [
    cut && `The body has ${size(e.size)}; the history keeps the first ${size(kept)}.`,
    long && "The page shows the beginning of what is kept.",
    !e.exact && !cut && "Secrets were removed from the body.",
    bytes !== undefined && bytes && "This body is not UTF-8, so the page shows its bytes. The target gets them unchanged.",
    !lines.length && "The body is empty."].filter(Boolean);
  const rest = lines.length > LINES && button("quiet", { onclick: () => {
    const more = lines.slice(LINES).map(draw);
    rows.push(...more);
    code.append(...more);
    rest.remove();
  } }, `Show all ${count(lines.length)} lines`);
  return h("div.body",
    h("div.strip", h("label.find", icon("search"), input, found), button("quiet", { onclick: () => copy(bytes ?? text, "the body") }, icon("copy"), "Copy"), actions),
    notes.length > 0 && h("p.note", notes.join(" ")), code,
    h("div.foot", h("span.faint", h("bdi", sent(type)), ` · ${size(e.size)} · ${plural(lines.length, "line")}`), rest, where));
}

// In a terminal, a control character could end the pasted text and begin a command.
const CONTROL = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/;
/** Copies the request for a shell. A removed secret becomes a variable. */
export function copyCurl(e) {
  const quote = (text) => `'${text.replaceAll("'", `'\\''`)}'`;
  const fields = e.head.filter(([name, value]) => /^(content-type|authorization|x-[a-z0-9-]*|[a-z0-9-]*signature[a-z0-9-]*)$/.test(name) && name !== "x-forwarded-for" && !CONTROL.test(value))
    .map(([name, value]) => (value === REDACTED ? `-H "${name}: $${name.toUpperCase().replaceAll("-", "_")}"` : `-H ${quote(`${name}: ${value}`)}`));
  const host = e.head.find(([name]) => name === "host")?.[1], path = e.path ?? `/webhook/${e.key}`;
  const asFile = !e.body || e.body.bytes !== undefined || e.body.cut || CONTROL.test(e.body.text);
  copy([`curl -X ${e.method ?? "POST"} ${quote(host && !CONTROL.test(host) ? `https://${host}${path}` : `https://HOST${path}`)}`, ...fields, `--data-binary ${asFile ? "@body.bin" : quote(e.body.text)}`].join(" \\\n  "), "the request as curl");
  if (fields.some((field) => /signature/.test(field))) say("A signature may have a time in it: the copied one is as old as the request.");
}
