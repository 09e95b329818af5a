/** Start a re-scoring run, now or again and again: the number of images is shown before it starts. */

import { useState } from "../../vendor/hooks.mjs";
import { call, useResource } from "../api.js";
import { Dialog } from "../components/dialog.js";
import { ProblemLine } from "../components/problem-line.js";
import { recipePath } from "../components/recipe-needed.js";
import { describeWhere } from "../components/run-source.js";
import { showToast } from "../components/toast.js";
import { integer } from "../format.js";
import { html } from "../html.js";
import { go, href, readAddress } from "../router.js";
import { t } from "../strings.js";
import { DAYS, LOCAL_ZONE, readRun, readSchedule } from "./run-request.js";

/**
 * @param {number} version the model version that is proposed; without it, the newest.
 * @param {object} where filters that are already chosen, for example those of the gallery.
 * @param {() => void} onStarted called after a run was started or a schedule was created.
 */
export function StartRun({ recipe, version, where = {}, onClose, onStarted }) {
  const [chosen, setChosen] = useState(recipe ?? "");
  const [repeats, setRepeats] = useState(false);
  const versions = useResource(chosen ? `${recipePath(chosen)}/model-versions` : null);
  const [count, setCount] = useState(null);
  const [problem, setProblem] = useState(null);
  const ready = versions.data?.items.filter(({ state }) => state === "ready") ?? [];

  const counted = async (fields) => {
    const { model_version: asked, ...run } = readRun(fields, chosen, where);
    const json = { ...run, model_version: asked ?? ready[0]?.version };
    setCount(await call("/v1/rescore-runs/count", { method: "POST", json }));
  };
  const started = async (fields) => {
    await (repeats ? createSchedule(fields, chosen, where) : createRun(fields, chosen, where));
    onClose();
    onStarted();
  };
  const act = async (event) => {
    event.preventDefault();
    setProblem(null);
    try {
      await (event.submitter?.value === "start" ? started : counted)(new FormData(event.target));
    } catch (refusal) {
      setProblem(refusal);
    }
  };
  const title = t(recipe ? "rescoring.startFor" : "rescoring.start", { recipe });
  return html`<${Dialog} title=${title} onClose=${onClose}>
    <form class="stack" onSubmit=${act} onChange=${() => setCount(null)}>
      ${!recipe && html`<${RecipeField} chosen=${chosen} onChoose=${setChosen} />`}
      <${VersionField} key=${`${chosen} ${ready.length} ${repeats}`} ready=${ready} chosen=${version}
        newest=${repeats} empty=${versions.data && ready.length === 0} />
      <${ProblemLine} problem=${versions.problem} />
      <${Filters} where=${where} />
      <${Options} repeats=${repeats} />
      <${Repeat} repeats=${repeats} onChange=${setRepeats} />
      ${count && html`<p role="status"><strong>${describeCount(count)}</strong></p>`}
      <${ProblemLine} problem=${problem} />
      <div class="row">
        <button value="count" disabled=${ready.length === 0}>${t("rescoring.countFirst")}</button>
        <button class="primary" value="start" disabled=${!count}>
          ${t(repeats ? "rescoring.repeat.create" : "rescoring.start")}</button>
        <button type="button" onClick=${onClose}>${t("action.back")}</button>
      </div>
    </form>
  <//>`;
}

async function createRun(fields, recipe, where) {
  await call("/v1/rescore-runs", { method: "POST", json: readRun(fields, recipe, where) });
  const show = () => go(href("/rescoring", { recipe }));
  const elsewhere = readAddress().path !== "/rescoring";
  showToast(t("rescoring.started"), elsewhere ? { label: t("rescoring.show"), run: show } : null);
}

async function createSchedule(fields, recipe, where) {
  const json = readSchedule(fields, recipe, where);
  await call("/v1/rescore-schedules", { method: "POST", json });
  showToast(t("rescoring.scheduled", { name: json.name }));
}

/** A count that took too long is a lower bound. */
function describeCount({ images, exact }) {
  return t(exact ? "rescoring.count" : "rescoring.countAtLeast", { count: images, number: integer(images) });
}

function RecipeField({ chosen, onChoose }) {
  const recipes = useResource("/v1/recipes");
  return html`<label>${t("field.recipe")}
      <select required value=${chosen} onChange=${(event) => onChoose(event.target.value)}>
        <option value=""></option>
        ${recipes.data?.items.map(({ name }) => html`<option value=${name}>${name}</option>`)}
      </select></label>
    <${ProblemLine} problem=${recipes.problem} />`;
}

/** @param {boolean} newest offers whichever version is newest when a run is created. */
function VersionField({ ready, empty, chosen, newest }) {
  const name = ({ version, active }) => `${t("model.version", { version })}${active ? ` (${t("model.active")})` : ""}`;
  return html`<label>${t("model.title")}
    <select name="version" required=${!newest}>
      ${newest && html`<option value="">${t("rescoring.newestVersion")}</option>`}
      ${ready.map((each) => html`<option value=${each.version} selected=${each.version === chosen}>
        ${name(each)}</option>`)}
    </select>
    ${empty && html`<span>${t("rescoring.noVersion")}</span>`}</label>`;
}

function Filters({ where }) {
  return html`<fieldset class="stack"><legend>${t("rescoring.which")}</legend>
    ${Object.keys(where).length > 0 && html`<p>${describeWhere(where)}</p>`}
    <div class="row end">
      ${["lot_id", "line_id", "station_id"].map((name) => html`<label>${t(`filter.${name}`)}
        <input name=${name} size="9" maxlength="200" /></label>`)}
    </div>
    <div class="row end">
      <label>${t("filter.since")}<input name="since" type="datetime-local" /></label>
      <label>${t("filter.max_age_hours")}<input name="max_age_hours" type="number" min="1" max="1000000" size="6" />
      </label>
    </div>
  </fieldset>`;
}

function Options({ repeats }) {
  const number = (name) => html`<label>${t(`rescoring.option.${name}`)}
    <input name=${name} type="number" step="any" size="8" /></label>`;
  return html`<details><summary>${t("rescoring.options")}</summary>
    <div class="stack">
      <div class="row end">${number("threshold")} ${number("review_threshold")}</div>
      <label class="inline">
        <input name="recompute" type="checkbox" value="yes" />${t("rescoring.option.recompute")}</label>
      <fieldset class="row end"><legend>${t("rescoring.window")}</legend>
        <label>${t("rescoring.window.from")}<input name="window_from" type="time" /></label>
        <label>${t("rescoring.window.to")}<input name="window_to" type="time" /></label>
        ${!repeats && html`<${Zone} />`}
      </fieldset>
    </div>
  </details>`;
}

/** The time zone of the hours, and of the times of a schedule. */
function Zone() {
  return html`<label>${t("rescoring.zone")}
    <input name="time_zone" maxlength="100" size="14" placeholder=${LOCAL_ZONE} defaultValue=${LOCAL_ZONE} /></label>`;
}

function Repeat({ repeats, onChange }) {
  const [often, setOften] = useState("daily");
  return html`<label class="inline">
      <input type="checkbox" checked=${repeats} onChange=${(event) => onChange(event.target.checked)} />
      ${t("rescoring.repeat")}</label>
    ${repeats && html`<fieldset class="row end"><legend>${t("rescoring.schedule")}</legend>
      <label>${t("rescoring.name")}<input name="name" required maxlength="200" size="14" /></label>
      <label>${t("rescoring.often")}
        <select name="often" value=${often} onChange=${(event) => setOften(event.target.value)}>
          ${[...Object.keys(DAYS), "cron"].map((each) => html`<option value=${each}>
            ${t(`rescoring.often.${each}`)}</option>`)}
        </select></label>
      ${often === "cron"
        ? html`<label>${t("rescoring.expression")}
            <input name="cron" required maxlength="200" size="16" placeholder="30 22 * * 1-5" /></label>`
        : html`<label>${t("rescoring.at")}<input name="at" type="time" required defaultValue="22:30" /></label>`}
      <${Zone} />
    </fieldset>`}`;
}
