/** One re-scoring run: what it reads, its progress, its flips, its activation, and what can be done with it. */

import { useState } from "../../vendor/hooks.mjs";
import { call, useResource } from "../api.js";
import { Confirm } from "../components/confirm.js";
import { Icon } from "../components/icon.js";
import { nameOf, thumbnailOf } from "../components/inspection-card.js";
import { Progress } from "../components/progress.js";
import { describeSource } from "../components/run-source.js";
import { Resource } from "../components/states.js";
import { Time } from "../components/time.js";
import { showToast } from "../components/toast.js";
import { Verdict } from "../components/verdict.js";
import { integer, number } from "../format.js";
import { html } from "../html.js";
import { href } from "../router.js";
import { t, tCode } from "../strings.js";
import { GateDialog, GateOutcomes } from "./run-gate.js";

const ACTIONS = { queued: ["pause", "cancel"], running: ["pause", "cancel"], paused: ["resume", "cancel"] };
const ICONS = { pause: "pause", resume: "play", cancel: "x" };
const LOOKS = { failed: "ng", completed: "ok" };
const COUNTS = ["ok_to_ng", "ng_to_ok", "ok", "ng", "review", "failed"];
const SHOWN_FLIPS = 24;

const change = (run, action) => call(`/v1/rescore-runs/${run.id}/${action}`, { method: "POST" });

/** @param {(run: object) => void} onChanged called with the run as it is after a change. */
export function Run({ run, may, onChanged }) {
  const { counts, model } = run;
  const [asking, setAsking] = useState(null);
  const names = run.kind === "challenger" ? [...COUNTS, "skipped"] : COUNTS;
  return html`<section class="panel" aria-label=${t("rescoring.run", { id: run.id })}>
    <header class="row">
      <span class=${`verdict ${LOOKS[run.status] ?? ""}`}>${tCode("run", run.status)}</span>
      <h2>${run.recipe}, ${t("model.version", { version: model.version })}</h2>
      ${run.kind === "challenger" && html`<span class="soft small">${t("rescoring.challenger")}</span>`}
      <${Actions} run=${run} may=${may} onAsk=${setAsking} onChanged=${onChanged} />
    </header>
    <${HowFar} run=${run} />
    <dl class="figures counts">
      ${names.map((name) => html`<div class="figure">
        <dt>${t(`rescoring.${name}`)}</dt><dd>${integer(counts[name])}</dd></div>`)}
    </dl>
    <${Facts} run=${run} />
    ${run.reason && html`<p class="light ng"><${Icon} name="triangle-alert" />${run.reason}</p>`}
    ${counts.ok_to_ng + counts.ng_to_ok > 0 && html`<${Flips} run=${run} />`}
    ${run.activation && html`<${Activation} run=${run} may=${may} onAsk=${setAsking} />`}
    <${Question} run=${run} asking=${asking} onClose=${() => setAsking(null)} onChanged=${onChanged} />
  </section>`;
}

function Actions({ run, may, onAsk, onChanged }) {
  const act = async (action) => {
    try {
      onChanged(await change(run, action));
    } catch (problem) {
      showToast(problem.message);
    }
  };
  const judged = run.status === "completed" || (run.kind === "challenger" && run.status === "running");
  const report = `/v1/rescore-runs/${run.id}/report?format=html`;
  return html`<span class="push row">
    ${may && (ACTIONS[run.status] ?? []).map((action) => html`
      <button onClick=${() => (action === "cancel" ? onAsk("cancel") : act(action))}>
        <${Icon} name=${ICONS[action]} />${t(`action.${action}`)}</button>`)}
    ${run.progress.done > 0 && html`
      <a class="button" href=${report} target="_blank" rel="noopener">${t("rescoring.report")}</a>`}
    ${may && judged && run.activation?.state !== "active" && html`
      <button onClick=${() => onAsk("activate")}>${t("action.activate")}</button>`}
  </span>`;
}

/** A challenger has no end; a run over an archive has a total once it is counted. */
function HowFar({ run }) {
  const { progress, counts } = run;
  if (run.kind === "challenger") {
    return html`<p>${t("rescoring.scored", { count: progress.done, number: integer(progress.done) })}</p>`;
  }
  const running = run.status === "running";
  return html`<${Progress} done=${progress.done} total=${counts.total} rate=${running ? progress.rate : null}
    secondsLeft=${running ? progress.seconds_left : null} />`;
}

function Facts({ run }) {
  const limits = run.review_threshold === null
    ? number(run.threshold)
    : t("rescoring.limits", { threshold: number(run.threshold), review: number(run.review_threshold) });
  return html`<dl class="facts">
    <dt>${t("rescoring.source")}</dt><dd>${describeSource(run.source)}</dd>
    ${run.threshold !== null && html`<dt>${t("rescoring.option.threshold")}</dt><dd>${limits}</dd>`}
    ${run.window && html`<dt>${t("rescoring.window")}</dt><dd>${run.window} (${run.time_zone})</dd>`}
    <dt>${t("rescoring.started.by")}</dt><dd>${run.created_by}, <${Time} at=${run.created_at} /></dd>
    ${run.finished_at && html`<dt>${t("rescoring.finished")}</dt><dd><${Time} at=${run.finished_at} /></dd>`}
  </dl>`;
}

/** The images whose verdict would change, read once a person opens them. */
function Flips({ run }) {
  const [open, setOpen] = useState(false);
  const path = `/v1/rescore-runs/${run.id}`;
  const flips = useResource(open ? `${path}/flips` : null, { query: { limit: SHOWN_FLIPS } });
  return html`<details onToggle=${(event) => setOpen(event.target.open)}>
    <summary>${t("rescoring.flips")}</summary>
    <div class="stack"><${Resource} of=${flips}>${({ items, next_cursor: more }) => html`
      <ul class="strip">
        ${items.map((result) => html`<${Flip} key=${result.number} result=${result} recipe=${run.recipe} />`)}
      </ul>
      <div class="row">
        ${more && html`<span class="soft">${t("rescoring.flips.first", { count: integer(items.length) })}</span>`}
        <a class="button" href=${href(`${path}/export`, { format: "csv", flips: true })} download>
          ${t("gallery.export", { format: "CSV" })}</a>
      </div>`}<//></div>
  </details>`;
}

/** Images of a folder or a manifest have no inspection, so no thumbnail. */
function Flip({ result, recipe }) {
  const id = result.inspection_id;
  const name = id ? nameOf({ ...result, id }) : result.external_id ?? result.path;
  return html`<li class="stack tight small">
    ${id
      ? html`<a href=${href(`/inspections/${id}`, { recipe })}>
          <img src=${thumbnailOf(id)} alt=${t("card.image", { name })} width="256" height="256" loading="lazy" /></a>`
      : name}
    <span class="flip"><${Verdict} value=${result.before.verdict} /> → <${Verdict} value=${result.verdict} /></span>
  </li>`;
}

function Activation({ run, may, onAsk }) {
  const { state, by, at, version_before: before, gate } = run.activation;
  const { rolled_back_by: undoneBy, rolled_back_at: undoneAt } = run.activation;
  const values = { version: run.model.version, before: before ?? "–", by };
  return html`<div class="stack tight" role="group" aria-label=${t("rescoring.activation")}>
    <div class="row">
      <span class="light ok"><${Icon} name="check" />${t("rescoring.activated", values)}</span>
      <${Time} at=${at} />
      ${state === "active" && may && html`<button class="push" onClick=${() => onAsk("rollback")}>
        <${Icon} name="undo-2" />${t("action.rollback")}</button>`}
    </div>
    ${state === "rolled_back" && html`<div class="row">
      <span class="light review"><${Icon} name="undo-2" />${t("rescoring.rolledBack", { by: undoneBy })}</span>
      <${Time} at=${undoneAt} /></div>`}
    <details><summary>${t("rescoring.gate")}</summary><${GateOutcomes} outcomes=${gate} /></details>
  </div>`;
}

/** The question that a person has to answer before something happens. */
function Question({ run, asking, onClose, onChanged }) {
  if (asking === null) return null;
  if (asking === "activate") return html`<${GateDialog} run=${run} onClose=${onClose} onActivated=${onChanged} />`;
  const act = async () => {
    const answer = await change(run, asking);
    onChanged(asking === "rollback" ? answer.run : answer);
    if (asking === "rollback") showToast(t("model.activated", { version: answer.model_version.version }));
  };
  return html`<${Confirm} title=${t(`rescoring.${asking}.title`)} yes=${t(`rescoring.${asking}.yes`)}
    onYes=${act} onClose=${onClose}><p>${t(`rescoring.${asking}.text`)}</p><//>`;
}
