// Each check with its remedy, and the size of everything.

import { bytes, count } from "../lib/format.js";
import { html } from "../lib/html.js";
import { useLoad } from "../lib/load.js";
import { ready } from "../lib/ready.js";
import { status } from "../lib/status.js";
import { visible } from "../lib/visible.js";
import { Failed, Light, Loading, Since, When } from "../parts/parts.js";

/** What each check of readiness asks. @type {Record<string, string>} */
const asks = {
  running: "The dispatcher has started, and is not stopping", connected: "The database answers", migrated: "Its schema fits this program", registered: "It is in the list of dispatchers",
  listening: "It is woken by writes", claiming: "It can take events", settling: "It can record answers", history: "History is written", sending: "It can build every webhook", capturing: "Every change is recorded",
};

export function Health() {
  const { data, problem, again } = useLoad(ready, [], 3000);
  const s = status.value;
  if (problem && !data) return html`<${Failed} problem=${problem} again=${again} />`;
  if (!data || !s) return html`<${Loading} what="the checks" />`;
  return html`<h1>Health</h1>
    <table class="cards"><caption>The dispatcher that serves this page is ${data.status}</caption>
      <thead><tr><th scope="col">Check</th><th scope="col">State</th><th scope="col">What to do</th></tr></thead>
      <tbody>${data.checks.map((/** @type {any} */ c) => html`<tr key=${c.name}><td><span class="name">${c.name}</span><span class="sub">${asks[c.name]}</span></td>
        <td><${Light} kind=${c.ok ? (c.detail ? "wait" : "ok") : "bad"}>${c.ok ? "ok" : "fails"}<//>${c.detail && html`<span class="sub">${visible(c.detail)}</span>`}</td>
        <td>${visible(c.remedy ?? (c.ok ? "" : "the dispatcher tries again by itself"))}</td></tr>`)}</tbody></table>
    ${s.warnings.length > 0 && html`<table class="cards"><caption>What needs a person</caption>
      <thead><tr><th scope="col">About</th><th scope="col">What is wrong</th><th scope="col">What to do</th></tr></thead>
      <tbody>${s.warnings.map((/** @type {any} */ w) => html`<tr key=${w.code + w.trigger + w.problem}><td class="name">${w.trigger ?? "Rowhook"}</td><td><${Light} kind="wait">${visible(w.problem)}<//></td>
        <td>${visible(w.remedy ?? "")}</td></tr>`)}</tbody></table>`}
    ${s.alerts.length > 0 && html`<table class="cards"><caption>What receivers of alerts are told of</caption>
      <thead><tr><th scope="col">Alert</th><th scope="col">Since</th><th scope="col">Why</th><th scope="col">Told</th></tr></thead>
      <tbody>${s.alerts.map((/** @type {any} */ a) => html`<tr key=${a.alert + a.about + a.to}><td><span class="name">${a.alert}</span> ${visible(a.about)}</td><td><${Since} at=${a.since} /></td><td>${visible(a.reason)}</td>
        <td>${visible(a.to)} <${When} at=${a.told_at} none="not yet" />${a.error && html`<span class="sub">${visible(a.error)}</span>`}</td></tr>`)}</tbody></table>`}
    <${Sizes} s=${s} />`;
}

/** @param {{s: any}} props */
function Sizes({ s }) {
  return html`<table class="cards"><caption>What it takes on disk</caption>
    <thead><tr><th scope="col">Table</th><th scope="col" class="n">Size</th><th scope="col" class="n">Rows</th><th scope="col">Days</th></tr></thead>
    <tbody><tr><td class="name">event_log<span class="sub">what is owed, and dead letters</span></td><td class="n">${bytes(s.queue.bytes)}</td><td class="n">~${count(s.queue.live_tuples)}</td><td class="z">–</td></tr>
      ${s.history.map((/** @type {any} */ h) => {
        const rows = h.partitions.reduce((/** @type {number} */ n, /** @type {any} */ p) => n + (p.rows ?? 0), 0);
        const days = h.partitions.map((/** @type {any} */ p) => p.day).filter(Boolean).sort();
        return html`<tr key=${h.table}><td class="name">${h.table}<span class="sub">${h.table === "event_archive" ? "what was delivered" : "attempts"}</span></td><td class="n">${bytes(h.bytes)}</td><td class="n">~${count(rows)}</td>
          <td>${days.length ? `${days[0]} to ${days[days.length - 1]}` : html`<span class="z">–</span>`}</td></tr>`;
      })}</tbody></table>`;
}
