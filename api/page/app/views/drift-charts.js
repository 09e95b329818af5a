/** The figures of drift by day, each with the rule that judges it beside it. */

import { useMemo } from "../../vendor/hooks.mjs";
import { Chart, Legend } from "../components/chart.js";
import { number, percent } from "../format.js";
import { html } from "../html.js";
import { t } from "../strings.js";

const INPUTS = ["brightness", "contrast", "sharpness"];
const HALF_A_DAY = 43_200;

/** Midnight in the browser's zone of a day of the API, so that no zone shows another day. In milliseconds. */
export const startOf = (date) => new Date(`${date}T00:00`).getTime();

export function DriftCharts({ drift }) {
  const charts = [SCORES, NG_RATE, ...INPUTS.map(inputChart), FALSE_REJECTS];
  return html`<div class="panels">${charts.map((chart) => html`<${DayChart} key=${chart.title} chart=${chart}
    drift=${drift} />`)}</div>`;
}

/** The charts: `of` reads a value from a day. */
const SCORES = {
  title: "drift.scores",
  judges: "scores",
  series: [
    { label: "drift.psi", colour: "--accent", of: (each) => each.score_drift?.psi },
    { label: "drift.byChance", colour: "--accent", kind: "dashes", of: (each) => each.score_drift?.psi_by_chance },
    { label: "drift.ks", colour: "--review", of: (each) => each.score_drift?.ks },
    { label: "drift.ksByChance", colour: "--review", kind: "dashes", of: (each) => each.score_drift?.ks_by_chance },
  ],
};
const NG_RATE = {
  title: "drift.ngRate",
  judges: "ng_rate",
  format: percent,
  series: [
    { label: "overview.ngRate", colour: "--ng", of: (each) => each.ng_rate.share },
    {
      label: "drift.expected",
      colour: "--other",
      kind: "dashes",
      of: (each) => each.ng_rate.expected_false_reject_rate,
    },
    {
      label: "drift.atReference",
      colour: "--accent",
      kind: "dashes",
      of: (each) => each.ng_rate.reference_rate?.share,
    },
  ],
};
const FALSE_REJECTS = {
  title: "drift.falseRejects",
  judges: "reviews",
  format: percent,
  series: [{
    label: "drift.falseRejects.short",
    colour: "--review",
    kind: "points",
    of: (each) => each.reviews.false_rejects.share,
  }],
};
const inputChart = (name) => ({
  title: `drift.input.${name}`,
  judges: "inputs",
  series: [
    { label: "drift.median", colour: "--accent", of: (each) => each.inputs[name]?.quantiles?.median },
    { label: "drift.low", colour: "--other", kind: "dashes", of: (each) => each.inputs[name]?.range?.[0] },
    { label: "drift.high", colour: "--review", kind: "dashes", of: (each) => each.inputs[name]?.range?.[1] },
  ],
});

function DayChart({ chart, drift }) {
  const { title, judges, series, format = number } = chart;
  const { days, since, until, rules } = drift;
  const data = useMemo(
    () => [
      days.map((each) => startOf(each.day) / 1000),
      ...series.map(({ of }) => days.map((each) => of(each) ?? null)),
    ],
    [days],
  );
  const drawn = series.map(({ label, colour, kind }) => ({ label: t(label), colour, kind }));
  const rangeX = [startOf(since) / 1000 - HALF_A_DAY, startOf(until) / 1000 + HALF_A_DAY];
  const isEmpty = data[1].every((value) => value === null);
  return html`<section class="panel" aria-label=${t(title)}><header><h3>${t(title)}</h3></header>
    ${isEmpty
      ? html`<p>${t("drift.noValues")}</p>`
      : html`<${Legend} series=${drawn} />
        <${Chart} time label=${t(title)} data=${data} series=${drawn} format=${format} rangeX=${rangeX} />`}
    ${rules.filter((rule) => rule.judges === judges).map(({ rule, source }) => html`<p class="soft small"
      title=${source}>${rule}</p>`)}</section>`;
}
