/** Overview: the health of the system in one line, and each recipe at a glance. */

import { useMemo } from "../../vendor/hooks.mjs";
import { useResource } from "../api.js";
import { Chart, Legend } from "../components/chart.js";
import { DriftLight } from "../components/drift-light.js";
import { HealthLine } from "../components/health-line.js";
import { nameOf } from "../components/inspection-card.js";
import { RecipeNeeded } from "../components/recipe-needed.js";
import { Resource } from "../components/states.js";
import { Time } from "../components/time.js";
import { Verdict, outcome } from "../components/verdict.js";
import { duration, integer, percent, startOfToday } from "../format.js";
import { html } from "../html.js";
import { changeQuery, href } from "../router.js";
import { t } from "../strings.js";

const HOUR = 3_600_000;
/** Periods by name: when they begin, and their buckets. */
const PERIODS = {
  today: { since: startOfToday, bucket: "hour" },
  week: { since: () => new Date(new Date(startOfToday()) - 6 * 24 * HOUR).toISOString(), bucket: "day" },
  month: { since: () => new Date(new Date(startOfToday()) - 29 * 24 * HOUR).toISOString(), bucket: "day" },
};
const timeZone = Intl.DateTimeFormat().resolvedOptions().timeZone;

export function Overview({ query }) {
  const period = query.period in PERIODS ? query.period : "today";
  const since = useMemo(PERIODS[period].since, [period]);
  const statistics = useResource("/v1/statistics", {
    query: { recipe: query.recipe, since, bucket: PERIODS[period].bucket, time_zone: timeZone },
    every: 10_000,
  });
  const recipes = useResource("/v1/recipes", { every: 60_000 });
  return html`
    <div class="view-head"><h1>${t("nav.overview")}</h1><${HealthLine} />
      <div class="actions">${Object.keys(PERIODS).map((name) => html`<button aria-pressed=${name === period} onClick=${() => changeQuery({ period: name === "today" ? "" : name })}>${t(`overview.${name}`)}</button>`)}</div>
    </div>
    <${Resource} of=${recipes}>${({ items: known }) => (known.length === 0
      ? html`<${RecipeNeeded} />`
      : html`<${Resource} of=${statistics}>${({ items }) => inOrder(items, known).map(({ figures, recipe }) => html`<${RecipePanel} key=${figures.recipe} figures=${figures} recipe=${recipe} period=${period} since=${since} />`)}<//>`)}<//>
  `;
}

/** The recipes that inspect come first, those with the most images on top; references and archived ones last. */
function inOrder(items, known) {
  const byName = new Map(known.map((recipe) => [recipe.name, recipe]));
  return items
    .map((figures) => ({ figures, recipe: byName.get(figures.recipe) }))
    .filter(({ recipe }) => recipe && recipe.state === "active")
    .toSorted((one, other) => isReference(one.recipe) - isReference(other.recipe) || other.figures.totals.total - one.figures.totals.total);
}

const isReference = (recipe) => Number(recipe.role === "reference");

function RecipePanel({ figures, recipe, period, since }) {
  const { totals, waiting_for_review: waiting } = figures;
  const of = { recipe: figures.recipe };
  return html`<section class="panel recipe-panel">
    <header><h2><a href=${href("/", of)}>${figures.recipe}</a></h2>
      ${isReference(recipe) ? html`<span class="verdict" title=${t("overview.reference.text")}>${t("overview.reference")}</span>` : null}
      <span class="push"><${DriftLight} recipe=${figures.recipe} /></span></header>
    <dl class="figures">
      <div class="figure"><dt>${t(`overview.images.${period}`)}</dt><dd><a href=${href("/inspections", { ...of, since })}>${integer(totals.total)}</a></dd></div>
      <div class="figure"><dt>${t("overview.ngRate")}</dt><dd>${percent(totals.ng_rate)}</dd><dd class="note">${t("overview.ngCount", { count: integer(totals.verdict.ng) })}</dd></div>
      <div class="figure"><dt>${t("overview.perHour")}</dt><dd>${integer(totals.per_hour)}</dd></div>
      <div class="figure"><dt>${t("overview.time")}</dt><dd>${duration(totals.time_to_verdict_ms?.median)}</dd><dd class="note">${t("overview.p95", { time: duration(totals.time_to_verdict_ms?.p95) })}</dd></div>
      <div class="figure"><dt>${t("overview.waiting")}</dt><dd><a href=${href("/review", of)}>${integer(waiting.count)}${waiting.or_more ? "+" : ""}</a></dd></div>
      ${totals.status.failed > 0 && html`<div class="figure"><dt>${t("overview.failed")}</dt><dd><a href=${href("/inspections", { ...of, status: "failed", since })}>${integer(totals.status.failed)}</a></dd></div>`}
    </dl>
    <div class="recipe-body"><${Trend} figures=${figures} /><${LastDefect} id=${figures.last_ng} query=${of} /></div>
  </section>`;
}

function Trend({ figures }) {
  const { buckets } = figures;
  const data = useMemo(() => [
    buckets.map((bucket) => Date.parse(bucket.since) / 1000),
    buckets.map((bucket) => (bucket.ng_rate === null ? null : bucket.ng_rate * 100)),
  ], [buckets]);
  const series = [{ label: t("overview.ngRate"), colour: "--ng", kind: "bars" }];
  if (figures.totals.total === 0) return html`<p class="soft">${t("overview.noImages")}</p>`;
  return html`<div class="stack tight"><${Legend} series=${series} />
    <${Chart} time label=${t("overview.trend", { recipe: figures.recipe })} data=${data} series=${series} height=${170} format=${(value) => `${integer(value)} %`} /></div>`;
}

function LastDefect({ id, query }) {
  const defect = useResource(id ? `/v1/inspections/${id}` : null);
  if (!id) return html`<p class="soft">${t("overview.noDefect")}</p>`;
  return html`<${Resource} of=${defect}>${(inspection) => html`<a class="last-defect" href=${href(`/inspections/${id}`, query)}>
    <img src=${`/v1/inspections/${id}/heatmap`} alt=${t("overview.lastDefect", { name: nameOf(inspection) })} loading="lazy" />
    <span class="stack tight small"><strong>${t("overview.last")}</strong><${Verdict} value=${outcome(inspection)} /><span>${nameOf(inspection)}</span><span class="soft"><${Time} at=${inspection.created_at} /></span></span></a>`}<//>`;
}
