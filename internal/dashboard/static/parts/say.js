// What the page tells: to the eye in a corner, to a screen reader politely.

import { html, signal } from "../lib/html.js";

/** @type {import("../vendor/signals-core.js").Signal<{id: number, text: string, bad: boolean}[]>} */
const notices = signal([]);
let next = 1;

/**
 * Tells something that has happened, for six seconds; what went wrong stays until it is closed.
 *
 * @param {string} text
 * @param {{bad?: boolean}} [options]
 */
export function say(text, { bad = false } = {}) {
  const id = next++;
  notices.value = [...notices.value.slice(-3), { id, text, bad }];
  if (!bad) setTimeout(() => forget(id), 6000);
}

/** Tells why something failed. @param {unknown} e */
export function sayProblem(e) {
  const p = /** @type {any} */ (e);
  say([p?.detail ?? p?.message ?? String(e), p?.remedy].filter(Boolean).join(": "), { bad: true });
}

/** @param {number} id */
const forget = (id) => (notices.value = notices.value.filter((n) => n.id !== id));

export function Notices() {
  return html`<div class="notices" role="status" aria-live="polite">
    ${notices.value.map((n) => html`<p key=${n.id} class=${n.bad ? "notice bad" : "notice"}>
      <span>${n.text}</span><button class="quiet" aria-label="Close this notice" onClick=${() => forget(n.id)}>×</button></p>`)}
  </div>`;
}
