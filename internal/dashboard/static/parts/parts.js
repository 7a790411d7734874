// Small things that every page is made of.

import { ago, clock, count, exact, now, short, span } from "../lib/format.js";
import { html } from "../lib/html.js";

/** A time as people say it; the exact one is behind it. @param {{at: string | null | undefined, none?: string}} props */
export function When({ at, none = "–" }) {
  if (!at) return html`<span class="z">${none}</span>`;
  return html`<time datetime=${at} title=${exact(at)}>${ago(at, now.value)}</time>`;
}

/** "since 14:02 (7 min)". @param {{at: string}} props */
export function Since({ at }) {
  return html`<time datetime=${at} title=${exact(at)}>since ${clock(at)} (${span(now.value - Date.parse(at))})</time>`;
}

/** A figure of a table: zero is faint. @param {{n: number, label?: string, estimated?: boolean, href?: string}} props */
export function Figure({ n, label, estimated = false, href }) {
  const text = `${estimated ? "~" : ""}${count(n)}`;
  return html`<td class=${n ? "n" : "n z"} data-l=${label} title=${estimated ? "an estimate" : undefined}>${href ? html`<a href=${href}>${text}</a>` : text}</td>`;
}

/**
 * A state: a sign of its own shape, a colour, and the word.
 *
 * @param {{kind: "ok" | "bad" | "pause" | "wait" | "off", children: any}} props
 */
export function Light({ kind, children }) {
  return html`<span class="s ${kind}">${children}</span>`;
}

/** The state of an event in words. @type {Record<string, [("ok" | "bad" | "pause" | "wait" | "off"), string]>} */
const states = {
  waiting: ["wait", "waiting"], in_flight: ["ok", "in flight"], retrying: ["wait", "retrying"], delivered: ["ok", "delivered"], merged: ["off", "merged"], dead: ["bad", "dead"],
};

/** @param {{state: string}} props */
export function EventState({ state }) {
  const [kind, word] = states[state] ?? ["off", state];
  return html`<${Light} kind=${kind}>${word}<//>`;
}

/** What failed, what to do about it, and a button to try again. @param {{problem: any, again?: () => void}} props */
export function Failed({ problem, again }) {
  return html`<section class="note" role="alert"><strong class="s bad">${problem.detail ?? String(problem.message ?? problem)}</strong><span class="do">
    ${again && html`<button onClick=${again}>Try again</button>`}</span>${problem.remedy && html`<p>${problem.remedy}</p>`}</section>`;
}

/** What an empty place says: what would be here, and what to do next. @param {{title: string, children?: any}} props */
export function Empty({ title, children }) {
  return html`<div class="empty"><strong>${title}</strong>${children && html`<p>${children}</p>`}</div>`;
}

/** Says that something is being loaded; nothing for the first moment, so that it does not flash. @param {{what: string}} props */
export function Loading({ what }) {
  return html`<p class="loading" role="status">Loading ${what}…</p>`;
}

/**
 * The last hour as a curve: what was delivered as a line, what failed as bars.
 *
 * @param {{delivered: number[], failed: number[], width?: number, height?: number, label?: string}} props
 */
export function Spark({ delivered, failed, width = 150, height = 28, label }) {
  const most = Math.max(1, ...delivered, ...failed);
  const step = width / Math.max(1, delivered.length - 1);
  const y = (/** @type {number} */ n) => Number((height - 1.5 - (n / most) * (height - 4)).toFixed(1));
  const points = delivered.map((n, i) => `${Number((i * step).toFixed(1))} ${y(n)}`).join(" L");
  const sum = (/** @type {number[]} */ list) => list.reduce((a, b) => a + b, 0);
  const words = label ?? `${short(sum(delivered))} delivered, ${short(sum(failed))} failed`;
  return html`<svg class="spark" width=${width} height=${height} viewBox="0 0 ${width} ${height}" role="img" aria-label="${words} in the last hour">
    ${points && html`<path class="line" d="M${points}" />`}
    ${failed.map((n, i) => n > 0 && html`<rect key=${i} class="fail" x=${(i * step - 1).toFixed(1)} y=${y(n)} width="2.5" height=${height - y(n)} />`)}
  </svg><span class="sub">${words}</span>`;
}

/** Says what needs the token of rowhook dev, and where it is. @param {{what: string}} props */
export function NeedsToken({ what }) {
  return html`<div class="note w"><strong class="s wait">This needs the token</strong><span>${what}</span>
    <p>The line "Dashboard on …" that <code>rowhook dev</code> prints is a link that carries it: open that one.</p></div>`;
}
