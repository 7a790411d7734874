// The page of rowhook dev: how the receiver answers, and what runs. SQL, deliveries and the
// configuration have modules of their own.

import { get, may, me, post, remove } from "../lib/api.js";
import { answerWords } from "../lib/dev.js";
import { html, useState } from "../lib/html.js";
import { useLoad } from "../lib/load.js";
import { visible } from "../lib/visible.js";
import { Copy } from "../parts/copy.js";
import { Empty, Failed, Light, Loading } from "../parts/parts.js";
import { say, sayProblem } from "../parts/say.js";
import { Configuration } from "./dev-config.js";
import { Deliveries } from "./dev-deliveries.js";
import { SQL } from "./dev-sql.js";

export function Dev() {
  if (!me.value.dev) return html`<${Empty} title="Only rowhook dev has this page"><a href="#/">Go to the overview</a><//>`;
  return html`<${Page} />`;
}

function Page() {
  const { data: about, problem, again } = useLoad((abort) => get("dev", {}, abort), [], 5000);
  if (!about) return problem ? html`<${Failed} problem=${problem} again=${again} />` : html`<${Loading} what="what runs" />`;
  return html`<h1>Try it out</h1>
    <div class="dev"><${SQL} about=${about} /><${Answers} triggers=${about.triggers} /></div>
    <${Deliveries} about=${about} />
    <${Configuration} applied=${again} />
    <${Runs} about=${about} />`;
}

/** @param {{about: any}} props */
function Runs({ about }) {
  const row = (/** @type {string} */ what, /** @type {string | null} */ value, /** @type {any} */ also = "") =>
    html`<div><dt>${visible(what)}</dt><dd>${value !== null && html`<span class="mono">${visible(value)}</span> <${Copy} text=${value} what=${what} />`}${also}</dd></div>`;
  return html`<section><h2>What runs</h2><dl class="detail">
    ${row("Receiver", about.sink_url, about.to_sink ? ", which gets all deliveries" : ", which gets nothing without --sink")}
    ${row("Forwarded to", about.forward_to, about.forward_to === null && "nobody: --forward-to URL sends deliveries on to an app")}
    ${row("Database", null, `${visible(me.value.database)}: the output of rowhook dev says how psql opens it`)}
    ${row("Configuration", about.config, about.config === null && "the sample: rowhook dev -f rowhook.yaml takes your own")}
    ${about.triggers.map((/** @type {any} */ t) => row(t.name, t.url, `${t.signed ? ", signed" : ""}${t.forward_url ? `, forwarded to ${visible(t.forward_url)}` : ""}`))}</dl></section>`;
}

/** @param {{triggers: any[]}} props */
function Answers({ triggers }) {
  const { data, problem, again } = useLoad((abort) => get("dev/answer", {}, abort), [], 3000);
  const change = async (/** @type {Promise<any>} */ asked, /** @type {string} */ words) => {
    try {
      await asked;
      say(words);
    } catch (e) {
      sayProblem(e);
    }
    again();
  };
  const put = (/** @type {any} */ a) => change(post("dev/answer", a, { method: "PUT" }), `${a.trigger ?? "All triggers"}: ${answerWords(a)}`);
  const answers = data?.answers ?? [];
  const who = (/** @type {any} */ a) => a.trigger ?? (answers.length > 1 ? "all others" : "all triggers");
  // The answer for all goes alone if it is set to the usual one: a removal without a name removes every one.
  const back = (/** @type {any} */ a) => (!a.trigger && answers.length > 1 ? put({ status: 200 }) : change(remove(`dev/answer${a.trigger ? `?trigger=${encodeURIComponent(a.trigger)}` : ""}`), `${who(a)}: ${answerWords({})}`));
  return html`<section><h2>The answer it gives next</h2>${!data && (problem ? html`<${Failed} problem=${problem} again=${again} />` : html`<${Loading} what="how the receiver answers" />`)}
    <ul class="plainlist" aria-live="polite">${data && answers.length === 0 && html`<li><${Light} kind="ok">all triggers: ${answerWords({})}<//></li>`}
      ${answers.map((/** @type {any} */ a) => html`<li key=${a.trigger}><${Light} kind=${a.hang || a.status > 299 ? "bad" : a.delay ? "wait" : "ok"}>${who(a)}: ${answerWords(a)}<//>
        ${may("pause") && html`<button class="quiet" aria-label="Reset ${who(a)}" onClick=${() => back(a)}>Reset</button>`}</li>`)}</ul>
    ${may("pause") && html`<${Form} triggers=${triggers} put=${put} />`}</section>`;
}

/** @param {{triggers: any[], put: (answer: any) => void}} props */
function Form({ triggers, put }) {
  const [form, setForm] = useState({ trigger: "", status: "503", hang: false, delay: "", share: "100" });
  const field = (/** @type {string} */ name) => ({ value: /** @type {any} */ (form)[name], onInput: (/** @type {any} */ e) => setForm((f) => ({ ...f, [name]: e.target.value })) });
  const { hang, delay } = form;
  const answer = {
    trigger: form.trigger || null, ...(hang ? { hang } : { status: Number(form.status) }), ...(delay.trim() && !hang ? { delay: delay.trim() } : {}), ...(form.share === "100" ? {} : { share: Number(form.share) / 100 }),
  };
  const onSubmit = (/** @type {Event} */ e) => {
    e.preventDefault();
    put(answer);
  };
  return html`<form class="answer" onSubmit=${onSubmit}>
    <label>Events of <select ...${field("trigger")}><option value="">all triggers</option>${triggers.map((t) => html`<option key=${t.name}>${t.name}</option>`)}</select></label>
    <label>Status <input type="number" min="200" max="599" required disabled=${hang} ...${field("status")} /></label>
    <label>After <input size="6" placeholder="0s" disabled=${hang} title="such as 500ms or 2s, up to 10m" ...${field("delay")} /></label>
    <label>Share in % <input type="number" min="1" max="100" required ...${field("share")} /></label>
    <label><span><input type="checkbox" checked=${hang} onChange=${() => setForm((f) => ({ ...f, hang: !hang }))} /> No answer</span></label>
    <button class="main" type="submit">Set</button></form>
    <p class="sub">${form.trigger || "All triggers"}: ${answerWords(answer)}</p>`;
}
