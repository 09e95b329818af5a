/** The states that every view has: loading, empty, and a problem that names its detail. */

import { html } from "../html.js";
import { t } from "../strings.js";
import { Icon } from "./icon.js";

export function Loading() {
  return html`<div class="skeleton" role="status"><span class="visually-hidden">${t("state.loading")}</span></div>`;
}

/** Nothing to show yet, and what to do next. */
export function Empty({ title, children }) {
  return html`<section class="message"><h2>${title}</h2>${children}</section>`;
}

/** A problem of the API: what is wrong, in its words, and a way to try again. */
export function Failure({ problem, retry }) {
  const title = problem.code === "unreachable" ? t("state.unreachable") : t("state.problem");
  return html`<section class="message problem" role="alert">
    <h2><${Icon} name="triangle-alert" /> ${title}</h2>
    <p>${problem.message}</p>
    <p class="soft small"><code>${problem.code}</code></p>
    ${retry && html`<button onClick=${() => retry()}><${Icon} name="refresh-cw" />${t("action.retry")}</button>`}
  </section>`;
}

/**
 * Show a resource (`useResource`): its data by `children`, or the state that it is in.
 *
 * Data that was read before stays visible below a problem.
 */
export function Resource({ of, children }) {
  return html`
    ${of.problem && html`<${Failure} problem=${of.problem} retry=${of.reload} />`}
    ${of.loading && html`<${Loading} />`}
    ${of.data && children(of.data)}
  `;
}
