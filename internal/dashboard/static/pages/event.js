// One event: its life, its data, each attempt, and its request.

import { may, me, post, send } from "../lib/api.js";
import { curl, missing, sentBody } from "../lib/curl.js";
import { save } from "../lib/download.js";
import { exact, latency, plural } from "../lib/format.js";
import { html, useMemo, useRef } from "../lib/html.js";
import { parse } from "../lib/json.js";
import { traceId } from "../lib/jsontext.js";
import { useLoad } from "../lib/load.js";
import { go, link, route } from "../lib/route.js";
import { refresh } from "../lib/status.js";
import { visible } from "../lib/visible.js";
import { Copy } from "../parts/copy.js";
import { ask } from "../parts/dialog.js";
import { Answer, EventLink, moment, settled } from "../parts/eventcells.js";
import { Json, Rows, Text } from "../parts/json.js";
import { Empty, EventState, Failed, Light, Loading, When } from "../parts/parts.js";
import { say, sayProblem } from "../parts/say.js";

/**
 * An event: d is what is known of it; payload and body are Maps, which keep the order of keys.
 *
 * @typedef {{text: string, d: any, payload: Map<string, any> | null, body: any}} Loaded
 */

export function Event() {
  const id = route.value.name;
  const known = useRef(/** @type {Loaded | null} */ (null));
  const open = useRef(true);
  const { data, problem, again } = useLoad(async (abort) => {
    if (known.current && id === leaving) return known.current; // asking for it would be an error
    const text = await (await send("GET", `events/${encodeURIComponent(id)}`, { abort })).text();
    if (known.current?.text !== text) {
      const all = parse(text, { maps: true });
      known.current = { text, d: parse(text), payload: all.get("payload") ?? null, body: all.get("request")?.get("body") ?? null };
    }
    const loaded = /** @type {Loaded} */ (known.current);
    open.current = !settled(loaded.d);
    return loaded;
  }, [id, open.current], open.current ? 2000 : 0);
  if (problem?.status === 404) {
    return html`<h1 class="hidden">Event</h1><${Empty} title="There is no event ${visible(id)}">It was discarded, or delivered so long ago that it is deleted by now. <a href=${link("events")}>Look at all events</a>.<//>`;
  }
  if (!data) return problem ? html`<${Failed} problem=${problem} again=${again} />` : html`<${Loading} what="the event" />`;
  const { d, payload, body } = data;
  return html`<${Head} d=${d} again=${again} />
    ${problem && problem.status !== 0 && html`<${Failed} problem=${problem} again=${again} />`}
    ${!may("payloads") && html`<section class="note w"><strong class="s wait">This token does not show data</strong><span>Values of rows, keys, headers, bodies and the texts of responses are withheld.</span>
      <p>Whoever runs Rowhook gives a token that shows them: <code>rowhook token add NAME --scope status,payloads</code>.</p></section>`}
    <${Life} d=${d} />
    ${(payload || d.payload_problem) && html`<section><h2>Data</h2>${d.payload_problem ? html`<p><${Light} kind="bad">${visible(d.payload_problem)}<//></p>` : html`<${Data} payload=${/** @type {any} */ (payload)} />`}
      ${d.masked && html`<p class="sub">The trigger masks ${visible(d.masked.join(", "))}: the receiver gets it, and it is shown nowhere. Nor is what the receiver has answered, which may repeat it.</p>`}</section>`}
    <${Attempts} d=${d} />
    <${Request} d=${d} body=${body} />`;
}

/** @param {{d: any, again: () => void}} props */
function Head({ d, again }) {
  const redelivers = may("redeliver") && (settled(d) || d.state === "retrying");
  const discards = may("discard") && d.state !== "delivered" && d.state !== "in_flight";
  return html`<div class="head"><div><h1>${visible(d.trigger)} · ${d.op.toLowerCase()} · ${moment(d.created_at)}</h1>
      <span class="sub"><span class="mono">${visible(d.id)}</span> <${Copy} text=${d.id} what="the id" /></span></div>
    <span class="do"><${EventState} state=${d.merged_into ? "merged" : d.state} />
      ${redelivers && html`<button onClick=${() => redeliver(d, again)}>${d.state === "retrying" ? "Send now" : "Redeliver…"}</button>`}
      ${discards && html`<button onClick=${() => discard(d)}>Discard…</button>`}</span></div>`;
}

/** @param {any} d @param {() => void} again */
async function redeliver(d, again) {
  if (settled(d)) {
    const body = d.state === "dead" ? "It is due at once, with new attempts." : "It was delivered: its receiver gets it a second time.";
    if (!(await ask({ title: "Redeliver this event?", yes: "Redeliver", body }))) return;
  }
  try {
    const { result } = await post("events/redeliver", { filter: { ids: [d.id] } }, { wait: 10 });
    say(result?.changed === 0 ? "It had been sent again already" : "The event is sent again");
  } catch (e) {
    sayProblem(e);
  }
  again();
  await refresh().catch(() => {}); // the next status tells
}

/** The event that is being discarded. */
let leaving = "";

/** @param {any} d */
async function discard(d) {
  const held = d.blocks ? " The later events of its key go on then." : "";
  if (!(await ask({ title: "Discard this event?", yes: "Discard", danger: true, body: `It is deleted for good, and never sent.${held}` }))) return;
  leaving = d.id;
  try {
    await post("events/discard", { filter: { ids: [d.id] } }, { wait: 10 });
    say("The event is discarded");
    go(link("events"));
    await refresh().catch(() => {}); // the next status tells
  } catch (e) {
    sayProblem(e);
  } finally {
    leaving = "";
  }
}

/** What the server says of the future, without commands that are buttons here, and in local time. @param {string} next */
const outlook = (next) => visible(next.replace(/\. To send it again: rowhook .*$/s, "").replace(/ \(rowhook [^)]*\)/g, "").replace(/: rowhook (redeliver|resume|discard|cancel) .*$/s, ""))
  .replace(/(\d{4}-\d\d-\d\d) (\d\d:\d\d:\d\d) UTC/g, (_, day, time) => moment(`${day}T${time}Z`).replace(/\.000$/, ""));

/** @param {{d: any}} props */
function Life({ d }) {
  /** @type {{at?: string, kind: "ok" | "bad" | "pause" | "wait" | "off", text: any}[]} */
  const steps = [{ at: d.created_at, kind: "ok", text: html`written: ${d.op} of ${visible(d.table)}${d.key && html`, in the order of key <span class="mono">${visible(d.key)}</span>${d.sequence ? ` as number ${d.sequence}` : ""}`}` }];
  const log = d.attempt_log;
  const rest = log.length > 12 ? log.length - 10 : 0;
  log.forEach((/** @type {any} */ a, /** @type {number} */ i) => {
    if (i > 0 && a.number <= log[i - 1].number) steps.push({ kind: "off", text: "somebody had it sent again: attempts count from 1" });
    if (rest && i === 3) steps.push({ kind: "off", text: `${plural(rest, "more attempt")}, all of which are listed below` });
    if (rest && i >= 3 && i < 3 + rest) return;
    const fine = !a.error && !a.error_kind && a.status < 300;
    steps.push({
      at: a.started_at, kind: fine ? "ok" : "bad",
      text: html`attempt ${a.number}, by dispatcher ${a.instance_id}: ${fine ? `answered ${a.status}` : visible(a.error ?? a.error_kind ?? `answered ${a.status}`)}, after ${latency(a.duration_ms)}${a.batch && html`, in batch <span class="mono">${visible(a.batch)}</span>`}`,
    });
  });
  if (d.state === "in_flight") steps.push({ kind: "wait", text: html`claimed by dispatcher ${d.instance_id}, until ${moment(d.lease_ends_at)}` });
  if (d.waits_for === "dead_letter") steps.push({ kind: "wait", text: html`waits for the dead letter <${EventLink} id=${d.waits_on} />, which holds its key` });
  if (d.waits_for === "endpoint") steps.push({ kind: "wait", text: html`waits for its endpoint, which fails: see <a href=${link("trigger", d.trigger)}>${visible(d.trigger)}</a>` });
  if (d.merged_into && !d.unsent) steps.push({ at: d.delivered_at, kind: "off", text: html`merged into the later event <${EventLink} id=${d.merged_into} />, which was sent in its stead` });
  else if (d.merged_into) steps.push({ at: d.delivered_at, kind: "off", text: html`its row came and went before anything was sent, so nothing was${d.merged_into !== d.id && html`: see <${EventLink} id=${d.merged_into} />`}` });
  else if (d.state === "delivered") steps.push({ at: d.delivered_at, kind: "ok", text: "delivered" });
  if (d.state === "dead") steps.push({ at: d.died_at, kind: "bad", text: html`became a dead letter${d.reason && `: ${visible(d.reason)}`}${d.blocks && ". It holds its key: later events of the key wait"}` });
  return html`<section><h2>Its life</h2><ol class="life">${steps.map((s, i) => html`<li key=${i}><${Light} kind=${s.kind} /><span class="at">${s.at && html`<time datetime=${s.at} title=${exact(s.at)}>${moment(s.at)}</time>`}</span><span>${s.text}</span></li>`)}
    <li class="next"><${Light} kind=${settled(d) ? "off" : "wait"} /><span class="at">next</span><span role="status">${outlook(d.next)}${!settled(d) && d.due_at && Date.parse(d.due_at) > Date.now() && html` (<${When} at=${d.due_at} />)`}</span></li></ol></section>`;
}

/** @param {{payload: Map<string, any>}} props */
function Data({ payload }) {
  const [session, trace] = [payload.get("session_variables") ?? null, payload.get("trace_context") ?? null];
  const id = traceId(trace);
  const template = me.value.trace_link;
  // A template is whoever runs Rowhook's; nothing but a page of the web may be behind it.
  const href = id && /^https?:\/\//.test(template ?? "") ? template.replaceAll("{trace_id}", id) : "";
  return html`<${Rows} before=${payload.get("old") ?? null} after=${payload.get("new") ?? null} />
    ${session !== null && html`<h3>Session variables</h3><${Json} value=${session} what="the session variables" />`}
    ${trace !== null && html`<h3>Trace ${id && (href ? html`<a class="link" href=${href} target="_blank" rel="noopener noreferrer">${id}</a>` : html`<span class="mono">${id}</span>`)}</h3><${Json} value=${trace} what="the trace context" />`}`;
}

/** @param {{d: any}} props */
function Attempts({ d }) {
  const log = d.attempt_log;
  if (!log.length) {
    return html`<section><h2>Attempts</h2><p class="sub">${d.attempts ? `${plural(d.attempts, "attempt")}, of which none is in the log: it has not ended yet, or is older than the log's retention.` : "It was not sent yet."}</p></section>`;
  }
  return html`<section><h2>Attempts</h2>${log.map((/** @type {any} */ a, /** @type {number} */ i) => html`<details key=${a.started_at} class="attempt" open=${i === log.length - 1}>
    <summary><b>${a.number}</b> <${Answer} status=${a.status} kind=${a.error_kind} /> <span class="z">${moment(a.started_at)}, ${latency(a.duration_ms)}, dispatcher ${a.instance_id}</span></summary>
    <dl class="detail"><div><dt>Request</dt><dd>${d.request.method} <span class="mono">${visible(d.request.url)}</span>, with current_retry ${a.number - 1}${a.batch && html`, in batch <span class="mono">${visible(a.batch)}</span>`}</dd></div>
      ${a.error && html`<div><dt>Error</dt><dd>${visible(a.error)}</dd></div>`}
      ${headers(a.response_headers)}</dl>
    ${a.response_body !== undefined && a.response_body !== "" && html`<h3>Response body, as far as it is kept</h3><${Text} value=${a.response_body} what="the response" />`}
    ${a.status && may("payloads") && !a.response_body && html`<p class="sub">The response had no body.</p>`}</details>`)}</section>`;
}

/** @param {any} list */
function headers(list) {
  if (typeof list === "string") return html`<div><dt>Headers</dt><dd class="mono">${visible(list)}</dd></div>`;
  return Object.entries(list ?? {}).map(([name, value]) => html`<div key=${name}><dt>${visible(name)}</dt><dd class="mono">${visible(Array.isArray(value) ? value.join(", ") : value)}</dd></div>`);
}

/** @param {{d: any, body: any}} props */
function Request({ d, body }) {
  const { request } = d;
  const file = `${d.trigger.replace(/[^\w.-]+/g, "-")}-${d.op.toLowerCase()}-${d.id}.json`;
  const bodiless = request.body === null && may("payloads") && !d.payload_problem;
  const command = useMemo(() => (body === null && !bodiless ? "" : curl({ ...request, body }, file)), [body, request]);
  if (!bodiless && (request.body === undefined || body === null)) {
    return html`<section><h2>Request</h2><p><span class="mono">${request.method} ${visible(request.url)}</span></p>
      ${may("payloads") && html`<p class="sub">Its body can't be shown, since its data can't be read, or were erased.</p>`}</section>`;
  }
  const text = bodiless ? "" : sentBody({ ...request, body }, 2);
  const fill = missing({ ...request, expands: [text] });
  return html`<section><div class="head"><h2>Request</h2>${!bodiless && html`<span class="do">
      <button onClick=${() => save(new Blob([`${text}\n`], { type: "application/json" }), file)}>Save as a fixture</button>
      <${Copy} text=${text} what="the body" /></span>`}</div>
    <p class="mono">${request.method} ${visible(request.url)}</p>
    <dl class="detail">${headers(request.headers)}</dl>
    ${bodiless ? html`<p class="sub">The request has no body.</p>` : html`<h3>Body, by the trigger's present configuration</h3>${typeof body === "string" ? html`<${Text} value=${text} what="the body" />` : html`<${Json} value=${body} what="the body" />`}`}
    <div class="head"><h3>As a command</h3><${Copy} text=${command} what="the command" /></div>
    <${Text} value=${command} what="the command" />
    <p class="sub">${d.masked && "What the trigger masks stands here as <masked>. "}${fill.length > 0 && html`Fill in ${fill.map((f) => visible(f)).join(", ")} first: the page does not know what they stand for. `}It has no signature, since the secret is the dispatcher's alone.${command.includes("--data-binary") && ` The body is too long for a command: save it as a fixture first, as ${file}.`}</p></section>`;
}
