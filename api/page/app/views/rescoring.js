/** Re-scoring: runs with their progress, newest first, and the schedules that create them. */

import { useState } from "../../vendor/hooks.mjs";
import { call, useResource } from "../api.js";
import { Icon } from "../components/icon.js";
import { ProblemLine } from "../components/problem-line.js";
import { Empty, Resource } from "../components/states.js";
import { html } from "../html.js";
import { href } from "../router.js";
import { useMay } from "../session.js";
import { t } from "../strings.js";
import { Run } from "./rescore-run.js";
import { Schedules } from "./rescore-schedules.js";
import { StartRun } from "./start-run.js";

const PATH = "/v1/rescore-runs";
const PAGE = 20;

export function Rescoring({ query }) {
  return html`<${OfRecipe} key=${query.recipe} recipe=${query.recipe} />`;
}

function OfRecipe({ recipe }) {
  const runs = useRuns(recipe);
  const schedules = useResource("/v1/rescore-schedules", { every: 30_000 });
  const [starting, setStarting] = useState(false);
  const may = useMay("admin");
  const reload = () => {
    runs.reload();
    schedules.reload();
  };
  return html`
    <div class="view-head"><h1>${t("nav.rescoring")}</h1><p>${t("rescoring.text")}</p>
      ${may && html`<div class="actions"><button class="primary" onClick=${() => setStarting(true)}>
        <${Icon} name="plus" />${t("rescoring.start")}</button></div>`}
    </div>
    <${Resource} of=${runs.newest}>${() => (runs.items.length === 0
      ? html`<${Empty} title=${t("rescoring.none")}>${may && html`<p>${t("rescoring.none.next")}</p>`}<//>`
      : runs.items.map((run) => html`<${Run} key=${run.id} run=${run} may=${may} onChanged=${runs.replace} />`))}<//>
    ${runs.more && html`<div><button onClick=${runs.more}>${t("rescoring.older")}</button></div>`}
    <${ProblemLine} problem=${runs.problem} />
    <${Schedules} schedules=${schedules} recipe=${recipe} may=${may} />
    ${starting && html`<${StartRun} recipe=${recipe} onClose=${() => setStarting(false)} onStarted=${reload} />`}
  `;
}

/**
 * The runs, newest first. The newest are read again and again, older ones page by page when a person asks for them.
 *
 * @returns {{newest: object, items: object[], more: ?function, problem: ?Error, reload: function, replace: function}}
 *   `more` reads a page of older runs, and is null once there are none; `replace` shows a run as it is after a change.
 */
function useRuns(recipe) {
  const newest = useResource(PATH, { query: { recipe, limit: PAGE }, every: 3_000 });
  const [older, setOlder] = useState({ items: [], cursor: null, read: false });
  const [problem, setProblem] = useState(null);
  const fresh = newest.data?.items ?? [];
  const known = new Set(fresh.map(({ id }) => id));
  const cursor = older.read ? older.cursor : newest.data?.next_cursor;
  const more = async () => {
    setProblem(null);
    try {
      const page = await call(href(PATH, { recipe, limit: PAGE, cursor }));
      // The newest are kept, too: new runs push them out of the first page.
      const items = [...(older.read ? older.items : fresh), ...page.items];
      setOlder({ items, cursor: page.next_cursor, read: true });
    } catch (refusal) {
      setProblem(refusal);
    }
  };
  const replace = (run) => {
    setOlder((before) => ({ ...before, items: before.items.map((each) => (each.id === run.id ? run : each)) }));
    newest.reload();
  };
  const items = [...fresh, ...older.items.filter(({ id }) => !known.has(id))];
  return { newest, items, more: cursor ? more : null, problem, reload: newest.reload, replace };
}
