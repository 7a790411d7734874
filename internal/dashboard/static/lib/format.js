// Figures and times as people read them.

import { signal } from "../vendor/signals-core.js";

/** The present, in ms since 1970, moved on each second: relative times follow it. */
export const now = signal(Date.now());

/** How far the server's clock is ahead of this one, in ms. */
let ahead = 0;
/** @param {string} time what the server's clock says */
export function setClock(time) {
  ahead = Date.parse(time) - Date.now();
}
setInterval(() => {
  if (!document.hidden) now.value = Date.now() + ahead;
}, 1000);

const grouped = new Intl.NumberFormat("en");

/** 1204 is 1,204. @param {number} n */
export const count = (n) => grouped.format(n);

/** 1731240 is 1.73 M. @param {number} n */
export function short(n) {
  if (n < 10_000) return count(n);
  for (const [size, unit] of /** @type {[number, string][]} */ ([[1e9, "G"], [1e6, "M"], [1e3, "k"]])) {
    if (n >= size) return `${Number((n / size).toPrecision(3))} ${unit}`;
  }
  return count(n);
}

/** 13314398618 is 12.4 GiB. @param {number} n */
export function bytes(n) {
  for (const [size, unit] of /** @type {[number, string][]} */ ([[2 ** 40, "TiB"], [2 ** 30, "GiB"], [2 ** 20, "MiB"], [2 ** 10, "KiB"]])) {
    if (n >= size) return `${Number((n / size).toPrecision(3))} ${unit}`;
  }
  return `${count(n)} B`;
}

/** 1.06 is 1.1 ms, 2400 is 2.4 s. @param {number | null | undefined} ms */
export function latency(ms) {
  if (ms === null || ms === undefined) return "–";
  return ms < 1000 ? `${Number(ms.toPrecision(2))} ms` : span(ms);
}

/** The largest two units: 7 min 12 s. @param {number} ms */
export function span(ms) {
  const s = Math.max(0, ms / 1000);
  if (s < 10) return `${Number(s.toFixed(1))} s`;
  const whole = Math.round(s);
  for (const [size, unit, small, name] of /** @type {[number, string, number, string][]} */ ([[86400, "d", 3600, "h"], [3600, "h", 60, "min"], [60, "min", 1, "s"]])) {
    if (whole >= size) {
      const more = Math.floor((whole % size) / small);
      return `${Math.floor(whole / size)} ${unit}${more ? ` ${more} ${name}` : ""}`;
    }
  }
  return `${whole} s`;
}

/** "7 min ago", or "in 12 s". @param {string} time @param {number} [at] */
export function ago(time, at = now.value) {
  const ms = at - Date.parse(time);
  if (Math.abs(ms) < 1000) return "now";
  return ms > 0 ? `${span(Math.max(1000, Math.floor(ms / 1000) * 1000))} ago` : `in ${span(-ms)}`;
}

const exactly = new Intl.DateTimeFormat("en-CA", {
  year: "numeric", month: "2-digit", day: "2-digit", hour: "2-digit", minute: "2-digit", second: "2-digit", fractionalSecondDigits: 3, hourCycle: "h23", timeZoneName: "short",
});

/** @param {string} time @returns {string} the local time to the millisecond, with its zone */
export const exact = (time) => exactly.format(new Date(time)).replace(", ", " ");

/** 14:02, or with the date if it was another day. @param {string} time */
export function clock(time) {
  const d = new Date(time);
  const hm = d.toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" });
  return d.toDateString() === new Date(now.value).toDateString() ? hm : `${d.toLocaleDateString("en-CA")} ${hm}`;
}

/** plural(2, "event") is "2 events". @param {number} n @param {string} noun @param {string} [many] */
export const plural = (n, noun, many = `${noun}s`) => `${count(n)} ${n === 1 ? noun : many}`;
