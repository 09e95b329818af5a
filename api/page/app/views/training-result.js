/** The result of a completed training: what it finds, what it would change, its report, and activation. */

import { useState } from "../../vendor/hooks.mjs";
import { call, useResource } from "../api.js";
import { Detectability } from "../components/detectability.js";
import { Dialog } from "../components/dialog.js";
import { Icon } from "../components/icon.js";
import { recipePath } from "../components/recipe-needed.js";
import { showToast } from "../components/toast.js";
import { Verdict } from "../components/verdict.js";
import { integer, number } from "../format.js";
import { html } from "../html.js";
import { href } from "../router.js";
import { t, tCode } from "../strings.js";

export function TrainingResult({ run, path, may, activeVersion, onChanged }) {
  const [asking, setAsking] = useState(false);
  const { result, recipe } = run;
  const { model_version: version, model_state: modelState, comparison } = result;
  const isActive = version === activeVersion;
  const activate = async () => {
    setAsking(false);
    try {
      await call(`${recipePath(recipe)}/model-versions/${version}/activate`, { method: "POST" });
      showToast(t("model.activated", { version }));
    } catch (problem) {
      showToast(problem.message);
    }
    onChanged();
  };
  return html`
    ${result.fit_for_use === false && html`<${Unfit} result=${result} />`}
    <dl class="facts">
      <dt>${t("model.title")}</dt><dd><a href=${href("/models", { recipe })}>${t("model.version", { version })}</a>,
        ${" "}${tCode("model", isActive ? "active" : modelState)}</dd>
      <dt>${t("model.architecture")}</dt><dd>${result.architecture}</dd>
      <dt>${t("model.threshold")}</dt><dd>${number(result.threshold)}</dd>
    </dl>
    <${Found} recipe=${recipe} result=${result} />
    ${comparison && html`<${Comparison} comparison=${comparison} recipe=${recipe} />`}
    <div class="row">
      <a class="button" href=${`${path}/${run.id}/report`} target="_blank" rel="noopener">${t("train.report")}</a>
      ${may && modelState === "ready" && !isActive && html`<button class="primary" onClick=${() => setAsking(true)}>
        ${t("train.activate")}</button>`}
    </div>
    ${asking && html`<${Dialog} title=${t("model.activate.title", { version })} onClose=${() => setAsking(false)}>
      <p>${t("model.activate.text")}</p>
      ${result.fit_for_use === false && html`<${Unfit} result=${result} />`}
      <div class="row"><button class="primary" onClick=${activate}>${t("action.activate")}</button>
        <button onClick=${() => setAsking(false)}>${t("action.back")}</button></div><//>`}
  `;
}

function Unfit({ result }) {
  return html`<div class="stack tight">
    <p class="light ng"><${Icon} name="triangle-alert" />${t("train.unfit")} ${result.reasons.join(" ")}</p>
    ${result.advice.map((advice) => html`<p class="soft small">${advice}</p>`)}</div>`;
}

/** What it finds and misses, in sentences and by size and contrast. */
function Found({ recipe, result }) {
  const version = useResource(`${recipePath(recipe)}/model-versions/${result.model_version}`);
  const detectability = version.data?.manifest.detectability;
  if (detectability) return html`<${Detectability} of=${detectability} />`;
  return result.statement.map((sentence) => html`<p>${sentence}</p>`);
}

/** What the version would have changed among the newest inspections, and how often it agrees with people. */
function Comparison({ comparison, recipe }) {
  const { inspections, missing, unscored, changes, trained_on: trainedOn, agreement } = comparison;
  const { agreement_without_training: others } = comparison;
  const left = missing + unscored;
  return html`<div class="stack comparison-text">
    <h3>${t("train.compared", { count: inspections, number: integer(inspections) })}</h3>
    ${changes.length === 0 && html`<p>${t("train.unchanged")}</p>`}
    <ul class="stack tight">${changes.map((change) => html`<${Change} change=${change} recipe=${recipe} />`)}</ul>
    ${agreement.reviewed > 0 && html`<p>${t("train.agreement", agreement)}</p>`}
    ${trainedOn > 0 && html`<p>${t("train.trainedOn", { count: trainedOn })} ${t("train.agreement", others)}</p>`}
    ${left > 0 && html`<p class="soft small">${t("train.leftOut", { missing, unscored })}</p>`}
  </div>`;
}

function Change({ change, recipe }) {
  return html`<li class="row"><${Verdict} value=${change.from} /> → <${Verdict} value=${change.to} />
    <strong>${integer(change.count)}</strong>
    ${change.examples.map((id) => html`<a class="small" href=${href(`/inspections/${id}`, { recipe })}>
      ${id.slice(-12)}</a>`)}</li>`;
}
