/** Threshold workbench: drag the threshold in the histogram of recent scores, and see at once what it would change. */

import { useState } from "../../vendor/hooks.mjs";
import { call, useResource } from "../api.js";
import { FilterInput } from "../components/filter-input.js";
import { Icon } from "../components/icon.js";
import { ProblemLine } from "../components/problem-line.js";
import { RecipeNeeded, recipePath } from "../components/recipe-needed.js";
import { ScoreHistogram } from "../components/score-histogram.js";
import { Empty, Failure, Resource } from "../components/states.js";
import { showToast } from "../components/toast.js";
import { integer, number } from "../format.js";
import { html } from "../html.js";
import { changeQuery, href } from "../router.js";
import { useMay } from "../session.js";
import { t } from "../strings.js";
import { ThresholdHistory } from "./threshold-history.js";
import { Consequences, usePreview } from "./threshold-preview.js";

const BINS = 80;

export function Thresholds({ query }) {
  if (query.recipe) return html`<${OfRecipe} key=${query.recipe} query=${query} />`;
  return html`<div class="view-head"><h1>${t("nav.thresholds")}</h1></div><${RecipeNeeded} />`;
}

function OfRecipe({ query }) {
  const versions = useResource(`${recipePath(query.recipe)}/model-versions`);
  const ready = versions.data?.items.filter((version) => ["ready", "retired"].includes(version.state)) ?? [];
  const chosen = Number(query.model_version) || (ready.find((version) => version.active) ?? ready.at(-1))?.version;
  const station = query.station_id || null;
  return html`
    <div class="view-head">
      <h1>${t("nav.thresholds")}</h1>
      <p>${t("thresholds.text")}</p>
      <${Choice} ready=${ready} chosen=${chosen} station=${station} />
    </div>
    <${Resource} of=${versions}>${() => (chosen
      ? html`<${Workbench} key=${`${chosen} ${station}`} recipe=${query.recipe} version=${chosen} station=${station} />`
      : html`<${Empty} title=${t("model.none")}>
          <a class="button" href=${href("/train", { recipe: query.recipe })}>${t("model.train")}</a>
        <//>`)}<//>
  `;
}

/** Which version, and which station. A station may have a threshold of its own. */
function Choice({ ready, chosen, station }) {
  const nameOf = ({ version, active }) => `${t("model.version", { version })}${active ? ` (${t("model.active")})` : ""}`;
  return html`<div class="actions row end">
    <label>
      ${t("model.title")}
      <select value=${chosen} onChange=${(event) => changeQuery({ model_version: event.target.value })}>
        ${ready.toReversed().map((each) => html`<option value=${each.version}>${nameOf(each)}</option>`)}
      </select>
    </label>
    <label>
      ${t("filter.station_id")}
      <${FilterInput} type="search" size="10" value=${station ?? ""} placeholder=${t("thresholds.allStations")}
        onCommit=${(value) => changeQuery({ station_id: value })} />
    </label>
  </div>`;
}

function Workbench({ recipe, version, station }) {
  const path = `${recipePath(recipe)}/model-versions/${version}`;
  const scores = useResource(`${path}/scores`, { query: { station_id: station, bins: BINS } });
  const history = useResource(`${path}/thresholds`, { query: { station_id: station, limit: 20 } });
  const [limits, setLimits] = useState(null); // {threshold, review_threshold} as dragged; null: those in force
  const inForce = scores.data && limitsOf(scores.data);
  const shown = limits ?? inForce;
  const preview = usePreview(path, station, shown);
  const set = async (values, reason) => {
    await call(`${path}/threshold`, { method: "POST", json: { ...values, station_id: station, reason } });
    setLimits(null);
    scores.reload();
    history.reload();
  };
  /** Set limits, and offer to set those of before again. */
  const apply = async (values, reason) => {
    await set(values, reason);
    const undo = () => set(inForce, t("thresholds.undone")).catch((refusal) => showToast(refusal.message));
    showToast(t("thresholds.applied"), { label: t("action.undo"), run: undo });
  };
  return html`<${Resource} of=${scores}>${(histogram) => html`
    <section class="panel">
      ${histogram.count === 0
        ? html`<p class="soft">${t("thresholds.noScores")}</p>`
        : html`<${ScoreHistogram} histogram=${histogram} limits=${shown} onChange=${setLimits} />`}
      <${Numbers} limits=${shown} inForce=${inForce} histogram=${histogram} onChange=${setLimits} />
    </section>
    ${preview.problem && html`<${Failure} problem=${preview.problem} />`}
    ${preview.data && html`<${Consequences} preview=${preview.data} recipe=${recipe} moved=${limits !== null} />`}
    <${Apply} limits=${limits} onApply=${apply} />
    <${ThresholdHistory} history=${history} onSet=${apply} />`}<//>`;
}

const limitsOf = ({ threshold, review_threshold }) => ({ threshold, review_threshold });

function Numbers({ limits, inForce, histogram, onChange }) {
  const set = (name) => (text) => {
    if (text !== "") onChange({ ...limits, [name]: Number(text) });
    else onChange(name === "threshold" ? null : { ...limits, review_threshold: null });
  };
  const { count, truncated } = histogram;
  return html`<div class="row end">
    <label>
      ${t("model.threshold")}
      <${FilterInput} type="number" step="any" value=${String(limits.threshold)} onCommit=${set("threshold")} />
    </label>
    <label>
      ${t("thresholds.review")}
      <${FilterInput} type="number" step="any" value=${String(limits.review_threshold ?? "")}
        placeholder=${t("thresholds.none")} onCommit=${set("review_threshold")} />
    </label>
    <button onClick=${() => onChange(null)}>
      <${Icon} name="rotate-ccw" />${t("thresholds.reset", { threshold: number(inForce.threshold) })}
    </button>
    <span class="soft small push">
      ${t("thresholds.count", { count, number: integer(count) })} ${truncated && t("thresholds.truncated")}
    </span>
  </div>`;
}

function Apply({ limits, onApply }) {
  const [problem, setProblem] = useState(null);
  const may = useMay("admin");
  if (!may) return null;
  const submit = async (event) => {
    event.preventDefault();
    const form = event.target;
    try {
      await onApply(limits, new FormData(form).get("reason"));
      setProblem(null);
      form.reset();
    } catch (refusal) {
      setProblem(refusal);
    }
  };
  return html`<form class="panel" onSubmit=${submit}>
    <div class="row end">
      <label class="grow">
        ${t("thresholds.why")}<input name="reason" required maxlength="2000" disabled=${!limits} />
      </label>
      <button class="primary" disabled=${!limits}>${t("thresholds.apply")}</button>
    </div>
    ${!limits && html`<p class="soft small">${t("thresholds.move")}</p>`}
    <${ProblemLine} problem=${problem} />
  </form>`;
}
