/** Charts of numbers over time or over scores, drawn by uPlot in the colours of the tokens. */

import uPlot from "../../vendor/uplot.mjs";
import { useEffect, useRef } from "../../vendor/hooks.mjs";
import { html } from "../html.js";
import { locale } from "../strings.js";

const THEME_CHANGED = "linewatch:theme";
/** Lines through fewer values have points, so that a single value is visible. */
const FEW = 40;

/**
 * A chart that follows the width of its place, the theme and its data.
 *
 * @param {string} label what the chart shows, for screen readers.
 * @param {number[][]} data the x values, then one array for each series; null leaves a gap.
 * @param {{label: string, colour: string, kind?: "line" | "area" | "bars" | "points" | "dashes"}[]} series `colour` is
 *   a token.
 * @param {boolean} time whether x is a time, in seconds since 1970.
 * @param {(value: number) => string} format for the values of y.
 * @param {[number, number] | null} rangeX what the x axis shows; by default all data.
 * @param {(chart: uPlot) => void} onDraw called after each drawing, to place things over it.
 */
export function Chart({
  label, data, series, time = false, height = 180, format = String, formatX = null, range = null, rangeX = null,
  onDraw = null,
}) {
  const place = useRef(null);
  const chart = useRef(null);
  const draw = useRef(onDraw);
  draw.current = onDraw;
  const shape = JSON.stringify([series, time, height, range, rangeX]);

  useEffect(() => {
    const build = () => {
      chart.current?.destroy();
      const width = place.current.clientWidth || 300;
      const options = { width, height, ...chartOptions({ series, time, format, formatX, range, rangeX }) };
      options.hooks = { draw: [(drawn) => draw.current?.(drawn)] };
      chart.current = new uPlot(options, data, place.current);
    };
    build();
    const resized = new ResizeObserver(() => {
      const width = place.current?.clientWidth;
      if (width && width !== chart.current.width) chart.current.setSize({ width, height });
    });
    resized.observe(place.current);
    const dark = matchMedia("(prefers-color-scheme: dark)");
    dark.addEventListener("change", build);
    addEventListener(THEME_CHANGED, build);
    return () => {
      resized.disconnect();
      dark.removeEventListener("change", build);
      removeEventListener(THEME_CHANGED, build);
      chart.current.destroy();
      chart.current = null;
    };
  }, [shape]);
  useEffect(() => chart.current?.setData(data), [data]);

  return html`<div class="chart" role="img" aria-label=${label} ref=${place}></div>`;
}

function chartOptions({ series, time, format, formatX, range, rangeX }) {
  const grid = { stroke: colour("--line"), width: 1 };
  const axis = { stroke: colour("--ink-soft"), grid, ticks: { show: false }, font: "12px system-ui" };
  const marks = formatX ? (_, values) => values.map(formatX) : time ? timeMarks : undefined;
  const rangeY = range ?? ((_, low, high) => [Math.min(0, low), high > 0 ? high * 1.05 : 1]);
  return {
    cursor: { y: false, drag: { x: false, y: false } },
    legend: { show: false },
    scales: { x: { time, ...(rangeX && { range: rangeX }) }, y: { range: rangeY } },
    axes: [
      { ...axis, grid: { show: false }, size: 30, values: marks },
      { ...axis, size: 56, values: (_, values) => values.map(format) },
    ],
    series: [{}, ...series.map(seriesOptions)],
  };
}

function seriesOptions({ label, colour: token, kind = "line" }) {
  const stroke = colour(token);
  const fewest = { line: FEW, dashes: 2 }[kind] ?? 0;
  const isSparse = (chart) => chart.data[0].length < fewest;
  const points = { show: kind === "points" || isSparse, size: 6, fill: stroke };
  const common = { label, stroke, points, width: kind === "points" ? 0 : 2, spanGaps: false };
  if (kind === "bars") {
    return { ...common, width: 0, fill: stroke, paths: uPlot.paths.bars({ size: [0.9, 60], gap: 1 }) };
  }
  if (kind === "area") return { ...common, fill: withAlpha(stroke, 0.15) };
  if (kind === "dashes") return { ...common, width: 1.5, dash: [5, 4] };
  return common;
}

/** Marks of a time axis by locale: days where they are a day or more apart, else hours. */
function timeMarks(_, seconds) {
  const far = seconds.length > 1 && seconds[1] - seconds[0] >= 86_400;
  const clock = new Intl.DateTimeFormat(locale, { hour: "2-digit", minute: "2-digit" });
  const date = new Intl.DateTimeFormat(locale, { day: "numeric", month: "short" });
  return seconds.map((each) => {
    const moment = new Date(each * 1000);
    return far || (moment.getHours() === 0 && moment.getMinutes() === 0) ? date.format(moment) : clock.format(moment);
  });
}

/** The colour of a token in the present theme, for a canvas. */
export function colour(token) {
  const probe = document.createElement("span");
  probe.style.color = `var(${token})`;
  probe.hidden = true;
  document.body.append(probe);
  const value = getComputedStyle(probe).color;
  probe.remove();
  return value;
}

const withAlpha = (rgb, alpha) => rgb.replace(/^rgb\((.*)\)$/, `rgba($1, ${alpha})`);

/** The legend of a chart: each series by the form and the colour of its line. */
export function Legend({ series }) {
  return html`<ul class="row small legend">
    ${series.map(({ label, kind, colour: token }) => html`<li class="row">
      <span class=${`swatch ${kind ?? "line"}`} style=${{ color: `var(${token})` }}></span>${label}</li>`)}
  </ul>`;
}
