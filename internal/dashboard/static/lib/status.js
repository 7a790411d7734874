// The state of the installation, as all pages see it.

import { get } from "./api.js";
import { setClock } from "./format.js";
import { signal } from "./html.js";
import { follow } from "./live.js";

/** The latest GET /api/v1/status; null: not known yet. */
export const status = signal(/** @type {any} */ (null));
/** The latest GET /api/v1/activity, by trigger. */
export const activity = signal(/** @type {Map<string, any>} */ (new Map()));
/** Why the state is not known at present; null: it is. */
export const problem = signal(/** @type {import("./api.js").Problem | null} */ (null));

/** @param {any} message */
function take(message) {
  if (message.status) {
    setClock(message.status.now);
    status.value = message.status;
  }
  if (message.activity) activity.value = new Map(message.activity.triggers.map((/** @type {any} */ t) => [t.name, t]));
  if (message.problem) problem.value = message.problem;
}

/** Keeps them up to date until the function that is returned is called. */
export function watchStatus() {
  return follow({
    path: "status/stream",
    poll: async () => [{ status: await get("status") }, { activity: await get("activity") }],
    onMessage: take,
    onProblem: (p) => (problem.value = p),
  });
}

/** The longest time between two looks of the server for the stream is 5 s. */
const settles = 6_000;
/** @type {any} */
let later;

/**
 * Asks at once, after something was changed, and once more later: the stream tells only what differs
 * from what it told last, and what was changed and changed back between two looks does not.
 */
export async function refresh() {
  clearTimeout(later);
  later = setTimeout(() => void get("status").then((s) => take({ status: s }), () => {}), settles);
  take({ status: await get("status") });
}
