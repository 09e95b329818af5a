/** Live: inspections as they finish, newest on top. */

import { useState } from "../../vendor/hooks.mjs";
import { FilterInput } from "../components/filter-input.js";
import { Icon } from "../components/icon.js";
import { nameOf, thumbnailOf } from "../components/inspection-card.js";
import { Empty, Failure, Loading } from "../components/states.js";
import { Time } from "../components/time.js";
import { Score, Verdict, outcome } from "../components/verdict.js";
import { html } from "../html.js";
import { useKeys } from "../keys.js";
import { changeQuery, href } from "../router.js";
import { useResults } from "../stream.js";
import { t } from "../strings.js";
import { Wall } from "./wall.js";

const KEPT = 60;
const CONNECTIONS = {
  connecting: { look: "other", word: "live.connecting" },
  open: { look: "ok", word: "live.connected" },
  lost: { look: "review", word: "live.reconnecting" },
};

export function Live({ query }) {
  const [paused, setPaused] = useState(false);
  const filter = { recipe: query.recipe, line_id: query.line_id, station_id: query.station_id };
  const isWall = query.wall === "1";
  const results = useResults(filter, { keep: KEPT, paused: paused && !isWall });
  const connection = CONNECTIONS[results.connection];
  const pause = () => setPaused(!paused);
  const showWall = (shown) => changeQuery({ wall: shown ? "1" : "" });
  useKeys({ p: pause, " ": pause, f: () => showWall(!isWall), Escape: () => showWall(false) });
  if (isWall) {
    return html`<${Wall} results=${results} filter=${filter} shifts=${query.shifts} onClose=${() => showWall(false)} />`;
  }
  return html`
    <div class="view-head">
      <h1>${t("nav.live")}</h1>
      <span class=${`light ${connection.look}`} role="status">${t(connection.word)}</span>
      <div class="actions">
        <button aria-pressed=${paused} onClick=${pause}>
          <${Icon} name=${paused ? "play" : "pause"} />
          ${paused ? t("live.resume", { count: results.waiting }) : t("live.pause")} <kbd>p</kbd>
        </button>
        <button onClick=${() => showWall(true)}><${Icon} name="maximize" />${t("live.wall")} <kbd>f</kbd></button>
      </div>
    </div>
    <${Places} query=${query} />
    <${Listed} results=${results} filter=${filter} />
  `;
}

/** Where the results come from, and when shifts begin, which the wall counts. All of it stays in the address. */
function Places({ query }) {
  const set = (name) => (value) => changeQuery({ [name]: value });
  return html`<form class="row end" onSubmit=${(event) => event.preventDefault()}>
    ${["line_id", "station_id"].map((name) => html`<label>
      ${t(`filter.${name}`)}
      <${FilterInput} type="search" size="12" value=${query[name] ?? ""} onCommit=${set(name)} />
    </label>`)}
    <label>
      ${t("live.shifts")}
      <${FilterInput} size="12" placeholder="6, 14, 22" value=${query.shifts ?? ""} onCommit=${set("shifts")} />
    </label>
  </form>`;
}

function Listed({ results: { items, loading, problem }, filter }) {
  if (items.length === 0 && loading) return html`<${Loading} />`;
  if (items.length === 0 && !problem) return html`<${NothingYet} recipe=${filter.recipe} />`;
  return html`
    ${problem && html`<${Failure} problem=${problem} />`}
    ${items.length > 0 && html`<${Results} items=${items} filter=${filter} />`}
  `;
}

function NothingYet({ recipe }) {
  return html`<${Empty} title=${t("live.none")}>
    <p>${t("live.none.next")}</p>
    <a class="button" href=${href("/inspections", { recipe })}>${t("live.none.submit")}</a>
    <code>linewatch submit part.jpg --recipe ${recipe ?? "NAME"} --wait</code>
  <//>`;
}

function Results({ items, filter }) {
  const titles = ["", "filter.effective_verdict", "score.title", "filter.part_id", "live.where"];
  return html`<div class="panel flush" tabindex="0"><table class="live">
    <thead><tr>${titles.map((title) => html`<th>${title && t(title)}</th>`)}<th class="number">${t("field.finished_at")}</th></tr></thead>
    <tbody>${items.map((each) => html`<${Row} key=${each.id} inspection=${each} query=${filter} />`)}</tbody>
  </table></div>`;
}

/** The heatmap replaces the image while the pointer or the focus is on it. */
function Row({ inspection, query }) {
  const [heat, setHeat] = useState(false);
  const verdict = outcome(inspection);
  const name = nameOf(inspection);
  const link = href(`/inspections/${inspection.id}`, query);
  const showsHeat = heat && inspection.status === "completed";
  const src = showsHeat ? `/v1/inspections/${inspection.id}/heatmap` : thumbnailOf(inspection.id);
  return html`<tr onMouseEnter=${() => setHeat(true)} onMouseLeave=${() => setHeat(false)}>
    <td class="picture">
      <a href=${link} onFocus=${() => setHeat(true)} onBlur=${() => setHeat(false)}>
        <img src=${src} alt=${t("card.image", { name })} width="72" height="72" loading="lazy" />
      </a>
    </td>
    <td><${Verdict} value=${verdict} /></td>
    <td>${inspection.anomaly_score !== null && html`<${Score} score=${inspection.anomaly_score}
      threshold=${inspection.threshold} verdict=${verdict} />`}</td>
    <td><a href=${link}>${name}</a></td>
    <td class="soft">${[inspection.recipe, inspection.line_id, inspection.station_id].filter(Boolean).join(" · ")}</td>
    <td class="number"><${Time} at=${inspection.finished_at} only="clock" /></td>
  </tr>`;
}
