/** One inspection of the review queue, with everything that decides it, and keys for all that can be done. */

import { useEffect, useState } from "../../vendor/hooks.mjs";
import { Icon } from "../components/icon.js";
import { nameOf } from "../components/inspection-card.js";
import { Time } from "../components/time.js";
import { Score, Verdict } from "../components/verdict.js";
import { ZoomableImage } from "../components/zoomable-image.js";
import { html } from "../html.js";
import { useKeys } from "../keys.js";
import { href, rooted } from "../router.js";
import { t, tCode } from "../strings.js";

/**
 * @param {((verdict: string, reason: string) => void) | null} onDecide null if the person may not review.
 * @param {(() => void) | null} onUndo null if there is nothing to take back.
 * @param {object} [next] the inspection whose images are loaded ahead.
 */
export function ReviewedImage({ inspection, next, onDecide, onUndo, onSkip }) {
  const [reason, setReason] = useState("");
  const [heat, setHeat] = useState(true);
  const reasons = t("review.reasons").split("|");
  const decide = (verdict) => onDecide?.(verdict, reason);
  const toggleHeat = () => setHeat(!heat);
  const numbers = Object.fromEntries(reasons.map((each, index) => [String(index + 1), () => setReason(each)]));
  useKeys({ ...numbers, o: () => decide("ok"), n: () => decide("ng"), u: () => onUndo?.(), s: onSkip, h: toggleHeat });
  useEffect(() => {
    if (next?.status !== "completed") return;
    for (const kind of ["image", "heatmap"]) new Image().src = rooted(`/v1/inspections/${next.id}/${kind}`);
  }, [next?.id]);
  const base = `/v1/inspections/${inspection.id}`;
  const over = inspection.status === "completed" ? `${base}/heatmap` : null;
  const alt = t("card.image", { name: nameOf(inspection) });
  return html`<div class="inspection deciding">
    <section class="panel"><${ZoomableImage} src=${`${base}/image`} over=${over} opacity=${heat ? 1 : 0} alt=${alt} /></section>
    <section class="panel">
      <${Findings} inspection=${inspection} />
      ${onDecide && html`
        <${Reason} reason=${reason} reasons=${reasons} onChange=${setReason} />
        <div class="row decide">
          <button class="ok" onClick=${() => decide("ok")}><${Icon} name="check" />${t("verdict.ok")} <kbd>o</kbd></button>
          <button class="ng" onClick=${() => decide("ng")}><${Icon} name="x" />${t("verdict.ng")} <kbd>n</kbd></button>
        </div>`}
      <div class="row">
        <button disabled=${!onUndo} onClick=${onUndo}><${Icon} name="undo-2" />${t("action.undo")} <kbd>u</kbd></button>
        <button onClick=${onSkip}>${t("review.skip")} <kbd>s</kbd></button>
        <button aria-pressed=${heat} onClick=${toggleHeat}>${t("review.heat")} <kbd>h</kbd></button>
      </div>
    </section>
  </div>`;
}

function Findings({ inspection }) {
  const { recipe, lot_id: lot, line_id: line, station_id: station, anomaly_score: score, verdict } = inspection;
  return html`
    <header class="row">
      <h2><a href=${href(`/inspections/${inspection.id}`)}>${nameOf(inspection)}</a></h2>
      <${Verdict} value=${verdict ?? inspection.status} />
    </header>
    <p class="soft">${t(`review.waits.${inspection.waits_for}`)}</p>
    ${score !== null && html`<${Score} score=${score} threshold=${inspection.threshold} verdict=${verdict} />`}
    ${inspection.reasons.map((each) => html`<p>${tCode("reason", each)}</p>`)}
    ${inspection.error && html`<p>${inspection.error.detail}</p>`}
    <p class="soft small">
      ${[recipe, lot, line, station].filter(Boolean).join(" · ")} · <${Time} at=${inspection.created_at} />
    </p>`;
}

function Reason({ reason, reasons, onChange }) {
  return html`
    <label>
      ${t("review.reason")}
      <input value=${reason} maxlength="2000" placeholder=${t("review.reason.default")}
        onInput=${(event) => onChange(event.target.value)} />
    </label>
    <div class="row">${reasons.map((each, index) => html`
      <button class="small" aria-pressed=${reason === each} onClick=${() => onChange(each)}>
        <kbd>${index + 1}</kbd>${each}
      </button>`)}
    </div>`;
}
