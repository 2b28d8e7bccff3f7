// Elements without markup: h() and s() make every element, and a string becomes a text node. No file of the inspector
// parses markup, and the policy in index.html (Trusted Types) would refuse it.

function make(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(9).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** h("p.note", {id: "x"}, "text", element): an element. The attributes may be left out. */
export function h(spec, ...rest) {
  const [tag, ...classes] = spec.split(".");
  const element = document.createElement(tag);
  if (classes.length) element.className = classes.join(" ");
  const attributes = rest[0]?.constructor === Object ? rest.shift() : {};
  return make(element, attributes, rest);
}

/** The same for SVG. Lengths are attributes (x, width), so that no style is inline. */
export const s = (tag, attributes, ...children) =>
  make(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

/** A drawing of the sprite. Without a label it is decoration. */
export const icon = (name, label) =>
  s("svg", { class: `icon i-${name}`, viewBox: "0 0 16 16", role: label && "img", "aria-label": label, "aria-hidden": !label && "true" },
    s("use", { href: `sprite.svg#${name}` }));

/** A button that does not submit. */
export const button = (spec, attributes, ...children) => h(`button.${spec}`, { type: "button", ...attributes }, ...children);

/** Text for screen readers alone. */
export const hidden = (...children) => h("span.hidden", ...children);

// Control characters, bidirectional ones, and ones without width: they could reorder or hide the text beside them.
const UNSEEN = /([\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff])/;

const spell = (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`;
/** Text from a sender: unseen characters are spelled out. Put it into a <bdi>, or into a block of its own. */
export const sent = (text) => text.split(UNSEEN).filter(Boolean).map((part) => (UNSEEN.test(part) ? h("span.unseen", spell(part)) : part));
/** The same for an attribute. */
export const spelled = (text) => text.split(UNSEEN).map((part) => (UNSEEN.test(part) ? spell(part) : part)).join("");

/** A message of the gateway, with `code` in backquotes. It may quote a sender or a target. */
export const prose = (text) => text.split("`").map((part, i) => h(i % 2 ? "code" : "bdi", sent(part)));

/** A screen reader reads the text aloud. */
export const say = (text) => { document.getElementById("say").textContent = text; };

let shown;
/** Shows a line at the bottom for six seconds. */
export function toast(...children) {
  const box = document.getElementById("toast");
  clearTimeout(shown);
  box.replaceChildren(h("p", ...children));
  shown = setTimeout(() => box.replaceChildren(), 6000);
}

// Without HTTPS, and elsewhere than on localhost, there is no clipboard.
export const copy = (text, what) => (navigator.clipboard?.writeText(text) ?? Promise.reject()).then(
  () => toast(`Copied ${what}.`),
  () => toast(`The browser does not allow the page to copy ${what}. Select the text instead.`));
