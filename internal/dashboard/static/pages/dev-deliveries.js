// What the receiver of rowhook dev got, as it comes.

import { get, may } from "../lib/api.js";
import { bytes, exact } from "../lib/format.js";
import { Fragment, html, useMemo, useRef, useState } from "../lib/html.js";
import { parse } from "../lib/json.js";
import { useLoad } from "../lib/load.js";
import { link } from "../lib/route.js";
import { visible } from "../lib/visible.js";
import { Copy } from "../parts/copy.js";
import { Answer, EventLink, moment } from "../parts/eventcells.js";
import { Json, Text } from "../parts/json.js";
import { Empty, Failed, Light, Loading } from "../parts/parts.js";
import { draft, example } from "./dev-sql.js";

/** How many are shown at first. The page knows some more, and the receiver itself keeps 10,000. */
const first = 12;
const mostKnown = 500;

/** @param {{about: any}} props */
export function Deliveries({ about }) {
  const [paused, setPaused] = useState(false);
  const [most, setMost] = useState(first);
  const [open, setOpen] = useState(/** @type {Set<number>} */ (new Set()));
  const got = useRef(/** @type {{list: any[], cursor: number} | null} */ (null)); // the newest first
  const { data, problem, again } = useLoad(async (abort) => {
    const known = got.current;
    const read = (/** @type {number | undefined} */ after) => get("dev/deliveries", { limit: 200, after }, abort);
    let a = await read(known?.cursor);
    const joins = known && !a.next && a.cursor >= known.cursor; // else there is more than a page since, or a new receiver
    if (known && !joins) a = await read(undefined);
    if (!joins || a.deliveries.length) got.current = { list: joins ? [...a.deliveries, ...known.list].slice(0, mostKnown) : a.deliveries, cursor: a.cursor };
    return got.current;
  }, [paused], paused ? 0 : 1000);
  const rows = useMemo(() => data?.list.slice(0, most).map((d) => html`<${Row} key=${d.sequence} d=${d} open=${open.has(d.sequence)} toggle=${() => setOpen(new Set([...open, d.sequence].filter((n) => n !== d.sequence || !open.has(n))))} />`), [data, open, most]);
  const newest = data?.list[0];
  return html`<section><div class="head"><h2>Deliveries</h2><span class="do">
      <span class="sub">${paused ? "stopped" : "live"}</span> <button aria-pressed=${paused} onClick=${() => setPaused(!paused)}>${paused ? "Go on" : "Pause"}</button></span></div>
    <p class="hidden" role="status">${newest && `The newest delivery is number ${newest.sequence}: ${newest.trigger ?? "no event"}, answered ${newest.status ?? "not at all"}`}</p>
    ${problem && problem.status !== 0 && html`<${Failed} problem=${problem} again=${again} />`}
    ${!data ? !problem && html`<${Loading} what="deliveries" />` : !newest ? html`<${Nothing} about=${about} />` : html`<table class="cards deliveries"><caption class="hidden">What the receiver got, newest first</caption>
      <thead><tr><th scope="col">Time</th><th scope="col">Trigger</th><th scope="col">Event</th><th scope="col" class="n">Attempt</th><th scope="col">Signature</th><th scope="col">Answer</th></tr></thead><tbody>${rows}</tbody></table>
      ${data.list.length > most && html`<p class="do fold"><button onClick=${() => setMost(most + 100)}>Show older ones</button></p>`}`}</section>`;
}

/** @param {{about: any}} props */
function Nothing({ about }) {
  const t = about.triggers[0];
  if (!about.to_sink) return html`<${Empty} title="Nothing has arrived here">Deliveries go to their own URLs: <a class="link" href=${link("events")}>look at the events</a>. With <code>--sink</code> they come here.<//>`;
  if (!t || about.config !== null) return html`<${Empty} title="Nothing has arrived yet">${t ? `Insert a row into ${visible(t.table)}: ${visible(t.name)} sends it here.` : "Write a trigger into the configuration below, and apply it."}<//>`;
  return html`<${Empty} title="Nothing has arrived yet">Insert a row: <code class="wrapped">${example}</code> ${may("dev") && html`<button onClick=${() => (draft.value = example)}>Put it into the SQL box</button>`}<//>`;
}

/** @type {Record<string, ["ok" | "bad" | "wait" | "off", string]>} */
const signatures = { valid: ["ok", "valid"], invalid: ["bad", "invalid"], none: ["off", "none"], unchecked: ["wait", "not checked"] };

/** @param {{d: any, open: boolean, toggle: () => void}} props */
function Row({ d, open, toggle }) {
  const [kind, word] = signatures[d.signature] ?? ["off", "none"];
  return html`<${Fragment}><tr class=${open ? "open" : undefined}>
    <td class="wide"><button class="quiet opener" aria-expanded=${open} aria-label="${moment(d.received_at)}, number ${d.sequence}" onClick=${toggle}><span aria-hidden="true">${open ? "▾" : "▸"}</span> <time datetime=${d.received_at} title=${exact(d.received_at)}>${moment(d.received_at)}</time></button></td>
    <td>${d.trigger ? html`<a class="name" href=${link("trigger", d.trigger)}>${visible(d.trigger)}</a>` : html`<span class="z">no event</span>`}</td>
    <td>${d.event_id ? html`<${EventLink} id=${d.event_id}>${d.op} ${visible(d.table ?? "")}<//>` : html`<span class="mono">${visible(d.path)}</span>`}${d.duplicate && html`<span class="sub">accepted before: a duplicate</span>`}</td>
    <td class="n" data-l="attempt">${d.attempt || html`<span class="z">–</span>`}</td>
    <td data-l="signature"><${Light} kind=${kind}>${word}<//>${d.signature_problem && html`<span class="sub">${visible(d.signature_problem)}</span>`}${d.signature === "unchecked" && html`<span class="sub">the receiver does not know the secret</span>`}</td>
    <td data-l="answer"><${Answer} status=${d.status} kind=${d.status === null ? "no answer" : ""} />${(d.problem || d.note) && html`<span class="sub">${visible(d.problem || d.note)}</span>`}</td></tr>
    ${open && html`<tr class="more"><td class="wide" colspan="6"><${Details} d=${d} /></td></tr>`}<//>`;
}

/** @param {{d: any}} props */
function Details({ d }) {
  const value = useMemo(() => {
    try {
      return { json: parse(d.body, { maps: true }) };
    } catch {
      return null; // it is no JSON, or only its beginning
    }
  }, [d]);
  return html`<p class="mono">${d.method} ${visible(d.path)}</p>
    <dl class="detail">${Object.keys(d.headers).sort().map((name) => html`<div key=${name}><dt>${visible(name)}</dt><dd class="mono">${visible(d.headers[name].join(", "))}</dd></div>`)}</dl>
    <div class="head"><h3>Body, ${bytes(d.body_bytes)}${d.body_bytes > 65536 ? ", of which this is the beginning" : ""}</h3><span class="do"><${Copy} text=${d.body} what="the body" />
      ${d.event_id && html`<${EventLink} id=${d.event_id}><span class="link">The event</span><//>`}</span></div>
    ${d.body === "" ? html`<p class="sub">It is empty.</p>` : value ? html`<${Json} value=${value.json} what="the body" />` : html`<${Text} value=${d.body} what="the body" />`}`;
}
