/** Gallery and search: all filters of the listing, kept in the address; more are read as one scrolls. */

import { useEffect, useRef, useState } from "../../vendor/hooks.mjs";
import { call } from "../api.js";
import { Icon } from "../components/icon.js";
import { InspectionCard } from "../components/inspection-card.js";
import { SelectionBar } from "../components/selection.js";
import { Empty, Failure, Loading } from "../components/states.js";
import { html } from "../html.js";
import { changeQuery, go, href } from "../router.js";
import { t, tCode } from "../strings.js";

const PAGE = 60;
const VERDICTS = ["ok", "ng", "review"];
const STATUSES = ["queued", "running", "completed", "failed", "cancelled"];
const LABELS = ["part_id", "lot_id", "line_id", "station_id", "batch_id"];
/** The filters of the listing, as they stand in the address. */
const FILTERS = [
  "recipe", ...LABELS, "verdict", "effective_verdict", "reviewed", "reviewer", "status", "since", "until",
  "min_score", "max_score", "model_version",
];

export function Gallery({ query }) {
  const filter = Object.fromEntries(FILTERS.filter((name) => query[name]).map((name) => [name, query[name]]));
  const listing = useListing(filter);
  const selection = useSelection(listing.items);
  return html`
    <div class="view-head"><h1>${t("nav.inspections")}</h1>
      <div class="actions">
        <a class="button" href=${href("/v1/inspections/export", { ...filter, format: "csv" })} download>${t("gallery.export", { format: "CSV" })}</a>
        <a class="button" href=${href("/v1/inspections/export", { ...filter, format: "parquet" })} download>${t("gallery.export", { format: "Parquet" })}</a>
      </div>
    </div>
    <${Filters} query=${query} />
    ${listing.problem && html`<${Failure} problem=${listing.problem} retry=${listing.more} />`}
    ${listing.ended && listing.items.length === 0 && html`<${NothingFound} filtered=${Object.keys(filter).some((name) => name !== "recipe")} />`}
    <div class="gallery">
      ${listing.items.map((inspection, index) => html`<${InspectionCard}
        key=${inspection.id} inspection=${inspection} query=${filter}
        selected=${selection.ids.has(inspection.id)} onSelect=${(event) => selection.toggle(index, event.shiftKey)} />`)}
    </div>
    ${!listing.ended && !listing.problem && html`<${More} onVisible=${listing.more} count=${listing.items.length} />`}
    ${selection.ids.size > 0 && html`<${SelectionBar} selected=${listing.items.filter(({ id }) => selection.ids.has(id))} onClear=${selection.clear} onChanged=${listing.replace} />`}
  `;
}

function NothingFound({ filtered }) {
  return filtered
    ? html`<${Empty} title=${t("gallery.nothing")}><p>${t("gallery.nothing.filter")}</p>
        <button onClick=${() => go("/inspections")}>${t("gallery.reset")}</button><//>`
    : html`<${Empty} title=${t("gallery.none")}><p>${t("gallery.none.next")}</p><code>linewatch submit part.jpg --recipe NAME --wait</code><//>`;
}

/** The pages of the listing that were read so far. */
function useListing(filter) {
  const key = JSON.stringify(filter);
  const [state, setState] = useState({ key, items: [], cursor: null, ended: false, problem: null });
  const reading = useRef(null);
  const shown = state.key === key ? state : { key, items: [], cursor: null, ended: false, problem: null };
  const more = async () => {
    if (reading.current === key || shown.ended) return;
    reading.current = key;
    try {
      const page = await call(href("/v1/inspections", { ...filter, limit: PAGE, cursor: shown.cursor }));
      if (reading.current === key) {
        setState({ key, items: [...shown.items, ...page.items], cursor: page.next_cursor, ended: !page.next_cursor, problem: null });
      }
    } catch (problem) {
      if (reading.current === key) setState({ ...shown, problem });
    } finally {
      if (reading.current === key) reading.current = null;
    }
  };
  useEffect(() => {
    more();
  }, [key]);
  const replace = (changed) => {
    const byId = new Map(changed.map((inspection) => [inspection.id, inspection]));
    setState((before) => ({ ...before, items: before.items.map((each) => byId.get(each.id) ?? each) }));
  };
  return { ...shown, more, replace };
}

/** The selected inspections; with shift, all between the last click and this one. */
function useSelection(items) {
  const [ids, setIds] = useState(new Set());
  const last = useRef(null);
  const toggle = (index, range) => {
    const changed = new Set(ids);
    const on = !changed.has(items[index].id);
    const from = range && last.current !== null ? Math.min(last.current, index) : index;
    const to = range && last.current !== null ? Math.max(last.current, index) : index;
    for (const { id } of items.slice(from, to + 1)) changed[on ? "add" : "delete"](id);
    last.current = index;
    setIds(changed);
  };
  return { ids, toggle, clear: () => setIds(new Set()) };
}

/** Reads more once it comes near the visible part of the page. */
function More({ onVisible, count }) {
  const place = useRef(null);
  const read = useRef(onVisible);
  read.current = onVisible;
  useEffect(() => {
    const observer = new IntersectionObserver(([entry]) => entry.isIntersecting && read.current(), { rootMargin: "1200px" });
    observer.observe(place.current);
    return () => observer.disconnect();
  }, [count]);
  return html`<div ref=${place}><${Loading} /></div>`;
}

function Filters({ query }) {
  const change = (name) => (event) => changeQuery({ [name]: event.target.value });
  const choice = (name, values, group) => html`<label>${t(`filter.${name}`)}
    <select value=${query[name] ?? ""} onChange=${change(name)}>
      <option value="">${t("filter.any")}</option>
      ${values.map((value) => html`<option value=${value}>${tCode(group, value)}</option>`)}
    </select></label>`;
  const text = (name, type = "text") => html`<label>${t(`filter.${name}`)}
    <input type=${type} value=${query[name] ?? ""} size="12" step="any" onChange=${change(name)} /></label>`;
  const moment = (name) => html`<label>${t(`filter.${name}`)}
    <input type="datetime-local" value=${toLocalInput(query[name])} onChange=${(event) => changeQuery({ [name]: fromLocalInput(event.target.value) })} /></label>`;
  const further = [...LABELS, "status", "reviewed", "reviewer", "verdict", "min_score", "max_score", "model_version"].some((name) => query[name]);
  return html`<form class="panel" role="search" onSubmit=${(event) => event.preventDefault()}>
    <button class="visually-hidden" tabindex="-1">${t("gallery.search")}</button>
    <div class="row end">
      ${choice("effective_verdict", VERDICTS, "verdict")} ${text("part_id", "search")} ${text("lot_id", "search")} ${moment("since")} ${moment("until")}
      <button type="button" class="plain" onClick=${() => go(href("/inspections", { recipe: query.recipe }))}><${Icon} name="rotate-ccw" />${t("gallery.reset")}</button>
    </div>
    <details open=${further}><summary>${t("filter.more")}</summary>
      <div class="row end">
        ${text("line_id", "search")} ${text("station_id", "search")} ${choice("status", STATUSES, "verdict")} ${choice("verdict", VERDICTS, "verdict")}
        ${choice("reviewed", ["any", "none", "ok", "ng"], "reviewed")} ${text("reviewer", "search")}
        ${text("min_score", "number")} ${text("max_score", "number")} ${query.recipe && text("model_version", "number")} ${text("batch_id", "search")}
      </div>
    </details>
  </form>`;
}

/** RFC 3339 to the value of a date field in the browser's zone, and back. */
function toLocalInput(moment) {
  if (!moment) return "";
  const date = new Date(moment);
  return new Date(date.getTime() - date.getTimezoneOffset() * 60_000).toISOString().slice(0, 16);
}
const fromLocalInput = (value) => (value ? new Date(value).toISOString() : "");
