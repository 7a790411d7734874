// A note: what is wrong, since when and why, what happens next by itself, and buttons.

import { may } from "../lib/api.js";
import { html } from "../lib/html.js";
import { link } from "../lib/route.js";
import { capital, verb } from "../lib/trouble.js";
import { Buttons } from "./actions.js";
import { Since } from "./parts.js";

/** How many triggers a note names. */
const named = 6;

/** What is wrong with these triggers. @param {{is: import("../lib/trouble.js").Trouble, of: any[]}} props */
export function Note({ is, of }) {
  const names = of.map((t) => t.name);
  const [one] = names;
  const title = of.length === 1
    ? html`<a href=${link("trigger", one)}>${one}</a> ${verb(is.word)}`
    : html`${of.length} triggers: ${is.word}`;
  return html`<${Told} is=${is} title=${title} buttons=${html`<${Buttons} names=${names} can=${is.can} />
      ${is.can.includes("dead") && may("events") && html`<a class="button" href=${link("dead", "", of.length === 1 ? { trigger: one } : {})}>Show the dead letters</a>`}`}>
    ${of.length > 1 && html`<p>${names.slice(0, named).map((n, i) => html`${i > 0 && ", "}<a class="link" href=${link("trigger", n)}>${n}</a>`)}${names.length > named && `, and ${names.length - named} more in the table`}</p>`}<//>`;
}

/**
 * A note with this title.
 *
 * @param {{is: import("../lib/trouble.js").Trouble, title: any, buttons?: any, children?: any}} props
 */
export function Told({ is, title, buttons, children }) {
  return html`<section class=${is.kind === "ok" ? "note fine" : is.kind === "bad" ? "note" : "note w"} role="status"><strong class="s ${is.kind}">${title}</strong>
    <span>${is.why}${is.since && html`${is.why ? ", " : ""}<${Since} at=${is.since} />`}</span>
    <span class="do">${buttons}</span>
    ${is.hint && html`<p>${is.hint}.</p>`}${children}
    ${is.also && html`<p>${capital(is.also)}.</p>`}
    ${is.next && html`<p>${capital(is.next)}.</p>`}</section>`;
}
