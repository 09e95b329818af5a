/** The filters of the listing of inspections, which stand in the address. */

import { FilterInput } from "../components/filter-input.js";
import { Icon } from "../components/icon.js";
import { localInput } from "../format.js";
import { html } from "../html.js";
import { changeQuery, go, href } from "../router.js";
import { t, tCode } from "../strings.js";

const VERDICTS = ["ok", "ng", "review"];
const STATUSES = ["queued", "running", "completed", "failed", "cancelled"];
const REVIEWED = ["any", "none", "ok", "ng"];
const FURTHER = [
  "line_id", "station_id", "status", "verdict", "reviewed", "reviewer", "min_score", "max_score", "model_version", "batch_id",
];
export const FILTERS = ["recipe", "effective_verdict", "part_id", "lot_id", "since", "until", ...FURTHER];

export function Filters({ query }) {
  const search = (name) => html`<${Field} name=${name} type="search" value=${query[name]} />`;
  const number = (name) => html`<${Field} name=${name} type="number" value=${query[name]} />`;
  const choice = (name, values, group) => html`<${Choice} name=${name} value=${query[name]} values=${values} group=${group} />`;
  const reset = () => go(href("/inspections", { recipe: query.recipe }));
  return html`<form class="panel" role="search" onSubmit=${(event) => event.preventDefault()}>
    <button class="visually-hidden" tabindex="-1">${t("gallery.search")}</button>
    <div class="row end">
      ${choice("effective_verdict", VERDICTS, "verdict")} ${search("part_id")} ${search("lot_id")}
      <${Moment} name="since" value=${query.since} /><${Moment} name="until" value=${query.until} />
      <button type="button" class="plain" onClick=${reset}><${Icon} name="rotate-ccw" />${t("gallery.reset")}</button>
    </div>
    <details open=${FURTHER.some((name) => query[name])}><summary>${t("filter.more")}</summary>
      <div class="row end">
        ${search("line_id")} ${search("station_id")} ${choice("status", STATUSES, "verdict")}
        ${choice("verdict", VERDICTS, "verdict")} ${choice("reviewed", REVIEWED, "reviewed")} ${search("reviewer")}
        ${number("min_score")} ${number("max_score")} ${query.recipe && number("model_version")} ${search("batch_id")}
      </div>
    </details>
  </form>`;
}

const set = (name) => (value) => changeQuery({ [name]: value });

function Field({ name, type, value }) {
  return html`<label>${t(`filter.${name}`)}
    <${FilterInput} type=${type} size="12" step="any" value=${value ?? ""} onCommit=${set(name)} />
  </label>`;
}

function Choice({ name, value, values, group }) {
  return html`<label>${t(`filter.${name}`)}
    <select value=${value ?? ""} onChange=${(event) => set(name)(event.target.value)}>
      <option value="">${t("filter.any")}</option>
      ${values.map((each) => html`<option value=${each}>${tCode(group, each)}</option>`)}
    </select>
  </label>`;
}

/** A moment in the browser's zone. The address has it as RFC 3339 in UTC. */
function Moment({ name, value }) {
  const commit = (local) => set(name)(local ? new Date(local).toISOString() : "");
  return html`<label>${t(`filter.${name}`)}
    <${FilterInput} type="datetime-local" value=${localInput(value)} onCommit=${commit} />
  </label>`;
}
