/** What is known of an inspection: why its verdict, its reviews, all its fields, and what later runs made of it. */

import { useResource } from "../api.js";
import { ReviewForm } from "../components/review-form.js";
import { Resource } from "../components/states.js";
import { Time } from "../components/time.js";
import { showToast } from "../components/toast.js";
import { Score, Verdict } from "../components/verdict.js";
import { apart, bytes, duration, number, ratio } from "../format.js";
import { html } from "../html.js";
import { recipePath } from "../components/recipe-needed.js";
import { addReview, isBlind, retractReview } from "../reviewing.js";
import { href } from "../router.js";
import { useMay } from "../session.js";
import { t, tCode } from "../strings.js";

export function Why({ inspection }) {
  const { anomaly_score: score, threshold, verdict, reasons, error, model } = inspection;
  const because = `inspection.because.${score >= threshold ? "ng" : verdict}`;
  const [shown, limit] = apart(score, threshold);
  const values = { score: shown, threshold: limit, ratio: ratio(score, threshold) };
  return html`<section class="panel">
    <header><h2>${t("inspection.why")}</h2></header>
    ${error && html`<p><strong>${error.detail ?? error.code}</strong> <code class="soft">${error.code}</code></p>`}
    ${inspection.finished_at === null && html`<p>${t("inspection.because.waiting")}</p>`}
    ${score !== null && html`
      <${Score} score=${score} threshold=${threshold} verdict=${verdict} />
      <p>${t(because, values)} ${reasons.map((reason) => tCode("reason", reason)).join(" ")}</p>`}
    ${model && html`
      <p class="soft small">
        ${t("inspection.model")} <a href=${href("/models", { recipe: inspection.recipe })}>${version(model)}</a> ·${" "}
        <code>${model.sha256.slice(0, 12)}</code>
      </p>
      <${InForce} inspection=${inspection} />`}
  </section>`;
}

const version = (model) => t("model.version", { version: model.version });

/** The version and the threshold that score now, where they are not those of the inspection. */
function InForce({ inspection }) {
  const versions = useResource(`${recipePath(inspection.recipe)}/model-versions`);
  const active = versions.data?.items.find((each) => each.active);
  if (!active) return null;
  const { threshold } =
    active.thresholds.find(({ station_id: station }) => station === inspection.station_id) ??
    active.thresholds.find(({ station_id: station }) => station === null) ?? {};
  if (active.version === inspection.model.version && threshold === inspection.threshold) {
    return html`<p class="soft small">${t("inspection.inForce.same")}</p>`;
  }
  return html`<p class="soft small">
    ${t("inspection.inForce", { version: version(active), threshold: apart(threshold, inspection.threshold)[0] })}${" "}
    <a href=${href("/thresholds", { recipe: inspection.recipe })}>${t("nav.thresholds")}</a>
  </p>`;
}

export function Reviews({ inspection, reload }) {
  const may = useMay("submit");
  const isReviewable = ["completed", "failed"].includes(inspection.status);
  const isHidden = isBlind(inspection);
  const undo = async (review) => {
    try {
      await retractReview(inspection.id, review);
      reload();
    } catch (refusal) {
      showToast(refusal.message);
    }
  };
  const review = async (given) => {
    const reviewed = await addReview(inspection.id, given);
    reload();
    const action = { label: t("action.undo"), run: () => undo(reviewed.reviews.at(-1)) };
    showToast(t("review.saved", { verdict: tCode("verdict", given.verdict) }), action);
  };
  return html`<section class="panel">
    <header><h2>${t("inspection.reviews")}</h2></header>
    ${inspection.reviews.length === 0 && html`<p class="soft">${t("inspection.reviews.none")}</p>`}
    ${isHidden && html`<p class="soft">${t("inspection.reviews.blind")}</p>`}
    ${!isHidden && html`<ul class="stack">${inspection.reviews.map((each) => html`<li class="row">
      <${Verdict} value=${each.verdict} />
      <span>${t("review.by", { reviewer: each.reviewer, reason: each.reason })}</span>
      <span class="soft small"><${Time} at=${each.created_at} /></span>
    </li>`)}</ul>`}
    ${may && isReviewable && html`<${ReviewForm} onReview=${review} />`}
  </section>`;
}

const FIELDS = [
  "id", "recipe", "part_id", "external_id", "lot_id", "line_id", "station_id", "batch_id", "view", "priority", "attempt",
];
const TIMES = ["captured_at", "created_at", "started_at", "finished_at"];

export function Facts({ inspection }) {
  const { image, timings_ms: timings, metadata } = inspection;
  const isGiven = (name) => inspection[name] !== null && inspection[name] !== undefined;
  const path = `/v1/inspections/${inspection.id}`;
  return html`<section class="panel">
    <header><h2>${t("inspection.facts")}</h2></header>
    <dl class="facts">
      ${FIELDS.filter(isGiven).map((name) => html`<dt>${t(`field.${name}`)}</dt><dd>${inspection[name]}</dd>`)}
      <dt>${t("field.image")}</dt><dd>${image.width} × ${image.height}, ${image.media_type}, ${bytes(image.bytes)}</dd>
      ${TIMES.filter(isGiven).map((name) => html`
        <dt>${t(`field.${name}`)}</dt><dd><${Time} at=${inspection[name]} /></dd>`)}
      ${Object.entries(timings).map(([stage, value]) => html`
        <dt>${t("field.timing", { stage: tCode("timing", stage) })}</dt><dd>${duration(value)}</dd>`)}
      ${Object.entries(metadata).map(([name, value]) => html`
        <dt>${name}</dt><dd>${typeof value === "string" ? value : JSON.stringify(value)}</dd>`)}
    </dl>
    <p class="small">
      <a href=${path} target="_blank" rel="noopener">JSON</a> ·${" "}
      <a href=${`${path}/image`} download>${t("inspection.download")}</a>
    </p>
  </section>`;
}

export function Rescores({ inspection }) {
  const rescores = useResource(`/v1/inspections/${inspection.id}/rescores`);
  return html`<${Resource} of=${rescores}>${({ items }) => items.length > 0 && html`<section class="panel flush" tabindex="0">
    <table>
      <caption class="visually-hidden">${t("inspection.rescores")}</caption>
      <thead><tr>
        <th>${t("inspection.rescores")}</th><th>${t("model.title")}</th><th class="number">${t("score.title")}</th><th></th>
      </tr></thead>
      <tbody>${items.map((each) => html`<tr>
        <td><${Time} at=${each.scored_at} /></td>
        <td>${version(each.model)}</td>
        <td class="number">${number(each.anomaly_score)} · ${ratio(each.anomaly_score, each.threshold)}</td>
        <td><${Verdict} value=${each.verdict ?? each.status} /></td>
      </tr>`)}</tbody>
    </table></section>`}<//>`;
}
