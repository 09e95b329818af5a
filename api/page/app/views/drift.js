/** Drift: whether the images of each day still are what the model version was made for, with the rule beside it. */

import { useMemo } from "../../vendor/hooks.mjs";
import { useResource } from "../api.js";
import { Chart, Legend } from "../components/chart.js";
import { Light } from "../components/drift-light.js";
import { RecipeNeeded, recipePath } from "../components/recipe-needed.js";
import { Empty, Resource } from "../components/states.js";
import { Time } from "../components/time.js";
import { day, integer, number, percent } from "../format.js";
import { html } from "../html.js";
import { changeQuery } from "../router.js";
import { t } from "../strings.js";

const PERIODS = [7, 30, 90];

export function Drift({ query }) {
  if (!query.recipe) return html`<div class="view-head"><h1>${t("nav.drift")}</h1></div><${RecipeNeeded} />`;
  return html`<${OfRecipe} key=${query.recipe} query=${query} />`;
}

function OfRecipe({ query }) {
  const days = PERIODS.includes(Number(query.days)) ? Number(query.days) : 30;
  const since = useMemo(() => new Date(Date.now() - days * 86_400_000).toISOString(), [days]);
  const drift = useResource(`${recipePath(query.recipe)}/drift`, { query: { since, station_id: query.station_id }, every: 60_000 });
  return html`
    <div class="view-head"><h1>${t("nav.drift")}</h1><p>${t("drift.text")}</p>
      <div class="actions">
        <label class="inline"><span class="soft">${t("filter.station_id")}</span><input type="search" size="10" value=${query.station_id ?? ""} onChange=${(event) => changeQuery({ station_id: event.target.value })} /></label>
        ${PERIODS.map((each) => html`<button aria-pressed=${each === days} onClick=${() => changeQuery({ days: each })}>${t("drift.days", { count: each })}</button>`)}
      </div>
    </div>
    <${Resource} of=${drift}>${(data) => (data.days.length === 0
      ? html`<${Empty} title=${t("drift.empty")}><p>${t("drift.empty.next")}</p><//>`
      : html`<${Report} drift=${data} />`)}<//>
  `;
}

function Report({ drift }) {
  const { summary, days, episodes, rules, references } = drift;
  return html`
    <section class="panel"><header><${Light} light=${summary.light} /><span class="soft small push">${drift.counted_until && html`${t("drift.counted")} <${Time} at=${drift.counted_until} />`}</span></header>
      <ul class="stack">${(summary.reasons.length > 0 ? summary.reasons : [t("drift.fine")]).map((reason) => html`<li>${reason}</li>`)}</ul></section>
    <div class="panels">
      <${DayChart} title="drift.scores" days=${days} series=${[
        { label: "PSI", colour: "--accent", of: (each) => each.score_drift?.psi },
        { label: t("drift.byChance"), colour: "--other", kind: "dashes", of: (each) => each.score_drift?.psi_by_chance },
        { label: "KS", colour: "--review", of: (each) => each.score_drift?.ks },
      ]} rules=${rules.filter((rule) => rule.judges === "scores")} />
      <${DayChart} title="drift.ngRate" days=${days} format=${percent} series=${[
        { label: t("overview.ngRate"), colour: "--ng", of: (each) => each.ng_rate.share },
        { label: t("drift.expected"), colour: "--other", kind: "dashes", of: (each) => each.ng_rate.expected_false_reject_rate },
      ]} rules=${rules.filter((rule) => rule.judges === "ng_rate")} />
      ${Object.keys(days.at(-1).inputs).map((name) => html`<${DayChart} title=${`drift.input.${name}`} days=${days} series=${[
        { label: t("drift.median"), colour: "--accent", of: (each) => each.inputs[name]?.quantiles?.median },
        { label: t("drift.low"), colour: "--other", kind: "dashes", of: (each) => each.inputs[name]?.range?.[0] },
        { label: t("drift.high"), colour: "--other", kind: "dashes", of: (each) => each.inputs[name]?.range?.[1] },
      ]} rules=${rules.filter((rule) => rule.judges === "inputs")} />`)}
      <${DayChart} title="drift.falseRejects" days=${days} format=${percent} series=${[
        { label: t("drift.falseRejects"), colour: "--review", kind: "points", of: (each) => each.reviews.false_rejects.share },
      ]} rules=${rules.filter((rule) => rule.judges === "reviews")} />
    </div>
    <${Days} days=${days} />
    <section class="stack"><h2>${t("drift.episodes")}</h2>${episodes.length === 0
      ? html`<p class="soft">${t("drift.episodes.none")}</p>`
      : html`<ul class="panel">${episodes.map((each) => html`<li class="row"><${Light} light=${each.light} /><span><${Time} at=${each.began_at} /> – ${each.ended_at ? html`<${Time} at=${each.ended_at} />` : t("drift.ongoing")}</span><span class="soft">${each.reasons.join(" ")}</span></li>`)}</ul>`}</section>
    <details class="panel"><summary>${t("drift.references")}</summary><ul>${references.map((each) => html`<li>${t("model.version", { version: each.model_version })}: ${t(`drift.source.${each.source}`, { parts: integer(each.parts) })}</li>`)}</ul></details>
  `;
}

/** A chart by day, with the rule that judges it beside it. */
function DayChart({ title, days, series, rules, format = number }) {
  const data = useMemo(() => [days.map((each) => Date.parse(each.day) / 1000), ...series.map(({ of }) => days.map((each) => of(each) ?? null))], [days]);
  const drawn = series.map(({ label, colour, kind }) => ({ label, colour, kind }));
  return html`<section class="panel"><header><h3>${t(title)}</h3></header>
    <${Legend} series=${drawn} /><${Chart} time label=${t(title)} data=${data} series=${drawn} format=${format} />
    ${rules.map((rule) => html`<p class="soft small" title=${rule.source}>${rule.rule}</p>`)}</section>`;
}

function Days({ days }) {
  return html`<div class="panel flush" tabindex="0"><table><thead><tr><th>${t("drift.day")}</th><th>${t("drift.light")}</th><th>${t("model.title")}</th><th class="number">${t("drift.parts")}</th><th class="number">PSI</th><th class="number">KS</th><th class="number">${t("overview.ngRate")}</th><th>${t("drift.reasons")}</th></tr></thead>
    <tbody>${days.toReversed().map((each) => html`<tr><td>${day(each.day)}</td><td><${Light} light=${each.light} /></td><td>${t("model.version", { version: each.model_version })}</td>
      <td class="number">${integer(each.parts)}</td><td class="number">${number(each.score_drift?.psi)}</td><td class="number">${number(each.score_drift?.ks)}</td><td class="number">${percent(each.ng_rate.share)}</td>
      <td class="soft">${each.is_reference ? t("drift.isReference") : each.reasons.join(" ")}</td></tr>`)}</tbody></table></div>`;
}
