/** API keys: create one, which is shown once, and revoke. */

import { useState } from "../../vendor/hooks.mjs";
import { call, useResource } from "../api.js";
import { Dialog } from "../components/dialog.js";
import { Icon } from "../components/icon.js";
import { Resource } from "../components/states.js";
import { Time } from "../components/time.js";
import { showToast } from "../components/toast.js";
import { html } from "../html.js";
import { t } from "../strings.js";

const SCOPES = ["submit", "read", "admin"];

export function Keys() {
  const keys = useResource("/v1/api-keys");
  const [asking, setAsking] = useState(null); // "create", or the key to revoke
  const [created, setCreated] = useState(null);
  const [problem, setProblem] = useState(null);
  const create = async (event) => {
    event.preventDefault();
    const fields = new FormData(event.target);
    const expires = fields.get("expires_at");
    try {
      const json = { name: fields.get("name"), scopes: fields.getAll("scopes"), ...(expires && { expires_at: new Date(expires).toISOString() }) };
      setCreated(await call("/v1/api-keys", { method: "POST", json }));
      setAsking(null);
      keys.reload();
    } catch (refusal) {
      setProblem(refusal);
    }
  };
  const revoke = async () => {
    try {
      await call(`/v1/api-keys/${encodeURIComponent(asking.prefix)}`, { method: "DELETE" });
    } catch (refusal) {
      showToast(refusal.message);
    }
    setAsking(null);
    keys.reload();
  };
  const open = (what) => {
    setProblem(null);
    setAsking(what);
  };
  return html`<section class="stack"><div class="row"><h2>${t("keys.title")}</h2><button onClick=${() => open("create")}><${Icon} name="plus" />${t("keys.create")}</button></div>
    <${Resource} of=${keys}>${({ items }) => (items.length === 0
      ? html`<p class="soft">${t("keys.none")}</p>`
      : html`<div class="panel flush" tabindex="0"><table><thead><tr>${["name", "prefix", "scopes", "since", "used", "expires"].map((name) => html`<th>${t(`keys.${name}`)}</th>`)}<th></th></tr></thead>
        <tbody>${items.map((key) => html`<tr class=${key.revoked_at ? "retracted" : ""}><td>${key.name}</td><td><code>${key.prefix}</code></td><td>${key.scopes.join(", ")}</td><td><${Time} at=${key.created_at} /></td>
          <td><${Time} at=${key.last_used_at} /></td><td><${Time} at=${key.expires_at} /></td><td>${!key.revoked_at && html`<button onClick=${() => open(key)}>${t("keys.revoke")}</button>`}</td></tr>`)}</tbody></table></div>`)}<//>
    ${asking === "create" && html`<${Dialog} title=${t("keys.create")} onClose=${() => setAsking(null)}><form class="stack" onSubmit=${create}>
      <label>${t("keys.name")}<input name="name" required maxlength="200" /></label>
      <fieldset class="row"><legend>${t("keys.scopes")}</legend>${SCOPES.map((scope) => html`<label class="inline"><input type="checkbox" name="scopes" value=${scope} defaultChecked=${scope === "read"} />${scope}</label>`)}</fieldset>
      <label>${t("keys.expires")}<input type="datetime-local" name="expires_at" /></label>
      ${problem && html`<p role="alert" class="light ng">${problem.message}</p>`}
      <div class="row"><button class="primary">${t("keys.create")}</button><button type="button" onClick=${() => setAsking(null)}>${t("action.back")}</button></div></form><//>`}
    ${asking?.prefix && html`<${Dialog} title=${t("keys.revoke.title", { name: asking.name })} onClose=${() => setAsking(null)}><p>${t("keys.revoke.text")}</p>
      <div class="row"><button class="primary" onClick=${revoke}>${t("keys.revoke")}</button><button onClick=${() => setAsking(null)}>${t("action.back")}</button></div><//>`}
    ${created && html`<${Dialog} title=${t("keys.created", { name: created.name })} onClose=${() => setCreated(null)}><p>${t("keys.once")}</p><p><code class="secret">${created.key}</code></p>
      <div class="row"><button class="primary" onClick=${() => navigator.clipboard.writeText(created.key)}>${t("keys.copy")}</button><button onClick=${() => setCreated(null)}>${t("action.close")}</button></div><//>`}
  </section>`;
}
