// Values as they are stored: with all their digits, and long ones folded.

import { bytes } from "../lib/format.js";
import { html, useMemo, useState } from "../lib/html.js";
import { beginning, columns, firstPart, nextPart, text, tokens } from "../lib/jsontext.js";
import { visible, visibleLines } from "../lib/visible.js";

/** More text than this is not coloured: each part is an element. */
const mostColoured = 20_000;

/**
 * A text whose beginning is shown, and more of it on demand.
 *
 * @param {{all: string, what: string, coloured?: boolean}} props
 */
function Folded({ all, what, coloured = false }) {
  const [most, setMost] = useState(firstPart);
  const { shown, left } = useMemo(() => beginning(all, most), [all, most]);
  const parts = useMemo(() => (coloured && shown.length <= mostColoured ? tokens(shown).map(([kind, part]) => (kind ? html`<span class="j${kind}">${part}</span>` : part)) : shown), [shown, coloured]);
  return html`<pre class="value" tabindex="0" aria-label=${what}>${parts}${left > 0 && "…"}</pre>
    ${(left > 0 || most > firstPart) && html`<p class="do fold">${left > 0 && html`<button onClick=${() => setMost(most + nextPart)}>Show ${left > nextPart ? "more" : "all"} of ${what} (${bytes(left)} left)</button>`}
      ${most > firstPart && html`<button onClick=${() => setMost(firstPart)}>Fold</button>`}</p>`}`;
}

/** JSON. @param {{value: any, what: string}} props */
export function Json({ value, what }) {
  const all = useMemo(() => text(value), [value]);
  return html`<${Folded} all=${all} what=${what} coloured />`;
}

/** A foreign text of any length, such as a response. @param {{value: string, what: string}} props */
export function Text({ value, what }) {
  const all = useMemo(() => visibleLines(value), [value]);
  return html`<${Folded} all=${all} what=${what} />`;
}

/** @type {Record<string, string>} */
const changes = { changed: "changed", new: "only new", gone: "only old" };

/**
 * The old and the new row, side by side. What changed is marked, in words too.
 *
 * @param {{before: any, after: any}} props Maps, or null where there was no row
 */
export function Rows({ before, after }) {
  const all = useMemo(() => columns(before, after), [before, after]);
  const [only, setOnly] = useState(false);
  if (!all) {
    return html`${before !== null && html`<h3>Old</h3><${Json} value=${before} what="old" />`}${after !== null && html`<h3>New</h3><${Json} value=${after} what="new" />`}
      ${before === null && after === null && html`<p class="sub">It has neither an old nor a new value.</p>`}`;
  }
  const changed = all.filter((c) => c.change);
  const shown = only ? changed : all;
  const both = before !== null && after !== null;
  const cell = (/** @type {any} */ v, /** @type {string} */ what) => (v === undefined ? html`<span class="z">not in it</span>` : html`<${Json} value=${v} what=${what} />`);
  return html`${both && html`<p class="do"><span class="sub">${changed.length ? `${changed.length} of ${all.length} columns changed` : "No column changed"}</span>
      ${changed.length > 0 && changed.length < all.length && html`<button class="quiet" aria-pressed=${only} onClick=${() => setOnly(!only)}>${only ? "Show all columns" : "Show only these"}</button>`}</p>`}
    <table class="cards rows ${both ? "both" : ""}"><caption class="hidden">The row's values</caption>
      <thead><tr><th>Column</th>${before !== null && html`<th>Old</th>`}${after !== null && html`<th>New</th>`}</tr></thead>
      <tbody>${shown.map((c) => html`<tr key=${c.name} class=${c.change ? "changed" : undefined}>
        <td><span class="name">${visible(c.name)}</span>${c.change && html`<span class="sub"><span class="delta" aria-hidden="true">≠ </span>${changes[c.change]}</span>`}</td>
        ${before !== null && html`<td data-l="old">${cell(c.old, `the old ${visible(c.name)}`)}</td>`}
        ${after !== null && html`<td data-l="new">${cell(c.new, `the new ${visible(c.name)}`)}</td>`}</tr>`)}</tbody></table>`;
}
