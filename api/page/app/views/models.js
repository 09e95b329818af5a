/** Model versions: their figures, which one is active, which one challenges it; activate, roll back, compare two. */

import { useState } from "../../vendor/hooks.mjs";
import { call, useResource } from "../api.js";
import { Detectability } from "../components/detectability.js";
import { Dialog } from "../components/dialog.js";
import { Icon } from "../components/icon.js";
import { RecipeNeeded, recipePath } from "../components/recipe-needed.js";
import { Empty, Resource } from "../components/states.js";
import { Time } from "../components/time.js";
import { showToast } from "../components/toast.js";
import { number, percent } from "../format.js";
import { html } from "../html.js";
import { changeQuery, href } from "../router.js";
import { useMay } from "../session.js";
import { t, tCode } from "../strings.js";
import { Comparison } from "./comparison.js";

export function Models({ query }) {
  if (!query.recipe) return html`<div class="view-head"><h1>${t("nav.models")}</h1></div><${RecipeNeeded} />`;
  return html`<${OfRecipe} key=${query.recipe} recipe=${query.recipe} query=${query} />`;
}

function OfRecipe({ recipe, query }) {
  const versions = useResource(`${recipePath(recipe)}/model-versions`, { every: 10_000 });
  const may = useMay("admin");
  const [asking, setAsking] = useState(null);
  const act = async () => {
    const { action, version } = asking;
    const path = action === "rollback" ? "model-versions/rollback" : `model-versions/${version.version}/activate`;
    setAsking(null);
    try {
      const active = await call(`${recipePath(recipe)}/${path}`, { method: "POST" });
      showToast(t("model.activated", { version: active.version }));
    } catch (problem) {
      showToast(problem.message);
    }
    versions.reload();
  };
  return html`
    <div class="view-head"><h1>${t("nav.models")}</h1>
      <div class="actions">
        <a class="button" href=${href("/train", { recipe })}><${Icon} name="plus" />${t("model.train")}</a>
        ${may && html`<button onClick=${() => setAsking({ action: "rollback" })}><${Icon} name="undo-2" />${t("action.rollback")}</button>`}
      </div>
    </div>
    <${Resource} of=${versions}>${({ items }) => (items.length === 0
      ? html`<${Empty} title=${t("model.none")}><p>${t("model.none.next")}</p><a class="button" href=${href("/train", { recipe })}>${t("model.train")}</a><//>`
      : html`<${Versions} items=${items} may=${may} query=${query} onActivate=${(version) => setAsking({ action: "activate", version })} />`)}<//>
    ${query.compare && html`<${Comparison} recipe=${recipe} versions=${query.compare.split(",")} />`}
    ${asking && html`<${Dialog} title=${t(`model.${asking.action}.title`, { version: asking.version?.version })} onClose=${() => setAsking(null)}>
      <p>${t(`model.${asking.action}.text`)}</p>
      ${asking.version?.manifest.detectability?.fit_for_use === false && html`<p class="light ng"><${Icon} name="triangle-alert" />${asking.version.manifest.detectability.reasons.join(" ")}</p>`}
      <div class="row"><button class="primary" onClick=${act}>${t(`action.${asking.action}`)}</button><button onClick=${() => setAsking(null)}>${t("action.back")}</button></div>
    <//>`}
  `;
}

function Versions({ items, may, query, onActivate }) {
  const [chosen, setChosen] = useState([]);
  const choose = (version) => setChosen((before) => (before.includes(version) ? before.filter((each) => each !== version) : [...before, version].slice(-2)));
  return html`
    ${items.length > 1 && html`<div class="row"><button disabled=${chosen.length !== 2} onClick=${() => changeQuery({ compare: chosen.join(",") })}>${t("model.compare")}</button>
      <span class="soft small">${t("model.compare.text")}</span>${query.compare && html`<button class="plain" onClick=${() => changeQuery({ compare: "" })}>${t("action.close")}</button>`}</div>`}
    ${items.toSorted((one, other) => other.version - one.version).map((version) => html`<${Version} key=${version.version} version=${version} may=${may}
      chosen=${chosen.includes(version.version)} onChoose=${items.length > 1 ? () => choose(version.version) : null} onActivate=${() => onActivate(version)} />`)}`;
}

function Version({ version, may, chosen, onChoose, onActivate }) {
  const { manifest } = version;
  const { metrics, detectability, threshold, training } = manifest;
  const state = version.active ? "active" : version.state;
  return html`<section class="panel">
    <header class="row">
      ${onChoose && html`<input type="checkbox" checked=${chosen} onClick=${onChoose} aria-label=${t("model.choose", { version: version.version })} />`}
      <h2>${t("model.version", { version: version.version })}</h2>
      <span class=${`verdict ${version.active ? "ok" : version.state === "rejected" ? "ng" : ""}`}>${tCode("model", state)}</span>
      ${detectability && html`<span class=${`light ${detectability.fit_for_use ? "ok" : "ng"}`}>${t(detectability.fit_for_use ? "model.fit" : "model.unfit")}</span>`}
      <span class="push row">
        ${may && version.state === "ready" && !version.active && html`<button onClick=${onActivate}>${t("action.activate")}</button>`}
        <a class="button" href=${`${recipePath(version.recipe)}/model-versions/${version.version}/bundle`} download>${t("model.bundle")}</a>
      </span>
    </header>
    ${version.rejection && html`<p class="light ng">${version.rejection}</p>`}
    <dl class="facts">
      <dt>${t("model.architecture")}</dt><dd>${manifest.architecture.name}, ${manifest.preprocessing.width} × ${manifest.preprocessing.height} px</dd>
      <dt>${t("model.created")}</dt><dd><${Time} at=${version.created_at} /></dd>
      ${training && html`<dt>${t("model.trainedOn")}</dt><dd>${t("model.parts", { count: training.parts.training })}</dd>`}
      <dt>${t("model.threshold")}</dt><dd>${number(version.thresholds[0]?.threshold ?? threshold.value)}${threshold.calibration && html` <span class="soft">${t("model.promise", {
        rate: percent(threshold.calibration.expected_false_reject_rate),
        low: percent(threshold.calibration.confidence_interval[0]),
        high: percent(threshold.calibration.confidence_interval[1]),
      })}</span>`}</dd>
      ${metrics && html`<dt>${t("model.metrics")}</dt><dd>${t("model.metrics.text", {
        auroc: number(metrics.auroc), low: number(metrics.auroc_interval[0]), high: number(metrics.auroc_interval[1]),
        recall: percent(metrics.recall), rejected: percent(metrics.false_reject_rate), good: metrics.good, defective: metrics.defective,
      })}</dd>`}
      <dt>SHA-256</dt><dd><code>${version.sha256.slice(0, 16)}</code></dd>
    </dl>
    ${detectability && html`<${Detectability} of=${detectability} />`}
  </section>`;
}
