// What runs for many events, and how far it is.

import { get, may, remove } from "../lib/api.js";
import { count, exact, plural, span } from "../lib/format.js";
import { html } from "../lib/html.js";
import { useLoad } from "../lib/load.js";
import { status } from "../lib/status.js";
import { visible } from "../lib/visible.js";
import { Empty, Failed, Light, Loading, When } from "../parts/parts.js";
import { goOn } from "../parts/replay.js";
import { say, sayProblem } from "../parts/say.js";

export function Operations() {
  const { data, problem, again } = useLoad((abort) => get("operations", {}, abort), [], 1000);
  if (problem && !data) return html`<${Failed} problem=${problem} again=${again} />`;
  if (!data) return html`<${Loading} what="the operations" />`;
  const others = (status.value?.backfills ?? []).filter((/** @type {any} */ b) => !data.operations.some((/** @type {any} */ o) => o.backfill?.id === b.id));
  const replays = (status.value?.replays ?? []).filter((/** @type {any} */ r) => !data.operations.some((/** @type {any} */ o) => o.state === "running" && o.replay?.id === r.id));
  return html`<h1>Operations</h1>
    ${data.operations.length === 0 && others.length === 0 && replays.length === 0 && html`<${Empty} title="Nothing runs">
      Redeliveries, discards, backfills and replays show here how far they are. This list is of the instance that serves this page.<//>`}
    ${data.operations.length > 0 && html`<table class="cards"><caption class="hidden">Operations of this instance, latest first</caption>
      <thead><tr><th scope="col">What</th><th scope="col">State</th><th scope="col">Progress</th><th scope="col">Started</th><th scope="col"><span class="hidden">Actions</span></th></tr></thead>
      <tbody>${data.operations.map((/** @type {any} */ o) => html`<${Row} key=${o.id} o=${o} again=${again} />`)}</tbody></table>`}
    ${others.length > 0 && html`<table class="cards"><caption>Backfills that have not ended</caption>
      <thead><tr><th scope="col">Trigger</th><th scope="col">Read</th><th scope="col">Recorded</th><th scope="col">Last batch</th></tr></thead>
      <tbody>${others.map((/** @type {any} */ b) => html`<tr key=${b.id}><td class="name">${b.trigger}</td><td data-l="read">${count(b.scanned)} of about ${count(b.expected)} rows</td>
        <td data-l="recorded">${count(b.recorded)}</td><td><${When} at=${b.touched_at} /><span class="sub">another instance runs it, or it waits for somebody to ask for it again</span></td></tr>`)}</tbody></table>`}
    ${replays.length > 0 && html`<table class="cards"><caption>Replays that have not ended</caption>
      <thead><tr><th scope="col">Trigger</th><th scope="col">Recorded</th><th scope="col">Sent again</th><th scope="col">Last batch</th><th scope="col"><span class="hidden">Actions</span></th></tr></thead>
      <tbody>${replays.map((/** @type {any} */ r) => html`<tr key=${r.id}><td class="name">${r.trigger}</td><td data-l="recorded">${exact(r.from)} to ${exact(r.to)}<span class="sub">${r.as_new ? "under new ids" : "under their old ids"}</span></td>
        <td data-l="sent again">${count(r.replayed)} of ${r.more ? "more than " : ""}${count(r.expected)}</td>
        <td><${When} at=${r.touched_at} /><span class="sub">${r.running ? "another process runs it" : "it was interrupted"}</span></td>
        <td class="n">${!r.running && may("replay") && html`<button aria-label=${`Go on with the replay of ${r.trigger}`} onClick=${() => goOn(r.trigger)}>Go on</button>`}</td></tr>`)}</tbody></table>`}`;
}

/** @type {Record<string, ["ok" | "bad" | "wait" | "off", string]>} */
const states = { running: ["wait", "runs"], done: ["ok", "done"], failed: ["bad", "failed"], canceled: ["off", "canceled"] };

/** @param {{o: any, again: () => void}} props */
function Row({ o, again }) {
  const [kind, word] = states[o.state] ?? ["off", o.state];
  const expected = o.backfill?.expected ?? o.expected;
  const took = o.finished_at && Date.parse(o.finished_at) - Date.parse(o.started_at);
  const cancel = async () => {
    try {
      await remove(`operations/${o.id}`);
      say("It is canceled; what was done stays done");
      again();
    } catch (e) {
      sayProblem(e);
    }
  };
  return html`<tr><td><span class="name">${o.kind}</span>${o.backfill && html` ${o.backfill.trigger}`}${o.backfill?.table && html` <span class="mono">${visible(o.backfill.table)}</span>`}${o.backfill?.where && html`<span class="sub mono">${visible(o.backfill.where)}</span>`}
      ${o.replay && html` ${o.replay.trigger}<span class="sub">from ${exact(o.replay.from)} to ${exact(o.replay.to)}, ${o.replay.as_new ? "under new ids" : "under their old ids"}</span>`}</td>
    <td><${Light} kind=${kind}>${word}<//>${o.problem && html`<span class="sub">${visible([o.problem.detail, o.problem.remedy].filter(Boolean).join(": "))}</span>`}</td>
    <td>${o.state === "running" && expected > 0 && html`<progress max=${Math.max(expected, o.done)} value=${o.done} aria-label="done"></progress> `}${count(o.done)}${expected ? ` of about ${count(expected)}` : ""}
      ${o.result && html`<span class="sub">${result(o.result)}</span>`}${o.backfill && html`<span class="sub">${count(o.backfill.recorded)} events recorded</span>`}
      ${o.replay && html`<span class="sub">${plural(o.replay.replayed, "event")} back in the queue${o.replay.damaged ? `; ${count(o.replay.damaged)} can't be read` : ""}</span>`}</td>
    <td><${When} at=${o.started_at} />${took != null && html`<span class="sub">took ${span(took)}</span>`}</td>
    <td class="n">${o.state === "running" && may("cancel_operation") && html`<button onClick=${cancel}>Cancel</button>`}</td></tr>`;
}

/** "1,204 changed; skipped: 3 busy". @param {{changed: number, skipped: Record<string, number>}} r */
export function result(r) {
  const skipped = Object.entries(r.skipped).map(([why, n]) => `${count(n)} ${why.replace("_", " ")}`);
  return `${count(r.changed)} changed${skipped.length ? `; skipped: ${skipped.join(", ")}` : ""}`;
}
