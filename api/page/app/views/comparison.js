/** Compare two versions on the inspections that both have scored: a scatter of scores, and the verdicts that differ. */

import { useState } from "../../vendor/hooks.mjs";
import { useResource } from "../api.js";
import { thumbnailOf } from "../components/inspection-card.js";
import { recipePath } from "../components/recipe-needed.js";
import { Resource } from "../components/states.js";
import { Verdict } from "../components/verdict.js";
import { integer, number, percent } from "../format.js";
import { html } from "../html.js";
import { href } from "../router.js";
import { t } from "../strings.js";
import { StartRun } from "./start-run.js";

const SIDE = 360;
const LARGEST = 3; // times the threshold; higher scores are drawn at the border

export function Comparison({ recipe, versions: [a, b] }) {
  const comparison = useResource(`${recipePath(recipe)}/model-versions/${a}/compare/${b}`);
  return html`<section class="panel"><header><h2>${t("comparison.title", { a, b })}</h2></header>
    <${Resource} of=${comparison}>${(data) => html`<${Compared} recipe=${recipe} comparison=${data} reload=${comparison.reload} />`}<//></section>`;
}

function Compared({ recipe, comparison, reload }) {
  const [starting, setStarting] = useState(false);
  const [chosen, setChosen] = useState(null);
  const { a, b, pairs, flips, missing } = comparison;
  const differing = flips.filter(({ flip }) => new Set(flip.split("_to_")).size > 1);
  const lacking = missing.filter(({ inspections }) => inspections > 0);
  return html`
    <p>${t("comparison.compared", { count: comparison.compared, number: integer(comparison.compared) })}</p>
    ${lacking.map((each) => html`<p class="soft">${t("comparison.missing", { version: each.model_version, count: integer(each.inspections), of: integer(comparison.newest) })}</p>`)}
    ${lacking.length > 0 && html`<div><button onClick=${() => setStarting(true)}>${t("comparison.score")}</button></div>`}
    ${pairs.length > 0 && html`<div class="comparison">
      <${Scatter} a=${a} b=${b} pairs=${pairs} chosen=${chosen} onChoose=${setChosen} />
      <div class="stack">
        <ul class="stack">${differing.length === 0 ? html`<li>${t("comparison.same")}</li>` : differing.map(({ flip, count, share }) => html`<li class="row"><${Verdict} value=${flip.split("_to_")[0]} /> → <${Verdict} value=${flip.split("_to_")[1]} /> <strong>${integer(count)}</strong> <span class="soft">${percent(share)}</span></li>`)}</ul>
        ${chosen && html`<${Chosen} pair=${chosen} a=${a} b=${b} recipe=${recipe} />`}
        <div class="strip small-strip">${pairs.filter((pair) => pair.a.verdict !== pair.b.verdict).slice(0, 24).map((pair) => html`<a href=${href(`/inspections/${pair.inspection_id}`, { recipe })} title=${`${pair.a.verdict} → ${pair.b.verdict}`}><img src=${thumbnailOf(pair.inspection_id)} alt=${`${pair.a.verdict} → ${pair.b.verdict}`} width="256" height="256" loading="lazy" /></a>`)}</div>
      </div></div>`}
    ${starting && html`<${StartRun} recipe=${recipe} onClose=${() => setStarting(false)} onStarted=${reload} />`}
  `;
}

function Scatter({ a, b, pairs, chosen, onChoose }) {
  const place = (ratio) => (SIDE * Math.min(LARGEST, Math.max(0, ratio ?? 0))) / LARGEST;
  const atThreshold = place(1);
  return html`<figure class="stack tight">
    <svg class="scatter" viewBox=${`-8 -8 ${SIDE + 16} ${SIDE + 16}`} role="img" aria-label=${t("comparison.scatter", { a: a.version, b: b.version })}>
      <rect width=${SIDE} height=${SIDE} class="field" /><line x1=${atThreshold} x2=${atThreshold} y1="0" y2=${SIDE} /><line x1="0" x2=${SIDE} y1=${SIDE - atThreshold} y2=${SIDE - atThreshold} />
      ${pairs.map((pair) => html`<${Dot} pair=${pair} x=${place(pair.a.ratio)} y=${SIDE - place(pair.b.ratio)} chosen=${pair === chosen} onChoose=${onChoose} />`)}
    </svg>
    <figcaption class="soft small">${t("comparison.axes", { a: a.version, b: b.version, largest: number(LARGEST) })}</figcaption></figure>`;
}

/** Parts that people reviewed are filled by their verdict; where the versions differ, the dot is a square. */
function Dot({ pair, x, y, chosen, onChoose }) {
  const differs = pair.a.verdict !== pair.b.verdict;
  const look = `dot ${pair.reviewed_verdict ?? ""} ${chosen ? "chosen" : ""}`;
  const choose = () => onChoose(pair);
  return differs
    ? html`<rect class=${look} x=${x - 4} y=${y - 4} width="8" height="8" onClick=${choose} />`
    : html`<circle class=${look} cx=${x} cy=${y} r="3.5" onClick=${choose} />`;
}

function Chosen({ pair, a, b, recipe }) {
  return html`<div class="row"><a href=${href(`/inspections/${pair.inspection_id}`, { recipe })}><img class="chosen-picture" src=${thumbnailOf(pair.inspection_id)} alt="" width="120" height="120" /></a>
    <div class="stack tight">${[[a, pair.a], [b, pair.b]].map(([version, result]) => html`<span class="row">${t("model.version", { version: version.version })}: ${number(result.ratio)} × <${Verdict} value=${result.verdict} /></span>`)}</div></div>`;
}
