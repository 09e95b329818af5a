/** One inspection: the image with its heatmap, why the verdict is what it is, and what a person may do about it. */

import { useState } from "../../vendor/hooks.mjs";
import { call, useResource } from "../api.js";
import { Icon } from "../components/icon.js";
import { nameOf, thumbnailOf } from "../components/inspection-card.js";
import { ReviewForm } from "../components/review-form.js";
import { Resource } from "../components/states.js";
import { Time } from "../components/time.js";
import { showToast } from "../components/toast.js";
import { Score, Verdict, outcome } from "../components/verdict.js";
import { ZoomableImage } from "../components/zoomable-image.js";
import { bytes, duration, number, ratio } from "../format.js";
import { html } from "../html.js";
import { useKeys } from "../keys.js";
import { go, href } from "../router.js";
import { useMay } from "../session.js";
import { t, tCode } from "../strings.js";

export function InspectionView({ id, query }) {
  const inspection = useResource(`/v1/inspections/${id}`, { every: 10_000 });
  return html`<${Resource} of=${inspection}>${(data) => html`<${Loaded} key=${id} inspection=${data} query=${query} reload=${inspection.reload} />`}<//>`;
}

function Loaded({ inspection, query, reload }) {
  const name = nameOf(inspection);
  return html`
    <div class="view-head">
      <h1>${name}</h1><${Verdict} value=${outcome(inspection)} />
      <div class="actions"><${Neighbours} id=${inspection.id} query=${query} /><${Share} /></div>
    </div>
    <div class="inspection">
      <${Pictures} inspection=${inspection} />
      <div class="stack">
        <${Why} inspection=${inspection} />
        <${Reviews} inspection=${inspection} reload=${reload} />
        <${Facts} inspection=${inspection} />
        <${History} inspection=${inspection} />
      </div>
    </div>
    <${NearestGood} inspection=${inspection} query=${query} />
  `;
}

/** The next and the previous inspection of the filter in the address, by button and by key. */
function Neighbours({ id, query }) {
  const neighbours = useResource(`/v1/inspections/${id}/neighbours`, { query });
  const open = (other) => other && go(href(`/inspections/${other}`, query));
  const { newer, older } = neighbours.data ?? {};
  useKeys({ j: () => open(older), ArrowRight: () => open(older), k: () => open(newer), ArrowLeft: () => open(newer) });
  return html`
    <button disabled=${!newer} onClick=${() => open(newer)} title="k, ←"><${Icon} name="chevron-left" />${t("inspection.newer")}</button>
    <button disabled=${!older} onClick=${() => open(older)} title="j, →">${t("inspection.older")}<${Icon} name="chevron-right" /></button>`;
}

function Share() {
  const share = async () => {
    await navigator.clipboard.writeText(location.href);
    showToast(t("inspection.shared"));
  };
  return html`<button onClick=${share}><${Icon} name="share-2" />${t("inspection.share")}</button>`;
}

function Pictures({ inspection }) {
  const [opacity, setOpacity] = useState(100);
  const scored = inspection.status === "completed";
  const base = `/v1/inspections/${inspection.id}`;
  useKeys({ h: () => setOpacity(opacity > 0 ? 0 : 100) });
  return html`<section class="panel">
    <${ZoomableImage} src=${`${base}/image`} over=${scored ? `${base}/heatmap` : null} opacity=${opacity / 100} alt=${t("card.image", { name: nameOf(inspection) })} />
    ${scored && html`
      <label>${t("inspection.opacity")} <input type="range" min="0" max="100" value=${opacity} onInput=${(event) => setOpacity(Number(event.target.value))} /></label>
      <${HeatScale} threshold=${inspection.threshold} />`}
  </section>`;
}

/** The scale of the heatmap in units of the threshold, so a colour means the same on every image. */
function HeatScale({ threshold }) {
  const marks = [0.5, 1, 1.5, 2, 2.5, 3];
  return html`<figure class="stack">
    <div class="heat-scale"><img src="/static/heat-scale.png" alt="" /></div>
    <div class="heat-marks">${marks.map((mark) => html`<span class=${mark === 1 ? "at-threshold" : ""}>${mark === 1 ? t("inspection.threshold") : `${number(mark)} ×`}</span>`)}</div>
    <figcaption class="soft small">${t("inspection.scale", { threshold: number(threshold) })}</figcaption>
  </figure>`;
}

function Why({ inspection }) {
  const { anomaly_score: score, threshold, review_threshold: reviewThreshold, verdict, reasons, error, model } = inspection;
  const reasonsText = reasons.map((reason) => tCode("reason", reason)).join(" ");
  return html`<section class="panel">
    <header><h2>${t("inspection.why")}</h2></header>
    ${error && html`<p><strong>${error.detail ?? error.code}</strong> <code class="soft">${error.code}</code></p>`}
    ${score !== null && html`
      <${Score} score=${score} threshold=${threshold} verdict=${verdict} />
      <p>${t(`inspection.because.${score >= threshold ? "ng" : verdict}`, { score: number(score), threshold: number(threshold), review: number(reviewThreshold), ratio: ratio(score, threshold) })} ${reasonsText}</p>`}
    ${model && html`<p class="soft small">${t("inspection.model")} <a href=${href("/models", { recipe: inspection.recipe })}>${t("model.version", { version: model.version })}</a> · <code>${model.sha256.slice(0, 12)}</code></p>`}
  </section>`;
}

function Reviews({ inspection, reload }) {
  const may = useMay("submit");
  const reviewable = ["completed", "failed"].includes(inspection.status);
  const review = async (verdict, reviewer, reason) => {
    await call(`/v1/inspections/${inspection.id}/reviews`, { method: "POST", json: { verdict, reviewer, reason } });
    showToast(t("review.saved", { verdict: tCode("verdict", verdict) }));
    reload();
  };
  return html`<section class="panel">
    <header><h2>${t("inspection.reviews")}</h2></header>
    ${inspection.reviews.length === 0 && html`<p class="soft">${t("inspection.reviews.none")}</p>`}
    <ul class="stack">${inspection.reviews.map((each) => html`<li class="row"><${Verdict} value=${each.verdict} />
      <span>${t("review.by", { reviewer: each.reviewer, reason: each.reason })}</span><span class="soft small"><${Time} at=${each.created_at} /></span></li>`)}</ul>
    ${may && reviewable && html`<${ReviewForm} onReview=${review} />`}
  </section>`;
}

const FIELDS = ["recipe", "part_id", "external_id", "lot_id", "line_id", "station_id", "batch_id", "view", "priority", "attempt"];
const TIMES = ["captured_at", "created_at", "started_at", "finished_at"];

function Facts({ inspection }) {
  const { image, timings_ms: timings, metadata } = inspection;
  const rows = FIELDS.filter((name) => inspection[name] !== null && inspection[name] !== undefined);
  return html`<section class="panel">
    <header><h2>${t("inspection.facts")}</h2></header>
    <dl class="facts">
      ${rows.map((name) => html`<dt>${t(`field.${name}`)}</dt><dd>${inspection[name]}</dd>`)}
      <dt>${t("field.image")}</dt><dd>${image.width} × ${image.height}, ${image.media_type}, ${bytes(image.bytes)}</dd>
      ${TIMES.filter((name) => inspection[name]).map((name) => html`<dt>${t(`field.${name}`)}</dt><dd><${Time} at=${inspection[name]} /></dd>`)}
      ${Object.entries(timings).map(([stage, value]) => html`<dt>${t("field.timing", { stage: tCode("timing", stage) })}</dt><dd>${duration(value)}</dd>`)}
      ${Object.entries(metadata).map(([name, value]) => html`<dt>${name}</dt><dd>${typeof value === "string" ? value : JSON.stringify(value)}</dd>`)}
    </dl>
    <p class="small"><a href=${`/v1/inspections/${inspection.id}`} target="_blank" rel="noopener">JSON</a> · <a href=${`/v1/inspections/${inspection.id}/image`} download>${t("inspection.download")}</a></p>
  </section>`;
}

function History({ inspection }) {
  const rescores = useResource(`/v1/inspections/${inspection.id}/rescores`);
  return html`<${Resource} of=${rescores}>${({ items }) => items.length > 0 && html`<section class="panel flush">
    <table><caption class="visually-hidden">${t("inspection.rescores")}</caption>
      <thead><tr><th>${t("inspection.rescores")}</th><th>${t("model.title")}</th><th class="number">${t("score.title")}</th><th></th></tr></thead>
      <tbody>${items.map((each) => html`<tr><td><${Time} at=${each.scored_at} /></td><td>${t("model.version", { version: each.model.version })}</td>
        <td class="number">${number(each.anomaly_score)} · ${ratio(each.anomaly_score, each.threshold)}</td><td><${Verdict} value=${each.verdict ?? each.status} /></td></tr>`)}</tbody>
    </table></section>`}<//>`;
}

/** Good parts that look most like this one, to compare with. */
function NearestGood({ inspection, query }) {
  const similar = useResource(inspection.status === "completed" ? `/v1/inspections/${inspection.id}/similar` : null, { query: { limit: 6 } });
  if (inspection.status !== "completed") return null;
  return html`<section class="stack"><h2>${t("inspection.similar")}</h2>
    <${Resource} of=${similar}>${({ items }) => (items.length === 0
      ? html`<p class="soft">${t("inspection.similar.none")}</p>`
      : html`<div class="strip">${items.map((good) => html`<a href=${href(`/inspections/${good.id}`, query)} title=${nameOf(good)}>
          <img src=${thumbnailOf(good.id)} alt=${t("card.image", { name: nameOf(good) })} width="256" height="256" /></a>`)}</div>`)}<//>
  </section>`;
}
