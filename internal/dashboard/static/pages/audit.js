// Who did what, latest first.

import { get } from "../lib/api.js";
import { html, useState } from "../lib/html.js";
import { stringify } from "../lib/json.js";
import { useLoad } from "../lib/load.js";
import { link, route } from "../lib/route.js";
import { visible } from "../lib/visible.js";
import { Empty, Failed, Loading, When } from "../parts/parts.js";

export function Audit() {
  const trigger = route.value.query.get("trigger") ?? "";
  const [cursors, setCursors] = useState(/** @type {number[]} */ ([]));
  const cursor = cursors[cursors.length - 1];
  const { data, problem, again } = useLoad((abort) => get("audit", { trigger, cursor, limit: 50 }, abort), [trigger, cursor], cursor ? 0 : 5000);
  if (problem && !data) return html`<${Failed} problem=${problem} again=${again} />`;
  if (!data) return html`<${Loading} what="the audit" />`;
  return html`<h1>Audit${trigger && html` of ${visible(trigger)}`}</h1>
    ${trigger && html`<p><a class="button" href=${link("audit")}>Show all triggers</a></p>`}
    ${data.entries.length === 0
      ? html`<${Empty} title="Nothing was done yet">Pauses, redeliveries, discards, backfills, replays, applies and migrations are kept here for 90 days, with who did them.<//>`
      : html`<table class="cards"><caption class="hidden">Who did what, latest first</caption>
        <thead><tr><th scope="col">When</th><th scope="col">Who</th><th scope="col">What</th><th scope="col">To</th><th scope="col">How</th></tr></thead>
        <tbody>${data.entries.map((/** @type {any} */ e) => html`<tr key=${e.id}><td><${When} at=${e.at} /></td><td>${visible(e.who)}<span class="sub">${visible([e.client, `role ${e.role}`].filter(Boolean).join(", "))}</span></td>
          <td class="name">${e.action}</td><td>${e.target.length ? e.target.map((/** @type {string} */ t, /** @type {number} */ i) => html`${i > 0 && ", "}<a href=${link("trigger", t)}>${t}</a>`) : "the whole installation"}</td>
          <td><${Detail} detail=${e.detail} /></td></tr>`)}</tbody></table>`}
    <p class="do">${cursors.length > 0 && html`<button onClick=${() => setCursors([])}>Latest</button>`}${data.next && html`<button onClick=${() => setCursors([...cursors, data.next])}>Older</button>`}</p>`;
}

/** Arguments and result, as words where they are few. @param {{detail: any}} props */
function Detail({ detail }) {
  if (detail === null || typeof detail !== "object") return html`<span class="mono">${visible(String(detail ?? ""))}</span>`;
  return html`<dl class="detail">${Object.entries(detail).map(([name, value]) => html`<div key=${name}><dt>${visible(name)}</dt><dd><${Value} value=${value} /></dd></div>`)}</dl>`;
}

/** A list has a line for each entry, and a long one is folded. @param {{value: any}} props */
function Value({ value }) {
  if (!Array.isArray(value)) return html`<span class="mono">${visible(typeof value === "string" ? value : stringify(value, 0))}</span>`;
  const list = (/** @type {any[]} */ entries) => html`<ul class="mono">${entries.map((v, i) => html`<li key=${i}>${visible(typeof v === "string" ? v : stringify(v, 0))}</li>`)}</ul>`;
  if (value.length <= 5) return list(value);
  return html`${list(value.slice(0, 3))}<details><summary>${value.length - 3} more</summary>${list(value.slice(3))}</details>`;
}
