// Events: chosen by words, live, and changed one by one or all that match.

import { get, may, me, Problem } from "../lib/api.js";
import { exportEvents } from "../lib/download.js";
import { parse, toFilter, toQuery, words } from "../lib/filter.js";
import { ago, bytes, count, exact, now, plural } from "../lib/format.js";
import { html, useEffect, useMemo, useRef, useState } from "../lib/html.js";
import { listen } from "../lib/keys.js";
import { cutOff, follow } from "../lib/live.js";
import { go, link, route } from "../lib/route.js";
import { Arrivals, merge } from "../lib/rows.js";
import { status } from "../lib/status.js";
import { visible } from "../lib/visible.js";
import { bulk, hide, show } from "../parts/bulk.js";
import { Answer, cut, moment, Outlook, settled } from "../parts/eventcells.js";
import { FilterBox } from "../parts/filterbox.js";
import { Empty, EventState, Failed, Loading, When } from "../parts/parts.js";
import { say, sayProblem } from "../parts/say.js";

const perPage = 100;
/** Live rows are drawn at most this often, in ms. */
const drawEvery = 200;
/** How often is asked what became of rows that are not settled, in ms. */
const askEvery = 3000;

export function Events() {
  const q = route.value.query.get("q") ?? "";
  const before = route.value.query.get("before") ?? "";
  const { terms, faults } = useMemo(() => parse(q), [q]);
  const find = (/** @type {string} */ text) => go(link("events", "", { q: text }));
  const withheld = !may("payloads") && terms.find((t) => words[t.word.split(".")[0]].data);
  return html`<h1 class="hidden">Events</h1><${FilterBox} id="filter" value=${q} submit=${find} />
    ${withheld && html`<${Empty} title="This token can't search by ${visible(withheld.word)}">What is found would tell what is in the data. Whoever runs Rowhook gives a token that may:
      <code>rowhook token add NAME --scope status,payloads</code>.<//>`}
    ${faults.length === 0 && !withheld && html`<${List} key=${`${q} ${before} ${cutOff.value}`} q=${q} terms=${terms} before=${before} />`}
    ${faults.length > 0 && html`<${Empty} title="This filter can't be read">Correct what is named above, or <a href=${link("events")}>look at all events</a>.<//>`}`;
}

/**
 * Whether a stream of new events would not tell what is in the list: it does not get through, or
 * events can match without being new.
 *
 * @param {import("../lib/filter.js").Term[]} terms
 */
const changing = (terms) => cutOff.value || terms.some(({ word }) => ["state", "error", "status", "kind", "id"].includes(word));

/**
 * The rows of a filter, kept up to date.
 *
 * @param {import("../lib/filter.js").Term[]} terms
 * @param {string} before the cursor of the page; "": the newest
 * @param {boolean} paused
 */
function useRows(terms, before, paused) {
  const [state, setState] = useState(/** @type {{rows: any[], next: string, back: string, problem: any, loaded: boolean}} */ ({ rows: [], next: "", back: "", problem: null, loaded: false }));
  const [fresh, setFresh] = useState({ count: 0, more: false });
  const [skipped, setSkipped] = useState(false);
  const [broken, setBroken] = useState(/** @type {any} */ (null));
  const waiting = useRef(new Arrivals());
  const held = useRef(paused);
  const rows = useRef(state.rows);
  rows.current = state.rows;
  held.current = paused;

  /** Puts what has arrived into the rows. */
  const draw = () => {
    if (held.current) {
      setFresh(waiting.current.fresh(rows.current));
      return;
    }
    const arrived = waiting.current.take();
    setFresh({ count: 0, more: false });
    if (arrived.length) setState((s) => put(s, arrived));
  };
  const drawing = useRef({ timer: /** @type {any} */ (0), last: 0 });
  const soon = () => {
    const d = drawing.current;
    d.timer ||= setTimeout(() => requestAnimationFrame(() => {
      d.timer = 0;
      d.last = performance.now();
      draw();
    }), Math.max(0, drawEvery - (performance.now() - d.last)));
  };

  const load = async (/** @type {AbortSignal | undefined} */ abort) => {
    const page = await get("events", { .../** @type {any} */ (toQuery(terms, now.value)), limit: perPage, cursor: before }, abort);
    setState((s) => {
      // What the stream has brought since the server looked is newer than all of the page.
      const newer = changing(terms) || before ? [] : s.rows.filter((e) => e.id > (page.events[0]?.id ?? ""));
      return { rows: merge(page.events, newer), next: page.next ?? "", back: page.looked_back_to ?? "", problem: null, loaded: true };
    });
  };

  useEffect(() => {
    const abort = new AbortController();
    const failed = (/** @type {any} */ e) => {
      if (!abort.signal.aborted) setState((s) => ({ ...s, problem: e, loaded: true }));
    };
    void load(abort.signal).catch(failed);
    const newest = !before && streams(terms);
    const polls = newest && changing(terms);
    /** @type {any} */
    let timer;
    let first = newest; // what was recorded between the first load and the beginning of the stream
    const again = async () => {
      timer = setTimeout(again, askEvery);
      if (document.hidden) return;
      try {
        if ((polls || first) && !held.current) {
          first = false;
          return await load(abort.signal);
        }
        if (polls) {
          const page = await get("events", { .../** @type {any} */ (toQuery(terms, now.value)), limit: perPage }, abort.signal);
          for (const e of page.events) waiting.current.add(e);
          return draw();
        }
        const open = rows.current.filter((e) => !settled(e)).slice(0, 50).map((e) => e.id);
        if (!open.length || held.current) return;
        const { events } = await get("events", { id: open, limit: perPage }, abort.signal);
        if (!abort.signal.aborted) setState((s) => put(s, events));
      } catch (e) {
        if (!(e instanceof Problem) || e.status !== 0) failed(e); // without a connection the frame says so
      }
    };
    timer = setTimeout(again, askEvery);
    /** @type {() => void} */
    let stop = () => {};
    // What came while there was no stream is in the list.
    const catchUp = () => {
      if (!held.current) void load(abort.signal).catch(failed);
    };
    if (newest && !polls) {
      stop = follow({
        path: "events/tail", query: /** @type {any} */ (toQuery(terms.filter((t) => t.word !== "since"), now.value)),
        onMessage: (message) => {
          if (message.skipped) {
            setSkipped(true);
            return;
          }
          if (!message.id) {
            setBroken(message);
            return;
          }
          waiting.current.add(message);
          soon();
        },
        onOpen: catchUp,
        onProblem: setBroken,
      });
      document.addEventListener("visibilitychange", seen);
    }
    function seen() {
      if (!document.hidden) catchUp();
    }
    return () => {
      abort.abort();
      clearTimeout(timer);
      clearTimeout(drawing.current.timer);
      document.removeEventListener("visibilitychange", seen);
      stop();
    };
  }, []);
  useEffect(() => {
    if (!paused) draw();
  }, [paused]);
  return {
    ...state, fresh, skipped, broken, reload: () => {
      setSkipped(false);
      return load(undefined).catch((e) => setState((s) => ({ ...s, problem: e })));
    },
  };
}

/** Whether new events can be among those that are chosen. @param {import("../lib/filter.js").Term[]} terms */
const streams = (terms) => !terms.some((t) => t.word === "until");

/** @param {any} s @param {any[]} arrived */
function put(s, arrived) {
  const rows = merge(s.rows, arrived);
  const whole = rows.length === new Set([...s.rows, ...arrived].map((e) => e.id)).size;
  return { ...s, rows, next: whole ? s.next : rows[rows.length - 1].id, back: whole ? s.back : "" };
}

/** @param {{q: string, terms: import("../lib/filter.js").Term[], before: string}} props */
function List({ q, terms, before }) {
  const [paused, setPaused] = useState(false);
  const [chosen, setChosen] = useState(/** @type {Set<string>} */ (new Set()));
  const { rows, next, back, problem, loaded, fresh, skipped, broken, reload } = useRows(terms, before, paused);
  const table = useRef(/** @type {any} */ (null));
  const live = !before && streams(terms);

  const toggle = (/** @type {string} */ id) => {
    setChosen((all) => {
      const next = new Set(all);
      if (!next.delete(id)) next.add(id);
      return next;
    });
  };
  useEffect(() => {
    const row = () => /** @type {any} */ (document.activeElement)?.closest("tr[data-id]");
    const move = (/** @type {number} */ by) => {
      const all = [...(table.current?.querySelectorAll("tr[data-id]") ?? [])];
      const at = all.indexOf(row());
      const to = all[at < 0 ? (by > 0 ? 0 : all.length - 1) : Math.min(all.length - 1, Math.max(0, at + by))];
      to?.querySelector("a").focus();
      to?.scrollIntoView({ block: "nearest" });
    };
    const ends = [listen("j", "next event", () => move(1)), listen("k", "previous event", () => move(-1))];
    ends.push(listen("x", "select the event, or not", () => {
      const id = row()?.dataset.id;
      if (id && (may("redeliver") || may("discard"))) toggle(id);
    }));
    if (live) ends.push(listen("p", "pause the list, or let it go on", () => setPaused((p) => !p)));
    return () => ends.forEach((end) => end());
  }, [live]);

  if (!loaded) return html`<${Loading} what="events" />`;
  if (problem && !rows.length) return html`<${Failed} problem=${problem} again=${reload} />`;
  const changed = () => {
    setChosen(new Set());
    return reload();
  };
  return html`<${Tools} q=${q} terms=${terms} chosen=${chosen} rows=${rows} clear=${() => setChosen(new Set())} changed=${changed} live=${live} paused=${paused}
      setPaused=${setPaused} fresh=${fresh} before=${before} />
    ${problem && html`<${Failed} problem=${problem} again=${reload} />`}
    ${broken && html`<${Failed} problem=${broken} />`}
    ${skipped && html`<p class="note w" role="status"><span class="s wait">Events come faster than they can be shown, so some are left out here. None is lost.</span> <span class="do"><button onClick=${reload}>Load the list anew</button></span></p>`}
    ${rows.length === 0 && !back && html`<${Nothing} terms=${terms} before=${before} />`}
    ${rows.length > 0 && html`<div ref=${table}><${Table} rows=${rows} chosen=${chosen} toggle=${toggle} setChosen=${setChosen} /></div>`}
    <${Pages} q=${q} rows=${rows} next=${next} back=${back} before=${before} />`;
}

/** @param {{terms: any[], before: string}} props */
function Nothing({ terms, before }) {
  if (before) return html`<${Empty} title="There are no older events that match" />`;
  if (terms.length) return html`<${Empty} title="No event matches">Take a word away, or <a href=${link("events")}>look at all events</a>. Delivered events are deleted after their retention.<//>`;
  const triggers = status.value?.triggers.length;
  return html`<${Empty} title="There are no events yet">${triggers === 0
    ? html`No trigger is applied: write one into rowhook.yaml and run <code>rowhook apply</code>.`
    : "Change a row of a table that a trigger watches: its event appears here by itself."}<//>`;
}

/** @param {{q: string, rows: any[], next: string, back: string, before: string}} props */
function Pages({ q, rows, next, back, before }) {
  const to = (/** @type {string} */ cursor) => link("events", "", { q, before: cursor });
  return html`<nav class="pages" aria-label="Pages of events">
    ${before && html`<a class="button" href=${to("")}>Newest</a>`}
    ${next && !back && html`<a class="button" href=${to(next)}>Older</a>`}
    ${next && back && html`<span>${rows.length ? "Looked back" : "Nothing found yet. Looked back"} to <time datetime=${back} title=${exact(back)}>${moment(back)}</time> (${ago(back)}), which took as long as a page may.</span>
      <a class="button" href=${to(next)}>Search on</a>`}
    ${!next && rows.length > 0 && html`<span class="z">This is the oldest.</span>`}
  </nav>`;
}

/**
 * @param {{q: string, terms: any[], chosen: Set<string>, rows: any[], clear: () => void, changed: () => void, live: boolean, paused: boolean, setPaused: (p: boolean) => void,
 *   fresh: {count: number, more: boolean}, before: string}} props
 */
function Tools({ q, terms, chosen, rows, clear, changed, live, paused, setPaused, fresh, before }) {
  const some = chosen.size > 0;
  const change = async (/** @type {"redeliver" | "discard"} */ kind) => {
    const ids = [...chosen];
    if (await bulk(kind, { ids }, ids.length === 1 ? "the event that you have selected" : "the events that you have selected")) changed();
  };
  const all = async (/** @type {"redeliver" | "discard"} */ kind) => {
    const filter = matching(kind, terms);
    if (!filter) {
      say("Delivered events can't be discarded; they are deleted after their retention", { bad: true });
      return;
    }
    const states = terms.some((t) => t.word === "state" || t.word === "id") ? "" : ", of which only dead letters are chosen, since the filter names no state";
    if (await bulk(kind, filter, q ? `all events that match, recorded until now${states}` : "all dead letters that were recorded until now")) changed();
  };
  return html`<div class="tools">
    <span class="do">${live && html`<span class="s ${paused ? "pause" : "ok"}">${paused ? "paused" : changing(terms) ? "looked at every 3 s" : "live"}</span>
      <button aria-pressed=${paused} onClick=${() => setPaused(!paused)}>${paused ? `Go on${fresh.count ? ` (${fresh.more ? "more than " : ""}${count(fresh.count)} new)` : ""}` : "Pause"}</button>`}
      ${!live && html`<span class="sub">${before ? "older events" : "until ends the list, so nothing new comes"}</span>`}
      <span class="hidden" role="status">${paused && fresh.count > 0 ? `${fresh.count} new events` : ""}</span></span>
    <span class="do">${some && html`<span role="status">${plural(chosen.size, "event")} selected</span>
      ${may("redeliver") && html`<button onClick=${() => change("redeliver")}>Redeliver…</button>`}
      ${may("discard") && html`<button onClick=${() => change("discard")}>Discard…</button>`}<button class="quiet" onClick=${clear}>Clear</button>`}
    ${!some && rows.length > 0 && html`${may("redeliver") && html`<button onClick=${() => all("redeliver")}>Redeliver all that match…</button>`}
      ${may("discard") && html`<button onClick=${() => all("discard")}>Discard all that match…</button>`}
      ${may("payloads") && html`<button onClick=${() => download(toQuery(terms, now.value), "events")}>Download…</button>`}`}</span></div>`;
}

/**
 * The filter of a change of all that match, fixed at this moment: what is recorded later is not
 * meant. null: none of it can be changed so.
 *
 * @param {"redeliver" | "discard"} kind
 * @param {import("../lib/filter.js").Term[]} terms
 */
export function matching(kind, terms) {
  const filter = toFilter(toQuery(terms, now.value));
  filter.until ??= new Date(now.value).toISOString();
  if (!filter.states && !filter.ids) filter.states = ["dead"];
  if (kind === "discard" && filter.states) {
    filter.states = filter.states.filter((/** @type {string} */ s) => s !== "delivered");
    if (!filter.states.length) return null;
  }
  return filter;
}

/** Saves events, and shows how far that is. @param {import("../lib/filter.js").Query} query @param {string} what */
export async function download(query, what) {
  const abort = new AbortController();
  const id = `download ${what} ${Date.now()}`;
  const name = `${what.replace(/[^\w.-]+/g, "-")}-${new Date(now.value).toISOString().slice(0, 19).replaceAll(":", "")}.ndjson`;
  try {
    const events = await exportEvents(query, name, {
      abort: abort.signal, progress: (n, size) => show({ id, text: `${name}: ${plural(n, "event")}, ${bytes(size)}`, cancel: () => abort.abort() }),
    });
    if (events !== null) say(`${name} has ${plural(events, "event")}`);
  } catch (e) {
    if (abort.signal.aborted) say(`The download of ${name} is canceled`);
    else sayProblem(e);
  } finally {
    hide(id);
  }
}

/** @param {{rows: any[], chosen: Set<string>, toggle: (id: string) => void, setChosen: (all: Set<string>) => void}} props */
function Table({ rows, chosen, toggle, setChosen }) {
  const picks = may("redeliver") || may("discard");
  const every = rows.every((e) => chosen.has(e.id));
  const keys = rows.some((e) => e.key);
  return html`<table class="cards events"><caption class="hidden">Events, newest first</caption>
    <thead><tr>${picks && html`<th class="pick"><input type="checkbox" aria-label="Select all rows of this page" checked=${every} onChange=${() => setChosen(new Set(every ? [] : rows.map((e) => e.id)))} /></th>`}
      <th>Recorded</th><th>Trigger</th><th>Op</th>${keys && html`<th>Key</th>`}<th>State</th><th class="n">Attempts</th><th>Last answer</th></tr></thead>
    <tbody>${rows.map((e) => html`<${Row} key=${e.id} e=${e} picks=${picks} keys=${keys} picked=${chosen.has(e.id)} toggle=${toggle} />`)}</tbody></table>`;
}

/** @param {{e: any, picks: boolean, keys: boolean, picked: boolean, toggle: (id: string) => void}} props */
function Row({ e, picks, keys, picked, toggle }) {
  // A row that has not changed is not drawn anew: hundreds of them stand beside one that has.
  return useMemo(() => html`<tr data-id=${e.id} aria-selected=${picked}>
    ${picks && html`<td class="pick"><input type="checkbox" aria-label="Select the event of ${visible(e.trigger)} at ${moment(e.created_at)}" checked=${picked} onChange=${() => toggle(e.id)} /></td>`}
    <td><a class="name" href=${link("event", e.id)} title=${exact(e.created_at)}>${moment(e.created_at)}</a><span class="sub"><${When} at=${e.created_at} /></span></td>
    <td>${visible(e.trigger)}<span class="sub">${visible(e.table)}</span></td>
    <td class="op">${e.op.toLowerCase()}</td>
    ${keys && html`<td class="key mono" data-l=${e.key ? "key" : undefined}>${e.key ? cut(visible(e.key), 60) : html`<span class="z">–</span>`}</td>`}
    <td><${EventState} state=${e.merged_into ? "merged" : e.state} /><${Outlook} e=${e} /></td>
    <td class=${e.attempts ? "n" : "n z"} data-l="attempts">${count(e.attempts)}</td>
    <td class="last">${e.last_attempt
      ? html`<${Answer} status=${e.last_attempt.status} kind=${e.last_attempt.kind} /><span class="sub"><${When} at=${e.last_attempt.started_at} /></span>`
      : html`<span class=${e.reason ? "sub" : "z"}>${e.reason ? cut(visible(e.reason)) : "–"}</span>`}</td></tr>`, [e, picks, keys, picked, me.value]);
}
