/** One model version: what it is, where it comes from, what it can find, and what can be done with it. */

import { Detectability } from "../components/detectability.js";
import { Icon } from "../components/icon.js";
import { recipePath } from "../components/recipe-needed.js";
import { Time } from "../components/time.js";
import { bytes, number, percent } from "../format.js";
import { html } from "../html.js";
import { href } from "../router.js";
import { t, tCode } from "../strings.js";

const LOOKS = { active: "ok", rejected: "ng" };

/**
 * @param {object | null} challenger of the recipe.
 * @param {object[]} trainings the training runs of the recipe.
 * @param {?function} onChoose chooses the version to compare it; null if there is no other.
 * @param {(action: "activate" | "challenge") => void} onAsk asks a person before something happens.
 */
export function Version({ version, may, challenger, trainings, chosen, onChoose, onAsk }) {
  const { detectability } = version.manifest;
  const state = version.active ? "active" : version.state;
  const challenges = challenger?.model_version === version.version;
  const idle = may && version.state === "ready" && !version.active;
  const bundle = `${recipePath(version.recipe)}/model-versions/${version.version}/bundle`;
  return html`<section class="panel" aria-label=${t("model.version", { version: version.version })}>
    <header class="row">
      ${onChoose && html`<input type="checkbox" checked=${chosen} onClick=${onChoose}
        aria-label=${t("model.choose", { version: version.version })} />`}
      <h2>${t("model.version", { version: version.version })}</h2>
      <span class=${`verdict ${LOOKS[state] ?? ""}`}>${tCode("model", state)}</span>
      ${challenges && html`<span class="verdict">${t("challenger.title")}</span>`}
      ${detectability && html`<span class=${`light ${detectability.fit_for_use ? "ok" : "ng"}`}>
        ${t(detectability.fit_for_use ? "model.fit" : "model.unfit")}</span>`}
      <span class="push row">
        ${idle && !challenger && html`<button onClick=${() => onAsk("challenge")}>${t("challenger.start")}</button>`}
        ${idle && html`<button onClick=${() => onAsk("activate")}>${t("action.activate")}</button>`}
        <a class="button" href=${bundle} download>${t("model.bundle")}</a>
      </span>
    </header>
    ${version.rejection && html`<p class="light ng"><${Icon} name="triangle-alert" />${version.rejection}</p>`}
    <${Facts} version=${version} trainings=${trainings} />
    ${detectability && html`<${Detectability} of=${detectability} />`}
  </section>`;
}

function Facts({ version, trainings }) {
  const { architecture, preprocessing, training, metrics } = version.manifest;
  return html`<dl class="facts">
    <dt>${t("model.architecture")}</dt>
    <dd>${architecture.name}, ${preprocessing.width} × ${preprocessing.height} px</dd>
    <dt>${t("model.created")}</dt><dd><${Time} at=${version.created_at} /></dd>
    <dt>${t("model.origin")}</dt><dd><${Origin} version=${version} trainings=${trainings} /></dd>
    ${training && html`<dt>${t("model.trainedOn")}</dt>
      <dd>${t("model.parts", { count: training.parts.training })}</dd>`}
    <dt>${t("model.threshold")}</dt><dd><${Threshold} version=${version} /></dd>
    ${metrics && html`<dt>${t("model.metrics")}</dt><dd>${describeMetrics(metrics)}</dd>`}
    <dt>${t("model.size")}</dt><dd>${bytes(version.bundle_bytes)}</dd>
    <dt>SHA-256</dt><dd><code>${version.sha256.slice(0, 16)}</code></dd>
  </dl>`;
}

/** A training of this system, an uploaded bundle, or weights whose training nobody recorded. */
function Origin({ version, trainings }) {
  const run = trainings.find(({ result }) => result?.model_version === version.version);
  if (run) {
    return html`<a href=${href("/train", { recipe: version.recipe })}>${t("model.origin.training")}</a>,
      ${run.created_by}, <${Time} at=${run.created_at} />`;
  }
  return t(version.manifest.training ? "model.origin.uploaded" : "model.origin.imported");
}

function Threshold({ version }) {
  const { threshold, calibration } = version.thresholds.find(({ station_id: station }) => station === null);
  const promise = calibration && t("model.promise", {
    rate: percent(calibration.expected_false_reject_rate),
    low: percent(calibration.confidence_interval[0]),
    high: percent(calibration.confidence_interval[1]),
  });
  return html`${number(threshold)}${promise && html` <span class="soft">${promise}</span>`}`;
}

function describeMetrics({ auroc, auroc_interval: [low, high], recall, false_reject_rate: rejected, good, defective }) {
  return t("model.metrics.text", {
    auroc: number(auroc), low: number(low), high: number(high), recall: percent(recall), rejected: percent(rejected),
    good, defective,
  });
}
