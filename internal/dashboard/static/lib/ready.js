// Whether the dispatcher that serves the page can do its work.

import { source, token, url } from "./api.js";
import { parse } from "./json.js";

/** The answer of /readyz, of the source that is shown: the state in a word, and each check. @param {AbortSignal} abort */
export async function ready(abort) {
  /** @type {Record<string, string>} */
  const headers = token.value ? { Authorization: `Bearer ${token.value}` } : {};
  const response = await fetch(url("../../readyz"), { headers, signal: abort, cache: "no-store" }); // 503 is an answer, too
  const answer = parse(await response.text());
  return answer.sources?.find((/** @type {any} */ s) => s.source === source.value) ?? answer;
}
