/** Views of one recipe ask for it where the address has none. */

import { useResource } from "../api.js";
import { html } from "../html.js";
import { changeQuery } from "../router.js";
import { t } from "../strings.js";
import { Empty, Resource } from "./states.js";

/** The path of a recipe in the API. */
export const recipePath = (name) => `/v1/recipes/${encodeURIComponent(name)}`;

export function RecipeNeeded() {
  const recipes = useResource("/v1/recipes");
  return html`<${Resource} of=${recipes}>${({ items }) => (items.length === 0
    ? html`<${None} />`
    : html`<${Choice} items=${items} />`)}<//>`;
}

function None() {
  return html`<${Empty} title=${t("recipe.none")}>
    <p>${t("recipe.none.next")}</p>
    <code>linewatch train --recipe NAME --data DIR</code>
  <//>`;
}

function Choice({ items }) {
  return html`<${Empty} title=${t("recipe.choose")}>
    <div class="row">${items.map(({ name }) => html`
      <button onClick=${() => changeQuery({ recipe: name })}>${name}</button>`)}
    </div>
  <//>`;
}
