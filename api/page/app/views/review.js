/** Review queue: one image at a time, by keys alone, with undo, progress, and who reviewed what. */

import { useRef, useState } from "../../vendor/hooks.mjs";
import { useResource } from "../api.js";
import { Icon } from "../components/icon.js";
import { nameOf } from "../components/inspection-card.js";
import { Empty, Failure, Resource } from "../components/states.js";
import { showToast } from "../components/toast.js";
import { integer, startOfToday } from "../format.js";
import { html } from "../html.js";
import { addReview, isSamePerson, rememberReviewer, rememberedReviewer, retractReview } from "../reviewing.js";
import { useMay } from "../session.js";
import { t } from "../strings.js";
import { ReviewedImage } from "./reviewed-image.js";
import { Reviewed } from "./reviewed.js";

export function Review({ query }) {
  const [reviewer, setReviewer] = useState(rememberedReviewer());
  const forget = () => setReviewer("");
  return html`
    <div class="view-head"><h1>${t("nav.review")}</h1><p>${t("review.text")}</p></div>
    ${reviewer
      ? html`<${Queue} key=${query.recipe} recipe=${query.recipe} reviewer=${reviewer} onLeave=${forget} />`
      : html`<${WhoAreYou} onKnown=${setReviewer} />`}
    <${Reviewed} recipe=${query.recipe} reviewer=${reviewer} />
  `;
}

function WhoAreYou({ onKnown }) {
  const submit = (event) => {
    event.preventDefault();
    const name = new FormData(event.target).get("reviewer").trim();
    rememberReviewer(name);
    onKnown(name);
  };
  return html`<form class="panel" onSubmit=${submit}>
    <h2>${t("review.who")}</h2>
    <p class="soft">${t("review.who.text")}</p>
    <div class="row end">
      <label>
        ${t("review.name")}
        <input name="reviewer" required pattern=".*\\S.*" maxlength="200" autocomplete="name" autofocus />
      </label>
      <button class="primary">${t("review.begin")}</button>
    </div>
  </form>`;
}

/** The decisions of this sitting: what was decided, newest last, so that it can be taken back. */
function useDecisions({ reviewer, onChanged }) {
  const [done, setDone] = useState([]); // {inspection, review}
  const [problem, setProblem] = useState(null);
  const busy = useRef(false); // one decision at a time, so that each is about the image that is shown
  const attempt = async (action) => {
    if (busy.current) return;
    busy.current = true;
    try {
      await action();
      setProblem(null);
      onChanged();
    } catch (refusal) {
      setProblem(refusal);
    }
    busy.current = false;
  };
  const decide = (inspection, verdict, reason) => attempt(async () => {
    const given = { verdict, reviewer, reason: reason || t("review.reason.default") };
    const { reviews } = await addReview(inspection.id, given);
    setDone((before) => [...before, { inspection, review: reviews.at(-1) }]);
  });
  const undo = () => attempt(async () => {
    const last = done.at(-1);
    if (!last) return;
    await retractReview(last.inspection.id, last.review);
    setDone((before) => before.slice(0, -1));
    showToast(t("review.undone", { name: nameOf(last.inspection) }));
  });
  return { done, problem, decide, undo };
}

function Queue({ recipe, reviewer, onLeave }) {
  const query = { recipe, reviewer };
  const queue = useResource("/v1/review-queue", { query: { ...query, limit: 20 }, every: 20_000 });
  const since = startOfToday();
  const progress = useResource("/v1/review-queue/progress", { query: { ...query, since }, every: 20_000 });
  const onChanged = () => {
    queue.reload();
    progress.reload();
  };
  const [skipped, setSkipped] = useState([]);
  const mayReview = useMay("submit");
  const { done, problem, decide, undo } = useDecisions({ reviewer, onChanged });
  const finished = new Set([...done.map(({ inspection }) => inspection.id), ...skipped]);
  const [current, next] = queue.data?.items.filter(({ id }) => !finished.has(id)) ?? [];
  const skip = () => setSkipped((before) => [...before, current.id]);
  const undoable = done.length > 0 ? undo : null;
  return html`
    <${Bar} progress=${progress.data} reviewer=${reviewer} onLeave=${onLeave} />
    ${problem && html`<${Failure} problem=${problem} />`}
    <${Resource} of=${queue}>${() => (current
      ? html`<${ReviewedImage} key=${current.id} inspection=${current} next=${next} onUndo=${undoable} onSkip=${skip}
          onDecide=${mayReview ? (verdict, reason) => decide(current, verdict, reason) : null} />`
      : html`<${NothingWaits} skipped=${skipped.length} onAgain=${() => setSkipped([])} onUndo=${undoable} />`)}<//>
  `;
}

function NothingWaits({ skipped, onAgain, onUndo }) {
  return html`<${Empty} title=${t("review.empty")}>
    <p>${t("review.empty.text")}</p>
    <div class="row">
      ${skipped > 0 && html`<button onClick=${onAgain}>${t("review.again", { count: skipped })}</button>`}
      ${onUndo && html`<button onClick=${onUndo}><${Icon} name="undo-2" />${t("action.undo")}</button>`}
    </div>
  <//>`;
}

function Bar({ progress, reviewer, onLeave }) {
  const { waiting, reviewed, reviewers } = progress ?? {};
  const mine = reviewers?.find((each) => isSamePerson(each.reviewer, reviewer))?.reviewed ?? 0;
  const counted = ({ count, exact }) => `${integer(count)}${exact ? "" : "+"}`;
  return html`<section class="panel"><div class="row">
    ${progress && html`
      <progress class="grow" aria-label=${t("review.share")} value=${reviewed.count}
        max=${Math.max(reviewed.count + waiting.count, 1)}></progress>
      <span>${t("review.progress", { waiting: counted(waiting), reviewed: counted(reviewed), mine: integer(mine) })}</span>`}
    <span class="push soft">${t("review.as", { reviewer })}</span>
    <button class="plain" onClick=${onLeave}>${t("review.change")}</button>
  </div></section>`;
}
