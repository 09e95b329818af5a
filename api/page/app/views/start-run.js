/** Start a re-scoring run: what to score, with which version; the number of images is shown before it starts. */

import { useState } from "../../vendor/hooks.mjs";
import { call, useResource } from "../api.js";
import { Dialog } from "../components/dialog.js";
import { recipePath } from "../components/recipe-needed.js";
import { integer } from "../format.js";
import { html } from "../html.js";
import { t, tCode } from "../strings.js";

/** @param {object} where filters that are already chosen, for example those of the gallery. */
export function StartRun({ recipe, where = {}, onClose, onStarted }) {
  const recipes = useResource("/v1/recipes");
  const [chosen, setChosen] = useState(recipe ?? "");
  const versions = useResource(chosen ? `${recipePath(chosen)}/model-versions` : null);
  const [count, setCount] = useState(null);
  const [problem, setProblem] = useState(null);

  const read = (form) => {
    const fields = new FormData(form);
    const filled = Object.fromEntries(["lot_id", "line_id", "station_id"].map((name) => [name, fields.get(name)]).filter(([, value]) => value));
    const since = fields.get("since") ? { since: new Date(fields.get("since")).toISOString() } : {};
    return { recipe: chosen, model_version: Number(fields.get("version")), source: { where: { ...where, ...filled, ...since } } };
  };
  const act = async (event) => {
    event.preventDefault();
    setProblem(null);
    try {
      const request = read(event.target);
      if (event.submitter.value === "count") {
        setCount(await call("/v1/rescore-runs/count", { method: "POST", json: request }));
        return;
      }
      await call("/v1/rescore-runs", { method: "POST", json: request });
      onStarted();
      onClose();
    } catch (refusal) {
      setProblem(refusal);
    }
  };
  const ready = versions.data?.items.filter((version) => version.state === "ready") ?? [];
  return html`<${Dialog} title=${t("rescoring.start")} onClose=${onClose}>
    <form class="stack" onSubmit=${act} onChange=${() => setCount(null)}>
      <label>${t("field.recipe")}<select required value=${chosen} onChange=${(event) => setChosen(event.target.value)}>
        <option value=""></option>${recipes.data?.items.map(({ name }) => html`<option value=${name}>${name}</option>`)}</select></label>
      <label>${t("model.title")}<select name="version" required>
        ${ready.toReversed().map((version) => html`<option value=${version.version}>${t("model.version", { version: version.version })}${version.active ? ` (${t("model.active")})` : ""}</option>`)}</select></label>
      <div class="row">${["lot_id", "line_id", "station_id"].map((name) => html`<label>${t(`filter.${name}`)}<input name=${name} size="10" value=${where[name] ?? ""} /></label>`)}
        <label>${t("filter.since")}<input name="since" type="datetime-local" /></label></div>
      ${Object.keys(where).length > 0 && html`<p class="soft small">${Object.entries(where).map(([name, value]) => `${tCode("filter", name)}: ${value}`).join(", ")}</p>`}
      ${count && html`<p role="status"><strong>${t("rescoring.count", { count: count.images, number: integer(count.images) })}</strong></p>`}
      ${problem && html`<p role="alert" class="light ng">${problem.message}</p>`}
      <div class="row"><button value="count">${t("rescoring.countFirst")}</button><button class="primary" value="start" disabled=${!count}>${t("rescoring.start")}</button>
        <button type="button" onClick=${onClose}>${t("action.back")}</button></div>
    </form>
  <//>`;
}
