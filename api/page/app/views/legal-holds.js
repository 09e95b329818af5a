/** All legal holds, active and released, with who set and released them, and why. */

import { useState } from "../../vendor/hooks.mjs";
import { useResource } from "../api.js";
import { Icon } from "../components/icon.js";
import { ReleaseHold, SetHold, subjectOf } from "../components/legal-holds.js";
import { Resource } from "../components/states.js";
import { Time } from "../components/time.js";
import { html } from "../html.js";
import { changeQuery, href } from "../router.js";
import { useMay } from "../session.js";
import { t } from "../strings.js";

const STATES = ["active", "released"];
const COLUMNS = ["subject", "reason", "set", "released"];
const AT_ONCE = 50;

export function LegalHolds({ query }) {
  const { holds_cursor: cursor } = query;
  const state = STATES.includes(query.holds) ? query.holds : "active";
  const holds = useResource("/v1/legal-holds", { query: { state, cursor, limit: AT_ONCE } });
  const may = useMay("admin");
  const [asking, setAsking] = useState(null); // "set", or the hold to release
  const close = () => setAsking(null);
  return html`<section class="stack" aria-label=${t("holds.title")}>
    <div class="row"><h2>${t("holds.title")}</h2>
      ${STATES.map((name) => html`<button aria-pressed=${name === state}
        onClick=${() => changeQuery({ holds: name === "active" ? "" : name, holds_cursor: "" })}>
        ${t(`holds.state.${name}`)}</button>`)}
      ${may && html`<button onClick=${() => setAsking("set")}><${Icon} name="plus" />${t("holds.set")}</button>`}</div>
    <${Resource} of=${holds}>${({ items, next_cursor: next }) => html`
      ${items.length === 0
        ? html`<p class="soft">${t("holds.none")}</p>`
        : html`<${HoldTable} holds=${items} onRelease=${may && state === "active" ? setAsking : null} />`}
      <div class="row">
        ${cursor && html`<button onClick=${() => changeQuery({ holds_cursor: "" })}>${t("holds.newest")}</button>`}
        ${next && html`<button onClick=${() => changeQuery({ holds_cursor: next })}>${t("holds.older")}</button>`}
      </div>`}<//>
    ${asking === "set" && html`<${SetHold} onSet=${holds.reload} onClose=${close} />`}
    ${asking?.id && html`<${ReleaseHold} hold=${asking} onReleased=${holds.reload} onClose=${close} />`}
  </section>`;
}

function HoldTable({ holds, onRelease }) {
  return html`<div class="panel flush" tabindex="0"><table>
    <thead><tr>${COLUMNS.map((name) => html`<th>${t(`holds.column.${name}`)}</th>`)}
      ${onRelease && html`<td></td>`}</tr></thead>
    <tbody>${holds.map((hold) => html`<tr key=${hold.id}>
      <td class="anywhere"><a href=${href("/inspections", { lot_id: hold.lot_id, part_id: hold.part_id })}>
        ${subjectOf(hold)}</a></td>
      <td class="anywhere">${hold.reason}</td>
      <td>${hold.actor}, <${Time} at=${hold.created_at} /></td>
      <td class="anywhere">${hold.released_at
        ? html`${hold.released_by}, <${Time} at=${hold.released_at} />: ${hold.release_reason}`
        : "–"}</td>
      ${onRelease && html`<td><button onClick=${() => onRelease(hold)}>${t("holds.release")}</button></td>`}
    </tr>`)}</tbody></table></div>`;
}
