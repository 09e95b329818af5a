/** Overview: the health of the system in one line, and each recipe at a glance. */

import { useResource } from "../api.js";
import { HealthLine } from "../components/health-line.js";
import { RecipeNeeded } from "../components/recipe-needed.js";
import { Resource } from "../components/states.js";
import { startOfDay } from "../format.js";
import { html } from "../html.js";
import { changeQuery } from "../router.js";
import { t } from "../strings.js";
import { RecipePanel } from "./recipe-panel.js";
import { Retention } from "./retention.js";

/** Periods by name: when they begin, and their buckets. */
const PERIODS = {
  today: { since: () => startOfDay(0), bucket: "hour" },
  week: { since: () => startOfDay(6), bucket: "day" },
  month: { since: () => startOfDay(29), bucket: "day" },
};
const timeZone = Intl.DateTimeFormat().resolvedOptions().timeZone;

export function Overview({ query }) {
  const period = query.period in PERIODS ? query.period : "today";
  const { bucket } = PERIODS[period];
  const since = PERIODS[period].since(); // at midnight, a new day begins on the page, too
  const statistics = useResource("/v1/statistics", {
    query: { recipe: query.recipe, since, bucket, time_zone: timeZone },
    every: 10_000,
  });
  const recipes = useResource("/v1/recipes", { every: 60_000 });
  const chosen = recipes.data?.items.find(({ name }) => name === query.recipe);
  return html`
    <div class="view-head">
      <h1>${t("nav.overview")}</h1><${HealthLine} /><${Periods} chosen=${period} />
    </div>
    <${Resource} of=${recipes}>${({ items: known }) => (known.length === 0
      ? html`<${RecipeNeeded} />`
      : html`<${Resource} of=${statistics}>${({ items }) => html`
          <${Panels} items=${inOrder(items, known)} period=${period} since=${since} />`}<//>`)}<//>
    ${chosen && html`<${Retention} key=${chosen.name} recipe=${chosen} onChanged=${recipes.reload} />`}
  `;
}

function Panels({ items, period, since }) {
  return items.map(({ figures, recipe }) => html`
    <${RecipePanel} key=${recipe.name} figures=${figures} recipe=${recipe} period=${period} since=${since} />`);
}

function Periods({ chosen }) {
  const choose = (name) => changeQuery({ period: name === "today" ? "" : name });
  return html`<div class="actions">${Object.keys(PERIODS).map((name) => html`
    <button aria-pressed=${name === chosen} onClick=${() => choose(name)}>${t(`overview.${name}`)}</button>`)}
  </div>`;
}

/** The active recipes: those that inspect first, the ones with the most images on top; references last. */
function inOrder(items, known) {
  const byName = new Map(known.map((recipe) => [recipe.name, recipe]));
  const isReference = ({ recipe }) => Number(recipe.role === "reference");
  return items
    .map((figures) => ({ figures, recipe: byName.get(figures.recipe) }))
    .filter(({ recipe }) => recipe?.state === "active")
    .toSorted((one, other) =>
      isReference(one) - isReference(other) || other.figures.totals.total - one.figures.totals.total);
}
