/** Who reviewed what, newest first. What waits for a second review hides the verdicts of others. */

import { useEffect } from "../../vendor/hooks.mjs";
import { useResource } from "../api.js";
import { Resource } from "../components/states.js";
import { Time } from "../components/time.js";
import { Verdict } from "../components/verdict.js";
import { html } from "../html.js";
import { REVIEWED, isSamePerson } from "../reviewing.js";
import { href } from "../router.js";
import { t } from "../strings.js";

const TITLES = [
  "filter.part_id", "review.machine", "review.person", "filter.reviewer", "review.reason", "review.when",
];

export function Reviewed({ recipe, reviewer }) {
  const reviews = useResource("/v1/reviews", { query: { recipe, limit: 20 }, every: 10_000 });
  useEffect(() => {
    const reload = () => reviews.reload();
    addEventListener(REVIEWED, reload);
    return () => removeEventListener(REVIEWED, reload);
  }, [reviews.reload]);
  return html`<section class="stack">
    <h2>${t("review.recent")}</h2>
    <${Resource} of=${reviews}>${({ items }) => (items.length === 0
      ? html`<p class="soft">${t("review.recent.none")}</p>`
      : html`<div class="panel flush" tabindex="0"><table>
          <thead><tr>${TITLES.map((title) => html`<th>${t(title)}</th>`)}</tr></thead>
          <tbody>${items.map((each) => html`<${Row} key=${each.id} review=${each} recipe=${recipe} reviewer=${reviewer} />`)}</tbody>
        </table></div>`)}<//>
  </section>`;
}

function Row({ review, recipe, reviewer }) {
  const isHidden = review.is_waiting && !review.retracted_at && !isSamePerson(review.reviewer, reviewer);
  const link = href(`/inspections/${review.inspection_id}`, { recipe });
  return html`<tr class=${review.retracted_at ? "retracted" : ""}>
    <td><a class="name" href=${link} title=${review.part_id}>${review.part_id ?? review.inspection_id.slice(-12)}</a></td>
    <td>${review.machine_verdict && html`<${Verdict} value=${review.machine_verdict} />`}</td>
    <td>${isHidden ? t("review.hidden") : html`<${Verdict} value=${review.verdict} />`}</td>
    <td>${review.reviewer}</td>
    <td>
      ${isHidden ? "" : review.reason}
      ${review.retracted_at && html` <em class="soft">(${t("review.retracted")})</em>`}
    </td>
    <td><${Time} at=${review.created_at} /></td>
  </tr>`;
}
