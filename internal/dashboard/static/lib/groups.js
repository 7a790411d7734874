// Groups of dead letters, as words.

/**
 * What was the reason of a group: its text says it once. A dead letter's reason is that of its last
 * attempt, and a group has both, so most texts say it twice.
 *
 * @param {{error?: string}} group
 */
export function reason({ error = "" }) {
  const half = (error.length - 1) / 2;
  return Number.isInteger(half) && error[half] === " " && error.slice(0, half) === error.slice(half + 1) ? error.slice(0, half) : error;
}

/**
 * The terms that choose a group. null: no words choose it alone.
 *
 * @param {{trigger?: string, error?: string, status?: string, kind?: string}} group
 * @returns {import("./filter.js").Term[] | null}
 */
export function terms(group) {
  if (!group.trigger || !(group.error || group.status || group.kind)) return null;
  const out = [{ word: "state", value: "dead" }, { word: "trigger", value: group.trigger }];
  if (group.kind) out.push({ word: "kind", value: group.kind });
  if (group.status) out.push({ word: "status", value: group.status });
  const error = reason(group);
  if (error) out.push({ word: "error", value: error });
  return out;
}

