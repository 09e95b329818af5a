/** Train: from a folder of good parts or from inspections; then progress, report, comparison, and activation. */

import { useState } from "../../vendor/hooks.mjs";
import { call, useResource } from "../api.js";
import { Icon } from "../components/icon.js";
import { ProblemLine } from "../components/problem-line.js";
import { RecipeNeeded, recipePath } from "../components/recipe-needed.js";
import { Empty, Resource } from "../components/states.js";
import { html } from "../html.js";
import { changeQuery } from "../router.js";
import { useMay } from "../session.js";
import { t } from "../strings.js";
import { StartTraining } from "./start-training.js";
import { TrainingRun } from "./training-run.js";
import { useUpload } from "./training-upload.js";

const AT_ONCE = 10;

export function Train({ query }) {
  const may = useMay("admin");
  return html`
    <div class="view-head"><h1>${t("nav.train")}</h1><p>${t("train.text")}</p></div>
    ${query.recipe
      ? html`<${OfRecipe} key=${query.recipe} recipe=${query.recipe} cursor=${query.training_cursor} may=${may} />`
      : html`<${RecipeNeeded} />${may && html`<${NewRecipe} />`}`}
  `;
}

/** A part that nothing was trained for yet. */
function NewRecipe() {
  const [problem, setProblem] = useState(null);
  const create = async (event) => {
    event.preventDefault();
    try {
      const name = new FormData(event.target).get("name");
      await call("/v1/recipes", { method: "POST", json: { name } });
      changeQuery({ recipe: name });
    } catch (refusal) {
      setProblem(refusal);
    }
  };
  return html`<form class="panel" onSubmit=${create}>
    <h2>${t("train.newRecipe")}</h2>
    <div class="row end"><label>${t("train.newRecipe.name")}<input name="name" required maxlength="100" /></label>
      <button>${t("train.newRecipe.create")}</button></div>
    <${ProblemLine} problem=${problem} />
  </form>`;
}

function OfRecipe({ recipe, cursor, may }) {
  const path = `${recipePath(recipe)}/training-runs`;
  const runs = useResource(path, { query: { cursor, limit: AT_ONCE }, every: 2_000 });
  const about = useResource(recipePath(recipe), { every: 10_000 });
  const upload = useUpload(path, runs.reload);
  const begin = (run, images) => {
    changeQuery({ training_cursor: "" });
    upload.begin(run.id, images);
    runs.reload();
  };
  const changed = () => {
    runs.reload();
    about.reload();
  };
  const common = { path, may, upload, activeVersion: about.data?.active_version, onChanged: changed };
  return html`
    <${WorkerNeeded} />
    ${may && html`<${StartTraining} path=${path} onCreated=${begin} />`}
    <${Resource} of=${runs}>${({ items, next_cursor: next }) => (items.length === 0
      ? html`<${Empty} title=${t("train.none")}>${may && html`<p>${t("train.none.next")}</p>`}<//>`
      : html`${items.map((run) => html`<${TrainingRun} key=${run.id} run=${run} ...${common} />`)}
        <${Pages} cursor=${cursor} next=${next} />`)}<//>
  `;
}

function Pages({ cursor, next }) {
  return html`<div class="row">
    ${cursor && html`<button onClick=${() => changeQuery({ training_cursor: "" })}>${t("train.newest")}</button>`}
    ${next && html`<button onClick=${() => changeQuery({ training_cursor: next })}>${t("train.older")}</button>`}
  </div>`;
}

/** A hint where no process would train. */
function WorkerNeeded() {
  const system = useResource("/v1/system", { every: 10_000 });
  const trains = ({ kind, state }) => kind === "training" && state !== "lost";
  if (!system.data || system.data.workers.some(trains)) return null;
  return html`<section class="message" role="status">
    <h2><${Icon} name="triangle-alert" /> ${t("train.noWorker")}</h2>
    <p>${t("train.noWorker.next")}</p><code>linewatch up</code>
  </section>`;
}
