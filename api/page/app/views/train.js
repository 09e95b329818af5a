/** Train: from a folder of good parts or from inspections; progress, report, comparison, and then activate. */

import { useMemo, useState } from "../../vendor/hooks.mjs";
import { call, useResource } from "../api.js";
import { Chart, Legend } from "../components/chart.js";
import { Dialog } from "../components/dialog.js";
import { Icon } from "../components/icon.js";
import { Progress } from "../components/progress.js";
import { RecipeNeeded, recipePath } from "../components/recipe-needed.js";
import { Empty, Resource } from "../components/states.js";
import { Time } from "../components/time.js";
import { showToast } from "../components/toast.js";
import { duration, integer, number, percent } from "../format.js";
import { html } from "../html.js";
import { href } from "../router.js";
import { useMay } from "../session.js";
import { t, tCode } from "../strings.js";
import { StartTraining } from "./start-training.js";

const ACTIVE = ["open", "queued", "running"];
const LOOKS = { completed: "ok", failed: "ng" };

export function Train({ query }) {
  if (!query.recipe) return html`<div class="view-head"><h1>${t("nav.train")}</h1><p>${t("train.text")}</p></div><${RecipeNeeded} />`;
  return html`<${OfRecipe} key=${query.recipe} recipe=${query.recipe} />`;
}

function OfRecipe({ recipe }) {
  const path = `${recipePath(recipe)}/training-runs`;
  const runs = useResource(path, { every: 2_000 });
  const may = useMay("admin");
  return html`
    <div class="view-head"><h1>${t("nav.train")}</h1><p>${t("train.text")}</p></div>
    ${may && html`<${StartTraining} path=${path} onStarted=${runs.reload} />`}
    <${Resource} of=${runs}>${({ items }) => (items.length === 0
      ? html`<${Empty} title=${t("train.none")}><p>${t("train.none.next")}</p><//>`
      : items.map((run) => html`<${Run} key=${run.id} run=${run} path=${path} may=${may} onChanged=${runs.reload} />`))}<//>
  `;
}

function Run({ run, path, may, onChanged }) {
  const [asking, setAsking] = useState(false);
  const { progress, result } = run;
  const cancel = async () => {
    setAsking(false);
    try {
      await call(`${path}/${run.id}/cancel`, { method: "POST" });
    } catch (problem) {
      showToast(problem.message);
    }
    onChanged();
  };
  const images = Object.entries(run.images).map(([label, count]) => `${integer(count)} ${label}`).join(", ");
  return html`<section class="panel">
    <header class="row"><span class=${`verdict ${LOOKS[run.status] ?? ""}`}>${tCode("training", run.status)}</span><h2><${Time} at=${run.created_at} /></h2>
      <span class="soft small">${[images, run.elapsed_seconds !== null && duration(run.elapsed_seconds * 1000), run.attempt > 1 && t("train.attempt", { count: run.attempt })].filter(Boolean).join(" · ")}</span>
      ${may && ACTIVE.includes(run.status) && html`<button class="push" onClick=${() => setAsking(true)}><${Icon} name="x" />${t("action.cancel")}</button>`}</header>
    ${run.status === "running" && html`<p>${tCode("stage", progress.stage)}</p><${Progress} done=${progress.done ?? 0} total=${progress.total} secondsLeft=${progress.seconds_left} />`}
    ${progress.curve.length > 1 && html`<${Curve} curve=${progress.curve} />`}
    ${run.reason && html`<p class="light ng"><${Icon} name="triangle-alert" />${run.reason}</p>`}
    ${result && html`<${Result} run=${run} result=${result} path=${path} may=${may} />`}
    ${progress.notes.length > 0 && html`<details><summary>${t("train.notes", { count: progress.notes.length })}</summary><ul class="stack small">${progress.notes.map((note) => html`<li>${note}</li>`)}</ul></details>`}
    ${asking && html`<${Dialog} title=${t("train.cancel.title")} onClose=${() => setAsking(false)}><p>${t("train.cancel.text")}</p><div class="row"><button class="primary" onClick=${cancel}>${t("train.cancel.yes")}</button><button onClick=${() => setAsking(false)}>${t("action.back")}</button></div><//>`}
  </section>`;
}

function Curve({ curve }) {
  const final = curve.some((epoch) => epoch.fold === null) ? curve.filter((epoch) => epoch.fold === null) : curve;
  const data = useMemo(() => [final.map((_, index) => index + 1), final.map((epoch) => epoch.training_loss), final.map((epoch) => epoch.validation_loss)], [final.length]);
  const series = [{ label: t("train.trainingLoss"), colour: "--accent" }, { label: t("train.validationLoss"), colour: "--review", kind: "dashes" }];
  return html`<div class="stack tight"><${Legend} series=${series} /><${Chart} label=${t("train.curve")} data=${data} series=${series} height=${150} format=${number} formatX=${integer} /></div>`;
}

function Result({ run, result, path, may }) {
  const [state, setState] = useState(null);
  const activate = async () => {
    try {
      await call(`${recipePath(run.recipe)}/model-versions/${result.model_version}/activate`, { method: "POST" });
      setState(t("model.activated", { version: result.model_version }));
    } catch (problem) {
      setState(problem.message);
    }
  };
  return html`
    ${result.fit_for_use === false && html`<p class="light ng"><${Icon} name="triangle-alert" />${t("train.unfit")} ${result.reasons.join(" ")}</p>`}
    ${result.statement.map((sentence) => html`<p>${sentence}</p>`)}
    ${result.advice.map((advice) => html`<p class="soft">${advice}</p>`)}
    ${result.comparison && html`<${Changes} comparison=${result.comparison} />`}
    <div class="row"><a class="button" href=${href("/models", { recipe: run.recipe })}>${t("model.version", { version: result.model_version })}: ${tCode("model", result.model_state)}</a>
      <a class="button" href=${`${path}/${run.id}/report`} target="_blank" rel="noopener">${t("train.report")}</a>
      ${may && result.model_state === "ready" && html`<button class="primary" onClick=${activate}>${t("train.activate")}</button>`}${state && html`<span role="status">${state}</span>`}</div>`;
}

/** What the new version would have changed among the newest inspections. */
function Changes({ comparison }) {
  const { inspections, changes, agreement } = comparison;
  const lines = Object.entries(changes ?? {}).map(([change, count]) => `${change}: ${integer(count)}`);
  return html`<p>${t("train.compared", { count: integer(inspections) })} ${lines.length > 0 ? lines.join(", ") : t("train.unchanged")}${typeof agreement === "number" ? ` ${t("train.agreement", { share: percent(agreement) })}` : ""}</p>`;
}
