/** A table of the view System, under its title. */

import { html } from "../html.js";
import { t } from "../strings.js";

/**
 * @param {string} title a key of the strings; `head` are the ends of such keys.
 * @param {{key: string, cells: any[], more?: any}[]} rows `more` is shown below a row.
 * @param {string | null} empty the key of the text that is shown without rows.
 */
export function Table({ title, head, rows, empty = null }) {
  return html`<section class="stack" aria-label=${t(title)}><h2>${t(title)}</h2>${rows.length === 0 && empty
    ? html`<p class="soft">${t(empty)}</p>`
    : html`<div class="panel flush" tabindex="0"><table>
        <thead><tr>${head.map((name) => html`<th>${t(`system.column.${name}`)}</th>`)}</tr></thead>
        <tbody>${rows.map(({ key, cells, more }) => html`
          <tr key=${key}>${cells.map((cell) => html`<td>${cell}</td>`)}</tr>
          ${more && html`<tr key=${`${key} more`}><td colspan=${head.length}>${more}</td></tr>`}`)}</tbody>
      </table></div>`}</section>`;
}
