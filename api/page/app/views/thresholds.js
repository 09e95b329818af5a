/** Threshold workbench: drag the threshold in the histogram of recent scores, and see at once what it would change. */

import { useEffect, useRef, useState } from "../../vendor/hooks.mjs";
import { call, useResource } from "../api.js";
import { Icon } from "../components/icon.js";
import { thumbnailOf } from "../components/inspection-card.js";
import { RecipeNeeded, recipePath } from "../components/recipe-needed.js";
import { ScoreHistogram } from "../components/score-histogram.js";
import { Empty, Failure, Resource } from "../components/states.js";
import { Time } from "../components/time.js";
import { showToast } from "../components/toast.js";
import { Verdict } from "../components/verdict.js";
import { integer, number, percent } from "../format.js";
import { html } from "../html.js";
import { changeQuery, href } from "../router.js";
import { useMay } from "../session.js";
import { t } from "../strings.js";

const PREVIEW_DELAY = 120; // milliseconds after the last movement

export function Thresholds({ query }) {
  if (!query.recipe) return html`<div class="view-head"><h1>${t("nav.thresholds")}</h1></div><${RecipeNeeded} />`;
  return html`<${OfRecipe} key=${query.recipe} query=${query} />`;
}

function OfRecipe({ query }) {
  const versions = useResource(`${recipePath(query.recipe)}/model-versions`);
  const ready = versions.data?.items.filter((version) => ["ready", "retired"].includes(version.state)) ?? [];
  const chosen = Number(query.model_version) || (ready.find((version) => version.active) ?? ready.at(-1))?.version;
  return html`
    <div class="view-head"><h1>${t("nav.thresholds")}</h1><p>${t("thresholds.text")}</p>
      <div class="actions row end">
        <label>${t("model.title")}<select value=${chosen} onChange=${(event) => changeQuery({ model_version: event.target.value })}>
          ${ready.toReversed().map(({ version, active }) => html`<option value=${version}>${t("model.version", { version })}${active ? ` (${t("model.active")})` : ""}</option>`)}</select></label>
        <label>${t("filter.station_id")}<input type="search" size="10" value=${query.station_id ?? ""} placeholder=${t("thresholds.allStations")} onChange=${(event) => changeQuery({ station_id: event.target.value })} /></label>
      </div>
    </div>
    <${Resource} of=${versions}>${() => (chosen
      ? html`<${Workbench} key=${`${chosen} ${query.station_id}`} recipe=${query.recipe} version=${chosen} station=${query.station_id || null} />`
      : html`<${Empty} title=${t("model.none")}><a class="button" href=${href("/train", { recipe: query.recipe })}>${t("model.train")}</a><//>`)}<//>
  `;
}

function Workbench({ recipe, version, station }) {
  const path = `${recipePath(recipe)}/model-versions/${version}`;
  const scores = useResource(`${path}/scores`, { query: { station_id: station, bins: 80 } });
  const history = useResource(`${path}/thresholds`, { query: { station_id: station, limit: 20 } });
  const [limits, setLimits] = useState(null); // {threshold, review_threshold} as dragged; null: those in force
  const inForce = scores.data && { threshold: scores.data.threshold, review_threshold: scores.data.review_threshold };
  const shown = limits ?? inForce;
  const preview = usePreview(path, station, shown);
  const reload = () => {
    setLimits(null);
    scores.reload();
    history.reload();
  };
  const set = async (values, reason) => {
    await call(`${path}/threshold`, { method: "POST", json: { ...values, station_id: station, reason } });
    const before = inForce;
    reload();
    return before;
  };
  return html`<${Resource} of=${scores}>${(histogram) => html`
    <section class="panel">
      ${histogram.count === 0
        ? html`<p class="soft">${t("thresholds.noScores")}</p>`
        : html`<${ScoreHistogram} histogram=${histogram} limits=${shown} onChange=${setLimits} />`}
      <${Numbers} limits=${shown} inForce=${inForce} count=${histogram} onChange=${setLimits} />
    </section>
    ${preview.problem && html`<${Failure} problem=${preview.problem} />`}
    ${preview.data && html`<${Consequences} preview=${preview.data} recipe=${recipe} />`}
    <${Apply} limits=${limits} onApply=${set} />
    <${History} history=${history} onSet=${set} />`}<//>`;
}

/** What a threshold would change, read again a moment after it was moved. */
function usePreview(path, station, limits) {
  const [state, setState] = useState({ data: null, problem: null });
  const latest = useRef(0);
  const key = JSON.stringify(limits);
  useEffect(() => {
    if (!limits) return undefined;
    const number = ++latest.current;
    const timer = setTimeout(async () => {
      try {
        const data = await call(`${path}/threshold`, { method: "POST", json: { ...limits, station_id: station, preview: true } });
        if (number === latest.current) setState({ data, problem: null });
      } catch (problem) {
        if (number === latest.current) setState({ data: null, problem });
      }
    }, PREVIEW_DELAY);
    return () => clearTimeout(timer);
  }, [path, station, key]);
  return state;
}

function Numbers({ limits, inForce, count, onChange }) {
  const change = (name) => (event) => onChange({ ...limits, [name]: event.target.value === "" ? null : Number(event.target.value) });
  return html`<div class="row end">
    <label>${t("model.threshold")}<input type="number" step="any" value=${limits.threshold} onChange=${change("threshold")} /></label>
    <label>${t("thresholds.review")}<input type="number" step="any" value=${limits.review_threshold ?? ""} placeholder=${t("thresholds.none")} onChange=${change("review_threshold")} /></label>
    <button onClick=${() => onChange(null)}><${Icon} name="rotate-ccw" />${t("thresholds.reset", { threshold: number(inForce.threshold) })}</button>
    <span class="soft small push">${t("thresholds.count", { count: count.count, number: integer(count.count) })}${count.truncated ? ` ${t("thresholds.truncated")}` : ""}</span>
  </div>`;
}

function Consequences({ preview, recipe }) {
  const { flips, expected_false_reject_rate: expected, agreement, reviewed } = preview;
  const people = reviewed.ok.ok + reviewed.ok.ng + reviewed.ok.review + reviewed.ng.ok + reviewed.ng.ng + reviewed.ng.review;
  return html`
    <dl class="panel figures" aria-live="polite">
      <div class="figure"><dt>${t("thresholds.flips")}</dt><dd>${integer(flips.reduce((sum, flip) => sum + flip.count, 0))}</dd><dd class="note">${t("thresholds.of", { count: integer(preview.inspections) })}</dd></div>
      <div class="figure"><dt>${t("thresholds.expected")}</dt><dd>${percent(expected?.rate)}</dd><dd class="note">${expected ? t("thresholds.interval", { low: percent(expected.confidence_interval[0]), high: percent(expected.confidence_interval[1]) }) : t("thresholds.unknown")}</dd></div>
      <div class="figure"><dt>${t("thresholds.agreement")}</dt><dd>${percent(agreement)}</dd><dd class="note">${t("thresholds.reviewed", { count: integer(people) })}</dd></div>
      <div class="figure"><dt>${t("thresholds.rejectedOk")}</dt><dd>${integer(reviewed.ok.ng)}</dd></div>
      <div class="figure"><dt>${t("thresholds.missedNg")}</dt><dd>${integer(reviewed.ng.ok)}</dd></div>
    </dl>
    ${flips.map((flip) => html`<section class="stack" key=${`${flip.from} ${flip.to}`}><h3 class="row"><${Verdict} value=${flip.from} /> → <${Verdict} value=${flip.to} /> <span>${integer(flip.count)}</span></h3>
      <div class="strip small-strip">${flip.examples.map(({ id, anomaly_score: score }) => html`<a href=${href(`/inspections/${id}`, { recipe })} title=${number(score)}><img src=${thumbnailOf(id)} alt=${t("thresholds.example", { score: number(score) })} width="256" height="256" loading="lazy" /></a>`)}</div></section>`)}`;
}

function Apply({ limits, onApply }) {
  const [problem, setProblem] = useState(null);
  const may = useMay("admin");
  if (!may) return null;
  const submit = async (event) => {
    event.preventDefault();
    const form = event.target;
    try {
      const before = await onApply(limits, new FormData(form).get("reason"));
      setProblem(null);
      form.reset();
      showToast(t("thresholds.applied"), { label: t("action.undo"), run: () => onApply(before, t("thresholds.undone")).catch(setProblem) });
    } catch (refusal) {
      setProblem(refusal);
    }
  };
  return html`<form class="panel" onSubmit=${submit}><div class="row end">
    <label class="grow">${t("thresholds.why")}<input name="reason" required maxlength="2000" disabled=${!limits} /></label><button class="primary" disabled=${!limits}>${t("thresholds.apply")}</button></div>
    ${!limits && html`<p class="soft small">${t("thresholds.move")}</p>`}
    ${problem && html`<p role="alert" class="light ng">${problem.message}</p>`}</form>`;
}

function History({ history, onSet }) {
  const may = useMay("admin");
  return html`<section class="stack"><h2>${t("thresholds.history")}</h2><${Resource} of=${history}>${({ items }) => html`<div class="panel flush" tabindex="0"><table>
    <thead><tr><th class="number">${t("model.threshold")}</th><th class="number">${t("thresholds.review")}</th><th>${t("filter.station_id")}</th><th>${t("thresholds.when")}</th><th>${t("thresholds.who")}</th><th>${t("thresholds.reason")}</th><th></th></tr></thead>
    <tbody>${items.map((each) => html`<tr><td class="number">${number(each.threshold)}</td><td class="number">${number(each.review_threshold)}</td><td>${each.station_id ?? t("thresholds.allStations")}</td><td><${Time} at=${each.created_at} /></td>
      <td>${each.actor ?? "–"}</td><td>${each.reason ?? (each.calibration ? t("thresholds.calibrated") : "–")}</td>
      <td>${each.in_force ? html`<span class="verdict ok">${t("thresholds.inForce")}</span>` : may && html`<button onClick=${() => onSet({ threshold: each.threshold, review_threshold: each.review_threshold }, t("thresholds.restored", { time: each.created_at }))}>${t("thresholds.restore")}</button>`}</td></tr>`)}</tbody></table></div>`}<//></section>`;
}
