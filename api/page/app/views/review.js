/** Review queue: one image at a time, by keys alone, with undo, progress, and who reviewed what. */

import { useEffect, useState } from "../../vendor/hooks.mjs";
import { call, useResource } from "../api.js";
import { Icon } from "../components/icon.js";
import { nameOf } from "../components/inspection-card.js";
import { rememberReviewer, rememberedReviewer } from "../components/review-form.js";
import { Empty, Failure, Resource } from "../components/states.js";
import { Time } from "../components/time.js";
import { showToast } from "../components/toast.js";
import { Score, Verdict } from "../components/verdict.js";
import { ZoomableImage } from "../components/zoomable-image.js";
import { integer, startOfToday } from "../format.js";
import { html } from "../html.js";
import { useKeys } from "../keys.js";
import { href } from "../router.js";
import { useMay } from "../session.js";
import { t, tCode } from "../strings.js";

export function Review({ query }) {
  const [reviewer, setReviewer] = useState(rememberedReviewer());
  return html`
    <div class="view-head"><h1>${t("nav.review")}</h1><p>${t("review.text")}</p></div>
    ${reviewer ? html`<${Queue} key=${query.recipe} recipe=${query.recipe} reviewer=${reviewer} onLeave=${() => setReviewer("")} />` : html`<${WhoAreYou} onKnown=${setReviewer} />`}
    <${Reviewed} recipe=${query.recipe} />
  `;
}

function WhoAreYou({ onKnown }) {
  const submit = (event) => {
    event.preventDefault();
    const name = new FormData(event.target).get("reviewer").trim();
    rememberReviewer(name);
    onKnown(name);
  };
  return html`<form class="panel" onSubmit=${submit}><h2>${t("review.who")}</h2><p class="soft">${t("review.who.text")}</p>
    <div class="row end"><label>${t("review.name")}<input name="reviewer" required maxlength="200" autocomplete="name" autofocus /></label><button class="primary">${t("review.begin")}</button></div></form>`;
}

function Queue({ recipe, reviewer, onLeave }) {
  const queue = useResource("/v1/review-queue", { query: { recipe, reviewer, limit: 20 }, every: 20_000 });
  const progress = useResource("/v1/review-queue/progress", { query: { recipe, reviewer, since: startOfToday() }, every: 20_000 });
  const [done, setDone] = useState([]); // {inspection, review}, newest last
  const [skipped, setSkipped] = useState([]);
  const [problem, setProblem] = useState(null);
  const may = useMay("submit");
  const finished = new Set([...done.map(({ inspection }) => inspection.id), ...skipped]);
  const left = queue.data?.items.filter(({ id }) => !finished.has(id)) ?? [];
  const current = left[0];
  useEffect(() => {
    if (queue.data && left.length < 3 && queue.data.next_cursor) queue.reload();
  }, [left.length]);

  const decide = async (verdict, reason) => {
    if (!current || !may) return;
    try {
      const reviewed = await call(`/v1/inspections/${current.id}/reviews`, { method: "POST", json: { verdict, reviewer, reason: reason || t("review.reason.default") } });
      setDone((before) => [...before, { inspection: current, review: reviewed.reviews.at(-1) }]);
      setProblem(null);
      progress.reload();
    } catch (refusal) {
      setProblem(refusal);
    }
  };
  const undo = async () => {
    const last = done.at(-1);
    if (!last) return;
    try {
      await call(`/v1/inspections/${last.inspection.id}/reviews/${last.review.id}`, { method: "DELETE" });
      setDone((before) => before.slice(0, -1));
      showToast(t("review.undone", { name: nameOf(last.inspection) }));
      queue.reload();
      progress.reload();
    } catch (refusal) {
      setProblem(refusal);
    }
  };
  const skip = () => current && setSkipped((before) => [...before, current.id]);
  return html`
    <${Bar} progress=${progress.data} reviewer=${reviewer} onLeave=${onLeave} />
    ${problem && html`<${Failure} problem=${problem} />`}
    <${Resource} of=${queue}>${() => (current
      ? html`<${One} key=${current.id} inspection=${current} next=${left[1]} may=${may} canUndo=${done.length > 0} onDecide=${decide} onUndo=${undo} onSkip=${skip} />`
      : html`<${Empty} title=${t("review.empty")}><p>${t("review.empty.text")}</p>
          ${done.length > 0 && html`<button onClick=${undo}><${Icon} name="undo-2" />${t("action.undo")} (u)</button>`}<//>`)}<//>
  `;
}

function Bar({ progress, reviewer, onLeave }) {
  if (!progress) return null;
  const { waiting, reviewed, reviewers } = progress;
  const mine = reviewers.find((each) => each.reviewer === reviewer)?.reviewed ?? 0;
  const plus = (count) => `${integer(count.count)}${count.exact ? "" : "+"}`;
  return html`<section class="panel"><div class="row">
    <progress class="grow" value=${reviewed.count} max=${Math.max(reviewed.count + waiting.count, 1)}></progress>
    <span>${t("review.progress", { waiting: plus(waiting), reviewed: plus(reviewed), mine: integer(mine) })}</span>
    <span class="push soft">${t("review.as", { reviewer })}</span><button class="plain" onClick=${onLeave}>${t("review.change")}</button></div></section>`;
}

function One({ inspection, next, may, canUndo, onDecide, onUndo, onSkip }) {
  const [reason, setReason] = useState("");
  const [heat, setHeat] = useState(true);
  const scored = inspection.status === "completed";
  const reasons = t("review.reasons").split("|");
  const numbers = Object.fromEntries(reasons.map((each, index) => [String(index + 1), () => setReason(each)]));
  useKeys({ ...numbers, o: () => onDecide("ok", reason), n: () => onDecide("ng", reason), u: onUndo, s: onSkip, h: () => setHeat(!heat) });
  useEffect(() => {
    for (const kind of next?.status === "completed" ? ["image", "heatmap"] : []) new Image().src = `/v1/inspections/${next.id}/${kind}`;
  }, [next?.id]);
  return html`<div class="inspection">
    <section class="panel">
      <${ZoomableImage} src=${`/v1/inspections/${inspection.id}/image`} over=${scored ? `/v1/inspections/${inspection.id}/heatmap` : null} opacity=${heat ? 1 : 0} alt=${t("card.image", { name: nameOf(inspection) })} />
    </section>
    <section class="panel">
      <header class="row"><h2><a href=${href(`/inspections/${inspection.id}`)}>${nameOf(inspection)}</a></h2><${Verdict} value=${inspection.verdict ?? inspection.status} /></header>
      <p class="soft">${t(`review.waits.${inspection.waits_for}`)}</p>
      ${inspection.anomaly_score !== null && html`<${Score} score=${inspection.anomaly_score} threshold=${inspection.threshold} verdict=${inspection.verdict} />`}
      ${inspection.reasons.map((each) => html`<p>${tCode("reason", each)}</p>`)}
      ${inspection.error && html`<p>${inspection.error.detail}</p>`}
      <p class="soft small">${[inspection.recipe, inspection.lot_id, inspection.line_id, inspection.station_id].filter(Boolean).join(" · ")} · <${Time} at=${inspection.created_at} /></p>
      ${may && html`
        <label>${t("review.reason")}<input value=${reason} maxlength="2000" placeholder=${t("review.reason.default")} onInput=${(event) => setReason(event.target.value)} /></label>
        <div class="row">${reasons.map((each, index) => html`<button class="small" aria-pressed=${reason === each} onClick=${() => setReason(each)}><kbd>${index + 1}</kbd>${each}</button>`)}</div>
        <div class="row decide">
          <button class="ok" onClick=${() => onDecide("ok", reason)}><${Icon} name="check" />${t("verdict.ok")} <kbd>o</kbd></button>
          <button class="ng" onClick=${() => onDecide("ng", reason)}><${Icon} name="x" />${t("verdict.ng")} <kbd>n</kbd></button>
        </div>`}
      <div class="row"><button disabled=${!canUndo} onClick=${onUndo}><${Icon} name="undo-2" />${t("action.undo")} <kbd>u</kbd></button>
        <button onClick=${onSkip}>${t("review.skip")} <kbd>s</kbd></button><button aria-pressed=${heat} onClick=${() => setHeat(!heat)}>${t("review.heat")} <kbd>h</kbd></button></div>
    </section>
  </div>`;
}

function Reviewed({ recipe }) {
  const reviews = useResource("/v1/reviews", { query: { recipe, limit: 20 }, every: 30_000 });
  return html`<section class="stack"><h2>${t("review.recent")}</h2><${Resource} of=${reviews}>${({ items }) => (items.length === 0
    ? html`<p class="soft">${t("review.recent.none")}</p>`
    : html`<div class="panel flush"><table><thead><tr><th>${t("filter.part_id")}</th><th>${t("review.machine")}</th><th>${t("review.person")}</th><th>${t("filter.reviewer")}</th><th>${t("review.reason")}</th><th>${t("review.when")}</th></tr></thead>
      <tbody>${items.map((each) => html`<tr class=${each.retracted_at ? "retracted" : ""}><td><a href=${href(`/inspections/${each.inspection_id}`, { recipe })}>${each.part_id ?? each.inspection_id.slice(-12)}</a></td>
        <td>${each.machine_verdict && html`<${Verdict} value=${each.machine_verdict} />`}</td><td><${Verdict} value=${each.verdict} /></td>
        <td>${each.reviewer}</td><td>${each.reason}${each.retracted_at && html` <em class="soft">(${t("review.retracted")})</em>`}</td><td><${Time} at=${each.created_at} /></td></tr>`)}</tbody></table></div>`)}<//></section>`;
}
