/** The view for a monitor above the line: readable from across the hall, by colour, word and shape. */

import { useEffect } from "../../vendor/hooks.mjs";
import { useResource } from "../api.js";
import { Icon } from "../components/icon.js";
import { nameOf } from "../components/inspection-card.js";
import { Verdict, outcome } from "../components/verdict.js";
import { integer, number, percent, time } from "../format.js";
import { html } from "../html.js";
import { t } from "../strings.js";

const SHIFTS = [6, 14, 22]; // o'clock

/** @param {string} [shifts] the hours at which shifts begin, for example `6, 14, 22`. */
export function Wall({ inspection, filter, shifts, connected, onClose }) {
  const since = shiftStart(readHours(shifts));
  const shift = useShiftCounts(filter, since);
  const verdict = inspection ? outcome(inspection) : "other";
  useEffect(() => {
    // Browsers allow it only after a key or a click. A wall opened by its address fills the page.
    if (navigator.userActivation?.isActive) document.documentElement.requestFullscreen?.();
    return () => document.fullscreenElement && document.exitFullscreen();
  }, []);
  return html`<section class=${`wall ${verdict}`} aria-live="polite">
    <div class="wall-picture">${inspection && html`<${Picture} inspection=${inspection} verdict=${verdict} />`}</div>
    <div class="wall-side">
      ${inspection ? html`<${Named} inspection=${inspection} verdict=${verdict} />` : html`<p>${t("live.none")}</p>`}
      ${!connected && html`<p class="light review"><${Icon} name="triangle-alert" />${t("live.connecting")}</p>`}
      <dl class="figures">
        ${["ok", "ng", "review", "failed"].map((name) => html`<div class="figure">
          <dt>${t(`verdict.${name}`)}</dt><dd>${integer(shift?.[name])}</dd>
        </div>`)}
        <div class="figure"><dt>${t("overview.ngRate")}</dt><dd>${percent(shift?.ng_rate)}</dd></div>
      </dl>
      <p class="soft">${t("live.shift", { time: time(since) })}</p>
      <button onClick=${onClose}>${t("action.close")} <kbd>Esc</kbd></button>
    </div>
  </section>`;
}

/** Good parts are shown as they are, others with what the machine marked. */
function Picture({ inspection, verdict }) {
  const kind = inspection.status === "completed" && verdict !== "ok" ? "heatmap" : "image";
  const alt = t("card.image", { name: nameOf(inspection) });
  return html`<img src=${`/v1/inspections/${inspection.id}/${kind}`} alt=${alt} />`;
}

function Named({ inspection, verdict }) {
  const score = { score: number(inspection.anomaly_score), threshold: number(inspection.threshold) };
  return html`
    <p class="wall-verdict"><${Verdict} value=${verdict} /></p>
    <p class="wall-name">${nameOf(inspection)}</p>
    <p class="soft">${inspection.anomaly_score !== null && t("score.label", score)}</p>`;
}

function readHours(text) {
  const hours = (text ?? "").split(/[\s,;]+/).filter((part) => /^\d{1,2}$/.test(part)).map(Number);
  const valid = hours.filter((hour) => hour < 24).toSorted((one, other) => one - other);
  return valid.length > 0 ? valid : SHIFTS;
}

/** The start of the present shift in the browser's zone, as RFC 3339. */
function shiftStart(hours) {
  const start = new Date();
  const begun = hours.filter((hour) => hour <= start.getHours());
  if (begun.length === 0) start.setDate(start.getDate() - 1);
  start.setHours(begun.at(-1) ?? hours.at(-1), 0, 0, 0);
  return start.toISOString();
}

function useShiftCounts(filter, since) {
  const statistics = useResource("/v1/statistics", { query: { ...filter, since }, every: 5_000 });
  if (!statistics.data) return null;
  const sum = (count) => statistics.data.items.reduce((total, { totals }) => total + count(totals), 0);
  const counts = Object.fromEntries(["ok", "ng", "review"].map((name) => [name, sum(({ verdict }) => verdict[name])]));
  const judged = counts.ok + counts.ng + counts.review;
  return { ...counts, failed: sum(({ status }) => status.failed), ng_rate: judged ? counts.ng / judged : null };
}
