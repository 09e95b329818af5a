/** The audit log: who changed what, and when, with filters in the address. */

import { useResource } from "../api.js";
import { Resource } from "../components/states.js";
import { Time } from "../components/time.js";
import { html } from "../html.js";
import { changeQuery } from "../router.js";
import { t } from "../strings.js";

const FILTERS = ["actor", "action", "subject"];

export function AuditLog({ query }) {
  const filter = Object.fromEntries(FILTERS.map((name) => [name, query[name]]));
  const events = useResource("/v1/audit-events", { query: { ...filter, cursor: query.audit_cursor, limit: 50 } });
  return html`<section class="stack"><h2>${t("audit.title")}</h2>
    <form class="row end" onSubmit=${(event) => event.preventDefault()}>${FILTERS.map((name) => html`<label>${t(`audit.${name}`)}<input type="search" size="22" value=${query[name] ?? ""} onChange=${(event) => changeQuery({ [name]: event.target.value, audit_cursor: "" })} /></label>`)}</form>
    <${Resource} of=${events}>${({ items, next_cursor: next }) => (items.length === 0
      ? html`<p class="soft">${t("audit.none")}</p>`
      : html`<div class="panel flush" tabindex="0"><table><thead><tr><th>${t("audit.at")}</th>${FILTERS.map((name) => html`<th>${t(`audit.${name}`)}</th>`)}<th>${t("audit.detail")}</th></tr></thead>
        <tbody>${items.map((each) => html`<tr key=${each.id}><td><${Time} at=${each.at} /></td><td>${each.actor}</td><td>${each.action}</td><td>${each.subject}</td>
          <td class="soft small">${Object.entries(each.detail).map(([name, value]) => `${name}: ${typeof value === "string" ? value : JSON.stringify(value)}`).join(", ")}</td></tr>`)}</tbody></table></div>
        <div class="row">${query.audit_cursor && html`<button onClick=${() => changeQuery({ audit_cursor: "" })}>${t("audit.newest")}</button>`}${next && html`<button onClick=${() => changeQuery({ audit_cursor: next })}>${t("audit.older")}</button>`}</div>`)}<//></section>`;
}
