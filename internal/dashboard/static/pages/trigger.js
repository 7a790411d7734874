// One trigger: the hour's rate, latency and outcomes, the health of its endpoint, its configuration,
// and what can be done.

import { get, may } from "../lib/api.js";
import { count, latency, plural } from "../lib/format.js";
import { html, useState } from "../lib/html.js";
import { useLoad } from "../lib/load.js";
import { link, route } from "../lib/route.js";
import { activity, status } from "../lib/status.js";
import { owed, trouble } from "../lib/trouble.js";
import { visible, visibleLines } from "../lib/visible.js";
import { Buttons } from "../parts/actions.js";
import { Chart } from "../parts/chart.js";
import { Copy } from "../parts/copy.js";
import { Answer } from "../parts/eventcells.js";
import { Text } from "../parts/json.js";
import { Told } from "../parts/note.js";
import { Empty, Failed, Light, Loading, When } from "../parts/parts.js";

export function Trigger() {
  const { name } = route.value;
  const s = status.value;
  const t = s?.triggers.find((/** @type {any} */ x) => x.name === name);
  const { data, problem, again } = useLoad((abort) => get(`triggers/${encodeURIComponent(name)}`, {}, abort), [name], 15_000);
  if (!s) return html`<${Loading} what="the trigger" />`;
  if (!t) {
    return html`<h1 class="hidden">Trigger</h1><${Empty} title="There is no trigger named ${visible(name)}">It may have been removed, or is not applied yet. <a href="#/">The overview</a> lists those that are there.<//>`;
  }
  const is = trouble(t, s, data);
  const a = activity.value.get(name);
  return html`<div class="head"><h1>${name}</h1><span class="do">
      <${Buttons} name=${name} can=${[t.paused ? "resume" : "pause", "test", ...(t.in_flight ? ["cancel"] : []), "backfill", "replay", ...(t.dead ? ["redeliver", "discard"] : [])]} /></span></div>
    <${Told} is=${is} title=${is.word} buttons=${is.can.includes("dead") && may("events") && html`<a class="button" href=${link("dead", "", { trigger: name })}>Show the dead letters</a>`} />
    <dl class="strip">
      <div><dt>Waiting</dt><dd>${count(t.waiting)}</dd></div><div><dt>In flight</dt><dd>${count(t.in_flight)}</dd></div><div><dt>Retrying</dt><dd>${count(t.retrying)}</dd></div>
      <div><dt>Dead</dt><dd>${t.dead ? html`<a href=${link("dead", "", { trigger: name })}>${count(t.dead)}</a>` : "0"}</dd></div>
      <div><dt>Oldest</dt><dd><small><${When} at=${t.oldest_at} /></small></dd></div>
      <div><dt>p50 / p95</dt><dd>${latency(t.p50_ms)}<small> / ${latency(t.p95_ms)}</small></dd></div>
    </dl>
    <p class="do"><a class="button" href=${link("events", "", { q: `trigger:${name}` })}>Its events</a>
      ${owed(t) > 0 && html`<a class="button" href=${link("events", "", { q: `trigger:${name} state:waiting state:retrying state:in_flight` })}>What is owed</a>`}
      <a class="button" href=${link("audit", "", { trigger: name })}>Who did what to it</a></p>
    ${t.failing && may("payloads") && html`<${LastAnswer} t=${t} />`}
    ${a && html`<${Hour} a=${a} />`}
    ${t.last_error && html`<section><h2>Last error <span class="sub"><${When} at=${t.last_error_at} /></span></h2><pre tabindex="0" class="wrap">${visible(t.last_error)}</pre></section>`}
    ${problem && !data && html`<${Failed} problem=${problem} again=${again} />`}
    ${data && html`<${Tables} data=${data} /><${Configuration} data=${data} />`}`;
}

/** What its receiver has said last, where it failed: mostly the cause. @param {{t: any}} props */
function LastAnswer({ t }) {
  const { data } = useLoad(async (abort) => {
    const { events } = await get("events", { trigger: t.name, state: ["dead", "retrying"], limit: 1 }, abort);
    return events[0] ? get(`events/${events[0].id}`, {}, abort) : null;
  }, [t.name, t.last_error_at]);
  const last = data?.attempt_log.at(-1);
  if (!last) return null;
  return html`<section><div class="head"><h2>Its last answer <span class="sub"><${When} at=${last.started_at} />, after ${latency(last.duration_ms)}</span></h2>
      <a class="button" href=${link("event", data.id)}>The event and its request</a></div>
    <p><${Answer} status=${last.status} kind=${last.error_kind} /></p>
    ${last.response_body ? html`<${Text} value=${last.response_body} what="the response" />` : last.status && html`<p class="sub">The response had no body.</p>`}</section>`;
}

/** @param {{a: any}} props */
function Hour({ a }) {
  const outcomes = Object.entries(a.outcomes ?? {}).sort(([, x], [, y]) => Number(y) - Number(x));
  const all = outcomes.reduce((n, [, x]) => n + Number(x), 0);
  return html`<section><h2>The last hour</h2>
    <div class="charts">
      <${Chart} title="Events in a minute" from=${a.from} series=${[{ name: "delivered", values: a.delivered, kind: "line" }, { name: "failed attempts", values: a.failed, kind: "fail" }]} write=${count} />
      <${Chart} title="From the change to the answer" from=${a.from} series=${[{ name: "p50", values: a.p50_ms, kind: "line" }, { name: "p95", values: a.p95_ms, kind: "second" }]} write=${latency} />
      <div><h3>Answers</h3>${outcomes.length === 0
        ? html`<p class="z">Nothing was sent in this hour.</p>`
        : html`<table class="bars"><tbody>${outcomes.map(([what, n]) => html`<tr key=${what} class=${what === "2xx" ? "" : "fails"}><th scope="row">${visible(what)}</th><td class="n">${count(Number(n))}</td>
            <td><svg width="120" height="8" aria-hidden="true"><rect width=${Math.max(2, (120 * Number(n)) / all)} height="8" rx="2" /></svg></td></tr>`)}</tbody></table>`}</div>
    </div></section>`;
}

/** How many tables, or SQL triggers, are shown before somebody asks for all. */
const first = 50;

/** @param {{tables: any[]}} props */
function Watched({ tables }) {
  const [all, setAll] = useState(false);
  return html`<section><h2>Its tables</h2><p class="z">${plural(tables.filter((t) => t.watched).length, "table is watched", "tables are watched")}.</p>
    <table class="cards"><caption class="hidden">Tables</caption><thead><tr><th scope="col">Table</th><th scope="col">State</th></tr></thead>
      <tbody>${(all ? tables : tables.slice(0, first)).map((t) => html`<tr key=${t.table}><td class="mono">${visible(t.table)}</td>
        <td><${Light} kind=${t.problem ? "bad" : t.watched ? "ok" : "wait"}>${t.problem ? "uncaptured" : t.watched ? "watched" : "not watched"}<//>
          ${(t.problem || t.note) && html`<span class="sub">${visible(t.problem || t.note)}</span>`}</td></tr>`)}</tbody></table>
    ${!all && tables.length > first && html`<p><button type="button" onClick=${() => setAll(true)}>Show all ${count(tables.length)}</button></p>`}</section>`;
}

/** @param {{data: any}} props */
function Tables({ data }) {
  const [all, setAll] = useState(false);
  const every = data.sql_triggers ?? [];
  const list = all ? every : every.slice(0, first);
  return html`${data.tables && html`<${Watched} tables=${data.tables} />`}<section><h2>What records its changes</h2>
    ${list.length === 0 && html`<p class="z">It has no SQL triggers: its events are recorded by hand, as by <code>rowhook invoke</code>.</p>`}
    ${list.length > 0 && html`<table class="cards"><caption class="hidden">SQL triggers</caption><thead><tr><th scope="col">SQL trigger</th><th scope="col">Table</th><th scope="col">State</th></tr></thead>
      <tbody>${list.map((/** @type {any} */ x) => html`<tr key=${x.table + x.name}><td class="mono">${visible(x.name)}</td><td class="mono">${visible(x.table)}</td>
        <td><${Light} kind=${x.present && x.enabled ? "ok" : "bad"}>${x.present ? (x.enabled ? "there" : "disabled") : "missing"}<//>
          ${x.problem && html`<span class="sub">${visible(x.problem)}</span>`}${x.remedy && html`<span class="sub">${visible(x.remedy)}</span>`}</td></tr>`)}</tbody></table>`}
    ${every.length > list.length && html`<p><button type="button" onClick=${() => setAll(true)}>Show all ${count(every.length)}</button></p>`}</section>`;
}

/** @param {{data: any}} props */
function Configuration({ data }) {
  return html`<section><h2>Configuration <${Copy} text=${data.yaml} what="the configuration" /></h2>
    <p class="sub">As applied. References such as \${NAME} are filled in by the dispatcher when it sends; what is secret is never shown.</p>
    <pre tabindex="0">${visibleLines(data.yaml)}</pre></section>`;
}

