// Sign-in: a token of the admin API, kept until the tab is closed.
import { h, icon, prose } from "./dom.js";
import { api } from "./api.js";

/** `why` is "ended" if the gateway refused a token that it had accepted before, and "away" if it does not answer. */
export function show(root, why, entered) {
  const input = h("input", { type: "password", id: "token", autocomplete: "current-password", spellcheck: "false", required: true, "aria-describedby": "token-note token-wrong" });
  const wrong = h("p.wrong", { id: "token-wrong", role: "alert" });
  const go = h("button.button.primary", "Sign in");
  async function submit(event) {
    event.preventDefault();
    go.disabled = true;
    wrong.replaceChildren();
    try {
      // A header cannot carry other characters, and a pasted token often ends in a line break.
      const bearer = input.value.trim();
      if (!/^[\x21-\x7e]+$/.test(bearer)) throw new Error("A token has only visible ASCII characters and no space.");
      await api.signIn(bearer);
      entered();
    } catch (error) {
      wrong.replaceChildren(icon("s-bad"), h("bdi", error.status === 401 ? "The gateway does not accept this token." : error.message));
      input.setAttribute("aria-invalid", "true");
      input.select();
    }
    go.disabled = false;
  }
  root.replaceChildren(h("form.gate", { onsubmit: submit },
    h("div.brand", icon("mark"), "tower-webhook"), h("h1", { tabindex: "-1" }, "Inspector"),
    why === "ended" && h("p.note", { role: "status" }, "The gateway no longer accepts your token. Sign in again to go on where you were."),
    h("label", { for: "token" }, "Admin token"), input, wrong, go,
    h("p.faint", { id: "token-note" }, prose("A token of the admin API, such as `ADMIN_TOKEN`. This tab keeps it until it is closed."))));
  input.focus();
}
