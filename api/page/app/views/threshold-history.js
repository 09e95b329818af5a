/** The thresholds of a version so far: who set them, when and why, and a way back to each. */

import { Resource } from "../components/states.js";
import { Time } from "../components/time.js";
import { showToast } from "../components/toast.js";
import { dateTime, number } from "../format.js";
import { html } from "../html.js";
import { useMay } from "../session.js";
import { t } from "../strings.js";

const TITLES = ["filter.station_id", "thresholds.when", "thresholds.who", "thresholds.reason"];

/** @param {(limits: object, reason: string) => Promise<void>} onSet */
export function ThresholdHistory({ history, onSet }) {
  const may = useMay("admin");
  const restore = ({ threshold, review_threshold, created_at: at }) =>
    onSet({ threshold, review_threshold }, t("thresholds.restored", { time: dateTime(at) })).catch(
      (refusal) => showToast(refusal.message),
    );
  return html`<section class="stack">
    <h2>${t("thresholds.history")}</h2>
    <${Resource} of=${history}>${({ items }) => html`<div class="panel flush" tabindex="0"><table>
      <thead><tr>
        <th class="number">${t("model.threshold")}</th><th class="number">${t("thresholds.review")}</th>
        ${TITLES.map((title) => html`<th>${t(title)}</th>`)}<th></th>
      </tr></thead>
      <tbody>${items.map((each) => html`
        <${Row} threshold=${each} onRestore=${may ? () => restore(each) : null} />`)}</tbody>
    </table></div>`}<//>
  </section>`;
}

function Row({ threshold, onRestore }) {
  const { station_id: station, actor, reason, calibration, in_force: isInForce } = threshold;
  return html`<tr>
    <td class="number">${number(threshold.threshold)}</td>
    <td class="number">${number(threshold.review_threshold)}</td>
    <td>${station ?? t("thresholds.allStations")}</td>
    <td><${Time} at=${threshold.created_at} /></td>
    <td>${actor ?? "–"}</td>
    <td>${reason ?? (calibration ? t("thresholds.calibrated") : "–")}</td>
    <td>
      ${isInForce && html`<span class="verdict ok">${t("thresholds.inForce")}</span>`}
      ${!isInForce && onRestore && html`<button onClick=${onRestore}>${t("thresholds.restore")}</button>`}
    </td>
  </tr>`;
}
