// Events as a file of lines of JSON.
//
// A link could not carry the token, so the page reads the answer and writes it to the file that
// somebody has picked, piece by piece. Browsers without such a picker get it at the end, as a whole.

import { send } from "./api.js";

/**
 * Downloads the events that a query chooses. Returns how many, or null if no file was picked.
 *
 * @param {import("./filter.js").Query} query
 * @param {string} name of the file
 * @param {{abort: AbortSignal, progress: (events: number, bytes: number) => void}} options
 */
export async function exportEvents(query, name, { abort, progress }) {
  const target = await pick(name);
  if (target === null) return null;
  const response = await send("GET", "events/export", { query: /** @type {any} */ (query), abort });
  const reader = /** @type {ReadableStream<Uint8Array>} */ (response.body).getReader();
  /** @type {BlobPart[]} */
  const parts = [];
  let events = 0;
  let bytes = 0;
  let last = 10;
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      for (const byte of value) if (byte === 10) events++;
      bytes += value.length;
      last = value.at(-1) ?? last;
      if (target) await target.write(value);
      else parts.push(/** @type {any} */ (value));
      progress(events, bytes);
    }
    if (last !== 10) throw new Error("the server broke off in the middle of an event");
  } catch (e) {
    await target?.abort().catch(() => {});
    throw e;
  }
  if (target) await target.close();
  else save(new Blob(parts, { type: "application/x-ndjson" }), name);
  return events;
}

/** A stream into a file that somebody picks; undefined: the browser has no picker; null: nobody picked one. @param {string} name @returns {Promise<any>} */
async function pick(name) {
  const picker = /** @type {any} */ (window).showSaveFilePicker;
  if (!picker) return undefined;
  try {
    return await (await picker({ suggestedName: name, types: [{ description: "Lines of JSON", accept: { "application/x-ndjson": [".ndjson"] } }] })).createWritable();
  } catch (e) {
    if (/** @type {any} */ (e).name === "AbortError") return null;
    return undefined; // the browser's policy forbids it
  }
}

/** Saves a file as a browser saves a download. @param {Blob} blob @param {string} name */
export function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
