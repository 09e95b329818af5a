/** How long the images and inspections of a recipe are kept, and changing it. */

import { useState } from "../../vendor/hooks.mjs";
import { call } from "../api.js";
import { Dialog } from "../components/dialog.js";
import { ProblemLine } from "../components/problem-line.js";
import { recipePath } from "../components/recipe-needed.js";
import { showToast } from "../components/toast.js";
import { html } from "../html.js";
import { useMay } from "../session.js";
import { t } from "../strings.js";

const FIELDS = ["ok_images_days", "ng_images_days", "review_images_days", "rows_days"];
const MOST_DAYS = 36_500;

/** @param {{name: string, retention: ?object}} recipe */
export function Retention({ recipe, onChanged }) {
  const [isChanging, setIsChanging] = useState(false);
  const may = useMay("admin");
  const { retention } = recipe;
  return html`<section class="panel" aria-label=${t("retention.title")}>
    <header><h2>${t("retention.title")}</h2>
      ${may && html`<button class="push" onClick=${() => setIsChanging(true)}>${t("retention.change")}</button>`}</header>
    ${retention
      ? html`<dl class="facts">${FIELDS.map((name) => html`
          <dt>${t(`retention.${name}`)}</dt><dd>${kept(name, retention)}</dd>`)}</dl>`
      : html`<p class="soft">${t("retention.none")}</p>`}
    ${isChanging && html`<${Change} recipe=${recipe} onChanged=${onChanged} onClose=${() => setIsChanging(false)} />`}
  </section>`;
}

/** The days of a field in words. Images for review without days of their own are kept like those of NG parts. */
function kept(name, retention) {
  const days = retention[name] ?? (name === "review_images_days" ? retention.ng_images_days : null);
  return days === null ? t("retention.forever") : t("retention.days", { count: days });
}

function Change({ recipe, onChanged, onClose }) {
  const [problem, setProblem] = useState(null);
  const [busy, setBusy] = useState(false);
  const save = async (event) => {
    event.preventDefault();
    const fields = new FormData(event.target);
    const days = FIELDS.map((name) => [name, fields.get(name) ? Number(fields.get(name)) : null]);
    const retention = days.some(([, value]) => value !== null) ? Object.fromEntries(days) : null;
    setBusy(true);
    try {
      await call(recipePath(recipe.name), { method: "PATCH", json: { retention } });
      showToast(t("retention.changed", { recipe: recipe.name }));
      onChanged();
      onClose();
    } catch (refusal) {
      setProblem(refusal);
      setBusy(false);
    }
  };
  return html`<${Dialog} title=${t("retention.change.title", { recipe: recipe.name })} onClose=${onClose}>
    <form class="stack" onSubmit=${save}>
      <p>${t("retention.change.text")}</p>
      <div class="options">${FIELDS.map((name) => html`<label>${t(`retention.${name}`)}
        <input type="number" name=${name} min="1" max=${MOST_DAYS} placeholder=${t("retention.forever")}
          defaultValue=${recipe.retention?.[name] ?? ""} /></label>`)}</div>
      <p class="soft small">${t("retention.preview")} <code>linewatch retention --dry-run</code></p>
      <${ProblemLine} problem=${problem} />
      <div class="row"><button class="primary" disabled=${busy}>${t("retention.save")}</button>
        <button type="button" onClick=${onClose}>${t("action.back")}</button></div>
    </form><//>`;
}
