// An hour as a chart: minutes from left to right, a line for what goes well, bars for what fails.
// What is under the pointer, or chosen by the arrow keys, is said in words.

import { html, useState } from "../lib/html.js";
import { clock } from "../lib/format.js";

const width = 480;
const height = 120;

/**
 * @param {{title: string, from: string, series: {name: string, values: (number | null)[], kind: string}[], write: (n: any) => string}} props
 */
export function Chart({ title, from, series, write }) {
  const [at, setAt] = useState(/** @type {number | null} */ (null));
  const minutes = series[0].values.length;
  const most = Math.max(...series.flatMap((s) => s.values.map((v) => v ?? 0)), 0);
  const x = (/** @type {number} */ i) => (i / Math.max(1, minutes - 1)) * width;
  const y = (/** @type {number} */ v) => height - 4 - (most ? (v / most) * (height - 14) : 0);
  const point = (/** @type {any} */ e) => {
    const box = e.currentTarget.getBoundingClientRect();
    setAt(Math.min(minutes - 1, Math.max(0, Math.round(((e.clientX - box.left) / box.width) * (minutes - 1)))));
  };
  const key = (/** @type {KeyboardEvent} */ e) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[e.key];
    if (!step) return;
    e.preventDefault();
    setAt(Math.min(minutes - 1, Math.max(0, (at ?? minutes) + step)));
  };
  const words = at === null
    ? most ? series.map((s) => `${s.name}: at most ${write(Math.max(0, ...s.values.map((v) => v ?? 0)))}`).join("; ") : "nothing in this hour"
    : `${clock(new Date(Date.parse(from) + at * 60_000).toISOString())}: ${series.map((s) => `${s.name} ${s.values[at] === null ? "–" : write(s.values[at])}`).join(", ")}`;
  return html`<figure class="chart"><figcaption><h3>${title}</h3><span class="sub" aria-live="polite">${words}</span></figcaption>
    <svg viewBox="0 0 ${width} ${height}" preserveAspectRatio="none" role="img" aria-label="${title}. ${words}" tabindex="0"
      onPointerMove=${point} onPointerLeave=${() => setAt(null)} onKeyDown=${key} onBlur=${() => setAt(null)}>
      <path class="axis" d="M0 ${height - 3.5}H${width}" />
      ${series.map((s) => s.kind === "fail"
        ? s.values.map((v, i) => v ? html`<rect key=${i} class="fail" x=${x(i) - 2.5} y=${y(v)} width="5" height=${height - 4 - y(v)} />` : null)
        : html`<path key=${s.name} class=${s.kind === "line" ? "line" : "line second"} d=${path(s.values, x, y)} />`)}
      ${at !== null && html`<path class="cursor" d="M${x(at)} 0V${height}" />`}
    </svg></figure>`;
}

/**
 * A line that is broken where there is no value.
 *
 * @param {(number | null)[]} values
 * @param {(i: number) => number} x
 * @param {(v: number) => number} y
 */
function path(values, x, y) {
  let d = "";
  let pen = false;
  values.forEach((v, i) => {
    if (v === null) {
      pen = false;
      return;
    }
    // A single value between gaps is a dot: a line of no length with round ends.
    d += `${pen ? "L" : "M"}${x(i).toFixed(1)} ${y(v).toFixed(1)}${pen ? "" : "h0.01"}`;
    pen = true;
  });
  return d;
}
