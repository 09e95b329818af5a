/** Drift: whether the images of each day still are what the model version was made for, with the rule beside it. */

import { useMemo } from "../../vendor/hooks.mjs";
import { useResource } from "../api.js";
import { Light } from "../components/drift-light.js";
import { FilterInput } from "../components/filter-input.js";
import { RecipeNeeded, recipePath } from "../components/recipe-needed.js";
import { Empty, Resource } from "../components/states.js";
import { Time } from "../components/time.js";
import { day, integer, number, percent } from "../format.js";
import { html } from "../html.js";
import { changeQuery } from "../router.js";
import { t } from "../strings.js";
import { DriftCharts, startOf } from "./drift-charts.js";

const PERIODS = [7, 30, 90];
const DAY = 86_400_000;

export function Drift({ query }) {
  if (!query.recipe) return html`<div class="view-head"><h1>${t("nav.drift")}</h1></div><${RecipeNeeded} />`;
  return html`<${OfRecipe} key=${query.recipe} query=${query} />`;
}

function OfRecipe({ query }) {
  const { recipe, station_id } = query;
  const days = PERIODS.includes(Number(query.days)) ? Number(query.days) : 30;
  const since = useMemo(() => new Date(Date.now() - (days - 1) * DAY).toISOString(), [days]);
  const drift = useResource(`${recipePath(recipe)}/drift`, { query: { since, station_id }, every: 60_000 });
  const chooseStation = (station) => changeQuery({ station_id: station });
  return html`
    <div class="view-head"><h1>${t("nav.drift")}</h1><p>${t("drift.text")}</p>
      <div class="actions">
        <label class="inline"><span class="soft">${t("filter.station_id")}</span>
          <${FilterInput} type="search" size="10" value=${station_id ?? ""} onCommit=${chooseStation} /></label>
        ${PERIODS.map((each) => html`<button aria-pressed=${each === days} onClick=${() => changeQuery({ days: each })}>
          ${t("drift.days", { count: each })}</button>`)}
      </div>
    </div>
    <${Resource} of=${drift}>${(data) => (data.days.length === 0
      ? html`<${Empty} title=${t("drift.empty")}>
          <p>${t(station_id ? "drift.empty.station" : "drift.empty.next", { station: station_id })}</p><//>`
      : html`<${Report} drift=${data} />`)}<//>
  `;
}

function Report({ drift }) {
  return html`
    <${Summary} drift=${drift} />
    <${DriftCharts} drift=${drift} />
    <${Days} days=${drift.days} />
    <${Episodes} episodes=${drift.episodes} />
    <${Basis} references=${drift.references} rules=${drift.rules} />
  `;
}

/** The light of the newest day with enough parts, and why it has that colour. */
function Summary({ drift }) {
  const { summary, rules } = drift;
  const reasons = summary.reasons.length > 0 ? summary.reasons : [t(summary.day ? "drift.fine" : "drift.tooFew")];
  return html`<section class="panel" aria-label=${t("drift.light")}>
    <header><${Light} light=${summary.light} judged=${summary.day !== null} />
      ${summary.day && html`<span class="small"><${DayName} of=${summary.day} />,${" "}
        ${t("model.version", { version: summary.model_version })},${" "}
        ${t("drift.partCount", { count: summary.parts, number: integer(summary.parts) })},${" "}
        PSI ${number(summary.psi)}, KS ${number(summary.ks)}</span>`}
      ${drift.counted_until && html`<span class="soft small push">
        ${t("drift.counted")} <${Time} at=${drift.counted_until} /></span>`}</header>
    <ul class="stack">${reasons.map((reason) => html`<li>${reason}</li>`)}</ul>
    ${rules.filter(({ judges }) => judges === "day").map(({ rule }) => html`<p class="soft small">${rule}</p>`)}
  </section>`;
}

/** A day of the API, which is in UTC. */
const DayName = ({ of }) => html`<time datetime=${of}>${day(startOf(of))}</time>`;

const COLUMNS = [
  { title: "model.title", of: (each) => t("model.version", { version: each.model_version }) },
  { title: "drift.parts", number: true, of: (each) => integer(each.parts) },
  { title: "drift.psi", number: true, of: (each) => number(each.score_drift?.psi) },
  { title: "drift.ks", number: true, of: (each) => number(each.score_drift?.ks) },
  { title: "overview.ngRate", number: true, of: (each) => percent(each.ng_rate.share) },
  { title: "drift.falseRejects.short", number: true, of: ({ reviews }) => counted(reviews.false_rejects) },
];

const counted = ({ count, of }) => (of === 0 ? "–" : t("drift.of", { count: integer(count), of: integer(of) }));

function Days({ days }) {
  const look = (column) => (column.number ? "number" : "whole");
  return html`<div class="panel flush" tabindex="0"><table>
    <thead><tr><th>${t("drift.day")}</th><th>${t("drift.light")}</th>
      ${COLUMNS.map((column) => html`<th class=${look(column)}>${t(column.title)}</th>`)}
      <th>${t("drift.reasons")}</th></tr></thead>
    <tbody>${days.toReversed().map((each) => html`<tr key=${`${each.day} ${each.model_version}`}>
      <td class="whole"><${DayName} of=${each.day} /></td><td class="whole"><${Light} light=${each.light} judged=${each.judged} /></td>
      ${COLUMNS.map((column) => html`<td class=${look(column)}>${column.of(each)}</td>`)}
      <td class="soft sentences">
        ${[each.is_reference && t("drift.isReference"), ...each.reasons].filter(Boolean).join(" ")}</td>
    </tr>`)}</tbody></table></div>`;
}

function Episodes({ episodes }) {
  return html`<section class="stack" aria-label=${t("drift.episodes")}>
    <h2>${t("drift.episodes")}</h2>${episodes.length === 0
    ? html`<p class="soft">${t("drift.episodes.none")}</p>`
    : html`<ul class="panel">${episodes.map((each) => html`<li class="row" key=${each.id}>
        <${Light} light=${each.light} />
        <span><${Time} at=${each.began_at} /> –${" "}
          ${each.ended_at ? html`<${Time} at=${each.ended_at} />` : t("drift.ongoing")}</span>
        ${each.station_id && html`<span>${t("filter.station_id")} ${each.station_id}</span>`}
        <span class="soft">${each.reasons.join(" ")}</span></li>`)}</ul>`}</section>`;
}

/** What the days are compared with, and where the rules come from. */
function Basis({ references, rules }) {
  return html`<details class="panel"><summary>${t("drift.references")}</summary><div class="stack">
    <ul class="stack tight">${references.map((each) => html`<li>${t("model.version", { version: each.model_version })}:
      ${" "}${t(`drift.source.${each.source}`, { parts: integer(each.parts) })}${each.since && html`,${" "}
        <${DayName} of=${each.since} /> – <${DayName} of=${each.until} />`}</li>`)}</ul>
    <dl class="stack tight small">${rules.map(({ rule, source }) => html`<div><dt>${rule}</dt>
      <dd class="soft">${source}</dd></div>`)}</dl></div></details>`;
}
