/** Model versions: their figures, which one is active, which one challenges it; activate, roll back, compare two. */

import { useState } from "../../vendor/hooks.mjs";
import { call, useResource } from "../api.js";
import { Confirm } from "../components/confirm.js";
import { Icon } from "../components/icon.js";
import { RecipeNeeded, recipePath } from "../components/recipe-needed.js";
import { Empty, Resource } from "../components/states.js";
import { showToast } from "../components/toast.js";
import { html } from "../html.js";
import { changeQuery, href } from "../router.js";
import { useMay } from "../session.js";
import { t } from "../strings.js";
import { ChallengerPanel, StartChallenger } from "./challenger.js";
import { Comparison } from "./comparison.js";
import { Version } from "./model-version.js";

export function Models({ query }) {
  if (!query.recipe) return html`<div class="view-head"><h1>${t("nav.models")}</h1></div><${RecipeNeeded} />`;
  return html`<${OfRecipe} key=${query.recipe} recipe=${query.recipe} query=${query} />`;
}

function OfRecipe({ recipe, query }) {
  const path = recipePath(recipe);
  const versions = useResource(`${path}/model-versions`, { every: 10_000 });
  const owner = useResource(path, { every: 10_000 }); // names the challenger, if there is one
  const trainings = useResource(`${path}/training-runs`);
  const may = useMay("admin");
  const [asking, setAsking] = useState(null); // {action, version}
  const changed = () => {
    versions.reload();
    owner.reload();
  };
  const challenger = owner.data?.challenger ?? null;
  const compared = readPair(query.compare);
  return html`
    <div class="view-head"><h1>${t("nav.models")}</h1>
      <div class="actions">
        ${may && html`<a class="button" href=${href("/train", { recipe })}>
          <${Icon} name="plus" />${t("model.train")}</a>`}
        ${may && versions.data?.items.length > 1 && html`<button onClick=${() => setAsking({ action: "rollback" })}>
          <${Icon} name="undo-2" />${t("action.rollback")}</button>`}
      </div>
    </div>
    ${challenger && html`<${ChallengerPanel} key=${challenger.run_id} recipe=${recipe} challenger=${challenger}
      may=${may} onEnded=${changed} />`}
    <${Resource} of=${versions}>${({ items }) => (items.length === 0
      ? html`<${NoVersion} recipe=${recipe} may=${may} />`
      : html`<${Versions} recipe=${recipe} items=${items} compared=${compared} may=${may} challenger=${challenger}
          trainings=${trainings.data?.items ?? []}
          onAsk=${(action, version) => setAsking({ action, version })} />`)}<//>
    <${Question} recipe=${recipe} asking=${asking} onClose=${() => setAsking(null)} onChanged=${changed} />
  `;
}

function NoVersion({ recipe, may }) {
  return html`<${Empty} title=${t("model.none")}>
    ${may && html`
      <p>${t("model.none.next")}</p>
      <a class="button" href=${href("/train", { recipe })}>${t("model.train")}</a>`}
  <//>`;
}

/** The two versions of the address, like `2,1`; null if it does not name two. */
function readPair(text = "") {
  const versions = text.split(",").map(Number);
  return versions.length === 2 && versions.every((version) => version >= 1) ? versions : null;
}

function Question({ recipe, asking, onClose, onChanged }) {
  if (!asking) return null;
  const { action, version } = asking;
  if (action === "challenge") {
    return html`<${StartChallenger} recipe=${recipe} version=${version.version} onClose=${onClose}
      onStarted=${onChanged} />`;
  }
  const unfit = version?.manifest.detectability?.fit_for_use === false;
  const act = async () => {
    const step = action === "rollback" ? "rollback" : `${version.version}/activate`;
    const active = await call(`${recipePath(recipe)}/model-versions/${step}`, { method: "POST" });
    showToast(t("model.activated", { version: active.version }));
    onChanged();
  };
  const title = t(`model.${action}.title`, { version: version?.version });
  return html`<${Confirm} title=${title} yes=${t(`action.${action}`)} onYes=${act} onClose=${onClose}>
    <p>${t(`model.${action}.text`)}</p>
    ${unfit && html`<p class="light ng"><${Icon} name="triangle-alert" />
      ${version.manifest.detectability.reasons.join(" ")}</p>`}
  <//>`;
}

function Versions({ recipe, items, compared, onAsk, ...others }) {
  const [chosen, setChosen] = useState(compared ?? []);
  const choose = (version) => setChosen((before) => (before.includes(version)
    ? before.filter((each) => each !== version)
    : [...before, version].slice(-2)));
  return html`
    ${items.length > 1 && html`<div class="row">
      <button disabled=${chosen.length !== 2} onClick=${() => changeQuery({ compare: chosen.join(",") })}>
        ${t("model.compare")}</button>
      ${chosen.length !== 2 && html`<span class="soft small">${t("model.compare.text")}</span>`}
    </div>`}
    ${compared && html`<${Comparison} key=${compared.join()} recipe=${recipe} versions=${compared}
      onClose=${() => changeQuery({ compare: "" })} />`}
    ${items.map((version) => html`<${Version} key=${version.version} version=${version} ...${others}
      chosen=${chosen.includes(version.version)} onChoose=${items.length > 1 ? () => choose(version.version) : null}
      onAsk=${(action) => onAsk(action, version)} />`)}`;
}
