/** One recipe at a glance: its figures, the NG rate as a trend, and the last defect. */

import { useMemo } from "../../vendor/hooks.mjs";
import { useResource } from "../api.js";
import { Chart, Legend } from "../components/chart.js";
import { DriftLight } from "../components/drift-light.js";
import { nameOf } from "../components/inspection-card.js";
import { Resource } from "../components/states.js";
import { Time } from "../components/time.js";
import { Verdict, outcome } from "../components/verdict.js";
import { duration, integer, percent, percentIn } from "../format.js";
import { html } from "../html.js";
import { href } from "../router.js";
import { t } from "../strings.js";

export function RecipePanel({ figures, recipe, period, since }) {
  const of = { recipe: recipe.name };
  return html`<section class="panel recipe-panel">
    <header>
      <h2><a href=${href("/", of)}>${recipe.name}</a></h2>
      ${recipe.role === "reference" && html`
        <span class="verdict" title=${t("overview.reference.text")}>${t("overview.reference")}</span>`}
      <span class="push"><${DriftLight} recipe=${recipe.name} /></span>
    </header>
    <${Figures} figures=${figures} period=${period} since=${since} />
    <div class="recipe-body">
      <${Trend} figures=${figures} />
      <${LastDefect} id=${figures.last_ng} query=${of} />
    </div>
    ${recipe.active_version === null && html`<p class="row">
      <span class="soft">${t("overview.noDetector")}</span>
      <a class="button" href=${href("/train", of)}>${t("overview.train")}</a></p>`}
  </section>`;
}

function Figures({ figures, period, since }) {
  const { recipe, totals, waiting_for_review: waiting } = figures;
  const { failed } = totals.status;
  const list = (filter) => href("/inspections", { recipe, since, ...filter });
  const time = totals.time_to_verdict_ms;
  return html`<dl class="figures">
    <div class="figure">
      <dt>${t(`overview.images.${period}`)}</dt><dd><a href=${list({})}>${integer(totals.total)}</a></dd>
    </div>
    <div class="figure">
      <dt>${t("overview.ngRate")}</dt><dd>${percent(totals.ng_rate)}</dd>
      <dd class="note">${t("overview.ngCount", { count: integer(totals.verdict.ng) })}</dd>
    </div>
    <div class="figure"><dt>${t("overview.perHour")}</dt><dd>${integer(totals.per_hour)}</dd></div>
    <div class="figure">
      <dt>${t("overview.time")}</dt><dd>${duration(time?.median)}</dd>
      ${time && html`<dd class="note">${t("overview.p95", { time: duration(time.p95) })}</dd>`}
    </div>
    <div class="figure">
      <dt>${t("overview.waiting")}</dt>
      <dd><a href=${href("/review", { recipe })}>${integer(waiting.count)}${waiting.or_more ? "+" : ""}</a></dd>
    </div>
    ${failed > 0 && html`<div class="figure">
      <dt>${t("overview.failed")}</dt><dd><a href=${list({ status: "failed" })}>${integer(failed)}</a></dd>
    </div>`}
  </dl>`;
}

function Trend({ figures }) {
  const { recipe, buckets, totals } = figures;
  const data = useMemo(() => [
    buckets.map((bucket) => Date.parse(bucket.since) / 1000),
    buckets.map((bucket) => (bucket.ng_rate)),
  ], [buckets]);
  const series = [{ label: t("overview.ngRate"), colour: "--ng", kind: "bars" }];
  if (totals.total === 0) return html`<p class="soft">${t("overview.noImages")}</p>`;
  return html`<div class="stack tight">
    <${Legend} series=${series} />
    <${Chart} time label=${t("overview.trend", { recipe })} data=${data} series=${series} height=${170}
      format=${(share, _, marks) => percentIn(share, marks.at(-1) - marks[0])} />
  </div>`;
}

function LastDefect({ id, query }) {
  const defect = useResource(id ? `/v1/inspections/${id}` : null);
  if (!id) return html`<p class="soft">${t("overview.noDefect")}</p>`;
  return html`<${Resource} of=${defect}>${(inspection) => html`
    <a class="last-defect" href=${href(`/inspections/${id}`, query)}>
      <img src=${`/v1/inspections/${id}/heatmap`} alt=${t("overview.lastDefect", { name: nameOf(inspection) })}
        loading="lazy" />
      <span class="stack tight small">
        <strong>${t("overview.last")}</strong>
        <${Verdict} value=${outcome(inspection)} />
        <span>${nameOf(inspection)}</span>
        <span class="soft"><${Time} at=${inspection.created_at} /></span>
      </span>
    </a>`}<//>`;
}
