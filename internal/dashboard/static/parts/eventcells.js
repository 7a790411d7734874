// What lists and pages of events show in the same words.

import { clock, now } from "../lib/format.js";
import { html } from "../lib/html.js";
import { link } from "../lib/route.js";
import { visible } from "../lib/visible.js";
import { Light, When } from "./parts.js";

/** 14:02:03.123, or with the date if it was another day. @param {string} time */
export function moment(time) {
  const d = new Date(time);
  return `${clock(time)}:${String(d.getSeconds()).padStart(2, "0")}.${String(d.getMilliseconds()).padStart(3, "0")}`;
}

/** Events that end nowhere else: nothing happens to them by itself any more. @param {{state: string}} e */
export const settled = (e) => e.state === "delivered" || e.state === "dead";

/** A text cut to a length that a cell holds. @param {string} text @param {number} [most] */
export const cut = (text, most = 120) => (text.length > most ? `${text.slice(0, most)}…` : text);

/** @type {Record<string, string>} */
const waits = { endpoint: "its endpoint fails", answer: "waits for the answer", dead_letter: "a dead letter holds its key", transaction: "an open transaction holds it" };

/** What comes next, or why not, in a few words. @param {{e: any}} props */
export function Outlook({ e }) {
  const due = e.due_at && Date.parse(e.due_at) > now.value;
  if (e.waits_for) return html`<span class="sub">${waits[e.waits_for] ?? e.waits_for}</span>`;
  if (due) return html`<span class="sub">next <${When} at=${e.due_at} /></span>`;
  if (e.state === "dead" && e.blocks) return html`<span class="sub">holds its key</span>`;
  if (e.merged_into) return html`<span class="sub">${e.unsent ? "came and went unsent" : "a later one was sent"}</span>`;
  return null;
}

/** A status or a kind of failure. @param {{status?: number | null, kind?: string, also?: any}} props */
export function Answer({ status, kind, also }) {
  if (!status && !kind) return also ?? html`<span class="z">–</span>`;
  const fine = status && status < 300 && !kind;
  return html`<${Light} kind=${fine ? "ok" : "bad"}>${[status, kind && kind.replaceAll("_", " ")].filter(Boolean).join(" ")}<//>`;
}

/** @param {{id: string, children?: any}} props */
export function EventLink({ id, children }) {
  return html`<a class=${children ? undefined : "mono"} href=${link("event", id)}>${children ?? visible(id)}</a>`;
}
