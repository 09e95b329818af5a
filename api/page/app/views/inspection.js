/** One inspection: the image with its heatmap, why the verdict is what it is, and what a person may do about it. */

import { useResource } from "../api.js";
import { Icon } from "../components/icon.js";
import { InspectionImage } from "../components/inspection-image.js";
import { nameOf, thumbnailOf } from "../components/inspection-card.js";
import { Holds, OnHold, useHolds } from "../components/legal-holds.js";
import { Resource } from "../components/states.js";
import { showToast } from "../components/toast.js";
import { Verdict, outcome } from "../components/verdict.js";
import { html } from "../html.js";
import { useKeys } from "../keys.js";
import { go, href } from "../router.js";
import { t } from "../strings.js";
import { Facts, Rescores, Reviews, Why } from "./inspection-panels.js";

export function InspectionView({ id, query }) {
  const inspection = useResource(`/v1/inspections/${id}`, { every: 10_000 });
  return html`<${Resource} of=${inspection}>${(data) => html`
    <${Loaded} key=${id} inspection=${data} query=${query} reload=${inspection.reload} />`}<//>`;
}

function Loaded({ inspection, query, reload }) {
  const holds = useHolds(inspection);
  return html`
    <div class="view-head">
      <h1>${nameOf(inspection)}</h1><${Verdict} value=${outcome(inspection)} /><${OnHold} holds=${holds} />
      <div class="actions"><${Neighbours} id=${inspection.id} query=${query} /><${Share} /></div>
    </div>
    <div class="inspection">
      <section class="panel"><${InspectionImage} inspection=${inspection} /></section>
      <div class="stack">
        <${Why} inspection=${inspection} />
        <${Reviews} inspection=${inspection} reload=${reload} />
        <${Holds} of=${inspection} holds=${holds} />
        <${Facts} inspection=${inspection} />
        <${Rescores} inspection=${inspection} />
      </div>
    </div>
    ${inspection.status === "completed" && html`<${NearestGood} inspection=${inspection} query=${query} />`}
  `;
}

/** The next and the previous inspection of the filter in the address, by button and by key. */
function Neighbours({ id, query }) {
  const neighbours = useResource(`/v1/inspections/${id}/neighbours`, { query });
  const open = (other) => other && go(href(`/inspections/${other}`, query), { replace: true });
  const { newer, older } = neighbours.data ?? {};
  const [openNewer, openOlder] = [() => open(newer), () => open(older)];
  useKeys({ j: openOlder, ArrowRight: openOlder, k: openNewer, ArrowLeft: openNewer });
  return html`
    <button disabled=${!newer} onClick=${openNewer} title="k, ←">
      <${Icon} name="chevron-left" />${t("inspection.newer")}
    </button>
    <button disabled=${!older} onClick=${openOlder} title="j, →">
      ${t("inspection.older")}<${Icon} name="chevron-right" />
    </button>`;
}

function Share() {
  const share = async () => {
    try {
      await navigator.clipboard.writeText(location.href);
      showToast(t("inspection.shared"));
    } catch {
      showToast(location.href); // without TLS, browsers give no access to the clipboard
    }
  };
  return html`<button onClick=${share}><${Icon} name="share-2" />${t("inspection.share")}</button>`;
}

/** Good parts that look most like this one, to compare with. */
function NearestGood({ inspection, query }) {
  const similar = useResource(`/v1/inspections/${inspection.id}/similar`, { query: { limit: 6 } });
  return html`<section class="stack"><h2>${t("inspection.similar")}</h2>
    <${Resource} of=${similar}>${({ items }) => (items.length === 0
      ? html`<p class="soft">${t("inspection.similar.none")}</p>`
      : html`<div class="strip">${items.map((good) => html`
          <a href=${href(`/inspections/${good.id}`, query)} title=${nameOf(good)}>
            <img src=${thumbnailOf(good.id)} alt=${t("card.image", { name: nameOf(good) })} width="256" height="256" />
          </a>`)}</div>`)}<//>
  </section>`;
}
