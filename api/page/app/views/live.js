/** Live: inspections as they finish; and a mode for a monitor above the line, with the last image large. */

import { useEffect, useState } from "../../vendor/hooks.mjs";
import { useResource } from "../api.js";
import { Icon } from "../components/icon.js";
import { nameOf, thumbnailOf } from "../components/inspection-card.js";
import { Empty } from "../components/states.js";
import { Time } from "../components/time.js";
import { Score, Verdict, outcome } from "../components/verdict.js";
import { integer, number, percent } from "../format.js";
import { html } from "../html.js";
import { useKeys } from "../keys.js";
import { changeQuery, href } from "../router.js";
import { useResults } from "../stream.js";
import { t } from "../strings.js";

const KEPT = 60;
const SHIFTS = [6, 14, 22]; // o'clock, when shifts begin

export function Live({ query }) {
  const [paused, setPaused] = useState(false);
  const filter = { recipe: query.recipe, line_id: query.line_id, station_id: query.station_id };
  const { items, connected, waiting } = useResults(filter, { keep: KEPT, paused });
  const wall = query.wall === "1";
  const leaveWall = () => changeQuery({ wall: "" });
  useKeys({ p: () => setPaused(!paused), " ": () => setPaused(!paused), f: () => changeQuery({ wall: wall ? "" : "1" }), Escape: leaveWall });
  if (wall) return html`<${Wall} inspection=${items[0]} filter=${filter} connected=${connected} onClose=${leaveWall} />`;
  return html`
    <div class="view-head"><h1>${t("nav.live")}</h1>
      <span class=${`light ${connected ? "ok" : "review"}`} role="status">${t(connected ? "live.connected" : "live.connecting")}</span>
      <div class="actions">
        <button aria-pressed=${paused} onClick=${() => setPaused(!paused)}><${Icon} name=${paused ? "play" : "pause"} />${paused ? t("live.resume", { count: waiting }) : t("live.pause")}</button>
        <button onClick=${() => changeQuery({ wall: "1" })}><${Icon} name="maximize" />${t("live.wall")}</button>
      </div>
    </div>
    <form class="row end" onSubmit=${(event) => event.preventDefault()}>
      ${["line_id", "station_id"].map((name) => html`<label>${t(`filter.${name}`)}<input type="search" size="12" value=${query[name] ?? ""} onChange=${(event) => changeQuery({ [name]: event.target.value })} /></label>`)}
    </form>
    ${items.length === 0
      ? html`<${Empty} title=${t("live.none")}><p>${t("live.none.next")}</p><//>`
      : html`<div class="panel flush"><table class="live"><thead><tr><th></th><th>${t("filter.effective_verdict")}</th><th>${t("score.title")}</th><th>${t("filter.part_id")}</th><th>${t("live.where")}</th><th>${t("field.finished_at")}</th></tr></thead>
        <tbody>${items.map((inspection) => html`<${Row} key=${inspection.id} inspection=${inspection} query=${filter} />`)}</tbody></table></div>`}
  `;
}

function Row({ inspection, query }) {
  const verdict = outcome(inspection);
  const [heat, setHeat] = useState(false);
  const link = href(`/inspections/${inspection.id}`, query);
  const src = heat && inspection.status === "completed" ? `/v1/inspections/${inspection.id}/heatmap` : thumbnailOf(inspection.id);
  return html`<tr onMouseEnter=${() => setHeat(true)} onMouseLeave=${() => setHeat(false)}>
    <td class="picture"><a href=${link} onFocus=${() => setHeat(true)} onBlur=${() => setHeat(false)}><img src=${src} alt=${t("card.image", { name: nameOf(inspection) })} width="72" height="72" loading="lazy" /></a></td>
    <td><${Verdict} value=${verdict} /></td>
    <td>${inspection.anomaly_score !== null && html`<${Score} score=${inspection.anomaly_score} threshold=${inspection.threshold} verdict=${verdict} />`}</td>
    <td><a href=${link}>${nameOf(inspection)}</a></td>
    <td class="soft">${[inspection.recipe, inspection.line_id, inspection.station_id].filter(Boolean).join(" · ")}</td>
    <td class="number"><${Time} at=${inspection.finished_at} only="clock" /></td>
  </tr>`;
}

/** The view for a monitor above the line: readable from across the hall, by colour, word and shape. */
function Wall({ inspection, filter, connected, onClose }) {
  const shift = useShiftCounts(filter);
  const verdict = inspection ? outcome(inspection) : "other";
  useEffect(() => {
    document.documentElement.requestFullscreen?.().catch(() => {}); // the wall fills the page where the browser refuses
    return () => document.fullscreenElement && document.exitFullscreen();
  }, []);
  return html`<section class=${`wall ${verdict}`} aria-live="polite">
    <div class="wall-picture">${inspection && html`<img src=${`/v1/inspections/${inspection.id}/${inspection.status === "completed" && verdict !== "ok" ? "heatmap" : "image"}`} alt=${t("card.image", { name: nameOf(inspection) })} />`}</div>
    <div class="wall-side">
      ${inspection
        ? html`<p class="wall-verdict"><${Verdict} value=${verdict} /></p><p class="wall-name">${nameOf(inspection)}</p>
          <p class="soft">${t("score.label", { score: number(inspection.anomaly_score), threshold: number(inspection.threshold) })}</p>`
        : html`<p>${t("live.none")}</p>`}
      ${!connected && html`<p class="light review"><${Icon} name="triangle-alert" />${t("live.connecting")}</p>`}
      <dl class="figures">${["ok", "ng", "review", "failed"].map((name) => html`<div class="figure"><dt>${t(`verdict.${name}`)}</dt><dd>${integer(shift?.[name])}</dd></div>`)}
        <div class="figure"><dt>${t("overview.ngRate")}</dt><dd>${percent(shift?.ng_rate)}</dd></div></dl>
      <p class="soft">${t("live.shift", { time: new Date(shiftStart()).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" }) })}</p>
      <button onClick=${onClose}>${t("action.close")} (Esc)</button>
    </div>
  </section>`;
}

/** The start of the present shift in the browser's zone, as RFC 3339. */
function shiftStart() {
  const now = new Date();
  const begun = SHIFTS.filter((hour) => hour <= now.getHours());
  const start = new Date(now);
  if (begun.length === 0) start.setDate(start.getDate() - 1);
  start.setHours(begun.at(-1) ?? SHIFTS.at(-1), 0, 0, 0);
  return start.toISOString();
}

function useShiftCounts(filter) {
  const statistics = useResource("/v1/statistics", { query: { ...filter, since: shiftStart() }, every: 5_000 });
  if (!statistics.data) return null;
  const sum = (count) => statistics.data.items.reduce((total, { totals }) => total + count(totals), 0);
  const counts = { ok: sum(({ verdict }) => verdict.ok), ng: sum(({ verdict }) => verdict.ng), review: sum(({ verdict }) => verdict.review) };
  const judged = counts.ok + counts.ng + counts.review;
  return { ...counts, failed: sum(({ status }) => status.failed), ng_rate: judged ? counts.ng / judged : null };
}
