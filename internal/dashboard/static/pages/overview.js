// The first page: is anything stuck, why, and what happens next by itself.

import { may, post } from "../lib/api.js";
import { bytes, count, latency, now, span } from "../lib/format.js";
import { html } from "../lib/html.js";
import { link } from "../lib/route.js";
import { activity, refresh, status } from "../lib/status.js";
import { ask } from "../parts/dialog.js";
import { Empty, Figure, Light, Loading, Since, Spark } from "../parts/parts.js";
import { say, sayProblem } from "../parts/say.js";

export function Overview() {
  const s = status.value;
  if (!s) return html`<${Loading} what="the state" />`;
  return html`<h1 class="skip">Overview</h1><${Strip} s=${s} />
    ${s.warnings.map((/** @type {any} */ w) => html`<section class="note w" key=${w.code + w.trigger}><strong class="s wait">${w.trigger ?? "Rowhook"}</strong>
      <span>${w.problem}</span>${w.remedy && html`<p>${w.remedy}</p>`}</section>`)}
    ${s.triggers.length === 0 && html`<${Empty} title="There are no triggers yet">Write them into rowhook.yaml and run <code>rowhook apply</code>.<//>`}
    ${s.triggers.length > 0 && html`<${Triggers} triggers=${s.triggers} />`}`;
}

/** @param {{s: any}} props */
function Strip({ s }) {
  const owed = s.triggers.reduce((/** @type {number} */ n, /** @type {any} */ t) => n + t.waiting + t.in_flight + t.retrying, 0);
  const oldest = s.triggers.map((/** @type {any} */ t) => t.oldest_at).filter(Boolean).sort()[0];
  const alive = s.instances.filter((/** @type {any} */ i) => i.alive).length;
  const history = s.history.reduce((/** @type {number} */ n, /** @type {any} */ h) => n + h.bytes, 0);
  return html`<dl class="strip">
    <div><dt>Owed</dt><dd>${count(owed)}</dd></div>
    <div><dt>Oldest</dt><dd>${oldest ? span(now.value - Date.parse(oldest)) : "–"}</dd></div>
    <div><dt>Delivered</dt><dd>${s.rates ? Number(s.rates.delivered_per_s.toFixed(1)) : "–"}<small>/s</small></dd></div>
    <div><dt>Failed</dt><dd>${s.rates ? Number(s.rates.failed_per_s.toFixed(1)) : "–"}<small>/s</small></dd></div>
    <div><dt>Dispatchers</dt><dd>${alive}<small> ${s.doorbell.state}</small></dd></div>
    <div><dt>History</dt><dd>${bytes(history)}</dd></div>
  </dl>`;
}

/** @param {{triggers: any[]}} props */
function Triggers({ triggers }) {
  return html`<table class="cards"><caption>Triggers</caption>
    <thead><tr><th>Trigger</th><th>State</th><th class="n">Waiting</th><th class="n">In flight</th><th class="n">Retrying</th><th class="n">Dead</th><th>The last hour</th><th class="n">p50 / p95</th><th></th></tr></thead>
    <tbody>${triggers.map((t) => html`<${Row} key=${t.name} t=${t} />`)}</tbody></table>`;
}

/** @param {{t: any}} props */
function Row({ t }) {
  const a = activity.value.get(t.name);
  const estimated = (/** @type {string} */ what) => t.estimated.includes(what);
  return html`<tr>
    <td><a class="name" href=${link("trigger", t.name)}>${t.name}</a><span class="sub">${t.table}</span></td>
    <td><${State} t=${t} /></td>
    <${Figure} n=${t.waiting} label="waiting" estimated=${estimated("waiting")} />
    <${Figure} n=${t.in_flight} label="in flight" estimated=${estimated("in_flight")} />
    <${Figure} n=${t.retrying} label="retrying" estimated=${estimated("retrying")} />
    <${Figure} n=${t.dead} label="dead" estimated=${estimated("dead")} />
    <td>${a && html`<${Spark} delivered=${a.delivered} failed=${a.failed} />`}</td>
    <td class="n">${latency(t.p50_ms)} / ${latency(t.p95_ms)}</td>
    <td><${Actions} t=${t} /></td></tr>`;
}

/** @param {{t: any}} props */
function State({ t }) {
  if (t.paused) {
    return html`<${Light} kind="pause">paused<//><span class="sub">${t.pause && html`by ${t.pause.by}, <${Since} at=${t.pause.at} />${t.pause.reason && `: “${t.pause.reason}”`}`}</span>`;
  }
  if (t.health) return html`<${Light} kind="bad">failing <${Since} at=${t.health.since} /><//><span class="sub">${t.health.reason}</span>`;
  if (t.failing) return html`<${Light} kind="bad">failing<//><span class="sub">${t.last_error}</span>`;
  return html`<${Light} kind="ok">delivers<//>`;
}

/** @param {{t: any}} props */
function Actions({ t }) {
  if (t.paused) return may("resume") && html`<button onClick=${() => resume(t.name)}>Resume</button>`;
  return may("pause") && html`<button onClick=${() => pause(t.name)}>Pause…</button>`;
}

/** @param {string} name */
async function pause(name) {
  const answer = await ask({
    title: `Pause ${name}?`, yes: "Pause", body: "Its events wait and lose nothing. What is in flight is finished.",
    fields: [{ name: "reason", label: "Reason", hint: "Others see it beside your name." }],
  });
  if (!answer) return;
  try {
    await post("pause", { triggers: [name], reason: answer.reason });
    say(`${name} is paused`);
    await refresh();
  } catch (e) {
    sayProblem(e);
  }
}

/** @param {string} name */
async function resume(name) {
  try {
    await post("resume", { triggers: [name] });
    say(`${name} delivers again`);
    await refresh();
  } catch (e) {
    sayProblem(e);
  }
}
