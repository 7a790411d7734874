// The first page: is anything stuck, why, and what happens next by itself.

import { get } from "../lib/api.js";
import { bytes, count, latency, now, plural, span } from "../lib/format.js";
import { html, signal, useEffect, useState } from "../lib/html.js";
import { useLoad } from "../lib/load.js";
import { ready } from "../lib/ready.js";
import { link } from "../lib/route.js";
import { activity, status } from "../lib/status.js";
import { capital, general, owed, together, trouble } from "../lib/trouble.js";
import { visible } from "../lib/visible.js";
import { Buttons } from "../parts/actions.js";
import { Note, Told } from "../parts/note.js";
import { Empty, Figure, Light, Loading, Since, Spark } from "../parts/parts.js";

/** The triggers as applied, by name: what their tables and operations are. */
const applied = signal(/** @type {Map<string, any>} */ (new Map()));

async function readApplied() {
  try {
    applied.value = new Map((await get("triggers")).triggers.map((/** @type {any} */ t) => [t.name, t]));
  } catch {
    // the rows go without these words; the frame says what is wrong
  }
}

/** How many notes of triggers there are at most: more would hide the table. */
const most = 6;

export function Overview() {
  const s = status.value;
  const names = s?.triggers.map((/** @type {any} */ t) => t.name).join();
  useEffect(() => void readApplied(), [names]);
  const checks = useLoad(ready, [], 5000).data?.checks;
  if (!s) return html`<${Loading} what="the state" />`;
  const groups = together(s.triggers, s, (name) => applied.value.get(name));
  const noted = groups.slice(0, most);
  const rest = groups.slice(most).reduce((n, g) => n + g.of.length, 0);
  return html`<h1 class="hidden">Overview</h1>
    <${Strip} s=${s} />
    ${general(s, checks).map((is) => html`<${Told} key=${is.key} is=${is} title=${is.word} buttons=${html`<${Buttons} can=${is.can} />
      ${is.page && html`<a class="button" href=${link(is.page)}>See ${is.page}</a>`}`} />`)}
    ${noted.map(({ is, of }) => html`<${Note} key=${is.word + of[0].name} is=${is} of=${of} />`)}
    ${rest > 0 && html`<p class="sub">And ${plural(rest, "trigger")} more in trouble: the table says why.</p>`}
    ${s.triggers.length === 0
      ? html`<${Empty} title="There are no triggers yet">Write them into <code>rowhook.yaml</code>, and run <code>rowhook apply</code>: each change of their tables is then sent.<//>`
      : html`<${Triggers} s=${s} noted=${new Set(noted.filter((g) => g.of.length === 1).map((g) => g.of[0].name))} troubled=${new Set(groups.flatMap((g) => g.of.map((t) => t.name)))} />`}`;
}

/** @param {{s: any}} props */
function Strip({ s }) {
  const all = s.triggers.reduce((/** @type {number} */ n, /** @type {any} */ t) => n + owed(t), 0);
  const estimated = s.triggers.some((/** @type {any} */ t) => t.estimated.length > 0);
  const oldest = s.triggers.map((/** @type {any} */ t) => t.oldest_at).filter(Boolean).sort()[0];
  const alive = s.instances.filter((/** @type {any} */ i) => i.alive).length;
  const size = s.history.reduce((/** @type {number} */ n, /** @type {any} */ h) => n + h.bytes, 0);
  const limit = s.retention?.max_size;
  const holder = s.vacuum_held_back_by;
  return html`<dl class="strip">
    <${Cell} name="Owed" title="Events that wait, are in flight, or will be tried again">${estimated ? "~" : ""}${count(all)}<//>
    <${Cell} name="Oldest" title="How long the oldest of them has been owed">${oldest ? span(now.value - Date.parse(oldest)) : "–"}<//>
    <${Cell} name="Delivered">${s.rates ? perSecond(s.rates.delivered_per_s) : "–"}<small>/s</small><//>
    <${Cell} name="Failed" title="Attempts that failed">${s.rates ? perSecond(s.rates.failed_per_s) : "–"}<small>/s</small><//>
    <${Cell} name="Change to answer" title="From a row's change to the answer of its receiver, the median of the last minute">${latency(s.rates?.p50_ms)}<small>${s.rates?.p50_ms == null ? "" : " p50"}</small><//>
    <${Cell} name="Dispatchers" href=${link("dispatchers")} title=${s.doorbell.state === "silent" ? "A dispatcher is awake, so writers need not ring" : "Writers ring, and the dispatchers wake at once"}>
      ${count(alive)}<small> ${s.doorbell.state}</small><//>
    <${Cell} name="Held back by" title="What keeps vacuum from removing what is settled">${holder ? html`${holder.kind}<small> ${holder.pid ?? holder.name ?? ""}</small>` : "nothing"}<//>
    <${Cell} name="History">${bytes(size)}${limit && html`<small> of ${limit}</small>`}<//>
    <${Cell} name="Schema" title="Version of the schema rowhook; this program knows ${s.schema.program}">${s.schema.database}${s.schema.database !== s.schema.program && html`<small> of ${s.schema.program}</small>`}<//>
  </dl>`;
}

/** @param {number} n */
const perSecond = (n) => (n === 0 ? "0" : n < 10 ? Number(n.toPrecision(2)) : count(Math.round(n)));

/** @param {{name: string, title?: string, href?: string, children: any}} props */
function Cell({ name, title, href, children }) {
  return html`<div title=${title}><dt>${href ? html`<a href=${href}>${name}</a>` : name}</dt><dd>${children}</dd></div>`;
}

/** With more triggers than these, those in trouble can be shown alone. */
const many = 12;

/** @param {{s: any, noted: Set<string>, troubled: Set<string>}} props noted are told of above */
function Triggers({ s, noted, troubled }) {
  const [only, setOnly] = useState(false);
  const choice = s.triggers.length > many && (only || troubled.size > 0);
  const shown = only && choice ? s.triggers.filter((/** @type {any} */ t) => troubled.has(t.name)) : s.triggers;
  return html`${choice && html`<p class="do"><button aria-pressed=${only} onClick=${() => setOnly(!only)}>${only ? `Show all ${plural(s.triggers.length, "trigger")}` : `Only the ${count(troubled.size)} in trouble`}</button></p>`}
    ${shown.length === 0 ? html`<${Empty} title="No trigger is in trouble any more" />` : html`<table class="cards"><caption>${only && choice ? "Triggers in trouble" : "Triggers"}</caption>
    <thead><tr><th scope="col">Trigger</th><th scope="col">State</th><th scope="col" class="n">Waiting</th><th scope="col" class="n">In flight</th><th scope="col" class="n">Retrying</th>
      <th scope="col" class="n">Dead</th><th scope="col">The last hour</th><th scope="col" class="n">p50 / p95</th><th scope="col"><span class="hidden">Actions</span></th></tr></thead>
    <tbody>${shown.map((/** @type {any} */ t) => html`<${Row} key=${t.name} t=${t} s=${s} noted=${noted.has(t.name)} />`)}</tbody></table>`}`;
}

/** @param {{t: any, s: any, noted: boolean}} props */
function Row({ t, s, noted }) {
  const a = activity.value.get(t.name);
  const is = trouble(t, s, applied.value.get(t.name));
  const estimated = (/** @type {string} */ what) => t.estimated.includes(what);
  const can = [...(t.removed ? [] : t.paused ? ["resume"] : ["pause"]), ...(t.dead > 0 && !t.removed ? ["redeliver"] : [])];
  return html`<tr>
    <td><a class="name" href=${link("trigger", t.name)}>${t.name}</a><span class="sub">${visible([t.table, operations(applied.value.get(t.name))].filter(Boolean).join(" · "))}</span></td>
    <td><${Light} kind=${is.kind}>${is.word}${is.since && html` <${Since} at=${is.since} />`}<//>${is.why && !noted && html`<span class="sub">${is.why}</span>`}${is.also && !noted && html`<span class="sub">${capital(is.also)}</span>`}</td>
    <${Figure} n=${t.waiting} label="waiting" estimated=${estimated("waiting")} />
    <${Figure} n=${t.in_flight} label="in flight" estimated=${estimated("in_flight")} />
    <${Figure} n=${t.retrying} label="retrying" estimated=${estimated("retrying")} />
    <${Figure} n=${t.dead} label="dead" estimated=${estimated("dead")} href=${t.dead ? link("dead", "", { trigger: t.name }) : undefined} />
    <td>${a ? html`<${Spark} delivered=${a.delivered} failed=${a.failed} />` : html`<span class="sub">${count(t.delivered_last_hour)} delivered, ${count(t.failed_last_hour)} failed</span>`}</td>
    <td class="n" data-l="p50 / p95">${latency(t.p50_ms)} / ${latency(t.p95_ms)}</td>
    <td><span class="do end"><${Buttons} name=${t.name} can=${can} /></span></td></tr>`;
}

/** "insert, update of status · in order by row". @param {any} t a Trigger */
export function operations(t) {
  if (!t) return "";
  const on = [];
  if (t.on.insert) on.push("insert");
  if (t.on.update) on.push(t.on.update.columns ? `update of ${t.on.update.columns.join(", ")}` : "update");
  if (t.on.delete) on.push("delete");
  if (t.on.truncate) on.push("truncate");
  if (t.on.manual && on.length === 0) on.push("manual");
  const more = [];
  if (t.order) more.push(`in order by ${t.order.by.join(", ")}`);
  if (t.batch) more.push(`batches of ${t.batch.max}`);
  if (t.rate) more.push(`at most ${t.rate.limit}`);
  return [on.join(", "), ...more].join(" · ");
}

