/** Re-scoring: count first, then start; progress with rate and time left; report with flips, gate and schedules. */

import { useState } from "../../vendor/hooks.mjs";
import { call, useResource } from "../api.js";
import { Dialog } from "../components/dialog.js";
import { Icon } from "../components/icon.js";
import { Progress } from "../components/progress.js";
import { Empty, Resource } from "../components/states.js";
import { Time } from "../components/time.js";
import { showToast } from "../components/toast.js";
import { integer } from "../format.js";
import { html } from "../html.js";
import { href } from "../router.js";
import { useMay } from "../session.js";
import { t, tCode } from "../strings.js";
import { StartRun } from "./start-run.js";

const ACTIONS = { queued: ["pause", "cancel"], running: ["pause", "cancel"], paused: ["resume", "cancel"] };
const ICONS = { pause: "pause", resume: "play", cancel: "x" };

export function Rescoring({ query }) {
  const runs = useResource("/v1/rescore-runs", { query: { recipe: query.recipe, limit: 50 }, every: 3_000 });
  const [starting, setStarting] = useState(false);
  const may = useMay("admin");
  return html`
    <div class="view-head"><h1>${t("nav.rescoring")}</h1><p>${t("rescoring.text")}</p>
      ${may && html`<div class="actions"><button class="primary" onClick=${() => setStarting(true)}><${Icon} name="plus" />${t("rescoring.start")}</button></div>`}
    </div>
    <${Resource} of=${runs}>${({ items }) => (items.length === 0
      ? html`<${Empty} title=${t("rescoring.none")}><p>${t("rescoring.none.next")}</p><//>`
      : items.map((run) => html`<${Run} key=${run.id} run=${run} may=${may} onChanged=${runs.reload} />`))}<//>
    <${Schedules} recipe=${query.recipe} may=${may} />
    ${starting && html`<${StartRun} recipe=${query.recipe} onClose=${() => setStarting(false)} onStarted=${runs.reload} />`}
  `;
}

function Run({ run, may, onChanged }) {
  const { counts, progress, model } = run;
  const [asking, setAsking] = useState(null);
  const act = async (action) => {
    setAsking(null);
    try {
      await call(`/v1/rescore-runs/${run.id}/${action}`, { method: "POST", json: action === "activate" ? {} : undefined });
    } catch (problem) {
      showToast(problem.message);
    }
    onChanged();
  };
  const ask = (action) => (action === "cancel" || action === "activate" ? setAsking(action) : act(action));
  return html`<section class="panel">
    <header class="row">
      <span class=${`verdict ${run.status === "failed" ? "ng" : run.status === "completed" ? "ok" : ""}`}>${tCode("run", run.status)}</span>
      <h2>${run.recipe}, ${t("model.version", { version: model.version })}</h2>
      <span class="soft small">${run.kind === "challenger" ? t("rescoring.challenger") : describeSource(run.source)} · <${Time} at=${run.created_at} /></span>
      <span class="push row">
        ${may && (ACTIONS[run.status] ?? []).map((action) => html`<button onClick=${() => ask(action)}><${Icon} name=${ICONS[action]} />${t(`action.${action}`)}</button>`)}
        ${progress.done > 0 && html`<a class="button" href=${`/v1/rescore-runs/${run.id}/report?format=html`} target="_blank" rel="noopener">${t("rescoring.report")}</a>`}
        ${may && run.status === "completed" && !run.activation && html`<button onClick=${() => ask("activate")}>${t("action.activate")}</button>`}
      </span>
    </header>
    <${Progress} done=${progress.done} total=${counts.total} rate=${run.status === "running" ? progress.rate : null} secondsLeft=${run.status === "running" ? progress.seconds_left : null} />
    <dl class="figures">
      ${["ok_to_ng", "ng_to_ok", "ok", "ng", "review", "failed"].map((name) => html`<div class="figure"><dt>${t(`rescoring.${name}`)}</dt><dd class="small">${integer(counts[name])}</dd></div>`)}
    </dl>
    ${run.reason && html`<p>${run.reason}</p>`}
    ${asking && html`<${Dialog} title=${t(`rescoring.${asking}.title`)} onClose=${() => setAsking(null)}>
      <p>${t(`rescoring.${asking}.text`)}</p>
      <div class="row"><button class="primary" onClick=${() => act(asking)}>${t(`action.${asking}`)}</button><button onClick=${() => setAsking(null)}>${t("action.back")}</button></div>
    <//>`}
  </section>`;
}

/** What a run reads, in a few words. */
function describeSource(source) {
  const [kind, value] = Object.entries(source)[0] ?? ["where", {}];
  if (kind !== "where") return `${t(`rescoring.source.${kind}`)}: ${typeof value === "string" ? value : JSON.stringify(value)}`;
  const conditions = Object.entries(value).map(([name, each]) => `${tCode("filter", name)} ${each}`);
  return conditions.length > 0 ? conditions.join(", ") : t("rescoring.source.everything");
}

function Schedules({ recipe, may }) {
  const schedules = useResource("/v1/rescore-schedules", { every: 30_000 });
  const remove = async (id) => {
    await call(`/v1/rescore-schedules/${id}`, { method: "DELETE" });
    schedules.reload();
  };
  return html`<section class="stack"><h2>${t("rescoring.schedules")}</h2>
    <${Resource} of=${schedules}>${({ items }) => {
      const shown = items.filter((each) => !recipe || each.run.recipe === recipe);
      if (shown.length === 0) return html`<p class="soft">${t("rescoring.schedules.none")} <code>linewatch rescore --schedule</code></p>`;
      return html`<div class="panel flush" tabindex="0"><table><thead><tr><th>${t("rescoring.schedule")}</th><th>${t("field.recipe")}</th><th>${t("rescoring.cron")}</th><th>${t("rescoring.next")}</th><th></th></tr></thead>
        <tbody>${shown.map((each) => html`<tr><td>${each.name}</td><td><a href=${href("/rescoring", { recipe: each.run.recipe })}>${each.run.recipe}</a></td><td><code>${each.cron}</code> ${each.time_zone}</td>
          <td><${Time} at=${each.next_at} /></td><td class="number">${may && html`<button onClick=${() => remove(each.id)}>${t("action.remove")}</button>`}</td></tr>`)}</tbody></table></div>`;
    }}<//></section>`;
}
