// The frame around every page: who we are, where to go, and what is wrong with the connection.

import { identify, may, me, reachable, refused, show, signIn, signOut, source, sources, token } from "./lib/api.js";
import { count, setClock } from "./lib/format.js";
import { effect, html, render, useEffect, useRef, useState } from "./lib/html.js";
import { go, link, route } from "./lib/route.js";
import { problem, status, watchStatus } from "./lib/status.js";
import { Running } from "./parts/bulk.js";
import { Asked } from "./parts/dialog.js";
import { FilterBox } from "./parts/filterbox.js";
import { Help } from "./parts/help.js";
import { Empty, Failed, Loading } from "./parts/parts.js";
import { Notices } from "./parts/say.js";
import { Audit } from "./pages/audit.js";
import { Dead } from "./pages/dead.js";
import { Dev } from "./pages/dev.js";
import { Dispatchers } from "./pages/dispatchers.js";
import { Event as OneEvent } from "./pages/event.js";
import { Events } from "./pages/events.js";
import { Health } from "./pages/health.js";
import { Operations } from "./pages/operations.js";
import { Overview } from "./pages/overview.js";
import { Trigger } from "./pages/trigger.js";

/**
 * The pages: their path, what the navigation calls them, and who may see them. dev: rowhook dev alone has it.
 *
 * @type {{path: string, title: string, view: any, nav?: boolean, need?: string, dev?: boolean}[]}
 */
const pages = [
  { path: "", title: "Overview", view: Overview, nav: true },
  { path: "trigger", title: "Trigger", view: Trigger },
  { path: "events", title: "Events", view: Events, nav: true, need: "events" },
  { path: "event", title: "Event", view: OneEvent },
  { path: "dead", title: "Dead letters", view: Dead, nav: true, need: "events" },
  { path: "dispatchers", title: "Dispatchers", view: Dispatchers, nav: true },
  { path: "operations", title: "Operations", view: Operations, nav: true },
  { path: "health", title: "Health", view: Health, nav: true },
  { path: "audit", title: "Audit", view: Audit, nav: true, need: "audit" },
  { path: "dev", title: "Dev", view: Dev, nav: true, dev: true },
];

function App() {
  if (refused.value?.status === 401) return html`<${SignIn} />`;
  if (refused.value) return html`<main><${Source} /><${Failed} problem=${refused.value} again=${identify} /></main>`;
  if (!me.value) return html`<main><${Loading} what="who you are" /></main>`;
  return html`<${Frame} />`;
}

function Frame() {
  useEffect(watchStatus, [me.value]);
  const { page: path } = route.value;
  const page = pages.find((p) => p.path === path);
  const main = useRef(/** @type {any} */ (null));
  const visited = useRef(path);
  useEffect(() => {
    document.title = `${page?.title ?? "Not found"}${sources.value.length > 1 ? ` · ${source.value}` : ""} · Rowhook`;
    if (visited.current !== path) main.current.focus(); // a screen reader reads the new page
    visited.current = path;
  }, [path]);
  const dead = status.value?.triggers.reduce((/** @type {number} */ n, /** @type {any} */ t) => n + t.dead, 0) ?? 0;
  return html`
    <a class="skip" href="#main" onClick=${(/** @type {Event} */ e) => {
      e.preventDefault();
      main.current.focus();
    }}>Skip to the page</a>
    <header class="top"><b><a href="#/">Rowhook</a></b><${Source} /><span class="db">${me.value.database}</span>
      <nav aria-label="Pages">${pages.filter((p) => p.nav && (!p.need || may(p.need)) && (!p.dev || me.value.dev)).map((p) => html`<a key=${p.path} href=${link(p.path)} aria-current=${p.path === path ? "page" : undefined}>
        ${p.title}${p.path === "dead" && dead > 0 && html` <b>${count(dead)}</b>`}</a>`)}</nav>
      ${path !== "events" && may("events") && html`<div class="search"><${FilterBox} id="search" value="" submit=${(/** @type {string} */ q) => go(link("events", "", { q }))} /></div>`}
      <${Who} />
    </header>
    ${!reachable.value && html`<p class="gone" role="status">The server does not answer. What you see is what it said last; the page goes on by itself when it is back.</p>`}
    ${reachable.value && problem.value && html`<p class="gone" role="status">${problem.value.detail}${problem.value.remedy && `: ${problem.value.remedy}`}</p>`}
    <main id="main" ref=${main} tabindex="-1">${page ? html`<${page.view} key=${route.value.name} />` : html`<h1 class="hidden">Not found</h1><${Empty} title="There is no such page">
      <a href="#/">Go to the overview</a><//>`}</main>
    <${Running} /><${Asked} /><${Help} /><${Notices} />`;
}

/** The choice of a source, if there are several. */
function Source() {
  if (sources.value.length < 2) return null;
  return html`<select class="source" aria-label="Source" value=${source.value} onChange=${(/** @type {any} */ e) => show(e.target.value)}>
    ${sources.value.map((name) => html`<option key=${name} value=${name} selected=${name === source.value}>${name}</option>`)}</select>`;
}

function Who() {
  const { name, tokens } = me.value;
  if (!tokens) return null;
  return html`<span class="db who">${name ?? "token"} <button class="quiet" onClick=${signOut}>Sign out</button></span>`;
}

function SignIn() {
  const [text, setText] = useState("");
  const tried = token.value !== "";
  const onSubmit = (/** @type {Event} */ e) => {
    e.preventDefault();
    void signIn(text.trim());
  };
  return html`<main class="login"><h1>Rowhook</h1>
    <p>${tried ? "This token is not valid: it is mistyped, has ended, or was removed." : "A token is needed. It is kept for this tab only."}</p>
    <form onSubmit=${onSubmit}><label for="token">Token</label>
      <input id="token" type="password" required autocomplete="off" value=${text} onInput=${(/** @type {any} */ e) => setText(e.target.value)} />
      <button class="main" type="submit">Sign in</button></form>
    <p class="sub">Whoever runs Rowhook makes one by <code>rowhook token add NAME --scope status,payloads</code>, or finds one in ROWHOOK_HTTP_TOKEN.</p></main>`;
}

effect(() => {
  if (me.value?.now) setClock(me.value.now);
});
void identify();
render(html`<${App} />`, /** @type {Element} */ (document.getElementById("app")));
