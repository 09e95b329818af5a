/** Compare two versions on the inspections that both have scored: a scatter of scores, and the verdicts that differ. */

import { useState } from "../../vendor/hooks.mjs";
import { useResource } from "../api.js";
import { thumbnailOf } from "../components/inspection-card.js";
import { recipePath } from "../components/recipe-needed.js";
import { Resource } from "../components/states.js";
import { Verdict } from "../components/verdict.js";
import { integer, number, percent, ratio } from "../format.js";
import { html } from "../html.js";
import { href } from "../router.js";
import { useMay } from "../session.js";
import { t } from "../strings.js";
import { StartRun } from "./start-run.js";

const SIDE = 360;
const LARGEST = 3; // times the threshold; higher scores are drawn at the border
const SMALLEST = 1.2; // times the threshold; it is always within the field
const SHOWN_FLIPS = 24;

export function Comparison({ recipe, versions: [a, b], onClose }) {
  const comparison = useResource(`${recipePath(recipe)}/model-versions/${a}/compare/${b}`);
  const title = t("comparison.title", { a, b });
  return html`<section class="panel" aria-label=${title}>
    <header><h2>${title}</h2><button class="plain push" onClick=${onClose}>${t("action.close")}</button></header>
    <${Resource} of=${comparison}>${(data) => html`
      <${Compared} recipe=${recipe} comparison=${data} reload=${comparison.reload} />`}<//></section>`;
}

function Compared({ recipe, comparison, reload }) {
  const [chosen, setChosen] = useState(null);
  const { a, b, pairs } = comparison;
  const differing = pairs.filter((pair) => pair.a.verdict !== pair.b.verdict);
  return html`
    <p>${t("comparison.compared", { count: comparison.compared, number: integer(comparison.compared) })}</p>
    <${Missing} recipe=${recipe} comparison=${comparison} onStarted=${reload} />
    ${pairs.length > 0 && html`<div class="comparison">
      <${Scatter} a=${a} b=${b} pairs=${pairs} chosen=${chosen} onChoose=${setChosen} />
      <div class="stack">
        <${Flips} flips=${comparison.flips} />
        ${chosen && html`<${Chosen} pair=${chosen} a=${a} b=${b} recipe=${recipe} />`}
        <div class="strip small-strip">
          ${differing.slice(0, SHOWN_FLIPS).map((pair) => html`<${Flip} pair=${pair} recipe=${recipe} />`)}</div>
      </div></div>`}
  `;
}

/** What a version has not scored, with a run that scores it. */
function Missing({ recipe, comparison, onStarted }) {
  const [starting, setStarting] = useState(null);
  const may = useMay("admin");
  const lacking = comparison.missing.filter(({ inspections }) => inspections > 0);
  return html`${lacking.map((each) => html`<div class="row" key=${each.model_version}>
      <span class="soft">${t("comparison.missing", {
        version: each.model_version, count: integer(each.inspections), of: integer(comparison.newest),
      })}</span>
      ${may && html`<button onClick=${() => setStarting(each)}>${t("comparison.score")}</button>`}</div>`)}
    ${starting && html`<${StartRun} recipe=${recipe} version=${starting.model_version}
      where=${{ since: starting.since }} onClose=${() => setStarting(null)} onStarted=${onStarted} />`}`;
}

function Flips({ flips }) {
  const differing = flips.filter(({ flip }) => new Set(flip.split("_to_")).size > 1);
  if (differing.length === 0) return html`<p>${t("comparison.same")}</p>`;
  return html`<ul class="stack" aria-label=${t("rescoring.flips")}>${differing.map(({ flip, count, share }) => {
    const [before, after] = flip.split("_to_");
    return html`<li class="row"><${Verdict} value=${before} /> → <${Verdict} value=${after} />
      <strong>${integer(count)}</strong> <span class="soft">${percent(share)}</span></li>`;
  })}</ul>`;
}

function Flip({ pair, recipe }) {
  const name = t("comparison.flip", { before: t(`verdict.${pair.a.verdict}`), after: t(`verdict.${pair.b.verdict}`) });
  return html`<a href=${href(`/inspections/${pair.inspection_id}`, { recipe })} title=${name}>
    <img src=${thumbnailOf(pair.inspection_id)} alt=${name} width="256" height="256" loading="lazy" /></a>`;
}

function Scatter({ a, b, pairs, chosen, onChoose }) {
  const highest = Math.max(...pairs.flatMap((pair) => [pair.a.ratio ?? 0, pair.b.ratio ?? 0]));
  const end = Math.min(LARGEST, Math.max(SMALLEST, 1.05 * highest));
  const place = (ratio) => (SIDE * Math.min(end, Math.max(0, ratio ?? 0))) / end;
  const at = place(1);
  const label = t("comparison.scatter", { a: a.version, b: b.version });
  return html`<figure class="stack tight">
    <svg class="scatter" viewBox=${`-8 -8 ${SIDE + 16} ${SIDE + 16}`} role="img" aria-label=${label}>
      <rect width=${SIDE} height=${SIDE} class="field" />
      <line x1=${at} x2=${at} y1="0" y2=${SIDE} />
      <line x1="0" x2=${SIDE} y1=${SIDE - at} y2=${SIDE - at} />
      <text x="6" y=${SIDE - 8}>${t("model.version", { version: a.version })} →</text>
      <text x="6" y="16">↑ ${t("model.version", { version: b.version })}</text>
      ${pairs.map((pair) => html`<${Dot} key=${pair.inspection_id} pair=${pair} chosen=${pair === chosen}
        x=${place(pair.a.ratio)} y=${SIDE - place(pair.b.ratio)} onChoose=${onChoose} />`)}
    </svg>
    <figcaption class="soft small">
      ${t("comparison.axes", { a: a.version, b: b.version, largest: number(LARGEST) })}</figcaption></figure>`;
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
  return html`<div class="row"><a href=${href(`/inspections/${pair.inspection_id}`, { recipe })}>
      <img class="chosen-picture" src=${thumbnailOf(pair.inspection_id)} alt=${t("comparison.open")} width="120"
        height="120" /></a>
    <div class="stack tight">${[[a, pair.a], [b, pair.b]].map(([{ version }, result]) => html`<span class="row">
      ${t("model.version", { version })}: ${ratio(result.ratio, 1)} <${Verdict} value=${result.verdict} />
    </span>`)}</div></div>`;
}
