/** A histogram of scores by verdict, with the threshold and the review threshold as lines to drag. */

import { useRef } from "../../vendor/hooks.mjs";
import { decimalsOf, integer, numberIn } from "../format.js";
import { html } from "../html.js";
import { t } from "../strings.js";
import { Legend } from "./chart.js";

const WIDTH = 1000;
const HEIGHT = 240;
const STACK = [
  { verdict: "ok", colour: "--ok" },
  { verdict: "review", colour: "--review" },
  { verdict: "ng", colour: "--ng" },
];
const STEPS = 200; // of the keyboard, over the width

/** @param {{threshold: number, review_threshold: number | null}} limits @param {(limits: object) => void} onChange */
export function ScoreHistogram({ histogram, limits, onChange }) {
  const place = useRef(null);
  const { bins } = histogram;
  const low = bins[0].low;
  const width = bins.length > 1 ? bins[1].low - bins[0].low : bins[0].high - bins[0].low;
  const high = low + width * bins.length;
  const highest = Math.max(...bins.map((bin) => bin.ok + bin.ng + bin.review), 1);
  const toX = (score) => (WIDTH * (score - low)) / (high - low);
  const toScore = (clientX) => {
    const box = place.current.getBoundingClientRect();
    return low + ((clientX - box.x) / box.width) * (high - low);
  };
  const move = (name, score) => {
    const value = Number(Math.min(high, Math.max(low, score)).toFixed(decimalsOf(width)));
    const others = name === "threshold" && limits.review_threshold > value ? { review_threshold: value } : {};
    const bounded = name === "review_threshold" ? Math.min(value, limits.threshold) : value;
    onChange({ ...limits, ...others, [name]: bounded });
  };
  const lines = ["threshold", ...(limits.review_threshold === null ? [] : ["review_threshold"])];
  const scale = (HEIGHT - 16) / highest;
  return html`<figure class="stack tight">
    <${Legend} series=${legend()} />
    <div class="histogram" ref=${place} onPointerDown=${(event) => move("threshold", toScore(event.clientX))}>
      <svg viewBox=${`0 0 ${WIDTH} ${HEIGHT}`} preserveAspectRatio="none" role="img"
        aria-label=${t("thresholds.histogram", { count: integer(histogram.count) })}>
        ${bins.map((bin) => html`
          <${Bar} bin=${bin} x=${toX(bin.low)} width=${WIDTH / bins.length} scale=${scale} />`)}
      </svg>
      ${lines.map((name) => html`<${Line} key=${name} name=${name} value=${limits[name]} range=${[low, high]} step=${width}
        toScore=${toScore} onMove=${(score) => move(name, score)} />`)}
    </div>
    <${Axis} low=${low} high=${high} />
  </figure>`;
}

function legend() {
  const verdicts = STACK.map(({ verdict, colour }) => ({ label: t(`verdict.${verdict}`), colour, kind: "bars" }));
  return [...verdicts, { label: t("thresholds.reviewedMarks"), colour: "--ink", kind: "points" }];
}

/** The last bin holds all higher scores, so its end has a plus. */
function Axis({ low, high }) {
  const marks = [0, 0.25, 0.5, 0.75, 1].map((share) => numberIn(low + share * (high - low), high - low));
  return html`<div class="histogram-axis">
    ${marks.map((mark, index) => html`<span>${mark}${index === marks.length - 1 ? "+" : ""}</span>`)}
  </div>`;
}

/** The verdicts of a bin on top of each other, and marks for what people called ok and ng. */
function Bar({ bin, x, width, scale }) {
  let top = HEIGHT;
  const middle = x + width / 2;
  const total = bin.ok + bin.ng + bin.review;
  return html`<g>
    ${STACK.map(({ verdict, colour }) => {
      const height = bin[verdict] * scale;
      top -= height;
      const style = { fill: `var(${colour})` };
      return html`<rect x=${x + width * 0.06} y=${top} width=${width * 0.88} height=${height} style=${style} />`;
    })}
    ${bin.reviewed_ok > 0 && html`<circle cx=${middle} cy="6" r="4" style=${{ fill: "var(--ok)" }}>
      <title>${t("thresholds.reviewedOk", { count: bin.reviewed_ok })}</title>
    </circle>`}
    ${bin.reviewed_ng > 0 && html`<rect x=${middle - 4} y="12" width="8" height="8" style=${{ fill: "var(--ng)" }}>
      <title>${t("thresholds.reviewedNg", { count: bin.reviewed_ng })}</title>
    </rect>`}
    <rect x=${x} y="0" width=${width} height=${HEIGHT} fill="transparent">
      <title>${numberIn(bin.low, width)} – ${bin.high === null ? "" : numberIn(bin.high, width)}: ${integer(total)}</title>
    </rect>
  </g>`;
}

/** A line to drag, in a histogram with bins of the width `step`; with the arrow keys too, ten steps with shift. */
function Line({ name, value, range, step, toScore, onMove }) {
  const [low, high] = range;
  const shown = numberIn(value, step);
  const onPointerDown = (event) => {
    event.stopPropagation();
    event.currentTarget.setPointerCapture(event.pointerId);
  };
  const onPointerMove = (event) => {
    if (event.currentTarget.hasPointerCapture(event.pointerId)) onMove(toScore(event.clientX));
  };
  const onKeyDown = (event) => {
    const direction = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1 }[event.key];
    if (!direction) return;
    event.preventDefault();
    onMove(value + (direction * (event.shiftKey ? 10 : 1) * (high - low)) / STEPS);
  };
  const left = Math.min(1, Math.max(0, (value - low) / (high - low)));
  return html`<div class=${`histogram-line ${name}`} style=${{ left: `${100 * left}%` }} role="slider" tabindex="0"
    aria-label=${t(name === "threshold" ? "model.threshold" : "thresholds.review")} aria-valuenow=${value}
    aria-valuemin=${low} aria-valuemax=${high} aria-valuetext=${shown} onPointerDown=${onPointerDown}
    onPointerMove=${onPointerMove} onKeyDown=${onKeyDown}><span>${shown}</span></div>`;
}
