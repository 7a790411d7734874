// Dead letters: what Rowhook sends no more by itself, grouped by trigger and reason.

import { get, may } from "../lib/api.js";
import { toFilter, toQuery, write } from "../lib/filter.js";
import { count, now, plural } from "../lib/format.js";
import { reason, terms } from "../lib/groups.js";
import { html } from "../lib/html.js";
import { useLoad } from "../lib/load.js";
import { link, route } from "../lib/route.js";
import { status } from "../lib/status.js";
import { visible } from "../lib/visible.js";
import { bulk } from "../parts/bulk.js";
import { Answer, cut, EventLink } from "../parts/eventcells.js";
import { Empty, Failed, Loading, When } from "../parts/parts.js";
import { download } from "./events.js";

/** What reasons are, where the token does not show the texts of errors: by their kinds alone. */
const keys = () => ["trigger", "kind", "status", ...(may("payloads") ? ["error"] : [])];

export function Dead() {
  // The status tells how many there are: ask anew when that changes.
  const dead = status.value?.triggers.reduce((/** @type {number} */ n, /** @type {any} */ t) => n + t.dead, 0);
  const trigger = route.value.query.get("trigger") ?? "";
  const { data, problem, again } = useLoad((abort) => get("events/groups", { state: "dead", trigger, by: keys() }, abort), [dead, trigger], 15_000);
  if (!data) return problem ? html`<${Failed} problem=${problem} again=${again} />` : html`<${Loading} what="dead letters" />`;
  const all = data.groups.reduce((/** @type {number} */ n, /** @type {any} */ g) => n + g.events, 0);
  if (!all && !data.more) {
    return html`<h1 class="hidden">Dead letters</h1><${Empty} title="There are no dead letters${trigger && ` of ${visible(trigger)}`}">An event becomes one after its last attempt, or where its trigger says that
      an answer is final. It stays here until somebody redelivers or discards it.
      ${trigger && html` <a class="link" href=${link("dead")}>Those of all triggers</a>`}<//>`;
  }
  return html`<div class="head"><h1>${data.more ? "More than " : ""}${plural(all, "dead letter")}${trigger && html` of <a href=${link("trigger", trigger)}>${visible(trigger)}</a>`}</h1>
      <span class="do">${trigger && html`<a class="button" href=${link("dead")}>Those of all triggers</a>`}
        ${may("payloads") && html`<button onClick=${() => download({ state: ["dead"], ...(trigger && { trigger: [trigger] }) }, "dead-letters")}>Download all…</button>`}</span></div>
    ${problem && html`<${Failed} problem=${problem} again=${again} />`}
    <p class="sub">Nothing happens to them by itself. Mend the cause first, then redeliver them; their receivers get them late, and perhaps twice.${data.more ? " Not all were counted in time." : ""}</p>
    <table class="cards dead"><caption class="hidden">Dead letters by trigger and reason, the largest group first</caption>
      <thead><tr><th>Trigger</th><th>Reason</th><th class="n">Events</th><th>First</th><th>Last</th><th scope="col"><span class="hidden">Actions</span></th></tr></thead>
      <tbody>${data.groups.map((/** @type {any} */ g) => html`<${Group} key=${JSON.stringify([g.trigger, g.kind, g.status, g.error])} g=${g} alone=${data.groups.filter((/** @type {any} */ o) => o.trigger === g.trigger).length === 1} again=${again} />`)}</tbody></table>`;
}

/** @param {{g: any, alone: boolean, again: () => void}} props alone: its trigger has no other group */
function Group({ g, alone, again }) {
  const chosen = terms(g) ?? (alone && g.trigger ? [{ word: "state", value: "dead" }, { word: "trigger", value: g.trigger }] : null);
  const why = reason(g);
  const change = async (/** @type {"redeliver" | "discard"} */ kind) => {
    // What dies later is not meant, as far as its recording tells.
    const filter = { ...toFilter(toQuery(chosen ?? [], now.value)), until: new Date(now.value).toISOString() };
    if (await bulk(kind, filter, `the dead letters of ${g.trigger}${why ? `: ${why}` : ""}`)) again();
  };
  const name = `${g.trigger}${why ? `: ${why}` : ""}`;
  return html`<tr>
    <td>${g.trigger ? html`<a class="name" href=${link("trigger", g.trigger)}>${visible(g.trigger)}</a>` : "others, in more groups than are told apart"}</td>
    <td class="why"><${Answer} status=${Number(g.status) || null} kind=${g.kind} also=${html`<span class="s bad">${cut(visible(why), 300) || "no reason is kept"}</span>`} />
      ${(g.status || g.kind) && why && html`<span class="sub">${cut(visible(why), 300)}</span>`}</td>
    <td class="n" data-l="events">${chosen ? html`<a href=${link("events", "", { q: write(chosen) })}>${count(g.events)}</a>` : count(g.events)}</td>
    <td data-l="first"><${When} at=${g.first_at} /></td>
    <td data-l="last"><${When} at=${g.last_at} />${g.example_id && html`<span class="sub"><${EventLink} id=${g.example_id}>an example<//></span>`}</td>
    <td><span class="do">${chosen && html`${may("redeliver") && html`<button aria-label="Redeliver ${visible(name)}" onClick=${() => change("redeliver")}>Redeliver…</button>`}
      ${may("discard") && html`<button aria-label="Discard ${visible(name)}" onClick=${() => change("discard")}>Discard…</button>`}
      ${may("payloads") && html`<button aria-label="Download ${visible(name)}" onClick=${() => download(toQuery(chosen), `dead-${g.trigger}`)}>Download…</button>`}`}</span></td></tr>`;
}
