// The newest events on a page that is live: what arrives is gathered, put in its place by id, and
// kept within bounds. It knows nothing of the browser.

/** How many rows a live page keeps. */
export const mostRows = 300;
/** How many new ids are told apart while the page is paused. */
const mostFresh = 10_000;

/**
 * Rows with those that have arrived in their places, newest first. Ids begin with their time.
 *
 * @template {{id: string}} T
 * @param {T[]} rows
 * @param {Iterable<T>} arrived the later one of an id counts
 * @param {number} [most]
 * @returns {T[]}
 */
export function merge(rows, arrived, most = mostRows) {
  const byId = new Map(rows.map((r) => [r.id, r]));
  for (const r of arrived) byId.set(r.id, r);
  const all = [...byId.values()].sort((a, b) => (a.id < b.id ? 1 : a.id > b.id ? -1 : 0));
  return all.length > most ? all.slice(0, most) : all;
}

/**
 * What has arrived and is not shown yet.
 *
 * @template {{id: string}} T
 */
export class Arrivals {
  constructor(most = mostRows) {
    this.most = most;
    /** @type {Map<string, T>} */
    this.events = new Map();
    /** @type {Set<string>} */
    this.ids = new Set();
  }
  /** @param {T} event */
  add(event) {
    this.events.set(event.id, event);
    // Rows that are merged are the newest ones, whatever arrived last: an older event comes again as its state changes.
    if (this.events.size > this.most) this.events.delete([...this.events.keys()].reduce((a, b) => (a < b ? a : b)));
    if (this.ids.size < mostFresh) this.ids.add(event.id);
  }
  /** How many events have arrived that are not among these. @param {{id: string}[]} rows @returns {{count: number, more: boolean}} */
  fresh(rows) {
    let known = 0;
    for (const { id } of rows) if (this.ids.has(id)) known++;
    return { count: this.ids.size - known, more: this.ids.size >= mostFresh };
  }
  /** All of them, which it has no longer then. */
  take() {
    const events = [...this.events.values()];
    this.events.clear();
    this.ids.clear();
    return events;
  }
}
