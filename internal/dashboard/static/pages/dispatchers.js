// Who lives, since when, and what they hold.

import { plural } from "../lib/format.js";
import { html } from "../lib/html.js";
import { link } from "../lib/route.js";
import { status } from "../lib/status.js";
import { visible } from "../lib/visible.js";
import { Empty, Light, Loading, Since, When } from "../parts/parts.js";

export function Dispatchers() {
  const s = status.value;
  if (!s) return html`<${Loading} what="the dispatchers" />`;
  const { instances, doorbell } = s;
  const silencer = instances.find((/** @type {any} */ i) => i.id === doorbell.instance_id);
  const bell = doorbell.state === "ringing"
    ? "The doorbell rings: each write wakes the dispatchers at once."
    : `The doorbell is silent: ${silencer ? visible(silencer.name) : "a dispatcher"} is awake and finds events by itself, so writers need not ring.`;
  return html`<h1>Dispatchers</h1><p>${bell}</p>
    ${instances.length === 0
      ? html`<${Empty} title="No dispatcher runs">Events wait and lose nothing. Start one by <code>rowhook run</code>.<//>`
      : html`<div class="scroll"><table class="cards"><caption class="hidden">Dispatchers</caption>
        <thead><tr><th scope="col">Name</th><th scope="col">State</th><th scope="col">Version</th><th scope="col">Started</th><th scope="col">What hangs</th></tr></thead>
        <tbody>${instances.map((/** @type {any} */ i) => html`<${Row} key=${i.id} i=${i} triggers=${s.triggers} />`)}</tbody></table></div>`}
    ${s.standby.length > 0 && html`<p>Standing by, and serving when these go: ${s.standby.map((/** @type {any} */ by) => visible(by.name)).join(", ")}</p>`}
    <${Vacuum} holder=${s.vacuum_held_back_by} queue=${s.queue} />`;
}

/** @param {{i: any, triggers: any[]}} props */
function Row({ i, triggers }) {
  const hanging = triggers.flatMap((t) => t.hanging.filter((/** @type {any} */ x) => x.instance_id === i.id).map((/** @type {any} */ x) => ({ ...x, trigger: t.name })));
  return html`<tr><td><span class="name">${visible(i.name)}</span><span class="sub">instance ${i.id}</span></td>
    <td>${i.alive
      ? html`<${Light} kind="ok">lives<//>${!i.listens && html`<span class="sub">it polls, since it may not listen: nobody notices at once if it dies</span>`}`
      : html`<${Light} kind="bad">is gone<//><span class="sub">the others take over what it held</span>`}</td>
    <td data-l="version">${i.version}</td><td data-l="started"><${When} at=${i.started_at} /></td>
    <td>${hanging.length === 0 ? html`<span class="z">nothing</span>` : hanging.map((x) => html`<a href=${link("trigger", x.trigger)}>${x.trigger}</a>: ${plural(x.attempts, "attempt")} without an answer <${Since} at=${x.since} /><br />`)}</td></tr>`;
}

/** @param {{holder: any, queue: any}} props */
function Vacuum({ holder, queue }) {
  return html`<section><h2>The queue's table</h2>
    ${holder
      ? html`<p class="s wait">Vacuum is held back by a ${holder.kind}${holder.pid ? ` (pid ${holder.pid})` : ""}${holder.name ? ` ${visible(holder.name)}` : ""}${holder.user ? ` of ${visible(holder.user)}` : ""}${holder.since && html`, <${Since} at=${holder.since} />`}: what is settled stays in the table until it ends.</p>
        ${holder.query && html`<pre tabindex="0">${visible(holder.query)}</pre>`}`
      : html`<p class="s ok">Nothing holds back vacuum.</p>`}
    <p class="sub">About ${queue.live_tuples} rows and ${queue.dead_tuples} dead ones. Vacuumed <${When} at=${queue.last_vacuumed_at} none="never" />.</p></section>`;
}
